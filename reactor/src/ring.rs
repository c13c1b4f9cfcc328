//! The io_uring instance and its in-flight table: the one place of the workspace that pushes to a ring.
#![allow(
    unsafe_code,
    reason = "the kernel follows pointers that we put into the ring"
)]

use std::cell::RefCell;
use std::os::fd::{AsRawFd, OwnedFd};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use io_uring::{IoUring, cqueue, opcode, squeue, types};
use nix::errno::Errno;

use crate::op::{FallocateMode, Op, RingFile, RingFileInner};
use crate::poller::{Event, PollerKey};
use crate::table::{Entry, Table};

/// `user_data` of the reactor's own wake-up descriptor.
const WAKE: u64 = u64::MAX;
/// `user_data` of requests whose completion nobody waits for.
const IGNORE: u64 = u64::MAX - 1;
/// Files that one ring can have registered.
const MAX_FILES: u32 = 4096;

/// A completion, with whom it belongs to.
#[derive(Debug)]
pub(crate) enum Completed {
    Wake,
    For(PollerKey, Event),
}

pub(crate) struct Ring {
    /// `None` only while dropping.
    uring: Option<IoUring>,
    table: Option<Table>,
    /// Submission queue entries not yet given to the kernel.
    queued: u32,
    released_files: Rc<RefCell<Vec<u32>>>,
    free_files: Vec<u32>,
    next_file: u32,
    wake_fd: i32,
    /// Completions taken from the kernel's queue and not yet handed out.
    batch: Vec<(u64, i32, u32)>,
    enters: u64,
}

impl Ring {
    /// A ring for the calling thread, which must be its only user.
    pub(crate) fn new(entries: u32, table: u32, wake_fd: i32) -> std::io::Result<Self> {
        let mut modern = IoUring::builder();
        modern
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_taskrun_flag()
            .setup_cqsize(table.next_power_of_two().max(entries * 2));
        // Before kernel 6.1 these flags do not exist; the ring then works the same, a little slower.
        let uring = modern.build(entries).or_else(|_| {
            IoUring::builder()
                .setup_cqsize(table.next_power_of_two().max(entries * 2))
                .build(entries)
        })?;
        uring.submitter().register_files_sparse(MAX_FILES)?;
        let mut ring = Self {
            uring: Some(uring),
            table: Some(Table::new(table)),
            queued: 0,
            released_files: Rc::default(),
            free_files: Vec::new(),
            next_file: 0,
            wake_fd,
            batch: Vec::with_capacity(256),
            enters: 0,
        };
        ring.arm_wake();
        Ok(ring)
    }

    fn uring(&mut self) -> &mut IoUring {
        match &mut self.uring {
            Some(uring) => uring,
            None => unreachable!("the ring is only taken by drop"),
        }
    }

    fn table(&mut self) -> &mut Table {
        match &mut self.table {
            Some(table) => table,
            None => unreachable!("the table is only taken by drop"),
        }
    }

    /// Operations and watches in flight.
    pub(crate) fn in_flight(&self) -> u32 {
        self.table.as_ref().map_or(0, Table::used)
    }

    pub(crate) fn enters(&self) -> u64 {
        self.enters
    }

    fn arm_wake(&mut self) {
        let poll = opcode::PollAdd::new(types::Fd(self.wake_fd), libc::POLLIN as u32)
            .multi(true)
            .build()
            .user_data(WAKE);
        self.push(&poll);
    }

    /// Puts an entry into the submission queue, entering the kernel once if it is full.
    fn push(&mut self, entry: &squeue::Entry) -> bool {
        for attempt in 0..2 {
            // SAFETY: every entry that this module builds points only into a slot of the in-flight table (which
            // never moves and is leaked rather than freed while in flight), into heap memory owned by the op in that slot, or to
            // nothing at all.
            if unsafe { self.uring().submission().push(entry) }.is_ok() {
                self.queued += 1;
                return true;
            }
            if attempt == 0 {
                self.enter(0, None);
            }
        }
        false
    }

