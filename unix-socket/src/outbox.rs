//! Answers on their way to a client, with a socket that never makes the reactor wait.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use reactor::{Cx, WatchId};

use crate::stream;

/// What the buffer may keep between answers, in bytes.
const KEPT: usize = 16 << 10;

/// To the client: at most one answer at a time, since no request is read while one waits to be taken. `F` is what may
/// travel with it: something that holds a descriptor.
#[derive(Debug)]
pub struct Outbox<F> {
    socket: Arc<OwnedFd>,
    /// Of the watch for room in the socket.
    tag: u64,
    bytes: Vec<u8>,
    sent: usize,
    /// Goes with the first byte.
    attached: Option<F>,
    /// While the socket is full.
    watch: Option<WatchId>,
}

impl<F: AsFd> Outbox<F> {
    /// Nothing to send. When a full socket has room again, the poller that flushes hears of it under `tag`
    /// ([`reactor::Event::Ready`]) and is to flush again.
    #[must_use]
    pub fn new(socket: Arc<OwnedFd>, tag: u64) -> Self {
        Self {
            socket,
            tag,
            bytes: Vec::new(),
            sent: 0,
            attached: None,
            watch: None,
        }
    }

    /// Whether everything has been sent.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Puts an answer in, which `encode` appends, with a descriptor if need be.
    pub fn put(&mut self, attached: Option<F>, encode: impl FnOnce(&mut Vec<u8>)) {
        encode(&mut self.bytes);
        self.attached = attached;
    }

    /// Sends what can be sent, and has the reactor tell when more can be.
    ///
    /// # Errors
    /// Those of `sendmsg`, and of [`Cx::watch`]: the connection is of no more use.
    pub fn flush(&mut self, cx: &mut Cx) -> io::Result<()> {
        if self.is_empty() {
            return Ok(());
        }
        while let Some(rest) = self.bytes.get(self.sent..).filter(|rest| !rest.is_empty()) {
            let attached = self.attached.as_ref().map(AsFd::as_fd);
            match stream::send(&self.socket, rest, attached.as_slice()) {
                Ok(count) => {
                    self.sent = self.sent.saturating_add(count);
                    self.attached = None;
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
        if let Some(watch) = self.watch.take() {
            cx.unwatch(watch);
        }
        Ok(())
    }

    fn watch(&mut self, cx: &mut Cx) -> io::Result<()> {
        if self.watch.is_none() {
            let events = nix::libc::POLLOUT as u32;
            self.watch = Some(cx.watch(Arc::clone(&self.socket), events, self.tag)?);
        }
        Ok(())
    }
}
