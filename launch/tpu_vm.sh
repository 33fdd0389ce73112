#!/usr/bin/env bash
# Runs rsclip_jax on a Cloud TPU slice, of one host or many.
#
#   export NAME=me ZONE=us-west4-a ACCELERATOR=v5litepod-16
#   export CONFIG=align_sar WORKDIR=gs://my-bucket/runs/sar
#   launch/tpu_vm.sh up [flags]
#
# up      create, setup and run; after a preemption all three again, until the run ends
# create  requests the slice and waits for it; a slice that is there is taken as it is
# setup   copies this clone to all workers and installs the requirements there
# run     starts the run on all workers and follows it; [flags] are rsclip_jax.main's
# follow  follows a run that was started before; the run does not need this computer
# stop    tells the run to save a checkpoint and to end
# status  the state of the slice
# delete  deletes the slice, which costs money as long as it is there
#
#   --help      this text
#   --dry-run   prints the commands and runs nothing
#
# variable        default      meaning
# NAME            rsclip       name of the slice and of its request
# ZONE            required     zone, such as us-west4-a
# PROJECT                      project; default: that of gcloud's configuration
# ACCELERATOR     v5litepod-8  type and size: v5litepod-16, v5p-32, v6e-8, v4-16, ...
# RUNTIME                      version of the TPU's software; default: by ACCELERATOR
# SPOT            no           yes: a spot slice, which is cheaper and may be taken away
# VALID_UNTIL                  time after which the request expires, such as 6h
# DATA_DISK                    disk to attach read-only: projects/P/zones/Z/disks/D
# SLICE           queued       existing: NAME was created elsewhere; never create or delete
# SSH_FLAGS                    more flags of "tpu-vm ssh" and "tpu-vm scp": --internal-ip
# PYTHON_VERSION  3.12         Python for the workers
# SETUP                        one more command for each worker, such as a mount
# CONFIG          required     config file of this clone or name of a shipped config (run)
# WORKDIR         required     gs://BUCKET/PATH, or a path that all workers mount (run)
# POLL            30           seconds between two looks at the state
# WHEN_DONE       keep         delete: up deletes the slice when the run has ended
# MAX_RESTARTS    50           restarts after which up gives up
set -euo pipefail
# shellcheck source=launch/common.sh
source "$(dirname "$0")/common.sh"
: "${NAME:=rsclip}" "${PROJECT:=}" "${ACCELERATOR:=v5litepod-8}" "${RUNTIME:=}"
: "${SPOT:=no}" "${VALID_UNTIL:=}" "${DATA_DISK:=}" "${SLICE:=queued}" "${SSH_FLAGS:=}"
: "${PYTHON_VERSION:=3.12}" "${SETUP:=}" "${POLL:=30}" "${MAX_RESTARTS:=50}"
: "${WHEN_DONE:=keep}"
gone=99 # code of watch where the slice was taken away

log() { [ -n "$dry_run" ] || printf '%s %s\n' "$(date +%H:%M:%S)" "$*" >&2; }

# tpus WORD...: a gcloud command in the zone and project, which asks no questions.
tpus() {
    run gcloud compute tpus "$@" --quiet --zone="$ZONE" \
        ${PROJECT:+--project="$PROJECT"} < /dev/null
}

# on_all SCRIPT: runs a piece of shell on all workers; fails where one fails.
on_all() {
    # shellcheck disable=SC2086  # several flags
    tpus tpu-vm ssh "$NAME" --worker=all --command="$1" $SSH_FLAGS
}

find_runtime() {
    case $ACCELERATOR in
        v5litepod-*) echo v2-alpha-tpuv5-lite ;;
        v5p-*) echo v2-alpha-tpuv5 ;;
        v6e-*) echo v2-alpha-tpuv6e ;;
        v2-* | v3-* | v4-*) echo tpu-ubuntu2204-base ;;
        tpu7x-*) fail "ACCELERATOR=$ACCELERATOR: Ironwood is served by GKE only: use launch/gke.sh" ;;
        *) fail "ACCELERATOR=$ACCELERATOR is not known here: set RUNTIME, the version of its software" ;;
    esac
}

# The state of the slice

# ask KIND FIELD: a field of NAME, NONE where there is no NAME. Once gcloud has answered,
# a failure is taken for the network's, and it asks five times.
ask() {
    local try tries=1 said
    [ ! -e "$scratch/answered" ] || tries=5
    for ((try = 1; try <= tries; try++)); do
        if said=$(tpus "$1" describe "$NAME" --format="value($2)" 2> "$scratch/error"); then
            touch "$scratch/answered"
            printf '%s\n' "$said"
            return
        fi
        if grep -qi 'not_found\|not found' "$scratch/error"; then
            touch "$scratch/answered"
            echo NONE
            return
        fi
        cat "$scratch/error" >&2
        log "gcloud failed (try $try of $tries)"
        [ "$try" -eq "$tries" ] || sleep "$POLL"
    done
    return 1
}