    /// One system call: submits what is queued, runs the kernel's deferred work and waits for `want` completions at most
    /// `timeout`.
    pub(crate) fn enter(&mut self, want: u32, timeout: Option<Duration>) {
        const GETEVENTS: u32 = 1;
        const EXT_ARG: u32 = 1 << 3;
        let to_submit = self.queued;
        self.enters += 1;
        let result = match timeout {
            Some(timeout) => {
                let timespec = types::Timespec::from(timeout);
                let args = types::SubmitArgs::new().timespec(&timespec);
                // SAFETY: all queued entries satisfy `push`'s argument; `args` and `timespec` outlive the call.
                unsafe {
                    self.uring().submitter().enter(
                        to_submit,
                        want,
                        GETEVENTS | EXT_ARG,
                        Some(&args),
                    )
                }
            }
            None => {
                // SAFETY: all queued entries satisfy `push`'s argument.
                unsafe {
                    self.uring()
                        .submitter()
                        .enter::<libc::sigset_t>(to_submit, want, GETEVENTS, None)
                }
            }
        };
        match result {
            Ok(submitted) => {
                self.queued = self
                    .queued
                    .saturating_sub(u32::try_from(submitted).unwrap_or(u32::MAX));
            }
            Err(error) => match error.raw_os_error() {
                // ETIME: the wait ran out; everything queued had been submitted before the wait began.
                Some(libc::ETIME) => self.queued = 0,
                // EBUSY/EAGAIN: the completion queue must be read first, or memory is short: the next pass tries again.
                Some(libc::EINTR | libc::EBUSY | libc::EAGAIN) => {
                    let left = self.uring().submission().len();
                    self.queued = u32::try_from(left).unwrap_or(u32::MAX);
                }
                _ => tracing::error!(%error, "io_uring_enter failed"),
            },
        }
    }

    /// At most one system call, and none if neither we nor the kernel have anything to hand over.
    #[inline]
    pub(crate) fn flush(&mut self) {
        if self.queued > 0 || self.uring().submission().taskrun() {
            self.enter(0, None);
        }
    }

