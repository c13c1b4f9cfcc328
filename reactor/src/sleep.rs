//! Sleep and wake without a lost wake-up, written once.
//!
//! ```text
//!  sleeper                                  sender
//!  asleep = true        (SeqCst)            push message
//!  fence                                    fence
//!  look again: inbox, pollers               asleep.swap(false)? ─ yes ─► signal eventfd
//!  wait in the ring                                             └ no ──► sleeper is awake and will see it
//!  asleep = false
//! ```
//! Either the sender sees `asleep` and signals, or the sleeper's second look sees the message: the two SeqCst fences order the
//! store before the load on each side. A model checker walks through all interleavings in `sleep/tests.rs`.

#[cfg(loom)]
use loom::sync::atomic::{AtomicBool, Ordering, fence};
#[cfg(not(loom))]
use std::sync::atomic::{AtomicBool, Ordering, fence};

/// The flag that both sides share.
#[derive(Debug)]
pub(crate) struct Sleeper {
    asleep: AtomicBool,
}

impl Sleeper {
    pub(crate) fn new() -> Self {
        Self {
            asleep: AtomicBool::new(false),
        }
    }

    /// Sleeper: announces; after this it must look for work once more before it waits.
    pub(crate) fn announce(&self) {
        self.asleep.store(true, Ordering::SeqCst);
        fence(Ordering::SeqCst);
    }

    /// Sleeper: awake again (or never went to sleep).
    pub(crate) fn awake(&self) {
        self.asleep.store(false, Ordering::Release);
    }

    /// Sender, after its message is in place: whether the sleeper must be signalled.
    pub(crate) fn must_signal(&self) -> bool {
        fence(Ordering::SeqCst);
        self.asleep.load(Ordering::Relaxed) && self.asleep.swap(false, Ordering::SeqCst)
    }
}

#[cfg(test)]
mod tests;
