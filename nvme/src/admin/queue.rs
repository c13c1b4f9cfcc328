//! The admin queue pair: rings, and completions that must wait for their ring to be mapped.

use std::collections::{BTreeMap, VecDeque};

use bdev::{Count, Traffic};
use guest_memory::MapView;
use nvme_spec::{ADMIN_QID, Sqe, Status};

use crate::queue::{CompletionQueue, Doorbells, InvalidDoorbell, QueueError, SubmissionQueue};

/// A completion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Completion {
    /// Of which command.
    pub(crate) cid: u16,
    /// Status.
    pub(crate) status: Status,
    /// Dword 0.
    pub(crate) dw0: u32,
}

/// The admin submission and completion queue of an enabled controller.
#[derive(Debug)]
pub(crate) struct AdminQueue {
    sq: SubmissionQueue,
    cq: CompletionQueue,
    /// Commands that a shard works on. Each holds a reserved place in the completion queue.
    outstanding: BTreeMap<u16, Sqe>,
    /// Completions whose ring is not mapped at the moment. Each holds a reserved place.
    unposted: VecDeque<Completion>,
    /// Something was posted since the last interrupt.
    posted: bool,
    traffic: Traffic,
}

impl AdminQueue {
    /// The queues at these addresses, with these sizes in entries; empty.
    pub(crate) fn new(
        view: &MapView,
        doorbells: &Doorbells,
        (asq, asq_entries): (u64, u32),
        (acq, acq_entries): (u64, u32),
    ) -> Result<Self, QueueError> {
        let sq = SubmissionQueue::new(view, ADMIN_QID, asq, asq_entries)?;
        let cq = CompletionQueue::new(view, ADMIN_QID, acq, acq_entries)?;
        doorbells.clear_tail(ADMIN_QID);
        doorbells.clear_head(ADMIN_QID);
        Ok(Self {
            sq,
            cq,
            outstanding: BTreeMap::new(),
            unposted: VecDeque::new(),
            posted: false,
            traffic: Traffic::default(),
        })
    }

    /// Takes the rings' places from a new map. A ring that is not there parks the queue: firmware remaps low memory in
    /// steps, and commands wait until the ring is back.
    pub(crate) fn remap(&mut self, view: &MapView) -> bool {
        let sq = self.sq.remap(view);
        let cq = self.cq.remap(view);
        sq && cq
    }

    /// Looks at both doorbells.
    pub(crate) fn look(&mut self, doorbells: &Doorbells) -> [Option<InvalidDoorbell>; 2] {
        let head = self.cq.look(doorbells).err();
        let tail = self.sq.look(doorbells).err();
        [head, tail]
    }

    /// Takes the next command, if one waits and there is a place for its completion.
    pub(crate) fn fetch(&mut self) -> Option<Sqe> {
        if self.sq.waiting() == 0
            || self.sq.is_parked()
            || self.cq.is_parked()
            || !self.cq.reserve()
        {
            return None;
        }
        let sqe = self.sq.pop();
        if sqe.is_none() {
            self.cq.release();
        }
        sqe
    }

    /// Whether a command with this identifier is outstanding.
    pub(crate) fn is_outstanding(&self, cid: u16) -> bool {
        self.outstanding.contains_key(&cid)
    }

    /// The command fetched last goes on elsewhere; its completion comes later.
    pub(crate) fn defer(&mut self, sqe: &Sqe) {
        self.outstanding.insert(sqe.cid(), *sqe);
    }

    /// The command fetched last may wait for ever (an Asynchronous Event Request): it must not hold a place.
    pub(crate) fn park_request(&mut self) {
        self.cq.release();
    }

    /// Reserves a place for the completion of a request parked with [`AdminQueue::park_request`].
    pub(crate) fn reserve(&mut self) -> bool {
        !self.cq.is_parked() && self.cq.reserve()
    }

    /// Ends a deferred command and gives it back; nothing happens if it is not outstanding (a reset came between).
    pub(crate) fn finish(&mut self, completion: Completion) -> Option<Sqe> {
        let sqe = self.outstanding.remove(&completion.cid)?;
        self.complete(completion);
        Some(sqe)
    }

    /// Ends a command that holds a place.
    pub(crate) fn complete(&mut self, completion: Completion) {
        if completion.status.is_success() {
            self.traffic.succeeded(Count::Other, 0);
        } else {
            self.traffic.errors += 1;
        }
        if !self.unposted.is_empty() || !self.post(completion) {
            self.unposted.push_back(completion);
        }
    }

    fn post(&mut self, completion: Completion) -> bool {
        let Completion { cid, status, dw0 } = completion;
        let head = self.sq.head();
        let posted = self.cq.post(ADMIN_QID, head, cid, status, dw0);
        self.posted |= posted;
        posted
    }

    /// Posts what had to wait for its ring.
    pub(crate) fn flush(&mut self) {
        while let Some(completion) = self.unposted.front().copied() {
            if !self.post(completion) {
                return;
            }
            self.unposted.pop_front();
        }
    }

    /// Whether something was posted since the last call.
    pub(crate) fn take_posted(&mut self) -> bool {
        std::mem::take(&mut self.posted)
    }

    /// Whether completions wait for the host, by the last look at its doorbell.
    pub(crate) fn is_occupied(&self) -> bool {
        self.cq.is_occupied()
    }

    /// Commands that have ended.
    pub(crate) fn traffic(&self) -> Traffic {
        self.traffic
    }

    /// Commands that a shard works on. Asynchronous Event Requests are not among them: they wait for what may never happen.
    pub(crate) fn in_flight(&self) -> u32 {
        u32::try_from(self.outstanding.len()).unwrap_or(u32::MAX)
    }

    /// Size of the submission queue.
    pub(crate) fn entries(&self) -> u32 {
        self.sq.entries()
    }
}
