//! A client's byte stream with descriptors in it, as a vfio-user server reads it.
//!
//! Input: a count, that many bytes which each say how one read of the socket goes, and the stream. Reads beyond the count
//! get all that fits and no descriptors.

use std::io::{PipeReader, pipe};
use std::os::fd::{AsFd, OwnedFd};

use arbitrary::Unstructured;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use vfio_user::frame::{Ancillary, Frame, FrameReader};
use vfio_user::wire::{HEADER_SIZE, Header, MAX_MESSAGE_SIZE, MAX_MSG_FDS};
use zerocopy::FromBytes;

mod requests;
mod seeds;

pub use seeds::seeds;

/// How one read goes.
#[derive(Clone, Copy, Debug, Default)]
struct Read {
    /// Most bytes it brings; 0 for as many as fit.
    bytes: usize,
    /// Descriptors that come with them.
    fds: usize,
    /// The kernel dropped descriptors.
    truncated: bool,
}

impl Read {
    fn decode(byte: u8) -> Self {
        Self {
            bytes: usize::from(byte & 0x3f),
            // Two of the last kind are more than a message may carry.
            fds: [0, 1, 2, MAX_MSG_FDS / 2 + 1][usize::from(byte >> 6)],
            truncated: byte == 0xff,
        }
    }
}

/// Descriptors whose closing can be observed.
struct Descriptors {
    witness: PipeReader,
    original: OwnedFd,
}

impl Descriptors {
    fn new() -> Self {
        let (witness, writer) = pipe().expect("a pipe");
        Self {
            witness,
            original: writer.into(),
        }
    }

    fn several(&self, count: usize) -> Vec<OwnedFd> {
        let copy = || self.original.try_clone().expect("a descriptor");
        (0..count).map(|_| copy()).collect()
    }

    fn assert_all_closed(self) {
        let Self { witness, original } = self;
        drop(original);
        let mut fds = [PollFd::new(witness.as_fd(), PollFlags::empty())];
        poll(&mut fds, PollTimeout::ZERO).expect("poll");
        let events = fds[0].revents().expect("known events");
        assert!(events.contains(PollFlags::POLLHUP), "a descriptor leaked");
    }
}

/// What the server must make of one message, worked out from the stream as a whole.
#[derive(Debug)]
struct Expected {
    header: Header,
    /// Where the message begins and where the next one does; the last may lie beyond the stream.
    start: usize,
    end: usize,
    /// Refused for its size, as soon as the header is there.
    refused: bool,
}

impl Expected {
    /// The message at `start`, if its header is complete.
    fn at(stream: &[u8], start: usize) -> Option<Self> {
        let (header, _) = Header::read_from_prefix(stream.get(start..)?).ok()?;
        let size = header.message_size as usize;
        Some(Self {
            header,
            start,
            end: start + size.max(HEADER_SIZE),
            refused: !(HEADER_SIZE..=MAX_MESSAGE_SIZE).contains(&size),
        })
    }

    /// Where in the stream the server knows what the message is.
    fn known_at(&self) -> usize {
        if self.refused {
            self.start + HEADER_SIZE
        } else {
            self.end
        }
    }
}

/// Runs one input.
pub fn run(data: &[u8]) {
    let mut input = Unstructured::new(data);
    let count: u8 = input.arbitrary().unwrap_or_default();
    let count = usize::from(count).min(input.len());
    let reads = input.bytes(count).unwrap_or_default();
    let mut reads = reads.iter().map(|&byte| Read::decode(byte));
    let stream = input.take_rest();

    let descriptors = Descriptors::new();
    let mut reader = FrameReader::new();
    let (mut at, mut message_start, mut fds, mut truncated) = (0, 0, 0, false);
    while at < stream.len() {
        let read = reads.next().unwrap_or_default();
        let room = reader.buffer();
        assert!(!room.is_empty(), "no room to read into");
        let bytes = match read.bytes {
            0 => room.len(),
            bytes => bytes.min(room.len()),
        };
        let bytes = bytes.min(stream.len() - at);
        room[..bytes].copy_from_slice(&stream[at..at + bytes]);
        at += bytes;
        fds += read.fds;
        truncated |= read.truncated;
        let ancillary = Ancillary {
            fds: descriptors.several(read.fds),
            truncated: read.truncated,
        };

        let frame = reader.advance(bytes, ancillary);
        let expected = Expected::at(&stream[..at], message_start);
        let Some(expected) = expected else {
            assert!(frame.is_none(), "a message without a whole header");
            continue;
        };
        assert!(at <= expected.end, "read beyond the message");
        assert_eq!(
            frame.is_some(),
            at == expected.known_at(),
            "{expected:?} at {at}"
        );
        match frame {
            None => {}
            Some(Frame::Rejected(header, rejection)) => {
                assert_eq!(header, expected.header);
                assert!(expected.refused || truncated || fds > MAX_MSG_FDS);
                assert_ne!(rejection.errno as i32, 0);
                if truncated && !expected.refused && fds <= MAX_MSG_FDS {
                    assert_eq!(rejection.errno, Errno::EMFILE);
                }
                requests::check_error(&header, rejection);
            }
            Some(Frame::Message(message)) => {
                assert!(!expected.refused && !truncated && fds <= MAX_MSG_FDS);
                assert_eq!(message.header, expected.header);
                let payload = &stream[expected.start + HEADER_SIZE..expected.end];
                assert_eq!(message.payload, payload);
                assert_eq!(message.fds.len(), fds);
                requests::check(message);
            }
        }
        if at == expected.end {
            (message_start, fds, truncated) = (at, 0, false);
        }
        assert_eq!(reader.in_message(), at != message_start);
    }
    drop(reader);
    descriptors.assert_all_closed();
}
