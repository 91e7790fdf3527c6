# Sourced, not run: starts a private database server of tools/engine in a directory of its own, on a free port. Needs
# perf/mariadb.sh.
# shellcheck shell=bash

# engine_start ENGINE DIRECTORY: sets ENGINE_PID, ENGINE_PORT and ENGINE_SOCKET. The server has its defaults (MySQL: with a
# binary log), but as much memory and log as the others have.
engine_start() {
  local engine=$1 directory=$2 made options
  made=$("$(dirname "${BASH_SOURCE[0]}")/../tools/engine" "$engine")
  case $engine in
    mysql-*) options=(--innodb-redo-log-capacity=1G --mysqlx=OFF --secure-file-priv=) ;;
    *) options=(--innodb-log-file-size=1G) ;;
  esac
  mkdir -p "$directory/tmp"
  cp -r "$made/data" "$directory/data"
  ENGINE_SOCKET=$directory/server.sock
  ENGINE_PORT=$(free_port)
  "$made/server" --bind-address=127.0.0.1 --port="$ENGINE_PORT" --socket="$ENGINE_SOCKET" --user="$(id -un)" \
    --datadir="$directory/data" --tmpdir="$directory/tmp" --skip-name-resolve --max-connections=66 \
    --innodb-buffer-pool-size=1G --innodb-flush-log-at-trx-commit=1 "${options[@]}" >"$directory/server.log" 2>&1 &
  ENGINE_PID=$!
  database_wait "$ENGINE_PID" "$ENGINE_SOCKET" "$directory/server.log"
}

# engine_query SQL [DATABASE]: rows, tab-separated, without a head.
engine_query() { database_query "$ENGINE_SOCKET" "$@"; }