# The request's state until it is served, then the slice's; LOST without a slice.
find_state() {
    local state=ACTIVE
    [ "$SLICE" = existing ] || state=$(ask queued-resources state.state) || return
    if [ "$state" = ACTIVE ]; then
        state=$(ask tpu-vm state) || return
        [ "$state" != NONE ] || state=LOST
    fi
    printf '%s\n' "$state"
}

request() {
    local options=(--node-id="$NAME" --accelerator-type="$ACCELERATOR")
    options+=(--runtime-version="$RUNTIME")
    [ "$SPOT" != yes ] || options+=(--spot)
    [ -z "$VALID_UNTIL" ] || options+=(--valid-until-duration="$VALID_UNTIL")
    [ -z "$DATA_DISK" ] || options+=("--data-disk=source=$DATA_DISK,mode=read-only")
    log "requesting $ACCELERATOR as $NAME in $ZONE"
    tpus queued-resources create "$NAME" "${options[@]}"
}

delete() {
    [ "$SLICE" = queued ] || fail "SLICE=existing: $NAME was created elsewhere and is not deleted here"
    tpus queued-resources delete "$NAME" --force
}

status() {
    if [ -n "$dry_run" ]; then
        [ "$SLICE" = existing ] || tpus queued-resources describe "$NAME"
        tpus tpu-vm describe "$NAME"
    else
        find_state
    fi
}

create() {
    local state before=""
    if [ -n "$dry_run" ]; then
        [ "$SLICE" = existing ] || request
        return
    fi
    while :; do
        state=$(find_state) || fail "gcloud does not say the state of $NAME"
        [ "$state" = "$before" ] || log "$NAME: $state"
        before=$state
        case $SLICE-$state in
            *-READY) return ;;
            existing-*) fail "$NAME is $state and SLICE=existing: it has to be READY" ;;
            *-NONE) request ;;
            *-SUSPENDED | *-PREEMPTED | *-TERMINATED | *-LOST) delete ;;
            *-FAILED) fail "the request of $NAME failed, or VALID_UNTIL has passed; \"status\" and gcloud's console say more, \"delete\" clears it" ;;
            *) sleep "$POLL" ;;
        esac
    done
}

# What runs on the workers

