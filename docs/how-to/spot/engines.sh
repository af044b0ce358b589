#!/bin/bash
# Starts, finds and ends the blocks of a pool as spot instances of AWS. The hub calls it: see pool.toml.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
export AWS_DEFAULT_REGION=eu-central-1

case $1 in
submit) # prints the id of the instance, which the hub keeps as TRIO_HUB_JOB
    aws ssm put-parameter --name /trio-hub/connection --type SecureString --overwrite \
        --value "file://$TRIO_HUB_CONNECTION_FILE" >&2
    user_data=$(sed "s/@BLOCK@/$TRIO_HUB_BLOCK/g; s/@ENGINES@/$TRIO_HUB_ENGINES/g" "$here/user-data.sh")
    aws ec2 run-instances --launch-template LaunchTemplateName=trio-hub-engine \
        --instance-market-options MarketType=spot --instance-initiated-shutdown-behavior terminate \
        --client-token "$TRIO_HUB_BLOCK" \
        --tag-specifications "ResourceType=instance,Tags=[{Key=Name,Value=$TRIO_HUB_BLOCK}]" \
        --user-data "$user_data" --query 'Instances[0].InstanceId' --output text
    ;;
cancel)
    aws ec2 terminate-instances --instance-ids "$TRIO_HUB_JOB" >&2
    ;;
esac
