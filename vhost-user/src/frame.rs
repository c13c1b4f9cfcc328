//! Framing: a byte stream with descriptors in it becomes messages.
//!
//! Sans-I/O: the owner of the socket reads into [`FrameReader::buffer`] and reports with [`FrameReader::advance`]. The buffer
//! never reaches beyond the message being read: descriptors arrive with the bytes they were sent with, so whatever arrives while
//! a message is being read is that message's.

use std::os::fd::OwnedFd;

use unix_socket::Ancillary;
use zerocopy::{FromBytes, IntoBytes};

use crate::Refusal;
use crate::wire::{FLAG_REPLY, HEADER_SIZE, Header, MAX_FDS, MAX_PAYLOAD, VERSION, VERSION_MASK};

/// A message whose framing is sound.
#[derive(Debug)]
pub struct Message<'a> {
    /// Its header.
    pub header: Header,
    /// What follows the header, as long as the header says.
    pub payload: &'a [u8],
    /// At most [`MAX_FDS`] descriptors; dropping them closes them.
    pub fds: Vec<OwnedFd>,
}

/// What the reader found.
#[derive(Debug)]
pub enum Frame<'a> {
    /// A whole message.
    Message(Message<'a>),
    /// A message to be refused whatever it says. Its descriptors are closed.
    Rejected(Header, Refusal),
    /// These are not messages of this protocol: nothing after them can be told apart.
    Broken(Refusal),
}

/// Reassembles messages. See the [module documentation](self).
#[derive(Debug)]
pub struct FrameReader {
    header: [u8; HEADER_SIZE],
    payload: [u8; MAX_PAYLOAD],
    /// Bytes of the message that have come.
    filled: usize,
    /// Bytes of the payload; 0 until the header is there.
    size: usize,
    fds: Vec<OwnedFd>,
    rejected: Option<Refusal>,
    broken: bool,
}

impl Default for FrameReader {
    fn default() -> Self {
        Self::new()
    }
}

impl FrameReader {
    /// A reader at the start of a stream.
    #[must_use]
    pub fn new() -> Self {
        Self {
            header: [0; HEADER_SIZE],
            payload: [0; MAX_PAYLOAD],
            filled: 0,
            size: 0,
            fds: Vec::new(),
            rejected: None,
            broken: false,
        }
    }

    /// Whether a message has begun and is not complete: the stream must not end here.
    #[must_use]
    pub fn in_message(&self) -> bool {
        self.filled > 0
    }

    /// Where the next bytes of the stream go. Never empty, never beyond the end of the current message.
    pub fn buffer(&mut self) -> &mut [u8] {
        match self.filled.checked_sub(HEADER_SIZE) {
            None => self.header.get_mut(self.filled..).unwrap_or_default(),
            Some(start) => self.payload.get_mut(start..self.size).unwrap_or_default(),
        }
    }

    /// Takes note of `count` bytes that were read into [`buffer`](Self::buffer), and of what came with them. A message once it
    /// is complete. After [`Frame::Broken`] everything is.
    pub fn advance(&mut self, count: usize, ancillary: Ancillary) -> Option<Frame<'_>> {
        self.take(ancillary);
        let room = self.buffer().len();
        self.filled = self.filled.saturating_add(count.min(room));
        if self.filled < HEADER_SIZE {
            return None;
        }
        let header = Header::read_from_bytes(&self.header).unwrap_or_default();
        if self.filled == HEADER_SIZE
            && let Err(refusal) = self.begin(&header)
        {
            self.broken = true;
            self.fds.clear();
            return Some(Frame::Broken(refusal));
        }
        if self.broken || self.filled < HEADER_SIZE.saturating_add(self.size) {
            return None;
        }
        Some(self.complete(header))
    }

    /// Checks what decides where the message ends.
    fn begin(&mut self, header: &Header) -> Result<(), Refusal> {
        if header.flags & VERSION_MASK != VERSION {
            return Err(Refusal::new(
                "a message is not of version 1 of the protocol",
            ));
        }
        if header.flags & FLAG_REPLY != 0 {
            return Err(Refusal::new("a message is a reply to a request never made"));
        }
        self.size = header.size as usize;
        if self.size > MAX_PAYLOAD {
            return Err(Refusal::new(format!(
                "a message says it has {} bytes, but none has more than {MAX_PAYLOAD}",
                self.size
            )));
        }
        Ok(())
    }

    fn take(&mut self, ancillary: Ancillary) {
        self.fds.extend(ancillary.fds);
        if self.fds.len() > MAX_FDS {
            self.fds.clear();
            self.rejected = Some(Refusal::new("a message has too many descriptors"));
        } else if ancillary.truncated {
            self.rejected = Some(Refusal::new(
                "descriptors were lost because too many files are open: raise RLIMIT_NOFILE",
            ));
        }
    }

    fn complete(&mut self, header: Header) -> Frame<'_> {
        let size = self.size;
        self.filled = 0;
        self.size = 0;
        let fds = std::mem::take(&mut self.fds);
        match self.rejected.take() {
            Some(refusal) => Frame::Rejected(header, refusal),
            None => Frame::Message(Message {
                header,
                payload: self.payload.get(..size).unwrap_or_default(),
                fds,
            }),
        }
    }
}

/// Appends an answer to `request` to `out`.
pub fn encode_reply(request: &Header, payload: &[u8], out: &mut Vec<u8>) {
    let header = Header {
        request: request.request,
        flags: VERSION | FLAG_REPLY,
        // Payloads are bounded by `MAX_PAYLOAD`.
        size: u32::try_from(payload.len()).unwrap_or(u32::MAX),
    };
    out.extend_from_slice(header.as_bytes());
    out.extend_from_slice(payload);
}

#[cfg(test)]
mod tests;
