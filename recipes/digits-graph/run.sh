#!/usr/bin/env bash
# Graph mutual learning on a graph of digits and on small graphs, on a CPU, with nothing to fetch. Every stage may be run
# again; what is already there is kept.
set -euo pipefail

usage() {
    cat <<'HELP'
Usage: run.sh [--stage N] [--stop_stage N] [other options] [-- --KEY VALUE ...]

  --stage N        first stage: 1 train one pair by graph mutual learning, 2 evaluate it, 3 a frozen network teaches an MLP,
                   4 the studies                                  (default 1)
  --stop_stage N   last stage                                     (default 4)
  --config FILE    the experiment of stage 1                      (default conf/gml.yaml)
  --exp DIR        folder of the experiments                      (default exp)
  --studies "A B"  of stage 4, names of *.yaml                    (default "digits atlas")
  --jobs N         runs of a study at once; 0 is one a core       (default 0)

What follows -- goes to `sepml train` of stage 1, such as: -- --data.kind cora --data.root data/cora
HELP
}

stage=1 stop_stage=4 config=conf/gml.yaml exp=exp studies="digits atlas" jobs=0
OPTIONS="stage stop_stage config exp studies jobs"
. "$(dirname "$0")/path.sh"
parse_options "$@"
shift "$PARSED"
# The networks are so small that more threads would wait for each other.
export OMP_NUM_THREADS=1

if run_stage 1 "train"; then
    sepml train --config "$config" --exp "$exp/pair" "$@"
fi

if run_stage 2 "evaluate"; then
    sepml evaluate --model "$exp/pair" -o "$exp/pair/evaluation"
fi

if run_stage 3 "a frozen network teaches an MLP"; then
    sepml train --config conf/mlp-kd.yaml --exp "$exp/mlp" \
        --peers.1.init "$exp/pair/peer1" --peers.1.frozen true
    sepml evaluate --model "$exp/mlp" -o "$exp/mlp/evaluation"
fi

if run_stage 4 "studies"; then
    for study in $studies; do
        sepml study "$study.yaml" -o "studies/$study" -j "$jobs"
    done
fi
