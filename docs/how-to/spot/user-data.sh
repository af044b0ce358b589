#!/bin/bash
# Runs as root when a spot instance has started. engines.sh replaces __BLOCK__ and __ENGINES__.
set -euo pipefail
export AWS_DEFAULT_REGION=eu-central-1

IPP_CONNECTION_INFO=$(aws ssm get-parameter --name /trio-hub/connection --with-decryption \
    --query Parameter.Value --output text)
export IPP_CONNECTION_INFO

units=()
for number in $(seq __ENGINES__); do
    unit=trio-hub-engine-$number
    # systemd stops an engine with SIGTERM, and kills it after TimeoutStopSec, which is longer than --kill-grace.
    systemd-run --unit "$unit" --uid engine --setenv IPP_CONNECTION_INFO \
        --property KillMode=mixed --property TimeoutStopSec=100 \
        /opt/trio-hub/bin/trio-hub engine --block=__BLOCK__ --kill-grace=90 --timeout=60
    units+=("$unit")
done

# Whether AWS has announced that it takes the instance back, in two minutes.
is_interrupted() {
    local token metadata=http://169.254.169.254/latest
    token=$(curl -sfX PUT -H 'X-aws-ec2-metadata-token-ttl-seconds: 60' $metadata/api/token) &&
        curl -sfo /dev/null -H "X-aws-ec2-metadata-token: $token" $metadata/meta-data/spot/instance-action
}

while systemctl --quiet is-active "${units[@]}"; do
    if is_interrupted; then
        systemctl stop "${units[@]}"
    fi
    sleep 5
done
shutdown -h now
