//! One completion queue with its submission queues.

mod control;

use bdev::{Finished, Io, IoStatus, Submitted};
use guest_memory::MapView;
use nix::errno::Errno;
use nvme_spec::Status;
use reactor::{Cx, Op};

use super::completer::{Budget, Completer, next};
use super::disks::Disk;
use super::env::Env;
use super::interrupt::Interrupt;
use super::slots::{Slots, State};
use super::sq::Sq;
use crate::command::{Command, Ready};
use crate::queue::{CompletionQueue, SubmissionQueue};

/// Commands taken from one submission queue per pass at most.
const BATCH: u32 = 32;
/// Bytes after which a queue's turn ends, so that large transfers to RAM disks don't make other guests wait.
const BATCH_BYTES: u64 = 256 << 10;
/// Commands tried again per pass at most.
const RETRIES: usize = 32;

/// A command in a slot goes on with another disk.
fn move_hold(env: &mut Env, from: u16, to: u16) {
    if from != to {
        env.disks.hold(to);
        env.disks.release(from);
    }
}

/// One completion queue with its submission queues.
pub(super) struct QueueGroup {
    side: Completer,
    pub(super) sqs: Vec<Option<Sq>>,
    /// Whose turn is first in the next pass.
    first: usize,
    /// The completion queue is to go once its submission queues have gone.
    pub(super) deleting: bool,
    /// Its head when EventIdx was last written.
    hushed: u32,
    /// Interrupts raised.
    interrupts: u64,
}

impl QueueGroup {
    /// `index` is the group's place in the shard.
    pub(super) fn new(index: u16, cq: CompletionQueue, interrupt: Interrupt) -> Self {
        let slots = Slots::new(index, cq.entries() - 1);
        Self {
            side: Completer {
                cq,
                interrupt,
                slots,
            },
            sqs: Vec::new(),
            first: 0,
            deleting: false,
            hushed: 0,
            interrupts: 0,
        }
    }

    pub(super) fn cq(&self) -> &CompletionQueue {
        &self.side.cq
    }

    pub(super) fn interrupt(&mut self) -> &mut Interrupt {
        &mut self.side.interrupt
    }

    /// Whether a command has been taken and not ended.
    #[inline]
    pub(super) fn has_commands(&self) -> bool {
        self.side.slots.used() > 0
    }

    /// Adds a submission queue.
    pub(super) fn add(&mut self, queue: SubmissionQueue) {
        let sq = Some(Sq::new(queue));
        match self.sqs.iter_mut().find(|place| place.is_none()) {
            Some(place) => *place = sq,
            None => self.sqs.push(sq),
        }
    }

    /// The index of the submission queue with this identifier.
    pub(super) fn find(&self, qid: u16) -> Option<usize> {
        let is_it = |sq: &Option<Sq>| sq.as_ref().is_some_and(|sq| sq.queue.qid() == qid);
        self.sqs.iter().position(is_it)
    }

    /// One turn for every submission queue.
    #[inline]
    pub(super) fn serve(&mut self, cx: &mut Cx, env: &mut Env) -> bool {
        let count = self.sqs.len();
        let mut busy = false;
        for step in 0..count {
            let at = self.first + step;
            busy |= self.turn(cx, env, if at < count { at } else { at - count });
        }
        self.first = if self.first + 1 < count {
            self.first + 1
        } else {
            0
        };
        busy
    }

    #[inline]
    fn turn(&mut self, cx: &mut Cx, env: &mut Env, at: usize) -> bool {
        let Some(sq) = self.sqs.get_mut(at).and_then(Option::as_mut) else {
            return false;
        };
        match sq.queue.look(&env.doorbells) {
            Ok(0) if !sq.has_pending() => {
                sq.queue.prefetch();
                return false;
            }
            Ok(_) => {}
            Err(bad) => env.report.invalid_doorbell(bad),
        }
        !sq.deleting && self.work(cx, env, at)
    }

