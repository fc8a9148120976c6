#!/usr/bin/env bash
# Stops a Triton whose model process is dead or hangs. Started by serve.sh as a child of the server, and dies with it.
#
#   watchdog.sh HOST HTTP_PORT REPOSITORY
#
# The server itself stays up and calls itself ready. So each model is asked every two seconds to cancel a request that
# does not exist, which costs it nothing and is answered by its own process. No other program is needed for that.
set -euo pipefail
trap '' PIPE

host=$1 port=$2 models=$3
answer_s=3
body='{"text_input": "", "stop": true, "id": "probe"}'
exec {never}<> <(:)

# Ask a model over file descriptor 3. Status 9: its process is dead. Everything else, a server that is not there yet or
# is stopping included, is not for a watchdog to judge.
ask() {
  local answer="" status=0
  printf 'POST /v2/models/%s/generate HTTP/1.1\r\nHost: triton\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s' \
    "$1" "${#body}" "$body" >&3 || return 1
  IFS= read -r -d '' -t "$answer_s" -u 3 answer || status=$?
  if [[ $answer == *"not healthy"* ]] || { [ -z "$answer" ] && [ "$status" -gt 128 ]; }; then return 9; fi
}

dead=0
while [ "$dead" -lt 2 ]; do
  [ "$dead" -gt 0 ] || read -rt 2 -u "$never" || true # a pause without a process of its own
  verdict=0
  for model in "$models"/*/; do
    ask "$(basename "$model")" 3<>"/dev/tcp/$host/$port" 2>/dev/null || verdict=$?
    [ "$verdict" != 9 ] || break
  done
  if [ "$verdict" = 9 ]; then dead=$((dead + 1)); else dead=0; fi
done
echo "triton: the process of model $(basename "$model") does not answer, stopping the server" >&2
kill -KILL "$PPID"
