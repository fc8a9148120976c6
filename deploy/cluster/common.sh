# Settings and helpers of every script here. Sourced, not run.
# shellcheck shell=bash disable=SC2034

# shellcheck source=versions
. "$here/versions"

# --- where things are --------------------------------------------------------------------------------------------------
home=${MILLRACE_CLUSTER_HOME:-${XDG_CACHE_HOME:-$HOME/.cache}/millrace/cluster}
bin_dir=${MILLRACE_CLUSTER_BIN:-$home/bin}
run_dir=$home/run                # etcd's data, keys, images, logs, process ids: what `down --purge` removes
log_dir=$run_dir/log
pki=$run_dir/pki
run_state=/run/millrace-cluster  # sockets; paths of unix sockets must be short
socket=$run_state/containerd.sock
cgroup=millrace-cluster

# The node's address is on a bridge of its own: nothing listens on the machine's addresses, and no port is taken from them.
node=node-1
node_ip=10.243.0.1
pod_cidr=10.244.0.0/16
node_pod_cidr=10.244.0.0/24      # within it: pods that run
fake_pod_cidr=10.244.128.0/17    # and pods on fake nodes
service_cidr=10.96.0.0/16
volume_count=4                   # folders of the node, 10Gi each as far as Kubernetes knows
node_link=millrace0
pod_link=millrace-pods

server=https://$node_ip:6443
export KUBECONFIG=$pki/admin.kubeconfig PATH=$bin_dir:$PATH

# --- talking -----------------------------------------------------------------------------------------------------------
say() { printf '\033[2m[cluster]\033[0m %s\n' "$*" >&2; }
fail() {
  printf '[cluster] %s\n' "$*" >&2
  exit 1
}
need_root() { [ "$(id -u)" = 0 ] || fail "$* needs root"; }

# now: seconds with a decimal point; since START: seconds since then, one decimal
now() { printf '%s' "${EPOCHREALTIME/,/.}"; }
since() { awk -v a="$1" -v b="$(now)" 'BEGIN {printf "%.1f", b - a}'; }

# --- what must be there ------------------------------------------------------------------------------------------------
# need_packages PACKAGE=PROBE...: a probe is a command, or a file when it begins with a slash
need_packages() {
  local pair probe missing=()
  for pair; do
    probe=${pair#*=}
    case $probe in
      /*) [ -e "$probe" ] ;;
      *) command -v "$probe" >/dev/null ;;
    esac || missing+=("${pair%%=*}")
  done
  [ ${#missing[@]} -gt 0 ] || return 0
  command -v apt-get >/dev/null || fail "missing: ${missing[*]} (names of Debian packages)"
  [ "$(id -u)" = 0 ] || fail "missing Debian packages. As root: apt-get install -y --no-install-recommends ${missing[*]}"
  say "installing Debian packages: ${missing[*]}"
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
}

# The programs in the order in which they are built: the control plane first. Columns: group, program, version, kind, package.
programs() {
  local source=$here/smoke.d/probe.go
  cat <<TABLE
control etcd $etcd_version etcd go.etcd.io/etcd/server/v3
control kube-apiserver $kubernetes_version kubernetes k8s.io/kubernetes/cmd/kube-apiserver
control kube-controller-manager $kubernetes_version kubernetes k8s.io/kubernetes/cmd/kube-controller-manager
control kubectl $kubernetes_version kubernetes k8s.io/kubernetes/cmd/kubectl
control kube-scheduler $kubernetes_version kubernetes k8s.io/kubernetes/cmd/kube-scheduler
node kubelet $kubernetes_version kubernetes k8s.io/kubernetes/cmd/kubelet
node kube-proxy $kubernetes_version kubernetes k8s.io/kubernetes/cmd/kube-proxy
node pause $(cksum <"$here/pause.c" | cut -d' ' -f1) c $here/pause.c
node bridge $cni_version module github.com/containernetworking/plugins/plugins/main/bridge
node loopback $cni_version module github.com/containernetworking/plugins/plugins/main/loopback
node host-local $cni_version module github.com/containernetworking/plugins/plugins/ipam/host-local
node portmap $cni_version module github.com/containernetworking/plugins/plugins/meta/portmap
node coredns $coredns_version module github.com/coredns/coredns
helm helm $helm_version helm helm.sh/helm/v3/cmd/helm
kwok kwok $kwok_version kwok sigs.k8s.io/kwok/cmd/kwok
smoke probe $(cksum <"$source" | cut -d' ' -f1) go $source
skaffold skaffold $skaffold_version skaffold github.com/GoogleContainerTools/skaffold/v2/cmd/skaffold
TABLE
}

# A program is there when the note beside it has its version.
is_built() { [ -x "$bin_dir/$1" ] && [ "$(cat "$bin_dir/.built/$1" 2>/dev/null)" = "$2" ]; }

# need_built PROGRAM...
need_built() {
  local program version missing=()
  while read -r _ program version _; do
    case " $* " in *" $program "*) is_built "$program" "$version" || missing+=("$program") ;; esac
  done < <(programs)
  [ ${#missing[@]} = 0 ] || fail "not built: ${missing[*]}. Run: deploy/cluster/cluster build ${missing[*]}"
}

# --- one at a time -----------------------------------------------------------------------------------------------------
# Commands that change the cluster take turns; what they start does not inherit the lock.
take_turn() {
  exec 9</run
  flock -n 9 || { say "waiting for another run of this script"; flock 9; }
  local owner
  owner=$(cat "$run_state/home" 2>/dev/null || true)
  [ -z "$owner" ] || [ "$owner" = "$run_dir" ] || [ ! -d "$owner" ] ||
    fail "a cluster with its data in $owner is here already. Set MILLRACE_CLUSTER_HOME=$(dirname "$owner"), or take that one down"
}

# --- processes ---------------------------------------------------------------------------------------------------------
# A process is known by its id, the moment it was started and the boot of the machine: an id alone may be another's by now.
boot_id() { cat /proc/sys/kernel/random/boot_id; }
moment() { # moment PID: when it was started, in ticks since boot; nothing for a dead one
  local stat fields
  { stat=$(<"/proc/$1/stat"); } 2>/dev/null || return 1
  read -ra fields <<<"${stat##*) }"
  [ "${fields[0]}" != Z ] && echo "${fields[19]}"
}
pid_of() { # pid_of NAME: its process id, if it runs
  local pid at boot
  { read -r pid at boot <"$run_dir/pid/$1"; } 2>/dev/null || return 1
  [ "$boot" = "$(boot_id)" ] && [ "$(moment "$pid")" = "$at" ] && echo "$pid"
}
runs() { pid_of "$1" >/dev/null; }

ctr() { command ctr --connect-timeout 2s --address "$socket" -n k8s.io "$@"; }