    /// Registers a file.
    pub(crate) fn register(&mut self, fd: Arc<OwnedFd>) -> Result<RingFile, Errno> {
        self.reap_files();
        let index = match self.free_files.pop() {
            Some(index) => index,
            None if self.next_file < MAX_FILES => {
                self.next_file += 1;
                self.next_file - 1
            }
            None => return Err(Errno::ENFILE),
        };
        let registered = self
            .uring()
            .submitter()
            .register_files_update(index, &[fd.as_raw_fd()]);
        if let Err(error) = registered {
            self.free_files.push(index);
            return Err(Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO)));
        }
        let released = Rc::clone(&self.released_files);
        Ok(RingFile(Rc::new(RingFileInner {
            index,
            fd,
            released,
        })))
    }

    /// Takes files whose last [`RingFile`] is gone out of the registration, so that they can close.
    pub(crate) fn reap_files(&mut self) {
        if self.released_files.borrow().is_empty() {
            return;
        }
        let released = std::mem::take(&mut *self.released_files.borrow_mut());
        for index in released {
            if let Err(error) = self.uring().submitter().register_files_update(index, &[-1]) {
                tracing::warn!(%error, "a closed file stays registered with the ring");
            } else {
                self.free_files.push(index);
            }
        }
    }

    /// Starts an operation; gives it back if the table or the ring is full.
    #[inline]
    pub(crate) fn submit(&mut self, owner: PollerKey, tag: u64, op: Op) -> Result<(), Op> {
        if self.table().is_full() {
            return Err(op);
        }
        let Some(key) = self.table().insert(Entry::Io { owner, tag, op }) else {
            unreachable!("checked for room above")
        };
        let Some(Entry::Io { op, .. }) = self.table().get_mut(key) else {
            unreachable!("inserted above")
        };
        // The op has reached its place: addresses of its scatter list are stable from here on.
        let entry = build(op).user_data(key);
        if self.push(&entry) {
            return Ok(());
        }
        match self.table().remove(key) {
            Some(Entry::Io { op, .. }) => Err(op),
            _ => unreachable!("inserted above"),
        }
    }

    /// Watches a descriptor until [`Ring::unwatch`].
    pub(crate) fn watch(
        &mut self,
        owner: PollerKey,
        tag: u64,
        fd: Arc<OwnedFd>,
        events: u32,
    ) -> Result<u64, Errno> {
        let raw = fd.as_raw_fd();
        let entry = Entry::Watch {
            owner,
            tag,
            fd,
            events,
            cancelled: false,
        };
        let key = self.table().insert(entry).ok_or(Errno::ENOSPC)?;
        if self.push(&watch_entry(raw, events, key)) {
            Ok(key)
        } else {
            self.table().remove(key);
            Err(Errno::EAGAIN)
        }
    }

    /// Ends a watch: no event for it is delivered from here on.
    pub(crate) fn unwatch(&mut self, key: u64) {
        if let Some(Entry::Watch { cancelled, .. }) = self.table().get_mut(key) {
            *cancelled = true;
            // Not `PollRemove`: that fails with EALREADY, for good, while an event of the same watch is on its way.
            let remove = opcode::AsyncCancel::new(key).build().user_data(IGNORE);
            self.push(&remove);
        }
    }

    /// Ends all watches of a poller that is being removed.
    pub(crate) fn unwatch_all(&mut self, owner: PollerKey) {
        for key in self.table().watches_of(owner) {
            self.unwatch(key);
        }
    }

    /// Takes all completions that are there. Call [`Ring::next`] until it answers `None`.
    #[inline]
    pub(crate) fn collect(&mut self) {
        self.batch.clear();
        let Some(uring) = &mut self.uring else { return };
        self.batch.extend(
            uring
                .completion()
                .map(|cqe| (cqe.user_data(), cqe.result(), cqe.flags())),
        );
        // Handed out from the end: keep the order of completion.
        self.batch.reverse();
    }

    /// The next completion of the batch.
    #[inline]
    pub(crate) fn next(&mut self) -> Option<Completed> {
        loop {
            let (key, result, flags) = self.batch.pop()?;
            match key {
                WAKE => {
                    if !cqueue::more(flags) {
                        self.arm_wake();
                    }
                    return Some(Completed::Wake);
                }
                IGNORE => {}
                _ => {
                    if let Some(completed) = self.complete(key, result, flags) {
                        return Some(completed);
                    }
                }
            }
        }
    }

    #[inline]
    fn complete(&mut self, key: u64, result: i32, flags: u32) -> Option<Completed> {
        if let Some(Entry::Watch {
            owner,
            tag,
            fd,
            events,
            cancelled,
        }) = self.table().get_mut(key)
        {
            let (owner, tag, raw, mask, cancelled) =
                (*owner, *tag, fd.as_raw_fd(), *events, *cancelled);
            if !cqueue::more(flags) {
                let rearm = !cancelled && result >= 0 && self.push(&watch_entry(raw, mask, key));
                if !rearm {
                    self.table().remove(key);
                }
            }
            let events = u32::try_from(result).unwrap_or(libc::POLLERR as u32);
            return (!cancelled).then_some(Completed::For(owner, Event::Ready { tag, events }));
        }
        match self.table().remove(key) {
            Some(Entry::Io { owner, tag, op }) => {
                let result = u32::try_from(result).map_err(|_| Errno::from_raw(-result));
                Some(Completed::For(owner, Event::Complete { tag, op, result }))
            }
            _ => None,
        }
    }
}

