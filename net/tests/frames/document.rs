//! `docs/wire-protocol.md` against the constants: every table between `<!-- table: name -->` and
//! `<!-- end -->` is rendered here and compared. `UPDATE_GOLDEN=1` rewrites them.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;

use kami_engine::{Class, Flags, Lifecycle, Role, Status, record::Kind};
use kami_net::frame::opcode::SMALL_FRAME_BYTES_MAX;
use kami_net::frame::request::{self, BATCH_ITEMS_MAX};
use kami_net::frame::{
    BodyKind, CloseCode, FRAME_BYTES_MAX, Field, HEADS, Opcode, REPLY_HEAD_BYTES, REQUEST_HEAD_BYTES,
    Request, reply,
};

use kami_net::{Authority, MissLimits, ServerOptions};

use crate::samples;

#[test]
fn the_document_says_what_the_constants_say() {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs/wire-protocol.md");
    let written = std::fs::read_to_string(&path).unwrap();
    let mut rendered = String::new();
    let mut seen = Vec::new();
    let mut rest = written.as_str();
    while let Some(begin) = rest.find("<!-- table: ") {
        let name_end = begin + rest[begin..].find(" -->").unwrap();
        let name = &rest[begin + "<!-- table: ".len()..name_end];
        let end = name_end + rest[name_end..].find("<!-- end -->").expect("every table ends");
        write!(rendered, "{} -->\n{}", &rest[..name_end], table(name)).unwrap();
        seen.push(name.to_owned());
        rest = &rest[end..];
    }
    rendered.push_str(rest);
    for name in NAMES {
        assert!(seen.iter().any(|seen| seen == name), "the document has no table {name}");
    }
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, &rendered).unwrap();
    } else {
        assert!(
            rendered == written,
            "docs/wire-protocol.md differs from the code; UPDATE_GOLDEN=1 rewrites it"
        );
    }
}

const NAMES: [&str; 17] = [
    "limits",
    "limits of a server",
    "roles",
    "budgets",
    "request head",
    "reply head",
    "opcodes",
    "opcodes of later versions",
    "request bodies",
    "reply body kinds",
    "reply bodies",
    "statuses",
    "close codes",
    "states",
    "flags",
    "events",
    "vectors",
];

fn table(name: &str) -> String {
    match name {
        "limits" => limits(),
        "limits of a server" => server_limits(),
        "roles" => role_table(),
        "budgets" => budgets(),
        "request head" => head(0, REQUEST_HEAD_BYTES),
        "reply head" => head(1, REPLY_HEAD_BYTES),
        "opcodes" => opcodes(),
        "grounds" => grounds(),
        "opcodes of later versions" => opcodes_later(),
        "request bodies" => layouts(&request::layouts()),
        "reply body kinds" => rows("| Number | Name | When |\n|---:|---|---|\n", BodyKind::ALL, |kind| {
            format!("| {} | {} | {} |", *kind as u16, kind.code(), kind.meaning())
        }),
        "reply bodies" => layouts(&reply::layouts()),
        "statuses" => rows(
            "| Number | Name | Class | Meaning | What the client does |\n|---:|---|---|---|---|\n",
            Status::ALL,
            |status| {
                let class = match status.class() {
                    Class::Done => "done",
                    Class::Refused => "refused",
                    Class::CallerBug => "caller's bug",
                    Class::NotExecuted => "not executed",
                };
                let (number, code) = (status.number(), status.code());
                format!("| {number} | {code} | {class} | {} | {} |", status.meaning(), status.advice())
            },
        ),
        "close codes" => rows("| Number | Name | Meaning |\n|---:|---|---|\n", CloseCode::ALL, |code| {
            format!("| {} | {} | {} |", code.number(), code.code(), code.meaning())
        }),
        "states" => rows("| Number | Name |\n|---:|---|\n", &Lifecycle::ALL, |state| {
            format!("| {} | {} |", *state as u8, state.name())
        }),
        "flags" => rows("| Bit | Name |\n|---:|---|\n", &Flags::NAMED, |(flag, name)| {
            format!("| {} | {name} |", flag.bits().trailing_zeros())
        }),
        "events" => rows("| Number | Name | What happened |\n|---:|---|---|\n", Kind::ALL, |kind| {
            format!("| {} | {} | {} |", kind.number(), kind.name(), kind.meaning())
        }),
        "vectors" => vectors(),
        name => panic!("no table is called {name}"),
    }
}

