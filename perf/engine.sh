# Sourced, not run: starts a private database server of tools/engine in a directory of its own, on a free port. Needs
# perf/mariadb.sh.
# shellcheck shell=bash

# engine_start ENGINE DIRECTORY: sets ENGINE_PID, ENGINE_PORT and ENGINE_SOCKET. The server has its defaults (MySQL: with a
# binary log), but as much memory and log as the others have.
engine_start() {
  local engine=$1 directory=$2 made options tries
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
  for ((tries = 0; tries < 600; tries++)); do
    if engine_query 'SELECT 1' >/dev/null 2>&1; then
      return
    fi
    kill -0 "$ENGINE_PID" 2>/dev/null || break
    sleep 0.1
  done
  echo "$engine did not start:" >&2
  tail -n 20 "$directory/server.log" >&2
  return 1
}

# engine_query SQL [DATABASE]: rows, tab-separated, without a head.
engine_query() {
  mariadb --no-defaults --socket="$ENGINE_SOCKET" --user=root --batch --skip-column-names -e "$1" ${2:+"$2"}
}

# engine_idle: waits until the server has taken less than 20 ms of CPU in half a second. What it does after a transaction,
# such as writing pages back, is counted for the rows of that transaction.
engine_idle() {
  local before now=0 tries
  for ((tries = 0; tries < 120; tries++)); do
    before=$(process_cpu_us "$ENGINE_PID")
    sleep 0.5
    now=$(process_cpu_us "$ENGINE_PID")
    [ $((now - before)) -ge 20000 ] || return 0
  done
  echo 'the database server was not idle within a minute' >&2
  return 1
}
