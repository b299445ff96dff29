#!/bin/sh
# Runs the tests under each of the given versions of Python of which an interpreter is to be had: one on the path, of pyenv,
# of uv, or a Debian package (as root). Passes over the others and says so. Each gets a virtual environment of its own.
#
#   tools/test_versions.sh VERSION ... [-- arguments of pytest]
set -eu
cd "$(dirname "$0")/.."

# Prints the path of an interpreter; fails where there is none.
find_python() {
    if "python$1" -c '' 2>/dev/null; then
        command -v "python$1"
        return
    fi
    if command -v pyenv >/dev/null; then
        for python in "$(pyenv root)/versions/$1".*/bin/python; do
            [ -x "$python" ] && echo "$python" && return
        done
    fi
    if command -v uv >/dev/null && { uv python find -q "$1" || uv python install -q "$1"; } >/dev/null 2>&1; then
        uv python find -q "$1"
        return
    fi
    if command -v apt-get >/dev/null && [ "$(id -u)" = 0 ] && apt-cache show "python$1-venv" >/dev/null 2>&1; then
        apt-get install -y -q --no-install-recommends "python$1-venv" "python$1-dev" >&2
        command -v "python$1"
        return
    fi
    return 1
}

versions=
while [ $# -gt 0 ] && [ "$1" != -- ]; do
    versions="$versions $1"
    shift
done
[ $# -gt 0 ] && shift

failed=
for version in $versions; do
    if ! python=$(find_python "$version"); then
        echo "Python $version: no interpreter here, nor by pyenv, uv or apt-get; passed over"
        continue
    fi
    venv=.venv-$version
    echo "Python $version: $python, in $venv"
    tools/system_packages.sh "$python"
    [ -x "$venv/bin/python" ] || "$python" -m venv "$venv"
    "$venv/bin/python" -m pip install --quiet --upgrade pip
    "$venv/bin/python" -m pip install --quiet --editable '.[test]'
    "$venv/bin/python" -m pytest "$@" || failed="$failed $version"
done
if [ -n "$failed" ]; then
    echo "make: tests failed under Python$failed" >&2
    exit 1
fi
