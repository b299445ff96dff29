# Sourced by run.sh: goes to the recipe's folder, finds the `sepml` command, and reads the options.

cd "$(dirname "${BASH_SOURCE[0]}")"
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
