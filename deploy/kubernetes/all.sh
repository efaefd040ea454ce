#!/bin/bash
# From images on the volume to a submission: each Job begins once the one before is complete.
#
#   kubectl apply -f volume.yaml
#   all.sh

set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)

for name in embed index submit join; do
    kubectl apply -f "$here/$name.yaml"
    until kubectl get job "lmr-$name" -o 'jsonpath={.status.conditions[?(@.status=="True")].type}' |
        grep -Eqw 'Complete|Failed'; do
        sleep 10
    done
    kubectl wait --for=condition=Complete --timeout=1s "job/lmr-$name"
done
