//! The data half of an error disk.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use guest_memory::{Access, DmaMap, HostBuffer, MapView, Region, Segments, SharedMemory};
use nix::errno::Errno;
use reactor::{Cx, Op, ticks_of};

use super::{Fault, Hanging, Shared};
use crate::io::{Io, IoKind, IoStatus};
use crate::tags::TagMap;
use crate::traits::{Channel, Finished, Submitted};

/// Pause before a request that was refused for lack of memory, or found no room, is tried again.
const RETRY: Duration = Duration::from_micros(100);

/// A request that is here and not with the base.
enum Held {
    /// It hangs.
    Pending {
        io: Io,
        /// [`Shared::resumes`] at the time.
        resumes: u64,
        aborted: bool,
    },
    /// It is tried again at this time, in ticks.
    Retry { io: Io, until: u64 },
}

/// A read whose data are to be changed on their way up.
struct Corrupt {
    /// Where the base puts the data. Memory of its own, because the base takes what it is given for good.
    memory: SharedMemory,
    /// Where they belong.
    user: Segments,
    offset: usize,
    value: u8,
}

impl Corrupt {
    fn deliver(&self) {
        let mut data = vec![0; self.memory.len()];
        if !self.memory.read_slice(0, &mut data) {
            return;
        }
        if let Some(byte) = data.get_mut(self.offset) {
            *byte ^= self.value;
        }
        self.user.copy_from_slice(0, &data);
    }
}

pub(super) struct ErrorChannel {
    inner: Box<dyn Channel>,
    shared: Arc<Shared>,
    /// Requests with the base.
    in_flight: u64,
    held: TagMap<Held>,
    corrupt: TagMap<Corrupt>,
}

impl ErrorChannel {
    pub(super) fn new(inner: Box<dyn Channel>, shared: Arc<Shared>) -> Self {
        Self {
            inner,
            shared,
            in_flight: 0,
            held: TagMap::default(),
            corrupt: TagMap::default(),
        }
    }

    /// Gives a request to the base.
    #[inline]
    fn pass(&mut self, cx: &mut Cx, tag: u64, io: Io) -> Submitted {
        let submitted = self.inner.submit(cx, tag, io);
        if matches!(submitted, Submitted::Queued) {
            self.in_flight += 1;
        }
        submitted
    }

    #[inline]
    fn start(&mut self, cx: &mut Cx, tag: u64, io: Io) -> Submitted {
        if !self.shared.is_armed.load(Ordering::Relaxed) {
            return self.pass(cx, tag, io);
        }
        match self.shared.draw(io.kind, self.in_flight) {
            None => self.pass(cx, tag, io),
            Some(fault) => self.inject(cx, tag, io, fault),
        }
    }

    #[cold]
    fn inject(&mut self, cx: &mut Cx, tag: u64, io: Io, fault: Fault) -> Submitted {
        match fault {
            Fault::Failure => Submitted::Done(IoStatus::Failed(Errno::EIO)),
            Fault::NvmeFailure { sct, sc } => Submitted::Done(IoStatus::Nvme { sct, sc }),
            Fault::Pending => {
                let poller = cx.poller();
                cx.local::<Hanging>().enter(&self.shared, poller);
                let resumes = self.shared.resumes.load(Ordering::Relaxed);
                let held = Held::Pending {
                    io,
                    resumes,
                    aborted: false,
                };
                self.hold(cx, tag, held, u64::MAX)
            }
            // The user tries again when something ends, and here something will.
            Fault::NoMemory if self.in_flight > 0 => Submitted::Full(io),
            Fault::NoMemory => self.retry(cx, tag, io),
            Fault::CorruptData { offset, value } => {
                let offset = usize::try_from(offset).unwrap_or(usize::MAX);
                match io.kind {
                    _ if offset >= io.segments.len() => self.pass(cx, tag, io),
                    IoKind::Write => self.write_corrupted(cx, tag, io, fault, (offset, value)),
                    IoKind::Read => self.read_corrupted(cx, tag, io, fault, (offset, value)),
                    _ => self.pass(cx, tag, io),
                }
            }
        }
    }

    fn hold(&mut self, cx: &mut Cx, tag: u64, held: Held, until: u64) -> Submitted {
        if cx.submit(tag, Op::Wait { until }).is_err() {
            // There is room for every wait.
            return Submitted::Done(IoStatus::Failed(Errno::EAGAIN));
        }
        self.held.insert(tag, held);
        Submitted::Queued
    }

    fn retry(&mut self, cx: &mut Cx, tag: u64, io: Io) -> Submitted {
        let until = cx.now().saturating_add(ticks_of(RETRY));
        self.hold(cx, tag, Held::Retry { io, until }, until)
    }

    fn write_corrupted(
        &mut self,
        cx: &mut Cx,
        tag: u64,
        io: Io,
        fault: Fault,
        (offset, value): (usize, u8),
    ) -> Submitted {
        let mut buffer = HostBuffer::new(io.segments.len());
        io.segments.copy_to_slice(0, buffer.as_mut_slice());
        if let Some(byte) = buffer.as_mut_slice().get_mut(offset) {
            *byte ^= value;
        }
        let user = io.segments;
        let segments = Segments::from_host(buffer);
        match self.pass(cx, tag, Io { segments, ..io }) {
            Submitted::Full(io) => {
                self.shared.give_back(io.kind, fault);
                Submitted::Full(Io {
                    segments: user,
                    ..io
                })
            }
            other => other,
        }
    }

