# Helpers of the benchmarks; sourced, never run.
#
# Every script: bash X.sh <corpus dir> <work dir>, prints "metric value unit" lines on stdout, logs under
# <work dir>/log, makes and removes its own folder under <work dir> (KEEP=1 keeps it). Scripts move themselves into a
# network namespace of their own, so that no node can reach any other machine.
set -euo pipefail
export LC_ALL=C TZ=UTC
BENCH=$(dirname "$(realpath "${BASH_SOURCE[0]}")")
[ $# -ge 2 ] || { echo "usage: bash $0 <corpus dir> <work dir>" >&2; exit 2; }
CORPUS=$(realpath "$1")
NAME=$(basename "$0" .sh)
W=$(realpath -m "$2")/$NAME
LOG=$(realpath -m "$2")/log
HOLDFAST=${HOLDFAST:-$(realpath -m "$BENCH/../../target/release/holdfast")}
SETTINGS=(--listen /ip4/127.0.0.1/tcp/0 --no-mdns) # of every node; () for the defaults
declare -A PIDS

own_net() { # run this script again in a network namespace: loopback, and a home network on which nobody else is
  [ -n "${IN_NS-}" ] && return
  exec env IN_NS=1 unshare -n -- bash -c '
    ip link set lo up
    ip link add home0 type veth peer name home1
    ip address add 192.168.7.2/24 dev home0
    ip link set home0 up
    ip link set home1 up
    ip route add default via 192.168.7.1
    exec bash "$0" "$@"' "$0" "$@"
}

begin() {
  [ -x "$HOLDFAST" ] || { echo "no $HOLDFAST: run cargo build --release, or set HOLDFAST" >&2; exit 1; }
  rm -rf "$W"
  mkdir -p "$W" "$LOG"
  trap finish EXIT
  CORPUS_BYTES=$(bytes_in "$CORPUS")
  CORPUS_FILES=$(find "$CORPUS" -type f | wc -l)
  emit corpus.files "$CORPUS_FILES" files
  emit corpus.bytes "$CORPUS_BYTES" bytes
}

finish() { # end what this script started, by pid
  local rc=$? p
  for p in "${PIDS[@]}"; do kill "$p" 2>/dev/null && wait "$p" 2>/dev/null || true; done
  [ -n "${KEEP-}" ] || rm -rf "$W"
  exit $rc
}

emit() { printf '%s %s %s\n' "$1" "$2" "$3"; }
calc() { awk "BEGIN { printf \"%.${2:-2}f\", $1 }"; }
now() { date +%s.%N; }
now_ms() { echo $((${EPOCHREALTIME/./} / 1000)); } # without a process
mib() { calc "$1 / 1048576" 1; }
bytes_in() { find "$@" -type f -printf '%s\n' | awk '{ s += $1 } END { printf "%.0f", s }'; }
rate() { calc "$1 / 1000000 / ($2 > 0 ? $2 : 0.001)" 1; } # rate <bytes> <seconds>: MB/s
spread() { # spread <metric> <unit> <values…>: their minimum, median and worst
  local metric=$1 unit=$2 n=$(($# - 2)) sorted
  shift 2
  mapfile -t sorted < <(printf '%s\n' "$@" | sort -n)
  emit "$metric.min" "${sorted[0]}" "$unit"
  emit "$metric.median" "${sorted[$((n / 2))]}" "$unit"
  emit "$metric.worst" "${sorted[$((n - 1))]}" "$unit"
}
seconds() { calc "$1 / 1000" 3; } # seconds <milliseconds>
lo_bytes() { awk '$1 == "lo:" { print $10 }' /proc/self/net/dev; }
cold() { # flush, then drop the file contents of these paths from the page cache, where vmtouch is installed
  sync
  vmtouch -qe "$@" >/dev/null 2>&1 || true
}
tree() { # a process and all its descendants
  local p
  echo "$1"
  for p in $(cat /proc/"$1"/task/*/children 2>/dev/null); do tree "$p"; done
}
cpu_of() { # CPU seconds of a process tree, reaped children included
  local p
  for p in $(tree "$1"); do cat /proc/"$p"/stat 2>/dev/null || true; done |
    sed 's/.*) //' | awk -v hz="$(getconf CLK_TCK)" '{ s += $12 + $13 + $14 + $15 } END { printf "%.2f", s / hz }'
}
rss_of() { awk '/^VmRSS/ { printf "%.1f", $2 / 1024 }' /proc/"$1"/status; }
hwm_of() { awk '/^VmHWM/ { printf "%.1f", $2 / 1024 }' /proc/"$1"/status; }

# up <name> <arguments…>: starts a node with the home $W/<name>; its events go to $LOG/$NAME.<name>.jsonl, what it logs
# beside them to .err, its process to $PID
up() {
  local name=$1
  shift
  : >"$LOG/$NAME.$name.jsonl"
  "$HOLDFAST" --home "$W/$name" --json "$@" "${SETTINGS[@]}" >"$LOG/$NAME.$name.jsonl" 2>"$LOG/$NAME.$name.err" &
  PID=$!
  PIDS[$name]=$PID
}
event() { # event <name> <event>: waits for it
  for _ in $(seq 60000); do
    grep -q "\"event\":\"$2\"" "$LOG/$NAME.$1.jsonl" && return
    kill -0 "$PID" 2>/dev/null || { tail -n 5 "$LOG/$NAME.$1.err" >&2; return 1; }
    sleep 0.02
  done
  echo "no event $2 of $1" >&2
  return 1
}
ask() { # ask <name> <command…>: one JSON answer
  local name=$1
  shift
  "$HOLDFAST" --home "$W/$name" --json "$@" || [ $? = 4 ] # 4: photos below their target, which is an answer
}
field() { grep -oE "\"$1\":\"?[^,\"}]*" | head -n 1 | sed -E 's/^"[^"]*":"?//'; } # the first such scalar of a JSON line
until_field() { # until_field <name> <field> <value>: polls the status
  for _ in $(seq 12000); do
    [ "$(ask "$1" status 2>/dev/null | field "$2")" = "$3" ] && return
    sleep 0.05
  done
  echo "status of $1 never said $2 = $3: $(ask "$1" status)" >&2
  return 1
}
# held <name> <photos> <seconds>: waits until the node holds them all. $TOOK is how long that took, $SILENCE the longest
# time in which nothing came while something was missing, both in milliseconds. False when the seconds are over.
held() {
  local begun moved at status received last=0
  begun=$(now_ms) moved=$begun SILENCE=0
  while :; do
    status=$(ask "$1" status 2>/dev/null || true)
    at=$(now_ms) TOOK=$((at - begun))
    received=$(field received <<<"$status" || true)
    [ $((at - moved)) -le "$SILENCE" ] || SILENCE=$((at - moved))
    [ "$(field held_here <<<"$status")" != "$2" ] || return 0
    [ "${received:-0}" = "$last" ] || last=${received:-0} moved=$at
    [ "$TOOK" -lt $(($3 * 1000)) ] || return 1
    sleep 0.05
  done
}
down() { # down <name>: stops the node and waits
  ask "$1" stop >/dev/null || true
  wait "${PIDS[$1]}" 2>/dev/null || true
  unset "PIDS[$1]"
}