    /// Takes, decodes and submits; decoding runs one command ahead, so that the disk knows what comes next.
    fn work(&mut self, cx: &mut Cx, env: &mut Env, at: usize) -> bool {
        let Self { side, sqs, .. } = self;
        let Some(sq) = sqs.get_mut(at).and_then(Option::as_mut) else {
            return false;
        };
        let index = u16::try_from(at).unwrap_or(u16::MAX);
        let mut budget = Budget {
            commands: BATCH,
            bytes: BATCH_BYTES,
        };
        let mut submitted = false;
        loop {
            while sq.taken() < 2 && side.fetch(cx, env, sq, index, &mut budget) {}
            if sq.taken() == 0 {
                break;
            }
            if let Some(Ready {
                command,
                io: Some(io),
            }) = sq.second()
                && let Some(channel) = env.disks.get(command.disk).and_then(Disk::channel)
            {
                channel.prefetch(io.kind, io.lba, io.blocks);
            }
            if !side.submit(cx, env, sq) {
                break;
            }
            submitted = true;
        }
        if env.doorbells.has_shadow() {
            hush(env, sq);
        }
        submitted || budget.commands < BATCH
    }

    /// Takes the end of an operation of this group.
    #[inline]
    pub(super) fn finish(
        &mut self,
        cx: &mut Cx,
        env: &mut Env,
        tag: u64,
        op: Op,
        result: Result<u32, Errno>,
    ) {
        let Some((index, slot)) = self.side.slots.find(tag) else {
            return;
        };
        let command = slot.command;
        if let Some(channel) = env.disks.get(command.disk).and_then(Disk::channel) {
            let finished = channel.finish(cx, tag, op, result);
            self.finished(cx, env, index, command, finished);
        }
    }

    #[inline]
    fn finished(
        &mut self,
        cx: &mut Cx,
        env: &mut Env,
        index: u32,
        command: Command,
        finished: Finished,
    ) {
        match finished {
            Finished::Queued => {}
            Finished::Done(status) => self.ended(cx, env, index, command, status),
            Finished::Stalled(_) if env.stopping => self.forget(env, index),
            Finished::Stalled(op) => self.side.slots.set(index, command, State::Stalled(op)),
        }
    }

    /// A request of a command in a slot has ended.
    #[inline]
    fn ended(
        &mut self,
        cx: &mut Cx,
        env: &mut Env,
        index: u32,
        mut command: Command,
        status: IoStatus,
    ) {
        if env.stopping {
            self.forget(env, index);
            return;
        }
        let Some(sq) = self
            .sqs
            .get_mut(usize::from(command.sq))
            .and_then(Option::as_mut)
        else {
            return self.forget(env, index);
        };
        let before = command.disk;
        match next(cx, env, sq, &mut command, status) {
            Err(status) => self.complete(cx, env, index, status),
            Ok(io) => {
                move_hold(env, before, command.disk);
                self.resubmit(cx, env, index, command, io);
            }
        }
    }

    /// Submits the next request of a command in a slot; `false` if there is still no room for it.
    fn resubmit(
        &mut self,
        cx: &mut Cx,
        env: &mut Env,
        index: u32,
        command: Command,
        io: Io,
    ) -> bool {
        let disk = env
            .disks
            .get(command.disk)
            .filter(|disk| !disk.is_leaving());
        let channel = disk.and_then(Disk::channel);
        let (Some(channel), Some(tag)) = (channel, self.side.slots.tag_of(index)) else {
            self.refuse(cx, env, index, command);
            return true;
        };
        match channel.submit(cx, tag, io) {
            Submitted::Queued => self.side.slots.set(index, command, State::InRing),
            Submitted::Full(io) => {
                self.side.slots.set(index, command, State::Waiting(io));
                return false;
            }
            Submitted::Done(status) => {
                let Some(sq) = self
                    .sqs
                    .get_mut(usize::from(command.sq))
                    .and_then(Option::as_mut)
                else {
                    self.forget(env, index);
                    return true;
                };
                let mut after = command;
                match next(cx, env, sq, &mut after, status) {
                    Err(status) => self.complete(cx, env, index, status),
                    Ok(io) => {
                        move_hold(env, command.disk, after.disk);
                        // Its turn comes again in the next pass.
                        self.side.slots.set(index, after, State::Waiting(io));
                    }
                }
            }
        }
        true
    }

