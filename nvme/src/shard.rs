//! A controller's I/O queues on one reactor.
//!
//! ```text
//!  poll:   messages? ─► for each group: retry what found no room ─► a turn for each SQ ─► interrupt, once
//!                                                        │
//!                 tail ► SQE by value ► decode ► (next one decoded, announced) ► Channel::submit ─┬─ Done ► CQE
//!  event:  Complete{tag} ► slot ► Channel::finish ► CQE                                           └─ Queued ► slot
//! ```
//! Per command there is no lock, no allocation, no message and no atomic read-modify-write. What waits, waits in the
//! guest's ring; beside it at most three entries per submission queue are held (one that found no room, the one decoded
//! meanwhile, one that could not be decoded yet).
//!
//! Ending (reset, removal, death of the controller) is one drain: nothing more is fetched, operations in the ring end
//! without completions, then all queues go and with them all leases on the client's memory.

mod completer;
mod control;
pub(crate) mod disks;
pub(crate) mod env;
mod group;
mod interrupt;
mod slots;
mod sq;

use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, TryRecvError};
use guest_memory::{DmaMap, MapView, SharedMemory, fault};
use nvme_spec::Status;
use reactor::{Ack, Cx, Event, Idle, Poll, Poller, ReactorHandle, ticks, ticks_of};

use crate::command::Plans;
use crate::config::Masked;
use crate::data::PageSize;
use crate::limit::LogLimit;
use crate::messages::{FromShard, ShadowDoorbells, ShardCounters, ToShard, VectorBinding};
use crate::namespace::NamespaceSet;
use crate::queue::{CompletionQueue, Doorbells, QueueError, SubmissionQueue};
use disks::Disks;
use env::{Env, Report};
use group::QueueGroup;
use interrupt::{Coalescing, Interrupt};
use slots::Slots;

/// Counters are reported not more often than this.
const REPORT_INTERVAL: Duration = Duration::from_millis(100);
/// With shadow doorbells: idle for so long, a guest is asked to ring instead of being polled. A ring costs the guest
/// a trap, so short pauses must not lead to it.
const ARM_AFTER: Duration = Duration::from_millis(2);
/// An interrupt that is due within this time limits the reactor's sleep by itself.
const NEAR: Duration = Duration::from_micros(50);
/// Passes between looks for a controller that died without a word.
const ORPHAN_PASSES: u32 = 4096;

/// What a shard is made of.
pub(crate) struct ShardSetup {
    /// Its number among the controller's shards.
    pub(crate) index: usize,
    /// The controller's name in logs.
    pub(crate) label: String,
    /// The doorbells: BAR0 from 1000h on.
    pub(crate) page: SharedMemory,
    /// Largest transfer of one command in bytes (MDTS). Keep it at or below 2 MiB: a scatter list has at most 1024 ranges.
    pub(crate) max_transfer: u32,
    /// Commands that are not offered.
    pub(crate) masked: Masked,
    /// The client's memory at present.
    pub(crate) map: Arc<DmaMap>,
    /// The namespaces at present.
    pub(crate) namespaces: Arc<NamespaceSet>,
    /// From the controller.
    pub(crate) inbox: Receiver<ToShard>,
    /// To the controller.
    pub(crate) outbox: Sender<FromShard>,
    /// The controller's reactor.
    pub(crate) home: ReactorHandle,
}

/// A controller's I/O queues on one reactor.
pub(crate) struct Shard {
    env: Env,
    groups: Vec<Option<QueueGroup>>,
    inbox: Receiver<ToShard>,
    /// [`fault::count`] when the map was last found sound.
    faults: u64,
    /// The client's memory is gone: nothing is fetched any more.
    halted: bool,
    /// Answers to `Stop` and `Exit` that are owed.
    stops: u32,
    exiting: bool,
    /// Deletions under way.
    deleting: bool,
    /// Guests with shadow doorbells have been asked to ring.
    armed: bool,
    last_work: u64,
    reported: ShardCounters,
    next_report: u64,
    passes: u32,
    /// Ticks of all passes that found or left a command outstanding, up to the next pass (Controller Busy Time).
    busy_ticks: u64,
    last_pass: u64,
    was_busy: bool,
    report_ticks: u64,
    arm_ticks: u64,
}

