//! What the successor of a controller must know: counts that are kept over power cycles (Base 2.0c, 5.16.1.3).

use std::sync::{Mutex, PoisonError};

use bdev::Traffic;

/// What has been counted over a controller's life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Life {
    /// Commands of I/O queues.
    pub(crate) traffic: Traffic,
    /// Milliseconds in which an I/O command was outstanding.
    pub(crate) busy_ms: u64,
    /// Milliseconds for which the controller existed.
    pub(crate) on_ms: u64,
    /// Clients that were connected: to a guest, its machine's power.
    pub(crate) power_cycles: u64,
    /// Clients that went without their guest having shut the controller down.
    pub(crate) unsafe_shutdowns: u64,
    /// Commands that ended because of the medium.
    pub(crate) media_errors: u64,
    /// Entries ever written to the error log.
    pub(crate) error_log_entries: u64,
}

/// The lives of all controllers that one endpoint has had, one after the other. It belongs to the endpoint, as a drive belongs to its
/// slot: a guest's machine may be switched off and on, which is another client and another controller, and its health page goes on.
#[derive(Debug, Default)]
pub struct History(Mutex<Life>);

impl History {
    /// A new controller: what was before it, its own power cycle included.
    pub(crate) fn begin(&self) -> Life {
        let mut life = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        life.power_cycles = life.power_cycles.saturating_add(1);
        *life
    }

    /// A controller is gone.
    pub(crate) fn end(&self, life: Life) {
        let mut before = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Its successor may have begun already.
        let power_cycles = before.power_cycles.max(life.power_cycles);
        *before = Life {
            power_cycles,
            ..life
        };
    }
}
