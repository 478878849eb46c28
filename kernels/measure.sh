#!/bin/sh
# Builds orrery-bench on a machine with a GPU and measures it.
#
#   kernels/measure.sh DIR [orrery-bench options]     e.g. kernels/measure.sh validate/measured/h200_sxm --full
#
# DIR gets the CSV files. cuDNN and NCCL are taken from the toolkit, the system or pip's packages, whichever is there;
# without them their rows are left out. BENCH=path takes a program that is already built.
set -eu
out=${1:?"usage: kernels/measure.sh DIR [orrery-bench options]"}
shift
mkdir -p "$out"
case ${BENCH:-/} in /*) ;; *) BENCH=$PWD/$BENCH ;; esac
back=$PWD
cd "$(dirname "$0")/.."

# pip installs cuDNN and NCCL (with headers) under site-packages/nvidia.
prefix=$(python3 - <<'PY' 2>/dev/null || true
import glob, os, site
roots = set(site.getsitepackages() + [site.getusersitepackages()])
print(";".join(sorted(d for r in roots for d in glob.glob(r + "/nvidia/*") if os.path.isdir(d + "/lib"))))
PY
)
for folder in $(printf '%s' "$prefix" | tr ';' ' '); do
  LD_LIBRARY_PATH="${LD_LIBRARY_PATH:-}${LD_LIBRARY_PATH:+:}$folder/lib"
done
export LD_LIBRARY_PATH="${LD_LIBRARY_PATH:-}"

mkdir -p build
if [ -z "${BENCH:-}" ]; then
  # kernels/ by itself: the rest of Orrery would ask for packages that a machine with a GPU may not have.
  if ! { cmake -S kernels -B build/measure "-DCMAKE_PREFIX_PATH=$prefix" &&
         cmake --build build/measure --target orrery-bench -j"$(nproc)"; } >build/measure.log 2>&1; then
    tail -n 30 build/measure.log >&2
    echo "kernels/measure.sh: the bench was not built (above the end of build/measure.log)" >&2
    exit 2
  fi
  BENCH=build/measure/orrery-bench
fi
bench=$(cd "$(dirname "$BENCH")" && pwd)/$(basename "$BENCH")
cd "$back"
"$bench" --output "$out" "$@"
