#!/usr/bin/env bash
# The licences of the packages in a virtual environment, and known weaknesses of their versions: audit.sh PYTHON VENV
set -euo pipefail

python="$1" venv="$2" own="$2-audit"
[ -x "$own/bin/pip-licenses" ] || {
    "$python" -m venv "$own"
    "$own/bin/python" -m pip install --quiet pip-audit pip-licenses
}
"$own/bin/pip-licenses" --python "$venv/bin/python" --order license --from mixed
packages=$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
status=0
said=$("$own/bin/pip-audit" --path "$packages" --skip-editable --progress-spinner off --timeout 20 2>/dev/null) || status=$?
unknown=$(grep -c "could not be audited" <<<"$said" || true)
grep -v "could not be audited" <<<"$said" || true
echo "audit: of $unknown packages the service of known weaknesses has no answer, or it cannot be reached"
# Without any output the service did not answer; else 1 says that weaknesses were found.
[ -z "$said" ] || exit "$status"
