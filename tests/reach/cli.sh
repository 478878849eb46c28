#!/bin/sh
# `orrery reach` as people type it. Usage: cli.sh ORRERY FOLDER_FOR_FILES
set -u
orrery=$1 folder=$2
mkdir -p "$folder"
failed=0

fail() {
  echo "FAILED: $1"
  failed=1
}

# Each line: words the error must contain | arguments. Exit code 2, one line on stderr, nothing on stdout.
while IFS='|' read -r words arguments; do
  # shellcheck disable=SC2086  # arguments are several words
  "$orrery" reach $arguments >"$folder/out" 2>"$folder/err" </dev/null
  code=$?
  [ $code -eq 2 ] || fail "exit code $code: $arguments"
  grep -qF -- "$words" "$folder/err" || fail "no \"$words\": $arguments: $(cat "$folder/err")"
  [ "$(wc -l <"$folder/err")" -eq 1 ] && [ ! -s "$folder/out" ] || fail "not one sentence: $arguments"
done <<'LIST'
k = -1 is negative|--pattern pi --k -1 --pi 16 --layers 4 --n 100
pi = 0 is not positive|--pattern pi --k 4 --pi 0 --layers 4 --n 100
layers = 0 is not in 1 to|--pattern pi --k 4 --pi 16 --layers 0 --n 100
layers = 65537 is not in 1 to 65536|--pattern pi --k 4 --pi 16 --layers 65537 --n 100
n = 0 is less than 1|--pattern pi --k 4 --pi 16 --layers 4 --n 0
past 2^63 - 1|--pattern pi --k 4 --pi 1152921504606846976 --layers 64 --n 4096
2^63 - 1|--pattern pi --k 4 --pi 18446744073709551616 --layers 64 --n 4096
of layer 52 is past 2^63 - 1|--pattern pi --k 4 --pi 4096 --rule D --layers 64 --n 4096
query = 100 does not exist|--pattern pi --k 4 --pi 16 --layers 4 --n 100 --query 100
rule Z does not exist|--pattern pi --k 4 --pi 16 --rule Z --layers 4 --n 100
.svg, .png or .pdf|pi_A --plot x.gif
nothing to compute|--layers 4
several things to compute|pi_A --find k,pi --cover 100 --layers 4
--pi would change nothing|--pattern window --k 4 --pi 16 --layers 4 --n 100
--k would change nothing|pi_A --k 4
pattern pie does not exist|--pattern pie --k 4 --pi 16 --layers 4 --n 10
ranks = 3 does not divide n = 100|pi_A --ranks 3 --model llama3_8b --n 100
--rule would change nothing|pi_A --rule B
--ring would change nothing|pi_A --ring
--cover would change nothing|pi_A --cover 100
--n would change nothing|--find k,pi --cover 100 --layers 4 --n 100
--plot would change nothing|--find k,pi --cover 100 --layers 4 --plot x.svg
--model and --ranks need each other|pi_A --model llama3_8b
engine grap does not exist|pi_A --engine grap
rule C (its layers are no window and one skip|--find k,pi --cover 100 --layers 4 --rule C
cover = 0 is not in 1 to|--find k,pi --cover 0 --layers 4
--cover is missing|--find k,pi --layers 4
there is no "pi_Z"|pi_Z
LIST

run="--pattern pi --k 4 --pi 16 --layers 24 --n 4096"
# shellcheck disable=SC2086
for i in 1 2; do "$orrery" reach $run --format json | grep -v wall_s >"$folder/$i.json"; done
cmp -s "$folder/1.json" "$folder/2.json" || fail "two runs differ"
for engine in intervals bitset; do
  # shellcheck disable=SC2086
  "$orrery" reach $run --engine $engine --format csv | sed 's/,[a-z]*$//' >"$folder/$engine.csv"
done
cmp -s "$folder/intervals.csv" "$folder/bitset.csv" || fail "engines differ"

# A reach is not refused because its cost cannot be counted.
"$orrery" reach pi_32k --n 4294967296 >"$folder/out" 2>"$folder/err" || fail "a reach without a cost"
grep -q '^cost  *not counted: n = 4294967296 is past 2^31' "$folder/out" || fail "no word about the cost"

"$orrery" reach --pattern pi --k 4 --pi 16 --layers 2 --n 1 --plot "$folder/one.svg" >"$folder/out" 2>"$folder/err"
[ $? -eq 2 ] && grep -q 'no earlier token is reached' "$folder/err" || fail "a picture of nothing"

# Without gnuplot the report and the data file are there, and a sentence says what is missing.
rm -f "$folder/picture.svg.dat"
# shellcheck disable=SC2086
PATH=/nonexistent "$orrery" reach $run --plot "$folder/picture.svg" >"$folder/out" 2>"$folder/err"
code=$?
[ $code -eq 2 ] && grep -q 'gnuplot is not installed' "$folder/err" || fail "no word about gnuplot, exit code $code"
[ -s "$folder/picture.svg.dat" ] && [ -s "$folder/out" ] || fail "no data file without gnuplot"

exit $failed
