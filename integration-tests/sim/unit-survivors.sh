#!/bin/bash
# Which defects of src/planted.rs the unit tests find by themselves, and which only the simulation can: a table, one line
# each, with the tests that failed. unit-survivors.sh [NAME…]; without names, all. OUT keeps the output of each run,
# TESTS is a test binary that is built already.
set -euo pipefail
cd "$(dirname "$0")/../.."
out=${OUT:-$(mktemp -d)}
built=${TESTS:-$(cargo test -q --features planted --lib --no-run --message-format=json |
    sed -n 's/.*"executable":"\([^"]*\)".*/\1/p' | tail -1)}
names=("$@")
if [ $# = 0 ]; then
    mapfile -t names < <(sed -n '/^defects! {/,/^}/s/^    [A-Z][A-Za-z]* "\([a-z0-9-]*\)".*/\1/p' src/planted.rs)
fi
survivors=0
# Rooms without defects; and the random clients of groups, who take a minute, for those that are not about groups.
skip=(--skip journal:: --skip protocol:: --skip records:: --skip config:: --skip cli:: --skip telemetry::)
for name in "${names[@]}"; do
    case $name in
    *group* | *generation* | *commit* | *member* | *coordinator* | revoking* | reply*) churn=() ;;
    *) churn=(--skip churn) ;;
    esac
    PLANTED=$name timeout "${SECONDS_MAX:-300}" "$built" "${skip[@]}" "${churn[@]}" >"$out/$name" 2>&1 && end=0 || end=$?
    failed=$(sed -n 's/^test \(.*\) \.\.\. FAILED$/\1/p' "$out/$name" | sort)
    case $end in
    0) found=survivor survivors=$((survivors + 1)) ;;
    124) found="killed (hangs)" ;;
    *) found="killed by $(grep -c . <<<"$failed"): $(head -2 <<<"$failed" | paste -sd' ')" ;;
    esac
    printf '%-26s %s\n' "$name" "$found"
done
echo "$survivors of ${#names[@]} survive the unit tests"
