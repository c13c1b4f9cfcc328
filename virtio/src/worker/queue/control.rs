//! The rare doings of a queue: start, stop, drain, changes of the map and of what it tells and is told.

use std::io::IoSliceMut;

use nix::libc;
use rustix::io::ReadWriteFlags;

use super::*;
use crate::blk::{Coalescing, QueueInfo};
use crate::device::{Interrupt, RingState};
use crate::queue::RingError;

impl Queue {
    /// A queue at `place` in its worker.
    pub(in crate::worker) fn new(
        cx: &mut Cx,
        env: &Env,
        place: u16,
        index: u16,
        setup: QueueSetup,
    ) -> Self {
        let watch = match &setup.kick {
            Kick::Event(event) => {
                let events = u32::try_from(libc::POLLIN).unwrap_or(0);
                cx.watch(event.clone(), events, u64::from(place)).ok()
            }
            Kick::Polled | Kick::Trapped => None,
        };
        let mut queue = Self {
            index,
            ring: None,
            watch,
            signal: Signal::new(setup.interrupt.clone(), env.coalescing),
            traffic: Traffic::default(),
            interrupts: 0,
            chain: Chain::default(),
            ready: Default::default(),
            front: 0,
            taken: 0,
            slots: Slots::new(place, setup.size),
            closed: false,
            stopping: false,
            setup,
        };
        queue.find(env);
        queue
    }

    /// Looks for the ring's memory.
    fn find(&mut self, env: &Env) {
        match Virtqueue::new(&self.setup, &env.view) {
            Ok(mut ring) => {
                ring.want_kicks(false);
                self.ring = Some(ring);
                self.signal.ask();
            }
            Err(RingError::Memory(fault)) => tracing::debug!(
                endpoint = env.report.label,
                queue = self.index,
                %fault,
                "a queue does not lie in the client's memory at present"
            ),
            Err(error) => self.break_down(env, error.to_string()),
        }
    }

    pub(in crate::worker) fn index(&self) -> u16 {
        self.index
    }

    /// Uses the memory of `env` from here on. What was decoded before keeps `old`, so that it ends where it began.
    pub(in crate::worker) fn remap(&mut self, env: &Env, old: &MapView) {
        let taken = self.ready.iter_mut().map(|ready| &mut ready.request);
        for request in taken.chain(self.slots.requests()) {
            request.view.get_or_insert_with(|| old.clone());
        }
        if self.taken < 2 {
            let free = (self.front ^ self.taken) & 1;
            self.ready[usize::from(free)].request.view = None;
        }
        if self.taken == 0 {
            self.ready[usize::from(!self.front & 1)].request.view = None;
        }
        match &mut self.ring {
            Some(ring) => match ring.remap(&env.view) {
                Ok(()) => self.signal.ask(),
                Err(fault) => tracing::debug!(
                    endpoint = env.report.label,
                    queue = self.index,
                    %fault,
                    "a queue does not lie in the client's memory any more"
                ),
            },
            None if !self.closed => self.find(env),
            None => {}
        }
    }

    pub(in crate::worker) fn set_interrupt(&mut self, interrupt: Option<Interrupt>) {
        self.signal.rebind(interrupt);
    }

    pub(in crate::worker) fn set_coalescing(&mut self, coalescing: Coalescing) {
        self.signal.configure(coalescing);
    }

    /// When a held interrupt must be raised, in ticks.
    pub(in crate::worker) fn interrupt_deadline(&self) -> Option<u64> {
        self.signal.deadline()
    }

    /// Takes no more; what was taken ends.
    pub(in crate::worker) fn stop(&mut self, cx: &mut Cx) {
        (self.closed, self.stopping) = (true, true);
        self.unwatch(cx);
    }

    fn unwatch(&mut self, cx: &mut Cx) {
        if let Some(watch) = self.watch.take() {
            cx.unwatch(watch);
        }
    }

