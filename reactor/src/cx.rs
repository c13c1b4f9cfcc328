//! What a poller may do to its reactor.

use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use nix::errno::Errno;

use crate::handle::ReactorHandle;
use crate::op::{Op, RingFile};
use crate::poller::{Poller, PollerKey};
use crate::ring::Ring;
use crate::ticks::{ticks, ticks_of};

/// Names a timer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TimerId {
    deadline: u64,
    sequence: u64,
}

impl TimerId {
    pub(crate) fn deadline(self) -> u64 {
        self.deadline
    }

    pub(crate) fn is_after(self, now: u64) -> bool {
        self.deadline > now
    }

    pub(crate) fn remaining(self, now: u64) -> Duration {
        let ticks = self.deadline.saturating_sub(now);
        let nanos = u128::from(ticks) * 1_000_000_000 / u128::from(crate::ticks::tick_rate());
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX)) + Duration::from_micros(1)
    }
}

/// What a time that has come means to its poller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Due {
    /// [`crate::Event::Timer`] with this tag.
    Timer(u64),
    /// The end of an [`Op::Wait`] with this tag.
    Wait(u64),
}

/// Names a watch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WatchId(u64);

/// The reactor, seen from the poller that is running: everything done through it belongs to that poller.
pub struct Cx {
    pub(crate) ring: Ring,
    pub(crate) current: PollerKey,
    pub(crate) handle: ReactorHandle,
    pub(crate) added: Vec<Box<dyn Poller>>,
    /// The next one last. They are few, and a tree would allocate with some of the insertions: requests that wait for their turn
    /// must not.
    pub(crate) timers: Vec<(TimerId, PollerKey, Due)>,
    pub(crate) sequence: u64,
    pub(crate) now: u64,
    locals: HashMap<TypeId, Box<dyn Any>>,
}

impl Cx {
    pub(crate) fn new(ring: Ring, handle: ReactorHandle) -> Self {
        Self {
            ring,
            current: PollerKey {
                index: u32::MAX,
                generation: 0,
            },
            handle,
            added: Vec::new(),
            timers: Vec::new(),
            sequence: 0,
            now: ticks(),
            locals: HashMap::new(),
        }
    }

    /// This reactor's handle, to give to others.
    #[must_use]
    pub fn handle(&self) -> &ReactorHandle {
        &self.handle
    }

    /// The poller that is running, for messages that must find it again.
    #[must_use]
    pub fn poller(&self) -> PollerKey {
        self.current
    }

    /// Ticks at the start of this pass: free to read.
    #[inline]
    #[must_use]
    pub fn now(&self) -> u64 {
        self.now
    }

    /// Starts an operation; its end comes as [`crate::Event::Complete`] with `tag`.
    ///
    /// # Errors
    /// Gives the op back when ring or table is full: keep it (or the request it stands for) and try again in a later pass.
    #[inline]
    pub fn submit(&mut self, tag: u64, op: Op) -> Result<(), Op> {
        if let Op::Wait { until } = op {
            self.at(until, Due::Wait(tag));
            return Ok(());
        }
        self.ring.submit(self.current, tag, op)
    }

    /// Registers a file with this reactor's ring.
    ///
    /// # Errors
    /// `ENFILE` when the ring's file table is full, or the kernel's refusal.
    pub fn register_file(&mut self, fd: Arc<OwnedFd>) -> Result<RingFile, Errno> {
        self.ring.register(fd)
    }

    /// Watches a descriptor for `events` (poll(2) bits, edge-triggered); readiness comes as [`crate::Event::Ready`] until
    /// [`Cx::unwatch`] or the poller's removal.
    ///
    /// # Errors
    /// `ENOSPC` or `EAGAIN` when table or ring is full.
    pub fn watch(&mut self, fd: Arc<OwnedFd>, events: u32, tag: u64) -> Result<WatchId, Errno> {
        self.ring.watch(self.current, tag, fd, events).map(WatchId)
    }

    /// Ends a watch; no event for it comes any more.
    pub fn unwatch(&mut self, id: WatchId) {
        self.ring.unwatch(id.0);
    }

    /// Calls back once, `after` from now, as [`crate::Event::Timer`].
    pub fn timer(&mut self, after: Duration, tag: u64) -> TimerId {
        let deadline = ticks().saturating_add(ticks_of(after));
        self.at(deadline, Due::Timer(tag))
    }

    fn at(&mut self, deadline: u64, due: Due) -> TimerId {
        self.at_for(self.current, deadline, due)
    }

    fn at_for(&mut self, owner: PollerKey, deadline: u64, due: Due) -> TimerId {
        self.sequence += 1;
        let id = TimerId {
            deadline,
            sequence: self.sequence,
        };
        let at = self.timers.partition_point(|(other, ..)| *other > id);
        self.timers.insert(at, (id, owner, due));
        id
    }

    /// Ends this poller's [`Op::Wait`]s now, each by its completion in the next pass; with a tag only those of that tag. Who
    /// still has a reason to wait starts another one. Takes time in proportion to all timers: for resets and the like.
    pub fn expire_waits(&mut self, tag: Option<u64>) {
        self.expire_waits_of(self.current, tag);
    }

    /// As [`Cx::expire_waits`], for the waits of another poller: for messages that let go of what it holds, or change what that
    /// waits for.
    pub fn expire_waits_of(&mut self, owner: PollerKey, tag: Option<u64>) {
        let is_meant = |due: &Due| match *due {
            Due::Timer(_) => false,
            Due::Wait(it) => tag.is_none_or(|tag| tag == it),
        };
        let meant = self
            .timers
            .extract_if(.., |(_, key, due)| *key == owner && is_meant(due));
        // In the order in which they were to end.
        let meant: Vec<Due> = meant.map(|(_, _, due)| due).collect();
        for due in meant.into_iter().rev() {
            self.at_for(owner, 0, due);
        }
    }

    /// Forgets a timer that has not run out.
    pub fn cancel_timer(&mut self, id: TimerId) {
        if let Ok(at) = self.timers.binary_search_by(|(other, ..)| id.cmp(other)) {
            self.timers.remove(at);
        }
    }

    /// Adds a poller to this reactor; it is polled from the next pass on.
    pub fn add_poller(&mut self, poller: Box<dyn Poller>) {
        self.added.push(poller);
    }

    /// A value of which this reactor has one per type, made on first use: registries of counters and the like.
    pub fn local<T: Default + 'static>(&mut self) -> &mut T {
        let slot = self
            .locals
            .entry(TypeId::of::<T>())
            .or_insert_with(|| Box::<T>::default());
        match slot.downcast_mut() {
            Some(value) => value,
            None => unreachable!("stored under its own type"),
        }
    }
}
