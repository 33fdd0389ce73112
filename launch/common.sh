# shellcheck shell=bash
# What the scripts of this folder share: help, required variables, dry runs.
# It runs in bash 3.2 as well, the version of macOS.

# shellcheck disable=SC2034  # the scripts use it
clone=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
dry_run=""
flags=() # what is not for the script itself: flags of rsclip_jax.main

fail() {
    printf 'error: %s\n' "$*" >&2
    exit 2
}

# The comment at the head of the script is its help.
show_help() { sed -n '2,/^[^#]/{s/^# \{0,1\}//p;}' "$0"; }

# parse WORD...: --help ends the script, --dry-run sets dry_run, the rest is in flags.
parse() {
    local word
    for word in "$@"; do
        case $word in
            --help | -h)
                show_help
                exit 0
                ;;
            --dry-run) dry_run=yes ;;
            *) flags+=("$word") ;;
        esac
    done
}

# need NAME WHAT: ends the script where the variable NAME is not set.
need() { [ -n "${!1:-}" ] || fail "set $1, $2"; }

# need_tool NAME HOW: ends the script where NAME is not on PATH; a dry run goes without.
need_tool() {
    [ -n "$dry_run" ] || command -v "$1" > /dev/null || fail "there is no $1 on PATH: $2"
}

# need_number NAME: ends the script where the variable NAME is no whole number.
need_number() {
    case ${!1:-} in
        '' | *[!0-9]*) fail "$1=${!1:-} is no whole number: set $1 to one" ;;
    esac
}

# The clone's own environment, if it has one; else the python3 on PATH.
default_python() {
    if [ -x "$clone/.venv/bin/python" ]; then
        echo "$clone/.venv/bin/python"
    else
        echo python3
    fi
}

# The clone's commit, for a copy of its files; nothing where there is no git.
find_commit() { git -C "$clone" rev-parse HEAD 2> /dev/null || true; }

# quote WORD: the word as a shell reads it again, plain where it can be.
quote() {
    case $1 in
        '' | *[!A-Za-z0-9_./:=@,+%-]*)
            printf "'%s'" "$(printf '%s' "$1" | sed "s/'/'\\\\''/g")"
            ;;
        *) printf '%s' "$1" ;;
    esac
}

# quote_all WORD...: a command line that can be pasted.
quote_all() {
    local space=""
    local word
    for word in "$@"; do
        printf '%s' "$space"
        quote "$word"
        space=" "
    done
}

# show WORD...: prints the command line.
show() { printf '%s\n' "$(quote_all "$@")"; }

# run WORD...: runs the command; a dry run prints it.
run() {
    if [ -n "$dry_run" ]; then show "$@"; else "$@"; fi
}

# become WORD...: runs the command in this process's place; a dry run prints it.
become() {
    if [ -n "$dry_run" ]; then show "$@"; else exec "$@"; fi
}
