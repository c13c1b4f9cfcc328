//! What the kernel says about direct I/O on a file.
#![allow(
    unsafe_code,
    reason = "no safe wrapper of statx tells the direct I/O alignment"
)]

use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd};

use nix::libc;

/// Alignment that direct I/O asks for, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Align {
    /// Of every buffer's address.
    pub(super) memory: usize,
    /// Of every buffer's length and of positions on the disk.
    pub(super) offset: usize,
}

/// An answer of the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum DirectIo {
    /// The file takes direct I/O with this alignment.
    Takes(Align),
    /// The file takes no direct I/O.
    Refuses,
    /// The kernel (before 6.1) or the file system does not say.
    Unknown,
}

/// Asks by `STATX_DIOALIGN`.
pub(super) fn direct_io(fd: BorrowedFd<'_>) -> DirectIo {
    let mut statx = MaybeUninit::<libc::statx>::zeroed();
    // SAFETY: the path is an empty C string and the buffer is a whole `struct statx`; the kernel writes nothing else.
    let result = unsafe {
        libc::statx(
            fd.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            libc::STATX_DIOALIGN,
            statx.as_mut_ptr(),
        )
    };
    if result != 0 {
        return DirectIo::Unknown;
    }
    // SAFETY: all bytes were zeroed, which is a value of this plain structure, and the kernel has filled it.
    let statx = unsafe { statx.assume_init() };
    if statx.stx_mask & libc::STATX_DIOALIGN == 0 {
        return DirectIo::Unknown;
    }
    let usable = |align: u32| (align.is_power_of_two()).then_some(align as usize);
    match (
        usable(statx.stx_dio_mem_align),
        usable(statx.stx_dio_offset_align),
    ) {
        (Some(memory), Some(offset)) => DirectIo::Takes(Align { memory, offset }),
        _ => DirectIo::Refuses,
    }
}
