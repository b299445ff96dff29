#!/usr/bin/env bash
# MutualNet (Yang et al., ECCV 2020) on ImageNet: one network for many widths and resolutions.
set -euo pipefail

config=conf/mobilenet_v1.yaml
get_data() {
    need_folders "get ImageNet, ILSVRC 2012 (research only), from image-net.org" train val
}
. "$(dirname "$0")/path.sh"
. ../images.sh
