#!/bin/bash
# Starts, looks up and ends a block of a pool as a spot instance of AWS. The hub calls it: see pool.toml.
set -euo pipefail
export AWS_DEFAULT_REGION=eu-central-1

# The instance of the block, by the token with which it was started: its id, state and reason; nothing if there is none.
instance() {
    aws ec2 describe-instances --filters "Name=client-token,Values=$TRIO_HUB_BLOCK" --output text \
        --query 'Reservations[].Instances[].[InstanceId,State.Name,StateReason.Code,StateReason.Message]'
}

case ${1-} in
submit)
    aws ssm put-parameter --name /trio-hub/connection --type SecureString --overwrite \
        --value "file://$TRIO_HUB_CONNECTION_FILE" >&2
    user_data=$(sed "s/__BLOCK__/$TRIO_HUB_BLOCK/; s/__ENGINES__/$TRIO_HUB_ENGINES/" "$(dirname "$0")/user-data.sh")
    id=$(aws ec2 run-instances --launch-template LaunchTemplateName=trio-hub-engine \
        --instance-market-options MarketType=spot --instance-initiated-shutdown-behavior terminate \
        --tag-specifications "ResourceType=instance,Tags=[{Key=Name,Value=trio-hub-$TRIO_HUB_BLOCK}]" \
        --client-token "$TRIO_HUB_BLOCK" --user-data "$user_data" --query 'Instances[0].InstanceId' --output text)
    echo "$id"
    aws ec2 wait instance-exists --instance-ids "$id" || true # AWS may need seconds until it tells of an instance
    ;;
cancel)
    read -r id _ <<<"$(instance)"
    if [ -n "$id" ]; then
        aws ec2 terminate-instances --instance-ids "$id"
    fi
    ;;
status) # prints waiting, running, ended or failed, and the reason
    IFS=$'\t' read -r id state code message <<<"$(instance)"
    case $id/$state/$code in
    /*) echo "ended: there is no instance of this block" ;;
    */pending/*) echo waiting ;;
    */terminated/Server.*) echo "failed: $message" ;;
    */terminated/*) echo ended ;;
    *) echo running ;; # also on its way to the end
    esac
    ;;
*)
    echo "usage: engines.sh submit|cancel|status" >&2
    exit 2
    ;;
esac
