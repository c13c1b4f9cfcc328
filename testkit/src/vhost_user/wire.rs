//! Messages.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;

use nix::poll::{PollFd, PollFlags, poll};
use vfio_user::socket;
use zerocopy::{FromBytes, Immutable, KnownLayout};

use super::{Error, Result, TIMEOUT};

/// Requests of the front-end ("Front-end message types").
#[expect(missing_docs, reason = "the text's own names")]
pub mod code {
    pub const GET_FEATURES: u32 = 1;
    pub const SET_FEATURES: u32 = 2;
    pub const SET_OWNER: u32 = 3;
    pub const RESET_OWNER: u32 = 4;
    pub const SET_MEM_TABLE: u32 = 5;
    pub const SET_LOG_BASE: u32 = 6;
    pub const SET_LOG_FD: u32 = 7;
    pub const SET_VRING_NUM: u32 = 8;
    pub const SET_VRING_ADDR: u32 = 9;
    pub const SET_VRING_BASE: u32 = 10;
    pub const GET_VRING_BASE: u32 = 11;
    pub const SET_VRING_KICK: u32 = 12;
    pub const SET_VRING_CALL: u32 = 13;
    pub const SET_VRING_ERR: u32 = 14;
    pub const GET_PROTOCOL_FEATURES: u32 = 15;
    pub const SET_PROTOCOL_FEATURES: u32 = 16;
    pub const GET_QUEUE_NUM: u32 = 17;
    pub const SET_VRING_ENABLE: u32 = 18;
    pub const SET_BACKEND_REQ_FD: u32 = 21;
    pub const GET_CONFIG: u32 = 24;
    pub const SET_CONFIG: u32 = 25;
    pub const GET_INFLIGHT_FD: u32 = 31;
    pub const SET_INFLIGHT_FD: u32 = 32;
    pub const RESET_DEVICE: u32 = 34;
    pub const VRING_KICK: u32 = 35;
    pub const GET_MAX_MEM_SLOTS: u32 = 36;
    pub const ADD_MEM_REG: u32 = 37;
    pub const REM_MEM_REG: u32 = 38;
    pub const SET_STATUS: u32 = 39;
    pub const GET_STATUS: u32 = 40;
}

/// Requests of the back-end ("Back-end message types").
pub mod backend_code {
    /// `VHOST_USER_BACKEND_CONFIG_CHANGE_MSG`.
    pub const CONFIG_CHANGE: u32 = 2;
}

const VERSION: u32 = 1;
const REPLY: u32 = 1 << 2;
const NEED_REPLY: u32 = 1 << 3;
const HEADER: usize = 12;
const MAX_PAYLOAD: usize = 64 << 10;

/// A message as it came.
#[derive(Debug)]
pub struct Answer {
    /// Request number.
    pub request: u32,
    /// Version and bits.
    pub flags: u32,
    /// What follows the header.
    pub payload: Vec<u8>,
    /// What came with it.
    pub fds: Vec<OwnedFd>,
}

impl Answer {
    /// The payload as exactly this structure.
    ///
    /// # Errors
    /// [`Error::Protocol`] for another size.
    pub fn exactly<T: FromBytes + KnownLayout + Immutable>(&self) -> Result<T> {
        T::read_from_bytes(&self.payload).map_err(|_| {
            Error::protocol(format!(
                "request {} answered with {} bytes, not {}",
                self.request,
                self.payload.len(),
                size_of::<T>()
            ))
        })
    }
}

/// The message level of a connection.
#[derive(Debug)]
pub struct Wire {
    stream: UnixStream,
}

impl Wire {
    /// Connects. Nothing is sent.
    ///
    /// # Errors
    /// Those of `connect`.
    pub fn connect(path: &Path) -> Result<Self> {
        Self::over(UnixStream::connect(path)?)
    }

    /// Uses a connected socket.
    ///
    /// # Errors
    /// When the socket takes no timeout.
    pub fn over(stream: UnixStream) -> Result<Self> {
        stream.set_read_timeout(Some(TIMEOUT))?;
        stream.set_write_timeout(Some(TIMEOUT))?;
        Ok(Self { stream })
    }

    /// The socket.
    #[must_use]
    pub fn stream(&self) -> &UnixStream {
        &self.stream
    }

    /// A message as bytes, with these bits beside the version.
    #[must_use]
    pub fn message(request: u32, bits: u32, payload: &[u8]) -> Vec<u8> {
        let size = u32::try_from(payload.len()).unwrap_or(u32::MAX);
        let mut bytes = Vec::with_capacity(HEADER + payload.len());
        for word in [request, VERSION | bits, size] {
            bytes.extend_from_slice(&word.to_ne_bytes());
        }
        bytes.extend_from_slice(payload);
        bytes
    }

