#!/bin/bash
# From one node to one and to three others on loopback, and back out as files. PEERS=3 for how many at once.
. "$(dirname "$0")/lib.sh"
own_net "$@"
begin
cp -a "$CORPUS" "$W/src"
sync
up a up "$W/src" ${COPY:+--copy}
A=$PID
event a import-finished
photos=$(ask a status | field photos)
ticket() { ask a invite | field ticket; }

T=$(ticket)
c0=$(cpu_of "$A") b0=$(lo_bytes)
up b join "$T" --place office
B=$PID
event b connected
t0=$(now)
until_field b held_here "$photos"
t1=$(now)
emit replicate.wall "$(calc "$t1 - $t0")" s
emit replicate.rate "$(rate "$CORPUS_BYTES" "$(calc "$t1 - $t0" 3)")" MB/s
emit replicate.source_cpu "$(calc "$(cpu_of "$A") - $c0")" s
emit replicate.cpu "$(cpu_of "$B")" s
emit replicate.source_rss "$(hwm_of "$A")" MiB
emit replicate.rss "$(hwm_of "$B")" MiB
emit replicate.wire "$(mib $(($(lo_bytes) - b0)))" MiB
t0=$(now)
until_field a safe "$photos"
emit replicate.known_safe_after "$(calc "$(now) - $t0")" s
t0=$(now)
ask b export "$W/out" >/dev/null
t1=$(now)
emit export.wall "$(calc "$t1 - $t0")" s
diff -rq "$W/src" "$W/out/src" >"$LOG/$NAME.diff" 2>&1 && emit export.identical 1 bool || emit export.identical 0 bool
rm -rf "$W/out"

if [ "${PEERS:-3}" -gt 0 ]; then
  down b
  sent0=$(ask a status | field sent)
  t0=$(now)
  for n in $(seq "${PEERS:-3}"); do
    T=$(ticket)
    up "p$n" join "$T" --place "p$n"
  done
  for n in $(seq "${PEERS:-3}"); do until_field "p$n" held_here "$photos"; done
  t1=$(now)
  sent=$(($(ask a status | field sent) - sent0))
  emit swarm.wall "$(calc "$t1 - $t0")" s
  emit swarm.source_sent "$(mib "$sent")" MiB
  emit swarm.source_share "$(calc "$sent / $CORPUS_BYTES" 3)" x
fi
