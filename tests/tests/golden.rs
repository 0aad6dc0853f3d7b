//! The bytes of the engine's log entries, pinned: one readable file a kind, checked both ways.
//!
//! A difference means that old logs would be read wrongly. `UPDATE_GOLDEN=1` rewrites the files, which is
//! right only for a kind that no released version has written.

use std::fmt::Write as _;
use std::path::PathBuf;

use kami_engine::record::{
    Allocation, CLOCKS_BYTES, Clocks, Field, GROUP_FIELDS, GROUP_HEAD_BYTES, Group, GroupWriter, HEAD_BYTES,
    HEAD_FIELDS, Head, ORIGINAL_BYTES, OrderFacts, PAIR_BYTES, Pair, PostedLeg, RESTORE_BYTES, Restored, Run,
    SIGNED_CHECKPOINT_BYTES, SignedCheckpoint, Stored, StoredBatch, StoredPrincipal, StoredProduct,
    TAIL_FIELDS,
};
use kami_engine::{
    AccountId, CardRef, ChannelId, Flags, Grounds, Kind, Leg, Lifecycle, Line, Lsn, MerchantId, OrderId,
    PrincipalId, ProductId, ProposalId, RequestId, TenantId, TerminalId, Word,
};
use proptest::prelude::*;

const TIME_MS: u64 = 0x0000_018b_cfe5_6800;

fn lsn(bytes: u64) -> Lsn {
    Lsn::from_bytes(bytes).expect("a position")
}

fn head(kind: Kind) -> Head {
    Head {
        kind,
        request: RequestId(0x0f0e_0d0c_0b0a_0908_0706_0504_0302_0100),
        principal: PrincipalId(0x2120_1f1e),
        terminal: TerminalId(0x3332_3130),
        merchant: MerchantId(0x4342_4140),
        tenant: TenantId(0x5150),
        channel: ChannelId(0x6160),
        body: 0x7372_7170,
        post: Word::state_of(Lifecycle::Redeemed, Flags::HAS_EFFECTS.with(Flags::USED)),
        subject: CardRef::new(3, 0x12345).to_bits(),
        prev: Word::new(lsn(0x11000), Lifecycle::Sold, Flags::REVEALED).bits(),
    }
}

