#!/usr/bin/env bash
# Runs the integration tests with what setup.sh installed. Arguments go to pytest; --nightly chooses the long part.
set -euo pipefail
cd "$(dirname "$0")"
cache=${TEST_CACHE_DIR:-$(pwd)/../.cache}
if [ "${1:-}" = --nightly ]; then
  shift
  set -- -m nightly "$@"
elif [ $# = 0 ]; then
  # Most of the time is waited for: two processes, each with whole files and with servers of its own.
  set -- -n 2 --dist loadfile --no-loadscope-reorder
fi
exec "$cache/venv/bin/pytest" "$@"
