# What the recipes share, sourced by each path.sh from the recipe's folder: the `sepml` command, options, and the stages
# that are the same everywhere.

if [ -x ../../.venv/bin/sepml ]; then
    PATH=$PWD/../../.venv/bin:$PATH
fi
command -v sepml >/dev/null || { echo "run.sh: no 'sepml' command; run 'make venv' at the top of the repository" >&2; exit 1; }

# Sets the variable of the same name for every --option VALUE, as Kaldi's parse_options.sh does; an option without such
# a variable is an error. PARSED is the number of words read, `--` included.
parse_options() {
    PARSED=0
    while [ $# -gt 0 ]; do
        case $1 in
            --) PARSED=$((PARSED + 1)); return ;;
            --help | -h) usage; exit 0 ;;
            --*)
                local name=${1#--}
                name=${name//-/_}
                [[ $name =~ ^[a-z_]+$ && -n ${!name+set} && " $OPTIONS " == *" $name "* ]] || {
                    echo "run.sh: unknown option $1; options: ${OPTIONS// /, }" >&2; exit 2; }
                [ $# -ge 2 ] || { echo "run.sh: $1 needs a value" >&2; exit 2; }
                [[ " stage stop_stage jobs " != *" $name "* || $2 =~ ^[0-9]+$ ]] || {
                    echo "run.sh: $1 is '$2', expected a number" >&2; exit 2; }
                printf -v "$name" %s "$2"
                PARSED=$((PARSED + 2))
                shift 2
                ;;
            *) echo "run.sh: unexpected word '$1'; settings for training go after --" >&2; exit 2 ;;
        esac
    done
}

# Whether a stage is to be run; says so when it is.
run_stage() {
    if [ "$1" -lt "$stage" ] || [ "$1" -gt "$stop_stage" ]; then return 1; fi
    echo "stage $1: $2" >&2
}

# The mixtures of every test by each peer, and by all peers averaged; written anew, as the peers may have learnt more. With
# shipped=yes also by the pair that comes with sepml. Only errors are shown: a test set has mixtures that are hard to separate.
separate_tests() {
    local test peer
    for test in $tests; do
        for peer in "$exp"/peer[0-9]*; do
            sepml -qq separate -f "$mixtures/$test/mix" --model "$peer" -o "$exp/separated/$test/$(basename "$peer")"
        done
        sepml -qq separate -f "$mixtures/$test/mix" --model "$exp" --ensemble -o "$exp/separated/$test/ensemble"
        if [ "${shipped:-no}" = yes ]; then
            sepml -qq separate -f --speakers 2 "$mixtures/$test/mix" -o "$exp/separated/$test/shipped-pair"
        fi
    done
}

# Scores of what separate_tests left, and their tables.
score_tests() {
    local test est
    for test in $tests; do
        for est in "$exp/separated/$test"/*; do
            sepml score -f --manifest "$mixtures/$test.csv" --est "$est" -o "$exp/scores/$test/$(basename "$est")" \
                --metrics si_snr sdr stoi pesq --jobs "$jobs" >/dev/null
        done
    done
    for test in $tests; do
        echo "$tag, $test:"
        sepml table "$exp/scores/$test"/*
    done | tee "$exp/RESULTS.txt"
    echo "Listen: $(realpath "$exp")/separated/*/ensemble/*_s1.wav and *_s2.wav;" \
        "the mixtures are $(realpath "$mixtures")/*/mix/*.wav"
}
