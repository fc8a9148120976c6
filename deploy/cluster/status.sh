# cluster status: what runs and where. Sourced by cluster.
# shellcheck shell=bash

status() {
  local name pid where line some=
  while read -r name where; do
    if pid=$(pid_of "$name"); then
      some=1
      line=$(awk '/^VmRSS/ {printf "%d MiB", $2 / 1024}' "/proc/$pid/status" 2>/dev/null)
      printf '%-24s process %-8s %8s  %s\n' "$name" "$pid" "$line" "$where"
    elif [ -e "$run_dir/pid/$name" ] && [ "$(cat "$run_dir/boot" 2>/dev/null)" = "$(boot_id)" ]; then
      printf '%-24s died: %s\n' "$name" "$log_dir/$name.log"
    fi
  done <<LIST
etcd https://$node_ip:2379
kube-apiserver $server
kube-controller-manager $node_ip:10257
kube-scheduler $node_ip:10259
containerd $socket
kubelet $node_ip:10250
kube-proxy NodePorts at $node_ip
coredns $node_ip:53
kwok -
LIST
  if [ ! "$some" ]; then
    say "nothing runs"
    exit 3
  fi
  echo
  if runs kube-apiserver; then
    kubectl get nodes --no-headers 2>/dev/null | awk '{n[$2]++} END {for (s in n) printf "nodes: %d %s\n", n[s], s}' || true
    kubectl get pods -A --no-headers 2>/dev/null | awk '{n[$4]++} END {for (s in n) printf "pods: %d %s\n", n[s], s}' || true
  fi
  echo "pods $node_pod_cidr, services $service_cidr"
  echo "export KUBECONFIG=$KUBECONFIG PATH=$bin_dir:\$PATH"
}
