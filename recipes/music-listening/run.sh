#!/usr/bin/env bash
# After the abstract; details are ours: towers for lyrics, sound and pictures of songs that learn from each other, on a generated
# community. Every stage may be run again; finished runs are kept.
set -euo pipefail

usage() {
    cat <<'HELP'
Usage: run.sh [--stage N] [--stop_stage N] [--exp DIR] [--out DIR] [--jobs N] [-- settings]

  --stage N        first stage: 1 train and evaluate one experiment, 2 the study   (default 1)
  --stop_stage N   last stage                                                      (default 2)
  --exp DIR        folder of the experiment                                        (default exp/mutual)
  --out DIR        folder of the study                                             (default studies/modalities)
  --jobs N         runs at once; 0 is one a core                                   (default 0)

What follows -- goes to `sepml train` and `sepml study`, such as: -- --data.kind folder --data.root my-listening
HELP
}

stage=1 stop_stage=2 exp=exp/mutual out=studies/modalities jobs=0
OPTIONS="stage stop_stage exp out jobs"
. "$(dirname "$0")/path.sh"
parse_options "$@"
shift "$PARSED"

if run_stage 1 "train and evaluate"; then
    sepml train -q --config conf/mutual.yaml --exp "$exp" "$@"
    sepml evaluate --model "$exp" -o "$exp/evaluation" --force
fi

if run_stage 2 "the study"; then
    OMP_NUM_THREADS=1 sepml study modalities.yaml -o "$out" -j "$jobs" "$@"
fi
