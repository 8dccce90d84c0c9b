#!/bin/sh
# run.sh TARGET CORPUS [OPTIONS]: a bounded run of a fuzz target on a copy of its corpus, so that what it
# finds on the way does not end up in the sources. An input that breaks it stays in the directory it
# was run from, as crash-*.
set -eu
target=$1
corpus=$2
shift 2
copy=$(mktemp -d)
trap 'rm -rf "$copy"' EXIT
cp "$corpus"/* "$copy"
"$target" -error_exitcode=1 -runs=200000 -max_total_time=20 -timeout=30 -rss_limit_mb=4096 -print_final_stats=1 "$@" \
  "$copy"