    /// Where the ring stands, if it was to be stopped and nothing that was taken from it is left.
    pub(in crate::worker) fn stopped(&self) -> Option<RingState> {
        if !self.stopping || self.taken > 0 || self.slots.used() > 0 {
            return None;
        }
        let ring = self.ring.as_ref();
        Some(ring.map_or(self.setup.state, Ring::state))
    }

    /// Forgets what was decoded and has not reached the disk: the memory that it is about is gone.
    pub(in crate::worker) fn abandon(&mut self, env: &mut Env) {
        self.taken = 0;
        for at in 0..self.ready.len() {
            let Ready { mut request, .. } = std::mem::take(&mut self.ready[at]);
            self.let_go(env, &mut request);
        }
    }

    /// Ends everything that is not in the ring, without used entries.
    pub(in crate::worker) fn drain(&mut self, cx: &mut Cx, env: &mut Env) {
        self.closed = true;
        self.unwatch(cx);
        self.abandon(env);
        while let Some((index, state)) = self.slots.pop() {
            if let State::Stalled(op) = state {
                // The channel knows of this one, so it must hear of its end.
                let disk = self.slots.request(index).map_or(NO_DISK, |it| it.disk);
                let channel = env.disks.get(disk).and_then(Disk::channel);
                if let (Some(channel), Some(tag)) = (channel, self.slots.tag_of(index)) {
                    let finished = channel.finish(cx, tag, op, Err(Errno::ECANCELED));
                    if matches!(finished, Finished::Queued) {
                        continue;
                    }
                }
            }
            self.forget(env, index);
        }
    }

    /// Whether nothing is in the ring any more (after [`Queue::drain`]).
    pub(in crate::worker) fn is_drained(&self) -> bool {
        self.slots.used() == 0
    }

    /// Ends a request in a slot without a used entry.
    #[cold]
    pub(super) fn forget(&mut self, env: &mut Env, index: u32) {
        if let Some(mut request) = self.slots.remove(index) {
            env.disks.release(request.disk);
            self.let_go(env, &mut request);
        }
    }

    /// Whether a request that is in no slot is meant for this disk.
    pub(in crate::worker) fn refers_to(&self, disk: u16) -> bool {
        let taken = (0..self.taken).map(|n| &self.ready[usize::from((self.front ^ n) & 1)]);
        taken.into_iter().any(|ready| ready.request.disk == disk)
    }

    /// Whether there may be work without a notification: it is served, and its notifications don't reach us.
    pub(in crate::worker) fn must_be_looked_at(&self) -> bool {
        let deaf = match self.setup.kick {
            Kick::Polled => true,
            Kick::Trapped => false,
            Kick::Event(_) => self.watch.is_none(),
        };
        deaf && !self.closed && self.ring.is_some()
    }

    /// Whether nothing that was taken waits for room.
    pub(in crate::worker) fn is_quiet(&self) -> bool {
        self.taken == 0 && self.slots.queued() == 0
    }

    /// Asks the driver to notify, or not to.
    pub(in crate::worker) fn set_armed(&mut self, armed: bool) {
        if !self.closed
            && let Some(ring) = &mut self.ring
        {
            ring.want_kicks(armed);
        }
    }

    /// Takes the count of notifications, so that the event's next edge is seen. It never waits, whatever the client made of the
    /// descriptor: that is why it is not a plain read.
    pub(in crate::worker) fn take_kicks(&self) {
        if let Kick::Event(event) = &self.setup.kick {
            let mut count = [0; 8];
            let mut into = [IoSliceMut::new(&mut count)];
            let _ = rustix::io::preadv2(event, &mut into, u64::MAX, ReadWriteFlags::NOWAIT);
        }
    }

    /// For the operator.
    pub(in crate::worker) fn info(&self, lcore: u32) -> QueueInfo {
        let in_flight = self.slots.used() + u32::from(self.taken);
        QueueInfo {
            index: self.index,
            size: self.setup.size,
            packed: self.setup.features & virtio_spec::feature::RING_PACKED != 0,
            lcore,
            in_flight: u16::try_from(in_flight).unwrap_or(u16::MAX),
            traffic: self.traffic,
            interrupts: self.interrupts,
        }
    }
}
