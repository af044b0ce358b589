#!/bin/bash
# Starts, finds and ends the blocks of a pool as Jobs of Kubernetes. The hub calls it: see pool.toml.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)

case $1 in
submit) # prints the name of the Job, which the hub keeps as TRIO_HUB_JOB
    kubectl create secret generic trio-hub-engine --dry-run=client -o yaml \
        --from-file=connection="$TRIO_HUB_CONNECTION_FILE" | kubectl apply -f - >&2
    sed "s/@BLOCK@/$TRIO_HUB_BLOCK/g" "$here/engine-job.yaml" | kubectl create -f - -o name
    ;;
cancel)
    kubectl delete "$TRIO_HUB_JOB" --ignore-not-found --wait=false >&2
    ;;
status)
    state=$(kubectl get "$TRIO_HUB_JOB" --ignore-not-found -o jsonpath='{.status.ready} {.status.active}')
    ;;
esac
