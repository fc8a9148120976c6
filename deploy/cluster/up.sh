# cluster up: starts what does not run and waits until it is ready. Sourced by cluster.
# shellcheck shell=bash

up() {
  local only_control='' start
  case $#:${1:-} in
    0:) ;;
    1:--control) only_control=1 ;;
    *) fail "up takes --control or nothing" ;;
  esac
  need_root "cluster up"
  start=$(now)
  need_packages iproute2=ip openssl=openssl curl=curl
  [ "$only_control" ] || need_packages containerd=containerd runc=runc nftables=nft
  need_built etcd kube-apiserver kube-controller-manager kubectl
  [ "$only_control" ] || need_built kube-scheduler kubelet kube-proxy pause bridge loopback host-local portmap coredns
  take_turn
  prepare
  control_plane
  if [ ! "$only_control" ]; then
    scheduler
    node
    volumes
  fi
  wait_for 60 "service account" kubectl get serviceaccount default
  say "up after $(since "$start") s"
  echo "$KUBECONFIG"
}

# --- starting and waiting ----------------------------------------------------------------------------------------------
# start NAME COMMAND...: in the background, in a session of its own
start() {
  local name=$1
  shift
  runs "$name" && return
  [ ! -e "$log_dir/$name.log" ] || mv "$log_dir/$name.log" "$log_dir/$name.log.last"
  setsid nohup "$@" >"$log_dir/$name.log" 2>&1 </dev/null 9>&- &
  echo "$! $(moment $!) $(boot_id)" >"$run_dir/pid/$name"
}

# settings NAME FILE: its settings from standard input. Not while it runs: kube-proxy ends when its file is touched.
settings() { if runs "$1"; then cat >/dev/null; else cat >"$run_dir/$2"; fi; }

