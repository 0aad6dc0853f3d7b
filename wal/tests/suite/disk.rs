//! The real disk: locks, permissions, refusals. The directory lies in the build directory, which is not
//! a tmpfs on a machine that builds on disk; where it is, the flag lets the tests run.

use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;

use kami_wal::{CommitChoice, CommitPath, DiskError, DiskMedium, DiskOptions, Medium};

use crate::world::{append, open_with, options, payload};

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
