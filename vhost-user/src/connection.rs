//! The two directions of a client's socket, neither of which ever blocks.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use guest_memory::SharedMemory;
use reactor::Cx;
use unix_socket::{Outbox, stream};

use crate::frame::{self, Frame, FrameReader};
use crate::tags;
use crate::wire::Header;

/// What one read of the socket brought.
pub(crate) enum Received<'a> {
    /// A whole message.
    Frame(Frame<'a>),
    /// Part of one.
    Part,
    /// Nothing for now.
    Nothing,
    /// The client has said everything, unless the stream ends within a message.
    End { in_message: bool },
}

/// From the client.
#[derive(Debug)]
pub(crate) struct Input {
    socket: Arc<OwnedFd>,
    reader: FrameReader,
}

impl Input {
    pub(crate) fn new(socket: Arc<OwnedFd>) -> Self {
        Self {
            socket,
            reader: FrameReader::new(),
        }
    }

    /// One read.
    pub(crate) fn receive(&mut self) -> io::Result<Received<'_>> {
        match stream::receive(&self.socket, self.reader.buffer()) {
            Ok((0, _)) => Ok(Received::End {
                in_message: self.reader.in_message(),
            }),
            Ok((count, ancillary)) => Ok(self
                .reader
                .advance(count, ancillary)
                .map_or(Received::Part, Received::Frame)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(Received::Nothing),
            Err(error) => Err(error),
        }
    }
}

/// To the client.
#[derive(Debug)]
pub(crate) struct Output(Outbox<SharedMemory>);

impl Output {
    pub(crate) fn new(socket: Arc<OwnedFd>) -> Self {
        Self(Outbox::new(socket, tags::WRITABLE))
    }

    /// Whether everything has been sent.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Answers a request, with a descriptor if need be.
    pub(crate) fn reply(&mut self, request: &Header, payload: &[u8], memory: Option<SharedMemory>) {
        self.0
            .put(memory, |bytes| frame::encode_reply(request, payload, bytes));
    }

    /// See [`Outbox::flush`].
    pub(crate) fn flush(&mut self, cx: &mut Cx) -> io::Result<()> {
        self.0.flush(cx)
    }
}
