use proptest::prelude::*;
use zerocopy::IntoBytes;

use super::*;
use crate::test_fds::{Witness, several};
use crate::wire::{Command, FLAG_NO_REPLY};

/// A frame, without borrowing from the reader.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Seen {
    Message {
        id: u16,
        payload: Vec<u8>,
        fds: usize,
    },
    Rejected {
        id: u16,
        errno: Errno,
    },
}

impl From<Frame<'_>> for Seen {
    fn from(frame: Frame<'_>) -> Self {
        match frame {
            Frame::Message(message) => Self::Message {
                id: message.header.message_id,
                payload: message.payload.to_vec(),
                fds: message.fds.len(),
            },
            Frame::Rejected(header, rejection) => Self::Rejected {
                id: header.message_id,
                errno: rejection.errno,
            },
        }
    }
}

fn header(id: u16, message_size: u32) -> Vec<u8> {
    let header = Header {
        message_id: id,
        command: Command::REGION_WRITE.0,
        message_size,
        flags: FLAG_NO_REPLY,
        error: 0,
    };
    header.as_bytes().to_vec()
}

fn message(id: u16, payload: &[u8]) -> Vec<u8> {
    let size = u32::try_from(HEADER_SIZE + payload.len()).unwrap();
    let mut bytes = header(id, size);
    bytes.extend_from_slice(payload);
    bytes
}

/// Gives the reader at most `step()` bytes at a time, as a socket would.
fn feed(reader: &mut FrameReader, mut bytes: &[u8], mut step: impl FnMut() -> usize) -> Vec<Seen> {
    let mut seen = Vec::new();
    while !bytes.is_empty() {
        let buffer = reader.buffer();
        assert!(!buffer.is_empty());
        let count = buffer.len().min(bytes.len()).min(step().max(1));
        buffer[..count].copy_from_slice(&bytes[..count]);
        bytes = &bytes[count..];
        seen.extend(reader.advance(count, Ancillary::default()).map(Seen::from));
    }
    seen
}

fn whole(reader: &mut FrameReader, bytes: &[u8]) -> Vec<Seen> {
    feed(reader, bytes, || usize::MAX)
}

fn plain(id: u16, payload: &[u8]) -> Seen {
    Seen::Message {
        id,
        payload: payload.to_vec(),
        fds: 0,
    }
}

fn invalid(id: u16) -> Seen {
    Seen::Rejected {
        id,
        errno: Errno::EINVAL,
    }
}

#[test]
fn several_messages_in_one_stream_come_out_in_order() {
    let stream = [message(1, b"abc"), message(2, b""), message(3, &[7; 100])].concat();
    let mut reader = FrameReader::new();
    assert_eq!(
        whole(&mut reader, &stream),
        [plain(1, b"abc"), plain(2, b""), plain(3, &[7; 100])]
    );
    assert!(!reader.in_message());
}

#[test]
fn the_buffer_ends_where_the_message_ends() {
    let mut reader = FrameReader::new();
    assert_eq!(reader.buffer().len(), HEADER_SIZE);
    assert_eq!(whole(&mut reader, &header(1, 40)), []);
    assert_eq!(reader.buffer().len(), 24);
    assert!(reader.in_message());
    assert_eq!(whole(&mut reader, &[9; 20]), []);
    assert_eq!(reader.buffer().len(), 4);
}

#[test]
fn a_size_below_the_headers_is_refused_and_the_stream_goes_on() {
    for size in [0, 1, 15] {
        let stream = [header(1, size), message(2, b"x")].concat();
        assert_eq!(
            whole(&mut FrameReader::new(), &stream),
            [invalid(1), plain(2, b"x")]
        );
    }
}

#[test]
fn the_largest_message_is_taken() {
    let payload = vec![0x5a; MAX_MESSAGE_SIZE - HEADER_SIZE];
    let stream = [message(1, &payload), message(2, b"x")].concat();
    let mut reader = FrameReader::new();
    assert_eq!(
        whole(&mut reader, &stream),
        [plain(1, &payload), plain(2, b"x")]
    );
}

#[test]
fn a_size_above_the_limit_is_refused_at_once_and_its_payload_is_skipped() {
    let mut reader = FrameReader::new();
    let size = MAX_MESSAGE_SIZE + 1;
    assert_eq!(
        whole(&mut reader, &header(1, u32::try_from(size).unwrap())),
        [invalid(1)]
    );
    // A payload of well-formed messages: none of them may come out.
    let mut payload = message(66, b"not a request").repeat(size / 29 + 1);
    payload.truncate(size - HEADER_SIZE);
    assert_eq!(whole(&mut reader, &payload), []);
    assert_eq!(whole(&mut reader, &message(2, b"x")), [plain(2, b"x")]);
}

#[test]
fn an_endless_payload_takes_no_memory() {
    let mut reader = FrameReader::new();
    whole(&mut reader, &header(1, u32::MAX));
    let zeros = vec![0; 1 << 20];
    for _ in 0..8 {
        assert_eq!(whole(&mut reader, &zeros), []);
    }
    assert!(reader.payload.capacity() <= CHUNK);
}

#[test]
fn a_size_alone_reserves_no_memory() {
    let mut reader = FrameReader::new();
    whole(
        &mut reader,
        &header(1, u32::try_from(MAX_MESSAGE_SIZE).unwrap()),
    );
    assert_eq!(reader.buffer().len(), CHUNK);
    assert!(reader.payload.capacity() <= CHUNK);
}

#[test]
fn memory_of_a_large_message_is_given_back() {
    let mut reader = FrameReader::new();
    whole(&mut reader, &message(1, &vec![1; 1 << 20]));
    assert_eq!(whole(&mut reader, &message(2, b"x")), [plain(2, b"x")]);
    assert!(reader.payload.capacity() <= CHUNK);
}

