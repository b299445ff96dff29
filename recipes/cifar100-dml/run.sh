#!/usr/bin/env bash
# Deep mutual learning on CIFAR-100 (Zhang et al., CVPR 2018), and MutualNet's WRN-28-10.
set -euo pipefail

config=conf/dml.yaml
get_data() {
    sepml prepare cifar100 --out "$data"
}
. "$(dirname "$0")/path.sh"
. ../images.sh
