#!/usr/bin/env bash
# m2io on one machine with GPUs, this one or another by ssh: in a virtual environment, or in a container.
usage() {
    cat <<'USAGE'
usage: launch/gpu_host.sh COMMAND [OPTION...] [WORDS...]

  run WORDS...   all of the below, in turn, until m2io has ended: for example
                 launch/gpu_host.sh run --host me@box train CONFIG episodes=FOLDER key=value...
                 What is running already is followed
  copy           the source tree, without runs/ and .venv/, to m2io/ in the home there
  install        the package into .venv, or a container image
  start WORDS... m2io WORDS..., detached
  logs           until the run ends
  status         none, running, lost (killed outright), or the run's exit status
  stop           asks m2io to save and end, and waits for that; a `run` that follows it ends too

  --host HOST    as ssh knows it; this machine by default, from this tree
  --docker       in a container, which sees the tree's runs/
  --name NAME    of the container and its image (m2io)
  --extra NAME   install this extra too, such as wandb; may be given several times
  --env NAME     give the run this variable of the environment here, such as WANDB_API_KEY; may be given several times
  --poll SECONDS between looks at a host that does not answer (30)
  --dry-run      print what would be run, and run nothing
USAGE
}

# shellcheck source=SCRIPTDIR/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

host='' docker=false name=m2io

parse() { # sets the options, and `words` to what is m2io's
    while (($#)); do
        case $1 in
        --docker) docker=true ;;
        --dry-run) dry_run=true ;;
        --help) usage && exit ;;
        --) shift && break ;;
        --*) (($# > 1)) || die "$1 has no value, or is not an option of gpu_host.sh." "see launch/gpu_host.sh --help" ;;&
        --host) host=$2 && shift ;;
        --name) name=$2 && shift ;;
        --extra) extras+=("$2") && shift ;;
        --env) variables+=("$2") && shift ;;
        --poll) poll=$2 && shift ;;
        -*) die "$1 is not an option of gpu_host.sh." "see launch/gpu_host.sh --help" ;;
        *) break ;;
        esac
        shift
    done
    words=("$@")
    check_name "$name"
    check_extras
    check_count --poll "$poll"
    [[ $host != -* ]] || die "--host is '$host'." "give a host as ssh knows it"
    [[ -z $host ]] || need ssh "apt install openssh-client"
    [[ -n $host ]] || ! $docker || need docker "https://docs.docker.com/engine/install"
}

# Sets `there` to what runs a command line in the tree, on that machine.
at() {
    if [[ -n $host ]]; then
        there=(ssh -o ServerAliveInterval=30 "$host" "cd m2io && $1")
    else
        there=(bash -c "$1")
    fi
}

do_at() {
    at "$1"
    run "${there[@]}"
}

copy() {
    local archive=runs/launch/$name.tar.gz
    [[ -n $host ]] || return 0
    pack "$archive"
    run scp "$archive" "$host:m2io.tar.gz"
    run ssh "$host" "$UNPACK"
}

install() {
    if $docker; then
        do_at "docker build --file=launch/Dockerfile --build-arg=EXTRA=$(install_of cuda) --tag=$name ."
    else
        do_at "launch/worker.sh install $(install_of cuda)"
    fi
}

# The variables that the run is to have, as a file in the tree there.
send_variables() {
    ((${#variables[@]})) || return 0
    if [[ -n $host ]]; then
        write_variables "runs/launch/$name.env" && run scp "runs/launch/$name.env" "$host:m2io/$VARIABLES"
    else
        write_variables "$VARIABLES"
    fi
}

start() {
    local sent=()
    send_variables || return
    if $docker; then
        ((${#variables[@]} == 0)) || sent=("--env-file=$VARIABLES")
        # One that is running is not removed, and keeps the name: this then fails.
        do_at "docker rm $name || true; docker run --detach --init --name=$name --gpus=all --ipc=host \
--volume=\"\$PWD/runs:/m2io/runs\" $(quoted "${sent[@]}" "--label=words=$(quoted "${words[@]}")") \
$name $(quoted m2io "${words[@]}")"
    else
        ((${#variables[@]} == 0)) || sent=(--env)
        do_at "$(quoted launch/worker.sh start "${sent[@]}" "${words[@]}")"
    fi
}

logs() {
    if $docker; then do_at "docker logs --follow $name"; else do_at 'launch/worker.sh follow'; fi
    assumed_status=0
}

# By SIGINT, as worker.sh does it.
stop() {
    if $docker; then
        do_at "docker kill --signal=INT $name && timeout 600 docker wait $name"
    else
        do_at 'launch/worker.sh stop'
    fi
}

# none, running, busy (with other words than the user's, if there are any), lost, or the exit status.
status() {
    local said
    if $docker; then
        at "docker inspect --type=container --format='{{if .State.Running}}running {{.Config.Labels.words}}{{else}}\
{{.State.ExitCode}}{{end}}' $name 2>/dev/null || echo none"
    else
        at "$(quoted launch/worker.sh status "${words[@]}")"
    fi
    [[ -z $host ]] || there[-1]="if [ -e m2io ]; then ${there[-1]}; else echo none; fi"
    said=$(ask "$assumed_status" "${there[@]}") || return
    if [[ $said == running\ * ]] && ((${#words[@]})) && [[ $said != "running $(quoted "${words[@]}")" ]]; then
        said=busy
    fi
    echo "${said%% *}"
}

# Sets `ended` to the status; a connection that breaks is not the end.
look() {
    until ended=$(status); do
        once_more "${host:-this machine} does not say how m2io is"
    done
}

# The whole way, by looks at how the run is: what is running is followed, and only what saved is started again.
run_all() {
    local ended
    look
    [[ $ended != busy ]] || die "m2io is busy there with another run." "see launch/gpu_host.sh logs"
    if [[ $ended != running ]]; then
        copy
        install
        start
        ended=running
    fi
    while [[ $ended == running || $ended == "$SAVED" ]]; do
        if [[ $ended == running ]]; then
            failures=0
            logs || true # a connection that breaks is no end
        else
            start || once_more "m2io could not be started again"
        fi
        look
    done
    finish "$ended"
}

finish() { # STATUS
    case $1 in
    0) exit ;;
    "$STOPPED") tell "m2io was asked to stop, and the same command goes on" ;;
    *) tell "m2io has ended: $1" ;;
    esac
    [[ $1 =~ ^[0-9]+$ ]] || exit 1
    exit "$1"
}

command=${1:---help}
(($# == 0)) || shift
case $command in
run | copy | install | start | logs | status | stop) parse "$@" ;;
--help | -h) usage && exit ;;
*) die "$command is not a command of gpu_host.sh." "see launch/gpu_host.sh --help" ;;
esac
case $command in
run | start)
    check_words "${words[@]}"
    check_variables
    ;;
*) ((${#words[@]} == 0)) || die "$command does not take: ${words[*]}" "see launch/gpu_host.sh --help" ;;
esac
assumed_status=none
case $command in
run) run_all ;;
*) "$command" ;;
esac