# A piece of shell that puts the clone's files into the archive $1, without what git ignores.
pack_clone() {
    local files="git ls-files -z --cached --others --exclude-standard"
    [ -e "$clone/.git" ] ||
        files="find . '(' -name .venv -o -name runs ')' -prune -o -type f -print0"
    printf '%s' "cd $(quote "$clone") && $files |
    while IFS= read -r -d '' file; do [ ! -e \"\$file\" ] || printf '%s\\0' \"\$file\"; done |
    tar --null -czf $(quote "$1") -T -"
}

setup() {
    local archive=$scratch/rsclip_jax.tgz
    run mkdir -p "$scratch"
    run bash -c "$(pack_clone "$archive")"
    # shellcheck disable=SC2086  # several flags
    tpus tpu-vm scp "$archive" "$NAME:rsclip_jax.tgz" --worker=all $SSH_FLAGS
    on_all "set -e
rm -rf ~/rsclip_jax
mkdir ~/rsclip_jax
tar -xzf ~/rsclip_jax.tgz -C ~/rsclip_jax
python3 -m pip install --quiet --user uv
[ -d ~/rsclip_venv ] || ~/.local/bin/uv venv --quiet --python $(quote "$PYTHON_VERSION") ~/rsclip_venv
~/.local/bin/uv pip install --quiet --python ~/rsclip_venv/bin/python -r ~/rsclip_jax/requirements.txt 'jax[tpu]'
$SETUP"
}

# The run goes on without this computer: its log, number and code are in ~/rsclip_run.
start() {
    local command
    # shellcheck disable=SC2088  # ~ is the workers' home
    command="RSCLIP_COMMIT=$(find_commit) ~/rsclip_venv/bin/python -m rsclip_jax.main $(quote_all --config="$CONFIG" \
        --workdir="$WORKDIR" ${flags[@]+"${flags[@]}"})"
    on_all "set -e
mkdir -p ~/rsclip_run
if [ -e ~/rsclip_run/pid ] && kill -0 \"\$(cat ~/rsclip_run/pid)\" 2> /dev/null; then
    echo 'a run goes on here: follow it or stop it' >&2
    exit 1
fi
rm -f ~/rsclip_run/*
cd ~/rsclip_jax
cat > ~/rsclip_run/start <<'END'
$command > ~/rsclip_run/log 2>&1 &
echo \$! > ~/rsclip_run/pid
code=0
wait \$! || code=\$?
echo \$code > ~/rsclip_run/code
END
nohup bash ~/rsclip_run/start > /dev/null 2>&1 < /dev/null &"
}

# shellcheck disable=SC2016  # the workers expand it
is_running() {
    [ -z "$dry_run" ] &&
        on_all 'kill -0 "$(cat ~/rsclip_run/pid)"' > /dev/null 2>&1
}

# follow_once LINES: shows the logs of all workers; ends with the code of the run, or 75
# for a host that has lost it, as one that started anew.
follow_once() {
    on_all "for i in 1 2 3 4 5; do [ -e ~/rsclip_run/pid ] || sleep 1; done
tail -n $1 -F --pid=\"\$(cat ~/rsclip_run/pid)\" ~/rsclip_run/log 2> /dev/null
for i in 1 2 3; do [ -e ~/rsclip_run/code ] || sleep 1; done
[ ! -e ~/rsclip_run/stopped ] || exit 130
exit \"\$(cat ~/rsclip_run/code || echo 75)\""
}

# shellcheck disable=SC2016  # the workers expand it
has_ended() {
    on_all 'test -e ~/rsclip_run/code || ! kill -0 "$(cat ~/rsclip_run/pid)"'
}

# Follows the run to its end, over lost connections. Its code is the run's, or $gone.
watch() {
    local code lines=+1 state
    while :; do
        code=0
        follow_once "$lines" || code=$?
        if [ -n "$dry_run" ] || [ "$code" -eq 0 ]; then return "$code"; fi
        sleep "$POLL" # the state follows a preemption late
        state=$(find_state) || return 2
        [ "$state" = READY ] || return "$gone"
        if has_ended; then return "$code"; fi
        log "the connection was lost; the run goes on"
        lines=20
    done
}

# shellcheck disable=SC2016  # the workers expand it
stop() { on_all 'touch ~/rsclip_run/stopped && kill -TERM "$(cat ~/rsclip_run/pid)"'; }

up() {
    local code restarts=0 why
    while :; do
        create
        if is_running; then
            log "a run goes on: following it"
        else
            setup
            start
        fi
        code=0
        watch || code=$?
        case $code in
            "$gone") why="the slice was taken away" ;;
            143) why="the hosts were told to end, and the run has saved a checkpoint" ;;
            75) why="a process was gone or stood still, says the run's watchdog" ;;
            *) break ;;
        esac
        restarts=$((restarts + 1))
        [ "$restarts" -le "$MAX_RESTARTS" ] ||
            fail "$why, for the $restarts. time: MAX_RESTARTS=$MAX_RESTARTS"
        log "$why: restart $restarts of $MAX_RESTARTS"
    done
    log "the run has ended with code $code"
    if [ "$WHEN_DONE" = delete ]; then
        delete
    else
        log "$NAME is still there, and is paid for until: launch/tpu_vm.sh delete"
    fi
    return "$code"
}

parse "$@"
action=${flags[0]:-}
flags=(${flags[@]+"${flags[@]:1}"})
case $action in
    up | create | setup | run | follow | stop | status | delete) ;;
    "") fail "say what to do: up, create, setup, run, follow, stop, status or delete (--help)" ;;
    *) fail "there is no '$action': up, create, setup, run, follow, stop, status or delete (--help)" ;;
esac
need ZONE "the zone of the slice, such as us-west4-a"
need_number POLL
need_number MAX_RESTARTS
case $SLICE in queued | existing) ;; *) fail "SLICE=$SLICE: set it to queued or existing" ;; esac
case $SPOT in yes | no) ;; *) fail "SPOT=$SPOT: set it to yes or no" ;; esac
case $SLICE-$WHEN_DONE in
    *-keep | queued-delete) ;;
    *) fail "WHEN_DONE=$WHEN_DONE with SLICE=$SLICE: set WHEN_DONE to keep, or to delete for a slice of this script" ;;
esac
if [ "$action" = up ] || [ "$action" = run ]; then
    need_job worker
elif [ "${#flags[@]}" -gt 0 ]; then
    fail "$action takes no ${flags[0]}: flags go to up and run"
fi
need_tool gcloud "install the Google Cloud CLI"
if [ -n "$dry_run" ]; then
    scratch=/tmp/rsclip_jax-$NAME
else
    scratch=$(mktemp -d)
    trap 'rm -rf "$scratch"' EXIT
fi
case $action in up | create) [ -n "$RUNTIME" ] || RUNTIME=$(find_runtime) ;; esac

case $action in
    run)
        start
        watch
        ;;
    follow) watch ;;
    *) "$action" ;;
esac