impl Shard {
    /// A shard without queues.
    pub(crate) fn new(setup: ShardSetup) -> Self {
        let mut disks = Disks::default();
        disks.admit(&setup.namespaces);
        Self {
            env: Env {
                view: MapView::new(setup.map),
                page: PageSize::MIN,
                doorbells: Doorbells::new(setup.page),
                disks,
                plans: Plans::default(),
                max_transfer: setup.max_transfer,
                write_through: false,
                masked_commands: setup.masked,
                coalescing: Coalescing::default(),
                masked: 0,
                stopping: false,
                retired: ShardCounters::default(),
                report: Report {
                    index: setup.index,
                    label: setup.label,
                    outbox: setup.outbox,
                    home: setup.home,
                    limit: LogLimit::new(),
                    disk_errors: LogLimit::new(),
                },
            },
            groups: Vec::new(),
            inbox: setup.inbox,
            faults: fault::count(),
            halted: false,
            stops: 0,
            exiting: false,
            deleting: false,
            armed: false,
            last_work: ticks(),
            reported: ShardCounters::default(),
            next_report: 0,
            passes: 0,
            busy_ticks: 0,
            last_pass: ticks(),
            was_busy: false,
            report_ticks: ticks_of(REPORT_INTERVAL),
            arm_ticks: ticks_of(ARM_AFTER),
        }
    }

    /// One turn for every queue.
    #[inline]
    fn serve(&mut self, cx: &mut Cx) -> bool {
        let mut busy = false;
        for group in self.groups.iter_mut().flatten() {
            let mut worked = group.retry(cx, &mut self.env);
            if !self.halted {
                worked |= group.serve(cx, &mut self.env);
            }
            if worked {
                group.look_at_head(&mut self.env);
            }
            worked |= group.interrupt_if_due(cx, &mut self.env);
            busy |= worked;
        }
        busy
    }

    /// Counts the time since the last pass, if a command was outstanding.
    #[inline]
    fn count_time(&mut self, now: u64, worked: bool) {
        if self.was_busy {
            self.busy_ticks = self
                .busy_ticks
                .wrapping_add(now.wrapping_sub(self.last_pass));
        }
        self.last_pass = now;
        let mut groups = self.groups.iter().flatten();
        self.was_busy = worked || groups.any(QueueGroup::has_commands);
    }

    /// A client's memory was truncated somewhere: was it this one's?
    #[cold]
    fn check_memory(&mut self) {
        self.faults = fault::count();
        if !self.halted && self.env.view.map().poisoned().is_some() {
            self.halted = true;
            self.env.report.tell(FromShard::Fatal {
                cause: "the client truncated its memory",
            });
        }
    }

    /// What was counted so far.
    fn counters(&self) -> ShardCounters {
        let mut total = self.env.retired;
        for group in self.groups.iter().flatten() {
            total.add(&group.counters());
        }
        total.busy = self.busy_ticks;
        total
    }

    #[cold]
    fn report_counters(&mut self, now: u64) {
        self.next_report = now.saturating_add(self.report_ticks);
        for nsid in self.env.disks.recovered() {
            self.env.report.tell(FromShard::Media {
                shard: self.env.report.index,
                nsid,
                fault: None,
            });
        }
        let counters = self.counters();
        if self.reported != counters {
            self.reported = counters;
            let shard = self.env.report.index;
            self.env
                .report
                .tell(FromShard::Counters { shard, counters });
        }
    }

    /// Asks guests with shadow doorbells to ring, so that the reactor may sleep until they do; whether work came meanwhile.
    #[cold]
    fn arm(&mut self, cx: &mut Cx) -> bool {
        if !self.groups.iter().flatten().all(QueueGroup::is_quiet) || self.env.doorbells.is_parked()
        {
            return false;
        }
        self.report_counters(cx.now());
        self.set_armed(true);
        self.env.doorbells.settle();
        self.serve(cx)
    }

    #[cold]
    fn set_armed(&mut self, armed: bool) {
        self.armed = armed;
        for group in self.groups.iter_mut().flatten() {
            group.set_armed(&self.env, armed);
        }
    }

