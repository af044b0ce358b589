#!/bin/bash
# Starts, looks up and ends a block of a pool as a Job of Kubernetes. The hub calls it: see pool.toml.
set -euo pipefail
set -f # no word of Kubernetes is a pattern of file names
job=trio-hub-$TRIO_HUB_BLOCK

# The state of the Job's pod, in the words of Kubernetes.
why() {
    kubectl get pods -l "trio-hub-block=$TRIO_HUB_BLOCK" -o jsonpath='{range .items[*]}
        {.status.conditions[?(@.type=="PodScheduled")].message}
        {.status.containerStatuses[*].state.*.reason} {.status.reason} {.status.message}{end}'
}

case ${1-} in
submit)
    kubectl create secret generic trio-hub-engine --dry-run=client -o yaml \
        --from-file=connection="$TRIO_HUB_CONNECTION_FILE" | kubectl apply -f - >&2
    sed "s/__BLOCK__/$TRIO_HUB_BLOCK/; s/__TIME_LIMIT__/$TRIO_HUB_TIME_LIMIT/" "$(dirname "$0")/engine-job.yaml" |
        kubectl create -f - -o name
    ;;
cancel)
    kubectl delete job "$job" --ignore-not-found --wait=false
    ;;
status) # prints waiting, running, ended or failed, and the reason
    state=$(kubectl get job "$job" --ignore-not-found -o jsonpath='found
        ready={.status.ready} succeeded={.status.succeeded} failed={.status.failed}
        {.status.conditions[?(@.type=="Failed")].reason}')
    case $state in
    "") echo "ended: there is no Job $job" ;;
    *DeadlineExceeded*) echo "ended: DeadlineExceeded" ;;
    *ready=1*) echo running ;;
    *succeeded=1*) echo ended ;;
    *failed=1*) echo failed: $(why) ;;
    *) echo waiting: $(why) ;;
    esac
    ;;
*)
    echo "usage: engines.sh submit|cancel|status" >&2
    exit 2
    ;;
esac