/// Every kind that is written, with a tail.
fn entries() -> Vec<(Kind, Vec<u8>)> {
    let mut start = vec![0; CLOCKS_BYTES];
    Clocks { wall_ms: TIME_MS, boot_ms: 77, boot_id: 0xb007 }.encode(&mut start);
    let rotation = [0x0123_4567_89ab_cdef_u64.to_le_bytes(), 12_u64.to_le_bytes()].concat();
    let mut signed = vec![0; SIGNED_CHECKPOINT_BYTES];
    SignedCheckpoint { size: 1234, root: [0x4f; 32], key: [0x9b; 32], signature: [0x51; 64] }
        .encode(&mut signed);
    let mut restored = vec![0; RESTORE_BYTES];
    Restored { kept: 0x11000, backup_end: 0x12000, dropped: 3, wall_ms: TIME_MS }.encode(&mut restored);
    let mut original = vec![0; ORIGINAL_BYTES];
    original[..16].copy_from_slice(&0xa0a1_u128.to_le_bytes());
    original[16..].copy_from_slice(&0x11000_u64.to_le_bytes());
    let cards = Allocation {
        ranges: vec![(CardRef::new(3, 5), 10), (CardRef::new(4, 0), 1)],
        moved: vec![Run {
            first: CardRef::new(3, 2),
            rows: 1,
            word: Word::new(lsn(0x2000), Lifecycle::Available, Flags::HAS_EFFECTS),
        }],
        shared: Vec::new(),
    };
    let plain = OrderFacts::default();
    let mut sale = vec![0; plain.tail_bytes(&cards)];
    plain.encode(OrderId(0x0bde), &cards, &mut sale);
    let facts = OrderFacts {
        validity_s_min: 3600,
        account: 7,
        ip: 0x1234,
        moment_ms: TIME_MS + 900_000,
        prev: 0x2000_0001,
        sealed: true,
        lines: vec![
            Line { product: ProductId(3), count: 11, face: None },
            Line { product: ProductId(4), count: 1, face: Some(5000) },
        ],
        legs: vec![
            PostedLeg {
                leg: Leg { account: AccountId(7), amount: -36_000 },
                balance: 64_000,
                prev: Lsn::from_bytes(0x3000),
            },
            PostedLeg { leg: Leg { account: AccountId(8), amount: 36_000 }, balance: 36_000, prev: None },
        ],
    };
    let mut order = vec![0; facts.tail_bytes(&cards)];
    facts.encode(OrderId(0x0bde), &cards, &mut order);
    let mut reveal = vec![0; 24];
    reveal[..16].copy_from_slice(&0x0bde_u128.to_le_bytes());
    reveal[16..20].copy_from_slice(&2_u32.to_le_bytes());
    reveal[20..].copy_from_slice(&3_u32.to_le_bytes());
    let product = StoredProduct {
        tenant: 0,
        name: "coffee to go".to_owned(),
        kind: 1,
        currency: *b"CNY",
        face: 2800,
        valid_days: 30,
        reversal_s: 86_400,
    };
    let principal = StoredPrincipal {
        name: "till".to_owned(),
        role: 4,
        tenant: 0,
        merchant: 9,
        key: [0x5a; 32],
        serial: 0x0102_0304_0506_0708_090a_0b0c_0d0e_0f10,
        expires_ms: 1_795_000_000_000,
        products: vec![1, 2],
        misses_per_minute: 30,
    };
    let batch = StoredBatch {
        tenant: 0,
        product: 1,
        label: "purchase order 12".to_owned(),
        rows: 1000,
        file_hash: [0xf1; 32],
        cards_hash: [0xca; 32],
        face: 2800,
        valid_from_ms: 0,
        expires_ms: TIME_MS,
        active: true,
    };
    let mut pair = vec![0; PAIR_BYTES];
    let other = CardRef::new(0x0301, 0x2346);
    Pair { other, order: OrderId(0x0bde), link: 0x10000, end_ms: TIME_MS }.encode(&mut pair);
    let mut entries = vec![
        (Kind::Start, start),
        (Kind::KeyRotate, rotation),
        (Kind::SignedCheckpoint, signed),
        (Kind::Restore, restored),
        (Kind::ProductPut, product.entry_tail()),
        (Kind::PrincipalPut, principal.entry_tail()),
        (Kind::Import, batch.entry_tail()),
        (Kind::BatchExtend, TIME_MS.to_le_bytes().to_vec()),
        (Kind::Extend, TIME_MS.to_le_bytes().to_vec()),
        (Kind::Expire, TIME_MS.to_le_bytes().to_vec()),
        (Kind::Replace, pair.clone()),
        (Kind::Replacement, pair),
        (Kind::Restock, 0x0d0c_u128.to_le_bytes().to_vec()),
        (Kind::BatchActivate, [1000_u64.to_le_bytes(), 500_u64.to_le_bytes()].concat()),
        (Kind::Reverse, original.clone()),
        (Kind::Tombstone, original.clone()),
        (Kind::Miss, original),
        (Kind::Sell, sale),
        (Kind::Reserve, order.clone()),
        (Kind::Confirm, order.clone()),
        (Kind::Cancel, order.clone()),
        (Kind::ReserveTimeout, order.clone()),
        (Kind::Realloc, order.clone()),
        (Kind::Return, order),
        (Kind::Reveal, reveal),
    ];
    let bare = [
        Kind::ProductFreeze,
        Kind::ProductUnfreeze,
        Kind::PrincipalRevoke,
        Kind::BatchDeactivate,
        Kind::BatchFreeze,
        Kind::BatchUnfreeze,
        Kind::BatchVoid,
        Kind::Redeem,
        Kind::Freeze,
        Kind::Unfreeze,
        Kind::Void,
        Kind::Activate,
        Kind::Deactivate,
    ];
    entries.extend(bare.map(|kind| (kind, Vec::new())));
    entries
}

