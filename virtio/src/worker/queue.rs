//! One virtqueue.

mod control;

use bdev::{Finished, Io, IoStatus, Submitted, Traffic};
use guest_memory::MapView;
use nix::errno::Errno;
use reactor::{Cx, Op, WatchId};
use virtio_spec::blk::{S_IOERR, S_OK};

use super::disks::{Disk, NO_DISK};
use super::env::Env;
use super::interrupt::Signal;
use super::request::{Ready, Request, Stop, decode};
use super::slots::{Slots, State};
use crate::blk::messages::FromWorker;
use crate::device::{Kick, QueueSetup};
use crate::queue::{Chain, Ring, Virtqueue};

/// Requests taken from a queue per pass at most.
const BATCH: u32 = 32;
/// Bytes after which a queue's turn ends, so that large transfers to RAM disks don't make other guests wait.
const BATCH_BYTES: u64 = 256 << 10;
/// Requests tried again per pass at most.
const RETRIES: u32 = 32;

/// Requests and bytes left in a queue's turn.
struct Budget {
    requests: u32,
    bytes: u64,
}

/// A virtqueue with its requests.
pub(super) struct Queue {
    index: u16,
    setup: QueueSetup,
    /// `None` until its memory is found.
    ring: Option<Virtqueue>,
    watch: Option<WatchId>,
    signal: Signal,
    /// Requests that have ended.
    traffic: Traffic,
    /// Interrupts raised.
    interrupts: u64,
    chain: Chain,
    /// Decoded requests; they stay where they were decoded until they are submitted.
    ready: [Ready; 2],
    /// Which of them is the first.
    front: u8,
    /// How many of them there are.
    taken: u8,
    slots: Slots,
    /// Nothing is taken any more: it is being stopped, or the driver broke the rules.
    closed: bool,
    stopping: bool,
}

impl Queue {
    /// The first decoded request.
    #[inline]
    fn front(&mut self) -> &mut Ready {
        &mut self.ready[usize::from(self.front & 1)]
    }

    /// The first request has gone.
    #[inline]
    fn pop(&mut self) {
        self.front ^= 1;
        self.taken -= 1;
    }

    /// Takes and decodes chains until one needs the disk; `false` if none is left for now.
    #[inline]
    fn fetch(&mut self, cx: &mut Cx, env: &mut Env, budget: &mut Budget) -> bool {
        if self.closed {
            return false;
        }
        while budget.requests > 0 && budget.bytes > 0 {
            let Some(ring) = &mut self.ring else {
                return false;
            };
            let head = match ring.take(&env.view, &mut self.chain) {
                Ok(Some(head)) => head,
                Ok(None) => return false,
                Err(error) => {
                    self.break_down(env, error.to_string());
                    return false;
                }
            };
            budget.requests -= 1;
            let ready = &mut self.ready[usize::from((self.front ^ self.taken) & 1)];
            match decode(env, cx, self.index, &mut self.chain, head, ready) {
                Ok(()) => {
                    let bytes = ready.io.as_ref().map_or(0, |io| io.segments.len());
                    budget.bytes = budget.bytes.saturating_sub(bytes as u64);
                    self.taken += 1;
                    return true;
                }
                Err(Stop::Status(status)) => {
                    let mut request = std::mem::take(&mut ready.request);
                    self.answer(env, &mut request, status);
                }
                Err(Stop::Broken(cause)) => {
                    self.break_down(env, cause.to_owned());
                    return false;
                }
            }
        }
        false
    }

    /// The driver broke the rules: nothing is taken any more. What was taken ends as ever.
    #[cold]
    fn break_down(&mut self, env: &Env, cause: String) {
        self.closed = true;
        env.report.tell(FromWorker::Broken {
            index: Some(self.index),
            cause,
        });
    }

    /// Writes a request's status and marks its chain used.
    #[inline]
    fn answer(&mut self, env: &mut Env, request: &mut Request, status: u8) {
        let written = match status {
            S_OK => request.written,
            _ => request.written_failed,
        };
        match status {
            S_OK => self.traffic.succeeded(request.count, request.bytes),
            _ => self.traffic.errors += 1,
        }
        let view = request.view.as_ref().unwrap_or(&env.view);
        put(&mut self.ring, view, request, (status, written));
        self.signal.note();
        self.let_go(env, request);
    }

