//! Bytes from the network: the splitter, requests and replies. No panic, no frame longer than allowed, and what is
//! decoded encodes to a frame that decodes to the same.

#![no_main]

use bytes::BytesMut;
use kami_net::frame::reply::Answer;
use kami_net::frame::{
    FRAME_BYTES_MAX, Opcode, REPLY_HEAD_BYTES, REQUEST_HEAD_BYTES, Request, RequestHead, Split, Splitter,
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((&how, data)) = data.split_first() else { return };
    let replies = how & 1 != 0;
    let mut splitter = Splitter::new(if replies { REPLY_HEAD_BYTES } else { REQUEST_HEAD_BYTES });
    // In pieces, as the network brings them.
    for mut piece in data.chunks(1 + usize::from(how >> 1)) {
        loop {
            match splitter.next(&mut piece, |_| FRAME_BYTES_MAX) {
                Ok(Split::Frame(frame)) if replies => drop(Answer::decode(frame)),
                Ok(Split::Frame(frame)) => request(frame),
                Ok(Split::TooLong(head)) => assert!(head.len() <= FRAME_BYTES_MAX),
                Ok(Split::More) => break,
                Err(_) => return,
            }
        }
    }
});

fn request(frame: &[u8]) {
    let Ok(head) = RequestHead::decode(frame) else { return };
    let Some(opcode) = Opcode::from_number(head.opcode) else { return };
    let _ = Request::decode_on(opcode, &frame[REQUEST_HEAD_BYTES..]);
    let Ok(request) = Request::decode(opcode, &frame[REQUEST_HEAD_BYTES..]) else { return };
    let mut out = BytesMut::new();
    if request.encode(&head, &mut out).is_ok() {
        let again =
            Request::decode(opcode, &out[REQUEST_HEAD_BYTES..]).expect("what was encoded can be decoded");
        assert_eq!(again, request);
    }
}