fn payload(kind: Kind, tail: &[u8]) -> Vec<u8> {
    let mut payload = vec![0xEE; GROUP_HEAD_BYTES + HEAD_BYTES + tail.len()];
    let mut group = GroupWriter::new(&mut payload, lsn(0x12030), 48);
    group.push(&head(kind), tail.len(), |place| place.copy_from_slice(tail));
    let used = group.finish(TIME_MS);
    assert_eq!(used, payload.len(), "every byte is written");
    payload
}

/// One named field a line; what follows the last named field comes in spans of 16 bytes.
fn render(kind: Kind, payload: &[u8]) -> String {
    let mut text = format!("# {}: a group of one entry, as the log's payload\n", kind.name());
    let mut line = |name: &str, bytes: &[u8]| {
        let hex: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        writeln!(text, "{name:<14} {}", hex.join(" ")).expect("writing to memory");
    };
    for (at, len, name, _) in GROUP_FIELDS {
        line(&format!("group.{name}"), &payload[*at..at + len]);
    }
    let entry = &payload[GROUP_HEAD_BYTES..];
    let tails = TAIL_FIELDS.iter().find(|(kinds, _)| kinds.split(", ").any(|name| name == kind.name()));
    let tail: &[Field] = tails.map_or(&[], |(_, fields)| fields);
    let mut end = 0;
    for (at, len, name, _) in HEAD_FIELDS.iter().chain(tail).filter(|field| field.1 != 0) {
        if *at + len > entry.len() || (kind.is_order() && *at >= if kind == Kind::Sell { 96 } else { 128 }) {
            break;
        }
        line(&name.replace(' ', "-"), &entry[*at..at + len]);
        end = at + len;
    }
    for span in entry[end..].chunks(16) {
        line("..", span);
    }
    text
}

fn unhex(text: &str) -> Vec<u8> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let words = lines.flat_map(|line| line.split_whitespace().skip(1));
    words.map(|word| u8::from_str_radix(word, 16).expect("two hex digits")).collect()
}

/// What is written today is what the files say, and what the files say is read as what was written.
#[test]
fn every_entry_has_the_bytes_of_its_file() {
    let directory = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("golden");
    let update = std::env::var_os("UPDATE_GOLDEN").is_some();
    for (kind, tail) in entries() {
        let payload = payload(kind, &tail);
        let path = directory.join(format!("{}.hex", kind.name().to_lowercase().replace('_', "-")));
        let text = render(kind, &payload);
        if update {
            std::fs::create_dir_all(&directory).expect("the directory can be made");
            std::fs::write(&path, &text).expect("the file can be written");
        }
        let golden = std::fs::read_to_string(&path).expect("there is a golden file for every kind");
        assert_eq!(text, golden, "{}: the bytes of {} changed", path.display(), kind.name());
        let bytes = unhex(&golden);
        assert_eq!(bytes, payload);
        let mut group = Group::parse(&bytes, lsn(0x12030)).expect("a group");
        assert_eq!(group.time_ms, TIME_MS);
        let entry = group.next().expect("an entry").expect("well formed");
        assert_eq!(entry.head, head(kind));
        assert!(group.next().is_none());
        match kind {
            kind if kind.is_order() => assert_eq!(entry.order().expect("an order").1.count(), 12),
            Kind::Reverse | Kind::Tombstone | Kind::Miss => {
                assert_eq!(entry.original().expect("one").0.0, 0xa0a1)
            }
            Kind::Reveal => assert_eq!(entry.revealed_order().expect("one"), OrderId(0x0bde)),
            Kind::Replace | Kind::Replacement => {
                let pair = entry.pair().expect("one");
                assert_eq!(
                    (pair.other.row(), pair.order, pair.end()),
                    (0x2346, OrderId(0x0bde), Some(TIME_MS))
                );
                assert_eq!(entry.value(), Ok(None));
            }
            Kind::Restock => assert_eq!(entry.reference().expect("one"), 0x0d0c),
            Kind::BatchActivate => assert_eq!(entry.rows().expect("well formed"), Some(1000..1500)),
            Kind::BatchExtend | Kind::Extend | Kind::Expire => {
                assert_eq!(entry.expires_ms().expect("one"), TIME_MS)
            }
            Kind::Start => assert_eq!(entry.clocks().expect("one").boot_id, 0xb007),
            Kind::ProductPut => assert_eq!(entry.object::<StoredProduct>().expect("one").face, 2800),
            Kind::PrincipalPut => assert_eq!(entry.object::<StoredPrincipal>().expect("one").role, 4),
            Kind::Import => assert_eq!(entry.object::<StoredBatch>().expect("one").rows, 1000),
            _ => {}
        }
    }
}

