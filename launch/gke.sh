#!/usr/bin/env bash
# m2io on GKE: a JobSet with one job a slice and one pod a host, or the same by xpk.
usage() {
    cat <<'USAGE'
usage: launch/gke.sh COMMAND --name NAME [OPTION...] [WORDS...]

  image            build the container image of this source tree, and push it
  manifest WORDS...  print the JobSet that runs m2io WORDS..., such as train CONFIG key=value...
  run WORDS...     kubectl apply it. It is started again when a pod ends with 75 (saved) or is evicted, whatever
                   --restarts says, and goes on from the last checkpoint
  xpk WORDS...     the same by `xpk workload create`
  logs             of the first pod, until it ends
  status           of the JobSet and its pods
  delete           the JobSet with its pods

  --name NAME          of the JobSet
  --topology NAME      v5e-16, v5p:4x4x4, 2xv6e-32 for two slices (for manifest, run and xpk)
  --image IMAGE        registry path and tag, or M2IO_IMAGE (for image, manifest, run and xpk)
  --namespace NAME     of the cluster; that of the context by default
  --context NAME       kubectl's context; the current one by default
  --queue NAME         Kueue's LocalQueue to wait in
  --service-account N  that may read and write the bucket
  --secret NAME        a Secret whose values all pods have as variables; may be given several times
  --extra NAME         installed too, such as wandb; may be given several times (for image)
  --volume CLAIM:/PATH a PersistentVolumeClaim to mount in every pod, such as data:/data; may be given several times
  --spot               on spot nodes
  --restarts N         after other failures (3; with --spot 100, for the pods that are left when a node is gone at once
                       fail in their own way)
  --cluster NAME, --project NAME, --zone ZONE
                       for xpk, or M2IO_CLUSTER, CLOUDSDK_CORE_PROJECT, CLOUDSDK_COMPUTE_ZONE
  --dry-run            print what would be run, and run nothing
USAGE
}

# shellcheck source=SCRIPTDIR/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

GRACE=300 # seconds between the notice and the end

name='' topology='' image=${M2IO_IMAGE:-} namespace='' context='' queue='' account=''
volumes=() secrets=() spot=false restarts=''
cluster=${M2IO_CLUSTER:-} project=${CLOUDSDK_CORE_PROJECT:-} zone=${CLOUDSDK_COMPUTE_ZONE:-}

parse() { # sets the options, and `words` to what is m2io's
    while (($#)); do
        case $1 in
        --spot) spot=true ;;
        --dry-run) dry_run=true ;;
        --help) usage && exit ;;
        --) shift && break ;;
        --*) (($# > 1)) || die "$1 has no value, or is not an option of gke.sh." "see launch/gke.sh --help" ;;&
        --name) name=$2 && shift ;;
        --topology) topology=$2 && shift ;;
        --image) image=$2 && shift ;;
        --namespace) namespace=$2 && shift ;;
        --context) context=$2 && shift ;;
        --queue) queue=$2 && shift ;;
        --service-account) account=$2 && shift ;;
        --volume) volumes+=("$2") && shift ;;
        --secret) secrets+=("$2") && shift ;;
        --extra) extras+=("$2") && shift ;;
        --restarts) restarts=$2 && shift ;;
        --cluster) cluster=$2 && shift ;;
        --project) project=$2 && shift ;;
        --zone) zone=$2 && shift ;;
        -*) die "$1 is not an option of gke.sh." "see launch/gke.sh --help" ;;
        *) break ;;
        esac
        shift
    done
    words=("$@")
    [[ -n $restarts ]] || if $spot; then restarts=100; else restarts=3; fi
    check_count --restarts "$restarts"
    check_extras
    local volume secret
    for secret in "${secrets[@]}"; do
        [[ $secret =~ ^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$ ]] ||
            die "--secret is '$secret'." "give the name of a Secret in the cluster: its values stay there"
    done
    for volume in "${volumes[@]}"; do
        [[ $volume =~ ^[a-z0-9]([-a-z0-9.]*[a-z0-9])?:/[^:]*$ ]] ||
            die "--volume is '$volume'." "give a claim and where to mount it, such as data:/data"
    done
    kubectl=(kubectl)
    [[ -z $context ]] || kubectl+=(--context="$context")
    [[ -z $namespace ]] || kubectl+=(--namespace="$namespace")
}

in_quotes() { json "$1" | sed 's/^\[//; s/\]$//'; }

# A line of YAML, with the value quoted; nothing where there is no value.
line() { # INDENT KEY VALUE
    [[ -z $3 ]] || printf '%*s%s: %s\n' "$1" '' "$2" "$(in_quotes "$3")"
}

