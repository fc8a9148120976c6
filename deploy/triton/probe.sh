#!/usr/bin/env bash
# Does every model's own process answer? Exit status 0: yes; 1: no; 2: there is no server to ask, or it is stopping.
# The server's readiness does not tell: it stays ready when a model's process is dead. This asks each model to cancel a
# request that does not exist, which costs it nothing.
#
#   deploy/triton/probe.sh [--http 127.0.0.1:18000] [--timeout 3] [--repository deploy/triton/model_repository]
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
http=127.0.0.1:18000 timeout=3 models=$here/model_repository
while [ $# -gt 0 ]; do
  case $1 in
    --http) http=$2 ;;
    --timeout) timeout=$2 ;;
    --repository) models=$2 ;;
    *) sed -n '2,6s/^# \?//p' "$0" >&2; exit 64 ;;
  esac
  shift 2
done
for model in "$models"/*/; do
  name=$(basename "$model")
  status=0
  answer=$(curl -s -m "$timeout" "http://$http/v2/models/$name/generate" -d '{"text_input": "", "stop": true, "id": "probe"}') ||
    status=$?
  case $status:$answer in
    *"cancelled by client"*) ;;
    28:* | *"not healthy"*) echo "triton: $name does not answer $answer" >&2; exit 1 ;;
    *) echo "triton: $name cannot be asked $answer" >&2; exit 2 ;;
  esac
done
