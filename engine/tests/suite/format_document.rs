//! The tables of `docs/wal-format.md` that describe the engine's part, rendered from the constants.
//! `UPDATE_GOLDEN=1` rewrites them.

use std::fmt::Write as _;
use std::path::PathBuf;

use kami_engine::record::{Field, GROUNDS_FIELDS, GROUP_FIELDS, HEAD_FIELDS, Kind, TAIL_FIELDS};
use kami_engine::{
    BACKUP_FILE_FIELDS, BACKUP_HEADER_FIELDS, BATCH_HEADER_FIELDS, Flags, Lifecycle, SNAPSHOT_HEADER_FIELDS,
};

fn fields(table: &[Field]) -> String {
    let mut text = String::from("| Offset | Bytes | Field | Meaning |\n|---|---|---|---|\n");
    for (offset, bytes, name, meaning) in table {
        writeln!(text, "| {offset} | {bytes} | {name} | {meaning} |").unwrap();
    }
    text
}

fn tails() -> String {
    let mut text = String::from("| Kind | Offset | Bytes | Field | Meaning |\n|---|---|---|---|---|\n");
    for (kinds, table) in TAIL_FIELDS {
        for (offset, bytes, name, meaning) in *table {
            let bytes = if *bytes == 0 { "…".to_owned() } else { bytes.to_string() };
            writeln!(text, "| {kinds} | {offset} | {bytes} | {name} | {meaning} |").unwrap();
        }
    }
    text
}

fn kinds() -> String {
    let mut text = String::from("| Number | Kind | Meaning |\n|---|---|---|\n");
    for kind in Kind::ALL {
        writeln!(text, "| {} | {} | {} |", kind.number(), kind.name(), kind.meaning()).unwrap();
    }
    text
}

fn lifecycles() -> String {
    let mut text = String::from("| Number | Lifecycle |\n|---|---|\n");
    for lifecycle in Lifecycle::ALL {
        writeln!(text, "| {} | {} |", lifecycle as u8, lifecycle.name()).unwrap();
    }
    text
}

fn flags() -> String {
    let mut text = String::from("| Bit | Flag |\n|---|---|\n");
    for (flag, name) in Flags::NAMED {
        writeln!(text, "| {} | {name} |", flag.bits().trailing_zeros()).unwrap();
    }
    text
}

#[test]
fn the_tables_of_the_document_are_those_of_the_code() {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs/wal-format.md");
    let document = std::fs::read_to_string(&path).unwrap();
    let tables = [
        ("group-head", fields(GROUP_FIELDS)),
        ("entry-head", fields(HEAD_FIELDS)),
        ("entry-tails", tails()),
        ("grounds", fields(GROUNDS_FIELDS)),
        ("kinds", kinds()),
        ("lifecycles", lifecycles()),
        ("flags", flags()),
        ("batch-header", fields(BATCH_HEADER_FIELDS)),
        ("snapshot-header", fields(SNAPSHOT_HEADER_FIELDS)),
        ("backup-header", fields(BACKUP_HEADER_FIELDS)),
        ("backup-file", fields(BACKUP_FILE_FIELDS)),
    ];
    let mut rendered = document.clone();
    for (name, table) in tables {
        let marker = format!("<!-- table: {name} -->\n");
        let from = rendered.find(&marker).unwrap_or_else(|| panic!("no table {name}")) + marker.len();
        let to = from + rendered[from..].find("<!-- /table -->").expect("a table has an end");
        rendered.replace_range(from..to, &table);
    }
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, rendered).unwrap();
        return;
    }
    for (line, (was, is)) in document.lines().zip(rendered.lines()).enumerate() {
        assert_eq!(was, is, "docs/wal-format.md line {} differs", line + 1);
    }
    assert_eq!(document, rendered);
}

/// A layout table without gaps or overlaps is one that can be implemented from.
#[test]
fn fields_follow_each_other() {
    let total = |table: &[Field], from: usize| {
        table.iter().fold(from, |end, (offset, bytes, name, _)| {
            assert_eq!(*offset, end, "{name}");
            end + bytes
        })
    };
    assert_eq!(total(GROUP_FIELDS, 0), 16);
    assert_eq!(total(HEAD_FIELDS, 0), 64);
    assert_eq!(total(GROUNDS_FIELDS, 0), 21);
    assert_eq!(total(BATCH_HEADER_FIELDS, 0), 4096);
    assert_eq!(total(SNAPSHOT_HEADER_FIELDS, 0), 4096);
    assert_eq!(total(BACKUP_HEADER_FIELDS, 0), 128);
    assert_eq!(total(BACKUP_FILE_FIELDS, 0), 64);
    for (_, table) in TAIL_FIELDS {
        total(table, 64);
    }
}
