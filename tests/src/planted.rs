//! The known mistakes, each with the tests that must notice it.
//!
//! All of them are in one build, made with the feature `planted` of `kami-wal`; which one is made, the variable
//! `KAMI_PLANTED` says. So to plant them all costs three builds (one more for loom, the only one that can see what is
//! wrong with the order of memory, and one for schedules by shuttle) and not two dozen.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Context;

use crate::binaries::{Binaries, Build, Test, engine, loom, net, process, wal, whole};

/// A mistake.
#[derive(Clone, Copy, Debug)]
pub struct Mistake {
    /// What `planted` is asked for.
    pub name: &'static str,
    /// What is done wrong.
    pub what: &'static str,
    /// The tests each of which must fail then.
    pub caught_by: &'static [Test],
}

const fn mistake(name: &'static str, what: &'static str, caught_by: &'static [Test]) -> Mistake {
    Mistake { name, what, caught_by }
}

/// All of them, from the disk upwards.
pub const MISTAKES: &[Mistake] = &[
    mistake(
        "ack-before-sync",
        "`durable_end` moves before the write",
        &[
            wal("power_cut::nothing_acknowledged_is_lost_direct"),
            wal("power_cut::nothing_acknowledged_is_lost_mapped"),
            wal("failing_sync::after_a_failed_sync_nothing_is_acknowledged"),
            whole("model::runs::direct"),
            whole("history::every_history_can_be_explained"),
            whole("schedules::log::what_is_acknowledged_survives_in_any_schedule"),
        ],
    ),
    mistake(
        "retry-after-failed-sync",
        "a failed write is tried again and believed",
        &[
            wal("failing_sync::after_a_failed_sync_nothing_is_acknowledged"),
            whole("storage::after_a_failed_sync_nothing_is_acknowledged_and_nothing_is_lost"),
        ],
    ),
    mistake(
        "believe-the-page-cache",
        "a start believes what is read, though a write-back may have failed",
        &[wal("failing_sync::the_start_after_a_failed_sync_believes_nothing_the_device_does_not_have")],
    ),
    mistake(
        "rewrite-acknowledged-block",
        "small commits go to one slot, over the last acknowledged one",
        &[
            wal("power_cut::nothing_acknowledged_is_lost_direct"),
            wal("power_cut::nothing_acknowledged_is_lost_mapped"),
            whole("model::runs::direct"),
        ],
    ),
    mistake(
        "ignore-durable-end",
        "a break below the durable end passes for a torn tail",
        &[
            wal("recovery_table::row_4_a_hole_below_the_durable_end_is_refused"),
            wal("damage::a_flipped_bit_anywhere_is_refused_or_harmless"),
            whole("planted::damage_below_the_durable_end_is_refused"),
        ],
    ),
    mistake(
        "throw-the-tail-away",
        "what recovery cuts off is not put aside first",
        &[wal("recovery_table::row_2_damaged_bytes_at_the_break_are_cut_and_kept_aside")],
    ),
    mistake(
        "reuse-epoch",
        "a start goes on in the epoch of the last one",
        &[wal("recovery_table::row_7_every_start_has_an_epoch_of_its_own")],
    ),
    mistake(
        "relaxed-publication",
        "the tail is published with a relaxed store",
        &[loom("loom_models::loom_bytes_below_the_published_tail_are_complete")],
    ),
    mistake(
        "wake-under-the-lock",
        "an append wakes the preparer while it holds the lock that the preparer looks through",
        &[
            loom("loom_models::loom_a_rotation_wakes_the_preparer"),
            whole("schedules::log::what_is_acknowledged_survives_in_any_schedule"),
        ],
    ),
    mistake(
        "snapshot-before-durable",
        "a snapshot gets its name before the log holds what it knows",
        &[whole("planted::a_snapshot_waits_for_what_it_holds"), whole("model::runs::direct")],
    ),
    mistake(
        "believe-a-snapshot",
        "a snapshot's checksum is not looked at",
        &[whole("planted::a_damaged_snapshot_is_not_believed")],
    ),
    mistake(
        "commit-before-its-file",
        "an import is in the log before its file is durable",
        &[whole("planted::an_import_waits_for_its_file"), whole("model::runs::direct")],
    ),
    mistake(
        "refusals-do-not-wait",
        "refusals leave before what they rest on is durable",
        &[whole("planted::a_refusal_waits_for_what_it_rests_on")],
    ),
    mistake(
        "reply-before-durable",
        "replies leave the server without waiting for the log",
        &[net("durability::a_reply_waits_for_the_disk_whatever_it_says")],
    ),
    mistake(
        "reveal-before-durable",
        "codes are decrypted before the sale is durable",
        &[whole("planted::codes_wait_for_their_reveal")],
    ),
    mistake(
        "reveal-to-anyone",
        "codes are given to whoever asks for the order",
        &[whole("planted::codes_are_their_buyers")],
    ),
    mistake(
        "last-entry-only",
        "the request id is looked for in the card's last entry only",
        &[
            whole("planted::a_retry_is_recognised_behind_other_entries"),
            whole("history::every_history_can_be_explained"),
        ],
    ),
    mistake(
        "apply-retry-twice",
        "a retry is executed",
        &[
            whole("planted::a_retry_has_one_effect"),
            whole("history::every_history_can_be_explained"),
            whole("schedules::engine::every_history_can_be_explained"),
            process("history::every_history_of_a_killed_server_can_be_explained"),
        ],
    ),
    mistake(
        "anybodys-retry",
        "whoever knows an id gets the reply of the one who asked",
        &[whole("planted::a_retry_is_only_its_askers")],
    ),
    mistake(
        "ignore-tombstones",
        "a late original redeems behind the till's back",
        &[whole("planted::a_late_original_is_refused"), whole("history::every_history_can_be_explained")],
    ),
    mistake(
        "anybodys-reversal",
        "any merchant takes back what another redeemed",
        &[whole("planted::only_its_merchant_takes_a_redemption_back")],
    ),
    mistake(
        "card-twice-in-a-turn",
        "a card that comes up twice in a turn is decided on its old state",
        &[whole("planted::two_of_a_turn_are_decided_one_after_the_other"), whole("model::runs::direct")],
    ),
    mistake(
        "expired-by-running-clock",
        "expiry is decided on a time that is not in the log",
        &[whole("planted::expiry_rests_on_a_written_tick")],
    ),
    mistake(
        "time-follows-the-wall-clock",
        "engine time goes back when somebody sets the clock back",
        &[
            engine("clock::tests::engine_time_never_goes_back"),
            whole("planted::engine_time_stays_when_the_wall_clock_is_set_back"),
        ],
    ),
    mistake(
        "wall-clock-in-replay",
        "replay takes the wall clock for the time of what it replays",
        &[whole("planted::replay_knows_only_the_time_that_is_written")],
    ),
    mistake(
        "limit-outside-the-lock",
        "a limit is asked, the lock let go, and then the order made",
        &[whole("threads::races_sell_no_more_than_a_limit_allows")],
    ),
    mistake(
        "unbalanced-legs",
        "money legs need not sum to zero",
        &[engine("accounts::tests::what_stands_against_legs_is_told_in_order"), whole("model::runs::direct")],
    ),
    mistake(
        "spend-what-is-held",
        "money that is set aside for an order is spent by another",
        &[whole("model::runs::direct")],
    ),
    mistake(
        "accept-0rtt",
        "the server gives out tickets and takes early data",
        &[net("hostile::early_data_is_not_accepted")],
    ),
];

