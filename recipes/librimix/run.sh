#!/usr/bin/env bash
# MiniLibriMix (downloaded), Libri2Mix (made of LibriSpeech) or a LibriMix tree that is there: manifests, training,
# separation, scores. Every stage may be run again; what is already there is kept.
set -euo pipefail

usage() {
    cat <<'HELP'
Usage: run.sh [--corpus NAME] [--stage N] [--stop_stage N] [--config FILE] [other options] [-- --KEY VALUE ...]

  --corpus NAME      mini (MiniLibriMix, 640 MB from Zenodo), libri2mix (made of LibriSpeech and the published metadata) or
                     tree (a LibriMix tree that is there)                                  (default mini)
  --librispeech DIR  for libri2mix: the folder with train-clean-100, dev-clean, test-clean
  --metadata DIR     for libri2mix: LibriMix's metadata/Libri2Mix (or Libri3Mix), or one of its files
  --wham DIR         for libri2mix: the folder wham_noise; only for noisy mixtures
  --tree DIR         for tree
  --type NAME        mix_clean, or mix_both with noise                                    (default mix_clean)
  --stage N          first stage: 0 corpus, 1 check, 2 train, 3 separate, 4 score         (default 0)
  --stop_stage N     last stage                                                           (default 4)
  --config FILE      the experiment                                                       (default conf/sml.yaml)
  --tag NAME         name of the experiment                                               (default: CORPUS-TYPE-the config's name)
  --exp DIR          folder of the experiment                                             (default exp/TAG)
  --n_src N          talkers in a mixture                                                 (default 2)
  --sample_rate N    8000 or 16000                                                        (default 8000)
  --mode NAME        min (cut to the shorter utterance) or max (padded to the longer)     (default min)
  --train NAME       split to train on                                                    (default train, or train-100)
  --valid NAME       split that chooses the best epoch                                    (default val, or dev)
  --tests "A B"      test sets                                                            (default val, or test)
  --data DIR         where the corpus and the manifests go                                (default data/CORPUS)
  --url ADDRESS      for mini: a mirror of the archive
  --jobs N           processes for data and scoring; 0 is all cores                       (default 0)

DIRs are relative to where run.sh is called, --data, --exp and --config to the recipe's folder.
What follows -- goes to `sepml train`, such as: -- --fit.epochs 5 --seed 1
HELP
}

stage=0 stop_stage=4 corpus=mini librispeech= metadata= wham= tree= type=mix_clean config=conf/sml.yaml tag= exp= n_src=2
sample_rate=8000 mode=min train= valid= tests= data= url= jobs=0
OPTIONS="stage stop_stage corpus librispeech metadata wham tree type config tag exp n_src sample_rate mode train valid tests"
OPTIONS+=" data url jobs"
called_from=$PWD
. "$(dirname "$0")/path.sh"
parse_options "$@"
shift "$PARSED"

# An input folder or file: given, there, and independent of the folder that this script runs in.
needs() {
    [ -n "${!1}" ] || { echo "run.sh: --corpus $corpus needs --$1; see --help" >&2; exit 2; }
    case ${!1} in /*) ;; *) printf -v "$1" %s "$called_from/${!1}" ;; esac
    [ -e "${!1}" ] || { echo "run.sh: --$1 ${!1}: no such file or folder" >&2; exit 2; }
}

data=${data:-data/$corpus}
case $corpus in
    mini) train=${train:-train} valid=${valid:-val} tests=${tests:-val} splits=$data/MiniLibriMix ;;
    libri2mix) splits=$data/wav$((sample_rate / 1000))k/$mode ;;
    tree)
        needs tree
        splits=$tree/wav$((sample_rate / 1000))k/$mode
        if [ ! -d "$splits" ]; then splits=$tree; fi
        ;;
    *) echo "run.sh: --corpus $corpus: expected mini, libri2mix or tree" >&2; exit 2 ;;
esac
train=${train:-train-100} valid=${valid:-dev} tests=${tests:-test}
tag=${tag:-$corpus-$type-$(basename "$config" .yaml)}
exp=${exp:-exp/$tag}
which=(--types "$type" --sample-rate "$sample_rate" --mode "$mode")

if run_stage 0 "corpus"; then
    case $corpus in
        mini) sepml prepare librimix --corpus mini --out "$data" ${url:+--url "$url"} ;;
        libri2mix)
            needs librispeech
            needs metadata
            if [ -n "$wham" ]; then needs wham; fi
            sepml prepare librimix --librispeech "$librispeech" --metadata "$metadata" ${wham:+--wham "$wham"} \
                --out "$data" "${which[@]}" --jobs "$jobs" >/dev/null
            sepml prepare librimix --tree "$data" --out "$data" "${which[@]}"
            ;;
        tree) sepml prepare librimix --tree "$tree" --out "$data" "${which[@]}" ;;
    esac
fi

if run_stage 1 "check"; then
    for split in $(printf '%s\n' "$train" "$valid" $tests | sort -u); do
        sepml check "$data/mixture_${split}_$type.csv" --jobs "$jobs"
    done
fi

if run_stage 2 "train"; then
    kind=(--data.root "$data" --data.sample_rate "$sample_rate")
    kind+=(--data.train "mixture_${train}_$type.csv" --data.valid "mixture_${valid}_$type.csv")
    for peer in 0 1; do
        kind+=(--peers.$peer.sample_rate "$sample_rate" --peers.$peer.n_src "$n_src")
    done
    sepml train --config "$config" --exp "$exp" "${kind[@]}" "$@"
fi

# The stages 3 and 4 that all recipes share look for <mixtures>/<test>/mix and <mixtures>/<test>.csv.
mixtures=$exp/tests
if run_stage 3 "separate"; then
    for test in $tests; do
        mkdir -p "$mixtures/$test"
        ln -sfn "$(realpath "$splits/$test/$type")" "$mixtures/$test/mix"
        for source in $(seq "$n_src"); do
            ln -sfn "$(realpath "$splits/$test/s$source")" "$mixtures/$test/s$source"
        done
        if [ "$type" != mix_clean ]; then ln -sfn "$(realpath "$splits/$test/noise")" "$mixtures/$test/noise"; fi
    done
    sepml prepare folder --mix-tree "$mixtures" --out "$mixtures" >/dev/null
    separate_tests
fi

if run_stage 4 "score"; then
    score_tests
fi
