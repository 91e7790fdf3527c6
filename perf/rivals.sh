# Sourced, not run: the servers that hakaru is compared with, on core 0. Each sets SERVER_PID and SERVER_PORT, and
# RELAY_PID if it is two processes. Needs perf/mariadb.sh and, to build axum, perf/hakaru.sh.
# shellcheck shell=bash

# The request of perf/compare.lua, in bytes.
RIVAL_REQUEST_BYTES=$(printf 'GET /hakaru?name=open&value=0 HTTP/1.1\r\nHost: hakaru\r\n\r\n' | wc -c)
RIVAL_CLOSE_BYTES=$((RIVAL_REQUEST_BYTES + $(printf 'Connection: close\r\n' | wc -c)))

# What the drivers and modules of Debian are named.
RIVAL_GO_PATH=/usr/share/gocode
RIVAL_GO_DRIVER=github.com/go-sql-driver/mysql

# rivals_tools LIST: says which packages of Debian the servers of a list lack. Status 1 if there are any.
rivals_tools() {
  local list=,${1// /,}, missing=() need modules=(/usr/lib/*/rsyslog/ommysql.so)
  local needed=(wrk:wrk mariadbd:mariadb-server mariadb-install-db:mariadb-server mariadb:mariadb-client python3:python3)
  [[ $list != *,floor,* ]] || needed+=("${CC:-cc}:gcc")
  [[ $list != *,nginx* && $list != *,rsyslog,* ]] || needed+=(nginx:nginx-light)
  [[ $list != *,axum,* ]] || needed+=(cargo:cargo)
  [[ $list != *,go,* ]] || needed+=(go:golang-go)
  [[ $list != *,rsyslog,* ]] || needed+=(rsyslogd:rsyslog)
  for need in "${needed[@]}"; do
    command -v "${need%%:*}" >/dev/null || missing+=("${need#*:}")
  done
  [[ $list != *,go,* ]] || [ -d "$RIVAL_GO_PATH/src/$RIVAL_GO_DRIVER" ] || missing+=(golang-github-go-sql-driver-mysql-dev)
  [[ $list != *,rsyslog,* ]] || [ -e "${modules[0]}" ] || missing+=(rsyslog-mysql)
  [ ${#missing[@]} -eq 0 ] || { echo "missing, by Debian package: ${missing[*]}" >&2; return 1; }
}

# rivals_build DIRECTORY [LIST]: builds those servers of a list into DIRECTORY that must be built; without a list, floor.
rivals_build() {
  local here list=,${2:-floor}, target
  here=$(dirname "${BASH_SOURCE[0]}")
  list=${list// /,}
  [[ $list != *,floor,* ]] || "${CC:-cc}" -O2 -o "$1/floor" "$here/floor.c"
  if [[ $list == *,axum,* ]]; then
    echo 'building axum ...' >&2
    target=$(cargo_target)/rivals
    cargo build --release --quiet --locked --manifest-path "$here/rivals/axum/Cargo.toml" --target-dir "$target"
    cp "$target/release/rival-axum" "$1/axum"
  fi
  if [[ $list == *,go,* ]]; then
    echo 'building go ...' >&2
    # Debian has its Go packages as a tree of sources, without modules.
    GO111MODULE=off GOFLAGS='' GOPATH=$RIVAL_GO_PATH go build -o "$1/go" "$here/rivals/go/main.go"
  fi
}

# rivals_versions: what the rivals are made of, as far as it is known.
rivals_versions() {
  local lock package known
  lock=$(dirname "${BASH_SOURCE[0]}")/rivals/axum/Cargo.lock
  known=$(awk -F '"' '$1 == "name = " { name = $2 } $1 == "version = " && name ~ /^(axum|mysql_async)$/ { printf "%s %s, ", name, $2 }' "$lock")
  for package in golang-go golang-github-go-sql-driver-mysql-dev nginx-light rsyslog mariadb-server; do
    known+="$package $(dpkg-query --show --showformat '${Version}' "$package" 2>/dev/null || echo unknown), "
  done
  echo "${known%, }"
}

# rival_table: creates the table as hakaru does. hakaru finds it then.
rival_table() {
  mariadb_query 'CREATE TABLE IF NOT EXISTS eventlog (
    id bigint unsigned NOT NULL AUTO_INCREMENT PRIMARY KEY,
    at datetime DEFAULT NULL,
    name varchar(255) NOT NULL,
    value int unsigned
  ) ENGINE=InnoDB DEFAULT CHARSET=utf8 COLLATE=utf8_unicode_ci' hakaru
}

# rival_wait: waits until SERVER_PORT takes connections.
rival_wait() {
  until (exec 3<>"/dev/tcp/127.0.0.1/$SERVER_PORT") 2>/dev/null; do
    kill -0 "$SERVER_PID" || return 1
    sleep 0.01
  done
}

# rival_floor DIRECTORY keep|close
rival_floor() {
  local bytes=$RIVAL_REQUEST_BYTES
  [ "$2" = keep ] || bytes=$RIVAL_CLOSE_BYTES
  SERVER_PORT=$(free_port)
  taskset --cpu-list 0 "$1/floor" "$SERVER_PORT" "$bytes" "$2" &
  SERVER_PID=$!
  rival_wait
}

# rival_nginx DIRECTORY off|on|UDP_PORT: one process; the access log is off, or JSON and buffered, or goes to a syslog
# server of this machine, of the requests that are events alone.
rival_nginx() {
  local directory=$1 log='access_log off;' check=''
  SERVER_PORT=$(free_port)
  case $2 in
    off) ;;
    on) log="log_format event escape=json '{\"at\":\"\$time_iso8601\",\"query\":\"\$args\",\"from\":\"\$remote_addr\"}';
  access_log $directory/access.log event buffer=64k flush=1s;" ;;
    *) log="log_format event '\$arg_name \$arg_value';
  map \$status \$is_event { 200 1; default 0; }
  access_log syslog:server=127.0.0.1:$2,tag=hakaru event if=\$is_event;"
      check="if (\$arg_name !~ '^.{1,255}\$') { return 400; }
      if (\$arg_value !~ '^([0-9]{1,9}|[1-3][0-9]{9})\$') { return 400; }" ;;
  esac
  cat >"$directory/nginx.conf" <<TEXT
daemon off;
master_process off;
pid $directory/nginx.pid;
error_log $directory/nginx.log;
worker_rlimit_nofile 65536;
events { worker_connections 20000; multi_accept on; }
http {
  $log
  tcp_nodelay on;
  keepalive_requests 1000000000;
  client_body_temp_path $directory; proxy_temp_path $directory; fastcgi_temp_path $directory;
  uwsgi_temp_path $directory; scgi_temp_path $directory;
  server {
    listen 127.0.0.1:$SERVER_PORT backlog=65535;
    location /hakaru {
      $check
      empty_gif;
    }
  }
}
TEXT
  taskset --cpu-list 0 nginx -c "$directory/nginx.conf" -e "$directory/nginx.log" &
  SERVER_PID=$!
  rival_wait
}

