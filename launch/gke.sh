#!/usr/bin/env bash
# Runs rsclip_jax on TPUs of a Google Kubernetes Engine cluster.
#
#   export IMAGE=us-docker.pkg.dev/my-project/my-repo/rsclip
#   export CONFIG=align_sar WORKDIR=gs://my-bucket/runs/sar
#   launch/gke.sh image
#   ACCELERATOR=tpu-v6e-slice TOPOLOGY=4x4 launch/gke.sh apply [flags]
#   CLUSTER=my-cluster ZONE=us-central1-c TPU_TYPE=tpu7x-16 launch/gke.sh xpk [flags]
#
# image   builds the image of launch/Dockerfile with this clone and pushes it
# apply   starts launch/gke.yaml, a JobSet, with kubectl on the current cluster
# xpk     starts the same job with xpk, on a cluster that xpk made
# follow  the log of the first process
# delete  deletes the job; with CLUSTER set, by xpk
#
# [flags] of apply and xpk are those of rsclip_jax.main. A job whose pods fail or are
# evicted is restarted and resumes from its last checkpoint. Ironwood (TPU7x) is reachable
# through GKE only.
#
#   --help      this text
#   --dry-run   prints the commands and runs nothing
#
# variable         default        meaning
# NAME             rsclip         name of the job
# IMAGE            required       image to build and to run
# CONFIG           required       config file of the image or name of a shipped config
# WORKDIR          required       gs://BUCKET/PATH, which the service account may write
# ACCELERATOR      tpu-v6e-slice  apply: tpu-v5-lite-podslice, tpu-v5p-slice, tpu7x, ...
# TOPOLOGY         2x4            apply: the slice's chips, such as 4x4 or 2x2x2
# CHIPS            4              apply: chips of a node; 8 for one of eight chips
# SPOT             no             apply: yes for spot nodes
# SERVICE_ACCOUNT  default        apply: service account of the pods
# CLUSTER                         xpk: name of the cluster (required there)
# PROJECT                         xpk: project; default: that of gcloud's configuration
# ZONE                            xpk: zone; default: that of gcloud's configuration
# TPU_TYPE         tpu7x-16       xpk: type and size; v5litepod-16, v6e-16, ...
# MAX_RESTARTS     50             restarts of the job
set -euo pipefail
# shellcheck source=launch/common.sh
source "$(dirname "$0")/common.sh"
: "${NAME:=rsclip}" "${ACCELERATOR:=tpu-v6e-slice}" "${TOPOLOGY:=2x4}" "${CHIPS:=4}"
: "${SPOT:=no}" "${SERVICE_ACCOUNT:=default}" "${CLUSTER:=}" "${PROJECT:=}" "${ZONE:=}"
: "${TPU_TYPE:=tpu7x-16}" "${MAX_RESTARTS:=50}"

# The command of the container, as words.
set_command() {
    need IMAGE "such as us-docker.pkg.dev/my-project/my-repo/rsclip"
    need_job pod
    command=(python -m rsclip_jax.main --config="$CONFIG" --workdir="$WORKDIR"
        ${flags[@]+"${flags[@]}"})
}

# json WORD...: the words as a list that YAML reads too.
json() {
    local comma="" word
    printf '['
    for word in "$@"; do
        printf '%s"%s"' "$comma" "$(printf '%s' "$word" | sed 's/[\\"]/\\&/g')"
        comma=", "
    done
    printf ']'
}

# Hosts of the slice: its chips, which are the product of TOPOLOGY's numbers, by CHIPS.
count_hosts() {
    local chips=1 side
    for side in $(printf '%s' "$TOPOLOGY" | tr x ' '); do
        case $side in '' | *[!0-9]*) fail "TOPOLOGY=$TOPOLOGY: set it to numbers such as 4x4" ;; esac
        chips=$((chips * side))
    done
    [ $((chips % CHIPS)) -eq 0 ] && [ "$chips" -gt 0 ] ||
        fail "TOPOLOGY=$TOPOLOGY has $chips chips, which are no whole nodes of CHIPS=$CHIPS"
    printf '%s' $((chips / CHIPS))
}

