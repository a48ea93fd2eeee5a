#!/bin/bash
# One source, PEERS receivers that join at once, RUNS times: how much of the corpus the source itself sends, and how long
# until all hold every photo. A run that takes more than LIMIT seconds is given up.
. "$(dirname "$0")/lib.sh"
own_net "$@"
begin
cp -a "$CORPUS" "$W/src"
sync
share=() took=() given_up=0
for n in $(seq "${RUNS:-20}"); do
  up "source$n" up "$W/src" --place home
  event "source$n" import-finished
  photos=$(ask "source$n" status | field photos)
  sent=$(ask "source$n" status | field sent)
  receivers=()
  for p in $(seq "${PEERS:-3}"); do receivers+=("run${n}peer$p"); done
  begun=$(now_ms)
  for r in "${receivers[@]}"; do up "$r" join "$(ask "source$n" invite | field ticket)" --place "$r"; done
  for r in "${receivers[@]}"; do
    held "$r" "$photos" "${LIMIT:-600}" || given_up=$((given_up + 1))
  done
  took+=("$(seconds $(($(now_ms) - begun)))")
  share+=("$(calc "($(ask "source$n" status | field sent) - $sent) / $CORPUS_BYTES" 3)")
  echo "swarm $n: the source sent ${share[-1]} x in ${took[-1]} s" >&2
  for r in "${receivers[@]}" "source$n"; do
    down "$r"
    rm -rf "${W:?}/$r"
  done
done
spread swarm.source_share x "${share[@]}"
spread swarm.wall s "${took[@]}"
emit swarm.given_up "$given_up" receivers