# rival_program PROGRAM DIRECTORY DATASOURCE: axum or go.
rival_program() {
  rival_table
  SERVER_PORT=$(free_port)
  taskset --cpu-list 0 "$1" "127.0.0.1:$SERVER_PORT" "$3" 2>"$2/rival.log" &
  SERVER_PID=$!
  rival_wait || { cat "$2/rival.log" >&2; return 1; }
}

# rival_rsyslog DIRECTORY DATABASE_PORT: nginx, and rsyslogd as RELAY_PID. A batch of its queue is a transaction with a
# statement for each row. A Unix socket would hold ten messages, and nginx drops what does not fit, so it sends by UDP to a
# large buffer. Names are stored as they are in the request, with their percent signs.
rival_rsyslog() {
  local directory=$1 port tries
  port=$(free_port)
  rival_table
  mkdir -p "$directory/spool"
  cat >"$directory/rsyslog.conf" <<TEXT
global(workDirectory="$directory/spool")
module(load="imudp" batchSize="128")
module(load="ommysql")
template(name="event" type="string" option.sql="on"
  string="INSERT INTO eventlog (at, name, value) VALUES ('%timegenerated:::date-mysql%', '%msg:F,32:2%', %msg:F,32:3%)")
input(type="imudp" address="127.0.0.1" port="$port" rcvbufSize="64m" ruleset="events")
ruleset(name="events" queue.type="LinkedList" queue.size="1000000" queue.dequeueBatchSize="1000"
    queue.workerThreads="4" queue.timeoutShutdown="60000") {
  action(type="ommysql" server="127.0.0.1" serverport="$2" db="hakaru" uid="root" pwd="" template="event"
    action.resumeRetryCount="-1" action.resumeInterval="1")
}
TEXT
  taskset --cpu-list 0 rsyslogd -n -f "$directory/rsyslog.conf" -i "$directory/rsyslogd.pid" >"$directory/rsyslog.log" 2>&1 &
  RELAY_PID=$!
  for ((tries = 0; tries < 500; tries++)); do
    ! grep -qi "^ *[0-9]*: 0100007F:$(printf %04X "$port") " /proc/net/udp || break
    kill -0 "$RELAY_PID" 2>/dev/null || { cat "$directory/rsyslog.log" >&2; return 1; }
    sleep 0.01
  done
  rival_nginx "$directory" "$port"
}