fn watch_entry(fd: i32, events: u32, key: u64) -> squeue::Entry {
    opcode::PollAdd::new(types::Fd(fd), events)
        .multi(true)
        .build()
        .user_data(key)
}

#[inline]
fn build(op: &Op) -> squeue::Entry {
    match op {
        Op::Read {
            file,
            offset,
            segments,
        } => {
            let fd = types::Fixed(file.0.index);
            match segments.iovecs() {
                [one] => {
                    let len = u32::try_from(one.iov_len).unwrap_or(u32::MAX);
                    opcode::Read::new(fd, one.iov_base.cast(), len)
                        .offset(*offset)
                        .build()
                }
                many => {
                    let count = u32::try_from(many.len()).unwrap_or(u32::MAX);
                    opcode::Readv::new(fd, many.as_ptr(), count)
                        .offset(*offset)
                        .build()
                }
            }
        }
        Op::Write {
            file,
            offset,
            segments,
            durable,
        } => {
            let fd = types::Fixed(file.0.index);
            let flags = if *durable { libc::RWF_DSYNC } else { 0 };
            match segments.iovecs() {
                [one] => {
                    let len = u32::try_from(one.iov_len).unwrap_or(u32::MAX);
                    let base = one.iov_base.cast_const().cast();
                    opcode::Write::new(fd, base, len)
                        .offset(*offset)
                        .rw_flags(flags)
                        .build()
                }
                many => {
                    let count = u32::try_from(many.len()).unwrap_or(u32::MAX);
                    opcode::Writev::new(fd, many.as_ptr(), count)
                        .offset(*offset)
                        .rw_flags(flags)
                        .build()
                }
            }
        }
        Op::Fdatasync { file } => opcode::Fsync::new(types::Fixed(file.0.index))
            .flags(types::FsyncFlags::DATASYNC)
            .build(),
        Op::Fallocate {
            file,
            mode,
            offset,
            len,
        } => {
            let mode = match mode {
                FallocateMode::PunchHole => libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE,
                FallocateMode::ZeroRange => libc::FALLOC_FL_ZERO_RANGE | libc::FALLOC_FL_KEEP_SIZE,
            };
            opcode::Fallocate::new(types::Fixed(file.0.index), *len)
                .offset(*offset)
                .mode(mode)
                .build()
        }
        Op::Release { ram, offset, len } => {
            let len = (*len).min(Op::MAX_RELEASE);
            match ram.pages(*offset, len) {
                // `MAX_RELEASE` fits every integer type on the way.
                Some(at) => {
                    let len = i64::try_from(len).unwrap_or(0);
                    opcode::Madvise::new(at, len, libc::MADV_DONTNEED).build()
                }
                // Not whole pages of that disk: the kernel refuses to advise on nothing.
                None => opcode::Madvise::new(std::ptr::null(), 0, -1).build(),
            }
        }
        Op::Discard { file, offset, len } => {
            // _IO(0x12, 0) of linux/blkdev.h; the length travels in `addr3`, where a command's own data begin.
            const BLOCK_URING_CMD_DISCARD: u32 = 0x1200;
            let mut command = [0; 16];
            command[..8].copy_from_slice(&len.to_ne_bytes());
            opcode::UringCmd16::new(types::Fixed(file.0.index), BLOCK_URING_CMD_DISCARD)
                .addr(Some(*offset))
                .cmd(command)
                .build()
        }
        // `Cx::submit` keeps it from the ring.
        Op::Wait { .. } => opcode::Nop::new().build(),
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        let in_flight = self.in_flight();
        // Closing the ring cancels what can be cancelled; whatever cannot may still touch memory of the ops.
        self.uring = None;
        if in_flight > 0 {
            tracing::warn!(
                in_flight,
                "a ring ended with operations in flight; their memory is kept"
            );
            #[expect(
                clippy::mem_forget,
                reason = "the kernel may still write to the memory of the ops"
            )]
            std::mem::forget(self.table.take());
        }
    }
}
