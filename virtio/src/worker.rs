//! A device's queues on one reactor.
//!
//! ```text
//!  poll:   messages? ─► for each queue: retry what found no room ─► a turn ─► interrupt, once
//!                                                        │
//!             Ring::take ► Chain ► decode ► (next one decoded, announced) ► Channel::submit ─┬─ Done ► status, Ring::put
//!  event:  Complete{tag} ► slot ► Channel::finish ► status, Ring::put                        └─ Queued ► slot
//! ```
//! Per request there is no lock, no allocation, no message and no atomic read-modify-write. What waits, waits in the guest's
//! ring; beside it at most two decoded requests per queue are held (one that found no room, and the one decoded meanwhile).
//!
//! While there is work the driver is asked not to notify. After a quiet time it is asked to, the rings are looked at once more, and
//! the reactor may sleep until it does; unless notifications are stores to memory that the VMM maps ([`crate::Kick::Polled`]).
//!
//! Ending (reset, removal) is one drain: nothing more is taken, operations in the ring end without used entries, then the worker goes and
//! with it everything that it held of the client.

mod control;
mod disks;
mod env;
mod interrupt;
mod plan;
mod queue;
mod request;
mod slots;

use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::Receiver;
use guest_memory::{DmaMap, MapView, fault};
use reactor::{Cx, Event, Idle, LogLimit, Poll, Poller, ticks, ticks_of};

use crate::blk::config;
use crate::blk::messages::{FromWorker, ToWorker};
use crate::blk::workers::WorkerStart;
use crate::device::QueueSetup;
use disks::Disks;
use env::{Env, Report};
use plan::Plans;
use queue::Queue;
use slots::Slots;

/// Idle for so long, drivers are asked to notify instead of being polled. A notification costs the guest a trap, so short pauses must
/// not lead to it.
const ARM_AFTER: Duration = Duration::from_millis(2);
/// An interrupt that is due within this time limits the reactor's sleep by itself.
const NEAR: Duration = Duration::from_micros(50);

/// A device's queues on one reactor.
pub(crate) struct Worker {
    env: Env,
    queues: Vec<Option<Queue>>,
    /// Whose turn is first in the next pass.
    first: usize,
    inbox: Receiver<ToWorker>,
    /// [`fault::count`] when the map was last found sound.
    faults: u64,
    /// The client's memory is gone: nothing is taken any more.
    halted: bool,
    /// A queue is being stopped.
    stopping: bool,
    /// Drivers have been asked to notify.
    armed: bool,
    last_work: u64,
    arm_ticks: u64,
}

impl Worker {
    /// A worker without queues.
    pub(crate) fn new(start: WorkerStart) -> Self {
        Self {
            env: Env {
                view: MapView::new(start.map),
                mode: start.mode,
                disks: Disks::new(start.disk),
                plans: Plans::default(),
                serial: config::serial(&start.config),
                readonly: start.config.readonly,
                coalescing: start.coalescing,
                exiting: false,
                report: Report {
                    label: start.config.label.clone(),
                    outbox: start.outbox,
                    home: start.home,
                    limit: LogLimit::new(),
                    disk_errors: LogLimit::new(),
                },
            },
            queues: Vec::new(),
            first: 0,
            inbox: start.inbox,
            faults: fault::count(),
            halted: false,
            stopping: false,
            armed: false,
            last_work: ticks(),
            arm_ticks: ticks_of(ARM_AFTER),
        }
    }

    /// One turn for every queue.
    #[inline]
    fn serve(&mut self, cx: &mut Cx) -> bool {
        let count = self.queues.len();
        let mut busy = false;
        for step in 0..count {
            let at = self.first + step;
            let at = if at < count { at } else { at - count };
            let Some(Some(queue)) = self.queues.get_mut(at) else {
                continue;
            };
            busy |= queue.retry(cx, &mut self.env);
            if !self.halted {
                busy |= queue.serve(cx, &mut self.env);
            }
            busy |= queue.interrupt_if_due(cx);
        }
        self.first = if self.first + 1 < count {
            self.first + 1
        } else {
            0
        };
        busy
    }