/// Grounds stand behind the tail, and every reader of a tail sees it without them.
#[test]
fn grounds_have_the_bytes_of_their_file() {
    let kind = Kind::BatchExtend;
    let grounds = Grounds {
        why: "客户要求延期".to_owned(),
        approval: Some(ProposalId(0xa9a8_a7a6)),
        approver: Some(PrincipalId(0xb0b1_b2b3)),
    };
    let mut payload = vec![0xEE; GROUP_HEAD_BYTES + HEAD_BYTES + 8 + 40];
    let mut group = GroupWriter::new(&mut payload, lsn(0x12030), 48);
    group.push_on(&head(kind), Some(&grounds), 8, |place| place.copy_from_slice(&TIME_MS.to_le_bytes()));
    assert_eq!(group.finish(TIME_MS), payload.len(), "every byte is written");
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("golden/on-grounds.hex");
    let text = render(kind, &payload);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, &text).expect("the file can be written");
    }
    assert_eq!(text, std::fs::read_to_string(&path).expect("there is a golden file"));
    let entry = |bytes: &[u8]| {
        let mut group = Group::parse(bytes, lsn(0x12030)).expect("a group");
        let entry = group.next().expect("an entry")?;
        Ok::<_, kami_engine::record::FormatError>((entry.expires_ms()?, entry.grounds()?))
    };
    assert_eq!(entry(&unhex(&text)).expect("well formed"), (TIME_MS, Some(grounds)));
    // Longer than the entry, than they are, or not there at all.
    for units in [15, 4, 6] {
        payload[GROUP_HEAD_BYTES + 1] = units;
        assert!(entry(&payload).is_err(), "{units}");
    }
}

/// Everything a reader does with a payload, whatever the payload is.
fn read_all(bytes: &[u8]) {
    let Ok(group) = Group::parse(bytes, lsn(4096)) else { return };
    for at in [4096 + 16, 4096 + 24, 4096, 8192] {
        let _ = group.entry_at(lsn(at));
    }
    for entry in group.flatten() {
        let _ = (entry.order(), entry.original(), entry.revealed_order(), entry.expires_ms(), entry.clocks());
        let _ = entry.object::<StoredProduct>();
        let _ = entry.object::<StoredPrincipal>();
        let _ = entry.object::<StoredBatch>();
        let _ = (entry.card(), entry.prev(), entry.post(), entry.grounds());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(2000) })]

    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        read_all(&bytes);
    }

    /// Real entries with a few bytes changed, or cut short: they pass more checks than noise does.
    #[test]
    fn damaged_entries_never_panic(
        which in 0..23_usize,
        edits in proptest::collection::vec((any::<u16>(), any::<u8>()), 0..6),
        cut in any::<u16>(),
    ) {
        let (kind, tail) = entries().swap_remove(which);
        let mut bytes = payload(kind, &tail);
        for (at, byte) in edits {
            let at = usize::from(at) % bytes.len();
            bytes[at] = byte;
        }
        if cut % 3 == 0 {
            bytes.truncate(usize::from(cut) % bytes.len());
        }
        read_all(&bytes);
    }
}
