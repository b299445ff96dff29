#!/usr/bin/env bash
# Learning without references, measured: the pair that comes with sepml on recordings of five speakers whom it never heard, in
# four conditions, beside fine-tuning with references. Every stage may be run again; what is already there is kept.
set -euo pipefail

usage() {
    cat <<'HELP'
Usage: run.sh [--stage N] [--stop_stage N] [--targets "A B"] [--data DIR] [--jobs N] [-- words for sepml study]

  --stage N        first stage: 0 corpus, 1 recordings and tests, 2 train and score,
                   3 what sepml adapt leaves, 4 results                                (default 0)
  --stop_stage N   last stage                                                          (default 4)
  --targets "A B"  of clean, noise, room, telephone                                    (default all)
  --demo DIR       the pair that `make demo` trains; without it, it is left out        (default ../prompts-2mix/exp/demo)
  --data DIR       where the corpus and the mixtures go                                (default data/full)
  --jobs N         processes; 0 is all cores                                           (default 0)
HELP
}

stage=0 stop_stage=4 targets="clean noise room telephone" demo=../prompts-2mix/exp/demo data=data/full jobs=0
OPTIONS="stage stop_stage targets demo data jobs"
. "$(dirname "$0")/path.sh"
parse_options "$@"
shift "$PARSED"

if run_stage 0 "corpus"; then
    sepml prepare prompts --size full --out "$data" --jobs "$jobs"
fi

if run_stage 1 "recordings and tests"; then
    sepml mix --dynamic conf/targets/*.yaml --root "$data" --out "$data/targets" --jobs "$jobs" >/dev/null
fi

if [ ! -d "$demo/peer2" ]; then
    echo "run.sh: $demo has no pair of networks; its studies are left out, \`make demo\` trains it" >&2
    demo=
fi
studies=$targets
if [ -n "$demo" ]; then studies="$targets demo-clean demo-queen"; fi

if run_stage 2 "train and score"; then
    for study in $studies; do
        from=()
        if [[ $study = demo-* ]]; then from=(--peers.0.init "$demo/peer1" --peers.1.init "$demo/peer2"); fi
        sepml study "$study.yaml" -o "studies/$study" --data.root "$data" "${from[@]}" -j "$jobs" "$@"
    done
fi

if run_stage 3 "what sepml adapt leaves"; then
    mkdir -p adapted
    # shellcheck disable=SC2086  # words on purpose
    python ../../tools/bench/adapting.py --root "$data" --out adapted/shipped --targets $targets >adapted/shipped.md
    if [ -n "$demo" ]; then
        python ../../tools/bench/adapting.py --root "$data" --out adapted/demo --model "$demo" --targets clean queen >adapted/demo.md
    fi
    # shellcheck disable=SC2086
    python ../../tools/bench/own_teachers.py --root "$data" --studies studies --out adapted/own --targets $targets >adapted/own.md
fi

if run_stage 4 "results"; then
    {
        echo "# Learning without references: results"
        echo
        echo "Written by \`run.sh\`; [README.md](README.md) says what the rows are."
        echo
        echo "## What \`sepml adapt\` leaves"
        echo
        echo "SI-SNRi of the average of the pair before and after; blind gains are on new mixtures of the estimates of the old and of"
        echo "the adapted pair, with their standard errors. The pair that comes with sepml:"
        echo
        cat adapted/shipped.md
        if [ -n "$demo" ]; then
            echo
            echo "The pair that \`make demo\` trains, also on two voices of a game (queen):"
            echo
            cat adapted/demo.md
        fi
        echo
        echo "## All conditions together"
        echo
        # shellcheck disable=SC2086
        python ../../tools/bench/adaptation_sum.py --studies studies --targets $targets
        echo
        echo "## Two networks that teach each other, and two that teach themselves"
        echo
        echo "Both by their average; all of the way, before \`sepml adapt\` goes back towards the start."
        echo
        cat adapted/own.md
        for study in $studies labels; do
            [ ! -f "studies/$study/RESULTS.md" ] || sed 's/^#/##/' "studies/$study/RESULTS.md" | sed '1s/^/\n/'
        done
    } >RESULTS.md
fi
