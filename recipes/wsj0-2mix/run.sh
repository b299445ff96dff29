#!/usr/bin/env bash
# wsj0-2mix and wsj0-3mix from the LDC's discs and the published lists: corpus, mixtures, training, separation, scores.
# Every stage may be run again; what is already there is kept.
set -euo pipefail

usage() {
    cat <<'HELP'
Usage: run.sh --ldc DIR --lists DIR [--stage N] [--stop_stage N] [--config FILE] [other options] [-- --KEY VALUE ...]

  --ldc DIR        the discs of LDC93S6A, in any layout (needed by stage 0)
  --lists DIR      the published mix_*_spk_*.txt, and activlev/ (needed by stages 0 and 1)
  --stage N        first stage: 0 sphere files, 1 mix + check, 2 train, 3 separate, 4 score   (default 0)
  --stop_stage N   last stage                                                            (default 4)
  --config FILE    the experiment                                                        (default conf/sml.yaml)
  --tag NAME       name of the experiment                                                (default: the config's name)
  --exp DIR        folder of the experiment                                              (default exp/TAG)
  --n_src N        talkers in a mixture: 2 or 3                                          (default 2)
  --sample_rate N  8000 or 16000                                                         (default 8000)
  --mode NAME      min (cut to the shorter utterance) or max (padded to the longer)      (default min)
  --tests "A B"    test sets                                                             (default tt)
  --data DIR       where the corpus and the mixtures go                                  (default data)
  --jobs N         processes for data and scoring; 0 is all cores                        (default 0)

DIRs are relative to where run.sh is called, --data, --exp and --config to the recipe's folder.
What follows -- goes to `sepml train`, such as: -- --fit.epochs 5 --seed 1
HELP
}

stage=0 stop_stage=4 ldc= lists= config=conf/sml.yaml tag= exp= n_src=2 sample_rate=8000 mode=min tests=tt data=data jobs=0
OPTIONS="stage stop_stage ldc lists config tag exp n_src sample_rate mode tests data jobs"
called_from=$PWD
. "$(dirname "$0")/path.sh"
parse_options "$@"
shift "$PARSED"
tag=${tag:-$(basename "$config" .yaml)}
exp=${exp:-exp/$tag}
mixtures=$data/${n_src}speakers/wav$((sample_rate / 1000))k/$mode

needs() {
    [ -n "${!1}" ] || { echo "run.sh: stage $2 needs --$1 DIR; see --help" >&2; exit 2; }
    case ${!1} in /*) ;; *) printf -v "$1" %s "$called_from/${!1}" ;; esac
    [ -d "${!1}" ] || { echo "run.sh: --$1 ${!1}: no such folder" >&2; exit 2; }
}

if run_stage 0 "sphere files"; then
    needs ldc 0
    needs lists 0
    sepml prepare wsj0 --ldc "$ldc" --out "$data" --names "$lists" --jobs "$jobs"
fi

if run_stage 1 "mix and check"; then
    needs lists 1
    levels=()
    if [ -d "$lists/activlev" ]; then levels=(--levels "$lists/activlev"); fi
    sepml mix --list "$lists"/mix_"$n_src"_spk_{tr,cv,tt}.txt --root "$data" --out "$data/${n_src}speakers" \
        --sample-rate "$sample_rate" --mode "$mode" "${levels[@]}" --jobs "$jobs" >/dev/null
    sepml check "$mixtures" --list "$lists"/mix_"$n_src"_spk_{tr,cv,tt}.txt --jobs "$jobs"
fi

if run_stage 2 "train"; then
    kind=(--data.root "$mixtures" --data.sample_rate "$sample_rate")
    for peer in 0 1; do
        kind+=(--peers.$peer.sample_rate "$sample_rate" --peers.$peer.n_src "$n_src")
    done
    sepml train --config "$config" --exp "$exp" "${kind[@]}" "$@"
fi

if run_stage 3 "separate"; then
    separate_tests
fi

if run_stage 4 "score"; then
    score_tests
fi
