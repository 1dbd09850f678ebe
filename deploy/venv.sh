#!/bin/sh
# Makes .venv and installs the service into it, editable: deploy/venv.sh EXTRA  (cpu, bench, dev ...)
#
# Looks first for what the build needs and says in one sentence what is missing, because pip's own
# words for a missing compiler or header are two hundred lines long and name no package.
# PYTHON=... picks the interpreter, VENV=... the folder, CXX=... the compiler.
set -eu

extra=${1:?"usage: deploy/venv.sh EXTRA"}
venv=${VENV:-.venv}
cxx=${CXX:-$(command -v g++ || command -v c++ || true)}

fail() {
    echo "error: $*" >&2
    exit 1
}

# Prints nothing where the compiler will do, else why not.
compiler_shortfall() {
    [ -n "$cxx" ] || { echo "no C++ compiler"; return; }
    echo '#include <vector>' | $cxx -x c++ -fsyntax-only - 2>/dev/null ||
        echo "$cxx compiles no C++"
}

# Prints nothing where the interpreter will do, else why not.
python_shortfall() {
    command -v "$1" >/dev/null 2>&1 || { echo "no $1 on PATH"; return; }
    version=$("$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null) ||
        { echo "$1 does not run"; return; }
    "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
        { echo "$1 is Python $version, not 3.11 or newer (PYTHON=... names another)"; return; }
    "$1" -c 'import ensurepip, venv' 2>/dev/null || lacks="makes no virtual environments"
    headers=$("$1" -c 'import sysconfig; print(sysconfig.get_path("include"))')
    [ -f "$headers/Python.h" ] || lacks="${lacks:+$lacks and }has no Python.h"
    [ -z "${lacks:-}" ] || echo "$1 $lacks"
}

# Sets `python` to the first candidate that will do, or `complaint` to what the first of them lacks.
find_python() {
    complaint=""
    for python in ${PYTHON:-python3 python3.13 python3.12 python3.11}; do
        reason=$(python_shortfall "$python")
        [ -n "$reason" ] || { complaint=""; return; }
        complaint=${complaint:-$reason}
    done
}

missing=$(compiler_shortfall)
new=""
if ! [ -x "$venv/bin/python" ] || ! "$venv/bin/python" -m pip --version >/dev/null 2>&1; then
    new=yes
    find_python
    [ -z "$complaint" ] || missing="${missing:+$missing; }$complaint"
fi
[ -z "$missing" ] || fail "$missing
  Debian, Ubuntu: apt install g++ make python3-dev python3-venv
  Fedora:         dnf install gcc-c++ make python3-devel"

if [ -n "$new" ]; then
    echo "making $venv with $("$python" --version)"
    # Half an environment is cleared away; a folder that never was one is not.
    if [ -f "$venv/pyvenv.cfg" ]; then rm -rf "$venv"; fi
    "$python" -m venv "$venv"
fi

echo "installing the service with extra '$extra' into $venv (a minute or two the first time:" \
    "hnswlib and the search kernel are compiled)"
started=$(date +%s)
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check --editable ".[$extra]" ||
    fail "pip could not install the service; its own words stand above"
echo "installed in $(($(date +%s) - started)) s"