    /// Goes on with deletions and drains; whether the poller has ended.
    #[cold]
    fn advance_endings(&mut self) -> bool {
        if self.stops > 0 {
            if !self.groups.iter().flatten().all(QueueGroup::is_drained) {
                return false;
            }
            self.end_all();
        } else if self.deleting {
            self.reap();
        }
        self.exiting && self.stops == 0
    }

    /// Everything has ended: drops all queues and answers everything that is owed.
    fn end_all(&mut self) {
        self.env.retired = self.counters();
        for group in std::mem::take(&mut self.groups).into_iter().flatten() {
            for sq in group.sqs.iter().flatten().filter(|sq| sq.deleting) {
                self.env.report.tell(FromShard::SqDeleted {
                    qid: sq.queue.qid(),
                });
            }
            if group.deleting {
                self.env.report.tell(FromShard::CqDeleted {
                    qid: group.cq().qid(),
                });
            }
        }
        let env = &mut self.env;
        env.doorbells.set_shadow(&env.view, None);
        env.coalescing = Coalescing::default();
        (env.masked, env.write_through, env.stopping) = (0, false, false);
        (self.deleting, self.armed) = (false, false);
        self.report_counters(ticks());
        for _ in 0..std::mem::take(&mut self.stops) {
            self.env.report.tell(FromShard::Stopped {
                shard: self.env.report.index,
            });
        }
    }

    fn reap(&mut self) {
        let mut more = false;
        for place in &mut self.groups {
            let Some(group) = place else { continue };
            while let Some(qid) = group.reap_sq(&mut self.env) {
                self.env.report.tell(FromShard::SqDeleted { qid });
            }
            more |= group.sqs.iter().flatten().any(|sq| sq.deleting);
            if group.is_deletable() {
                self.env.retired.add(&group.counters());
                self.env.report.tell(FromShard::CqDeleted {
                    qid: group.cq().qid(),
                });
                *place = None;
            } else {
                more |= group.deleting;
            }
        }
        self.deleting = more;
    }
}

impl Poller for Shard {
    fn name(&self) -> String {
        format!("nvme shard {}", self.env.report.label)
    }

    fn poll(&mut self, cx: &mut Cx) -> Poll {
        let mut busy = !self.inbox.is_empty() && self.take_messages(cx);
        self.passes = self.passes.wrapping_add(1);
        if self.passes.is_multiple_of(ORPHAN_PASSES) {
            self.take_messages(cx);
        }
        if fault::count() != self.faults {
            self.check_memory();
        }
        let mut worked = false;
        if self.stops == 0 {
            worked = self.serve(cx);
            busy |= worked;
        }
        self.count_time(cx.now(), worked);
        if (self.stops > 0 || self.deleting || self.exiting) && self.advance_endings() {
            return Poll::Remove;
        }
        let now = cx.now();
        if now >= self.next_report {
            self.report_counters(now);
        }
        if busy {
            self.last_work = now;
            if self.armed {
                self.set_armed(false);
            }
            return Poll::Busy;
        }
        let quiet = now.wrapping_sub(self.last_work) > self.arm_ticks;
        if quiet && self.env.doorbells.has_shadow() && !self.armed && self.arm(cx) {
            self.set_armed(false);
            self.last_work = now;
            return Poll::Busy;
        }
        Poll::Idle
    }

    #[inline]
    fn event(&mut self, cx: &mut Cx, event: Event) {
        let Event::Complete { tag, op, result } = event else {
            return;
        };
        if let Some(Some(group)) = self.groups.get_mut(Slots::group_of(tag)) {
            group.finish(cx, &mut self.env, tag, op, result);
        }
    }

    fn idle(&self) -> Idle {
        let mut groups = self.groups.iter().flatten();
        let deadlines = groups.clone().filter_map(QueueGroup::interrupt_deadline);
        let left = deadlines
            .min()
            .map(|deadline| duration_of(deadline.saturating_sub(ticks())));
        if groups.next().is_none() || self.stops > 0 {
            return Idle::UntilEvent;
        }
        match left {
            // The guest rings, so only the interrupt that is held back has its time.
            Some(left) if self.armed => Idle::Within(left),
            // Far off: doorbells must be looked at before.
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

#[cfg(test)]
mod tests;
