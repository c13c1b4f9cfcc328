//! What the device status and resets do, as a pure function (2.1, 2.4, 3.1.1, 4.1.4.3).
//!
//! ```text
//!           status 0, FLR, device reset                       drained
//!  Present ─────────────────────────────► Draining(Reset) ──────────────► Present, status 0
//!     │        (at once if nothing was negotiated)  │
//!     │ client gone                                 │ client gone
//!     ▼                                 drained     ▼
//!  Draining(Departure) ◄─────────────── Draining(ResetThenDeparture)
//!     │ drained
//!     ▼
//!  Gone
//! ```
//! While a reset drains the status reads as before: a driver that waits for 0 (4.1.4.3.2) may then reuse its memory. Resets may
//! repeat and overlap.

use virtio_spec::status::{
    ACKNOWLEDGE, DEVICE_NEEDS_RESET, DRIVER, DRIVER_OK, FAILED, FEATURES_OK,
};

/// How a drain ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// Back to status 0.
    Reset,
    /// The client went while a reset drained. Device models promise to hold nothing of the client for a reset that began after
    /// its memory was taken away, so there will be another.
    ResetThenDeparture,
    /// The client is gone.
    Departure,
}

/// Where the device stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// The driver may do as the status allows.
    Present,
    /// Everything is being stopped.
    Draining(Ending),
    /// The client is gone and nothing of it is held.
    Gone,
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// `device_status` was written.
    Status {
        /// The value.
        value: u8,
        /// Whether the driver's features, as they are now, are acceptable.
        acceptable: bool,
    },
    /// A function level reset, or the client reset the device.
    Reset,
    /// The client is gone, or is to go.
    ClientGone,
    /// The driver broke the rules, or its memory is gone.
    Broken,
    /// The device model's reset has ended.
    Drained,
}

/// What is to be done after a step, in the order of the fields.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Effects {
    /// Take all that the driver set up back.
    pub(super) clear: bool,
    /// Give the device model the driver's features.
    pub(super) negotiated: bool,
    /// The driver's features are not acceptable, or it goes on without having negotiated: tell whoever looks for the cause.
    pub(super) refused: bool,
    /// The driver is ready: serve the queues that it has enabled.
    pub(super) start: bool,
    /// The status changed: notify the driver as of a configuration change (2.1.2).
    pub(super) notify: bool,
    /// Serve nothing any more until a reset.
    pub(super) halt: bool,
    /// Reset the device model; its answer is [`Event::Drained`].
    pub(super) drain: bool,
}

/// The device's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct State {
    phase: Phase,
    status: u8,
}

/// Bits that a driver may set.
const DRIVERS: u8 = ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK | FAILED;

impl State {
    /// After power-on.
    pub(super) fn new() -> Self {
        Self {
            phase: Phase::Present,
            status: 0,
        }
    }

    /// Where the device stands.
    pub(super) fn phase(&self) -> Phase {
        self.phase
    }

    /// Whether a drain is under way.
    pub(super) fn is_draining(&self) -> bool {
        matches!(self.phase, Phase::Draining(_))
    }

    /// The `device_status` field.
    pub(super) fn status(&self) -> u8 {
        self.status
    }

    fn has(&self, bits: u8) -> bool {
        self.phase == Phase::Present && self.status & bits == bits
    }

    /// Whether the driver has begun and no reset is under way.
    pub(super) fn is_begun(&self) -> bool {
        self.phase == Phase::Present && self.status != 0
    }

    /// Whether features are fixed.
    pub(super) fn is_negotiated(&self) -> bool {
        self.has(FEATURES_OK)
    }

    /// Whether the driver is ready, so that it may be notified.
    pub(super) fn is_ready(&self) -> bool {
        self.has(FEATURES_OK | DRIVER_OK)
    }

    /// Whether queues are served.
    pub(super) fn is_serving(&self) -> bool {
        self.is_ready() && !self.has(DEVICE_NEEDS_RESET)
    }

    /// One step.
    #[must_use]
    pub(super) fn step(mut self, event: Event) -> (Self, Effects) {
        let mut effects = Effects::default();
        match (self.phase, event) {
            (Phase::Present, Event::Reset | Event::Status { value: 0, .. }) => {
                effects.clear = true;
                // Only then has the device model heard of this driver.
                if self.status & (FEATURES_OK | DEVICE_NEEDS_RESET) == 0 {
                    self.status = 0;
                } else {
                    self.drain(Ending::Reset, &mut effects);
                }
            }
            (Phase::Present, Event::Status { value, acceptable }) => {
                self.set(value, acceptable, &mut effects);
            }
            (Phase::Present, Event::ClientGone) => {
                effects.clear = true;
                self.drain(Ending::Departure, &mut effects);
            }
            (Phase::Present, Event::Broken) => {
                let first = self.status & DEVICE_NEEDS_RESET == 0;
                self.status |= DEVICE_NEEDS_RESET;
                effects.notify = first && self.is_ready();
                effects.halt = first;
            }
            (Phase::Draining(Ending::Reset), Event::ClientGone) => {
                self.phase = Phase::Draining(Ending::ResetThenDeparture);
            }
            (Phase::Draining(Ending::Reset), Event::Drained) => self = Self::new(),
            (Phase::Draining(Ending::ResetThenDeparture), Event::Drained) => {
                self.drain(Ending::Departure, &mut effects);
            }
            (Phase::Draining(Ending::Departure), Event::Drained) => {
                (self.phase, self.status) = (Phase::Gone, 0);
            }
            _ => {}
        }
        (self, effects)
    }

    fn drain(&mut self, ending: Ending, effects: &mut Effects) {
        self.phase = Phase::Draining(ending);
        effects.drain = true;
    }

    /// A driver sets bits one after another and never clears one but by a reset (2.1.1); what it leaves out stays.
    fn set(&mut self, value: u8, acceptable: bool, effects: &mut Effects) {
        let new = value & DRIVERS & !self.status;
        self.status |= new & !(FEATURES_OK | DRIVER_OK);
        if new & FEATURES_OK != 0 {
            if acceptable {
                self.status |= FEATURES_OK;
                effects.negotiated = true;
            } else {
                effects.refused = true;
            }
        }
        if new & DRIVER_OK != 0 {
            if self.status & FEATURES_OK != 0 {
                self.status |= DRIVER_OK;
                effects.start = self.is_serving();
            } else {
                effects.refused = true;
            }
        }
    }
}

#[cfg(test)]
mod tests;
