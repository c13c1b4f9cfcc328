//! A submission queue with what was taken from it and has not reached a disk.

use bdev::{Io, Traffic};
use nvme_spec::Sqe;

use crate::command::{Command, Ready};
use crate::queue::SubmissionQueue;

/// Unfetched entries of one queue that are marked as aborted at most (Identify Controller, ACL).
pub(super) const MARKS: usize = 4;

/// A submission queue with what was taken from it and has not reached a disk: at most two decoded commands (one that waits for
/// room, and the one decoded meanwhile) and one entry that could not be decoded yet.
pub(super) struct Sq {
    pub(super) queue: SubmissionQueue,
    /// Decoded commands; they stay where they were decoded until they are submitted.
    ready: [Ready; 2],
    /// Which of them is the first.
    front: u8,
    /// How many of them there are.
    taken: u8,
    /// Commands that have ended.
    pub(super) traffic: Traffic,
    pub(super) deleting: bool,
    /// Its tail when EventIdx was last written.
    pub(super) hushed: u32,
    /// Commands in slots.
    pub(super) in_flight: u32,
    pub(super) held: Option<Sqe>,
    /// Ring positions of entries to abort when they are reached.
    pub(super) marks: Vec<u16>,
}

impl Sq {
    pub(super) fn new(queue: SubmissionQueue) -> Self {
        Self {
            queue,
            ready: Default::default(),
            front: 0,
            taken: 0,
            traffic: Traffic::default(),
            deleting: false,
            hushed: 0,
            in_flight: 0,
            held: None,
            marks: Vec::with_capacity(MARKS),
        }
    }

    /// Whether something was taken that has not reached a disk.
    #[inline]
    pub(super) fn has_pending(&self) -> bool {
        self.taken > 0 || self.held.is_some()
    }

    /// Whether the next entry is not simply the next one of the ring.
    #[inline]
    pub(super) fn is_special(&self) -> bool {
        self.held.is_some() || !self.marks.is_empty()
    }

    /// Decoded commands.
    #[inline]
    pub(super) fn taken(&self) -> u8 {
        self.taken
    }

    /// The first decoded command.
    #[inline]
    pub(super) fn front(&mut self) -> &mut Ready {
        &mut self.ready[usize::from(self.front & 1)]
    }

    /// The second decoded command, if there is one.
    #[inline]
    pub(super) fn second(&mut self) -> Option<&mut Ready> {
        (self.taken == 2).then(|| &mut self.ready[usize::from(!self.front & 1)])
    }

    /// Where the next command may be decoded. There must be at most one already.
    #[inline]
    pub(super) fn place(&mut self) -> &mut Ready {
        &mut self.ready[usize::from((self.front ^ self.taken) & 1)]
    }

    /// A command has been decoded into [`Sq::place`].
    #[inline]
    pub(super) fn push(&mut self) {
        self.taken += 1;
    }

    /// The first command has gone.
    #[inline]
    pub(super) fn pop(&mut self) {
        self.front ^= 1;
        self.taken -= 1;
    }

    /// Takes decoded commands that `which` chooses; call until it answers `None`.
    pub(super) fn take_if(&mut self, mut which: impl FnMut(&Command) -> bool) -> Option<Command> {
        let second = self.second().is_some_and(|ready| which(&ready.command));
        if self.taken > 0 && which(&self.front().command) {
            self.front().io = None;
            let command = self.front().command;
            self.pop();
            return Some(command);
        }
        let ready = self.second().filter(|_| second)?;
        ready.io = None;
        let command = ready.command;
        self.taken -= 1;
        Some(command)
    }

    /// Whether the entry at this ring position was to be aborted.
    #[cold]
    pub(super) fn take_mark(&mut self, position: u16) -> bool {
        let before = self.marks.len();
        self.marks.retain(|mark| *mark != position);
        before != self.marks.len()
    }

    /// The request of the first command, to be submitted.
    #[inline]
    pub(super) fn take_io(&mut self) -> Option<Io> {
        self.front().io.take()
    }
}
