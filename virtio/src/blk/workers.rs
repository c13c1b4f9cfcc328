//! The device's workers, seen from home: made when their reactor gets its first queue, reached by message only.

use std::sync::Arc;

use crossbeam_channel::{Receiver, Sender, unbounded};
use guest_memory::DmaMap;
use reactor::{Cx, Event, Idle, Poll, Poller, ReactorHandle, Seat};

use super::config::{BlkConfig, Coalescing};
use super::messages::{FromWorker, Mode, Target, ToWorker};
use crate::worker::Worker;

/// What a worker is made of, on its own reactor.
pub(crate) struct WorkerStart {
    /// The device's settings.
    pub(crate) config: Arc<BlkConfig>,
    /// What the driver has chosen, as it changes.
    pub(crate) mode: Arc<Mode>,
    /// The rest at this moment; changes come as messages.
    pub(crate) map: Arc<DmaMap>,
    pub(crate) disk: Option<Target>,
    pub(crate) coalescing: Coalescing,
    /// Where its orders come from.
    pub(crate) inbox: Receiver<ToWorker>,
    /// Where its answers go; wake `home` after sending.
    pub(crate) outbox: Sender<FromWorker>,
    /// The device's reactor.
    pub(crate) home: ReactorHandle,
}

/// Tells the device that a worker is gone, whichever way it went: it ended, it panicked and its reactor removed it, or its
/// reactor ended before it was made.
struct Tombstone {
    index: usize,
    outbox: Sender<FromWorker>,
    home: ReactorHandle,
}

impl Drop for Tombstone {
    fn drop(&mut self) {
        let _ = self.outbox.send(FromWorker::Gone { worker: self.index });
        self.home.wake();
    }
}

/// A worker and its tombstone: fields drop in this order, so the worker's leases are gone when the device hears of it.
struct Guarded {
    worker: Worker,
    _tombstone: Tombstone,
}

impl Poller for Guarded {
    fn name(&self) -> String {
        self.worker.name()
    }

    #[inline]
    fn poll(&mut self, cx: &mut Cx) -> Poll {
        self.worker.poll(cx)
    }

    #[inline]
    fn event(&mut self, cx: &mut Cx, event: Event) {
        self.worker.event(cx, event);
    }

    fn idle(&self) -> Idle {
        self.worker.idle()
    }
}

#[derive(Debug)]
struct Link {
    sender: Sender<ToWorker>,
    exiting: bool,
}

/// All workers of a device.
#[derive(Debug)]
pub(crate) struct Workers {
    config: Arc<BlkConfig>,
    mode: Arc<Mode>,
    home: ReactorHandle,
    reactors: Vec<ReactorHandle>,
    outbox: Sender<FromWorker>,
    /// One per reactor, in the same order.
    links: Vec<Option<Link>>,
    /// Where the next search for a reactor starts.
    rotation: usize,
}

impl Workers {
    /// No workers yet; they will live on these reactors.
    pub(crate) fn new(
        config: Arc<BlkConfig>,
        mode: Arc<Mode>,
        home: ReactorHandle,
        reactors: Vec<ReactorHandle>,
    ) -> (Self, Receiver<FromWorker>) {
        let (outbox, from_workers) = unbounded();
        let reactors = if reactors.is_empty() {
            vec![home.clone()]
        } else {
            reactors
        };
        let workers = Self {
            config,
            mode,
            home,
            links: reactors.iter().map(|_| None).collect(),
            reactors,
            outbox,
            rotation: 0,
        };
        (workers, from_workers)
    }

    /// Decides where a queue will live: on the reactor that serves the fewest.
    pub(crate) fn place(&mut self) -> Option<(usize, Seat)> {
        let (index, seat) = Seat::take(&self.reactors, self.rotation)?;
        self.rotation = (index + 1) % self.reactors.len().max(1);
        Some((index, seat))
    }

    /// Makes worker `index` if it does not exist.
    pub(crate) fn ensure(
        &mut self,
        index: usize,
        map: &Arc<DmaMap>,
        disk: Option<&Target>,
        coalescing: Coalescing,
    ) {
        let (Some(link), Some(reactor)) = (self.links.get_mut(index), self.reactors.get(index))
        else {
            return;
        };
        if link.is_some() {
            return;
        }
        let (sender, inbox) = unbounded();
        let tombstone = Tombstone {
            index,
            outbox: self.outbox.clone(),
            home: self.home.clone(),
        };
        let start = WorkerStart {
            config: Arc::clone(&self.config),
            mode: Arc::clone(&self.mode),
            map: Arc::clone(map),
            disk: disk.cloned(),
            coalescing,
            inbox,
            outbox: self.outbox.clone(),
            home: self.home.clone(),
        };
        reactor.send(move |reactor| {
            reactor.add_poller(Box::new(Guarded {
                worker: Worker::new(start),
                _tombstone: tombstone,
            }));
        });
        *link = Some(Link {
            sender,
            exiting: false,
        });
    }

    /// Sends to one worker. A message to a dead one is lost: its [`FromWorker::Gone`] is on the way.
    pub(crate) fn send(&mut self, index: usize, message: ToWorker) {
        if let (Some(Some(link)), Some(reactor)) =
            (self.links.get_mut(index), self.reactors.get(index))
        {
            link.exiting |= matches!(message, ToWorker::Exit);
            let _ = link.sender.send(message);
            reactor.wake();
        }
    }

    /// Sends to all that exist.
    pub(crate) fn broadcast(&mut self, message: impl Fn() -> ToWorker) {
        for index in 0..self.links.len() {
            if self.links.get(index).is_some_and(Option::is_some) {
                self.send(index, message());
            }
        }
    }

    /// Wakes the reactor of worker `index`, so that it looks at its queues.
    pub(crate) fn wake(&self, index: usize) {
        if let Some(reactor) = self.reactors.get(index) {
            reactor.wake();
        }
    }

    /// Asks every worker to end.
    pub(crate) fn exit(&mut self) {
        for index in 0..self.links.len() {
            let asked = |link: &Link| link.exiting;
            if !self
                .links
                .get(index)
                .and_then(Option::as_ref)
                .is_none_or(asked)
            {
                self.send(index, ToWorker::Exit);
            }
        }
    }

    /// Whether no worker exists.
    pub(crate) fn is_empty(&self) -> bool {
        self.links.iter().all(Option::is_none)
    }

    /// Takes a `Gone`; whether it had been asked to.
    pub(crate) fn gone(&mut self, index: usize) -> bool {
        let link = self.links.get_mut(index).and_then(Option::take);
        link.is_none_or(|link| link.exiting)
    }
}

impl Drop for Workers {
    /// A device that is dropped without a reset leaves nothing running.
    fn drop(&mut self) {
        self.exit();
    }
}
