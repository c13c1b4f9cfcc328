//! The two directions of a client's socket, neither of which ever blocks.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use guest_memory::SharedMemory;
use reactor::{Cx, WatchId};
use unix_socket::stream;

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

/// To the client: at most one answer, since no request is read while one waits to be taken.
#[derive(Debug)]
pub(crate) struct Output {
    socket: Arc<OwnedFd>,
    bytes: Vec<u8>,
    sent: usize,
    /// Goes with the first byte.
    memory: Option<SharedMemory>,
    /// While the socket is full.
    watch: Option<WatchId>,
}

impl Output {
    pub(crate) fn new(socket: Arc<OwnedFd>) -> Self {
        Self {
            socket,
            bytes: Vec::new(),
            sent: 0,
            memory: None,
            watch: None,
        }
    }

    /// Whether everything has been sent.
    pub(crate) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Answers a request, with a descriptor if need be.
    pub(crate) fn reply(&mut self, request: &Header, payload: &[u8], memory: Option<SharedMemory>) {
        frame::encode_reply(request, payload, &mut self.bytes);
        self.memory = memory;
    }

    /// Sends what can be sent, and has the reactor tell when more can be.
    pub(crate) fn flush(&mut self, cx: &mut Cx) -> io::Result<()> {
        if self.is_empty() {
            return Ok(());
        }
        while let Some(rest) = self.bytes.get(self.sent..).filter(|rest| !rest.is_empty()) {
            let memory = self.memory.as_ref().map(SharedMemory::fd);
            match stream::send(&self.socket, rest, memory.as_slice()) {
                Ok(count) => {
                    self.sent = self.sent.saturating_add(count);
                    self.memory = None;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return self.watch(cx);
                }
                Err(error) => return Err(error),
            }
        }
        self.bytes.clear();
        self.sent = 0;
        if let Some(watch) = self.watch.take() {
            cx.unwatch(watch);
        }
        Ok(())
    }

    fn watch(&mut self, cx: &mut Cx) -> io::Result<()> {
        if self.watch.is_none() {
            let events = nix::libc::POLLOUT as u32;
            let socket = Arc::clone(&self.socket);
            self.watch = Some(cx.watch(socket, events, tags::WRITABLE)?);
        }
        Ok(())
    }
}
