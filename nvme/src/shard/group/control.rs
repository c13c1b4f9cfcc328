//! The rare doings of a group: deletion, abort, reset, changes of the map, of namespaces and of the doorbells' place.

use super::super::sq::MARKS;
use super::*;
use crate::handle::ControllerSnapshot;
use crate::messages::ShardCounters;

impl QueueGroup {
    /// Stops a submission queue. What was taken from it and has not reached a disk is aborted (Base 2.0c, 5.7).
    pub(in crate::shard) fn delete_sq(&mut self, cx: &Cx, env: &mut Env, at: usize) {
        let Self { side, sqs, .. } = self;
        let Some(sq) = sqs.get_mut(at).and_then(Option::as_mut) else {
            return;
        };
        sq.deleting = true;
        // An entry that was not decoded has no place reserved; nobody has promised it a completion.
        sq.held = None;
        while let Some(command) = sq.take_if(|_| true) {
            side.end(cx, env, sq, command, Status::ABORTED_SQ_DELETION);
        }
    }

    /// Whether the deletion of a submission queue is under way.
    pub(in crate::shard) fn is_deleting_sq(&self, at: usize) -> bool {
        self.sqs
            .get(at)
            .and_then(Option::as_ref)
            .is_some_and(|sq| sq.deleting)
    }

    /// Takes a last look at all doorbells where they are now.
    pub(in crate::shard) fn look(&mut self, env: &mut Env) {
        self.look_at_head(env);
        for sq in self.sqs.iter_mut().flatten() {
            if let Err(bad) = sq.queue.look(&env.doorbells) {
                env.report.invalid_doorbell(bad);
            }
        }
    }

    /// Removes submission queues whose deletion has come to its end; answers their identifiers one by one.
    pub(in crate::shard) fn reap_sq(&mut self, env: &mut Env) -> Option<u16> {
        let done = |sq: &Sq| sq.deleting && sq.in_flight == 0;
        let mut places = self.sqs.iter_mut();
        let place = places.find(|place| place.as_ref().is_some_and(done))?;
        let sq = place.take()?;
        env.retired.traffic.add(&sq.traffic);
        Some(sq.queue.qid())
    }

    /// What all its queues have counted.
    pub(in crate::shard) fn counters(&self) -> ShardCounters {
        let mut counters = ShardCounters {
            interrupts: self.interrupts,
            ..ShardCounters::default()
        };
        for sq in self.sqs.iter().flatten() {
            counters.traffic.add(&sq.traffic);
        }
        counters
    }

    /// Enters its queues into a snapshot.
    pub(in crate::shard) fn describe(&self, snapshot: &mut ControllerSnapshot) {
        let mut interrupts = self.interrupts;
        for sq in self.sqs.iter().flatten() {
            let in_flight = sq.in_flight + u32::from(sq.taken()) + u32::from(sq.held.is_some());
            let interrupts = std::mem::take(&mut interrupts);
            snapshot.describe_queue(sq.queue.qid(), sq.traffic, interrupts, in_flight);
        }
    }

    /// Whether the completion queue may go.
    pub(in crate::shard) fn is_deletable(&self) -> bool {
        self.deleting && self.side.slots.used() == 0 && self.sqs.iter().all(Option::is_none)
    }

    /// Aborts a command that has not reached a disk; whether it did.
    pub(in crate::shard) fn abort(&mut self, cx: &Cx, env: &mut Env, at: usize, cid: u16) -> bool {
        self.abort_pending(cx, env, at, cid)
            || self.abort_waiting(cx, env, at, cid)
            || self.mark_unfetched(at, cid)
    }

    fn abort_pending(&mut self, cx: &Cx, env: &mut Env, at: usize, cid: u16) -> bool {
        let Self { side, sqs, .. } = self;
        let Some(sq) = sqs.get_mut(at).and_then(Option::as_mut) else {
            return false;
        };
        if let Some(command) = sq.take_if(|command| command.cid == cid) {
            side.end(cx, env, sq, command, Status::ABORT_REQUESTED);
            return true;
        }
        if let Some(sqe) = sq.held.take_if(|sqe| sqe.cid() == cid) {
            if side.cq.reserve() {
                let command = Command::undecoded(at, &sqe);
                side.end(cx, env, sq, command, Status::ABORT_REQUESTED);
                return true;
            }
            sq.held = Some(sqe);
        }
        false
    }

