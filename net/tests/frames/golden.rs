//! The exact bytes of every frame, one named field a line, as `tests/golden/<name>.hex`.
//!
//! The field names come from walking the published layouts over the encoded bytes, so a layout that
//! does not describe the bytes fails here too. `UPDATE_GOLDEN=1` rewrites the files.

use std::fmt::Write as _;
use std::path::PathBuf;

use kami_engine::{Grounds, ProposalId};
use kami_net::frame::reply::{self, Answer};
use kami_net::frame::request::{self, Request};
use kami_net::frame::{Field, HEADS, Opcode, REQUEST_HEAD_BYTES, RequestFlags, RequestHead};

use crate::samples;

#[test]
fn requests_keep_their_bytes() {
    for (opcode, frame) in samples::requests() {
        let layout = Request::layout(opcode).unwrap();
        let text = walk(&frame, 0, layout);
        check(&format!("request_{}", opcode.code().to_lowercase()), &text);
        // And the other way: the file's bytes are read as the same request.
        let bytes = bytes_of(&text);
        let head = RequestHead::decode(&bytes).unwrap();
        let body = Request::decode(opcode, &bytes[REQUEST_HEAD_BYTES..]).unwrap();
        let mut again = bytes::BytesMut::new();
        body.encode(&head, &mut again).unwrap();
        assert_eq!(again, frame, "{}", opcode.code());
    }
}

/// With its grounds before the body.
#[test]
fn a_request_on_grounds_keeps_its_bytes() {
    let (_, frame) =
        samples::requests().into_iter().find(|(opcode, _)| *opcode == Opcode::BatchFreeze).unwrap();
    let head = RequestHead::decode(&frame).unwrap();
    let request = Request::decode(Opcode::BatchFreeze, &frame[REQUEST_HEAD_BYTES..]).unwrap();
    let grounds =
        Grounds { why: "supplier's recall".to_owned(), approval: Some(ProposalId(0x51)), approver: None };
    let mut on_grounds = bytes::BytesMut::new();
    request.encode_on(&head, Some(&grounds), &mut on_grounds).unwrap();
    let mut walker = Walker { rest: &on_grounds, text: String::new(), values: Vec::new() };
    walker.fields("", HEADS[0].1);
    walker.fields("grounds.", find("GROUNDS"));
    walker.fields("", find("ONE_BATCH"));
    assert!(walker.rest.is_empty());
    check("request_on_grounds", &walker.text);
    let head = RequestHead::decode(&on_grounds).unwrap();
    assert_eq!(head.flags, RequestFlags::GROUNDS);
    let decoded = Request::decode_on(Opcode::BatchFreeze, &on_grounds[REQUEST_HEAD_BYTES..]).unwrap();
    assert_eq!(decoded, (Box::new(grounds), request));
}

#[test]
fn replies_keep_their_bytes() {
    for ((name, frame), (head, body)) in samples::replies().into_iter().zip(samples::replies_decoded()) {
        let text = walk(&frame, 1, name);
        check(&format!("reply_{}", name.to_lowercase()), &text);
        assert_eq!(Answer::decode(&bytes_of(&text)).unwrap(), Answer { head, body }, "{name}");
    }
}

/// The frame as lines of `field: hex`. Panics if the layouts do not account for every byte.
pub fn walk(frame: &[u8], head: usize, layout: &str) -> String {
    let mut walker = Walker { rest: frame, text: String::new(), values: Vec::new() };
    walker.fields("", HEADS[head].1);
    if !layout.is_empty() && layout != "NONE" {
        walker.fields("", find(layout));
    }
    assert!(walker.rest.is_empty(), "{layout}: {} bytes are in no field", walker.rest.len());
    walker.text
}

fn find(layout: &str) -> &'static [Field] {
    let all = [request::layouts(), reply::layouts()].concat();
    all.into_iter().find(|(name, _)| *name == layout).unwrap_or_else(|| panic!("no layout {layout}")).1
}

struct Walker<'a> {
    rest: &'a [u8],
    text: String,
    /// Small integers seen so far, by field name: counts and column bits.
    values: Vec<(&'static str, u64)>,
}

impl Walker<'_> {
    fn fields(&mut self, prefix: &str, fields: &'static [Field]) {
        for field in fields {
            self.field(prefix, field.name, field.kind);
        }
    }

    fn field(&mut self, prefix: &str, name: &'static str, kind: &'static str) {
        if let Some((kind, mask)) = kind.split_once(" if columns & ") {
            if self.value("columns") & mask.parse::<u64>().unwrap() != 0 {
                self.field(prefix, name, kind);
            }
            return;
        }
        if kind == "body of opcode" {
            let opcode = Opcode::from_number(self.value("opcode") as u16).unwrap();
            return self.fields(&format!("{prefix}{name}."), find(Request::layout(opcode).unwrap()));
        }
        if let Some(row) = kind.strip_suffix(" × count") {
            for i in 0..self.value("count") {
                self.fields(&format!("{prefix}{name}[{i}]."), find(row));
            }
            return;
        }
        if let Some(row) =
            kind.strip_prefix("list8 of ").filter(|row| *row == "bytes8" || width(row, self.rest).is_none())
        {
            let count = self.rest[0];
            self.field(prefix, name, "u8");
            for i in 0..count {
                match row {
                    "bytes8" => self.field(prefix, name, row),
                    _ => self.fields(&format!("{prefix}{name}[{i}]."), find(row)),
                }
            }
            return;
        }
        let Some(bytes) = width(kind, self.rest) else {
            return self.fields(&format!("{prefix}{name}."), find(kind));
        };
        let (value, rest) = self.rest.split_at(bytes);
        self.rest = rest;
        if bytes <= 8 {
            let number = value.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte));
            self.values.push((name, number));
        }
        write!(self.text, "{prefix}{name}: ").unwrap();
        for byte in value {
            write!(self.text, "{byte:02x}").unwrap();
        }
        self.text.push('\n');
    }

    fn value(&self, name: &str) -> u64 {
        self.values.iter().rev().find(|(n, _)| *n == name).unwrap().1
    }
}

/// How many bytes a value of this type has; `None` if the type is a layout.
fn width(kind: &str, bytes: &[u8]) -> Option<usize> {
    if let Some((item, count)) = kind.strip_suffix(']').and_then(|kind| kind.split_once('[')) {
        return Some(width(item, bytes)? * count.parse::<usize>().unwrap());
    }
    Some(match kind {
        "u8" => 1,
        "u16" | "i16" => 2,
        "u32" | "i32" => 4,
        "u64" | "i64" => 8,
        "u128" => 16,
        "bytes8" | "text8" => 1 + usize::from(bytes[0]),
        "bytes32" => 4 + u32::from_le_bytes(bytes[..4].try_into().unwrap()) as usize,
        "list8 of u32" => 1 + 4 * usize::from(bytes[0]),
        _ => return None,
    })
}

fn bytes_of(text: &str) -> Vec<u8> {
    let hex: String = text.lines().map(|line| line.split_once(": ").unwrap().1).collect();
    (0..hex.len()).step_by(2).map(|i| u8::from_str_radix(&hex[i..i + 2], 16).unwrap()).collect()
}

fn check(name: &str, text: &str) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("tests/golden/{name}.hex"));
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, text).unwrap();
    }
    let golden = std::fs::read_to_string(&path)
        .unwrap_or_else(|e| panic!("{}: {e}; UPDATE_GOLDEN=1 writes it", path.display()));
    assert_eq!(golden, text, "{name}: the bytes changed; clients in the field would break");
}
