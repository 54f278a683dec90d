#!/usr/bin/env bash
# On the machine that trains: installs the source tree that this file lies in, and runs m2io so that it outlives the
# connection it was started by. Launchers call it over ssh; one run at a time.
#
#   launch/worker.sh install EXTRA     the package with extras (tpu, or cuda,wandb) into .venv
#   launch/worker.sh mounted PATH...   waits up to 15 minutes until disks are mounted there
#   launch/worker.sh start [--env] WORDS...
#                                      m2io WORDS..., detached; nothing if just that is running. With --env it has the
#                                      variables that the launcher has sent
#   launch/worker.sh status [WORDS...] none, running, busy (with other words), lost (killed outright), or the exit status
#   launch/worker.sh follow            the log, until the run ends
#   launch/worker.sh stop              asks it to save and end, and waits for that
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

RECORD=runs/launch/worker       # command, pid, status, log
VARIABLES=runs/launch/variables # NAME=VALUE a line, as common.sh writes them

die() {
    echo "error: $*" >&2
    exit 1
}

install() {
    if ! command -v uv >/dev/null; then
        # uv brings a Python that is new enough: TPU VMs have 3.10.
        PIP_BREAK_SYSTEM_PACKAGES=1 python3 -m pip install --quiet --user uv
        PATH="$HOME/.local/bin:$PATH"
    fi
    [[ -x .venv/bin/python ]] || uv venv --quiet --python 3.12 .venv
    uv pip install --quiet --python .venv -c constraints.txt -e ".[$1]"
}

command_of() { printf '%q ' m2io "$@"; }

status() {
    if [[ -f $RECORD/status ]]; then
        cat "$RECORD/status"
    elif [[ ! -f $RECORD/pid ]]; then
        echo none
    elif kill -0 "$(cat "$RECORD/pid")" 2>/dev/null; then
        if (($#)) && [[ $(cat "$RECORD/command") != "$(command_of "$@")" ]]; then echo busy; else echo running; fi
    else
        echo lost
    fi
}

# Startup scripts, which mount disks, still run while the machine answers ssh already.
mounted() {
    local path
    for path in "$@"; do
        # shellcheck disable=SC2016  # read by the shell that is run
        timeout 900 bash -c 'until mountpoint -q "$1"; do sleep 5; done' - "$path" ||
            die "nothing is mounted on $path after 15 minutes: see what the startup script says"
    done
}

# Values are taken as they stand: no shell reads them.
read_variables() {
    local line
    chmod 600 "$VARIABLES"
    while IFS= read -r line; do export "${line?}"; done <"$VARIABLES"
}

start() {
    local sent=false
    [[ ${1:-} != --env ]] || { sent=true && shift; }
    case $(status "$@") in
    running) return ;;
    busy) die "this machine is busy with: $(cat "$RECORD/command")" ;;
    esac
    rm -rf "$RECORD"
    mkdir -p "$RECORD"
    command_of "$@" >"$RECORD/command"
    ! $sent || read_variables
    setsid bash launch/worker.sh attend "$@" >"$RECORD/log" 2>&1 </dev/null &
    echo $! >"$RECORD/pid"
}

# The run's parent: it outlives a request to stop, which is for the run, and notes how that ended. What a shell runs
# beside itself ignores SIGINT: not the run, which is stopped by it.
attend() {
    local ended=0
    trap : TERM
    PATH="$PWD/.venv/bin:$PATH" env --default-signal=INT m2io "$@" || ended=$?
    echo "$ended" >"$RECORD/status.partial"
    mv "$RECORD/status.partial" "$RECORD/status"
}

follow() {
    [[ -f $RECORD/pid ]] || die "nothing was started here"
    tail --lines=100 --follow=name --pid="$(cat "$RECORD/pid")" "$RECORD/log"
}

# By SIGINT, on which m2io ends with 130: SIGTERM means that the machine is taken away, and is for launchers to mend.
stop() {
    local pid
    [[ $(status) == running ]] || return 0
    pid=$(cat "$RECORD/pid")
    pkill -INT --parent "$pid" || [[ $(status) != running ]] || die "there is no m2io to be asked yet: try again"
    timeout 600 tail --pid="$pid" --follow /dev/null || die "m2io was asked to stop, and has not ended in 10 minutes"
}

case ${1:-} in
install | mounted | start | status | follow | stop | attend) "$@" ;;
*) die "give install, mounted, start, status, follow or stop" ;;
esac