/// Makes each of the mistakes named, or all, and tells whether all were caught by all their tests.
///
/// # Errors
/// If something does not build, or a name is none.
pub fn plant(names: &[String]) -> anyhow::Result<bool> {
    let chosen =
        MISTAKES.iter().filter(|mistake| names.is_empty() || names.iter().any(|name| name == mistake.name));
    let chosen: Vec<&Mistake> = chosen.collect();
    anyhow::ensure!(!chosen.is_empty(), "no such mistake is known: `campaign list` names them");
    let tests = || chosen.iter().flat_map(|mistake| mistake.caught_by);
    let features = Some("kami-wal/planted");
    let build = |build: Build, is_wanted: fn(&Test) -> bool| {
        let packages: BTreeSet<&str> =
            tests().filter(|test| is_wanted(test)).map(|test| test.package).collect();
        match packages.is_empty() {
            true => Ok(Binaries::default()),
            false => Build { packages: packages.into_iter().collect(), features, ..build }.run(),
        }
    };
    let plain = build(Build::default(), |test| !test.is_loom() && !test.is_scheduled())?;
    let loom = build(Build { loom: true, ..Build::default() }, Test::is_loom)?;
    let scheduled = build(Build { shuttle: true, ..Build::default() }, Test::is_scheduled)?;
    let (mut caught, mut missed) = (0, 0);
    let mut sound = BTreeMap::new();
    for mistake in chosen {
        for test in mistake.caught_by {
            let binaries = match test {
                test if test.is_loom() => &loom,
                test if test.is_scheduled() => &scheduled,
                _ => &plain,
            };
            let run = |planted: &str| {
                let mut command = binaries.test(test)?;
                command.env("KAMI_PLANTED", planted);
                command.output().context("a test cannot be started")
            };
            let output = run(mistake.name)?;
            // Without the mistake it must pass, or its failure says nothing.
            let ran = String::from_utf8_lossy(&output.stdout).contains("running 1 test");
            let sound = match sound.get(test.name) {
                Some(sound) => *sound,
                None => *sound.entry(test.name).or_insert(run("")?.status.success()),
            };
            let verdict = match (ran, sound, output.status.success()) {
                (false, ..) => "NO SUCH TEST",
                (_, false, _) => "NOT SOUND",
                (.., true) => "NOT CAUGHT",
                _ => "caught",
            };
            *if verdict == "caught" { &mut caught } else { &mut missed } += 1;
            println!("{verdict:12} {:28} by {}", mistake.name, test.name);
        }
    }
    println!("{caught} caught, {missed} missed");
    Ok(missed == 0)
}
