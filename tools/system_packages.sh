#!/bin/sh
# Installs what pip cannot: a C compiler with Python's headers (the pesq package compiles), and Python's venv module.
# Does nothing where they are there; needs apt-get and root only where they are not.
set -eu
python=$1

missing=
command -v cc >/dev/null || missing="$missing gcc libc6-dev"
"$python" -c 'import ensurepip, venv' 2>/dev/null || missing="$missing python3-venv"
"$python" - <<'PY' 2>/dev/null || missing="$missing python3-dev"
import os, sysconfig
raise SystemExit(not os.path.exists(os.path.join(sysconfig.get_path("include"), "Python.h")))
PY
[ -z "$missing" ] && exit 0

if ! command -v apt-get >/dev/null || [ "$(id -u)" != 0 ]; then
    echo "make: please install:$missing (with apt-get, as root, this is done for you)" >&2
    exit 1
fi
echo "installing Debian packages:$missing"
apt-get update -q >/dev/null
# shellcheck disable=SC2086  # words on purpose
DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends $missing >/dev/null
