//! Bytes of the log: a record's head, then a group of entries, each asked for everything that any kind of entry may say.
//! The checksum, which no fuzzer finds, is put right, so that what is behind it is read.

#![no_main]

use kami_engine::record::Group;
use kami_engine::{CardRef, Lsn};
use kami_wal::RecordHead;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let _ = RecordHead::decode(data);
    let length = data.get(24..28).map_or(0, |bytes| u32::from_le_bytes(bytes.try_into().expect("four bytes")))
        as usize;
    if let Some(record) = data.get(..length)
        && 4 < length
    {
        let mut record = record.to_vec();
        let sum = crc32c::crc32c(&record[4..]);
        record[..4].copy_from_slice(&sum.to_le_bytes());
        if let Ok(head) = RecordHead::decode(&record) {
            let mut again = record.clone();
            head.complete(&mut again);
            assert_eq!(again, record, "what was decoded encodes to the same bytes");
        }
    }
    // As a payload; a multiple of eight long, as all are.
    let payload = &data[..data.len() / 8 * 8];
    let Ok(group) = Group::parse(payload, Lsn::from_bytes(1 << 20).expect("a position")) else { return };
    for entry in group.take(10_000) {
        let Ok(entry) = entry else { return };
        let card = CardRef::new(1, 1);
        let _ = (entry.prev(), entry.post(), entry.card(), entry.end());
        let _ = (entry.word_before(card), entry.word_after(card));
        let _ = (entry.original(), entry.value(), entry.pair(), entry.grounds());
        let _ = (entry.money(), entry.posting(), entry.locked_until(), entry.crossing());
        let _ = (entry.revealed(), entry.first_reveal(), entry.reference(), entry.rows());
        let _ = (entry.expires_ms(), entry.clocks(), entry.restored(), entry.signed_checkpoint());
        if let Ok((_, cards, facts)) = entry.order() {
            assert_eq!(cards.cards().take(1 << 20).count(), (cards.count() as usize).min(1 << 20));
            let _ = format!("{facts:?}");
        }
    }
});
