//! The two directions of a client's socket, neither of which ever blocks.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use guest_memory::SharedMemory;
use nix::errno::Errno;
use reactor::Cx;
use unix_socket::{Outbox, stream};

use crate::frame::{Frame, FrameReader};
use crate::reply::{self, Reply};
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

    /// Answers a request, unless it takes no answer.
    pub(crate) fn reply(&mut self, request: &Header, reply: &Reply<'_>) {
        self.reply_with(request, reply, None);
    }

    /// As [`reply`](Self::reply), with a descriptor.
    pub(crate) fn reply_with(
        &mut self,
        request: &Header,
        reply: &Reply<'_>,
        memory: Option<SharedMemory>,
    ) {
        if !request.no_reply() {
            self.0
                .put(memory, |bytes| reply::encode(request, reply, bytes));
        }
    }

    /// Refuses a request, unless it takes no answer.
    pub(crate) fn refuse(&mut self, request: &Header, errno: Errno) {
        if !request.no_reply() {
            self.0
                .put(None, |bytes| reply::encode_error(request, errno, bytes));
        }
    }

    /// See [`Outbox::flush`].
    pub(crate) fn flush(&mut self, cx: &mut Cx) -> io::Result<()> {
        self.0.flush(cx)
    }
}