    fn refuse(&mut self, cx: &Cx, env: &mut Env, index: u32, command: Command) {
        let sq = self
            .sqs
            .get_mut(usize::from(command.sq))
            .and_then(Option::as_mut);
        let Some(sq) = sq else {
            return self.forget(env, index);
        };
        let status = env.lost(sq, &command);
        self.complete(cx, env, index, status);
    }

    /// Ends a command in a slot.
    #[inline]
    fn complete(&mut self, cx: &Cx, env: &mut Env, index: u32, status: Status) {
        let Some((command, _)) = self.side.slots.remove(index) else {
            return;
        };
        env.disks.release(command.disk);
        if let Some(sq) = self
            .sqs
            .get_mut(usize::from(command.sq))
            .and_then(Option::as_mut)
        {
            sq.in_flight = sq.in_flight.saturating_sub(1);
            self.side.end(cx, env, sq, command, status);
        }
    }

    /// Ends a command in a slot without a completion.
    #[cold]
    fn forget(&mut self, env: &mut Env, index: u32) {
        let Some((command, _)) = self.side.slots.remove(index) else {
            return;
        };
        env.plans.release(command.plan);
        env.disks.release(command.disk);
        self.side.cq.release();
        if let Some(sq) = self
            .sqs
            .get_mut(usize::from(command.sq))
            .and_then(Option::as_mut)
        {
            sq.in_flight = sq.in_flight.saturating_sub(1);
        }
    }

    /// Tries again what found no room.
    #[inline]
    pub(super) fn retry(&mut self, cx: &mut Cx, env: &mut Env) -> bool {
        self.side.slots.has_queued() && self.retry_some(cx, env)
    }

    #[cold]
    fn retry_some(&mut self, cx: &mut Cx, env: &mut Env) -> bool {
        let mut busy = false;
        for _ in 0..self.side.slots.queued().min(RETRIES) {
            let Some((index, command, state)) = self.side.slots.pop() else {
                break;
            };
            match state {
                State::Unposted(status) if self.side.cq.is_parked() => {
                    self.side.slots.set(index, command, State::Unposted(status));
                }
                State::Unposted(status) => {
                    self.complete(cx, env, index, status);
                    busy = true;
                }
                State::Waiting(io) => busy |= self.resubmit(cx, env, index, command, io),
                State::Stalled(op) => {
                    let channel = env.disks.get(command.disk).and_then(Disk::channel);
                    if let (Some(channel), Some(tag)) = (channel, self.side.slots.tag_of(index)) {
                        let finished = channel.resume(cx, tag, op);
                        busy |= !matches!(finished, Finished::Stalled(_));
                        self.finished(cx, env, index, command, finished);
                    }
                }
                State::Free | State::InRing => {}
            }
        }
        busy
    }

    /// Raises the interrupt if that is due; whether it did.
    #[inline]
    pub(super) fn interrupt_if_due(&mut self, cx: &Cx, env: &mut Env) -> bool {
        let raised = self.side.interrupt.flush(cx.now(), env.masked);
        self.interrupts += u64::from(raised);
        raised
    }

    /// When a held interrupt must be raised, in ticks.
    pub(super) fn interrupt_deadline(&self) -> Option<u64> {
        self.side.interrupt.deadline()
    }

    /// Looks at the head doorbell, for a wrong value's sake.
    pub(super) fn look_at_head(&mut self, env: &mut Env) {
        if let Err(bad) = self.side.cq.look(&env.doorbells) {
            env.report.invalid_doorbell(bad);
        }
        let cq = &self.side.cq;
        if env.doorbells.has_shadow() && cq.distance_from(self.hushed) >= cq.entries() / 2 {
            self.hushed = cq.head();
            env.doorbells.hush_head(cq.qid(), cq.head());
        }
    }
}

/// Moves EventIdx along before the tail has gone once around: a guest rings when its tail passes it.
#[cold]
fn hush(env: &Env, sq: &mut Sq) {
    if sq.queue.distance_from(sq.hushed) >= sq.queue.entries() / 2 {
        sq.hushed = sq.queue.tail();
        env.doorbells.hush(sq.queue.qid(), sq.hushed);
    }
}
