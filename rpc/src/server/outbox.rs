//! Replies on their way to one client.

use std::io::{self, ErrorKind, Write};

/// A buffer this large is given back to the allocator once it is empty.
const KEEP: usize = 64 * 1024;

/// Bytes to be written when the client reads. Small replies share one buffer, and so one system
/// call.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    bytes: Vec<u8>,
    sent: usize,
}

impl Outbox {
    /// Bytes waiting.
    pub(super) fn len(&self) -> usize {
        self.bytes.len().saturating_sub(self.sent)
    }

    /// Appends one reply and its newline.
    pub(super) fn push(&mut self, mut reply: Vec<u8>) {
        reply.push(b'\n');
        if self.bytes.is_empty() {
            self.bytes = reply;
        } else {
            self.bytes.extend_from_slice(&reply);
        }
    }

    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        self.sent = 0;
        if self.bytes.capacity() > KEEP {
            self.bytes = Vec::new();
        }
    }

    /// Writes what the peer takes. `Ok(false)` means that it takes no more now.
    pub(super) fn write_to(&mut self, peer: &mut impl Write) -> io::Result<bool> {
        while let Some(rest @ [_, ..]) = self.bytes.get(self.sent..) {
            match peer.write(rest) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(count) => self.sent = self.sent.saturating_add(count),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    // Moving the rest only when it is the smaller part keeps the cost linear.
                    if self.sent > self.bytes.len() / 2 {
                        self.bytes.drain(..self.sent);
                        self.sent = 0;
                    }
                    return Ok(false);
                }
                Err(error) => return Err(error),
            }
        }
        self.clear();
        Ok(true)
    }
}
