#!/usr/bin/env bash
# Brings one image to one environment: its migrations first, which leave what the version before uses, then a
# canary gateway, then every pod, and back to what ran before when a step fails or the error budget burns.
#   deploy/roll-out.sh staging sha256:...
# PROMETHEUS_URL is asked for the burn rate; without it the roll-out alone decides.
set -euo pipefail
cd "$(dirname "$0")/.."

environment=$1
digest=$2
namespace=stormwire
release=stormwire
watch_minutes=${WATCH_MINUTES:-10}

# The burn rate of the last 5 minutes; 14.4 is what pages.
burns() {
  [ -n "${PROMETHEUS_URL:-}" ] || return 1
  local query="max(slo:sli_error:ratio_rate5m{slo=~\"requests|publishes\",namespace=\"$namespace\"}) > 0.0144"
  curl --fail --silent --show-error --get "$PROMETHEUS_URL/api/v1/query" --data-urlencode "query=$query" \
    | grep --quiet '"value"'
}

watch_for() {
  local until=$((SECONDS + $1 * 60))
  while [ "$SECONDS" -lt "$until" ]; do
    if burns; then
      echo "the error budget burns" >&2
      return 1
    fi
    sleep 15
  done
}

# The chart's own hook, before the canary instead of after it. Its second run finds nothing to do.
migrate() {
  local job=$release-migrate
  kubectl --namespace "$namespace" delete job "$job" --ignore-not-found --wait
  helm template "$release" charts/stormwire --namespace "$namespace" --is-upgrade \
    --values "charts/stormwire/profiles/$environment.yaml" --set-string "image.digest=$digest" \
    --show-only templates/migrate.yaml \
    | kubectl --namespace "$namespace" apply --filename -
  local until=$((SECONDS + 1900)) ended
  while [ "$SECONDS" -lt "$until" ]; do
    ended=$(kubectl --namespace "$namespace" get job "$job" --output \
      'jsonpath={.status.conditions[?(@.status=="True")].type}')
    case " $ended " in
      *" Complete "*) return 0 ;;
      *" Failed "*) break ;;
    esac
    sleep 5
  done
  echo "the schema is not brought up to date; see kubectl --namespace $namespace logs job/$job" >&2
  return 1
}

canary() {
  kubectl --namespace "$namespace" get deployment "$release-gateway" --output json \
    | python3 -c '
import json, sys
made = json.load(sys.stdin)
name, image = sys.argv[1], sys.argv[2]
template = made["spec"]["template"]
template["spec"]["containers"][0]["image"] = image
template["metadata"]["labels"]["stormwire/track"] = "canary"
labels = made["spec"]["selector"]["matchLabels"]
labels["stormwire/track"] = "canary"
print(json.dumps({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name, "labels": labels},
                  "spec": {"replicas": 1, "selector": {"matchLabels": labels}, "template": template}}))
' "$release-gateway-canary" "$1" \
    | kubectl --namespace "$namespace" apply --filename -
  kubectl --namespace "$namespace" rollout status "deployment/$release-gateway-canary" --timeout 10m
}

end_canary() {
  kubectl --namespace "$namespace" delete deployment "$release-gateway-canary" --ignore-not-found --wait=false
}

back() {
  echo "going back" >&2
  end_canary
  helm rollback "$release" --namespace "$namespace" --wait --timeout 30m
}

image=$(helm show values charts/stormwire | sed -n 's/^  repository: //p' | head -n 1)
if kubectl --namespace "$namespace" get deployment "$release-gateway" >/dev/null 2>&1; then
  migrate
  canary "$image@$digest"
  if ! watch_for "$watch_minutes"; then
    end_canary
    exit 1
  fi
fi
trap back ERR
helm upgrade "$release" charts/stormwire --install --namespace "$namespace" --create-namespace \
  --values "charts/stormwire/profiles/$environment.yaml" --set-string "image.digest=$digest" \
  --wait --timeout 45m
end_canary
watch_for "$watch_minutes"
trap - ERR
echo "$environment runs $digest"
