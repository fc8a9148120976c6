# cluster load: puts images into the node's containerd. Sourced by cluster.
# In a manifest such an image needs a tag other than latest, or imagePullPolicy IfNotPresent or Never.
# shellcheck shell=bash

load() {
  local image archive
  [ $# -gt 0 ] || fail "load takes archives or names of images in buildah's store"
  need_root "cluster load"
  runs containerd || fail "the node does not run: deploy/cluster/cluster up"
  for image; do
    if [ -f "$image" ]; then
      ctr images import "$image" >&2
      continue
    fi
    case $image in
      */*.tar | /* | ./*) fail "there is no file $image" ;;
    esac
    need_packages buildah=buildah
    buildah inspect --type image "$image" >/dev/null 2>&1 ||
      fail "$image is neither a file nor an image in buildah's store (buildah images)"
    archive=$run_dir/load-$$.tar
    if buildah push -q "$image" "docker-archive:$archive:$image" && ctr images import "$archive" >&2; then
      rm -f "$archive"
    else
      rm -f "$archive"
      fail "$image was not loaded, see above"
    fi
  done
}

has_image() { ctr images ls -q | grep -x "$1" >/dev/null; } # to its end: a closed pipe would count as a failure

# program_image NAME:TAG PROGRAM: an image of one static program, made here
program_image() {
  local folder layer program
  program=$(basename "$2")
  folder=$(mktemp -d)
  mkdir "$folder/root"
  cp "$2" "$folder/root/"
  tar --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner -C "$folder/root" -cf "$folder/layer.tar" .
  layer=$(sha256sum <"$folder/layer.tar" | cut -d' ' -f1)
  echo "{\"architecture\": \"$(dpkg --print-architecture)\", \"os\": \"linux\", \"config\": {\"Entrypoint\": [\"/$program\"]}," \
    "\"rootfs\": {\"type\": \"layers\", \"diff_ids\": [\"sha256:$layer\"]}}" >"$folder/config.json"
  echo "[{\"Config\": \"config.json\", \"RepoTags\": [\"$1\"], \"Layers\": [\"layer.tar\"]}]" >"$folder/manifest.json"
  tar -C "$folder" -c manifest.json config.json layer.tar | ctr images import - >/dev/null
  rm -r "$folder"
}
