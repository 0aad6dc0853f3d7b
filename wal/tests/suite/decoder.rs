//! The decoders never panic, never read beyond their input, and accept only what was encoded.

use kami_wal::format::{InvalidRecord, InvalidSegment, SegmentHead};
use kami_wal::{Lsn, RecordHead, RecordKind};
use proptest::prelude::*;

fn record(lsn: u64, epoch: u32, payload: &[u8]) -> Vec<u8> {
    let head = RecordHead {
        kind: RecordKind::Data,
        lsn: Lsn::from_bytes(lsn * 8).unwrap(),
        durable_end: Lsn::from_bytes(lsn * 8),
        length: 48 + payload.len() as u32,
        epoch,
        store_id: 7,
        segment: 1,
    };
    let mut bytes = vec![0; head.length as usize];
    bytes[48..].copy_from_slice(payload);
    head.complete(&mut bytes);
    assert_eq!(RecordHead::decode(&bytes), Ok(head));
    bytes
}

proptest! {
    #[test]
    fn arbitrary_bytes_are_refused(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = RecordHead::decode(&bytes);
        let _ = SegmentHead::decode(&bytes);
    }

    #[test]
    fn a_plausible_header_over_arbitrary_bytes_is_refused(
        mut bytes in proptest::collection::vec(any::<u8>(), 48..300),
        length in 0_u32..400,
    ) {
        bytes[4..8].copy_from_slice(&[0x4D, 0xCA, 1, 1]);
        bytes[24..28].copy_from_slice(&length.to_le_bytes());
        bytes[44..48].fill(0);
        prop_assert!(RecordHead::decode(&bytes).is_err());
    }

    #[test]
    fn any_changed_byte_is_noticed(
        lsn in 1_u64..1 << 40,
        epoch in any::<u32>(),
        words in proptest::collection::vec(any::<u64>(), 0..40),
        at in any::<prop::sample::Index>(),
        change in 1_u8..,
    ) {
        let payload: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        let mut bytes = record(lsn, epoch, &payload);
        let at = at.index(bytes.len());
        bytes[at] ^= change;
        prop_assert!(RecordHead::decode(&bytes).is_err());
        bytes[at] ^= change;
        for shorter in [0, 47, bytes.len() - 1] {
            prop_assert_eq!(RecordHead::decode(&bytes[..shorter]), Err(InvalidRecord::Length));
        }
    }
}

#[test]
fn a_changed_segment_header_is_damaged_and_a_newer_one_is_unsupported() {
    let head = SegmentHead { store_id: 7, segment_bytes: 65536, segment: 1 };
    let bytes = head.encode();
    assert_eq!(SegmentHead::decode(&bytes), Ok(head));
    for at in 0..bytes.len() * 8 {
        let mut changed = bytes;
        changed[at / 8] ^= 1 << (at % 8);
        assert_eq!(SegmentHead::decode(&changed), Err(InvalidSegment::Damaged), "bit {at}");
    }
}
