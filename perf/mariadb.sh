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
  local tries
  for ((tries = 0; tries < 300; tries++)); do
    if mariadb_query 'SELECT 1' >/dev/null 2>&1; then
      return
    fi
    kill -0 "$MARIADB_PID" 2>/dev/null || break
    sleep 0.1
  done
  echo "MariaDB did not start:" >&2
  tail -n 20 "$directory/mariadb.log" >&2
  return 1
}

# mariadb_query SQL [DATABASE]: rows, tab-separated, without a head.
mariadb_query() {
  mariadb --no-defaults --socket="$MARIADB_SOCKET" --user=root --batch --skip-column-names -e "$1" ${2:+"$2"}
}

# process_stop PID: sends SIGTERM to a child and waits until it has ended.
process_stop() {
  if [ -n "${1:-}" ] && kill -TERM "$1" 2>/dev/null; then
    wait "$1" || return
  fi
}

# process_cpu_us PID: user and system time so far, in microseconds.
process_cpu_us() {
  local fields
  fields=$(sed 's/.*) //' "/proc/$1/stat")
  awk -v hertz="$(getconf CLK_TCK)" '{ printf "%d\n", ($12 + $13) * 1000000 / hertz }' <<<"$fields"
}
