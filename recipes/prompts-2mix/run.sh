#!/usr/bin/env bash
# Two people talking at once, recorded voices from Debian packages: corpus, mixtures, training, separation, scores.
# Every stage may be run again; what is already there is kept.
set -euo pipefail

usage() {
    cat <<'HELP'
Usage: run.sh [--stage N] [--stop_stage N] [--config FILE] [--tag NAME] [other options] [-- --KEY VALUE ...]

  --stage N        first stage: 0 corpus, 1 mix + check, 2 train, 3 separate, 4 score    (default 0)
  --stop_stage N   last stage                                                            (default 4)
  --config FILE    the experiment                                                        (default conf/sml.yaml)
  --tag NAME       name of the experiment                                                (default: the config's name)
  --exp DIR        folder of the experiment                                              (default exp/TAG)
  --corpus NAME    prompts, or synthetic where there is no apt-get                       (default prompts)
  --size NAME      of the prompts corpus: core (18 voices) or full (54)                  (default core)
  --corpus_opts S  further words for `sepml prepare`                                     (default none)
  --tests "A B"    test sets                                                             (default "tt_seen tt_unseen")
  --shipped WORD   yes: separate and score with the pair that comes with sepml, too      (default no)
  --data DIR       where the corpus and the mixtures go                                  (default data/CORPUS)
  --jobs N         processes for data and scoring; 0 is all cores                        (default 0)

What follows -- goes to `sepml train`, such as: -- --fit.epochs 5 --seed 1
HELP
}

stage=0 stop_stage=4 config=conf/sml.yaml tag= exp= corpus=prompts size=core corpus_opts= data= jobs=0
shipped=no
tests="tt_seen tt_unseen"
OPTIONS="stage stop_stage config tag exp corpus size corpus_opts tests shipped data jobs"
. "$(dirname "$0")/path.sh"
parse_options "$@"
shift "$PARSED"
tag=${tag:-$(basename "$config" .yaml)}
data=${data:-data/$corpus}
mixtures=$data/wav8k/min
exp=${exp:-exp/$tag}

if run_stage 0 "corpus"; then
    options=(--out "$data" --jobs "$jobs")
    if [ "$corpus" = prompts ]; then options+=(--size "$size"); fi
    # shellcheck disable=SC2086  # words on purpose
    sepml prepare "$corpus" "${options[@]}" $corpus_opts
fi

if run_stage 1 "mix and check"; then
    sepml mix --list "$data"/lists/mix_2_spk_*.txt --root "$data" --out "$data" --jobs "$jobs" >/dev/null
    sepml check "$mixtures" --jobs "$jobs"
fi

if run_stage 2 "train"; then
    sepml train --config "$config" --exp "$exp" --data.root "$data" "$@"
fi

if run_stage 3 "separate"; then
    separate_tests
fi

if run_stage 4 "score"; then
    score_tests
fi