    /// Sends any bytes, the descriptors with the first of them.
    ///
    /// # Errors
    /// Those of `sendmsg`.
    pub fn send_bytes(&mut self, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> Result<()> {
        let (mut rest, mut fds) = (bytes, fds);
        while !rest.is_empty() {
            let sent = socket::send(&self.stream, rest, fds)?;
            fds = &[];
            rest = rest.get(sent..).unwrap_or_default();
        }
        Ok(())
    }

    /// Sends a message to which no answer is expected.
    ///
    /// # Errors
    /// Those of `sendmsg`.
    pub fn send(&mut self, request: u32, payload: &[u8], fds: &[BorrowedFd<'_>]) -> Result<()> {
        self.send_bytes(&Self::message(request, 0, payload), fds)
    }

    /// Sends a message with NEED_REPLY and takes the answer.
    ///
    /// # Errors
    /// [`Error::Refused`] if the answer is not 0.
    pub fn acknowledged(
        &mut self,
        request: u32,
        payload: &[u8],
        fds: &[BorrowedFd<'_>],
    ) -> Result<()> {
        self.send_bytes(&Self::message(request, NEED_REPLY, payload), fds)?;
        match self.answer_to(request)?.exactly::<u64>()? {
            0 => Ok(()),
            _ => Err(Error::Refused(request)),
        }
    }

    /// Sends a message that has an answer of its own.
    ///
    /// # Errors
    /// Those of the socket; [`Error::Protocol`] for an answer to something else.
    pub fn ask(&mut self, request: u32, payload: &[u8], fds: &[BorrowedFd<'_>]) -> Result<Answer> {
        self.send(request, payload, fds)?;
        self.answer_to(request)
    }

    /// Receives the answer to a request.
    ///
    /// # Errors
    /// As [`Wire::ask`].
    pub fn answer_to(&mut self, request: u32) -> Result<Answer> {
        let answer = self.receive()?;
        if answer.request != request || answer.flags != VERSION | REPLY {
            return Err(Error::protocol(format!(
                "request {request} answered by {answer:?}"
            )));
        }
        Ok(answer)
    }

    /// Receives the next message, whatever it is.
    ///
    /// # Errors
    /// [`Error::Closed`] at the end of the stream.
    pub fn receive(&mut self) -> Result<Answer> {
        let mut fds = Vec::new();
        let mut header = [0; HEADER];
        self.fill(&mut header, &mut fds)?;
        let (words, _) =
            <[u32; 3]>::read_from_prefix(&header).map_err(|_| Error::protocol("a short header"))?;
        let [request, flags, size] = words;
        let size = size as usize;
        if size > MAX_PAYLOAD {
            return Err(Error::protocol(format!("a message of {size} bytes")));
        }
        let mut payload = vec![0; size];
        self.fill(&mut payload, &mut fds)?;
        Ok(Answer {
            request,
            flags,
            payload,
            fds,
        })
    }

    fn fill(&mut self, buffer: &mut [u8], fds: &mut Vec<OwnedFd>) -> Result<()> {
        let mut at = 0;
        while at < buffer.len() {
            let (count, ancillary) = socket::receive(&self.stream, &mut buffer[at..])?;
            if count == 0 {
                return Err(Error::Closed);
            }
            fds.extend(ancillary.fds);
            at += count;
        }
        Ok(())
    }

    /// Answers a request of the peer's (on the back-end's channel) with success, if it asks for an answer.
    ///
    /// # Errors
    /// Those of the socket.
    pub fn acknowledge(&mut self, request: &Answer) -> Result<()> {
        if request.flags & NEED_REPLY == 0 {
            return Ok(());
        }
        let message = Self::message(request.request, REPLY, &0u64.to_ne_bytes());
        self.send_bytes(&message, &[])
    }

    /// Whether the peer has sent something, or closed, within `millis` milliseconds.
    ///
    /// # Errors
    /// Those of `poll`.
    pub fn readable(&self, millis: u16) -> Result<bool> {
        let mut fds = [PollFd::new(self.stream.as_fd(), PollFlags::POLLIN)];
        Ok(poll(&mut fds, millis).map_err(io::Error::from)? > 0)
    }

    /// Waits for the peer to close the connection, and discards what it still says.
    ///
    /// # Errors
    /// [`Error::TimedOut`] when it does not.
    pub fn wait_closed(&mut self) -> Result<()> {
        loop {
            match self.receive() {
                Ok(_) => {}
                Err(Error::Closed) => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    }
}
