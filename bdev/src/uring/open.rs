//! Opening a file or block device: what it is, whose it is, and what it can do.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use guest_memory::{HostBuffer, PAGE_SIZE};
use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, FcntlArg, OFlag, fallocate, fcntl, open};
use nix::libc::dev_t;
use nix::sys::stat::{FileStat, Mode, SFlag, fstat, stat};
use nix::sys::uio::pread;
use nix::sys::utsname::uname;
use nix::unistd::{Whence, lseek};

use super::UringOptions;
use super::claim::{Claim, claim};
use super::queue::Queue;
use super::statx::{Align, DirectIo, direct_io};
use crate::disk::{MIN_BLOCK, check_block_size};
use crate::traits::{BdevError, Features};

/// How blocks are given back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unmap {
    /// Not at all.
    Never,
    /// By `fallocate`: they read as zeroes afterwards.
    PunchHole,
    /// By the device's discard command: they read as anything.
    Discard,
}

/// An open file or device with everything that had to be found out.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) fd: OwnedFd,
    pub(super) num_blocks: u64,
    pub(super) block_size: u32,
    pub(super) physical_block_size: u32,
    pub(super) features: Features,
    pub(super) unmap: Unmap,
    /// `None` when all I/O goes through the page cache, which asks for no alignment.
    pub(super) align: Option<Align>,
    /// What the operator should know about it.
    pub(super) notes: Vec<String>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    File,
    BlockDevice,
}

/// A file's kind; anything but a regular file or block device is refused.
fn kind_of(path: &Path, stat: &FileStat) -> Result<Kind, BdevError> {
    let what = match SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits()) {
        SFlag::S_IFREG => return Ok(Kind::File),
        SFlag::S_IFBLK => return Ok(Kind::BlockDevice),
        SFlag::S_IFDIR => "a directory",
        SFlag::S_IFCHR => "a character device",
        SFlag::S_IFIFO => "a pipe",
        SFlag::S_IFSOCK => "a socket",
        _ => "neither a file nor a block device",
    };
    let reason = format!(
        "{} is {what}: give a regular file or a block device",
        path.display()
    );
    Err(BdevError::new(Errno::EINVAL, reason))
}

/// What the operator can do about an open that failed.
fn refusal(path: &Path, readonly: bool, errno: Errno) -> BdevError {
    let path = path.display();
    let purpose = if readonly { "reading" } else { "writing" };
    let reason = match errno {
        Errno::ENOENT => format!("{path} does not exist: create it first (truncate -s 10G {path})"),
        Errno::ENOTDIR => format!("{path} does not exist: a part of the path is not a directory"),
        Errno::EACCES | Errno::EPERM => format!(
            "no permission to open {path} for {purpose}: change its owner or mode{}",
            if readonly {
                ""
            } else {
                ", or open it read-only"
            }
        ),
        Errno::EROFS => format!("{path} is write-protected: open it read-only"),
        Errno::EBUSY => format!(
            "{path} is in use: unmount it, or release it from the RAID, volume group or program that holds it"
        ),
        Errno::ETXTBSY => format!("{path} is in use as a program or swap file"),
        Errno::ENXIO | Errno::ENODEV | Errno::ENOMEDIUM => {
            format!("{path} has no device or medium behind it")
        }
        Errno::EMFILE | Errno::ENFILE => {
            format!("too many open files: raise the limit (ulimit -n) to open {path}")
        }
        errno => format!("cannot open {path} for {purpose}: {errno}"),
    };
    BdevError::new(errno, reason)
}

/// Devices that this process has closed lately, and when.
static RELEASED: Mutex<Vec<(dev_t, Instant)>> = Mutex::new(Vec::new());
/// How long the kernel may take to close a file after its last registration with a ring ended: about a second before Linux 6.3.
const RELEASE_TAKES: Duration = Duration::from_secs(2);

fn released() -> MutexGuard<'static, Vec<(dev_t, Instant)>> {
    let mut released = RELEASED.lock().unwrap_or_else(PoisonError::into_inner);
    released.retain(|(_, when)| when.elapsed() < RELEASE_TAKES);
    released
}

/// Notes that the last user of a device in this process is about to close it.
pub(super) fn remember_release(fd: &OwnedFd) {
    if let Ok(stat) = fstat(fd)
        && stat.st_mode & SFlag::S_IFMT.bits() == SFlag::S_IFBLK.bits()
    {
        released().push((stat.st_rdev, Instant::now()));
    }
}

/// Opens, waiting for a device that is busy only because the kernel has not finished closing it for us.
fn open_patiently(path: &Path, flags: OFlag, device: dev_t) -> Result<OwnedFd, Errno> {
    loop {
        match open(path, flags, Mode::empty()) {
            Err(Errno::EBUSY) if released().iter().any(|(of, _)| *of == device) => {
                std::thread::sleep(Duration::from_millis(5));
            }
            result => return result,
        }
    }
}