fn rows<T>(head: &str, items: &[T], row: impl Fn(&T) -> String) -> String {
    items.iter().fold(head.to_owned(), |table, item| table + &row(item) + "\n")
}

fn limits() -> String {
    let mut table = "| What | Limit |\n|---|---:|\n".to_owned();
    for (what, limit) in [
        ("Any frame, either way, head included", FRAME_BYTES_MAX),
        ("IMPORT_CHUNK", Opcode::ImportChunk.frame_bytes_max()),
        ("REDEEM_BATCH", Opcode::RedeemBatch.frame_bytes_max()),
        ("Every other request", SMALL_FRAME_BYTES_MAX),
    ] {
        writeln!(table, "| {what} | {limit} bytes |").unwrap();
    }
    writeln!(table, "| Items of a REDEEM_BATCH | {BATCH_ITEMS_MAX} |").unwrap();
    writeln!(table, "| Cards of an order | {} |", kami_engine::ORDER_CARDS_MAX).unwrap();
    writeln!(table, "| Duplicates listed after an import | {} |", kami_engine::DUPLICATES_MAX).unwrap();
    table
}

/// What `kami serve` bounds unless told otherwise.
fn server_limits() -> String {
    let directory = tempfile::tempdir().unwrap();
    let identity = Authority::create(directory.path()).unwrap().issue_server(&[]).unwrap();
    let options = ServerOptions::new(SocketAddr::from(([127, 0, 0, 1], 0)), identity);
    let mib = |bytes: usize| format!("{} KiB", bytes >> 10);
    let (wide, narrow) = kami_net::server::widths();
    let mut table = "| What | Limit | Beyond it |\n|---|---:|---|\n".to_owned();
    for (what, limit, beyond) in [
        ("Connections in all", options.connections_max.to_string(), "refused in the handshake"),
        (
            "of one address, or 64 bits of IPv6",
            options.connections_per_address_max.to_string(),
            "refused in the handshake",
        ),
        ("of one principal", options.connections_per_principal_max.to_string(), "closed with BUSY"),
        (
            "Handshakes under way before a new peer must prove its address",
            options.handshakes_unproven_max.to_string(),
            "QUIC Retry",
        ),
        (
            "Handshakes under way, in all / of one address",
            format!("{} / {}", options.handshakes_max, options.handshakes_per_address_max),
            "the oldest is dropped",
        ),
        ("Time for a handshake", format!("{} s", options.handshake.as_secs()), "dropped"),
        ("Silence", format!("{} s", options.idle.as_secs()), "dropped"),
        ("A reply waits and none is taken", format!("{} s", options.stall.as_secs()), "closed with TOO_SLOW"),
        ("Connections of one principal that are wide", wide.of_principal_max.to_string(), "narrow"),
        ("Connections in all up to which new ones are wide", wide.in_all_max.to_string(), "narrow"),
        ("Streams, wide / narrow", format!("{} / {}", wide.streams, narrow.streams), "not opened"),
        (
            "Unread bytes of a connection, wide / narrow",
            format!("{} / {}", mib(wide.receive_bytes), mib(narrow.receive_bytes)),
            "flow control",
        ),
        (
            "Replies waiting, of a stream / a connection",
            format!("{} / {}", mib(options.pending_bytes_max), mib(options.connection_pending_bytes_max)),
            "the stream is not read",
        ),
        ("of all connections", mib(options.pending_bytes_total_max), "one batch a stream"),
        (
            "Imports and other commands that wait for the disk, at a time",
            options.blocking_max.to_string(),
            "wait",
        ),
    ] {
        writeln!(table, "| {what} | {limit} | {beyond} |").unwrap();
    }
    table
}

fn budgets() -> String {
    let MissLimits { principal_per_minute, card_per_hour, in_all_per_minute, .. } = MissLimits::USUAL;
    format!(
        "| Budget of | Wrong codes at once | Then |\n|---|---:|---|\n\
         | a principal | {} | {principal_per_minute} a minute |\n\
         | a principal at one card | {card_per_hour} | {card_per_hour} an hour |\n\
         | all together | {} | {in_all_per_minute} a minute; beyond, each costs its principal ten |\n",
        principal_per_minute * 10,
        in_all_per_minute * 10,
    )
}

