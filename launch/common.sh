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

# Ctrl-C ends a launcher, even where the command that it waits for took the signal for itself and ended well.
trap 'exit 130' INT

dry_run=false
# How a run ends that was asked to stop and saved: the same command goes on.
SAVED=75    # by SIGTERM, its machine being taken away (EX_TEMPFAIL): launchers start it again
STOPPED=130 # by SIGINT, as `stop` asks: nobody starts it again but the user

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

# What is tried again may not go on for ever; launchers set `failures` back to 0 when all is well.
failures=0 poll=30
once_more() { # WHAT
    failures=$((failures + 1))
    ((failures < 20)) || die "$1, 20 times in a row." "look at it, then give the same command again"
    tell "$1"
    pause "$poll"
}

require() { # OPTION VALUE [VARIABLE]
    [[ -n $2 ]] || die "$1 is not given." "add $1 VALUE${3:+, or set $3}"
}

# The source tree, without what is made in it.
pack() { # ARCHIVE
    run mkdir -p "$(dirname "$1")" &&
        run tar -czf "$1" --exclude=./runs --exclude=./.venv --exclude=./.git --exclude=__pycache__ .
}
# On the machine: the files of the archive in place of those that an earlier one brought; what else is in m2io/ stays.
UNPACK='mkdir -p m2io/runs/launch && cd m2io && touch runs/launch/copied && xargs -d "\n" rm -f <runs/launch/copied'
UNPACK+=' && tar -xzf ../m2io.tar.gz && tar -tzf ../m2io.tar.gz | grep -v /$ >runs/launch/copied'

# Names that every cloud takes for its resources.
check_name() {
    [[ $1 =~ ^[a-z]([-a-z0-9]{0,38}[a-z0-9])?$ ]] ||
        die "--name is '$1'." "use up to 40 lower-case letters, digits and hyphens, a letter first"
}

check_count() { # OPTION VALUE
    [[ $2 =~ ^[0-9]{1,6}$ ]] || die "$1 is '$2'." "give a whole number"
}

# What is installed, as pip has it: the machine's extra, and the user's.
extras=()
install_of() { # EXTRA
    local IFS=,
    echo "$1${extras:+,${extras[*]}}"
}

check_extras() {
    local extra
    for extra in "${extras[@]}"; do
        [[ $extra =~ ^[a-z]+$ && $(<pyproject.toml) == *$'\n'"$extra = ["* ]] ||
            die "--extra is '$extra'." "name an optional dependency of pyproject.toml, such as wandb or mlflow"
    done
}

# Variables of the user's that the run is to have, by name. Their values go into a file that only the user can read, never
# onto a command line, which all users of a machine see.
variables=()
check_variables() {
    local variable
    for variable in "${variables[@]}"; do
        [[ $variable != *=* ]] || die "--env ${variable%%=*} is given a value." "give the name alone, and export the value"
        [[ $variable =~ ^[A-Z_][A-Z0-9_]*$ ]] || die "--env is '$variable'." "give the name of a variable, in capitals"
        [[ -v $variable && ${!variable@a} == *x* ]] || die "--env $variable is not set here." "export $variable=... first"
        [[ ${!variable} != *$'\n'* ]] || die "--env $variable has several lines." "give it as one"
    done
}
# shellcheck disable=SC2016  # read by the shell that is run
WRITE='umask 077 && rm -f "$0" && for name; do printf "%s=%s\n" "$name" "${!name}"; done >"$0"'
write_variables() { # FILE
    run mkdir -p "$(dirname "$1")" && run bash -c "$WRITE" "$1" "${variables[@]}"
}
# Where the machine that trains has them, in its tree: NAME=VALUE a line.
VARIABLES=runs/launch/variables

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
