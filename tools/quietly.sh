#!/bin/sh
# quietly.sh LOG COMMAND...: runs the command with its output in the file LOG, and shows the log only if it fails.
log=$1
shift
mkdir -p "$(dirname "$log")"
"$@" >"$log" 2>&1 </dev/null && exit 0
code=$?
# Ninja's own progress lines, [12/34] ..., say nothing about the failure.
grep -v '^\[[0-9]*/[0-9]*\] [A-Z]' "$log" >&2
echo "This failed ($log): $*" >&2
exit "$code"
