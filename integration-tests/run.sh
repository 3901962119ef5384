#!/usr/bin/env bash
# Runs the integration tests with what setup.sh installed. Arguments go to pytest; --nightly chooses the long part.
set -euo pipefail
cd "$(dirname "$0")"
cache=${TEST_CACHE_DIR:-$(pwd)/../.cache}
if [ "${1:-}" = --nightly ]; then
  shift
  set -- -m nightly "$@"
fi
exec "$cache/venv/bin/pytest" "$@"
