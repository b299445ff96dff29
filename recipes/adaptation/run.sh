#!/usr/bin/env bash
# Learning without references, measured: the pair that comes with sepml on recordings of five speakers whom it never heard, in
# four conditions, beside fine-tuning with references. Every stage may be run again; what is already there is kept.
set -euo pipefail

usage() {
    cat <<'HELP'
Usage: run.sh [--stage N] [--stop_stage N] [--targets "A B"] [--data DIR] [--jobs N] [-- words for sepml study]

  --stage N        first stage: 0 corpus, 1 recordings and tests, 2 train and score    (default 0)
  --stop_stage N   last stage                                                          (default 2)
  --targets "A B"  of clean, noise, room, telephone                                    (default all)
  --data DIR       where the corpus and the mixtures go                                (default data/full)
  --jobs N         processes; 0 is all cores                                           (default 0)
HELP
}

stage=0 stop_stage=2 targets="clean noise room telephone" data=data/full jobs=0
OPTIONS="stage stop_stage targets data jobs"
. "$(dirname "$0")/path.sh"
parse_options "$@"
shift "$PARSED"

if run_stage 0 "corpus"; then
    sepml prepare prompts --size full --out "$data" --jobs "$jobs"
fi

if run_stage 1 "recordings and tests"; then
    sepml mix --dynamic conf/targets/*.yaml --root "$data" --out "$data/targets" --jobs "$jobs" >/dev/null
fi

if run_stage 2 "train and score"; then
    for target in $targets; do
        sepml study "$target.yaml" -o "studies/$target" --data.root "$data" -j "$jobs" "$@"
    done
    {
        echo "# Learning without references: results"
        echo
        echo "Written by \`run.sh\`; [README.md](README.md) says what the rows are."
        for target in $targets; do sed 's/^#/##/' "studies/$target/RESULTS.md" | sed '1s/^/\n/'; done
    } >RESULTS.md
fi
