# Sourced by run.sh: goes to the recipe's folder and takes what all recipes share.

cd "$(dirname "${BASH_SOURCE[0]}")"
. ../common.sh