/// Present length of a file or device in bytes.
pub(super) fn length(fd: &OwnedFd) -> Result<u64, Errno> {
    // For a block device `st_size` is zero; the end by seeking is right for both. Nobody uses the position.
    let end = lseek(fd, 0, Whence::SeekEnd)?;
    u64::try_from(end).map_err(|_| Errno::EOVERFLOW)
}

/// Whole blocks in `len` bytes.
pub(super) fn whole_blocks(path: &Path, len: u64, block_size: u32) -> Result<u64, BdevError> {
    match len / u64::from(block_size) {
        0 => Err(BdevError::new(
            Errno::EINVAL,
            format!(
                "{} has {len} bytes, less than one block of {block_size}: make it larger (truncate -s)",
                path.display()
            ),
        )),
        blocks => Ok(blocks),
    }
}

/// A note if `len` is not a whole number of blocks.
pub(super) fn remainder_note(len: u64, block_size: u32) -> Option<String> {
    let rest = len % u64::from(block_size);
    (rest > 0).then(|| {
        format!("the last {rest} bytes are not a whole block of {block_size} and stay out of reach")
    })
}

/// Opens what `options` name.
pub(super) fn open_disk(options: &UringOptions) -> Result<Opened, BdevError> {
    let path = options.filename.as_path();
    let readonly = options.readonly;
    if let Some(block_size) = options.block_size {
        check_block_size("block_size", block_size)?;
    }
    let refuse = |errno| refusal(path, readonly, errno);
    // Looked at first: opening a pipe would wait for its other end, opening a device may do anything.
    let stat_before = stat(path).map_err(refuse)?;
    let kind = kind_of(path, &stat_before)?;
    let mut flags = OFlag::O_CLOEXEC;
    flags |= if readonly {
        OFlag::O_RDONLY
    } else {
        OFlag::O_RDWR
    };
    if kind == Kind::BlockDevice && !readonly {
        // The kernel's own claim: refused while mounted or part of something, and keeps both away while we hold it.
        flags |= OFlag::O_EXCL;
    }
    let fd = open_patiently(path, flags, stat_before.st_rdev).map_err(refuse)?;
    let stat = fstat(&fd).map_err(refuse)?;
    if kind_of(path, &stat)? != kind {
        return Err(refuse(Errno::ESTALE));
    }
    let queue = Queue::of(match kind {
        Kind::File => stat.st_dev,
        Kind::BlockDevice => stat.st_rdev,
    });
    if kind == Kind::BlockDevice && !readonly && queue.is_read_only() {
        return Err(refuse(Errno::EROFS));
    }
    let mut notes = Vec::new();
    match claim(fd.as_fd(), !readonly) {
        Claim::Held => {}
        Claim::Taken => return Err(taken(path, readonly)),
        Claim::Unavailable(errno) => notes.push(format!(
            "its file system has no locks ({errno}): nothing keeps a second writer away"
        )),
    }
    let block_size = block_size(options, kind, &queue)?;
    let len = length(&fd).map_err(refuse)?;
    let num_blocks = whole_blocks(path, len, block_size)?;
    notes.extend(remainder_note(len, block_size));
    let align = if options.direct {
        match go_direct(&fd, &queue, block_size) {
            Ok(align) => Some(align),
            Err(why) => {
                notes.push(format!("{why}: I/O goes through the page cache"));
                None
            }
        }
    } else {
        None
    };
    let unmap = match kind {
        _ if readonly || !options.unmap => Unmap::Never,
        Kind::File => file_unmap(&fd, len),
        Kind::BlockDevice => device_unmap(&queue),
    };
    let physical = match kind {
        Kind::File => u32::try_from(stat.st_blksize).ok(),
        Kind::BlockDevice => queue.number("physical_block_size"),
    };
    Ok(Opened {
        num_blocks,
        block_size,
        physical_block_size: physical
            .filter(|size| size.is_power_of_two() && (block_size..=MAX_PHYSICAL).contains(size))
            .unwrap_or(block_size),
        features: features(readonly, unmap, kind, align.is_some(), &queue),
        unmap,
        align,
        notes,
        fd,
    })
}

/// A larger "best" size is about throughput (network file systems say 1 MiB), not about the medium.
const MAX_PHYSICAL: u32 = 64 << 10;

fn taken(path: &Path, readonly: bool) -> BdevError {
    let path = path.display();
    let reason = if readonly {
        format!(
            "{path} is open for writing in another bdev or program (such as QEMU): close it there first"
        )
    } else {
        format!(
            "{path} is open in another bdev or program (such as QEMU): one may write it, or several read it; close it there first"
        )
    };
    BdevError::new(Errno::EBUSY, reason)
}