# wait_for SECONDS WHAT COMMAND...: fails as soon as anything that was started is dead
wait_for() {
  local end=$((SECONDS + $1)) what=$2 file name
  shift 2
  until "$@" >/dev/null 2>&1; do
    for file in "$run_dir"/pid/*; do
      name=$(basename "$file")
      runs "$name" && continue
      tail -n 12 "$log_dir/$name.log" | cut -c1-300 >&2
      fail "$name died, above are its last lines; all of them: $log_dir/$name.log"
    done
    [ $SECONDS -lt $end ] || fail "not ready in time: $what. See $log_dir, or start from nothing: deploy/cluster/cluster down --purge"
    sleep 0.2
  done
}

healthy() { curl -sfk --max-time 2 -o /dev/null "$1"; }

# claim NAME PORT...: fails if another program listens on one of these where NAME will
claim() {
  local name=$1 port taken
  shift
  runs "$name" && return
  for port; do
    taken=$(ss -Hltnp "sport = :$port" | awk -v ip="$node_ip" '{a = $4; sub(/:[0-9]+$/, "", a)} a == ip || a == "*" || a == "0.0.0.0" {print $4, $6; exit}')
    [ -z "$taken" ] || fail "$name needs $node_ip:$port, but something listens there: $taken"
  done
}

# --- the machine -------------------------------------------------------------------------------------------------------
prepare() {
  local file range other
  mkdir -p "$run_dir"/pid "$log_dir" "$pki"
  if [ "$(cat "$run_dir/boot" 2>/dev/null)" != "$(boot_id)" ]; then # the first time, or the machine was started again
    remove_leftovers
    remove_pod_networks
    rm -rf "$run_dir"/pid/* "$run_state"
    boot_id >"$run_dir/boot"
  fi
  for file in "$run_dir"/pid/*; do
    [ ! -e "$file" ] || runs "$(basename "$file")" || rm -f "$file"
  done
  remember
  mkdir -p "$run_state"
  echo "$run_dir" >"$run_state/home"

  if ! ip link show $node_link >/dev/null 2>&1; then
    for range in "${node_ip%.*}.0/24" $pod_cidr $service_cidr; do
      other=$(ip -o route show root "$range")
      [ -z "$other" ] || fail "the addresses $range are in use on this machine ($other). Choose others in deploy/cluster/common.sh"
    done
    ip link add $node_link type bridge
    ip addr add "$node_ip/32" dev $node_link
    ip link set $node_link up
    # What nobody rewrites or hands out ends here and never leaves by the default route.
    ip route add $service_cidr dev $node_link
    ip route add unreachable $pod_cidr
  fi
}

# What the machine was like, for `down` to leave it so.
remember() {
  local path
  [ ! -e "$run_dir/before" ] || return 0
  {
    for path in /proc/sys/net/ipv4/ip_forward /proc/sys/net/bridge/bridge-nf-call-iptables; do
      [ ! -e $path ] || echo "setting $path $(cat $path)"
    done
    for path in /run/netns /run/containerd /var/lib/kubelet /var/lib/cni /var/log/containers /opt/containerd; do
      [ -e $path ] || echo "absent $path"
    done
    ! command -v nft >/dev/null || nft list tables
  } >"$run_dir/before"
}

# --- keys --------------------------------------------------------------------------------------------------------------
keys() {
  [ ! -e "$pki/complete" ] || return 0
  (umask 077 && make_keys) >"$log_dir/pki.log" 2>&1 || fail "the keys could not be made, see $log_dir/pki.log"
  touch "$pki/complete"
}

authority() { # authority NAME
  openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 3650 -subj "/CN=$1" -keyout "$pki/$1.key" \
    -out "$pki/$1.crt" -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign,cRLSign,digitalSignature
}

certificate() { # certificate NAME AUTHORITY SUBJECT USAGE [OTHER NAMES]
  openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "$3" -keyout "$pki/$1.key" -out "$pki/$1.csr" &&
    openssl x509 -req -in "$pki/$1.csr" -CA "$pki/$2.crt" -CAkey "$pki/$2.key" -CAcreateserial -days 3650 -out "$pki/$1.crt" \
      -extfile <(printf '%s\n' basicConstraints=CA:FALSE keyUsage=digitalSignature "extendedKeyUsage=$4" ${5:+"subjectAltName=$5"})
}

kubeconfig() { # kubeconfig NAME...: for the certificates of these names
  local name
  for name; do
    cat >"$pki/$name.kubeconfig" <<K
apiVersion: v1
kind: Config
current-context: millrace
clusters: [{name: millrace, cluster: {server: "$server", certificate-authority: "$pki/ca.crt"}}]
users: [{name: $name, user: {client-certificate: "$pki/$name.crt", client-key: "$pki/$name.key"}}]
contexts: [{name: millrace, context: {cluster: millrace, user: $name}}]
K
  done
}

make_keys() {
  local api_names="DNS:localhost,DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc"
  api_names+=",DNS:kubernetes.default.svc.cluster.local,IP:${service_cidr%.*}.1,IP:$node_ip"
  authority ca && authority front-proxy-ca && authority etcd-ca &&
    certificate etcd etcd-ca /CN=etcd serverAuth,clientAuth "IP:$node_ip" &&
    certificate apiserver ca /CN=kube-apiserver serverAuth "$api_names" &&
    certificate apiserver-kubelet-client ca /O=system:masters/CN=kube-apiserver-kubelet-client clientAuth &&
    certificate front-proxy-client front-proxy-ca /CN=front-proxy-client clientAuth &&
    certificate admin ca /O=system:masters/CN=admin clientAuth &&
    certificate controllers ca /CN=system:kube-controller-manager clientAuth &&
    certificate scheduler ca /CN=system:kube-scheduler clientAuth &&
    certificate proxy ca /CN=system:kube-proxy clientAuth &&
    certificate kubelet ca "/O=system:nodes/CN=system:node:$node" serverAuth,clientAuth "DNS:$node,IP:$node_ip" &&
    openssl ecparam -name prime256v1 -genkey -noout -out "$pki/sa.key" &&
    openssl ec -in "$pki/sa.key" -pubout -out "$pki/sa.pub" &&
    kubeconfig admin controllers scheduler proxy kubelet
}

# --- control plane -----------------------------------------------------------------------------------------------------
control_plane() {
  local etcd=https://$node_ip:2379 peer=https://$node_ip:2380 tls prefix
  keys

  # An address of its own and client certificates on both sides: another program's etcd on 127.0.0.1:2379 is not mistaken for
  # this one. Without fsync it outlives a kill of any process, and maybe not a power cut.
  claim etcd 2379 2380
  tls=()
  for prefix in "" peer-; do
    tls+=("--${prefix}cert-file=$pki/etcd.crt" "--${prefix}key-file=$pki/etcd.key" "--${prefix}client-cert-auth=true"
      "--${prefix}trusted-ca-file=$pki/etcd-ca.crt")
  done
  start etcd "$bin_dir/etcd" --name=$node --data-dir="$run_dir/etcd" --unsafe-no-fsync --log-level=warn "${tls[@]}" \
    --listen-client-urls="$etcd" --advertise-client-urls="$etcd" \
    --listen-peer-urls="$peer" --initial-advertise-peer-urls="$peer" --initial-cluster="$node=$peer"
  wait_for 30 "etcd" curl -sf --max-time 2 --cacert "$pki/etcd-ca.crt" --cert "$pki/etcd.crt" --key "$pki/etcd.key" "$etcd/health"

  claim kube-apiserver 6443
  start kube-apiserver "$bin_dir/kube-apiserver" --bind-address=$node_ip --advertise-address=$node_ip --secure-port=6443 \
    --etcd-servers="$etcd" --etcd-cafile="$pki/etcd-ca.crt" --etcd-certfile="$pki/etcd.crt" --etcd-keyfile="$pki/etcd.key" \
    --service-cluster-ip-range=$service_cidr --allow-privileged=true --authorization-mode=Node,RBAC \
    --enable-admission-plugins=NodeRestriction --client-ca-file="$pki/ca.crt" \
    --tls-cert-file="$pki/apiserver.crt" --tls-private-key-file="$pki/apiserver.key" \
    --service-account-issuer=https://kubernetes.default.svc.cluster.local --service-account-key-file="$pki/sa.pub" \
    --service-account-signing-key-file="$pki/sa.key" --kubelet-certificate-authority="$pki/ca.crt" \
    --kubelet-client-certificate="$pki/apiserver-kubelet-client.crt" \
    --kubelet-client-key="$pki/apiserver-kubelet-client.key" --kubelet-preferred-address-types=InternalIP \
    --enable-aggregator-routing=true --requestheader-client-ca-file="$pki/front-proxy-ca.crt" \
    --proxy-client-cert-file="$pki/front-proxy-client.crt" --proxy-client-key-file="$pki/front-proxy-client.key" \
    --requestheader-allowed-names=front-proxy-client --requestheader-extra-headers-prefix=X-Remote-Extra- \
    --requestheader-group-headers=X-Remote-Group --requestheader-username-headers=X-Remote-User
  wait_for 120 "API server" kubectl get --raw=/readyz

  claim kube-controller-manager 10257
  start kube-controller-manager "$bin_dir/kube-controller-manager" --bind-address=$node_ip --leader-elect=false \
    --kubeconfig="$pki/controllers.kubeconfig" --authentication-kubeconfig="$pki/controllers.kubeconfig" \
    --authorization-kubeconfig="$pki/controllers.kubeconfig" --use-service-account-credentials=true \
    --root-ca-file="$pki/ca.crt" --service-account-private-key-file="$pki/sa.key" \
    --cluster-signing-cert-file="$pki/ca.crt" --cluster-signing-key-file="$pki/ca.key" \
    --kube-api-qps=100 --kube-api-burst=200 --allocate-node-cidrs=false --flex-volume-plugin-dir="$run_dir/volume-plugins"
  wait_for 30 "controllers" healthy "https://$node_ip:10257/healthz"
}

scheduler() {
  claim kube-scheduler 10259
  start kube-scheduler "$bin_dir/kube-scheduler" --bind-address=$node_ip --leader-elect=false \
    --kube-api-qps=100 --kube-api-burst=200 \
    --kubeconfig="$pki/scheduler.kubeconfig" --authentication-kubeconfig="$pki/scheduler.kubeconfig" \
    --authorization-kubeconfig="$pki/scheduler.kubeconfig"
}

# --- node --------------------------------------------------------------------------------------------------------------
node() {
  alone kubelet mnt "they would share /var/lib/kubelet/device-plugins"
  alone kube-proxy net "they would overwrite each other's nft tables"
  network
  container_runtime

  claim kubelet 10250 10248
  make_cgroup
  echo "nameserver $node_ip" >"$run_dir/resolv.conf"
  settings kubelet kubelet.yaml <<K
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
address: $node_ip
healthzBindAddress: $node_ip
containerRuntimeEndpoint: "unix://$socket"
cgroupDriver: cgroupfs
cgroupRoot: /$cgroup
failCgroupV1: false
failSwapOn: false
makeIPTablesUtilChains: false
authentication: {anonymous: {enabled: false}, webhook: {enabled: true}, x509: {clientCAFile: "$pki/ca.crt"}}
authorization: {mode: Webhook}
tlsCertFile: "$pki/kubelet.crt"
tlsPrivateKeyFile: "$pki/kubelet.key"
clusterDomain: cluster.local
clusterDNS: [$node_ip]
resolvConf: "$run_dir/resolv.conf"
podLogsDir: "$run_dir/podlogs"
volumePluginDir: "$run_dir/volume-plugins"
maxPods: 200
evictionHard: {memory.available: 200Mi, nodefs.available: 1%, imagefs.available: 1%, nodefs.inodesFree: 1%}
imageGCHighThresholdPercent: 99
imageGCLowThresholdPercent: 98
K
  mkdir -p "$run_dir"/{kubelet,podlogs,volume-plugins}
  start kubelet "$bin_dir/kubelet" --config="$run_dir/kubelet.yaml" --kubeconfig="$pki/kubelet.kubeconfig" \
    --root-dir="$run_dir/kubelet" --hostname-override=$node --node-ip=$node_ip

  claim kube-proxy 10249 10256
  settings kube-proxy kube-proxy.yaml <<K
apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
mode: nftables
clusterCIDR: $pod_cidr
hostnameOverride: $node
clientConnection: {kubeconfig: "$pki/proxy.kubeconfig"}
healthzBindAddress: $node_ip:10256
metricsBindAddress: $node_ip:10249
conntrack: {maxPerCore: 0, min: 0, tcpEstablishedTimeout: 0s, tcpCloseWaitTimeout: 0s}
K
  start kube-proxy "$bin_dir/kube-proxy" --config="$run_dir/kube-proxy.yaml"

  claim coredns 53 8181
  settings coredns Corefile <<C
cluster.local:53 {
  bind $node_ip
  errors
  ready $node_ip:8181
  kubernetes {
    kubeconfig "$pki/admin.kubeconfig" millrace
  }
}
.:53 {
  bind $node_ip
  template ANY ANY {
    rcode NXDOMAIN
  }
}
C
  start coredns "$bin_dir/coredns" -conf "$run_dir/Corefile"

  wait_for 60 "node" kubectl wait --for=condition=Ready --timeout=5s "node/$node"
  wait_for 60 "kube-proxy" healthy "http://$node_ip:10256/healthz"
  wait_for 60 "CoreDNS" healthy "http://$node_ip:8181/ready"
}

# Folders of the node for whoever claims a volume: the default class. One that was given back is emptied and offered again.
volumes() {
  local number name folder
  kubectl apply -f - >/dev/null <<K
apiVersion: storage.k8s.io/v1
kind: StorageClass
metadata: {name: folder, annotations: {storageclass.kubernetes.io/is-default-class: "true"}}
provisioner: kubernetes.io/no-provisioner
volumeBindingMode: WaitForFirstConsumer
K
  for number in $(seq $volume_count); do
    name=folder-$number
    folder=$run_dir/volumes/$number
    case $(kubectl get pv $name -o 'jsonpath={.status.phase}' 2>/dev/null) in
      Available | Bound) continue ;;
      Released | Failed) kubectl delete pv $name >/dev/null && rm -rf "$folder" ;;
    esac
    mkdir -p "$folder"
    chmod 1777 "$folder" # of any user: the kubelet gives no folder of the node away
    kubectl apply -f - >/dev/null <<K
apiVersion: v1
kind: PersistentVolume
metadata: {name: $name}
spec:
  capacity: {storage: 10Gi}
  accessModes: [ReadWriteOnce]
  persistentVolumeReclaimPolicy: Retain
  storageClassName: folder
  hostPath: {path: "$folder", type: Directory}
K
  done
}

# alone PROGRAM NAMESPACE WHY: fails if another process of this name runs in this machine's namespace
alone() {
  local path pid
  for path in /proc/[0-9]*; do
    pid=${path#/proc/}
    [ "$(cat "$path/comm" 2>/dev/null)" = "$1" ] && [ "$pid" != "$(pid_of "$1")" ] &&
      [ "$(readlink "$path/ns/$2")" = "$(readlink "/proc/self/ns/$2")" ] &&
      fail "another $1 runs on this machine (process $pid), and $3. Stop it, or use --control"
  done
  return 0
}

network() {
  echo 1 >/proc/sys/net/ipv4/ip_forward
  # Without it an answer from pod to pod takes the bridge's short way, past the translation of the Service's address.
  [ -e /proc/sys/net/bridge/bridge-nf-call-iptables ] || modprobe br_netfilter 2>/dev/null ||
    fail "the kernel module br_netfilter is missing: modprobe br_netfilter"
  echo 1 >/proc/sys/net/bridge/bridge-nf-call-iptables
  # Pods talk to each other and to this machine, and to nothing beyond it.
  nft -f - <<N
table inet millrace_cluster
delete table inet millrace_cluster
table inet millrace_cluster {
  chain forward {
    type filter hook forward priority 0
    iifname "$pod_link" oifname != { "$pod_link", "$node_link" } drop
  }
}
N
  if nft list chain ip filter FORWARD 2>/dev/null | grep 'policy drop' >/dev/null; then
    say "warning: forwarding is off in the table ip filter, docker does that; pods will not reach each other: iptables -P FORWARD ACCEPT"
  fi
  mkdir -p "$run_dir"/cni/{conf,data}
  cat >"$run_dir/cni/conf/10-millrace.conflist" <<C
{"cniVersion": "1.0.0", "name": "millrace", "plugins": [
  {"type": "bridge", "bridge": "$pod_link", "isGateway": true, "hairpinMode": true,
   "ipam": {"type": "host-local", "dataDir": "$run_dir/cni/data", "ranges": [[{"subnet": "$node_pod_cidr"}]],
            "routes": [{"dst": "0.0.0.0/0"}]}},
  {"type": "portmap", "backend": "nftables", "capabilities": {"portMappings": true}}]}
C
}

container_runtime() {
  settings containerd containerd.toml <<C
version = 2
root = "$run_dir/containerd"
state = "$run_state/containerd"
disabled_plugins = ["io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.zfs", "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.devmapper"]
[grpc]
  address = "$socket"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "localhost/pause:1"
  restrict_oom_score_adj = true # without CAP_SYS_RESOURCE no process may lower it, and runc would fail
  stream_server_address = "127.0.0.1"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "$bin_dir"
    conf_dir = "$run_dir/cni/conf"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
      SystemdCgroup = false
      Root = "$run_state/runc"
C
  start containerd "$(command -v containerd)" --config "$run_dir/containerd.toml"
  wait_for 30 "containerd" ctr version
  has_image localhost/pause:1 || program_image localhost/pause:1 "$bin_dir/pause"
}

# All pods' control groups are below one of the cluster's own.
make_cgroup() {
  local tree file
  if [ -e /sys/fs/cgroup/cgroup.controllers ]; then # version 2
    mkdir -p "/sys/fs/cgroup/$cgroup"
    return
  fi
  for tree in /sys/fs/cgroup/*/; do
    if [ ! -e "$tree/cgroup.procs" ] || [ -L "${tree%/}" ]; then continue; fi
    mkdir -p "$tree$cgroup"
    for file in cpuset.cpus cpuset.mems; do
      [ ! -e "$tree$cgroup/$file" ] || [ -n "$(cat "$tree$cgroup/$file")" ] || cat "$tree$file" >"$tree$cgroup/$file"
    done
  done
}
