# cluster down: stops the cluster and removes what it left in the kernel. Sourced by cluster.
# shellcheck shell=bash

down() {
  local purge=
  case $#:${1:-} in
    0:) ;;
    1:--purge) purge=1 ;;
    *) fail "down takes --purge or nothing" ;;
  esac
  need_root "cluster down"
  take_turn
  if [ -e "$run_dir" ] || [ -e "$run_state" ]; then
    stop kwok kubelet kube-proxy coredns kube-scheduler kube-controller-manager kube-apiserver
    remove_containers
    stop containerd
    stop etcd # last and gently
    remove_leftovers
    remove_pod_networks
    remove_network
    restore
    rm -rf "$run_state"
  fi
  [ ! "$purge" ] || rm -rf "$run_dir"
  say "down${purge:+, and its data removed}"
}

# stop NAME...: TERM, up to 3 s for all of them, KILL. The API server drains for longer than anybody wants to wait.
stop() {
  local name pid
  for name; do
    ! pid=$(pid_of "$name") || kill "$pid" 2>/dev/null || true
  done
  for _ in {1..30}; do
    for name; do runs "$name" && sleep 0.1 && continue 2; done
    break
  done
  for name; do
    ! pid=$(pid_of "$name") || kill -9 "$pid" 2>/dev/null || true
  done
  for name; do rm -f "$run_dir/pid/$name"; done
}

# While containerd answers, containers leave its records as well; if it is dead, the next start finds them ended.
remove_containers() {
  local id
  runs containerd && ctr version >/dev/null 2>&1 || return 0
  for id in $(ctr tasks ls -q); do ctr tasks rm -f "$id" >/dev/null 2>&1 || true; done
  for id in $(ctr containers ls -q); do ctr containers rm "$id" >/dev/null 2>&1 || true; done
}

# What still lives although containerd is gone: shims with our socket in their command line, processes in our control groups.
remove_leftovers() {
  local path file mount
  for path in /proc/[0-9]*; do
    case $({ tr '\0' ' ' <"$path/cmdline"; } 2>/dev/null) in
      */containerd-shim-runc-v2*" -address $socket "*) kill -9 "${path#/proc/}" 2>/dev/null || true ;;
    esac
  done
  for _ in {1..50}; do
    find /sys/fs/cgroup -path "*/$cgroup*" -name cgroup.procs -exec cat {} + 2>/dev/null | sort -u |
      xargs -r kill -9 2>/dev/null || true
    find /sys/fs/cgroup -path "*/$cgroup*" -depth -type d -exec rmdir {} + 2>/dev/null || true
    [ -n "$(find /sys/fs/cgroup -path "*/$cgroup" -print -quit)" ] || break
    sleep 0.1
  done
  for file in "$run_state"/containerd/io.containerd.runtime.v2.task/*/*/address; do
    [ ! -e "$file" ] || rm -f "$(sed 's#^unix://##' "$file")"
  done
  # The kubelet mounts its folder onto itself, and volumes in there.
  awk -v a="$run_dir/" -v b="$run_state/" 'index($2, a) == 1 || index($2, b) == 1 {print $2}' /proc/mounts | sort -r |
    while read -r mount; do umount "$mount" 2>/dev/null || umount -l "$mount" || true; done
  find /var/log/containers -lname "$run_dir/*" -delete 2>/dev/null || true
}

remove_pod_networks() {
  local name
  for name in $( (
    ip -o link show master $pod_link | sed -n 's/.* link-netns \([^ ]*\).*/\1/p'
    grep -hos '/run/netns/cni-[0-9a-f-]*' /var/lib/cni/results/millrace-* | sed 's#.*/##'
  ) 2>/dev/null | sort -u); do
    ip netns del "$name" 2>/dev/null || rm -f "/run/netns/$name"
  done
  for name in /var/lib/cni/results/millrace-*-eth0; do # what the plugins answered: one file for each interface
    name=${name##*/millrace-}
    rm -f /var/lib/cni/results/*-"${name%-eth0}"-*
  done
  rm -rf "$run_dir/cni" # addresses handed out
}

remove_network() {
  local name table
  for name in $pod_link $node_link; do ip link del $name 2>/dev/null || true; done
  ip route del unreachable $pod_cidr 2>/dev/null || true
  nft delete table inet millrace_cluster 2>/dev/null || true
  [ -e "$run_dir/kube-proxy.yaml" ] || return 0 # with --control these are not ours
  for table in "ip kube-proxy" "ip6 kube-proxy" "ip cni_hostport" "ip6 cni_hostport"; do
    grep -qx "table $table" "$run_dir/before" 2>/dev/null || nft delete table "${table% *}" "${table#* }" 2>/dev/null || true
  done
  rm -f "$run_dir/kube-proxy.yaml"
}

# Leaves the machine as `up` found it: settings, folders that were not there and are empty now, tables without a rule.
restore() {
  local word path value
  [ -e "$run_dir/before" ] || return 0
  while read -r word path value; do
    case $word in
      setting) [ "$(cat "$path")" = "$value" ] || echo "$value" >"$path" ;;
      absent)
        [ "$path" != /var/lib/kubelet ] || rm -f /var/lib/kubelet/device-plugins/{kubelet.sock,DEPRECATION}
        [ ! -d "$path" ] || find "$path" -depth -type d -empty -delete 2>/dev/null || true
        # /run/netns is a mount on itself once anything made a network namespace with a name
        if [ -d "$path" ] && mountpoint -q "$path" && [ -z "$(ls -A "$path")" ]; then umount "$path" && rmdir "$path"; fi
        ;;
    esac
  done <"$run_dir/before"
  for path in "ip filter" "ip mangle" "ip nat" "ip6 filter" "ip6 mangle" "ip6 nat"; do
    ! grep -qx "table $path" "$run_dir/before" || continue
    value=$(nft list table "${path% *}" "${path#* }" 2>/dev/null) || continue
    # only chains that hold nothing
    grep -qvE '^[[:space:]]*(table .*|chain .*|type .* policy accept;|\})?$' <<<"$value" || nft delete table "${path% *}" "${path#* }"
  done
  rm -f "$run_dir/before"
}
