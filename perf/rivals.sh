# Sourced, not run: the servers that hakaru is compared with, on core 0. Each sets SERVER_PID and SERVER_PORT.
# shellcheck shell=bash

# The request of perf/compare.lua, in bytes.
RIVAL_REQUEST_BYTES=$(printf 'GET /hakaru?name=open&value=0 HTTP/1.1\r\nHost: hakaru\r\n\r\n' | wc -c)
RIVAL_CLOSE_BYTES=$((RIVAL_REQUEST_BYTES + $(printf 'Connection: close\r\n' | wc -c)))

# rivals_build DIRECTORY: builds the servers that must be built.
rivals_build() { "${CC:-cc}" -O2 -o "$1/floor" "$(dirname "${BASH_SOURCE[0]}")/floor.c"; }

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

# rival_nginx DIRECTORY on|off: one process; the access log is JSON and buffered, or off.
rival_nginx() {
  local directory=$1 log='access_log off;'
  SERVER_PORT=$(free_port)
  [ "$2" = off ] || log="log_format event escape=json '{\"at\":\"\$time_iso8601\",\"query\":\"\$args\",\"from\":\"\$remote_addr\"}';
  access_log $directory/access.log event buffer=64k flush=1s;"
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
    location /hakaru { empty_gif; }
  }
}
TEXT
  taskset --cpu-list 0 nginx -c "$directory/nginx.conf" -e "$directory/nginx.log" &
  SERVER_PID=$!
  rival_wait
}
