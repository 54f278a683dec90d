# shellcheck shell=bash disable=SC2034  # variables are the launchers'
# What the launchers share; they source it. Nothing here knows of a cloud.
#
# A launcher says what it does by three words, so that a dry run prints exactly what would be run and runs nothing:
#   run COMMAND...             runs it
#   ask ASSUMED COMMAND...     prints what it prints; a dry run goes on as if that were ASSUMED
#   pause SECONDS              waits

set -euo pipefail

((BASH_VERSINFO[0] >= 5)) || {
    echo "error: bash 5 is needed; this is $BASH_VERSION" >&2
    exit 1
}

cd "$(dirname "${BASH_SOURCE[0]}")/.." # paths below are the source tree's
exec 3>&1                              # where dry runs print, inside $(...) too

dry_run=false
SAVED=75 # how a run ends that was told to stop and saved (EX_TEMPFAIL): the same command goes on

die() { # WHAT MEND
    printf 'error: %s\n  mend:  %s\n' "$1" "$2" >&2
    exit 1
}

tell() { echo "launch: $*" >&2; }

need() { # PROGRAM WHERE-FROM
    $dry_run || command -v "$1" >/dev/null || die "$1 is not installed, or not on PATH." "$2"
}

# The words as one command that a shell reads back as the same words; only what needs quotes has them.
quoted() {
    local word line=
    for word in "$@"; do
        [[ $word =~ ^[A-Za-z0-9_./:=@%+,-]+$ ]] || word="'${word//\'/\'\\\'\'}'"
        line+="${line:+ }$word"
    done
    printf '%s' "$line"
}

run() {
    if $dry_run; then
        printf '%s\n' "$(quoted "$@")" >&3
    else
        "$@" </dev/null
    fi
}

ask() {
    local assumed=$1
    shift
    if $dry_run; then
        printf '%s   # as if it said: %s\n' "$(quoted "$@")" "${assumed:-nothing}" >&3
        printf '%s\n' "$assumed"
    else
        "$@" </dev/null
    fi
}

pause() { $dry_run || sleep "$1"; }

require() { # OPTION VALUE [VARIABLE]
    [[ -n $2 ]] || die "$1 is not given." "add $1 VALUE${3:+, or set $3}"
}

# Names that every cloud takes for its resources.
check_name() {
    [[ $1 =~ ^[a-z]([-a-z0-9]{0,38}[a-z0-9])?$ ]] ||
        die "--name is '$1'." "use up to 40 lower-case letters, digits and hyphens, a letter first"
}

check_count() { # OPTION VALUE
    [[ $2 =~ ^[0-9]{1,6}$ ]] || die "$1 is '$2'." "give a whole number"
}

shape='' slices='' hosts='' chips_a_host='' accelerator_type='' gke_accelerator='' runtime=''

# Sets these from the table of slices.
read_topology() {
    local lines key value
    lines=$(python3 -m m2io_jax.parallel.topologies "$1") || exit 1
    while IFS='=' read -r key value; do
        printf -v "$key" '%s' "$value"
    done <<<"$lines"
}

# The words as a JSON list, which is YAML too.
json() { python3 -c 'import json, sys; print(json.dumps(sys.argv[1:], ensure_ascii=False))' "$@"; }

# What m2io is to do: the configuration of `train` must be in the tree, since the tree is what is copied.
check_words() {
    (($# > 0)) || die "Nothing is said for m2io to do." "end the command with: train CONFIG key=value..."
    [[ $1 != train || -f ${2:-} ]] ||
        die "'${2:-}' is no configuration in the source tree." "name a file such as configs/inserter_r1_3b.yaml"
}
