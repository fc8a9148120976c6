# cluster build: compiles the programs from published Go modules. Sourced by cluster.
# shellcheck shell=bash

modules=$home/modules

build() {
  local arg table total=0 number=0 missing=0 group program version kind package start began status
  table=$(programs)
  for arg; do
    awk -v a="$arg" '$1 == a || $2 == a {found = 1} END {exit !found}' <<<"$table" ||
      fail "there is no group or program $arg. Groups: $(awk '{print $1}' <<<"$table" | uniq | xargs);" \
        "programs: $(awk '{print $2}' <<<"$table" | xargs)"
  done
  if [ $# = 0 ]; then # a tool of developers, which no cluster needs
    table=$(awk '$1 != "skaffold"' <<<"$table")
  else
    table=$(awk -v a=" $* " 'index(a, " " $1 " ") || index(a, " " $2 " ")' <<<"$table")
  fi

  mkdir -p "$bin_dir/.built" "$modules"
  exec 8>"$bin_dir/.built/.lock"
  flock -n 8 || { say "waiting for another build"; flock 8; }
  began=$(now)
  while read -r group program version kind package; do
    total=$((total + 1))
    is_built "$program" "$version" || missing=$((missing + 1))
  done <<<"$table"
  if [ $missing = 0 ]; then
    say "all $total programs are there: $bin_dir"
    return
  fi
  command -v go >/dev/null || fail "Go 1.26 or newer is missing: https://go.dev/dl (Debian's own is too old)"
  need_packages gcc=gcc libc6-dev=/usr/include/stdio.h

  while read -r group program version kind package <&7; do
    is_built "$program" "$version" && continue
    number=$((number + 1))
    say "$number of $missing: $program $version ($group) ..."
    start=$(now)
    rm -rf "$bin_dir/.new" && mkdir "$bin_dir/.new"
    set +e # a failing command ends the subshell only where its status is not asked for at once
    (set -e; compile "$program" "$version" "$kind" "$package")
    status=$?
    set -e
    [ $status = 0 ] || fail "$program was not built, see above. What is built stays; the same command goes on from there"
    rm -f "$bin_dir/.built/$program"
    mv "$bin_dir/.new"/* "$bin_dir/"
    echo "$version" >"$bin_dir/.built/$program"
    say "$number of $missing: $program $version: $(since "$start") s, $(($(stat -c %s "$bin_dir/$program") / 1048576)) MiB"
  done 7<<<"$table"
  rm -rf "$bin_dir/.new"
  say "built $missing of $total in $(since "$began") s: $bin_dir"
}

# compile PROGRAM VERSION KIND PACKAGE: into $bin_dir/.new. Runs in a subshell: it changes folders.
compile() {
  local program=$1 version=$2 kind=$3 package=$4 flags="-s -w" out=$bin_dir/.new x stages edits
  export CGO_ENABLED=0
  case $kind in
    c) gcc -Os -static -s -o "$out/$program" "$package" ;;
    go) go build -trimpath -ldflags "$flags" -o "$out/$program" "$package" ;;
    etcd)
      wrapper "etcd-$version" -require="go.etcd.io/etcd/server/v3@v$version"
      go build -mod=mod -trimpath -ldflags "$flags" -o "$out/$program" "$package"
      ;;
    kubernetes)
      kubernetes_wrapper "$version"
      for x in k8s.io/component-base/version k8s.io/client-go/pkg/version; do
        flags+=" -X $x.gitVersion=v$version -X $x.gitMajor=${version%%.*} -X $x.gitMinor=$(cut -d. -f2 <<<"$version")"
        flags+=" -X $x.gitTreeState=clean -X $x.gitCommit=$(printf %040d 0) -X $x.buildDate=2026-01-01T00:00:00Z"
      done
      go build -mod=mod -trimpath -ldflags "$flags" -o "$out/$program" "$package"
      ;;
    skaffold)
      # All its replaces point to published modules.
      mapfile -t edits < <(awk '$1 == "replace" {$1 = ""; $0 = $0}
        $2 == "=>" {print "-replace=" $1 "=" $3 "@" $4}
        $3 == "=>" {print "-replace=" $1 "@" $2 "=" $4 "@" $5}' "$(module_says "${package%/cmd/*}@v$version" GoMod)")
      wrapper "skaffold-$version" -require="${package%/cmd/*}@v$version" "${edits[@]}"
      flags+=" -X ${package%/cmd/*}/pkg/skaffold/version.version=v$version"
      go build -mod=mod -trimpath -ldflags "$flags" -o "$out/$program" "$package"
      ;;
    helm | kwok | module)
      case $kind in
        helm) # without a cluster it renders for this Kubernetes
          flags+=" -X helm.sh/helm/v3/internal/version.version=v$version"
          for x in pkg/chartutil pkg/lint/rules; do
            flags+=" -X helm.sh/helm/v3/$x.k8sVersionMajor=${kubernetes_version%%.*}"
            flags+=" -X helm.sh/helm/v3/$x.k8sVersionMinor=$(cut -d. -f2 <<<"$kubernetes_version")"
          done
          ;;
        kwok) flags+=" -X sigs.k8s.io/kwok/pkg/consts.Version=v$version" ;;
      esac
      GOBIN=$out go install -trimpath -ldflags "$flags" "$package@v$version"
      if [ "$kind" = kwok ]; then # how its nodes and pods behave
        stages=$(module_says "sigs.k8s.io/kwok@v$version" Dir)/kustomize/stage
        for x in node/fast/node-initialize node/heartbeat-with-lease/node-heartbeat-with-lease pod/fast/pod-ready \
          pod/fast/pod-complete pod/fast/pod-delete; do
          echo "---"
          cat "$stages/$x.yaml"
        done >"$out/kwok-stages.yaml"
      fi
      ;;
  esac
}

# A module with replace lines refuses `go install`. So: a module of our own that requires it and repeats the replaces that it
# needs; `go build` then builds the main packages in it.
wrapper() { # wrapper NAME EDIT...: goes there
  local folder=$modules/$1
  shift
  mkdir -p "$folder"
  cd "$folder"
  [ -f complete ] && return
  rm -f go.mod go.sum
  go mod init "local/$(basename "$folder")" 2>/dev/null
  go mod edit "$@"
  touch complete
}

kubernetes_wrapper() {
  local version=$1 module edits staging='s#^[[:space:]]*\(k8s.io/[^ ]*\) => \./staging/.*#\1#p'
  if [ -f "$modules/kubernetes-$version/complete" ]; then
    cd "$modules/kubernetes-$version"
    return
  fi
  edits=(-go=1.24.0 -godebug=default=go1.24 -require="k8s.io/kubernetes@v$version")
  # Staging modules are published as v0.MINOR.PATCH; the two samples among them are not needed.
  for module in $(sed -n "$staging" "$(module_says "k8s.io/kubernetes@v$version" GoMod)"); do
    case $module in */sample-*) ;; *) edits+=(-replace="$module=$module@v0.${version#1.}") ;; esac
  done
  wrapper "kubernetes-$version" "${edits[@]}"
}

# module_says MODULE@VERSION FIELD: downloads it, and prints where it lies
module_says() { go mod download -json "$1" | sed -n 's/^[[:space:]]*"'"$2"'": "\(.*\)".*/\1/p'; }
