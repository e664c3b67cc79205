#!/usr/bin/env bash
# Waits until a cluster serves the model that deploy/ENVIRONMENT names, or says that it will not.
#
#   scripts/wait-for-rollout.sh ENVIRONMENT [TIMEOUT]
#
# Ends with 0 when the new version serves all traffic, 1 when it was taken back, 2 when neither came in time.
set -euo pipefail
environment=$1
timeout=${2:-60m}
namespace=ml-$environment
digest=$(sed -n 's/^ *sha256: *//p' "deploy/$environment/model.yaml")

# First the commit has to reach the cluster: until then, Ready is about the version before.
kubectl wait mdep/churn -n "$namespace" --for=jsonpath='{.spec.model.sha256}'="$digest" --timeout=15m || exit 2

kubectl wait mdep/churn -n "$namespace" --for=condition=Ready --timeout="$timeout" >/dev/null &
ready=$!
kubectl wait mdep/churn -n "$namespace" --for=condition=Stalled --timeout="$timeout" >/dev/null &
stalled=$!
first=0
wait -n -p first "$ready" "$stalled" || first=0
kill "$ready" "$stalled" 2>/dev/null || true
kubectl get mdep/churn -n "$namespace" -o jsonpath='{.status.message}{"\n"}'
case $first in
  "$ready") exit 0 ;;
  "$stalled") exit 1 ;;
  *) exit 2 ;;
esac
