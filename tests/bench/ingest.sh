#!/bin/bash
# Importing a folder: in place, copied, again without changes, after 50 EXIF edits (EDIT=<command that edits the folder>).
# CP=1 measures cp -r + sync of the same folder beside it.
. "$(dirname "$0")/lib.sh"
own_net "$@"
begin
cp -a "$CORPUS" "$W/src"
sync

ingest() { # ingest <name> <up arguments…>
  local name=$1 t0 t1
  shift
  cold "$W/src"
  t0=$(now)
  up "$name" up "$W/src" "$@"
  event "$name" import-finished
  t1=$(now)
  emit "$name.wall" "$(calc "$t1 - $t0")" s
  emit "$name.cpu" "$(cpu_of "$PID")" s
  emit "$name.rss" "$(hwm_of "$PID")" MiB
  emit "$name.rate" "$(rate "$CORPUS_BYTES" "$(calc "$t1 - $t0" 3)")" MB/s
  emit "$name.photos" "$(ask "$name" status | field photos)" photos
}

ingest in_place
emit in_place.stored "$(mib "$(bytes_in "$W/in_place")")" MiB
sleep 3
emit in_place.idle_rss "$(rss_of "$PID")" MiB
down in_place

cold "$W/in_place"
t0=$(now)
up in_place up
event in_place folder-scanned
emit nochange.wall "$(calc "$(now) - $t0")" s
emit nochange.cpu "$(cpu_of "$PID")" s
sleep 2
c0=$(cpu_of "$PID")
sleep 20
emit idle.rss "$(rss_of "$PID")" MiB
emit idle.cpu_percent "$(calc "($(cpu_of "$PID") - $c0) / 20 * 100")" %

if [ -n "${EDIT-}" ]; then
  before=$(bytes_in "$W/in_place/store")
  photos=$(ask in_place status | field photos)
  $EDIT "$W/src"
  ask in_place status >/dev/null
  sleep 6
  event in_place import-finished
  emit edit.stored "$(mib $(($(bytes_in "$W/in_place/store") - before)))" MiB
  emit edit.photos_before "$photos" photos
  emit edit.photos_after "$(ask in_place status | field photos)" photos
fi
down in_place
rm -rf "$W/in_place"

ingest copied --copy
emit copied.stored "$(mib "$(bytes_in "$W/copied")")" MiB
down copied
rm -rf "$W/copied"

if [ -n "${CP-}" ]; then
  cold "$W/src"
  t0=$(now)
  cp -r "$W/src" "$W/cp" && sync
  t1=$(now)
  emit cp_sync.wall "$(calc "$t1 - $t0")" s
  emit cp_sync.rate "$(rate "$CORPUS_BYTES" "$(calc "$t1 - $t0" 3)")" MB/s
fi
