#!/usr/bin/env bash
# Deep mutual learning for re-identification on Market-1501 (Zhang et al., CVPR 2018).
set -euo pipefail

config=conf/dml.yaml
get_data() {
    need_folders "ask its authors for Market-1501 (research only)" bounding_box_train bounding_box_test query
}
. "$(dirname "$0")/path.sh"
. ../images.sh
