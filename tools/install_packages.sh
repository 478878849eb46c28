#!/bin/sh
# Makes sure that what the build needs is there. It installs what is missing with apt if it may; otherwise it says what
# is missing and fails. When nothing is missing it calls nothing. With --ci, also what only .ci/run needs.
set -eu
cd "$(dirname "$0")/.."
log=build/logs/packages.log
ci=${1:-}

# The only list: package of Debian 12 and Ubuntu 24.04, then a program, or headers of which one is enough.
needed() {
  cat <<'LIST'
cmake               cmake
ninja-build         ninja
g++                 g++
libboost-dev        boost/graph/adjacency_list.hpp
libeigen3-dev       eigen3/Eigen/Core Eigen/Core
libfmt-dev          fmt/format.h
libcli11-dev        CLI/CLI.hpp
libtomlplusplus-dev toml++/toml.h
nlohmann-json3-dev  nlohmann/json.hpp
libsqlite3-dev      sqlite3.h
libtbb-dev          tbb/task_arena.h
catch2              catch2/catch_all.hpp catch2/catch.hpp
LIST
  if [ "$ci" = --ci ]; then
    echo clang clang++
    echo gnuplot-nox gnuplot
    # Sweeps over many processes; with it the installation takes half as long again.
    echo openmpi-bin mpirun
    echo libopenmpi-dev x86_64-linux-gnu/mpi/mpi.h aarch64-linux-gnu/mpi/mpi.h
    echo clang-format clang-format
  fi
}

# Where headers are looked for: the system, and what CMake is told by CMAKE_PREFIX_PATH.
prefixes="/usr /usr/local $(echo "${CMAKE_PREFIX_PATH:-}" | tr ':;' '  ')"

# there NAME...: is one of them a program on the PATH, or a header?
there() {
  for name; do
    case $name in
      g++) command -v "${CXX:-c++}" >/dev/null && return ;;
      */* | *.h) for prefix in $prefixes; do [ -e "$prefix/include/$name" ] && return; done ;;
      *) command -v "$name" >/dev/null && return ;;
    esac
  done
  return 1
}

missing=$(needed | while read -r package names; do
  # shellcheck disable=SC2086  # names are several words
  there $names || echo "$package:${names%% *}"
done)
[ -n "$missing" ] || exit 0
packages=$(echo "$missing" | sed 's/:.*//' | tr '\n' ' ' | sed 's/ $//')

if ! command -v apt-get >/dev/null; then
  echo "This machine lacks $(echo "$missing" | sed 's/.*://' | paste -sd ' ' | sed 's/ /, /g') (there is no apt to install them with); install these programs and headers with your package manager and repeat the command." >&2
  exit 1
fi
if [ "$(id -u)" -eq 0 ]; then
  as_root=
elif command -v sudo >/dev/null && sudo -n true 2>/dev/null; then
  as_root="sudo -n"
else
  if command -v sudo >/dev/null; then
    command="sudo sh -c 'apt-get update && apt-get install -y $packages'"
  else
    command="su -c 'apt-get update && apt-get install -y $packages'"
  fi
  echo "Packages are missing that only root may install; type this, then repeat the command: $command" >&2
  exit 1
fi

apt() {
  # A plain `su` leaves the PATH without the folders that dpkg needs.
  $as_root env DEBIAN_FRONTEND=noninteractive PATH="$PATH:/usr/sbin:/sbin" \
    apt-get -o DPkg::Lock::Timeout=60 -q "$@" </dev/null
}
install() {
  # shellcheck disable=SC2086  # packages are several words
  apt install -y --no-install-recommends $packages
}

echo "Installing $packages"
mkdir -p "$(dirname "$log")"
# Package lists that are absent or too old make the first attempt fail.
if ! { install || { apt update && install; }; } >"$log" 2>&1; then
  cat "$log" >&2
  echo "apt could not install $packages; its output is above and in $log." >&2
  exit 1
fi
