use proptest::prelude::*;

use super::*;
use crate::wire::Code;

fn message(code: Code, flags: u32, payload: &[u8]) -> Vec<u8> {
    let header = Header {
        request: code.0,
        flags,
        size: payload.len() as u32,
    };
    [header.as_bytes(), payload].concat()
}

/// Feeds bytes in pieces of at most `step`; what came out.
fn feed(reader: &mut FrameReader, mut bytes: &[u8], step: usize) -> Vec<Result<Vec<u8>, Refusal>> {
    let mut out = Vec::new();
    while !bytes.is_empty() {
        let room = reader.buffer();
        if room.is_empty() {
            break;
        }
        let count = room.len().min(step).min(bytes.len());
        room[..count].copy_from_slice(&bytes[..count]);
        bytes = &bytes[count..];
        match reader.advance(count, Ancillary::default()) {
            None => {}
            Some(Frame::Message(message)) => out.push(Ok(message.payload.to_vec())),
            Some(Frame::Rejected(_, refusal)) => out.push(Err(refusal)),
            Some(Frame::Broken(refusal)) => {
                out.push(Err(refusal));
                break;
            }
        }
    }
    out
}

#[test]
fn messages_come_out_whole_however_the_stream_is_cut() {
    let stream = [
        message(Code::GET_FEATURES, VERSION, &[]),
        message(Code::SET_FEATURES, VERSION, &[1; 8]),
        message(Code::SET_CONFIG, VERSION, &[2; MAX_PAYLOAD]),
    ]
    .concat();
    for step in [1, 5, 12, 13, 4096, 8192] {
        let mut reader = FrameReader::new();
        let out = feed(&mut reader, &stream, step);
        let sizes: Vec<_> = out.iter().map(|it| it.as_ref().unwrap().len()).collect();
        assert_eq!(sizes, [0, 8, MAX_PAYLOAD], "step {step}");
        assert!(!reader.in_message());
    }
}

#[test]
fn what_is_not_this_protocol_breaks_the_stream() {
    let too_long = Header {
        request: 1,
        flags: VERSION,
        size: MAX_PAYLOAD as u32 + 1,
    };
    for bytes in [
        message(Code::GET_FEATURES, 0, &[]),
        message(Code::GET_FEATURES, 2, &[]),
        message(Code::GET_FEATURES, VERSION | FLAG_REPLY, &[]),
        too_long.as_bytes().to_vec(),
    ] {
        let out = feed(&mut FrameReader::new(), &bytes, 100);
        assert!(matches!(out[..], [Err(_)]), "{out:?}");
    }
}

#[test]
fn lost_or_surplus_descriptors_cost_the_message_and_not_the_next() {
    let too_many = || Ancillary {
        fds: (0..=MAX_FDS)
            .map(|_| std::io::pipe().unwrap().0.into())
            .collect(),
        truncated: false,
    };
    let lost = || Ancillary {
        fds: Vec::new(),
        truncated: true,
    };
    for ancillary in [too_many(), lost()] {
        let mut reader = FrameReader::new();
        let bytes = message(Code::GET_FEATURES, VERSION, &[]);
        reader.buffer().copy_from_slice(&bytes);
        let frame = reader.advance(bytes.len(), ancillary);
        assert!(matches!(frame, Some(Frame::Rejected(..))), "{frame:?}");
        assert!(matches!(feed(&mut reader, &bytes, 12)[..], [Ok(_)]));
    }
}

proptest! {
    #[test]
    fn any_bytes_are_messages_or_the_end(bytes in proptest::collection::vec(any::<u8>(), 0..20_000), step in 1usize..5000) {
        let mut reader = FrameReader::new();
        feed(&mut reader, &bytes, step);
    }

    #[test]
    fn any_bytes_behind_a_sound_header_are_a_request_or_a_refusal(
        code in 0u32..50,
        payload in proptest::collection::vec(any::<u8>(), 0..300),
    ) {
        let mut reader = FrameReader::new();
        let bytes = message(Code(code), VERSION, &payload);
        let mut at = 0;
        while at < bytes.len() {
            let room = reader.buffer();
            let count = room.len();
            room.copy_from_slice(&bytes[at..at + count]);
            at += count;
            if let Some(Frame::Message(message)) = reader.advance(count, Ancillary::default()) {
                let _ = crate::request::decode(message);
            }
        }
        prop_assert!(!reader.in_message());
    }
}
