# Helpers of the benchmarks; sourced, never run.
#
# Every script: bash X.sh <corpus dir> <work dir>, prints "metric value unit" lines on stdout, logs under
# <work dir>/log, makes and removes its own folder under <work dir> (KEEP=1 keeps it). Scripts move themselves into a
# network namespace that has nothing but loopback, so that no node can reach any other machine.
set -euo pipefail
export LC_ALL=C TZ=UTC
BENCH=$(dirname "$(realpath "${BASH_SOURCE[0]}")")
[ $# -ge 2 ] || { echo "usage: bash $0 <corpus dir> <work dir>" >&2; exit 2; }
CORPUS=$(realpath "$1")
NAME=$(basename "$0" .sh)
W=$(realpath -m "$2")/$NAME
LOG=$(realpath -m "$2")/log
HOLDFAST=${HOLDFAST:-$(realpath -m "$BENCH/../../target/release/holdfast")}
PIDS=()

own_net() { # run this script again in an empty network namespace, loopback only
  [ -n "${IN_NS-}" ] && return
  exec env IN_NS=1 unshare -n -- bash -c 'ip link set lo up; exec bash "$0" "$@"' "$0" "$@"
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
  for p in "${PIDS[@]:-}"; do [ -n "$p" ] && kill "$p" 2>/dev/null && wait "$p" 2>/dev/null || true; done
  [ -n "${KEEP-}" ] || rm -rf "$W"
  exit $rc
}

emit() { printf '%s %s %s\n' "$1" "$2" "$3"; }
calc() { awk "BEGIN { printf \"%.${2:-2}f\", $1 }"; }
now() { date +%s.%N; }
mib() { calc "$1 / 1048576" 1; }
bytes_in() { find "$@" -type f -printf '%s\n' | awk '{ s += $1 } END { printf "%.0f", s }'; }
rate() { calc "$1 / 1000000 / ($2 > 0 ? $2 : 0.001)" 1; } # rate <bytes> <seconds>: MB/s
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

# up <name> <arguments…>: starts a node with the home $W/<name>; its events go to $LOG/$NAME.<name>.jsonl, its process to $PID
up() {
  local name=$1
  shift
  : >"$LOG/$NAME.$name.jsonl"
  "$HOLDFAST" --home "$W/$name" --json "$@" --listen /ip4/127.0.0.1/tcp/0 --no-mdns \
    >"$LOG/$NAME.$name.jsonl" 2>"$LOG/$NAME.$name.err" &
  PID=$!
  PIDS+=("$PID")
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
down() { # down <name>: stops the node and waits
  ask "$1" stop >/dev/null || true
  wait "$PID" 2>/dev/null || true
}