    fn read_corrupted(
        &mut self,
        cx: &mut Cx,
        tag: u64,
        io: Io,
        fault: Fault,
        (offset, value): (usize, u8),
    ) -> Submitted {
        let Some((memory, segments)) = own_memory(io.segments.len()) else {
            return Submitted::Done(IoStatus::Failed(Errno::ENOMEM));
        };
        let corrupt = Corrupt {
            memory,
            user: io.segments,
            offset,
            value,
        };
        match self.pass(cx, tag, Io { segments, ..io }) {
            Submitted::Done(status) => {
                if status == IoStatus::Ok {
                    corrupt.deliver();
                }
                Submitted::Done(status)
            }
            Submitted::Queued => {
                self.corrupt.insert(tag, corrupt);
                Submitted::Queued
            }
            Submitted::Full(io) => {
                self.shared.give_back(io.kind, fault);
                Submitted::Full(Io {
                    segments: corrupt.user,
                    ..io
                })
            }
        }
    }

    /// Goes on where the base may have ended a request.
    #[inline]
    fn below_ended(&mut self, tag: u64, finished: Finished) -> Finished {
        if let Finished::Done(status) = finished {
            self.in_flight = self.in_flight.saturating_sub(1);
            if !self.corrupt.is_empty()
                && let Some(corrupt) = self.corrupt.remove(tag)
                && status == IoStatus::Ok
            {
                corrupt.deliver();
            }
        }
        finished
    }

    /// Goes on with a request whose wait has ended.
    #[cold]
    fn go_on(&mut self, cx: &mut Cx, tag: u64) -> Finished {
        // Waits may be ended early on behalf of others.
        let resumes = self.shared.resumes.load(Ordering::Relaxed);
        let submitted = match self.held.remove(tag) {
            None => return Finished::Done(IoStatus::Failed(Errno::EINVAL)),
            Some(Held::Pending { aborted: true, .. }) => {
                return Finished::Done(IoStatus::Aborted);
            }
            Some(held @ Held::Pending { resumes: then, .. }) if then == resumes => {
                let poller = cx.poller();
                cx.local::<Hanging>().enter(&self.shared, poller);
                self.hold(cx, tag, held, u64::MAX)
            }
            Some(held @ Held::Retry { until, .. }) if until > cx.now() => {
                self.hold(cx, tag, held, until)
            }
            Some(Held::Pending { io, .. } | Held::Retry { io, .. }) => self.start(cx, tag, io),
        };
        match submitted {
            Submitted::Done(status) => Finished::Done(status),
            Submitted::Queued => Finished::Queued,
            // It cannot be handed back any more.
            Submitted::Full(io) => match self.retry(cx, tag, io) {
                Submitted::Done(status) => Finished::Done(status),
                Submitted::Queued | Submitted::Full(_) => Finished::Queued,
            },
        }
    }
}

/// Memory that stays ours while a list of it is with a disk.
fn own_memory(len: usize) -> Option<(SharedMemory, Segments)> {
    let memory = SharedMemory::new(c"bdev_error", len).ok()?;
    let region = Region {
        iova: 0,
        len: len as u64,
        access: Access::READ | Access::WRITE,
        backing: Some(Arc::clone(memory.mapping())),
    };
    let map = DmaMap::empty().with(region).ok()?;
    let mut segments = Segments::new();
    let view = MapView::new(map);
    view.push(&mut segments, 0, len, Access::WRITE).ok()?;
    Some((memory, segments))
}

impl Channel for ErrorChannel {
    #[inline]
    fn submit(&mut self, cx: &mut Cx, tag: u64, io: Io) -> Submitted {
        self.start(cx, tag, io)
    }

    #[inline]
    fn finish(&mut self, cx: &mut Cx, tag: u64, op: Op, result: Result<u32, Errno>) -> Finished {
        // What is held here is not with the base, so its wait is ours.
        if !self.held.is_empty() && self.held.get(tag).is_some() {
            return self.go_on(cx, tag);
        }
        let finished = self.inner.finish(cx, tag, op, result);
        self.below_ended(tag, finished)
    }

    fn resume(&mut self, cx: &mut Cx, tag: u64, op: Op) -> Finished {
        let finished = self.inner.resume(cx, tag, op);
        self.below_ended(tag, finished)
    }

    #[inline]
    fn prefetch(&self, kind: IoKind, lba: u64, blocks: u64) {
        self.inner.prefetch(kind, lba, blocks);
    }

    fn expedite(&mut self, cx: &mut Cx, tag: Option<u64>) {
        self.held.for_each(tag, |held| match held {
            Held::Pending { aborted, .. } => *aborted = true,
            Held::Retry { until, .. } => *until = 0,
        });
        cx.expire_waits(tag);
        self.inner.expedite(cx, tag);
    }
}
