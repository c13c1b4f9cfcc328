//! What runs on a reactor.

use std::time::Duration;

use nix::errno::Errno;

use crate::cx::Cx;
use crate::op::Op;

/// Names a poller on its reactor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PollerKey {
    pub(crate) index: u32,
    pub(crate) generation: u32,
}

/// What a poll found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Poll {
    /// Nothing to do.
    Idle,
    /// Did some work.
    Busy,
    /// Finished for good: remove and drop this poller. Completions that arrive later are dropped (and with them their leases).
    Remove,
}

/// How long a poller allows its reactor to sleep when nothing is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Idle {
    /// Work arrives in memory without any event (doorbells): wake within the reactor's bound.
    Bounded,
    /// Wake within this time.
    Within(Duration),
    /// All work arrives by [`Event`] or message.
    UntilEvent,
    /// Do not sleep: something is being waited for that gives no event.
    Never,
}

/// Something happened for a poller.
#[derive(Debug)]
pub enum Event {
    /// An operation of [`Cx::submit`] has ended.
    Complete {
        /// The tag it was submitted with.
        tag: u64,
        /// The operation, given back.
        op: Op,
        /// Bytes moved, or the error.
        result: Result<u32, Errno>,
    },
    /// A descriptor of [`Cx::watch`] is ready (edge-triggered: take everything until `EAGAIN`).
    Ready {
        /// The tag it was watched with.
        tag: u64,
        /// `POLLIN`, `POLLOUT`, `POLLHUP`, … as in poll(2).
        events: u32,
    },
    /// A timer of [`Cx::timer`] has run out.
    Timer {
        /// The tag it was set with.
        tag: u64,
    },
}

/// A piece of single-threaded work on a reactor.
pub trait Poller {
    /// For statistics and logs, such as `nvme shard /run/vm0`.
    fn name(&self) -> String;

    /// Looks for work and does a bounded amount of it. Called once per pass.
    fn poll(&mut self, cx: &mut Cx) -> Poll;

    /// Takes an event. Called before [`Poller::poll`] of the same pass.
    fn event(&mut self, cx: &mut Cx, event: Event);

    /// How long the reactor may sleep on this poller's behalf.
    fn idle(&self) -> Idle;
}
