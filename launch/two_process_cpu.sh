#!/usr/bin/env bash
# Runs rsclip_jax in two processes on this machine's CPU: the path that a pod takes,
# without one.
#
#   CONFIG=configs/align_sar.py WORKDIR=runs/two launch/two_process_cpu.sh [flags]
#
# [flags] are those of rsclip_jax.main. If a process fails, the others are ended and the
# script exits with the first one's code. Ctrl-C and SIGTERM are passed on: the run saves
# a checkpoint, and the same command continues it.
#
#   --help      this text
#   --dry-run   prints the commands and runs nothing
#
# variable    default   meaning
# CONFIG      required  config file or the name of a shipped config
# WORKDIR     required  folder of the run
# PYTHON                Python with the requirements; default: the clone's .venv or python3
# PROCESSES   2         processes
# DEVICES     2         CPU devices that each process sees
# PORT                  port of the coordinator on 127.0.0.1; default: a free one
# GRACE       10        seconds from SIGTERM to SIGKILL for the peers of a failed process
set -euo pipefail
# shellcheck source=launch/common.sh
source "$(dirname "$0")/common.sh"
: "${PYTHON:=$(default_python)}" "${PROCESSES:=2}" "${DEVICES:=2}" "${PORT:=}" "${GRACE:=10}"
parse "$@"
need CONFIG "such as configs/align_sar.py"
need_config "$PWD"
need_flags
need WORKDIR "the folder of the run"
need_workdir
need_count PROCESSES
need_count DEVICES
need_number GRACE
need_tool "$PYTHON" "set PYTHON to a Python that has the requirements"

find_port() {
    "$PYTHON" -c "import socket
with socket.socket() as s:
    s.bind(('127.0.0.1', 0))
    print(s.getsockname()[1])"
}

# signal_all NAME: to each process that is still running.
signal_all() {
    local pid
    for pid in $(jobs -rp); do
        kill -s "$1" "$pid" 2> /dev/null || true
    done
}

# tell_end PID CODE: which process has failed, and how it goes on after a signal.
tell_end() {
    local i=0 name how=""
    while [ "${pids[$i]}" != "$1" ]; do i=$((i + 1)); done
    if [ "$2" -gt 128 ] && name=$(kill -l "$2" 2> /dev/null); then
        how=" (SIG$name); the same command continues the run"
    fi
    printf 'process %s ended with code %s%s: ending the others\n' "$i" "$2" "$how" >&2
}

# SIGTERM, and SIGKILL after GRACE seconds; a process whose peer is gone may wait for it
# for ever.
end_all() {
    local until=$((SECONDS + GRACE))
    signal_all TERM
    while [ -n "$(jobs -rp)" ] && [ "$SECONDS" -lt "$until" ]; do sleep 0.2 || true; done
    signal_all KILL
}

# Exits with the code of the first process that fails, 0 if all end well.
wait_for_all() {
    local code=0 failed=0 left=("$@") running still pid
    while [ "${#left[@]}" -gt 0 ]; do
        running=$(jobs -rp) || continue # Ctrl-C ends this subshell, and the sleep below
        running=" ${running//$'\n'/ } "
        still=()
        for pid in "${left[@]}"; do
            case $running in *" $pid "*)
                still+=("$pid")
                continue
                ;;
            esac
            wait "$pid" || failed=$?
            if [ "$failed" -ne 0 ] && [ "$code" -eq 0 ]; then
                code=$failed
                [ -n "$passed_on" ] || { tell_end "$pid" "$code" && end_all; }
            fi
        done
        left=(${still[@]+"${still[@]}"})
        sleep 0.2 || true
    done
    return "$code"
}

[ -n "$PORT" ] || PORT=$(find_port)
# the last of two settings would win; one is easier to read
others=$(printf '%s' "${XLA_FLAGS:-}" |
    sed 's/--xla_force_host_platform_device_count=[0-9]*//g')
command=(env JAX_PLATFORMS=cpu
    XLA_FLAGS="--xla_force_host_platform_device_count=$DEVICES${others:+ $others}"
    PYTHONPATH="$clone${PYTHONPATH:+:$PYTHONPATH}"
    "$PYTHON" -m rsclip_jax.main --config="$CONFIG" --workdir="$WORKDIR"
    ${flags[@]+"${flags[@]}"}
    --coordinator="127.0.0.1:$PORT" --processes="$PROCESSES")

if [ -n "$dry_run" ]; then
    for ((i = 0; i < PROCESSES; i++)); do
        printf '%s &\n' "$(quote_all "${command[@]}" --process="$i")"
    done
    printf 'wait\n'
    exit 0
fi

passed_on=""
set -m # otherwise bash starts background jobs with Ctrl-C ignored
trap 'passed_on=yes; signal_all INT' INT
trap 'passed_on=yes; signal_all TERM' TERM
pids=()
for ((i = 0; i < PROCESSES; i++)); do
    "${command[@]}" --process="$i" < /dev/null &
    pids+=("$!")
done
set +m
wait_for_all "${pids[@]}"
