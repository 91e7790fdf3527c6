# Sourced, not run: runs oha, which sends at a fixed rate even if answers are late. Needs mariadb.sh and hakaru.sh.
# shellcheck shell=bash

# oha_program: prints the path of oha: the one in PATH, otherwise one that is built in target/.
oha_program() {
  local root
  root=$(realpath "$(dirname "${BASH_SOURCE[0]}")/..")/target/tools
  if command -v oha; then
    return
  fi
  if [ ! -x "$root/bin/oha" ]; then
    echo "building oha 1.16.0 into $root, for some minutes ..." >&2
    cargo install --quiet --locked --root "$root" oha --version 1.16.0 >&2 || return
  fi
  echo "$root/bin/oha"
}

# oha_line OHA CONNECTIONS: a description of the load.
oha_line() { echo "$("$1" --version), open loop, $2 connections kept by each oha"; }

# oha_load OHA RATE SECONDS CONNECTIONS [OPTION of oha.py...]: loads the running hakaru, waits until its events are
# stored, and prints the results as a line of JSON.
oha_load() {
  local oha=$1 rate=$2 seconds=$3 connections=$4
  shift 4
  python3 "$(dirname "${BASH_SOURCE[0]}")/oha.py" --oha "$oha" --rate "$rate" --seconds "$seconds" \
    --connections "$connections" --port "$HAKARU_PORT" --admin-port "$HAKARU_ADMIN_PORT" \
    --hakaru "$HAKARU_PID" --database "$MARIADB_PID" "$@"
}
