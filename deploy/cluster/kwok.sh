# cluster kwok: fake nodes with fake GPUs, and fake pods on them. Sourced by cluster.
#
# A pod that is to run there needs the toleration and the selector that `kwok up` prints; ordinary pods stay on the real node.
# Enough for it is the control plane (`up --control`); the scheduler is started if it does not run.
# shellcheck shell=bash

fake=millrace.dev/fake-node

kwok() {
  need_root "cluster kwok"
  case $#:${1:-}:${2:-10} in
    1:up:* | 2:up:[1-9] | 2:up:[1-9][0-9] | 2:up:[1-9][0-9][0-9] | 2:up:[1-9][0-9][0-9][0-9]) ;;
    1:down:*) ;;
    *) fail "kwok takes: up [NODES], NODES from 1 to 9999, or down" ;;
  esac
  take_turn
  runs kube-apiserver || fail "the cluster does not run: deploy/cluster/cluster up, or up --control"
  "kwok_$1" "${2:-10}"
}

kwok_up() {
  local nodes=$1 begin
  begin=$(now)
  need_built kube-scheduler kwok
  scheduler
  start kwok "$bin_dir/kwok" --kubeconfig="$KUBECONFIG" --config="$bin_dir/kwok-stages.yaml" --cidr=$fake_pod_cidr \
    --node-ip=$node_ip --manage-nodes-with-label-selector=$fake=true --node-lease-duration-seconds=40
  wait_for 30 "scheduler" healthy "https://$node_ip:10259/healthz"
  # Those above the wanted number go, with their pods.
  # shellcheck disable=SC2046
  remove_fake_nodes $(kubectl get nodes -l $fake=true -o name | sed 's#.*/fake-##' |
    awk -v n="$nodes" '$1 >= n {print "fake-" $1}')
  fake_nodes "$nodes" | requests 201 409
  wait_for 120 "fake nodes" fake_nodes_ready "$nodes"
  say "$nodes fake nodes after $(since "$begin") s. A pod for them needs:"
  echo "nodeSelector: {$fake: \"true\"}"
  echo "tolerations: [{key: $fake, operator: Exists}]"
}

kwok_down() {
  # shellcheck disable=SC2046
  remove_fake_nodes $(kubectl get nodes -l $fake=true -o name | sed 's#.*/##')
  stop kwok
  say "no fake nodes any more"
}

fake_nodes_ready() { [ "$(kubectl get nodes -l $fake=true --no-headers | awk '$2 == "Ready"' | wc -l)" = "$1" ]; }

fake_nodes() { # fake_nodes NUMBER: a request for each
  local i arch size
  arch=$(dpkg --print-architecture)
  size='{"cpu": "64", "memory": "512Gi", "pods": "110", "ephemeral-storage": "1Ti", "nvidia.com/gpu": "8"}'
  for ((i = 0; i < $1; i++)); do
    echo "POST /api/v1/nodes {\"metadata\": {\"name\": \"fake-$i\", \"labels\": {\"$fake\": \"true\"," \
      "\"kubernetes.io/hostname\": \"fake-$i\", \"kubernetes.io/os\": \"linux\", \"kubernetes.io/arch\": \"$arch\"," \
      "\"nvidia.com/gpu.present\": \"true\"}}, \"status\": {\"capacity\": $size, \"allocatable\": $size}," \
      "\"spec\": {\"taints\": [{\"key\": \"$fake\", \"value\": \"true\", \"effect\": \"NoSchedule\"}]}}"
  done
}

# remove_fake_nodes NAME...: and the pods on them
remove_fake_nodes() {
  [ $# -gt 0 ] || return 0
  {
    printf 'DELETE /api/v1/nodes/%s\n' "$@"
    kubectl get pods -A -o jsonpath='{range .items[*]}{.metadata.namespace} {.metadata.name} {.spec.nodeName}{"\n"}{end}' |
      awk -v names=" $* " '$3 && index(names, " " $3 " ") {print "DELETE /api/v1/namespaces/" $1 "/pods/" $2 "?gracePeriodSeconds=0"}'
  } | requests 200 404
}

# requests STATUS...: sends the lines METHOD PATH [BODY] over one connection and expects one of these. For many requests: kubectl
# allows itself five a second.
requests() {
  local method path body first=1 other
  other=$(while read -r method path body; do
    [ "$first" ] || echo next
    first=
    printf '%s\n' "request = $method" "url = \"$server$path\"" "cacert = \"$pki/ca.crt\"" "cert = \"$pki/admin.crt\"" \
      "key = \"$pki/admin.key\"" silent show-error "output = /dev/null" 'write-out = "%{http_code}\n"'
    [ -z "$body" ] || printf '%s\n' 'header = "Content-Type: application/json"' "data = \"${body//\"/\\\"}\""
  done | curl -K - | grep -vxE "$(tr ' ' '|' <<<"$*")" | sort | uniq -c || true)
  [ -z "$other" ] || fail "the API server answered (times, status): $other"
}
