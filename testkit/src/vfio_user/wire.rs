use std::io;
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;

use nix::errno::Errno;
use vfio_user::frame::{Ancillary, Frame, FrameReader};
use vfio_user::socket;
use vfio_user::wire::{
    Command, FLAG_ERROR, FLAGS_TYPE_MASK, HEADER_SIZE, Header, TYPE_COMMAND, TYPE_REPLY,
};
use zerocopy::IntoBytes;

use super::{Error, Result, TIMEOUT};

/// A reply as it came, its framing checked and nothing else.
#[derive(Debug)]
pub struct Reply {
    /// Its header.
    pub header: Header,
    /// What follows the header.
    pub payload: Vec<u8>,
    /// What came with it.
    pub fds: Vec<OwnedFd>,
}

impl Reply {
    /// The payload, or the server's refusal.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`] for an error reply; [`Error::Protocol`] for one with a body, or with the error number
    /// and the flag at odds.
    pub fn into_result(self) -> Result<Self> {
        let refused = self.header.flags & FLAG_ERROR != 0;
        if !refused && self.header.error != 0 {
            return Err(Error::protocol("an error number without the error flag"));
        }
        if !refused {
            return Ok(self);
        }
        if !self.payload.is_empty() || !self.fds.is_empty() {
            return Err(Error::protocol("an error reply has a body"));
        }
        let errno = Errno::from_raw(self.header.error.cast_signed());
        if errno == Errno::UnknownErrno {
            return Err(Error::protocol(format!(
                "unknown errno {}",
                self.header.error
            )));
        }
        Err(Error::Refused(errno))
    }
}

/// The message level of a connection.
#[derive(Debug)]
pub struct Wire {
    stream: UnixStream,
    reader: FrameReader,
    next_id: u16,
}

impl Wire {
    /// Connects. Nothing is sent.
    ///
    /// # Errors
    ///
    /// Those of `connect`.
    pub fn connect(path: &Path) -> Result<Self> {
        Self::new(UnixStream::connect(path).map_err(Error::Io)?)
    }

    /// Uses a connected socket.
    ///
    /// # Errors
    ///
    /// When the socket takes no timeout.
    pub fn new(stream: UnixStream) -> Result<Self> {
        stream.set_read_timeout(Some(TIMEOUT))?;
        stream.set_write_timeout(Some(TIMEOUT))?;
        Ok(Self {
            stream,
            reader: FrameReader::new(),
            next_id: 0,
        })
    }

    /// The socket.
    pub fn stream(&self) -> &UnixStream {
        &self.stream
    }

    /// The id of the next message.
    pub fn next_id(&mut self) -> u16 {
        let id = self.next_id;
        self.next_id = id.wrapping_add(1);
        id
    }

    /// A request as bytes, with a fresh id and a true size.
    pub fn message(&mut self, command: Command, flags: u32, payload: &[u8]) -> (u16, Vec<u8>) {
        let id = self.next_id();
        let size = HEADER_SIZE + payload.len();
        let header = Header {
            message_id: id,
            command: command.0,
            message_size: u32::try_from(size).unwrap_or(u32::MAX),
            flags: TYPE_COMMAND | flags,
            error: 0,
        };
        (id, [header.as_bytes(), payload].concat())
    }

