#!/bin/bash
# Which defects of src/planted.rs the unit tests find by themselves, and which only the simulation can: a table, one line
# each, with the tests that failed. unit-survivors.sh [NAME…]; without names, all. OUT keeps the output of each run,
# TESTS is a test binary that is built already. Run are the tests of the rooms where the defect is and of those that
# stand directly on them; one that makes a test hang counts as found after SECONDS_MAX.
set -euo pipefail
cd "$(dirname "$0")/../.."
out=${OUT:-$(mktemp -d)}
built=${TESTS:-$(cargo test -q --features planted --lib --no-run --message-format=json |
    sed -n 's/.*"executable":"\([^"]*\)".*/\1/p' | tail -1)}
export PROPTEST_CASES=${PROPTEST_CASES:-32}
names=("$@")
if [ $# = 0 ]; then
    mapfile -t names < <(sed -n '/^defects! {/,/^}/s/^    [A-Z][A-Za-z]* "\([a-z0-9-]*\)".*/\1/p' src/planted.rs)
fi
survivors=0
for name in "${names[@]}"; do
    variant=$(sed -n "s/^    \([A-Z][A-Za-z]*\) \"$name\" .*/\1/p" src/planted.rs)
    rooms=$(grep -rl "planted(Defect::$variant)" src | cut -d/ -f2 | sort -u)
    [[ $rooms = *state* ]] && rooms+=" metadata produce group::tests"
    [[ $rooms = *metadata* ]] && rooms+=" produce"
    read -ra filters <<<"$(printf "%s:: " $rooms server api)"
    PLANTED=$name timeout "${SECONDS_MAX:-120}" "$built" --test-threads=8 "${filters[@]}" >"$out/$name" 2>&1 && end=0 || end=$?
    failed=$(sed -n 's/^test \(.*\) \.\.\. FAILED$/\1/p' "$out/$name" | sort)
    count=$(grep -c . <<<"$failed" || true)
    case $end in
    0) found=survivor survivors=$((survivors + 1)) ;;
    *) found="killed by $count: $(head -2 <<<"$failed" | paste -sd' ')" ;;
    esac
    [ $end = 124 ] && found+=" (unfinished)"
    printf '%-26s %s\n' "$name" "$found"
done
echo "$survivors of ${#names[@]} survive the unit tests"
