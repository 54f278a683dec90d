#!/usr/bin/env bash
# m2io on Cloud TPU VMs: asks for slices as a queued resource, copies the source tree to every worker, installs it, runs
# m2io on all of them, and does so again after a preemption.
usage() {
    cat <<'USAGE'
usage: launch/tpu_vm.sh COMMAND --name NAME [OPTION...] [WORDS...]

  run WORDS...   all of the below, in turn, until m2io has ended: for example
                 launch/tpu_vm.sh run --name a --topology v5e-16 --spot train CONFIG key=value...
                 Given again it goes on with what is there. Ended by a signal, it leaves the training alone. What it
                 starts again is the tree that it copied first
  create         the queued resource, and wait for it
  copy           the source tree, without runs/ and .venv/
  install        the package, on every worker
  start WORDS... m2io WORDS..., detached
  logs           of the first worker, until the run ends
  status         of the queued resource, and of the run on every worker
  stop           asks m2io to save and end, and waits for that; a `run` that follows it ends too
  fetch FOLDER [INTO]
                 a run's folder from the first worker, with its adapters, without checkpoints and (but for --weights)
                 whole weights: FOLDER of the tree here, or, of another place there, into the folder INTO here
  delete         the queued resource with its machines, if it is there

  --name NAME            of the queued resource
  --topology NAME        v5e-16, v5p:4x4x4, 2xv6e-32 for two slices (for run, create and status)
  --project, --zone      or CLOUDSDK_CORE_PROJECT, CLOUDSDK_COMPUTE_ZONE
  --spot                 cheaper, and may be taken away
  --runtime VERSION      software of the machines; that of the family by default
  --gcloud FLAG          a further flag for `gcloud ... queued-resources create`, such as --service-account=...
  --ssh FLAG             a further flag for `gcloud ... ssh` and `scp`, such as --internal-ip or --tunnel-through-iap
  --mounted PATH         start nothing before a disk is mounted there on every worker
  --extra NAME           install this extra too, such as wandb
  --env NAME             give the run this variable of the environment here, such as WANDB_API_KEY
  --weights              fetch whole weights too
  --restarts N           give up after N restarts (100), or where the resource is FAILED three times in a row
  --poll SECONDS         between looks at what is waited for (30)
  --dry-run              print what would be run, and run nothing
--gcloud, --ssh, --mounted, --extra and --env may be given several times.
USAGE
}

# shellcheck source=SCRIPTDIR/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

name='' topology='' zone=${CLOUDSDK_COMPUTE_ZONE:-} project=${CLOUDSDK_CORE_PROJECT:-}
spot=false weights=false version='' restarts=100 further=() ssh=() mounts=()

