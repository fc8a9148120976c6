#!/usr/bin/env bash
# Runs Triton in the foreground: this process becomes the server, so whoever started it owns its process id.
#
#   deploy/triton/serve.sh [--host 127.0.0.1] [--http-port 18000] [--grpc-port 18001] [--metrics-port 18002]
#                          [--repository deploy/triton/model_repository]
#
# Ready: GET http://HOST:HTTP_PORT/v2/health/ready. Stop: TERM (running requests get up to 5 s).
# The server stays up and calls itself ready when a model's process is dead; a watchdog beside it then stops it, so that
# whoever started it starts it again.
# MILLRACE_TRITON_HOME: where install.sh put the server.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
host=127.0.0.1 http=18000 grpc=18001 metrics=18002 models=$here/model_repository
while [ $# -gt 0 ]; do
  case $1 in
    --host) host=$2 ;;
    --http-port) http=$2 ;;
    --grpc-port) grpc=$2 ;;
    --metrics-port) metrics=$2 ;;
    --repository) models=$2 ;;
    *) sed -n '2,11s/^# \?//p' "$0" >&2; exit 2 ;;
  esac
  shift 2
done

version=$(sed -n '/^\[triton\]/,/^\[/s/^version = "\([^"]*\)".*/\1/p' "$here/../local/versions.toml")
home=${MILLRACE_TRITON_HOME:-${XDG_CACHE_HOME:-$HOME/.cache}/millrace/triton-$version}
server=$home/venv/lib/python3.11/site-packages/pytriton/tritonserver
[ -f "$home/installed.lock" ] || { echo "triton: not installed: run deploy/triton/install.sh" >&2; exit 1; }

# What a killed server left in shared memory; the port tells whose it was.
regions=millrace_triton_${grpc}_
rm -f "/dev/shm/$regions"*

# A model's process runs the python3 found first. One thread for its matrix products: the matrices are too small for two.
export PATH="$home/venv/bin:$PATH" OPENBLAS_NUM_THREADS=1
unset PYTHONPATH PYTHONHOME VIRTUAL_ENV

setpriv --pdeathsig KILL "$here/watchdog.sh" "$host" "$http" "$models" &

exec "$server/bin/tritonserver" \
  --model-repository="$(realpath "$models")" --backend-directory="$server/backends" \
  --http-address="$host" --http-port="$http" --grpc-address="$host" --grpc-port="$grpc" \
  --metrics-address="$host" --metrics-port="$metrics" --allow-gpu-metrics=false --metrics-interval-ms=1000 \
  --backend-config=python,shm-default-byte-size=4194304 --backend-config=python,shm-region-prefix-name="$regions" \
  --exit-timeout-secs=5
