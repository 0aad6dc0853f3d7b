//! The real disk: locks, permissions, refusals. The directory lies in the build directory, which is not
//! a tmpfs on a machine that builds on disk; where it is, the flag lets the tests run.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::sync::Arc;

use kami_wal::{CommitChoice, CommitPath, DiskError, DiskMedium, DiskOptions, Medium};

use rustix::fs::{FallocateFlags, fallocate};

use crate::world::{SEGMENT_BYTES, append, open_with, options, payload};

fn unsafe_ok() -> DiskOptions {
    DiskOptions { unsafe_filesystem: true, ..DiskOptions::default() }
}

#[test]
fn a_second_opener_is_turned_away_and_told_by_whom() {
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let first = DiskMedium::open(directory.path(), unsafe_ok()).unwrap();
    match DiskMedium::open(directory.path(), unsafe_ok()) {
        Err(DiskError::InUse { pid, .. }) => assert_eq!(pid, Some(std::process::id())),
        other => panic!("{other:?}"),
    }
    drop(first);
    DiskMedium::open(directory.path(), unsafe_ok()).unwrap();
}

#[test]
fn nobody_else_may_read_the_files() {
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let store = directory.path().join("a/store");
    let medium = Arc::new(DiskMedium::open(&store, unsafe_ok()).unwrap());
    let (wal, _) = open_with(medium, options(), None).unwrap();
    wal.close().unwrap();
    let mode = |path: &str| std::fs::metadata(store.join(path)).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(""), 0o700);
    assert_eq!(mode("log"), 0o700);
    assert_eq!(mode("log/0000000001.segment"), 0o600);
    assert_eq!(mode("LOCK"), 0o600);
}

#[test]
fn a_file_system_in_memory_is_refused() {
    let Ok(directory) = tempfile::tempdir_in("/dev/shm") else {
        println!("NOT RUN: /dev/shm cannot be written");
        return;
    };
    match DiskMedium::open(directory.path(), DiskOptions::default()) {
        Err(DiskError::UnsafeFilesystem { filesystem, .. }) => assert_eq!(filesystem, "tmpfs"),
        other => panic!("{other:?}"),
    }
    let medium = DiskMedium::open(directory.path(), unsafe_ok()).unwrap();
    assert!(!medium.is_durable());
}

#[test]
fn a_missing_directory_is_not_made_for_a_tool() {
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let missing = directory.path().join("missing");
    let tool = DiskOptions { must_exist: true, ..unsafe_ok() };
    assert!(matches!(DiskMedium::open(&missing, tool), Err(DiskError::Io { .. })));
    assert!(!missing.exists());
}

#[test]
fn a_log_moves_between_the_commit_paths() {
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let mut history = Vec::new();
    for round in 0..4 {
        let choice = if round % 2 == 0 { CommitChoice::Auto } else { CommitChoice::Mapped };
        let disk = DiskOptions { commit_path: choice, ..unsafe_ok() };
        let medium = Arc::new(DiskMedium::open(directory.path(), disk).unwrap());
        if round % 2 == 1 {
            assert_eq!(medium.commit_path(), CommitPath::Mapped);
        }
        let (wal, kept) = open_with(medium, options(), None).unwrap();
        assert_eq!(kept, history);
        for index in 0..30 {
            wal.prepare().unwrap();
            history.push(append(&wal, &payload(round, index, 8 * (1 + index as usize * 40))));
            wal.commit().unwrap();
        }
        // Half the rounds end as a killed process does.
        if round < 2 { wal.close().unwrap() } else { drop(wal) }
    }
}

/// A start takes the segment that lies prepared, unless something speaks against it; the log is the same either way.
#[test]
fn a_prepared_segment_is_taken_if_all_of_it_is_allocated_and_blank() {
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let segment = |number: u64| directory.path().join(format!("log/{number:010}.segment"));
    let medium = || Arc::new(DiskMedium::open(directory.path(), unsafe_ok()).unwrap());
    let is_direct = medium().commit_path() == CommitPath::Direct;
    let mut history = Vec::new();
    let mut round = |number: u64, spoil: &dyn Fn(&std::fs::File)| {
        let (wal, kept) = open_with(medium(), options(), None).unwrap();
        assert_eq!(kept, history);
        history.push(append(&wal, &payload(1, number, 4000)));
        wal.commit().unwrap();
        wal.prepare().unwrap();
        drop(wal);
        let next = segment(number + 1);
        // Kept open, so that a new file cannot have its number.
        let before = std::fs::OpenOptions::new().write(true).open(&next).unwrap();
        spoil(&before);
        let (wal, kept) = open_with(medium(), options(), None).unwrap();
        assert_eq!(kept, history);
        drop(wal);
        let found = std::fs::metadata(&next).unwrap();
        assert!(!is_direct || SEGMENT_BYTES <= found.blocks() * 512, "it has holes");
        found.ino() == before.metadata().unwrap().ino()
    };
    assert_eq!(round(1, &|_| {}), is_direct);
    // The start that looked left a record in each of these, and took the next number.
    let hole = |file: &std::fs::File| {
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        fallocate(file, flags, 32 << 10, 16 << 10).unwrap();
    };
    assert!(!round(3, &hole), "a file with a hole was taken");
    let bytes =
        |file: &std::fs::File| std::os::unix::fs::FileExt::write_all_at(file, b"left", 40_000).unwrap();
    assert!(!round(5, &bytes), "a file that is not blank was taken");
    let head = |file: &std::fs::File| std::os::unix::fs::FileExt::write_all_at(file, &[0; 64], 0).unwrap();
    assert!(!round(7, &head), "a file without a header was taken");
    let named = |_: &std::fs::File| std::fs::hard_link(segment(10), directory.path().join("copy")).unwrap();
    assert!(!round(9, &named), "a file that a copy of the directory may share was taken");
}
