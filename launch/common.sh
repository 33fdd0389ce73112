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
show_help() { sed -n '2,/^[^#]/{/^#SBATCH/d;s/^# \{0,1\}//p;}' "$0"; }

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

# need_count NAME: ends the script where the variable NAME is no whole number above 0.
need_count() {
    need_number "$1"
    case ${!1} in 0*) fail "$1=${!1}: set $1 to 1 or more" ;; esac
}

# shellcheck disable=SC2120  # the patterns are none for most scripts
# need_flags PATTERN...: ends the script where a word left over is no flag of the run.
# The patterns are flags of rsclip_jax.main beside the settings.
need_flags() {
    local word pattern
    for word in ${flags[@]+"${flags[@]}"}; do
        case $word in --config.?*) continue ;; esac
        for pattern in "$@"; do
            # shellcheck disable=SC2053  # a pattern
            [[ $word != $pattern ]] || continue 2
        done
        case $word in
            --config | --config=*) fail "$word: set the variable CONFIG instead" ;;
            --workdir | --workdir=*) fail "$word: set the variable WORKDIR instead" ;;
            *) fail "there is no $word here: --dry-run, --help, or settings of the run such as --config.seed=1" ;;
        esac
    done
}

# Ends the script where WORKDIR looks like a path of an object store and is none.
need_workdir() {
    case $WORKDIR in
        gs://[!/]* | s3://[!/]* | az://[!/]*) ;;
        gs:* | s3:* | az:*) fail "WORKDIR=$WORKDIR: write ${WORKDIR%%:*}://BUCKET/PATH" ;;
        *://*) fail "WORKDIR=$WORKDIR: there are gs://, s3:// and az://" ;;
    esac
}

# need_config FOLDER: ends the script where CONFIG is no file in FOLDER and no name of a
# shipped config, each with or without a :variant. In the clone, which is copied to other
# machines, an absolute path or one of a store is theirs: a config.json beside a run.
need_config() {
    local file=${CONFIG%%:*} name shipped
    case $CONFIG in
        gs://*.json | s3://*.json | az://*.json) return 0 ;;
        /*.json) [ "$1" != "$clone" ] || return 0 ;;
    esac
    case $file in
        /*) [ "$1" = "$clone" ] || [ ! -f "$file" ] || return 0 ;;
        ?*) [ ! -f "$1/$file" ] || return 0 ;;
    esac
    name=${file#./}
    name=${name#configs/}
    name=${name%.py}
    shipped=" $(cd "$clone/configs" && grep -l "def get_config" [!_]*.py | sed 's/\.py$//' |
        tr '\n' ' ')"
    shipped=${shipped/ common / }
    case $name in
        '' | */* | *' '*) ;;
        *) case $shipped in *" $name "*) return 0 ;; esac ;;
    esac
    fail "CONFIG=$CONFIG is no file in $1 and no shipped config; there are:${shipped% }"
}

# need_job MACHINE: ends the script unless CONFIG, WORKDIR and the flags are those of a run
# on several machines, which all reach the workdir. MACHINE: what one of them is called.
need_job() {
    need CONFIG "such as align_sar"
    need_config "$clone"
    need_flags
    need WORKDIR "such as gs://my-bucket/runs/sar"
    need_workdir
    case $WORKDIR in
        gs://* | /*) ;;
        *) fail "WORKDIR=$WORKDIR is a folder of each $1's own: set gs://BUCKET/PATH, or a path that all $1s mount" ;;
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
