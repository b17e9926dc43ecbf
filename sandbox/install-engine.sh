#!/usr/bin/env bash
# Have a Docker engine answer and the sandbox image ready, or say why not.
#
# Where no engine answers, root on Debian/Ubuntu gets the distribution's `docker.io`, started.
# Anyone else gets one notice: the demo then falls back to the process sandbox, and the tests that
# need Docker skip. DOCKER=skip declines all of it. Idempotent; a second when all is there.
set -euo pipefail
cd "$(dirname "$0")/.."

log=runs/docker.log
wait_s=60

notice() { printf 'Docker: %s\n' "$*"; }

# The SDK is asked, not the `docker` command, because it is what the sandbox uses.
answers() {
    .venv/bin/python -c 'import docker; docker.from_env(timeout=10).ping()' >/dev/null 2>&1
}

install_packages() {
    command -v dockerd >/dev/null && command -v iptables >/dev/null && return
    notice "installing the packages docker.io and iptables (DOCKER=skip declines; log: $log)"
    export DEBIAN_FRONTEND=noninteractive
    {
        apt-get install -y --no-install-recommends docker.io iptables ||
            { apt-get update && apt-get install -y --no-install-recommends docker.io iptables; }
    } >>"$log" 2>&1
}

# A killed engine leaves its pid file behind, and dockerd refuses to start while any process, be it
# another program's, has that pid.
forget_dead() {
    local file=$1 name=$2
    if [ -f "$file" ] && [ "$(cat "/proc/$(cat "$file")/comm" 2>/dev/null)" != "$name" ]; then
        rm -f "$file"
    fi
}

start_engine() {
    notice "starting the engine (log: $log)"
    if [ -d /run/systemd/system ]; then
        systemctl start docker >>"$log" 2>&1 || true # whether it answers is asked below
    else
        # No service manager: the engine lives in a session of its own, so that it outlasts this
        # shell and its Ctrl-C.
        forget_dead /var/run/docker.pid dockerd
        forget_dead /var/run/docker/containerd/containerd.pid containerd
        setsid dockerd >>"$log" 2>&1 </dev/null &
    fi
}

# Without an engine the demo says loudly what it does instead, and Docker tests skip with the reason.
# DOCKER=require, for CI, makes it a failure.
give_up() {
    [ "${DOCKER:-auto}" = require ] && exit 1
    exit 0
}

wait_for_engine() {
    local deadline=$((SECONDS + wait_s))
    until answers; do
        if [ "$SECONDS" -ge "$deadline" ]; then
            tail -n 15 "$log" >&2
            notice "the engine did not answer within $wait_s s; its log is $log" >&2
            give_up
        fi
        sleep 0.5
    done
}

if [ "${DOCKER:-auto}" = skip ]; then
    notice "DOCKER=skip: no engine is installed or started, no image built"
    exit 0
fi
if ! answers; then
    if [ -n "${DOCKER_HOST:-}" ]; then
        notice "no engine answers at DOCKER_HOST=$DOCKER_HOST; start it, or unset DOCKER_HOST" >&2
        give_up
    fi
    if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
        notice "no engine answers; as root on Debian/Ubuntu, run \`make sandbox\` once. Elsewhere," \
            "install Docker and let this user reach its socket"
        give_up
    fi
    mkdir -p runs
    : >"$log"
    install_packages || {
        tail -n 15 "$log" >&2
        notice "the packages could not be installed; the log is $log" >&2
        give_up
    }
    start_engine
    wait_for_engine
fi
.venv/bin/python -m sandbox.image || give_up