fn block_size(options: &UringOptions, kind: Kind, queue: &Queue) -> Result<u32, BdevError> {
    let path = options.filename.display();
    let invalid = |reason| Err(BdevError::new(Errno::EINVAL, reason));
    let logical = match kind {
        Kind::File => None,
        Kind::BlockDevice => queue.number::<u32>("logical_block_size"),
    };
    match (options.block_size, logical) {
        (Some(asked), Some(logical)) if asked < logical => invalid(format!(
            "block_size {asked} is smaller than the blocks of {path}, which have {logical} bytes: leave it out or give a multiple"
        )),
        (Some(asked), _) => Ok(asked),
        (None, Some(logical)) => {
            check_block_size("the device's block size", logical)?;
            Ok(logical)
        }
        (None, None) if kind == Kind::File => invalid(format!(
            "{path} is a file, which has no block size of its own: give block_size (512 or 4096)"
        )),
        (None, None) => invalid(format!(
            "the system does not tell the block size of {path}: give block_size"
        )),
    }
}

/// Switches the open file to direct I/O; or why that is not possible.
fn go_direct(fd: &OwnedFd, queue: &Queue, block_size: u32) -> Result<Align, String> {
    let align = match direct_io(fd.as_fd()) {
        DirectIo::Takes(align) => align,
        DirectIo::Refuses => return Err("its file system takes no direct I/O".to_owned()),
        DirectIo::Unknown => {
            // The blocks of the device below. Without one (network, several devices) a page, which everybody takes.
            let logical = queue.number::<u32>("logical_block_size");
            let offset = logical.filter(|size| size.is_power_of_two());
            let offset = offset.map_or(PAGE_SIZE, |size| size as usize);
            let memory = offset.max(MIN_BLOCK as usize);
            Align { memory, offset }
        }
    };
    if align.offset > block_size as usize {
        return Err(format!(
            "direct I/O here needs blocks of {} bytes or more",
            align.offset
        ));
    }
    if align.memory > PAGE_SIZE {
        return Err(format!(
            "direct I/O here needs {}-aligned memory",
            align.memory
        ));
    }
    let flags = fcntl(fd, FcntlArg::F_GETFL).unwrap_or(0);
    let buffered = OFlag::from_bits_retain(flags);
    if fcntl(fd, FcntlArg::F_SETFL(buffered | OFlag::O_DIRECT)).is_err() {
        return Err("its file system takes no direct I/O".to_owned());
    }
    // Some say yes to everything and refuse the first transfer.
    let mut probe = HostBuffer::new((block_size as usize).max(PAGE_SIZE));
    let block = &mut probe.as_mut_slice()[..block_size as usize];
    if pread(fd, block, 0) == Err(Errno::EINVAL) {
        // The flag can always be taken back.
        let _ = fcntl(fd, FcntlArg::F_SETFL(buffered));
        return Err("direct I/O was refused when tried".to_owned());
    }
    Ok(align)
}

/// Tries to punch a hole behind the end, where nothing is.
fn file_unmap(fd: &OwnedFd, len: u64) -> Unmap {
    const BEHIND: u64 = 1 << 20;
    let at = len
        .checked_next_multiple_of(BEHIND)
        .and_then(|at| i64::try_from(at.checked_add(BEHIND)?).ok());
    let mode = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
    match at.map(|at| fallocate(fd, mode, at, 4096)) {
        Some(Ok(())) => Unmap::PunchHole,
        _ => Unmap::Never,
    }
}

/// The best a device has: zeroing that gives blocks back; else discard; else zeroing on a device that may give them back.
fn device_unmap(queue: &Queue) -> Unmap {
    if queue.has("write_zeroes_unmap_max_hw_bytes") {
        Unmap::PunchHole
    } else if !queue.has("discard_max_bytes") {
        Unmap::Never
    } else if kernel_is_at_least(6, 12) {
        Unmap::Discard
    } else if queue.has("write_zeroes_max_bytes") {
        Unmap::PunchHole
    } else {
        Unmap::Never
    }
}

fn kernel_is_at_least(major: u32, minor: u32) -> bool {
    let Ok(name) = uname() else { return false };
    let release = name.release().to_string_lossy();
    let mut parts = release.split(|c: char| !c.is_ascii_digit());
    let mut number = || parts.next().and_then(|part| part.parse::<u32>().ok());
    match (number(), number()) {
        (Some(first), Some(second)) => (first, second) >= (major, minor),
        _ => false,
    }
}

fn features(readonly: bool, unmap: Unmap, kind: Kind, direct: bool, queue: &Queue) -> Features {
    if readonly {
        return Features::empty();
    }
    let mut features = Features::WRITE;
    match unmap {
        Unmap::Never => {}
        Unmap::PunchHole => features |= Features::UNMAP | Features::UNMAP_ZEROES,
        Unmap::Discard => features |= Features::UNMAP,
    }
    if kind == Kind::BlockDevice || unmap == Unmap::PunchHole {
        features |= Features::WRITE_ZEROES;
    }
    // A device whose completed writes are durable, and nothing of ours or the kernel's in between.
    let durable = direct
        && kind == Kind::BlockDevice
        && queue.text("write_cache").as_deref() == Some("write through");
    if !durable {
        features |= Features::WRITE_CACHE;
    }
    features
}

#[cfg(test)]
mod tests;
