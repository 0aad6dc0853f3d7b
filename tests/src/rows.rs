//! The rows of the table in `docs/testing.md` that can be run at any scale.

use crate::binaries::{Test, net, process, wal, whole};

/// A row.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// What the command line calls it.
    pub name: &'static str,
    /// What is broken, and what must hold.
    pub what: &'static str,
    /// What runs it.
    pub work: Work,
}

/// What a row runs, and what its scale is counted in.
#[derive(Clone, Copy, Debug)]
pub enum Work {
    /// Tests that run over seeds: each seed is a life of its own, and the same every time.
    Seeds(&'static [Test]),
    /// A test whose variable says how many of something it does; with the most that one process does at a time.
    Number {
        /// The test.
        test: Test,
        /// Its variable.
        variable: &'static str,
        /// The most for one process.
        most: u64,
    },
    /// Tests that are run as they are, with variables; again and again if there is time.
    Whole(&'static [Test], &'static [(&'static str, &'static str)]),
    /// All loom models of a library, by a part of their names.
    Loom,
    /// The libraries' own tests under AddressSanitizer.
    Address,
    /// A target of `fuzz/`, from its corpus on.
    Fuzz(&'static str),
}

/// All rows.
pub const ROWS: &[Row] = &[
    Row {
        name: "wal-power-cuts",
        what: "the log: power cuts at random, torn, reordered, garbled and unreadable sectors, cuts during recovery",
        work: Work::Seeds(&[
            wal("power_cut::nothing_acknowledged_is_lost_direct"),
            wal("power_cut::nothing_acknowledged_is_lost_mapped"),
        ]),
    },
    Row {
        name: "wal-threads",
        what: "the log: threads append while the power is cut",
        work: Work::Seeds(&[
            wal("threads::what_every_thread_was_promised_survives_a_power_cut"),
            wal("threads::a_credit_is_good_whatever_happens_meanwhile"),
        ]),
    },
    Row {
        name: "wal-readers",
        what: "the log: read beside its writer, followed by cursors, through every crash",
        work: Work::Seeds(&[
            wal("in_use::what_is_read_survives_every_crash"),
            wal("cursor::what_is_durable_is_read_once_and_in_order"),
        ]),
    },
    Row {
        name: "wal-damage",
        what: "the log: flipped bits, zeroed and misdirected sectors; refused, or nothing is missing",
        work: Work::Seeds(&[wal("damage::opening_a_damaged_log_refuses_or_gives_everything")]),
    },
    Row {
        name: "wal-every-bit",
        what: "the log: every bit of a log of 128 KiB flipped, one after the other, and a bit of every byte of a log of 1 MiB",
        work: Work::Whole(
            &[wal("damage::a_flipped_bit_anywhere_is_refused_or_harmless")],
            &[("KAMI_LONG", "1")],
        ),
    },
    Row {
        name: "wal-every-operation",
        what: "the log: the power cut at every operation of a script, and at every operation of each recovery from that",
        work: Work::Whole(
            &[
                wal("crash_points::a_cut_at_every_operation_of_a_new_log_loses_nothing"),
                wal("crash_points::a_cut_at_every_operation_of_every_recovery_loses_nothing"),
                wal("crash_points::a_cut_at_every_operation_of_a_log_that_is_continued_loses_nothing"),
            ],
            &[],
        ),
    },
    Row {
        name: "model-direct",
        what: "whole lives of an engine against the oracle: power cuts, kills, clocks, imports, snapshots; direct writes",
        work: Work::Seeds(&[whole("model::runs::direct")]),
    },
    Row {
        name: "model-mapped",
        what: "the same with pages that reach the disk when they like",
        work: Work::Seeds(&[whole("model::runs::mapped")]),
    },
    Row {
        name: "backup",
        what: "backups at any moment of random lives, restored to any point, against the oracle",
        work: Work::Seeds(&[whole("model::backup::any_point_of_any_backup_is_a_state_that_was")]),
    },
    Row {
        name: "failing-syncs",
        what: "the Nth sync of an engine's life fails: nothing is acknowledged any more, nothing acknowledged is lost",
        work: Work::Seeds(&[whole(
            "storage::after_a_failed_sync_nothing_is_acknowledged_and_nothing_is_lost",
        )]),
    },
    Row {
        name: "histories",
        what: "clients racing through power cuts; every card's history explained, cards and money conserved",
        work: Work::Seeds(&[whole("history::every_history_can_be_explained")]),
    },
    Row {
        name: "server-histories",
        what: "clients racing over QUIC while the real server is killed again and again, also as it starts; the same judgement",
        work: Work::Seeds(&[process("history::every_history_of_a_killed_server_can_be_explained")]),
    },
    Row {
        name: "races",
        what: "threads that sell, redeem, replace and transfer the same cards on a real disk",
        work: Work::Whole(
            &[
                whole("threads::races_sell_each_order_and_redeem_each_card_once"),
                whole("threads::races_for_pairs_of_cards_make_and_lose_nothing"),
                whole("threads::races_sell_no_more_than_a_limit_allows"),
            ],
            &[],
        ),
    },
    Row {
        name: "kills",
        what: "SIGKILL of the real server under QUIC load: every acknowledged outcome is there, retries have one effect",
        work: Work::Number {
            test: process("kill::a_killed_server_keeps_every_outcome_that_it_acknowledged"),
            variable: "KAMI_ROUNDS",
            most: 20,
        },
    },
    Row {
        name: "crowd",
        what: "hostile peers around honest tills: all honest commands answered, memory bounded",
        work: Work::Number {
            test: process("crowd::honest_tills_are_served_in_a_hostile_crowd"),
            variable: "KAMI_HOSTILE",
            most: 1000,
        },
    },
    Row {
        name: "full-disk",
        what: "ext4 on a loop device runs full under the real server: changes refused, reads answered, healed; killed while full",
        work: Work::Number {
            test: process("full_disk::a_full_disk_refuses_changes_answers_reads_and_heals"),
            variable: "KAMI_FULL",
            most: 4,
        },
    },
    Row {
        name: "clock-jumps",
        what: "libfaketime moves the wall clock of the real server, between starts and under way: engine time never goes back",
        work: Work::Number {
            test: process("clock::engine_time_never_goes_back_however_the_clock_jumps"),
            variable: "KAMI_JUMPS",
            most: 100,
        },
    },
    Row {
        name: "reply-times",
        what: "times of replies to unknown, unsold and wrong: no kind takes longer than another; to be run with --release",
        work: Work::Number {
            test: process("reply_times::codes_that_are_refused_alike_take_alike"),
            variable: "KAMI_REPLIES",
            most: 100_000,
        },
    },
    Row {
        name: "lossy-network",
        what: "datagrams lost, doubled, delayed and overtaken, ports changed: every order and redemption has one effect",
        work: Work::Seeds(&[net("lossy::a_bad_network_does_nothing_twice")]),
    },
    Row {
        name: "loom",
        what: "every interleaving of the lock-free parts of log and engine",
        work: Work::Loom,
    },
    Row {
        name: "schedules",
        what: "the log with its threads, and whole engines with clients, snapshots and imports, in schedules that seeds choose",
        work: Work::Seeds(&[
            whole("schedules::log::what_is_acknowledged_survives_in_any_schedule"),
            whole("schedules::engine::every_history_can_be_explained"),
        ]),
    },
    Row {
        name: "address",
        what: "AddressSanitizer under the own tests of log and engine, where all `unsafe` is: mappings, direct memory, epoch pointers",
        work: Work::Address,
    },
    Row {
        name: "fuzz-frame",
        what: "arbitrary bytes from the network: splitter, requests, replies; what is decoded encodes to the same",
        work: Work::Fuzz("frame"),
    },
    Row {
        name: "fuzz-record",
        what: "arbitrary records and groups of entries, checksums put right",
        work: Work::Fuzz("record"),
    },
    Row {
        name: "fuzz-batch-file",
        what: "a batch's file with other bytes in it, under a whole store",
        work: Work::Fuzz("batch_file"),
    },
    Row {
        name: "fuzz-snapshot",
        what: "a snapshot with other bytes in it, under a whole store",
        work: Work::Fuzz("snapshot"),
    },
    Row {
        name: "fuzz-signed-note",
        what: "arbitrary notes, proofs and keys: parsed or refused, and never believed",
        work: Work::Fuzz("signed_note"),
    },
    Row {
        name: "fuzz-card-file",
        what: "arbitrary files of suppliers, text and worksheets: read twice to the same end, or refused",
        work: Work::Fuzz("card_file"),
    },
    Row {
        name: "fuzz-engine",
        what: "sequences of commands, commits, snapshots, kills and power cuts for a whole engine, against the rule of a card",
        work: Work::Fuzz("engine"),
    },
];
