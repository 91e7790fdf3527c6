# Sourced, not run: builds hakaru, starts it on a free port, and reads its figures.
# shellcheck shell=bash

# hakaru_binary PATH: prints PATH. If it is empty, builds a release and prints its path. Status 2 if PATH cannot be run.
hakaru_binary() {
  local manifest
  if [ -n "$1" ]; then
    if [ -f "$1" ] && [ -x "$1" ]; then
      echo "$1"
      return
    fi
    echo "--binary $1 is no program that can be run" >&2
    return 2
  fi
  echo 'building hakaru ...' >&2
  manifest=$(dirname "${BASH_SOURCE[0]}")/../Cargo.toml
  cargo build --release --quiet --locked --manifest-path "$manifest"
  echo "$(cargo_target)/release/hakaru"
}

# cargo_target: the directory of what cargo builds of this tree.
cargo_target() {
  cargo metadata --format-version 1 --no-deps --manifest-path "$(dirname "${BASH_SOURCE[0]}")/../Cargo.toml" |
    sed -n 's/.*"target_directory":"\([^"]*\)".*/\1/p'
}

# hakaru_start BINARY DIRECTORY DATASOURCE [FLAG...]: sets HAKARU_PID, HAKARU_PORT and HAKARU_ADMIN_PORT; its log is DIRECTORY/hakaru.log.
hakaru_start() {
  local binary=$1 directory=$2 datasource=$3
  shift 3
  HAKARU_PORT=$(free_port)
  # shellcheck disable=SC2034 # for the script that sources this
  HAKARU_ADMIN_PORT=$(free_port)
  HAKARU_DATASOURCENAME=$datasource "$binary" --listen "127.0.0.1:$HAKARU_PORT" \
    --admin-listen "127.0.0.1:$HAKARU_ADMIN_PORT" --data-dir "$directory/hakaru" \
    --log-format json "$@" 2>"$directory/hakaru.log" &
  HAKARU_PID=$!
  until (exec 3<>"/dev/tcp/127.0.0.1/$HAKARU_PORT") 2>/dev/null; do
    if ! kill -0 "$HAKARU_PID" 2>/dev/null; then
      cat "$directory/hakaru.log" >&2
      return 1
    fi
    sleep 0.01
  done
}

# kakeru_run FILE FLAG...: runs perf/kakeru and writes its standard output to FILE. Shows everything that it printed if
# it failed.
kakeru_run() {
  local file=$1 status=0
  shift
  "$(dirname "${BASH_SOURCE[0]}")/kakeru" "$@" >"$file" 2>"$file.errors" || status=$?
  [ "$status" != 0 ] || return 0
  cat "$file" "$file.errors" >&2
  echo "perf/kakeru $* ended with status $status" >&2
  return 1
}

# hakaru_logged DIRECTORY NAME: a figure of the log line `ended`.
hakaru_logged() { sed -n "s/.*\"event\":\"ended\".*\"$2\":\([0-9]*\).*/\1/p" "$1/hakaru.log"; }

# hakaru_peak_mib: its peak memory so far.
hakaru_peak_mib() { awk '/^VmHWM/ { printf "%.0f\n", $2 / 1024 }' "/proc/$HAKARU_PID/status"; }

# machine_line: the machine.
machine_line() {
  echo "$(uname -srm), $(nproc) cores, $(sed -n '/^model name.*: / { s///p; q }' /proc/cpuinfo)"
}

# revision_line: the revision of this tree. Changes in recorded runs do not count.
revision_line() {
  local here changed
  here=$(dirname "${BASH_SOURCE[0]}")/..
  changed=$(git -C "$here" status --porcelain -- . ':!perf/runs' 2>/dev/null | sed -n 1p)
  echo "$(git -C "$here" rev-parse --short HEAD 2>/dev/null || echo unknown)${changed:+, with changes}"
}

# hakaru_admin_cpu_us: the CPU time of its admin thread so far.
hakaru_admin_cpu_us() {
  local task
  for task in "/proc/$HAKARU_PID/task"/*; do
    if [ "$(cat "$task/comm")" = admin ]; then
      awk '{ printf "%.0f\n", $1 / 1000 }' "$task/schedstat"
    fi
  done
}