    /// Aborts a command that waits in its slot for room for its next request.
    fn abort_waiting(&mut self, cx: &Cx, env: &mut Env, at: usize, cid: u16) -> bool {
        let mut aborted = false;
        for _ in 0..self.side.slots.queued() {
            let Some((index, command, state)) = self.side.slots.pop() else {
                break;
            };
            let is_it = usize::from(command.sq) == at && command.cid == cid;
            if is_it && matches!(state, State::Waiting(_)) && !aborted {
                aborted = true;
                self.complete(cx, env, index, Status::ABORT_REQUESTED);
            } else {
                self.side.slots.set(index, command, state);
            }
        }
        aborted
    }

    /// Marks an entry that is still in the guest's ring.
    fn mark_unfetched(&mut self, at: usize, cid: u16) -> bool {
        let Some(sq) = self.sqs.get_mut(at).and_then(Option::as_mut) else {
            return false;
        };
        let is_it = |n: &u32| sq.queue.peek(*n).is_some_and(|sqe| sqe.cid() == cid);
        let found = (0..sq.queue.waiting()).find(is_it);
        let Some(found) = found.filter(|_| sq.marks.len() < MARKS) else {
            return false;
        };
        let position = (u32::from(sq.queue.head()) + found) % sq.queue.entries();
        sq.marks.push((position & 0xffff) as u16);
        true
    }

    /// Ends everything that is not in the ring, without completions.
    pub(in crate::shard) fn stop(&mut self, cx: &mut Cx, env: &mut Env) {
        for sq in self.sqs.iter_mut().flatten() {
            sq.held = None;
            while let Some(command) = sq.take_if(|_| true) {
                env.plans.release(command.plan);
            }
        }
        while let Some((index, command, state)) = self.side.slots.pop() {
            if let State::Stalled(op) = state {
                // The channel knows of this one, so it must hear of its end.
                let channel = env.disks.get(command.disk).and_then(Disk::channel);
                if let (Some(channel), Some(tag)) = (channel, self.side.slots.tag_of(index)) {
                    let finished = channel.finish(cx, tag, op, Err(Errno::ECANCELED));
                    if matches!(finished, Finished::Queued) {
                        continue;
                    }
                }
            }
            self.forget(env, index);
        }
    }

    /// Whether nothing is in the ring any more (after [`QueueGroup::stop`]).
    pub(in crate::shard) fn is_drained(&self) -> bool {
        self.side.slots.used() == 0
    }

    /// Finds the rings in a new map.
    pub(in crate::shard) fn remap(&mut self, view: &MapView) {
        self.side.cq.remap(view);
        for sq in self.sqs.iter_mut().flatten() {
            sq.queue.remap(view);
        }
    }

    /// Ends what waits for disks that have left the set.
    pub(in crate::shard) fn purge(&mut self, cx: &Cx, env: &mut Env) {
        let Self { side, sqs, .. } = self;
        for sq in sqs.iter_mut().flatten() {
            while let Some(command) = sq.take_if(|command| {
                let disk = env.disks.get(command.disk);
                disk.is_none_or(|disk| disk.is_leaving())
            }) {
                let status = env.lost(sq, &command);
                side.end(cx, env, sq, command, status);
            }
        }
    }

    /// Tells the guest's new shadow doorbells where the queues are.
    pub(in crate::shard) fn adopt(&mut self, env: &Env) {
        let cq = &self.side.cq;
        self.hushed = cq.head();
        env.doorbells.adopt_head(cq.qid(), cq.head());
        for sq in self.sqs.iter_mut().flatten() {
            sq.hushed = sq.queue.tail();
            env.doorbells.adopt_tail(sq.queue.qid(), sq.queue.tail());
        }
    }

    /// Whether every submission queue is empty and nothing waits to be tried again: the next work comes with a doorbell.
    pub(in crate::shard) fn is_quiet(&self) -> bool {
        let quiet = |sq: &Sq| !sq.has_pending() && sq.queue.waiting() == 0;
        !self.side.slots.has_queued() && self.sqs.iter().flatten().all(quiet)
    }

    /// Asks the guest to ring for every submission queue, or not to.
    pub(in crate::shard) fn set_armed(&mut self, env: &Env, armed: bool) {
        for sq in self.sqs.iter_mut().flatten() {
            let (qid, tail) = (sq.queue.qid(), sq.queue.tail());
            if armed {
                env.doorbells.arm(qid, tail);
            } else {
                sq.hushed = tail;
                env.doorbells.hush(qid, tail);
            }
        }
    }
}