    /// A request needs nothing any more.
    #[inline]
    fn let_go(&mut self, env: &mut Env, request: &mut Request) {
        if request.view.is_some() {
            request.view = None;
        }
        if let Some(plan) = request.plan.take() {
            env.plans.give(plan);
        }
    }

    /// Submits the first decoded request; `false` if its disk has no room.
    #[inline]
    fn submit(&mut self, cx: &mut Cx, env: &mut Env) -> bool {
        let tag = self.slots.next_tag();
        let Ready { request, io } = &mut self.ready[usize::from(self.front & 1)];
        let channel = env.disks.get(request.disk).and_then(Disk::channel);
        let (Some(channel), Some(taken)) = (channel, io.take()) else {
            self.refuse(env);
            return true;
        };
        match channel.submit(cx, tag, taken) {
            Submitted::Full(full) => {
                *io = Some(full);
                return false;
            }
            Submitted::Done(IoStatus::Ok) if request.plan.is_none() => {
                // As `answer`, but the request stays where it is: most come this way.
                self.traffic.succeeded(request.count, request.bytes);
                let view = request.view.as_ref().unwrap_or(&env.view);
                put(&mut self.ring, view, request, (S_OK, request.written));
                if request.view.is_some() {
                    request.view = None;
                }
                self.signal.note();
                self.pop();
            }
            Submitted::Done(status) => self.go_on(env, status),
            Submitted::Queued => {
                let request = std::mem::take(request);
                self.pop();
                self.keep(env, request, State::InRing);
            }
        }
        true
    }

    /// The first request's disk cannot be used.
    #[cold]
    fn refuse(&mut self, env: &mut Env) {
        let mut request = std::mem::take(&mut self.front().request);
        self.pop();
        self.answer(env, &mut request, S_IOERR);
    }

    /// Goes on with the first request, whose first step has ended at once: it may need more, or has failed.
    #[cold]
    fn go_on(&mut self, env: &mut Env, status: IoStatus) {
        let mut request = std::mem::take(&mut self.front().request);
        self.pop();
        match next(env, self.index, &mut request, status) {
            Err(status) => self.answer(env, &mut request, status),
            Ok(io) => self.keep(env, request, State::Waiting(io)),
        }
    }

    /// Puts a request into a slot.
    #[inline]
    fn keep(&mut self, env: &mut Env, request: Request, state: State) {
        env.disks.hold(request.disk);
        self.slots.next_tag();
        self.slots.insert(request, state);
    }

    /// One turn: takes, decodes and submits; decoding runs one request ahead, so that the disk knows what comes next.
    #[inline]
    pub(super) fn serve(&mut self, cx: &mut Cx, env: &mut Env) -> bool {
        let mut budget = Budget {
            requests: BATCH,
            bytes: BATCH_BYTES,
        };
        let (mut submitted, mut more) = (false, true);
        loop {
            while more && self.taken < 2 {
                more = self.fetch(cx, env, &mut budget);
            }
            if self.taken == 0 {
                break;
            }
            if self.taken == 2
                && let Ready {
                    request,
                    io: Some(io),
                } = &self.ready[usize::from(!self.front & 1)]
                && let Some(channel) = env.disks.get(request.disk).and_then(Disk::channel)
            {
                channel.prefetch(io.kind, io.lba, io.blocks);
            }
            if !self.submit(cx, env) {
                break;
            }
            submitted = true;
        }
        submitted || budget.requests < BATCH
    }

    /// Takes the end of an operation of this queue.
    #[inline]
    pub(super) fn finish(
        &mut self,
        cx: &mut Cx,
        env: &mut Env,
        tag: u64,
        op: Op,
        result: Result<u32, Errno>,
    ) {
        let Some(index) = self.slots.find(tag) else {
            return;
        };
        let disk = self.slots.request(index).map_or(NO_DISK, |it| it.disk);
        if let Some(channel) = env.disks.get(disk).and_then(Disk::channel) {
            let finished = channel.finish(cx, tag, op, result);
            self.finished(cx, env, index, finished);
        }
    }

    #[inline]
    fn finished(&mut self, cx: &mut Cx, env: &mut Env, index: u32, finished: Finished) {
        match finished {
            Finished::Queued => {}
            Finished::Done(status) => self.ended(cx, env, index, status),
            Finished::Stalled(_) if env.exiting => self.forget(env, index),
            Finished::Stalled(op) => self.slots.set(index, State::Stalled(op)),
        }
    }

