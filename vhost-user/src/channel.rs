//! The second socket, on which the back-end makes requests (BACKEND_REQ). There is one: the configuration has changed.
//!
//! At most one is unanswered, and changes meanwhile become one more when it is answered: a client that never reads makes nothing grow.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use nix::libc::{POLLERR, POLLHUP, POLLIN, POLLOUT};
use nix::sys::stat::{SFlag, fstat};
use reactor::{Cx, WatchId};
use unix_socket::stream;
use zerocopy::{FromBytes, IntoBytes};

use crate::Refusal;
use crate::tags;
use crate::wire::{
    BACKEND_CONFIG_CHANGE, FLAG_NEED_REPLY, FLAG_REPLY, HEADER_SIZE, Header, VERSION,
};

/// A whole answer: a header and a `u64`, 0 for success.
const ANSWER: usize = HEADER_SIZE + size_of::<u64>();

/// See the [module documentation](self).
#[derive(Debug)]
pub(crate) struct Channel {
    socket: Arc<OwnedFd>,
    watch: Option<WatchId>,
    /// A message is on its way and will be answered.
    awaits_answer: bool,
    /// There is news that the client was not told.
    has_news: bool,
    answer: [u8; ANSWER],
    filled: usize,
}

impl Channel {
    /// A channel over the client's socket.
    pub(crate) fn new(fd: OwnedFd) -> Result<Self, Refusal> {
        let stat = fstat(&fd)
            .map_err(|errno| Refusal::new(format!("the back-end's own socket: {errno}")))?;
        if SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits()) != SFlag::S_IFSOCK {
            return Err(Refusal::new("the back-end's own socket is not a socket"));
        }
        Ok(Self {
            socket: Arc::new(fd),
            watch: None,
            awaits_answer: false,
            has_news: false,
            answer: [0; ANSWER],
            filled: 0,
        })
    }

    /// Ends it. The watch ends with it.
    pub(crate) fn close(mut self, cx: &mut Cx) {
        if let Some(watch) = self.watch.take() {
            cx.unwatch(watch);
        }
    }

    /// Tells the client that the configuration has changed.
    pub(crate) fn config_changed(&mut self, cx: &mut Cx, acknowledges: bool) {
        self.has_news = true;
        if self.watch.is_none() {
            let events = (POLLIN | POLLOUT) as u32;
            // Without a watch answers are looked for with the next news.
            self.watch = cx
                .watch(Arc::clone(&self.socket), events, tags::CHANNEL)
                .ok();
        }
        // An error shows again, and is dealt with, when the socket is ready.
        let _ = self.tell(acknowledges);
    }

    /// The socket is ready for something. `false` when it has come to its end.
    pub(crate) fn ready(&mut self, _cx: &mut Cx, events: u32, acknowledges: bool) -> bool {
        let read = self.read();
        let has_ended = events & (POLLHUP | POLLERR) as u32 != 0;
        read.is_ok() && !has_ended && self.tell(acknowledges).is_ok()
    }

    fn tell(&mut self, acknowledges: bool) -> io::Result<()> {
        if !self.has_news || self.awaits_answer {
            return Ok(());
        }
        let need_reply = if acknowledges { FLAG_NEED_REPLY } else { 0 };
        let message = Header {
            request: BACKEND_CONFIG_CHANGE,
            flags: VERSION | need_reply,
            size: 0,
        };
        match stream::send_now(&self.socket, message.as_bytes(), &[]) {
            Ok(HEADER_SIZE) => {
                self.has_news = false;
                self.awaits_answer = acknowledges;
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            // Twelve bytes are taken whole or not at all, or something is wrong with the socket.
            Ok(_) => Err(io::ErrorKind::WriteZero.into()),
            Err(error) => Err(error),
        }
    }

    /// Takes answers until there are none.
    fn read(&mut self) -> io::Result<()> {
        loop {
            let room = self.answer.get_mut(self.filled..).unwrap_or_default();
            match stream::receive_now(&self.socket, room) {
                Ok((0, _)) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok((count, _)) => self.filled = self.filled.saturating_add(count),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
            if self.filled >= ANSWER {
                self.filled = 0;
                self.take_answer()?;
            }
        }
    }

    fn take_answer(&mut self) -> io::Result<()> {
        let invalid = || io::Error::from(io::ErrorKind::InvalidData);
        let (header, value) = Header::read_from_prefix(&self.answer).map_err(|_| invalid())?;
        let is_answer = header.request == BACKEND_CONFIG_CHANGE
            && header.flags & FLAG_REPLY != 0
            && header.size as usize == size_of::<u64>()
            && self.awaits_answer;
        if !is_answer {
            return Err(invalid());
        }
        self.awaits_answer = false;
        if u64::read_from_bytes(value).is_ok_and(|value| value != 0) {
            tracing::debug!("the client could not take a change of the configuration");
        }
        Ok(())
    }
}
