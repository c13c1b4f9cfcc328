//! The controller's shards, seen from home: made when their reactor gets its first queue, reached by message only.

use std::collections::BTreeMap;
use std::sync::Arc;

use crossbeam_channel::{Receiver, Sender, unbounded};
use guest_memory::{DmaMap, SharedMemory};
use reactor::{Ack, Cx, Event, Idle, Poll, Poller, ReactorHandle, Seat};

use crate::config::ControllerConfig;
use crate::messages::{FromShard, ShardCounters, ToShard};
use crate::namespace::NamespaceSet;
use crate::shard::{Shard, ShardSetup};

/// What a shard is made of, on its own reactor.
pub(crate) struct ShardStart {
    /// Its place among the controller's shards.
    pub(crate) index: usize,
    /// The controller's settings.
    pub(crate) config: Arc<ControllerConfig>,
    /// The doorbells.
    pub(crate) page: SharedMemory,
    /// The client's memory at this moment; later ones come as messages.
    pub(crate) map: Arc<DmaMap>,
    /// The disks at this moment; later ones come as messages.
    pub(crate) namespaces: Arc<NamespaceSet>,
    /// Where its orders come from.
    pub(crate) inbox: Receiver<ToShard>,
    /// Where its answers go; wake `home` after sending.
    pub(crate) outbox: Sender<FromShard>,
    /// The controller's reactor.
    pub(crate) home: ReactorHandle,
    /// To be dropped last.
    pub(crate) tombstone: Tombstone,
}

/// How a shard is made. Tests put another in.
pub(crate) type ShardFactory = Arc<dyn Fn(ShardStart) -> Box<dyn Poller> + Send + Sync>;

/// Tells the controller that a shard is gone, whichever way it went: it ended, it panicked and its reactor removed it, or
/// its reactor ended before it was made.
#[derive(Debug)]
pub(crate) struct Tombstone {
    index: usize,
    outbox: Sender<FromShard>,
    home: ReactorHandle,
}

impl Drop for Tombstone {
    fn drop(&mut self) {
        let _ = self.outbox.send(FromShard::Gone { shard: self.index });
        self.home.wake();
    }
}

/// A shard and its tombstone: fields drop in this order, so the shard's leases are gone when the controller hears of it.
struct Guarded {
    shard: Shard,
    _tombstone: Tombstone,
}

/// Makes a real shard.
pub(crate) fn make_shard(start: ShardStart) -> Box<dyn Poller> {
    let setup = ShardSetup {
        index: start.index,
        label: start.config.label.clone(),
        page: start.page,
        max_transfer: start.config.max_transfer,
        masked: start.config.masked,
        map: start.map,
        namespaces: start.namespaces,
        inbox: start.inbox,
        outbox: start.outbox,
        home: start.home,
    };
    Box::new(Guarded {
        shard: Shard::new(setup),
        _tombstone: start.tombstone,
    })
}

impl Poller for Guarded {
    fn name(&self) -> String {
        self.shard.name()
    }

    #[inline]
    fn poll(&mut self, cx: &mut Cx) -> Poll {
        self.shard.poll(cx)
    }

    #[inline]
    fn event(&mut self, cx: &mut Cx, event: Event) {
        self.shard.event(cx, event);
    }

    fn idle(&self) -> Idle {
        self.shard.idle()
    }
}

struct Link {
    sender: Sender<ToShard>,
    /// Has been told of queues since it was last stopped.
    used: bool,
    /// Owes a `Stopped`.
    stopping: bool,
    /// Was told to exit.
    exiting: bool,
    counters: ShardCounters,
}

/// What the end of a shard means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// It was asked to.
    Expected,
    /// It died: its queues are lost.
    Died,
}

/// All shards of a controller.
pub(crate) struct Shards {
    config: Arc<ControllerConfig>,
    page: SharedMemory,
    home: ReactorHandle,
    reactors: Vec<ReactorHandle>,
    factory: ShardFactory,
    outbox: Sender<FromShard>,
    /// One per reactor, in the same order.
    links: Vec<Option<Link>>,
    /// Completion queues' seats, by queue ID.
    seats: BTreeMap<u16, Seat>,
    /// Where the next search for a reactor starts.
    rotation: usize,
    /// What shards that are gone had counted.
    retired: ShardCounters,
}

impl Shards {
    /// No shards yet; they will live on these reactors.
    pub(crate) fn new(
        config: Arc<ControllerConfig>,
        page: SharedMemory,
        home: ReactorHandle,
        reactors: Vec<ReactorHandle>,
        factory: ShardFactory,
    ) -> (Self, Receiver<FromShard>) {
        let (outbox, from_shards) = unbounded();
        let reactors = if reactors.is_empty() {
            vec![home.clone()]
        } else {
            reactors
        };
        let shards = Self {
            config,
            page,
            home,
            links: reactors.iter().map(|_| None).collect(),
            reactors,
            factory,
            outbox,
            seats: BTreeMap::new(),
            rotation: 0,
            retired: ShardCounters::default(),
        };
        (shards, from_shards)
    }

    /// Decides where completion queue `qid` will live: on the reactor that serves the fewest.
    pub(crate) fn place(&mut self, qid: u16) -> usize {
        let Some((index, seat)) = Seat::take(&self.reactors, self.rotation) else {
            return 0;
        };
        self.rotation = (index + 1) % self.reactors.len().max(1);
        self.seats.insert(qid, seat);
        index
    }