    /// A step of a request in a slot has ended.
    #[inline]
    fn ended(&mut self, cx: &mut Cx, env: &mut Env, index: u32, status: IoStatus) {
        if env.exiting {
            return self.forget(env, index);
        }
        let Some(request) = self.slots.request(index) else {
            return;
        };
        match next(env, self.index, request, status) {
            Err(status) => self.complete(env, index, status),
            Ok(io) => {
                self.resubmit(cx, env, index, io);
            }
        }
    }

    /// Submits the next step of a request in a slot; `false` if there is still no room for it.
    fn resubmit(&mut self, cx: &mut Cx, env: &mut Env, index: u32, io: Io) -> bool {
        let tag = self.slots.tag_of(index).unwrap_or(u64::MAX);
        let Some(request) = self.slots.request(index) else {
            return true;
        };
        let Some(channel) = env.disks.get(request.disk).and_then(Disk::channel) else {
            self.complete(env, index, S_IOERR);
            return true;
        };
        match channel.submit(cx, tag, io) {
            Submitted::Queued => self.slots.set(index, State::InRing),
            Submitted::Full(io) => {
                self.slots.set(index, State::Waiting(io));
                return false;
            }
            Submitted::Done(status) => match next(env, self.index, request, status) {
                Err(status) => self.complete(env, index, status),
                // Its turn comes again in the next pass.
                Ok(io) => self.slots.set(index, State::Waiting(io)),
            },
        }
        true
    }

    /// Ends a request in a slot.
    #[inline]
    fn complete(&mut self, env: &mut Env, index: u32, status: u8) {
        if let Some(mut request) = self.slots.remove(index) {
            env.disks.release(request.disk);
            self.answer(env, &mut request, status);
        }
    }

    /// Tries again what found no room.
    #[inline]
    pub(super) fn retry(&mut self, cx: &mut Cx, env: &mut Env) -> bool {
        self.slots.queued() > 0 && self.retry_some(cx, env)
    }

    #[cold]
    fn retry_some(&mut self, cx: &mut Cx, env: &mut Env) -> bool {
        let mut busy = false;
        for _ in 0..self.slots.queued().min(RETRIES) {
            let Some((index, state)) = self.slots.pop() else {
                break;
            };
            match state {
                State::Waiting(io) => busy |= self.resubmit(cx, env, index, io),
                State::Stalled(op) => {
                    let disk = self.slots.request(index).map_or(NO_DISK, |it| it.disk);
                    let channel = env.disks.get(disk).and_then(Disk::channel);
                    if let (Some(channel), Some(tag)) = (channel, self.slots.tag_of(index)) {
                        let finished = channel.resume(cx, tag, op);
                        busy |= !matches!(finished, Finished::Stalled(_));
                        self.finished(cx, env, index, finished);
                    }
                }
                State::Free | State::InRing => {}
            }
        }
        busy
    }

    /// Raises the interrupt if that is due; whether it did.
    #[inline]
    pub(super) fn interrupt_if_due(&mut self, cx: &Cx) -> bool {
        let Some(ring) = &mut self.ring else {
            return false;
        };
        let raised = self.signal.flush(cx.now(), ring);
        self.interrupts += u64::from(raised);
        raised
    }
}

/// Writes a status and marks the chain used, `written` bytes of it written.
#[inline]
fn put(
    ring: &mut Option<Virtqueue>,
    view: &MapView,
    request: &Request,
    (status, written): (u8, u32),
) {
    // It was found to be writable in this very view.
    let reached = view.write(request.status_at, &status);
    debug_assert!(reached.is_ok(), "checked when the request was decoded");
    if let Some(ring) = ring {
        ring.put(request.head, written);
    }
}

/// After a step of a request has ended with `status`: the next one, or the request's status.
#[inline]
fn next(env: &mut Env, queue: u16, request: &mut Request, status: IoStatus) -> Result<Io, u8> {
    if status != IoStatus::Ok {
        return Err(env.failed(queue, request, status));
    }
    let Some(plan) = &mut request.plan else {
        return Err(S_OK);
    };
    let view = request.view.as_ref().unwrap_or(&env.view);
    match plan.next(view) {
        Ok(Some(io)) => Ok(io),
        Ok(None) => Err(S_OK),
        Err(_) => Err(S_IOERR),
    }
}
