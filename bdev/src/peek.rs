//! A look at some blocks of a disk, for the control half: partition tables and the like.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use guest_memory::{Access, DmaMap, MapView, Region, Segments, SharedMemory};
use nix::errno::Errno;
use reactor::{Cx, Event, Idle, Op, Poll, Poller, ReactorHandle};

use crate::io::{Io, IoKind, IoStatus};
use crate::traits::{Channel, Finished, SharedBdev, Submitted};

type Then = Box<dyn FnOnce(Result<Vec<u8>, IoStatus>) + Send>;

/// A look that goes on. Dropping it changes nothing.
#[derive(Clone, Debug)]
pub struct Peek {
    reactor: ReactorHandle,
    stop: Arc<AtomicBool>,
}

impl Peek {
    /// Ends it as soon as can be: what is held back on purpose is let go.
    pub fn hurry(&self) {
        self.stop.store(true, Ordering::Relaxed);
        self.reactor.wake();
    }
}

/// Reads `blocks` blocks from `lba` on through a channel of its own on this reactor. `then` runs there, once, when that channel
/// is closed again.
pub fn read(
    reactor: &ReactorHandle,
    bdev: SharedBdev,
    lba: u64,
    blocks: u64,
    then: impl FnOnce(Result<Vec<u8>, IoStatus>) + Send + 'static,
) -> Peek {
    let stop = Arc::new(AtomicBool::new(false));
    let peek = Peek {
        reactor: reactor.clone(),
        stop: Arc::clone(&stop),
    };
    let then = Answer(Some(Box::new(then)), Err(IoStatus::Aborted));
    reactor.send(move |reactor| {
        let mut then = then;
        match Reader::open(&bdev, reactor.cx(), lba, blocks) {
            Ok((channel, memory, io)) => drop(reactor.add_poller(Box::new(Reader {
                channel,
                memory,
                io: Some(io),
                stalled: None,
                is_done: false,
                stop,
                hurried: false,
                answer: then,
            }))),
            Err(status) => then.1 = Err(status),
        }
    });
    peek
}

/// Tells the outcome when dropped, so that nobody waits for a reactor that has ended.
struct Answer(Option<Then>, Result<Vec<u8>, IoStatus>);

impl Drop for Answer {
    fn drop(&mut self) {
        let outcome = std::mem::replace(&mut self.1, Err(IoStatus::Aborted));
        if let Some(then) = self.0.take() {
            then(outcome);
        }
    }
}

struct Reader {
    channel: Box<dyn Channel>,
    memory: SharedMemory,
    io: Option<Io>,
    stalled: Option<Op>,
    is_done: bool,
    stop: Arc<AtomicBool>,
    hurried: bool,
    /// Last, so that the channel is closed when it speaks.
    answer: Answer,
}

/// The only request of this poller.
const TAG: u64 = 1;

impl Reader {
    fn open(
        bdev: &SharedBdev,
        cx: &mut Cx,
        lba: u64,
        blocks: u64,
    ) -> Result<(Box<dyn Channel>, SharedMemory, Io), IoStatus> {
        let no_memory = IoStatus::Failed(Errno::ENOMEM);
        let len = blocks.checked_mul(u64::from(bdev.info().block_size));
        let len = len
            .and_then(|len| usize::try_from(len).ok())
            .ok_or(no_memory)?;
        let memory = SharedMemory::new(c"bdev_peek", len).map_err(|_| no_memory)?;
        let region = Region {
            iova: 0,
            len: len as u64,
            access: Access::READ | Access::WRITE,
            backing: Some(Arc::clone(memory.mapping())),
        };
        let map = DmaMap::empty().with(region).map_err(|_| no_memory)?;
        let mut segments = Segments::new();
        let pushed = MapView::new(map).push(&mut segments, 0, len, Access::WRITE);
        pushed.map_err(|_| no_memory)?;
        let channel = bdev
            .open(cx)
            .map_err(|error| IoStatus::Failed(error.errno))?;
        let io = Io {
            kind: IoKind::Read,
            lba,
            blocks,
            segments,
            fua: false,
        };
        Ok((channel, memory, io))
    }

    fn done(&mut self, status: IoStatus) {
        self.is_done = true;
        self.answer.1 = match status {
            IoStatus::Ok => {
                let mut data = vec![0; self.memory.len()];
                match self.memory.read_slice(0, &mut data) {
                    true => Ok(data),
                    false => Err(IoStatus::BadMemory),
                }
            }
            status => Err(status),
        };
    }

    fn settle(&mut self, finished: Finished) {
        match finished {
            Finished::Done(status) => self.done(status),
            Finished::Queued => {}
            Finished::Stalled(op) => self.stalled = Some(op),
        }
    }
}

impl Poller for Reader {
    fn name(&self) -> String {
        "bdev_peek".to_owned()
    }

    fn poll(&mut self, cx: &mut Cx) -> Poll {
        if let Some(io) = self.io.take() {
            match self.channel.submit(cx, TAG, io) {
                Submitted::Done(status) => self.done(status),
                Submitted::Queued => {}
                Submitted::Full(io) => self.io = Some(io),
            }
        }
        if let Some(op) = self.stalled.take() {
            let finished = self.channel.resume(cx, TAG, op);
            self.settle(finished);
        }
        if self.is_done {
            return Poll::Remove;
        }
        if !self.hurried && self.stop.load(Ordering::Relaxed) {
            self.hurried = true;
            self.channel.expedite(cx, None);
        }
        Poll::Idle
    }

    fn event(&mut self, cx: &mut Cx, event: Event) {
        if let Event::Complete { op, result, .. } = event {
            let finished = self.channel.finish(cx, TAG, op, result);
            self.settle(finished);
        }
    }

    fn idle(&self) -> Idle {
        if self.io.is_some() || self.stalled.is_some() || self.is_done {
            Idle::Never
        } else {
            Idle::Bounded
        }
    }
}
