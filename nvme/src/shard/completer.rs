//! From a submission queue to a disk, and from there to the completion queue: the part of a group that the hot path is in.

use bdev::{Io, IoStatus, Submitted};
use nvme_spec::{Sqe, Status};
use reactor::Cx;

use super::disks::Disk;
use super::env::Env;
use super::interrupt::Interrupt;
use super::slots::{Slots, State};
use super::sq::Sq;
use crate::command::{Command, NO_PLAN, Next, Stop, decode};
use crate::queue::CompletionQueue;
use crate::shard::disks::NO_DISK;

/// Commands and bytes left in a queue's turn.
pub(super) struct Budget {
    pub(super) commands: u32,
    pub(super) bytes: u64,
}

/// What taking an entry gave.
enum Fetched {
    /// A command for its disk, with so many bytes.
    Ready(u32),
    /// A command that has ended already.
    Ended,
    /// Nothing that could be worked on now; the reserved place is not used.
    Nothing,
}

/// The completion side: everything but the submission queues, so that both can be borrowed at once.
pub(super) struct Completer {
    pub(super) cq: CompletionQueue,
    pub(super) interrupt: Interrupt,
    pub(super) slots: Slots,
}

impl Completer {
    /// Posts the completion of a command that is in no slot; if that cannot be, puts it into one.
    #[inline]
    pub(super) fn end(
        &mut self,
        cx: &Cx,
        env: &mut Env,
        sq: &mut Sq,
        command: Command,
        status: Status,
    ) {
        env.plans.release(command.plan);
        let queue = &sq.queue;
        if self
            .cq
            .post(queue.qid(), queue.head(), command.cid, status, 0)
        {
            self.interrupt.note(cx.now());
        } else {
            // Neither disk nor plan has anything to do with it any more.
            let command = Command {
                plan: NO_PLAN,
                disk: NO_DISK,
                ..command
            };
            self.keep(env, sq, command, State::Unposted(status));
        }
    }

    /// Puts a command into a slot.
    #[inline]
    fn keep(&mut self, env: &mut Env, sq: &mut Sq, command: Command, state: State) {
        if self.slots.next_tag().is_none() {
            debug_assert!(false, "one slot for each reserved place");
            return;
        }
        self.slots.insert(command, state);
        sq.in_flight += 1;
        env.disks.hold(command.disk);
    }

    /// Takes and decodes entries until one needs its disk; `false` if none is left for now.
    #[inline]
    pub(super) fn fetch(
        &mut self,
        cx: &mut Cx,
        env: &mut Env,
        sq: &mut Sq,
        index: u16,
        budget: &mut Budget,
    ) -> bool {
        while budget.commands > 0 && budget.bytes > 0 {
            if !self.reserve(env) {
                return false;
            }
            let fetched = if sq.is_special() {
                self.take_special(cx, env, sq, index)
            } else {
                match sq.queue.pop() {
                    Some(sqe) => self.decode(cx, env, sq, index, &sqe),
                    None => Fetched::Nothing,
                }
            };
            match fetched {
                Fetched::Ready(bytes) => {
                    budget.commands -= 1;
                    budget.bytes = budget.bytes.saturating_sub(u64::from(bytes));
                    return true;
                }
                Fetched::Ended => budget.commands -= 1,
                Fetched::Nothing => {
                    self.cq.release();
                    return false;
                }
            }
        }
        false
    }

    #[inline(always)]
    fn decode(
        &mut self,
        cx: &mut Cx,
        env: &mut Env,
        sq: &mut Sq,
        index: u16,
        sqe: &Sqe,
    ) -> Fetched {
        sq.queue.prefetch();
        let ready = sq.place();
        match decode(env, cx, index, sqe, ready) {
            Ok(()) => {
                let bytes = ready.command.bytes;
                sq.push();
                Fetched::Ready(bytes)
            }
            Err(stop) => {
                let command = ready.command;
                self.stopped(cx, env, sq, command, stop, sqe)
            }
        }
    }

    /// Takes the entry that could not be decoded before, or one where some are to be aborted.
    #[cold]
    fn take_special(&mut self, cx: &mut Cx, env: &mut Env, sq: &mut Sq, index: u16) -> Fetched {
        if let Some(sqe) = sq.held.take() {
            return self.decode(cx, env, sq, index, &sqe);
        }
        let position = sq.queue.head();
        let Some(sqe) = sq.queue.pop() else {
            return Fetched::Nothing;
        };
        if sq.take_mark(position) {
            let command = Command::undecoded(usize::from(index), &sqe);
            self.end(cx, env, sq, command, Status::ABORT_REQUESTED);
            return Fetched::Ended;
        }
        self.decode(cx, env, sq, index, &sqe)
    }

