#!/bin/sh
# Plants each known bug in turn and demands that the test named beside it fails.
# A bug that no test notices ends this with status 1.
set -u
cd "$(dirname "$0")/.." || exit 1
missed=0
while read -r bug test; do
    [ -n "$bug" ] || continue
    output=$(cargo test -q -p kami-wal --features "bug-$bug" --test suite -- --exact "$test" 2>&1)
    status=$?
    if echo "$output" | grep -q "running 1 test" && [ "$status" -ne 0 ]; then
        echo "caught      bug-$bug by $test"
    else
        echo "NOT CAUGHT  bug-$bug by $test"
        missed=1
    fi
done <<BUGS
ack-before-sync             power_cut::nothing_acknowledged_is_lost_direct
ack-before-sync             power_cut::nothing_acknowledged_is_lost_mapped
ack-before-sync             failing_sync::after_a_failed_sync_nothing_is_acknowledged
ignore-durable-end          recovery_table::row_4_a_hole_below_the_durable_end_is_refused
ignore-durable-end          damage::a_flipped_bit_anywhere_is_refused_or_harmless
retry-after-failed-sync     failing_sync::after_a_failed_sync_nothing_is_acknowledged
rewrite-acknowledged-block  power_cut::nothing_acknowledged_is_lost_direct
rewrite-acknowledged-block  power_cut::nothing_acknowledged_is_lost_mapped
BUGS
exit $missed
