#!/bin/bash
# Fresh joins on default settings, JOINS of them: a new library imports the corpus, a new home joins it. How long until it
# holds every photo, and for how long nothing moved meanwhile. A join that takes more than LIMIT seconds is given up.
# When the worst takes more than twice the median, what its two nodes logged follows on stderr.
. "$(dirname "$0")/lib.sh"
own_net "$@"
SETTINGS=()
begin
cp -a "$CORPUS" "$W/src"
sync
took=() silent=() worst=1 given_up=0
for n in $(seq "${JOINS:-60}"); do
  up "source$n" up "$W/src" --place home
  event "source$n" import-finished
  photos=$(ask "source$n" status | field photos)
  up "new$n" join "$(ask "source$n" invite | field ticket)" --place office
  held "new$n" "$photos" "${LIMIT:-600}" || given_up=$((given_up + 1))
  took+=("$(seconds "$TOOK")") silent+=("$(seconds "$SILENCE")")
  [ "$TOOK" -le "${longest:-0}" ] || longest=$TOOK worst=$n
  echo "join $n: ${took[-1]} s, silent for ${silent[-1]} s" >&2
  down "new$n"
  down "source$n"
  rm -rf "${W:?}/new$n" "${W:?}/source$n"
done
spread join.wall s "${took[@]}"
spread join.silence s "${silent[@]}"
emit join.given_up "$given_up" joins
median=$(printf '%s\n' "${took[@]}" | sort -n | sed -n "$((${#took[@]} / 2 + 1))p")
if [ "$(calc "($longest / 1000 > 2 * $median)" 0)" = 1 ]; then
  for node in "source$worst" "new$worst"; do sed "s/^/$node: /" "$LOG/$NAME.$node.err" >&2; done
fi
