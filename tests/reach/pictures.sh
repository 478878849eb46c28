#!/bin/sh
# The pictures of `orrery reach`. Usage: pictures.sh ORRERY FOLDER_FOR_FILES
set -u
orrery=$1 folder=$2
mkdir -p "$folder"
failed=0

if ! command -v gnuplot >/dev/null; then
  echo "gnuplot is not installed (apt-get install gnuplot-nox): no picture was drawn"
  exit 77
fi

# Each line: the first bytes of the file | its ending | arguments.
while IFS='|' read -r magic ending arguments; do
  rm -f "$folder/picture.$ending"
  # shellcheck disable=SC2086  # arguments are several words
  "$orrery" reach $arguments --plot "$folder/picture.$ending" >/dev/null 2>"$folder/err" </dev/null || failed=1
  [ ! -s "$folder/err" ] || failed=1
  head -c 64 "$folder/picture.$ending" | grep -aqF "$magic" || failed=1
  [ $failed -eq 0 ] || {
    echo "FAILED: $arguments --plot picture.$ending: $(cat "$folder/err")"
    exit 1
  }
done <<'LIST'
<svg|svg|--pattern pi --k 4 --pi 16 --layers 24 --n 4096
PNG|png|--pattern pi --k 4 --pi 16 --layers 24 --n 4096
%PDF|pdf|--pattern pi --k 4 --pi 16 --layers 24 --n 4096
PNG|png|--pattern pi --k 1 --pi 1 --layers 1 --n 2
PNG|png|--pattern pi --k 0 --pi 3 --layers 3 --n 10
PNG|png|--pattern pi --k 4 --pi 16 --rule G --layers 24 --n 1000000000000
PNG|png|pi_ring_1024
PNG|png|seer_32k --layers 4
PNG|png|--compare pi_32k window_32k rat_32k seer_32k mag_32k ring_attention_32k
LIST
exit $failed
