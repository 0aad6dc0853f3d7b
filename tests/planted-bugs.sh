#!/bin/sh
# Plants each known bug in turn and demands that the test named beside it fails.
# A bug that no test notices ends this with status 1.
set -u
cd "$(dirname "$0")/.." || exit 1
missed=0
while read -r bug test; do
    [ -n "$bug" ] || continue
    if ! cargo test -q -p kami-tests --features "$bug" --no-run >/dev/null 2>&1; then
        echo "NOT BUILT   $bug"
        missed=1
        continue
    fi
    output=$(cargo test -q -p kami-tests --features "$bug" --test tests -- --exact "$test" 2>&1)
    status=$?
    if echo "$output" | grep -q "running 1 test" && [ "$status" -ne 0 ]; then
        echo "caught      $bug by $test"
    else
        echo "NOT CAUGHT  $bug by $test"
        missed=1
    fi
done <<BUGS
kami-engine/bug-last-entry-only            planted::a_retry_is_recognised_behind_other_entries
kami-engine/bug-expired-by-running-clock   planted::expiry_rests_on_a_written_tick
kami-engine/bug-refusals-do-not-wait       planted::a_refusal_waits_for_what_it_rests_on
kami-engine/bug-reveal-before-durable      planted::codes_wait_for_their_reveal
kami-engine/bug-apply-retry-twice          planted::a_retry_has_one_effect
kami-engine/bug-ignore-tombstones          planted::a_late_original_is_refused
kami-wal/bug-ack-before-sync               model::runs::direct
kami-wal/bug-retry-after-failed-sync        storage::after_a_failed_sync_nothing_is_acknowledged_and_nothing_is_lost
kami-wal/bug-rewrite-acknowledged-block     model::runs::direct
kami-wal/bug-ignore-durable-end            planted::damage_below_the_durable_end_is_refused
BUGS
exit $missed
