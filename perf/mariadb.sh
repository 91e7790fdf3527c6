# Sourced, not run: starts a private MariaDB in a directory of its own, on a free port, and ends it by its pid.
# shellcheck shell=bash

# A TCP port that nobody listens on.
free_port() {
  local port
  while :; do
    port=$((20000 + RANDOM % 12000))
    if ! (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then
      echo "$port"
      return
    fi
  done
}

# mariadb_start DIRECTORY: sets MARIADB_PID, MARIADB_PORT and MARIADB_SOCKET.
mariadb_start() {
  local directory=$1
  MARIADB_PORT=$(free_port)
  MARIADB_SOCKET=$directory/mariadb.sock
  mkdir -p "$directory/data" "$directory/tmp"
  mariadb-install-db --no-defaults --user="$(id -un)" --datadir="$directory/data" --tmpdir="$directory/tmp" \
    --auth-root-authentication-method=normal --skip-test-db >"$directory/install.log" 2>&1
  mariadb_resume "$directory"
}

# mariadb_resume DIRECTORY: starts the MariaDB of DIRECTORY again, on the same port. Sets MARIADB_PID.
mariadb_resume() {
  local directory=$1
  mariadbd --no-defaults --user="$(id -un)" --datadir="$directory/data" --tmpdir="$directory/tmp" \
    --socket="$MARIADB_SOCKET" --port="$MARIADB_PORT" --bind-address=127.0.0.1 \
    --pid-file="$directory/mariadb.pid" --max-connections=66 --skip-name-resolve \
    --innodb-buffer-pool-size=1G --innodb-log-file-size=1G --innodb-flush-log-at-trx-commit=1 \
    >"$directory/mariadb.log" 2>&1 &
  MARIADB_PID=$!
  database_wait "$MARIADB_PID" "$MARIADB_SOCKET" "$directory/mariadb.log"
}

# mariadb_query SQL [DATABASE]: rows, tab-separated, without a head.
mariadb_query() { database_query "$MARIADB_SOCKET" "$@"; }

# database_query SOCKET SQL [DATABASE]: the same of any server.
database_query() {
  mariadb --no-defaults --socket="$1" --user=root --batch --skip-column-names -e "$2" ${3:+"$3"}
}

# database_wait PID SOCKET LOG: waits until a server answers.
database_wait() {
  local tries
  for ((tries = 0; tries < 600; tries++)); do
    if database_query "$2" 'SELECT 1' >/dev/null 2>&1; then
      return
    fi
    kill -0 "$1" 2>/dev/null || break
    sleep 0.1
  done
  echo 'the database server did not start:' >&2
  tail -n 20 "$3" >&2
  return 1
}

# database_idle PID: waits until a server has taken less than 20 ms of CPU in half a second. What it does after a
# transaction, such as writing pages back, is counted for the rows of that transaction.
database_idle() {
  local before now=0 tries
  for ((tries = 0; tries < 120; tries++)); do
    before=$(process_cpu_us "$1")
    sleep 0.5
    now=$(process_cpu_us "$1")
    [ $((now - before)) -ge 20000 ] || return 0
  done
  echo 'the database server was not idle within a minute' >&2
  return 1
}

# process_stop PID: sends SIGTERM to a child and waits until it has ended.
process_stop() {
  if [ -n "${1:-}" ] && kill -TERM "$1" 2>/dev/null; then
    wait "$1" || return
  fi
}

# processes_end PID...: stops each of them when nothing more is asked of them. Reports one that has not ended as it should:
# with status 0, or 143 where it has no handler of SIGTERM.
processes_end() {
  local pid status
  for pid; do
    status=0
    process_stop "$pid" || status=$?
    [ "$status" = 0 ] || [ "$status" = 143 ] || echo "process $pid ended with status $status" >&2
  done
}

# process_kill PID...: sends SIGKILL to children and waits until they have ended.
process_kill() {
  local pid
  for pid; do [ -z "$pid" ] || kill -KILL "$pid" 2>/dev/null || true; done
  for pid; do [ -z "$pid" ] || { wait "$pid"; } 2>/dev/null || true; done
}

# process_cpu_us PID: user and system time so far, in microseconds.
process_cpu_us() {
  local fields
  fields=$(sed 's/.*) //' "/proc/$1/stat")
  awk -v hertz="$(getconf CLK_TCK)" '{ printf "%d\n", ($12 + $13) * 1000000 / hertz }' <<<"$fields"
}