#[test]
fn descriptors_belong_to_the_message_they_came_with() {
    let mut reader = FrameReader::new();
    let (fds, witnesses) = several(2);
    let bytes = message(1, b"abcd");
    reader.buffer().copy_from_slice(&bytes[..HEADER_SIZE]);
    let none = reader.advance(
        HEADER_SIZE,
        Ancillary {
            fds,
            truncated: false,
        },
    );
    assert!(none.is_none());
    reader.buffer().copy_from_slice(&bytes[HEADER_SIZE..]);
    let seen = reader.advance(4, Ancillary::default()).map(Seen::from);
    assert_eq!(
        seen,
        Some(Seen::Message {
            id: 1,
            payload: b"abcd".to_vec(),
            fds: 2
        })
    );
    assert!(
        witnesses.iter().all(Witness::is_closed),
        "dropping the message closes"
    );
    assert_eq!(whole(&mut reader, &message(2, b"")), [plain(2, b"")]);
}

#[test]
fn descriptors_of_a_later_part_of_a_message_are_its_own_too() {
    let mut reader = FrameReader::new();
    reader.buffer().copy_from_slice(&header(1, 18));
    reader.advance(HEADER_SIZE, Ancillary::default());
    reader.buffer().copy_from_slice(b"ab");
    let ancillary = Ancillary {
        fds: several(1).0,
        truncated: false,
    };
    let Some(Frame::Message(message)) = reader.advance(2, ancillary) else {
        panic!("no message");
    };
    assert_eq!(message.fds.len(), 1);
}

fn deliver(reader: &mut FrameReader, bytes: &[u8], ancillary: Ancillary) -> Vec<Seen> {
    let (head, tail) = bytes.split_at(HEADER_SIZE);
    reader.buffer().copy_from_slice(head);
    let first = reader.advance(HEADER_SIZE, ancillary).map(Seen::from);
    first.into_iter().chain(whole(reader, tail)).collect()
}

#[test]
fn a_message_with_too_many_descriptors_is_refused_and_all_are_closed() {
    let mut reader = FrameReader::new();
    let (fds, witnesses) = several(MAX_MSG_FDS + 1);
    let seen = deliver(
        &mut reader,
        &message(1, b"ab"),
        Ancillary {
            fds,
            truncated: false,
        },
    );
    assert_eq!(seen, [invalid(1)]);
    assert!(witnesses.iter().all(Witness::is_closed));
    assert_eq!(whole(&mut reader, &message(2, b"x")), [plain(2, b"x")]);
}

#[test]
fn descriptors_of_a_refused_message_are_closed() {
    for size in [3, u32::MAX] {
        let mut reader = FrameReader::new();
        let (fds, witnesses) = several(1);
        let seen = deliver(
            &mut reader,
            &header(1, size),
            Ancillary {
                fds,
                truncated: false,
            },
        );
        assert_eq!(seen, [invalid(1)]);
        assert!(witnesses.iter().all(Witness::is_closed));
    }
}

#[test]
fn lost_descriptors_are_told_apart_from_too_many() {
    let mut reader = FrameReader::new();
    let ancillary = Ancillary {
        fds: several(1).0,
        truncated: true,
    };
    let seen = deliver(&mut reader, &message(1, b"ab"), ancillary);
    assert_eq!(
        seen,
        [Seen::Rejected {
            id: 1,
            errno: Errno::EMFILE
        }]
    );
    assert_eq!(whole(&mut reader, &message(2, b"x")), [plain(2, b"x")]);
}

fn any_stream() -> impl Strategy<Value = Vec<u8>> {
    let payload = proptest::collection::vec(any::<u8>(), 0..200);
    let good = (any::<u16>(), payload).prop_map(|(id, payload)| message(id, &payload));
    let short = (any::<u16>(), 0_u32..16).prop_map(|(id, size)| header(id, size));
    let long = (any::<u16>(), 1_usize..40).prop_map(|(id, beyond)| {
        let size = MAX_MESSAGE_SIZE + beyond;
        let mut bytes = header(id, u32::try_from(size).unwrap());
        bytes.resize(size, 0x11);
        bytes
    });
    let part = prop_oneof![20 => good, 3 => short, 1 => long];
    proptest::collection::vec(part, 0..12).prop_map(|parts| parts.concat())
}

proptest! {
    #[test]
    fn any_split_gives_the_same_messages(
        stream in any_stream(),
        steps in proptest::collection::vec(1_usize..4000, 1..20),
    ) {
        let mut steps = steps.into_iter().cycle();
        let split = feed(&mut FrameReader::new(), &stream, || steps.next().unwrap());
        prop_assert_eq!(split, whole(&mut FrameReader::new(), &stream));
    }

    #[test]
    fn arbitrary_bytes_never_panic(stream in proptest::collection::vec(any::<u8>(), 0..4000)) {
        let mut reader = FrameReader::new();
        whole(&mut reader, &stream);
        prop_assert!(reader.payload.capacity() <= 2 * CHUNK);
    }

    #[test]
    fn arbitrary_messages_decode_without_panic(
        command in 0_u16..20,
        flags in prop_oneof![Just(0), any::<u32>()],
        payload in proptest::collection::vec(prop_oneof![3 => Just(0), 2 => 0_u8..40, 1 => any::<u8>()], 0..120),
        fds in 0_usize..3,
    ) {
        let header = Header { message_id: 0, command, message_size: 0, flags, error: 0 };
        let message = Message { header, payload: &payload, fds: several(fds).0 };
        if let Ok(crate::request::Request::RegionWriteMulti(writes)) = crate::request::decode(message) {
            prop_assert_eq!(writes.iter().count() as u64, writes.len());
        }
    }
}