    /// Reserves a place for a completion.
    #[inline]
    fn reserve(&mut self, env: &mut Env) -> bool {
        !self.cq.is_parked() && (self.cq.reserve() || self.reserve_anew(env))
    }

    #[cold]
    fn reserve_anew(&mut self, env: &mut Env) -> bool {
        if let Err(bad) = self.cq.look(&env.doorbells) {
            env.report.invalid_doorbell(bad);
        }
        self.cq.reserve()
    }

    /// An entry gave no request: ends its command, or keeps the entry to be decoded again.
    #[cold]
    fn stopped(
        &mut self,
        cx: &Cx,
        env: &mut Env,
        sq: &mut Sq,
        command: Command,
        stop: Stop,
        sqe: &Sqe,
    ) -> Fetched {
        let status = match stop {
            Stop::Done => {
                env.succeeded(sq, &command);
                Status::SUCCESS
            }
            Stop::Refused(refusal) => env.refused(sq, &command, refusal),
            Stop::Later => {
                sq.held = Some(*sqe);
                return Fetched::Nothing;
            }
        };
        self.end(cx, env, sq, command, status);
        Fetched::Ended
    }

    /// Submits a queue's first decoded command; `false` if its disk has no room.
    #[inline]
    pub(super) fn submit(&mut self, cx: &mut Cx, env: &mut Env, sq: &mut Sq) -> bool {
        let command = sq.front().command;
        let Some(tag) = self.slots.next_tag() else {
            return self.refuse_front(cx, env, sq);
        };
        let Some(channel) = env.disks.get(command.disk).and_then(Disk::channel) else {
            return self.refuse_front(cx, env, sq);
        };
        let Some(io) = sq.take_io() else {
            return self.refuse_front(cx, env, sq);
        };
        match channel.submit(cx, tag, io) {
            Submitted::Done(IoStatus::Ok) if command.plan == NO_PLAN => {
                sq.pop();
                env.succeeded(sq, &command);
                self.end(cx, env, sq, command, Status::SUCCESS);
            }
            Submitted::Done(status) => {
                sq.pop();
                self.go_on(cx, env, sq, command, status);
            }
            Submitted::Queued => {
                sq.pop();
                self.keep(env, sq, command, State::InRing);
            }
            Submitted::Full(io) => {
                sq.front().io = Some(io);
                return false;
            }
        }
        true
    }

    /// Ends a queue's first decoded command because its disk is no more.
    #[cold]
    fn refuse_front(&mut self, cx: &Cx, env: &mut Env, sq: &mut Sq) -> bool {
        let command = sq.front().command;
        // Not left in its place: it holds the client's memory.
        sq.take_io();
        sq.pop();
        let status = env.lost(sq, &command);
        self.end(cx, env, sq, command, status);
        true
    }

    /// Goes on with a command whose first request has ended at once: it may need more, or has failed.
    #[cold]
    fn go_on(
        &mut self,
        cx: &mut Cx,
        env: &mut Env,
        sq: &mut Sq,
        mut command: Command,
        status: IoStatus,
    ) {
        match next(cx, env, sq, &mut command, status) {
            Err(status) => self.end(cx, env, sq, command, status),
            Ok(io) => self.keep(env, sq, command, State::Waiting(io)),
        }
    }
}

/// After a request has ended with `status`: the next one of the same command, or the command's status.
#[inline]
pub(super) fn next(
    cx: &mut Cx,
    env: &mut Env,
    sq: &mut Sq,
    command: &mut Command,
    status: IoStatus,
) -> Result<Io, Status> {
    if status != IoStatus::Ok {
        return Err(env.failed(sq, command, status));
    }
    if command.plan != NO_PLAN
        && let Some(io) = next_step(cx, env, sq, command)?
    {
        return Ok(io);
    }
    env.succeeded(sq, command);
    Err(Status::SUCCESS)
}

#[cold]
fn next_step(
    cx: &mut Cx,
    env: &mut Env,
    sq: &mut Sq,
    command: &mut Command,
) -> Result<Option<Io>, Status> {
    if env
        .disks
        .get(command.disk)
        .is_none_or(|disk| disk.is_leaving())
    {
        return Err(env.lost(sq, command));
    }
    match env.plans.advance(command.plan, &env.disks) {
        Next::End => Ok(None),
        Next::Request(None, io) => Ok(Some(io)),
        Next::Request(Some(nsid), io) => match env.disks.open(cx, nsid) {
            Ok((disk, _)) => {
                command.disk = disk;
                Ok(Some(io))
            }
            Err(_) => Err(env.lost(sq, command)),
        },
    }
}