    /// Completion queue `qid` does not exist any more.
    pub(crate) fn vacate(&mut self, qid: u16) {
        self.seats.remove(&qid);
    }

    /// Makes shard `index` if it does not exist; whether it was made now.
    pub(crate) fn ensure(
        &mut self,
        index: usize,
        map: &Arc<DmaMap>,
        namespaces: &Arc<NamespaceSet>,
    ) -> bool {
        let (Some(link), Some(reactor)) = (self.links.get_mut(index), self.reactors.get(index))
        else {
            return false;
        };
        if link.is_some() {
            return false;
        }
        let (sender, inbox) = unbounded();
        let start = ShardStart {
            index,
            config: Arc::clone(&self.config),
            page: self.page.clone(),
            map: Arc::clone(map),
            namespaces: Arc::clone(namespaces),
            inbox,
            outbox: self.outbox.clone(),
            home: self.home.clone(),
            tombstone: Tombstone {
                index,
                outbox: self.outbox.clone(),
                home: self.home.clone(),
            },
        };
        let factory = Arc::clone(&self.factory);
        reactor.send(move |reactor| {
            reactor.add_poller(factory(start));
        });
        *link = Some(Link {
            sender,
            used: false,
            stopping: false,
            exiting: false,
            counters: ShardCounters::default(),
        });
        true
    }

    /// Sends to one shard. A message to a dead shard is lost: its [`FromShard::Gone`] is on the way.
    pub(crate) fn send(&mut self, index: usize, message: ToShard) {
        let (Some(Some(link)), Some(reactor)) =
            (self.links.get_mut(index), self.reactors.get(index))
        else {
            return;
        };
        match message {
            ToShard::CreateCq { .. } | ToShard::CreateSq { .. } => link.used = true,
            ToShard::Stop => link.stopping = true,
            ToShard::Exit => (link.stopping, link.exiting) = (true, true),
            _ => {}
        }
        let _ = link.sender.send(message);
        reactor.wake();
    }

    /// Sends to all that exist.
    pub(crate) fn broadcast(&mut self, message: impl Fn() -> ToShard) {
        for index in 0..self.links.len() {
            self.send(index, message());
        }
    }

    /// Has `settled` said to the controller when every shard has carried out what it was told so far. `false` (and it is not
    /// said) if there is no shard.
    pub(crate) fn settle(&mut self, settled: FromShard) -> bool {
        if self.is_empty() {
            return false;
        }
        let (outbox, home) = (self.outbox.clone(), self.home.clone());
        let ack = Ack::with(move || {
            let _ = outbox.send(settled);
            home.wake();
        });
        self.broadcast(|| ToShard::Barrier(ack.clone()));
        true
    }

    /// Wakes the reactor of shard `index`, so that it looks at its doorbells.
    pub(crate) fn wake(&self, index: usize) {
        if let Some(reactor) = self.reactors.get(index) {
            reactor.wake();
        }
    }

    /// Asks every shard that was told of queues to stop.
    pub(crate) fn stop(&mut self) {
        for index in 0..self.links.len() {
            let stop = |link: &Link| link.used && !link.stopping;
            if self
                .links
                .get(index)
                .and_then(Option::as_ref)
                .is_some_and(stop)
            {
                self.send(index, ToShard::Stop);
            }
        }
    }

    /// Asks every shard to end.
    pub(crate) fn exit(&mut self) {
        for index in 0..self.links.len() {
            let exit = |link: &Link| !link.exiting;
            if self
                .links
                .get(index)
                .and_then(Option::as_ref)
                .is_some_and(exit)
            {
                self.send(index, ToShard::Exit);
            }
        }
    }

    /// Whether no shard owes a `Stopped` or has to be asked for one.
    pub(crate) fn is_stopped(&self) -> bool {
        let active = |link: &Link| link.used || link.stopping;
        !self.links.iter().flatten().any(active)
    }

    /// Whether no shard exists.
    pub(crate) fn is_empty(&self) -> bool {
        self.links.iter().all(Option::is_none)
    }

    /// Takes a `Stopped`.
    pub(crate) fn stopped(&mut self, index: usize) {
        if let Some(Some(link)) = self.links.get_mut(index) {
            (link.used, link.stopping) = (false, link.exiting);
        }
    }

    /// Takes a `Gone`.
    pub(crate) fn gone(&mut self, index: usize) -> End {
        match self.links.get_mut(index).and_then(Option::take) {
            Some(link) => {
                self.retired.add(&link.counters);
                if link.exiting {
                    End::Expected
                } else {
                    End::Died
                }
            }
            None => End::Expected,
        }
    }

    /// Takes a shard's counters.
    pub(crate) fn count(&mut self, index: usize, counters: ShardCounters) {
        if let Some(Some(link)) = self.links.get_mut(index) {
            link.counters = counters;
        }
    }

    /// All shards' counters together, since the controller was made.
    pub(crate) fn counters(&self) -> ShardCounters {
        let mut total = self.retired;
        for link in self.links.iter().flatten() {
            total.add(&link.counters);
        }
        total
    }

    /// The processor number of the controller's own reactor.
    pub(crate) fn home_lcore(&self) -> u32 {
        self.home.lcore()
    }

    /// The processor number of shard `index`'s reactor.
    pub(crate) fn lcore(&self, index: usize) -> u32 {
        self.reactors.get(index).map_or(0, ReactorHandle::lcore)
    }
}

impl Drop for Shards {
    /// A controller that is dropped without a reset leaves nothing running.
    fn drop(&mut self) {
        self.exit();
    }
}