# The claims and where each is mounted; nothing where no volume is asked for.
claims() {
    ((${#volumes[@]} == 0)) || echo '              volumes:'
    local number
    for number in "${!volumes[@]}"; do
        echo "                - {name: volume-$number, persistentVolumeClaim: {claimName: \"${volumes[number]%%:*}\"}}"
    done
}
mounts() {
    ((${#volumes[@]} == 0)) || echo '                  volumeMounts:'
    local number
    for number in "${!volumes[@]}"; do
        echo "                    - {name: volume-$number, mountPath: $(in_quotes "${volumes[number]#*:}")}"
    done
}
# The secrets whose values are variables there; nothing where there is none.
environment() {
    ((${#secrets[@]} == 0)) || echo '                  envFrom:'
    local secret
    for secret in "${secrets[@]}"; do
        echo "                    - secretRef: {name: \"$secret\"}"
    done
}
# For the claims of buckets, which a container beside mounts; to others it means nothing.
with_buckets() { ((${#volumes[@]} == 0)) || echo '            metadata: {annotations: {gke-gcsfuse/volumes: "true"}}'; }

manifest() {
    cat <<YAML
apiVersion: jobset.x-k8s.io/v1alpha2
kind: JobSet
metadata:
  name: $name
$(line 2 namespace "$namespace")
  labels:
    app: m2io
$(line 4 kueue.x-k8s.io/queue-name "$queue")
  annotations:
    # The pods of a job on one slice, and those of another job on another.
    alpha.jobset.sigs.k8s.io/exclusive-topology: cloud.google.com/gke-nodepool
spec:
  failurePolicy:
    maxRestarts: $restarts
    rules:
      - name: takenAway
        action: RestartJobSetAndIgnoreMaxRestarts
        onJobFailureReasons: [PodFailurePolicy]
  replicatedJobs:
    - name: slice
      replicas: $slices
      template:
        spec:
          parallelism: $hosts
          completions: $hosts
          completionMode: Indexed
          backoffLimit: 0
          # What is named here fails the job by the reason that the rule above is for.
          podFailurePolicy:
            rules:
              - action: FailJob
                onExitCodes: {containerName: m2io, operator: In, values: [$SAVED]}
              - action: FailJob
                onPodConditions: [{type: DisruptionTarget, status: "True"}]
          template:
$(with_buckets)
            spec:
              restartPolicy: Never
              # Between the notice and the end: time to save, of which a spot node gives as much as it has.
              terminationGracePeriodSeconds: $GRACE
$(line 14 serviceAccountName "$account")
              nodeSelector:
                cloud.google.com/gke-tpu-accelerator: $gke_accelerator
                cloud.google.com/gke-tpu-topology: $shape
$($spot && line 16 cloud.google.com/gke-spot true)
              containers:
                - name: m2io
$(line 18 image "$image")
                  # Kubernetes reads \$\$ as a dollar sign, and \$(NAME) as a variable.
                  command: $(json m2io "${words[@]//\$/\$\$}")
$(environment)
                  resources:
                    requests: {google.com/tpu: $chips_a_host}
                    limits: {google.com/tpu: $chips_a_host}
$(mounts)
$(claims)
YAML
}

# The manifest without the lines that were left empty.
manifest_text() { manifest | sed '/^$/d'; }

apply() {
    local ended
    need kubectl "https://kubernetes.io/docs/tasks/tools"
    # To kubectl one that has ended is there, and is as asked: it would leave it.
    ended=$(ask '' "${kubectl[@]}" get jobset "$name" --ignore-not-found --output='jsonpath={.status.terminalState}')
    [[ -z $ended ]] || die "The JobSet $name has ended: $ended." \
        "delete it first: launch/gke.sh delete --name $name${context:+ --context $context}${namespace:+ --namespace $namespace}"
    if $dry_run; then
        printf "%s <<'YAML'\n%s\nYAML\n" "$(quoted "${kubectl[@]}" apply --filename=-)" "$(manifest_text)"
    else
        manifest_text | "${kubectl[@]}" apply --filename=-
    fi
}

by_xpk() {
    need xpk "pip install xpk"
    ((${#volumes[@]} == 0)) || die "xpk takes no --volume." \
        "leave it out: xpk mounts what \`xpk storage attach NAME --auto-mount=true\` has given the cluster"
    ((${#secrets[@]} == 0)) || die "xpk takes no --secret." "use launch/gke.sh run"
    require --cluster "$cluster" M2IO_CLUSTER
    require --project "$project" CLOUDSDK_CORE_PROJECT
    require --zone "$zone" CLOUDSDK_COMPUTE_ZONE
    # To xpk an end with 1, as of the peers that are left, would be final; in the manifest it counts as one of --restarts.
    local own=()
    $spot && own+=(--spot)
    run xpk workload create --workload="$name" --cluster="$cluster" --project="$project" --zone="$zone" \
        --tpu-type="$accelerator_type" --num-slices="$slices" --docker-image="$image" \
        --max-restarts="$restarts" --restart-on-exit-codes="1,$SAVED" \
        --termination-grace-period-seconds="$GRACE" "${own[@]}" \
        --command="$(quoted m2io "${words[@]}")"
}

build() {
    need docker "https://docs.docker.com/engine/install"
    # TPU machines are that, whatever this one is.
    run docker build --platform=linux/amd64 --file=launch/Dockerfile \
        --build-arg=EXTRA="$(install_of tpu)" --tag="$image" .
    run docker push "$image"
}

kubectl_do() {
    need kubectl "https://kubernetes.io/docs/tasks/tools"
    run "${kubectl[@]}" "$@"
}

command=${1:---help}
(($# == 0)) || shift
case $command in
image | manifest | run | xpk | logs | status | delete) parse "$@" ;;
--help | -h) usage && exit ;;
*) die "$command is not a command of gke.sh." "see launch/gke.sh --help" ;;
esac
case $command in
image | manifest | run | xpk) require --image "$image" M2IO_IMAGE ;;&
manifest | run | xpk)
    require --topology "$topology"
    read_topology "$topology"
    check_words "${words[@]}"
    ;;
*) ((${#words[@]} == 0)) || die "$command does not take: ${words[*]}" "see launch/gke.sh --help" ;;
esac
[[ $command == image ]] || { require --name "$name" && check_name "$name"; }
case $command in
image) build ;;
manifest) manifest_text ;;
run) apply ;;
xpk) by_xpk ;;
logs)
    first=jobset.sigs.k8s.io/jobset-name=$name,jobset.sigs.k8s.io/job-index=0,batch.kubernetes.io/job-completion-index=0
    kubectl_do logs --follow --tail=-1 --selector="$first"
    ;;
status)
    kubectl_do get jobset "$name"
    kubectl_do get pods --selector="jobset.sigs.k8s.io/jobset-name=$name"
    ;;
delete) kubectl_do delete jobset "$name" ;;
esac