/// The roles against the commands, as they stand in `opcode.rs` and nowhere else.
fn role_table() -> String {
    let mut table = "| Command |".to_owned();
    Role::ALL.iter().for_each(|role| write!(table, " {} |", role.name()).unwrap());
    table.push_str("\n|---|");
    Role::ALL.iter().for_each(|_| table.push_str(":-:|"));
    table.push('\n');
    for opcode in Opcode::ALL.iter().filter(|opcode| opcode.is_served()) {
        write!(table, "| {} |", opcode.code()).unwrap();
        for role in Role::ALL {
            table.push_str(if opcode.allows(role) { " ● |" } else { " |" });
        }
        table.push('\n');
    }
    table
}

fn head(which: usize, bytes: usize) -> String {
    let mut table = "| Offset | Bytes | Field | Type | Meaning |\n|---:|---:|---|---|---|\n".to_owned();
    let mut offset = 0;
    for field in HEADS[which].1 {
        let width = match field.kind {
            "u8" => 1,
            "u16" => 2,
            "u32" => 4,
            "u64" => 8,
            "u128" => 16,
            kind => panic!("{kind}"),
        };
        writeln!(table, "| {offset} | {width} | {} | {} | {} |", field.name, field.kind, field.meaning)
            .unwrap();
        offset += width;
    }
    assert_eq!(offset, bytes);
    table
}

fn roles(opcode: Opcode) -> String {
    let named: Vec<&str> =
        Role::ALL.iter().filter(|role| opcode.allows(**role)).map(|role| role.name()).collect();
    if named.len() == Role::ALL.len() { "all".to_owned() } else { named.join(", ") }
}

fn opcodes() -> String {
    let served: Vec<Opcode> = Opcode::ALL.iter().copied().filter(|opcode| opcode.is_served()).collect();
    rows(
        "| Number | Name | Who may | Body | Reply when done | What it does |\n|---:|---|---|---|---|---|\n",
        &served,
        |opcode| {
            let body = match Request::layout(*opcode).unwrap() {
                "" => "none",
                name => name,
            };
            let reply = BodyKind::after(*opcode).unwrap().code();
            format!(
                "| 0x{:04x} | {} | {} | {body} | {reply} | {} |",
                opcode.number(),
                opcode.code(),
                roles(*opcode),
                opcode.meaning()
            )
        },
    )
}

/// The commands that may say why.
fn grounds() -> String {
    let takes = Opcode::ALL.iter().filter(|opcode| opcode.takes_grounds() && opcode.is_served());
    let names: Vec<&str> = takes.map(|opcode| opcode.code()).collect();
    let lines: Vec<String> = names.chunks(7).map(|names| names.join(", ")).collect();
    lines.join(",\n") + ".\n"
}

fn opcodes_later() -> String {
    let later: Vec<Opcode> = Opcode::ALL.iter().copied().filter(|opcode| !opcode.is_served()).collect();
    rows("| Number | Name | Who may | What it will do |\n|---:|---|---|---|\n", &later, |opcode| {
        format!(
            "| 0x{:04x} | {} | {} | {} |",
            opcode.number(),
            opcode.code(),
            roles(*opcode),
            opcode.meaning()
        )
    })
}

fn layouts(layouts: &[(&'static str, &'static [Field])]) -> String {
    let mut text = String::new();
    for (name, fields) in layouts {
        writeln!(text, "\n#### {name}\n\n| Field | Type | Meaning |\n|---|---|---|").unwrap();
        for field in *fields {
            writeln!(text, "| {} | {} | {} |", field.name, field.kind, field.meaning).unwrap();
        }
    }
    text.push('\n');
    text
}

fn vectors() -> String {
    let mut text = "```text\n".to_owned();
    let mut line = |name: String, frame: &[u8]| {
        write!(text, "{name}\n  ").unwrap();
        for (n, byte) in frame.iter().enumerate() {
            if n > 0 && n % 48 == 0 {
                text.push_str("\n  ");
            }
            write!(text, "{byte:02x}").unwrap();
        }
        text.push('\n');
    };
    for (opcode, frame) in samples::requests() {
        line(format!("request {}", opcode.code()), &frame);
    }
    for (name, frame) in samples::replies() {
        line(format!("reply with {name}"), &frame);
    }
    text + "```\n"
}
