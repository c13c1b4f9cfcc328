//! `recvmsg` and `sendmsg` with descriptors, for both ends of a protocol.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::cmsg_space;
use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};

/// Most descriptors that Linux passes with one `sendmsg` (SCM_MAX_FD). Room for all of them, so that the kernel
/// never has to drop any for want of room, and "dropped" always means the process' limit.
const SCM_MAX_FD: usize = 253;

/// What one read of the socket brought, beside bytes.
#[derive(Debug, Default)]
pub struct Ancillary {
    /// Descriptors, in the order they were sent.
    pub fds: Vec<OwnedFd>,
    /// The kernel dropped descriptors: this process has too many open.
    pub truncated: bool,
}

/// Reads into `buffer`. Returns the number of bytes (0 at the end of the stream) and what came with them.
///
/// # Errors
///
/// Those of `recvmsg`; interruption by a signal is retried.
pub fn receive(socket: impl AsFd, buffer: &mut [u8]) -> io::Result<(usize, Ancillary)> {
    receive_with(socket, buffer, RecvFlags::empty())
}

/// As [`receive`], but never waits, also if the socket would: whoever shares the socket can make it wait.
///
/// # Errors
///
/// As [`receive`]; `WouldBlock` when nothing is there.
pub fn receive_now(socket: impl AsFd, buffer: &mut [u8]) -> io::Result<(usize, Ancillary)> {
    receive_with(socket, buffer, RecvFlags::DONTWAIT)
}

fn receive_with(
    socket: impl AsFd,
    buffer: &mut [u8],
    flags: RecvFlags,
) -> io::Result<(usize, Ancillary)> {
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(SCM_MAX_FD))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = loop {
        let mut iov = [IoSliceMut::new(&mut *buffer)];
        match recvmsg(
            socket.as_fd(),
            &mut iov,
            &mut control,
            flags | RecvFlags::CMSG_CLOEXEC,
        ) {
            Err(Errno::INTR) => {}
            result => break result?,
        }
    };
    let mut ancillary = Ancillary {
        fds: Vec::new(),
        truncated: received.flags.contains(ReturnFlags::CTRUNC),
    };
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(fds) = message {
            ancillary.fds.extend(fds);
        }
    }
    Ok((received.bytes, ancillary))
}

/// Writes `bytes`, and `fds` with the first of them. Returns how many bytes were taken, which may be fewer than
/// given; the descriptors went with them if any were.
///
/// # Errors
///
/// Those of `sendmsg`; interruption by a signal is retried, and no SIGPIPE is raised. `InvalidInput` for more
/// descriptors than one message of the kernel's holds.
pub fn send(socket: impl AsFd, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<usize> {
    send_with(socket, bytes, fds, SendFlags::empty())
}

/// As [`send`], but never waits, also if the socket would: whoever shares the socket can make it wait.
///
/// # Errors
///
/// As [`send`]; `WouldBlock` when there is no room.
pub fn send_now(socket: impl AsFd, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<usize> {
    send_with(socket, bytes, fds, SendFlags::DONTWAIT)
}

fn send_with(
    socket: impl AsFd,
    bytes: &[u8],
    fds: &[BorrowedFd<'_>],
    flags: SendFlags,
) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(SCM_MAX_FD))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    loop {
        let iov = [IoSlice::new(bytes)];
        match sendmsg(
            socket.as_fd(),
            &iov,
            &mut control,
            flags | SendFlags::NOSIGNAL,
        ) {
            Err(Errno::INTR) => {}
            result => return Ok(result?),
        }
    }
}

#[cfg(test)]
mod tests;