    /// A client's memory was truncated somewhere: was it this one's?
    #[cold]
    fn check_memory(&mut self) {
        self.faults = fault::count();
        if !self.halted && self.env.view.map().poisoned().is_some() {
            self.halted = true;
            for queue in self.queues.iter_mut().flatten() {
                queue.abandon(&mut self.env);
            }
            self.env.report.tell(FromWorker::Broken {
                index: None,
                cause: "the client truncated its memory".to_owned(),
            });
        }
    }

    /// Asks drivers to notify, so that the reactor may sleep until they do; whether work came meanwhile.
    #[cold]
    fn arm(&mut self, cx: &mut Cx) -> bool {
        let mut queues = self.queues.iter().flatten();
        if queues.any(|queue| queue.must_be_looked_at() || !queue.is_quiet()) {
            return false;
        }
        self.set_armed(true);
        self.serve(cx)
    }

    #[cold]
    fn set_armed(&mut self, armed: bool) {
        self.armed = armed;
        for queue in self.queues.iter_mut().flatten() {
            queue.set_armed(armed);
        }
    }

    /// Lets go of queues that have come to their end.
    #[cold]
    fn reap(&mut self) {
        let mut more = false;
        for place in &mut self.queues {
            let Some(queue) = place else { continue };
            let index = queue.index();
            match queue.stopped() {
                Some(state) => {
                    *place = None;
                    self.env.report.tell(FromWorker::Stopped { index, state });
                }
                None => more = true,
            }
        }
        self.stopping = more;
    }

    #[cold]
    fn sweep(&mut self) {
        let queues = &self.queues;
        let refers = |disk| {
            let mut queues = queues.iter().flatten();
            queues.any(|queue| queue.refers_to(disk))
        };
        self.env.disks.sweep(refers);
    }
}

impl Poller for Worker {
    fn name(&self) -> String {
        format!("virtio-blk {}", self.env.report.label)
    }

    fn poll(&mut self, cx: &mut Cx) -> Poll {
        let mut busy = !self.inbox.is_empty() && self.take_messages(cx);
        if fault::count() != self.faults {
            self.check_memory();
        }
        if self.env.exiting {
            return if self.queues.iter().flatten().all(Queue::is_drained) {
                Poll::Remove
            } else {
                Poll::Idle
            };
        }
        busy |= self.serve(cx);
        if self.stopping {
            self.reap();
        }
        if self.env.disks.has_leaving() {
            self.sweep();
        }
        let now = cx.now();
        if busy {
            self.last_work = now;
            if self.armed {
                self.set_armed(false);
            }
            return Poll::Busy;
        }
        let quiet = now.wrapping_sub(self.last_work) > self.arm_ticks;
        if quiet && !self.armed && self.arm(cx) {
            self.set_armed(false);
            self.last_work = now;
            return Poll::Busy;
        }
        Poll::Idle
    }

    #[inline]
    fn event(&mut self, cx: &mut Cx, event: Event) {
        match event {
            Event::Complete { tag, op, result } => {
                if let Some(Some(queue)) = self.queues.get_mut(Slots::queue_of(tag)) {
                    queue.finish(cx, &mut self.env, tag, op, result);
                }
            }
            Event::Ready { tag, .. } => {
                let place = usize::try_from(tag).ok();
                let queue = place.and_then(|place| self.queues.get(place));
                if let Some(Some(queue)) = queue {
                    queue.take_kicks();
                }
            }
            Event::Timer { .. } => {}
        }
    }

    fn idle(&self) -> Idle {
        let deadlines = self.queues.iter().flatten();
        let deadlines = deadlines.filter_map(Queue::interrupt_deadline);
        let left = deadlines
            .min()
            .map(|deadline| duration_of(deadline.saturating_sub(ticks())));
        if self.env.exiting || self.queues.iter().all(Option::is_none) {
            return Idle::UntilEvent;
        }
        match left {
            // Drivers notify, so only the interrupt that is held back has its time.
            Some(left) if self.armed => Idle::Within(left),
            // Far off: rings must be looked at before.
            Some(left) if left < NEAR => Idle::Within(left),
            None if self.armed => Idle::UntilEvent,
            _ => Idle::Bounded,
        }
    }
}

fn duration_of(ticks: u64) -> Duration {
    let nanos = u128::from(ticks) * 1_000_000_000 / u128::from(reactor::tick_rate());
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}
