#!/bin/sh
# Builds and runs every test that this machine can run: `make test` calls it.
#
#   build        release build: unit, packet, system and interop tests
#   build-asan   the unit and packet tests once more under ASan and UBSan
#   build-fuzz   each fuzz target for a bounded number of executions (clang)
#
# Ends with one line of totals over all of them, and exits non-zero when anything failed.
set -u
cd "$(dirname "$0")/.."
build=${1:-build}
status=0

# As many as a router of the system tests wants, and the tables of the packet tests beside it; put back
# afterwards. Where the machine gives none, the tests that need them say so.
. conf/setup/hugepages.sh
trap hugepages_end EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
hugepages_begin 1536

setup() { # DIRECTORY [meson options]
  directory=$1
  shift
  [ -f "$directory/build.ninja" ] || meson setup "$directory" "$@" > "$directory.log" 2>&1 || {
    cat "$directory.log"
    return 1
  }
  rm -f "$directory.log"
  ninja -C "$directory" --quiet
}

run() { # DIRECTORY [meson test options]
  directory=$1
  shift
  rm -f "$directory"/meson-logs/testlog*.junit.xml
  meson test -C "$directory" --print-errorlogs "$@" || status=1
}

setup "$build" || exit 1
if [ "$(id -u)" = 0 ]; then
  conf/setup/unpacked.sh kernel "$build/guest-kernel" || status=1
  conf/setup/unpacked.sh libreswan "$build/libreswan" || status=1
fi
run "$build" --suite unit --suite packet --suite system

setup "$build-asan" -Db_sanitize=address,undefined -Db_lundef=false --buildtype=debugoptimized || exit 1
ASAN_OPTIONS=detect_leaks=1:abort_on_error=1 UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1 \
  run "$build-asan" --suite unit --suite packet

if command -v clang > /dev/null; then
  CC=clang setup "$build-fuzz" -Dc_args=-fsanitize=fuzzer-no-link -Db_sanitize=address,undefined -Db_lundef=false \
    --buildtype=debugoptimized || exit 1
  run "$build-fuzz" --suite fuzz
fi

/usr/bin/python3 test/totals.py "$build" "$build-asan" "$build-fuzz" || status=1
exit $status