    /// Sends a request in one piece and returns its id.
    ///
    /// # Errors
    ///
    /// Those of `sendmsg`.
    pub fn send(
        &mut self,
        command: Command,
        flags: u32,
        payload: &[u8],
        fds: &[BorrowedFd<'_>],
    ) -> Result<u16> {
        let (id, bytes) = self.message(command, flags, payload);
        self.send_bytes(&bytes, fds)?;
        Ok(id)
    }

    /// Sends any bytes, the descriptors with the first of them.
    ///
    /// # Errors
    ///
    /// Those of `sendmsg`.
    pub fn send_bytes(&mut self, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> Result<()> {
        let mut rest = bytes;
        let mut fds = fds;
        while !rest.is_empty() {
            let sent = socket::send(&self.stream, rest, fds)?;
            fds = &[];
            rest = rest.get(sent..).unwrap_or_default();
        }
        Ok(())
    }

    /// Sends any bytes in pieces of `step`, the descriptors with the first.
    ///
    /// # Errors
    ///
    /// Those of `sendmsg`.
    pub fn send_in_pieces(
        &mut self,
        bytes: &[u8],
        step: usize,
        fds: &[BorrowedFd<'_>],
    ) -> Result<()> {
        let mut fds = fds;
        for piece in bytes.chunks(step.max(1)) {
            self.send_bytes(piece, fds)?;
            fds = &[];
        }
        Ok(())
    }

    /// Receives the next message, whatever it is.
    ///
    /// # Errors
    ///
    /// [`Error::Closed`] at a clean end of the stream, [`Error::Protocol`] for an end within a message or a size
    /// that cannot be.
    pub fn receive(&mut self) -> Result<Reply> {
        loop {
            let (count, ancillary) = socket::receive(&self.stream, self.reader.buffer())?;
            if count == 0 {
                return Err(if self.reader.in_message() {
                    Error::protocol("the stream ends within a message")
                } else {
                    Error::Closed
                });
            }
            match self.reader.advance(count, ancillary) {
                None => {}
                Some(Frame::Rejected(header, rejection)) => {
                    return Err(Error::protocol(format!("{rejection}: {header:?}")));
                }
                Some(Frame::Message(message)) => {
                    return Ok(Reply {
                        header: message.header,
                        payload: message.payload.to_vec(),
                        fds: message.fds,
                    });
                }
            }
        }
    }

    /// Receives the reply to the request `id` and checks that it is one.
    ///
    /// # Errors
    ///
    /// The server's refusal, or what is wrong with the reply.
    pub fn reply_to(&mut self, id: u16, command: Command) -> Result<Reply> {
        let reply = self.receive()?;
        let header = reply.header;
        if header.flags & FLAGS_TYPE_MASK != TYPE_REPLY
            || header.flags & !(TYPE_REPLY | FLAG_ERROR) != 0
        {
            return Err(Error::protocol(format!(
                "flags of a reply: {:#x}",
                header.flags
            )));
        }
        if (header.message_id, header.command()) != (id, command) {
            return Err(Error::protocol(format!(
                "reply to message {} ({}), not to {id} ({command})",
                header.message_id,
                header.command(),
            )));
        }
        reply.into_result()
    }

    /// One `recvmsg` of up to `buffer.len()` bytes, past any framing. Not to be mixed with a message half read.
    ///
    /// # Errors
    ///
    /// Those of `recvmsg`.
    pub fn receive_raw(&mut self, buffer: &mut [u8]) -> Result<(usize, Ancillary)> {
        Ok(socket::receive(&self.stream, buffer)?)
    }

    /// Whether the server has sent something, or closed, within `millis` milliseconds.
    ///
    /// # Errors
    ///
    /// Those of `poll`.
    pub fn readable(&self, millis: u16) -> Result<bool> {
        use nix::poll::{PollFd, PollFlags, poll};
        let mut fds = [PollFd::new(self.stream.as_fd(), PollFlags::POLLIN)];
        let ready = poll(&mut fds, millis).map_err(io::Error::from)?;
        Ok(ready > 0)
    }

    /// Ends this side of the stream; the server's can still be read.
    ///
    /// # Errors
    ///
    /// Those of `shutdown`.
    pub fn finish_sending(&self) -> Result<()> {
        self.stream.shutdown(Shutdown::Write)?;
        Ok(())
    }

    /// Waits for the server to close the connection, and discards what it still says.
    ///
    /// # Errors
    ///
    /// [`Error::TimedOut`] when it does not.
    pub fn wait_closed(&mut self) -> Result<()> {
        let mut buffer = [0; 4096];
        loop {
            match self.receive_raw(&mut buffer) {
                Ok((0, _)) | Err(Error::Closed) => return Ok(()),
                Ok(_) => {}
                Err(error) => return Err(error),
            }
        }
    }
}