# shellcheck disable=SC2016  # sed looks for ${NAME} itself
# fill NAME VALUE: an edit of sed that puts the value where the YAML says ${NAME}.
fill() { printf 's|${%s}|%s|;' "$1" "$(printf '%s' "$2" | sed 's/[\\&|]/\\&/g')"; }

# write_yaml HOSTS: launch/gke.yaml with every gap filled.
write_yaml() {
    local edits="" name
    [ "$SPOT" = yes ] || edits='/gke-spot: /d;'
    for name in NAME MAX_RESTARTS SERVICE_ACCOUNT ACCELERATOR TOPOLOGY IMAGE CHIPS; do
        edits+=$(fill "$name" "${!name}")
    done
    edits+=$(fill HOSTS "$1")$(fill SPOT_LABEL '"true"')
    sed -e '/^#/d' -e "$edits$(fill COMMAND "$(json "${command[@]}")")" "$clone/launch/gke.yaml"
}

image() {
    need IMAGE "such as us-docker.pkg.dev/my-project/my-repo/rsclip"
    need_tool docker "install Docker"
    run docker build --tag "$IMAGE" --file "$clone/launch/Dockerfile" \
        --build-arg COMMIT="$(find_commit)" "$clone"
    run docker push "$IMAGE"
}

apply() {
    local hosts yaml
    set_command
    hosts=$(count_hosts)
    need_tool kubectl "install kubectl, and gcloud container clusters get-credentials CLUSTER"
    yaml=$(write_yaml "$hosts")
    if [ -n "$dry_run" ]; then
        printf "kubectl apply -f - <<'END'\n%s\nEND\n" "$yaml"
    else
        printf '%s\n' "$yaml" | kubectl apply -f -
    fi
}

# in_cluster WORD...: an xpk command for CLUSTER.
in_cluster() {
    need CLUSTER "the cluster that xpk made"
    need_tool xpk "pip install xpk"
    run xpk "$@" --cluster="$CLUSTER" ${PROJECT:+--project="$PROJECT"} ${ZONE:+--zone="$ZONE"}
}

xpk_create() {
    set_command
    in_cluster workload create --workload="$NAME" --tpu-type="$TPU_TYPE" --num-slices=1 \
        --docker-image="$IMAGE" --max-restarts="$MAX_RESTARTS" \
        --termination-grace-period-seconds=120 \
        --command="exec $(quote_all "${command[@]}")" # exec: SIGTERM reaches Python
}

follow() {
    need_tool kubectl "install kubectl, and gcloud container clusters get-credentials CLUSTER"
    run kubectl logs --follow --timestamps \
        --selector="jobset.sigs.k8s.io/jobset-name=$NAME,batch.kubernetes.io/job-completion-index=0"
}

delete() {
    if [ -n "$CLUSTER" ]; then
        in_cluster workload delete --workload="$NAME" --force
    else
        need_tool kubectl "install kubectl, and gcloud container clusters get-credentials CLUSTER"
        run kubectl delete jobset "$NAME"
    fi
}

parse "$@"
action=${flags[0]:-}
flags=(${flags[@]+"${flags[@]:1}"})
case $action in
    image | apply | xpk | follow | delete) ;;
    "") fail "say what to do: image, apply, xpk, follow or delete (--help)" ;;
    *) fail "there is no '$action': image, apply, xpk, follow or delete (--help)" ;;
esac
need_count CHIPS
need_number MAX_RESTARTS
case $SPOT in yes | no) ;; *) fail "SPOT=$SPOT: set it to yes or no" ;; esac
label='^[a-z]([-a-z0-9]*[a-z0-9])?$'
[[ $NAME =~ $label ]] || fail "NAME=$NAME: Kubernetes takes lower-case letters, digits and hyphens, such as rsclip-2"
case $action in
    apply) apply ;;
    xpk) xpk_create ;;
    *)
        [ "${#flags[@]}" -eq 0 ] || fail "$action takes no ${flags[0]}: flags go to apply and xpk"
        "$action"
        ;;
esac
