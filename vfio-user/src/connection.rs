//! The two directions of a client's socket, neither of which ever blocks.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use guest_memory::SharedMemory;
use nix::errno::Errno;
use reactor::{Cx, WatchId};
use unix_socket::stream as socket;

use crate::frame::{Frame, FrameReader};
use crate::reply::{self, Reply};
use crate::tags;
use crate::wire::Header;

/// What an output buffer may keep between replies, in bytes.
const KEPT: usize = 16 << 10;

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
        match socket::receive(&self.socket, self.reader.buffer()) {
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

/// To the client: at most one reply, since no request is read while one waits to be taken.
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

    /// Answers a request, unless it takes no answer.
    pub(crate) fn reply(&mut self, request: &Header, reply: &Reply<'_>) {
        if !request.no_reply() {
            reply::encode(request, reply, &mut self.bytes);
        }
    }

    /// As [`reply`](Self::reply), with a descriptor.
    pub(crate) fn reply_with(
        &mut self,
        request: &Header,
        reply: &Reply<'_>,
        memory: Option<SharedMemory>,
    ) {
        if !request.no_reply() {
            self.memory = memory;
            reply::encode(request, reply, &mut self.bytes);
        }
    }

    /// Refuses a request, unless it takes no answer.
    pub(crate) fn refuse(&mut self, request: &Header, errno: Errno) {
        if !request.no_reply() {
            reply::encode_error(request, errno, &mut self.bytes);
        }
    }

    /// Sends what can be sent, and has the reactor tell when more can be.
    pub(crate) fn flush(&mut self, cx: &mut Cx) -> io::Result<()> {
        if self.is_empty() {
            return Ok(());
        }
        while let Some(rest) = self.bytes.get(self.sent..).filter(|rest| !rest.is_empty()) {
            let memory = self.memory.as_ref().map(SharedMemory::fd);
            match socket::send(&self.socket, rest, memory.as_slice()) {
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
        self.bytes.shrink_to(KEPT);
        self.sent = 0;
        self.unwatch(cx);
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

    fn unwatch(&mut self, cx: &mut Cx) {
        if let Some(watch) = self.watch.take() {
            cx.unwatch(watch);
        }
    }
}
