//! The bytes of the format, pinned: each record kind as readable hex, and the tables of the document
//! as the constants render them. `UPDATE_GOLDEN=1` rewrites both; a released format is never rewritten.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use kami_wal::format::{
    CHAIN_PAYLOAD, Field, RECORD_HEAD, RECORD_KINDS, SEGMENT_HEAD, SEGMENT_PAYLOAD, SLOT_OFFSETS,
};
use kami_wal::{RecordKind, SimMedium, SimMode, verify};

use crate::world::{append, open, options};

fn compare(path: &Path, now: &str) {
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, now).unwrap();
        return;
    }
    let pinned = std::fs::read_to_string(path).unwrap_or_default();
    for (line, (was, is)) in pinned.lines().zip(now.lines()).enumerate() {
        assert_eq!(was, is, "{} line {} differs", path.display(), line + 1);
    }
    assert!(pinned == now, "{} differs", path.display());
}

/// One named field a line; zeros at the end of a filling payload are only counted.
fn render(fields: &[Field], bytes: &[u8], prefix: &str, text: &mut String) {
    for field in fields {
        let hex = hex(&bytes[field.offset..field.offset + field.bytes]);
        writeln!(text, "{prefix}{:<12} {hex}", field.name).unwrap();
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

fn render_record(bytes: &[u8], kind: RecordKind) -> String {
    let mut text = String::new();
    render(RECORD_HEAD, bytes, "", &mut text);
    let payload = &bytes[48..];
    match kind {
        RecordKind::Segment => render(SEGMENT_PAYLOAD, payload, "payload.", &mut text),
        RecordKind::Chain => render(CHAIN_PAYLOAD, payload, "payload.", &mut text),
        _ if payload.iter().all(|byte| *byte == 0) => {
            writeln!(text, "payload      {} zeros", payload.len()).unwrap();
        }
        _ => writeln!(text, "payload      {}", hex(payload)).unwrap(),
    }
    text
}

/// A log whose bytes are the same on every machine: one record of every kind.
#[test]
fn every_record_kind_has_the_pinned_bytes() {
    let medium = SimMedium::new(1, SimMode::Direct);
    let (wal, _) = open(&medium).unwrap();
    wal.prepare().unwrap();
    append(&wal, b"opaque payload, and 0x00 to 0xff");
    wal.commit().unwrap();
    let slot = medium.bytes("log/0000000001.segment")[SLOT_OFFSETS[1] as usize..][..4096].to_vec();
    for _ in 0..6 {
        append(&wal, &[0x11; 8000]);
        wal.commit().unwrap();
    }
    wal.close().unwrap();

    let golden = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let mut text = String::new();
    render(SEGMENT_HEAD, &medium.bytes("log/0000000001.segment"), "", &mut text);
    compare(&golden.join("segment-head.hex"), &text);
    let head = kami_wal::RecordHead::decode(&slot).unwrap();
    compare(&golden.join("slot.hex"), &render_record(&slot[..head.length as usize], RecordKind::Slot));

    let mut seen = Vec::new();
    let mut second_segment = String::new();
    verify(&medium, &options(), &mut |record| {
        let bytes = medium.bytes(&format!("log/{:010}.segment", record.lsn.bytes() / 65536));
        let at = (record.lsn.bytes() % 65536) as usize;
        let text =
            render_record(&bytes[at..at + (record.end.bytes() - record.lsn.bytes()) as usize], record.kind);
        if record.kind == RecordKind::Segment && seen.contains(&record.kind) {
            second_segment.clone_from(&text);
        }
        if !seen.contains(&record.kind) {
            seen.push(record.kind);
            let name = RECORD_KINDS.iter().find(|(kind, ..)| *kind == record.kind).unwrap().1;
            compare(&golden.join(format!("{}.hex", name.to_lowercase())), &text);
        }
    })
    .unwrap();
    compare(&golden.join("segment-after-rotation.hex"), &second_segment);
    assert_eq!(seen.len() + 1, RECORD_KINDS.len(), "every kind but SLOT lies in the log");
}

fn field_table(fields: &[Field]) -> String {
    let mut text = String::from("| Offset | Bytes | Field | Type | Meaning |\n|---|---|---|---|---|\n");
    for Field { offset, bytes, name, kind, meaning } in fields {
        writeln!(text, "| {offset} | {bytes} | `{name}` | `{kind}` | {meaning} |").unwrap();
    }
    text
}

#[test]
fn the_documents_tables_are_those_of_the_constants() {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs/wal-format.md");
    let mut document = std::fs::read_to_string(&path).unwrap();
    let kinds = RECORD_KINDS.iter().fold(
        String::from("| Number | Kind | What it is |\n|---|---|---|\n"),
        |mut text, (kind, name, meaning)| {
            writeln!(text, "| {} | {name} | {meaning} |", *kind as u8).unwrap();
            text
        },
    );
    for (name, table) in [
        ("segment-head", field_table(SEGMENT_HEAD)),
        ("record-header", field_table(RECORD_HEAD)),
        ("record-kinds", kinds),
        ("segment-payload", field_table(SEGMENT_PAYLOAD)),
        ("chain-payload", field_table(CHAIN_PAYLOAD)),
    ] {
        let begin = format!("<!-- table: {name} -->\n");
        let from = document.find(&begin).unwrap_or_else(|| panic!("no table {name}")) + begin.len();
        let to = from + document[from..].find("<!-- /table -->").expect("the table ends");
        document.replace_range(from..to, &table);
    }
    compare(&path, &document);
}
