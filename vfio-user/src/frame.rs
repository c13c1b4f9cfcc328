//! Framing: a byte stream with descriptors in it becomes messages.
//!
//! Sans-I/O: the owner of the socket reads into [`FrameReader::buffer`] and reports with
//! [`FrameReader::advance`]. The buffer never reaches beyond the message being read. That costs a second read per
//! message (first the header, then the rest), and buys the one thing that cannot be repaired later: descriptors
//! arrive with the bytes they were sent with, so whatever arrives while a message is being read is that
//! message's. Reading ahead would leave open which of several messages a descriptor belongs to.
//!
//! The header's size field alone decides where a message ends, whatever else is wrong with it: a rejected
//! message's payload is skipped, never taken for the next message.

use std::os::fd::OwnedFd;

use nix::errno::Errno;
pub use unix_socket::Ancillary;

use crate::Rejection;
use crate::wire::{HEADER_SIZE, Header, MAX_MESSAGE_SIZE, MAX_MSG_FDS};

/// The payload buffer grows by this much as bytes arrive, so that a size field alone reserves no memory, and
/// shrinks back to it afterwards. Every message but a large region access fits.
const CHUNK: usize = 16 << 10;

/// A message whose framing is sound.
#[derive(Debug)]
pub struct Message<'a> {
    /// Its header.
    pub header: Header,
    /// What follows the header, as long as the header says.
    pub payload: &'a [u8],
    /// At most [`MAX_MSG_FDS`] descriptors; dropping them closes them.
    pub fds: Vec<OwnedFd>,
}

/// What the reader found.
#[derive(Debug)]
pub enum Frame<'a> {
    /// A whole message.
    Message(Message<'a>),
    /// A message to be refused whatever it says. Its payload is skipped; its descriptors are closed.
    Rejected(Header, Rejection),
}

#[derive(Debug)]
enum State {
    /// Of the header, `filled` bytes are there.
    Header { filled: usize },
    /// Of the payload's `total` bytes, `filled` are there.
    Payload { filled: usize, total: usize },
    /// A refused message's payload.
    Skip { remaining: usize },
}

const START: State = State::Header { filled: 0 };

/// Reassembles messages. See the [module documentation](self).
#[derive(Debug)]
pub struct FrameReader {
    state: State,
    header: [u8; HEADER_SIZE],
    payload: Vec<u8>,
    fds: Vec<OwnedFd>,
    rejected: Option<Rejection>,
}

impl Default for FrameReader {
    fn default() -> Self {
        Self::new()
    }
}

impl FrameReader {
    /// A reader at the start of a stream.
    pub fn new() -> Self {
        Self {
            state: START,
            header: [0; HEADER_SIZE],
            payload: Vec::new(),
            fds: Vec::new(),
            rejected: None,
        }
    }

    /// Whether a message has begun and is not complete: the stream must not end here.
    pub fn in_message(&self) -> bool {
        !matches!(self.state, State::Header { filled: 0 })
    }

    /// Where the next bytes of the stream go. Never empty, never beyond the end of the current message.
    pub fn buffer(&mut self) -> &mut [u8] {
        match self.state {
            State::Header { filled } => self.header.get_mut(filled..).unwrap_or_default(),
            State::Payload { filled, total } => {
                let end = total.min(filled.saturating_add(CHUNK));
                self.prepare(end);
                self.payload.get_mut(filled..end).unwrap_or_default()
            }
            State::Skip { remaining } => {
                let end = remaining.min(CHUNK);
                self.prepare(end);
                self.payload.get_mut(..end).unwrap_or_default()
            }
        }
    }

    /// Reports that the first `count` bytes of [`buffer`](Self::buffer) were filled and `ancillary` came with
    /// them. A `count` of 0 with nothing ancillary changes nothing.
    ///
    /// A frame is returned when a message is complete, or as soon as it is known to be refused.
    pub fn advance(&mut self, count: usize, ancillary: Ancillary) -> Option<Frame<'_>> {
        self.take_ancillary(ancillary);
        match self.state {
            State::Header { filled } => {
                let filled = filled.saturating_add(count);
                if filled < HEADER_SIZE {
                    self.state = State::Header { filled };
                    return None;
                }
                self.header_complete()
            }
            State::Payload { filled, total } => {
                let filled = filled.saturating_add(count);
                if filled < total {
                    self.state = State::Payload { filled, total };
                    return None;
                }
                Some(self.complete(total))
            }
            State::Skip { remaining } => {
                self.fds.clear();
                self.rejected = None;
                self.state = match remaining.saturating_sub(count) {
                    0 => START,
                    remaining => State::Skip { remaining },
                };
                None
            }
        }
    }

    fn take_ancillary(&mut self, ancillary: Ancillary) {
        for fd in ancillary.fds {
            if self.fds.len() < MAX_MSG_FDS {
                self.fds.push(fd);
            } else {
                self.rejected = Some(Rejection::new(
                    Errno::EINVAL,
                    "more file descriptors than a message may carry",
                ));
            }
        }
        if ancillary.truncated {
            // Not the client's fault, but its message is incomplete.
            self.rejected = Some(Rejection::new(
                Errno::EMFILE,
                "file descriptors were lost: this process has too many open; raise its limit (RLIMIT_NOFILE)",
            ));
        }
    }

    fn header_complete(&mut self) -> Option<Frame<'_>> {
        let header = self.header();
        let size = header.message_size as usize;
        let Some(total) = size.checked_sub(HEADER_SIZE) else {
            self.state = START;
            return Some(self.reject(header, "message size is below the header's"));
        };
        if size > MAX_MESSAGE_SIZE {
            self.state = State::Skip { remaining: total };
            return Some(self.reject(header, "message size is above the limit"));
        }
        if total == 0 {
            return Some(self.complete(0));
        }
        self.state = State::Payload { filled: 0, total };
        None
    }

    fn complete(&mut self, total: usize) -> Frame<'_> {
        self.state = START;
        let header = self.header();
        let fds = std::mem::take(&mut self.fds);
        if let Some(rejection) = self.rejected.take() {
            return Frame::Rejected(header, rejection);
        }
        Frame::Message(Message {
            header,
            payload: self.payload.get(..total).unwrap_or_default(),
            fds,
        })
    }

    fn reject(&mut self, header: Header, why: &'static str) -> Frame<'_> {
        self.fds.clear();
        self.rejected = None;
        Frame::Rejected(header, Rejection::new(Errno::EINVAL, why))
    }

    fn header(&self) -> Header {
        zerocopy::transmute!(self.header)
    }

    /// Makes the payload buffer at least `len` long, and not much longer than the current message needs.
    fn prepare(&mut self, len: usize) {
        if len <= CHUNK && self.payload.len() > CHUNK {
            self.payload.truncate(CHUNK);
            self.payload.shrink_to_fit();
        }
        if self.payload.len() < len {
            self.payload.resize(len, 0);
        }
    }
}

#[cfg(test)]
mod tests;
