//! One writer or many readers of a file, across bdevs, processes and programs.
//!
//! Open-file-description locks: they belong to the open file, so two opens in one process exclude each other too, and they go
//! with the last descriptor whatever happens to the process. A writer locks the whole file. A reader takes the two bytes by
//! which QEMU says "I read this" and "nobody may write this", and looks at the one by which it says "I write this". So QEMU and
//! vtarget keep each other's writers out while their readers share.

use std::os::fd::BorrowedFd;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;

/// QEMU's byte for "reads consistent data".
const READS: i64 = 100;
/// QEMU's byte for "writes".
const WRITES: i64 = 101;
/// QEMU's byte for "does not share writing".
const UNSHARED_WRITE: i64 = 201;

/// How a claim went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Claim {
    /// It holds while the file is open.
    Held,
    /// Somebody else's claim excludes ours.
    Taken,
    /// The file system has no locks.
    Unavailable(Errno),
}

fn request(kind: i32, start: i64, len: i64) -> libc::flock {
    libc::flock {
        l_type: i16::try_from(kind).unwrap_or(i16::MAX),
        l_whence: i16::try_from(libc::SEEK_SET).unwrap_or(0),
        l_start: start,
        l_len: len,
        l_pid: 0,
    }
}

fn lock(fd: BorrowedFd<'_>, kind: i32, start: i64, len: i64) -> Result<(), Errno> {
    let lock = request(kind, start, len);
    fcntl(fd, FcntlArg::F_OFD_SETLK(&lock)).map(drop)
}

/// Whether nobody else has any lock on the byte.
fn is_free(fd: BorrowedFd<'_>, byte: i64) -> Result<bool, Errno> {
    let mut lock = request(libc::F_WRLCK, byte, 1);
    fcntl(fd, FcntlArg::F_OFD_GETLK(&mut lock))?;
    Ok(i32::from(lock.l_type) == libc::F_UNLCK)
}

fn claim_for_reading(fd: BorrowedFd<'_>) -> Result<(), Errno> {
    lock(fd, libc::F_RDLCK, READS, 1)?;
    lock(fd, libc::F_RDLCK, UNSHARED_WRITE, 1)?;
    if is_free(fd, WRITES)? {
        Ok(())
    } else {
        Err(Errno::EAGAIN)
    }
}

/// Claims the file for writing or for reading.
pub(super) fn claim(fd: BorrowedFd<'_>, write: bool) -> Claim {
    let locked = if write {
        lock(fd, libc::F_WRLCK, 0, 0)
    } else {
        claim_for_reading(fd)
    };
    match locked {
        Ok(()) => Claim::Held,
        Err(Errno::EAGAIN | Errno::EACCES) => Claim::Taken,
        Err(errno) => Claim::Unavailable(errno),
    }
}

/// Gives a claim up before the file is closed. The kernel may hold a file that was registered with a ring for a while after
/// its last user, and its locks with it.
pub(super) fn give_up(fd: BorrowedFd<'_>) {
    // If that fails the claim goes with the file.
    let _ = lock(fd, libc::F_UNLCK, 0, 0);
}

#[cfg(test)]
mod tests;
