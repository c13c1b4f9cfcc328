//! The guest's memory, as a client shares it: two files.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use arbitrary::{Result, Unstructured};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::uio::pwrite;
use nix::unistd::ftruncate;
use vhost_user::wire::MemoryRegion;

/// Bytes of each file.
pub(super) const FILE: u64 = 0x1_0000;
/// Where the first file lies in the guest; the second one follows.
pub(super) const GUEST: u64 = 0x10_0000;
/// Where it lies in the client.
pub(super) const USER: u64 = 0x7f00_0000_0000;

pub(super) struct Memory {
    files: [OwnedFd; 2],
}

impl Memory {
    pub(super) fn new() -> Self {
        let file = || {
            let fd = memfd_create(c"guest", MFdFlags::MFD_CLOEXEC).expect("a memfd");
            ftruncate(&fd, FILE.cast_signed()).expect("a memfd's size");
            fd
        };
        Self {
            files: [file(), file()],
        }
    }

    pub(super) fn file(&self, file: u8) -> BorrowedFd<'_> {
        self.files[usize::from(file % 2)].as_fd()
    }

    /// The guest writes.
    pub(super) fn write(&self, guest: u64, bytes: &[u8]) {
        let offset = guest.wrapping_sub(GUEST);
        let file = u8::from(offset >= FILE);
        if offset < 2 * FILE {
            let offset = (offset % FILE).cast_signed();
            // Beyond the end, or the end of what is left of it: nobody sees it.
            let _ = pwrite(self.file(file), bytes, offset);
        }
    }

    /// Cuts a file off.
    pub(super) fn truncate(&mut self, input: &mut Unstructured<'_>) -> Result<()> {
        let code: u8 = input.arbitrary()?;
        let len = [0x1000, 0, 0x8000, FILE][usize::from(code >> 1 & 3)];
        let _ = ftruncate(self.file(code), len.cast_signed());
        Ok(())
    }
}

/// A region: right for codes below 4, else wrong in one point.
pub(super) fn region(code: u8) -> (MemoryRegion, u8) {
    let file = code & 1;
    let at = u64::from(file) * FILE;
    let mut region = MemoryRegion {
        guest_address: GUEST + at,
        size: FILE,
        user_address: USER + at,
        mmap_offset: 0,
    };
    if code & 2 != 0 {
        // The upper half only.
        region.guest_address += FILE / 2;
        region.user_address += FILE / 2;
        region.mmap_offset += FILE / 2;
        region.size = FILE / 2;
    }
    match code >> 2 {
        0..=40 => {}
        41 => region.size = 0,
        42 => region.size = u64::MAX,
        43 => region.guest_address = u64::MAX - 0x1000,
        44 => region.user_address = u64::MAX - 0x1000,
        45 => region.mmap_offset = u64::MAX - 0x1000,
        46 => region.mmap_offset += FILE,
        47 => region.guest_address -= FILE / 4,
        48 => region.user_address -= FILE / 4,
        49 => region.size += 1,
        50 => region.guest_address += 8,
        _ => region.user_address += 0x100_0000,
    }
    (region, file)
}