parse() { # sets the options, and `words` to what is m2io's
    while (($#)); do
        case $1 in
        --name | --topology | --project | --zone | --runtime | --gcloud | --ssh | --mounted | --extra | --env | \
            --restarts | --poll)
            (($# > 1)) || die "$1 has no value." "add one"
            ;;&
        --name) name=$2 && shift ;;
        --topology) topology=$2 && shift ;;
        --project) project=$2 && shift ;;
        --zone) zone=$2 && shift ;;
        --runtime) version=$2 && shift ;;
        --gcloud) further+=("$2") && shift ;;
        --ssh) ssh+=("$2") && shift ;;
        --mounted) mounts+=("$2") && shift ;;
        --extra) extras+=("$2") && shift ;;
        --env) variables+=("$2") && shift ;;
        --restarts) restarts=$2 && shift ;;
        --poll) poll=$2 && shift ;;
        --spot) spot=true ;;
        --weights) weights=true ;;
        --dry-run) dry_run=true ;;
        --help) usage && exit ;;
        --) shift && break ;;
        -*) die "$1 is not an option of tpu_vm.sh." "see launch/tpu_vm.sh --help" ;;
        *) break ;;
        esac
        shift
    done
    words=("$@")
    check_count --restarts "$restarts"
    check_count --poll "$poll"
    check_extras
    local mount
    for mount in "${mounts[@]}"; do
        [[ $mount == /* ]] || die "--mounted is '$mount'." "give the whole path on the workers, such as /shared"
    done
    require --name "$name"
    check_name "$name"
    require --project "$project" CLOUDSDK_CORE_PROJECT
    require --zone "$zone" CLOUDSDK_COMPUTE_ZONE
    need gcloud "https://cloud.google.com/sdk/docs/install"
    resource=(gcloud compute tpus queued-resources)
    place=(--project="$project" --zone="$zone")
    reach=("${place[@]}" "${ssh[@]}")
}

slices_asked() {
    require --topology "$topology"
    read_topology "$topology"
    version=${version:-$runtime}
    [[ -n $version ]] || die "$topology is not to be had as TPU VMs." "use launch/gke.sh, or give --runtime VERSION"
}

create() {
    local nodes=(--node-id="$name")
    ((slices == 1)) || nodes=(--node-count="$slices" --node-prefix="$name")
    $spot && nodes+=(--spot)
    run "${resource[@]}" create "$name" "${place[@]}" --accelerator-type="$accelerator_type" \
        --runtime-version="$version" "${nodes[@]}" "${further[@]}"
    assumed_state=ACTIVE
}

# Sets `remote` to what runs a command line on the workers: all, or 0 of the first slice.
on() { # WORKERS COMMAND-LINE
    remote=("${resource[@]}" ssh "$name" "${reach[@]}" --node="$1" --worker="$1" --command="$2")
}

copy_to_all() { # FILE THERE
    run "${resource[@]}" scp "$1" "$name:$2" "${reach[@]}" --node=all --worker=all
}

# The tree is packed once: what is edited later does not change a run half-way.
packed=false
copy() {
    local archive=runs/launch/$name.tar.gz
    if ! $packed; then
        pack "$archive" || return
        packed=true
    fi
    on all "$UNPACK"
    copy_to_all "$archive" m2io.tar.gz && run "${remote[@]}"
}

install() {
    on all "m2io/launch/worker.sh install $(install_of tpu)"
    run "${remote[@]}"
}

# What a run needs there before it begins: its disks, and its variables.
prepare() {
    if ((${#mounts[@]})); then
        on all "$(quoted m2io/launch/worker.sh mounted "${mounts[@]}")"
        run "${remote[@]}" --ssh-flag=-oServerAliveInterval=30 || return
    fi
    if ((${#variables[@]})); then
        write_variables "runs/launch/$name.env" && copy_to_all "runs/launch/$name.env" "m2io/$VARIABLES"
    fi
}

start() {
    local sent=()
    prepare || return
    ((${#variables[@]} == 0)) || sent=(--env)
    on all "$(quoted m2io/launch/worker.sh start "${sent[@]}" "${words[@]}")"
    assumed_status=running
    run "${remote[@]}"
}

logs() {
    on 0 'm2io/launch/worker.sh follow'
    # Without it the connection to a machine that was taken away would never break.
    run "${remote[@]}" --ssh-flag=-oServerAliveInterval=30
    assumed_status=0
}

stop() {
    on all 'm2io/launch/worker.sh stop'
    run "${remote[@]}" --ssh-flag=-oServerAliveInterval=30
}

fetch() {
    local archive=runs/launch/$name.fetched.tar folder=${words[0]%/} leave="--exclude=checkpoints" above into
    $weights || leave+=" --exclude='model*.safetensors'"
    above=$(dirname "$folder")
    into=${words[1]:-$above}
    on 0 "cd m2io && tar -cf ../fetched.tar $leave -C $(quoted "$above" "$(basename "$folder")")"
    run "${remote[@]}"
    run mkdir -p runs/launch "$into"
    run "${resource[@]}" scp "$name:fetched.tar" "$archive" "${reach[@]}" --node=0 --worker=0
    run tar -xf "$archive" -C "$into"
    run rm "$archive"
}

delete() {
    if [[ $(state) == absent ]]; then
        tell "there is no $name"
    else
        run "${resource[@]}" delete "$name" "${place[@]}" --force --quiet
    fi
}

# What the queued resource is at; `absent` where there is none.
state() {
    local said
    said=$(ask "${assumed_state#absent}" "${resource[@]}" list "${place[@]}" --filter="name~/$name\$" \
        --format='value(state.state)') || said=unknown
    printf '%s' "${said:-absent}"
}

# What all workers say of the run, as one word: unreachable (not all have answered), busy (with another), running, 0 (all
# ended well), 130 (stopped), none, lost or 75 (to be started again), or the status of the first that failed.
worked() {
    local said answer answers=0 verdict=0
    on all "if [ -e m2io ]; then $(quoted m2io/launch/worker.sh status "${words[@]}"); else echo none; fi"
    said=$(ask "$assumed_status" "${remote[@]}") || true
    while read -r answer; do
        [[ $answer =~ ^(none|running|busy|lost|[0-9]+)$ ]] || continue
        answers=$((answers + 1))
        case $answer in
        running | busy) verdict=$answer ;;
        0) ;;
        "$STOPPED") [[ $verdict == running || $verdict == busy ]] || verdict=$answer ;;
        none | lost | "$SAVED") [[ $verdict =~ ^(running|busy|$STOPPED)$ ]] || verdict=$answer ;;
        *) [[ $verdict != 0 ]] || verdict=$answer ;;
        esac
    done <<<"$said"
    $dry_run || ((answers == hosts * slices)) || verdict=unreachable
    printf '%s' "$verdict"
}

restarted=0
restart() { # WHY
    restarted=$((restarted + 1))
    ((restarted <= restarts)) || die "$1, after $restarts restarts." "raise --restarts, or give the command again"
    tell "$1: once more"
}

# A queued resource that is deleted takes its reason with it. Waiting mends neither quota nor a wrong zone or type.
refused=0
tell_why() { # STATE
    run "${resource[@]}" describe "$name" "${place[@]}" '--format=yaml(state)' >&2 || true
    if [[ $1 == FAILED ]]; then refused=$((refused + 1)); else refused=0; fi
    ((refused < 3)) || die "$name is FAILED, 3 times in a row: see its state above." \
        "mend that, then give the same command again; what has failed goes by: launch/tpu_vm.sh delete --name $name"
}

# The whole way. What an earlier call left is gone on with; only a run that had ended is started again.
run_all() {
    local verdict='' begun=false at
    while [[ $verdict != 0 ]]; do
        at=$(state)
        case $at in
        ACTIVE)
            refused=0
            attend_run
            ;;
        absent) create ;;
        SUSPENDED | FAILED)
            tell_why "$at"
            restart "$name is $at"
            begun=false failures=0
            delete
            pause "$poll"
            ;;
        unknown) once_more "gcloud cannot say how $name is" ;;
        *)
            failures=0
            tell "$name is $at"
            pause "$poll"
            ;;
        esac
    done
    tell "m2io has ended well; the machines are kept: launch/tpu_vm.sh delete --name $name"
}

# Machines may be taken away at any moment: whatever fails here, the next look says what is.
begin() {
    if copy && install && start; then
        begun=true
        logs || true
    else
        once_more "the workers of $name could not be made ready"
    fi
}

# One look at the run on machines that are there; sets run_all's `verdict` and `begun`.
attend_run() {
    verdict=$(worked)
    case $begun,$verdict in
    *,unreachable) once_more "not all workers of $name answer" && return ;;
    *,busy) die "$name is busy with another run." "see launch/tpu_vm.sh logs --name $name" ;;
    *,running)
        begun=true failures=0
        [[ ! -f runs/launch/$name.tar.gz ]] || packed=true # what it runs, if it was started from here
        logs || true
        pause 1 # a run is gone a moment before its status is there
        ;;
    false,*)
        verdict=none
        begin
        ;;
    true,0) ;;
    true,"$STOPPED")
        tell "m2io was asked to stop, and the same command goes on; the machines are kept:" \
            "launch/tpu_vm.sh delete --name $name"
        exit "$STOPPED"
        ;;
    true,none | true,lost | true,"$SAVED")
        restart "the run is $verdict"
        begin
        ;;
    *)
        tell "m2io has ended with status $verdict; the machines are kept: launch/tpu_vm.sh delete --name $name"
        exit "$verdict"
        ;;
    esac
}

command=${1:---help}
(($# == 0)) || shift
case $command in
run | create | copy | install | start | logs | status | stop | fetch | delete) parse "$@" ;;
--help | -h) usage && exit ;;
*) die "$command is not a command of tpu_vm.sh." "see launch/tpu_vm.sh --help" ;;
esac
case $command in
run | create | status) slices_asked ;;&
run | start)
    check_words "${words[@]}"
    check_variables
    ;;
fetch)
    ((${#words[@]} == 1 || ${#words[@]} == 2)) || die "fetch takes one folder." "give it as in the tree, such as runs/a"
    [[ ${words[0]} != /* ]] || ((${#words[@]} == 2)) || die "${words[0]} is not in the tree." "add the folder to put it into"
    ;;
*) ((${#words[@]} == 0)) || die "$command does not take: ${words[*]}" "see launch/tpu_vm.sh --help" ;;
esac
assumed_state=absent assumed_status=none
[[ $command != delete ]] || assumed_state=ACTIVE
case $command in
run) run_all ;;
status) printf 'queued resource: %s\nrun: %s\n' "$(state)" "$(worked)" ;;
*) "$command" ;;
esac
