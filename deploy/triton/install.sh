#!/usr/bin/env bash
# Installs Triton Inference Server for CPU once per user and prints its folder; does nothing when it is there. The version
# stands in deploy/local/versions.toml, the packages in requirements/triton.lock.
#
#   deploy/triton/install.sh
#
# MILLRACE_TRITON_HOME    where (default: ${XDG_CACHE_HOME:-~/.cache}/millrace/triton-VERSION)
# MILLRACE_TRITON_PYTHON  the Python 3.11 it runs models with (default: /usr/bin/python3.11, else the first on the path)
# MILLRACE_UV             uv (default: .venv/bin/uv of this repository, else the first on the path)
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
repository=$(cd "$here/../.." && pwd)
lock=$repository/requirements/triton.lock
version=$(sed -n '/^\[triton\]/,/^\[/s/^version = "\([^"]*\)".*/\1/p' "$repository/deploy/local/versions.toml")
home=${MILLRACE_TRITON_HOME:-${XDG_CACHE_HOME:-$HOME/.cache}/millrace/triton-$version}
say() { echo "triton: $*" >&2; }

uv=${MILLRACE_UV:-$repository/.venv/bin/uv}
[ -x "$uv" ] || uv=$(command -v uv) || { say "uv is missing: run make setup first"; exit 1; }
python=${MILLRACE_TRITON_PYTHON:-/usr/bin/python3.11}
[ -x "$python" ] || python=$(command -v python3.11) || { say "Python 3.11 is missing: apt-get install -y python3.11"; exit 1; }

# The server's model processes embed the interpreter, so the shared library must be there beside the program.
if ! ldconfig -p | grep -q 'libpython3\.11\.so\.1\.0'; then
  if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    say "installing libpython3.11"
    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq libpython3.11 >&2
  else
    say "libpython3.11 is missing: apt-get install -y libpython3.11"
    exit 1
  fi
fi

mkdir -p "$home"
exec 9>"$home/.lock"
flock 9 # two installations at once, of parallel test runs for instance, take turns
if ! cmp -s "$lock" "$home/installed.lock"; then
  say "installing into $home"
  rm -rf "$home/venv" "$home/installed.lock"
  "$python" -m venv --without-pip "$home/venv"
  # No dependencies of the wheel: they serve its Python client, which is not used; only the server inside it is.
  "$uv" pip install -q --python "$home/venv/bin/python" --no-deps --require-hashes -r "$lock"
  server=$home/venv/lib/python3.11/site-packages/pytriton/tritonserver
  cp "$server/python_backend_stubs/3.11/triton_python_backend_stub" "$server/backends/python/"
  cp "$lock" "$home/installed.lock"
fi
echo "$home"
