#!/usr/bin/env bash
# Make the virtual environment .venv from a full lock: ./install.sh [cpu|gpu]
#
# Needs Python 3.11 or 3.12 and a package index that pip is configured for. As root on
# Debian/Ubuntu it also installs the few system packages that are missing; otherwise it names them.
set -euo pipefail
cd "$(dirname "$0")"

extra=${1:-cpu}
lock=requirements/$extra.lock
log=runs/setup.log

# Bash shields background commands from Ctrl-C.
trap 'kill $(jobs -p) 2>/dev/null || true' EXIT

fail() {
    printf 'install.sh: %s\n' "$*" >&2
    exit 1
}

# stage DESCRIPTION COMMAND...: one line on the terminal with the time it took, its output in the log
stage() {
    local description=$1 began=$SECONDS pid status=0
    shift
    printf '\n=== %s\n' "$description" >>"$log"
    "$@" >>"$log" 2>&1 </dev/null &
    pid=$!
    if [ -t 1 ]; then
        while kill -0 "$pid" 2>/dev/null; do
            printf '\r  %-56s %5d s' "$description" $((SECONDS - began))
            sleep 1
        done
        printf '\r'
    fi
    wait "$pid" || status=$?
    printf '  %-56s %5d s\n' "$description" $((SECONDS - began))
    if [ "$status" -ne 0 ]; then
        tail -n 15 "$log" >&2
        fail "\"$description\" failed; the whole log is in $log"
    fi
}

find_python() {
    local name
    # A name on PATH may be a shim without an interpreter behind it, so each one is asked.
    for name in python3.11 python3 python3.12; do
        if "$name" -c 'import sys; sys.exit(sys.version_info[:2] not in {(3, 11), (3, 12)})' \
            2>/dev/null; then
            command -v "$name"
            return
        fi
    done
    return 1
}

missing_system_packages() {
    "$python" -c 'import ensurepip, venv' 2>/dev/null ||
        "$python" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])'
    # vLLM's CPU kernels link against these two; a minimal Debian has neither.
    local libraries
    libraries=$(/sbin/ldconfig -p)
    [[ $libraries == *libnuma.so.1* ]] || echo libnuma1
    [[ $libraries == *libstdc++.so.6* ]] || echo libstdc++6
}

apt_install() {
    export DEBIAN_FRONTEND=noninteractive
    # The lists may be absent or older than the mirror.
    apt-get install -y --no-install-recommends "$@" ||
        { apt-get update && apt-get install -y --no-install-recommends "$@"; }
}

[ -f "$lock" ] || fail "no lock $lock; the machine is 'cpu' or 'gpu', not '$extra'"
python=$(find_python) ||
    fail "needs Python 3.11 (or 3.12) as python3.11 or python3 on PATH, and found none"

mkdir -p runs
: >"$log"
printf 'Setting up .venv with %s from %s (log: %s)\n' "$("$python" --version)" "$lock" "$log"

mapfile -t packages < <(missing_system_packages)
if [ ${#packages[@]} -gt 0 ]; then
    if [ "$(id -u)" -eq 0 ] && command -v apt-get >/dev/null; then
        stage "apt-get install ${packages[*]}" apt_install "${packages[@]}"
    else
        fail "system packages are missing; as root: apt-get install ${packages[*]}"
    fi
fi

rm -f .venv/.installed-*
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1
[ -x .venv/bin/pip ] || stage "virtual environment" "$python" -m venv .venv
# torch comes first and with its dependencies, because a CUDA build needs its CUDA libraries, which
# the lock of a CPU machine does not name. All else is the lock and nothing but the lock.
stage "torch and its dependencies" \
    .venv/bin/pip install --constraint "$lock" "$(grep -E '^torch==' "$lock")"
stage "$(grep -cE '^[a-zA-Z0-9]' "$lock") locked packages" \
    .venv/bin/pip install --no-deps --requirement "$lock"
stage "this project, editable" \
    .venv/bin/pip install --no-deps --no-build-isolation --editable .

touch ".venv/.installed-$extra-$(sha256sum <"$lock" | cut -c1-16)"
