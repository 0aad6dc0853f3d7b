//! Bytes nobody meant: whatever comes, decoding answers and does not panic.

use kami_net::frame::reply::Answer;
use kami_net::frame::{Opcode, REQUEST_HEAD_BYTES, Request, RequestHead, Split, Splitter};
use proptest::prelude::*;

use crate::samples;

proptest! {
    #[test]
    fn arbitrary_bodies_never_panic(number in 0_usize..200, body in prop::collection::vec(any::<u8>(), 0..400)) {
        let opcode = Opcode::ALL[number % Opcode::ALL.len()];
        if let Ok(Request::RedeemBatch(items)) = Request::decode(opcode, &body) {
            prop_assert_eq!(items.iter().count(), items.len());
        }
    }

    #[test]
    fn arbitrary_replies_never_panic(body in prop::collection::vec(any::<u8>(), 0..400), kind in 0_u16..50) {
        let mut frame = samples::replies()[0].1.clone();
        frame[26..28].copy_from_slice(&kind.to_le_bytes());
        frame.extend_from_slice(&body);
        let _ = Answer::decode(&frame);
        let _ = Answer::decode(&body);
    }

    #[test]
    fn arbitrary_streams_never_panic(stream in prop::collection::vec(any::<u8>(), 0..2000), piece in 1_usize..300) {
        let mut splitter = Splitter::new(REQUEST_HEAD_BYTES);
        'stream: for mut piece in stream.chunks(piece) {
            loop {
                match splitter.next(&mut piece, |_| 4096) {
                    Ok(Split::More) => break,
                    Ok(Split::Frame(frame) | Split::TooLong(frame)) => drop(RequestHead::decode(frame)),
                    Err(_) => break 'stream,
                }
            }
        }
    }

    /// A byte flipped or cut off in a good frame gives an error or another good frame, never a panic.
    #[test]
    fn damaged_frames_never_panic(which in 0_usize..1000, at in 0_usize..4000, bits in 1_u8.., cut in 0_usize..4000) {
        let requests = samples::requests();
        let (opcode, mut frame) = requests[which % requests.len()].clone();
        let at = at % frame.len();
        frame[at] ^= bits;
        frame.truncate(frame.len() - cut % frame.len());
        let _ = RequestHead::decode(&frame);
        if let Some(body) = frame.get(REQUEST_HEAD_BYTES..) {
            let _ = Request::decode(opcode, body);
        }
        let replies = samples::replies();
        let (_, mut frame) = replies[which % replies.len()].clone();
        let at = at % frame.len();
        frame[at] ^= bits;
        frame.truncate(frame.len() - cut % frame.len());
        let _ = Answer::decode(&frame);
    }
}

#[test]
fn a_body_must_end_where_its_fields_end() {
    for (opcode, frame) in samples::requests() {
        let body = &frame[REQUEST_HEAD_BYTES..];
        assert!(Request::decode(opcode, body).is_ok());
        let longer = [body, &[0]].concat();
        assert!(Request::decode(opcode, &longer).is_err(), "{} with a byte more", opcode.code());
        if let Some((_, shorter)) = body.split_last() {
            assert!(Request::decode(opcode, shorter).is_err(), "{} with a byte less", opcode.code());
        }
    }
}

#[test]
fn a_huge_count_is_not_believed() {
    // A list of four thousand million rows in eight bytes: refused after the bytes run out.
    let mut frame = samples::replies().into_iter().find(|(name, _)| *name == "STOCK").unwrap().1;
    frame[52..56].copy_from_slice(&u32::MAX.to_le_bytes());
    assert!(Answer::decode(&frame).is_err());
    let (opcode, mut frame) =
        samples::requests().into_iter().find(|(opcode, _)| *opcode == Opcode::ImportChunk).unwrap();
    frame[64..68].copy_from_slice(&u32::MAX.to_le_bytes());
    assert!(Request::decode(opcode, &frame[REQUEST_HEAD_BYTES..]).is_err());
}

#[test]
fn reserved_fields_and_a_zero_id_are_refused() {
    let good = samples::requests()[0].1.clone();
    assert!(RequestHead::decode(&good).is_ok());
    for at in [5, 34, 35, 36, 37, 38, 39] {
        let mut frame = good.clone();
        frame[at] = 0x80;
        assert!(RequestHead::decode(&frame).is_err(), "byte {at}");
    }
    let mut frame = good;
    frame[8..24].fill(0);
    assert!(RequestHead::decode(&frame).is_err());
}

#[test]
fn no_trace_shows_a_code() {
    for (opcode, frame) in samples::requests() {
        let shown = format!("{:?}", Request::decode(opcode, &frame[REQUEST_HEAD_BYTES..]).unwrap());
        for secret in ["KAMI-7QFM", "CARD000", "4711", "0815"] {
            assert!(!shown.contains(secret), "{shown}");
            // Nor as a list of bytes.
            let bytes = format!("{:?}", secret.as_bytes());
            assert!(!shown.contains(bytes.trim_matches(['[', ']'])), "{shown}");
        }
    }
    let shown = format!("{:?}", samples::replies_decoded());
    assert!(!shown.contains("CARD000") && !shown.contains("67, 65, 82, 68"), "{shown}");
}
