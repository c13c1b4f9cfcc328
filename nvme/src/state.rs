//! What CC, CSTS and resets do, as a pure function (Base 2.0c, 3.1.3.5, 3.1.3.6, 3.5, 3.6, 3.7).
//!
//! ```text
//!              CC.EN 0→1, acceptable           CC.SHN                     drained
//!  Disabled ──────────────────────► Ready ───────────► Draining(Shutdown) ───────► Halted (SHST complete)
//!     ▲  │ unacceptable: CFS          │ fault ────────► Draining(Failure) ────────► Halted (CFS)
//!     │  └──────────► Halted          │ EN 1→0, FLR, NSSR, device reset                  │
//!     └────────── drained ── Draining(Reset) ◄─────────┴────────────────────────────────┘
//!                                  client gone, from anywhere: Draining(Departure) ── drained ──► Gone
//! ```
//! A drain is one and the same thing with four endings: stop fetching, let what is in flight end. A stronger ending
//! replaces a weaker one while the drain runs, so resets may repeat and overlap. CSTS.RDY falls only when nothing is in
//! flight any more, after every kind of reset: a driver that waits for it may reuse its memory.

use nvme_spec::registers::{Ams, Cc, Css, Csts, Shn, Shst};

/// How a drain ends; a later one is stronger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Ending {
    /// The host announced a shutdown.
    Shutdown,
    /// The controller failed.
    Failure,
    /// Any controller level reset.
    Reset,
    /// The client is gone.
    Departure,
}

/// Where the controller stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// CC.EN is 0 and nothing is in flight.
    Disabled,
    /// Serves commands.
    Ready,
    /// Fetches nothing; commands in flight end.
    Draining(Ending),
    /// Shut down or failed: waits for a reset.
    Halted,
    /// The client is gone and nothing of it is held.
    Gone,
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// CC was written.
    Configure(Cc),
    /// CSTS was written.
    AcknowledgeStatus(Csts),
    /// The admin queues of an `enable` cannot be used.
    EnableFailed,
    /// NSSR was written with its signature.
    SubsystemReset,
    /// Function level reset.
    FunctionReset,
    /// The client reset the device: as after power-on.
    DeviceReset,
    /// The client is gone.
    ClientGone,
    /// Guest memory or a shard failed.
    Fatal,
    /// Nothing is in flight any more.
    Drained,
}

/// Which registers and settings a reset takes back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Clear {
    /// None.
    #[default]
    Nothing,
    /// All but AQA, ASQ and ACQ (controller reset: Base 2.0c, 3.7.2).
    KeepAdminQueue,
    /// All.
    Everything,
}

/// What is to be done after a step, in the order of the fields.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Effects {
    /// Take registers, features and events back.
    pub(crate) clear: Clear,
    /// Start serving with the present AQA, ASQ and ACQ.
    pub(crate) enable: bool,
    /// The host asked for something that cannot be enabled: tell the operator.
    pub(crate) refused: bool,
    /// Drain; answer with [`Event::Drained`], at once if nothing is in flight.
    pub(crate) drain: bool,
}

/// The controller's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct State {
    phase: Phase,
    cc: Cc,
    ready: bool,
    failed: bool,
    shutdown: Shst,
    subsystem_reset: bool,
    /// CAP.MPSMAX.
    mpsmax: u8,
}

impl State {
    /// After power-on. `mpsmax` is CAP.MPSMAX.
    pub(crate) fn new(mpsmax: u8) -> Self {
        Self {
            phase: Phase::Disabled,
            cc: Cc::new(),
            ready: false,
            failed: false,
            shutdown: Shst::NORMAL,
            subsystem_reset: false,
            mpsmax,
        }
    }

    /// Where the controller stands.
    pub(crate) fn phase(&self) -> Phase {
        self.phase
    }

    /// The CC register.
    pub(crate) fn cc(&self) -> Cc {
        self.cc
    }

    /// The CSTS register.
    pub(crate) fn csts(&self) -> Csts {
        // A host that enables again without having waited for RDY to fall waits for it to rise: that is not yet.
        let rises_later = self.phase == Phase::Draining(Ending::Reset) && self.cc.en();
        Csts::new()
            .with_rdy(self.ready && !rises_later)
            .with_cfs(self.failed)
            .with_shst(self.shutdown)
            .with_nssro(self.subsystem_reset)
    }

    /// Whether commands are served.
    pub(crate) fn is_ready(&self) -> bool {
        self.phase == Phase::Ready
    }

    /// Whether a controller with this CC can be enabled (Base 2.0c, 3.1.3.5). IOSQES and IOCQES may still be zero: they
    /// are looked at when a queue is created.
    fn is_acceptable(&self) -> bool {
        self.cc.mps() <= self.mpsmax
            && self.cc.css() == Css::NVM
            && self.cc.ams() == Ams::ROUND_ROBIN
    }

    /// One step.
    #[must_use]
    pub(crate) fn step(mut self, event: Event) -> (Self, Effects) {
        let mut effects = Effects::default();
        if matches!(self.phase, Phase::Gone | Phase::Draining(Ending::Departure)) {
            if event == Event::Drained {
                self.phase = Phase::Gone;
            }
            return (self, effects);
        }
        match event {
            Event::Configure(cc) => self.configure(cc, &mut effects),
            Event::AcknowledgeStatus(csts) => self.subsystem_reset &= !csts.nssro(),
            Event::EnableFailed => {
                if matches!(self.phase, Phase::Ready | Phase::Draining(Ending::Shutdown)) {
                    self.phase = Phase::Draining(Ending::Shutdown);
                    self.drained(&mut effects);
                    (self.ready, self.failed) = (false, true);
                }
            }
            Event::SubsystemReset => {
                self.reset(Clear::Everything, &mut effects);
                self.subsystem_reset = true;
            }
            Event::FunctionReset => self.reset(Clear::Everything, &mut effects),
            Event::DeviceReset => {
                self.reset(Clear::Everything, &mut effects);
                self.subsystem_reset = false;
            }
            Event::ClientGone => {
                self.reset(Clear::Everything, &mut effects);
                self.phase = Phase::Draining(Ending::Departure);
            }
            Event::Fatal => match self.phase {
                Phase::Ready | Phase::Draining(Ending::Shutdown) => {
                    self.failed = true;
                    self.drain(Ending::Failure, &mut effects);
                }
                Phase::Halted => self.failed = true,
                _ => {}
            },
            Event::Drained => self.drained(&mut effects),
        }
        (self, effects)
    }

    fn drain(&mut self, ending: Ending, effects: &mut Effects) {
        self.phase = match self.phase {
            Phase::Draining(present) => Phase::Draining(present.max(ending)),
            _ => Phase::Draining(ending),
        };
        effects.drain = true;
    }

    /// Any controller level reset. CC.EN reads 0 from here on, CSTS.RDY falls when drained.
    fn reset(&mut self, clear: Clear, effects: &mut Effects) {
        effects.clear = clear;
        if clear == Clear::Everything {
            self.cc = Cc::new();
        }
        self.failed = false;
        self.shutdown = Shst::NORMAL;
        self.drain(Ending::Reset, effects);
    }

    fn configure(&mut self, new: Cc, effects: &mut Effects) {
        let old = self.cc;
        self.cc = Cc::new()
            .with_en(new.en())
            .with_css(new.css())
            .with_mps(new.mps())
            .with_ams(new.ams())
            .with_shn(new.shn())
            .with_iosqes(new.iosqes())
            .with_iocqes(new.iocqes());
        if old.en() && new.en() {
            // "This field shall only be changed when the controller is disabled" (CSS, MPS, AMS).
            self.cc = self
                .cc
                .with_css(old.css())
                .with_mps(old.mps())
                .with_ams(old.ams());
        }
        match self.phase {
            Phase::Disabled => self.start(effects),
            // Looked at again when the reset is over.
            Phase::Draining(Ending::Reset) => {}
            _ if old.en() && !new.en() => self.reset(Clear::KeepAdminQueue, effects),
            _ => self.announce_shutdown(effects),
        }
    }

    /// Acts on CC in the disabled state.
    fn start(&mut self, effects: &mut Effects) {
        if self.cc.en() {
            self.shutdown = Shst::NORMAL;
            if self.is_acceptable() {
                (self.phase, self.ready) = (Phase::Ready, true);
                effects.enable = true;
            } else {
                (self.phase, self.failed) = (Phase::Halted, true);
                effects.refused = true;
            }
        }
        self.announce_shutdown(effects);
    }

    fn announce_shutdown(&mut self, effects: &mut Effects) {
        if !matches!(self.cc.shn(), Shn::NORMAL | Shn::ABRUPT) {
            return;
        }
        match self.phase {
            Phase::Ready => {
                self.shutdown = Shst::OCCURRING;
                self.drain(Ending::Shutdown, effects);
            }
            Phase::Draining(Ending::Failure) => self.shutdown = Shst::OCCURRING,
            Phase::Disabled | Phase::Halted => self.shutdown = Shst::COMPLETE,
            Phase::Draining(_) | Phase::Gone => {}
        }
    }

    fn drained(&mut self, effects: &mut Effects) {
        let Phase::Draining(ending) = self.phase else {
            return;
        };
        if self.shutdown == Shst::OCCURRING {
            self.shutdown = Shst::COMPLETE;
        }
        match ending {
            Ending::Shutdown | Ending::Failure => self.phase = Phase::Halted,
            Ending::Reset => {
                (self.phase, self.ready) = (Phase::Disabled, false);
                self.start(effects);
            }
            Ending::Departure => self.phase = Phase::Gone,
        }
    }
}

#[cfg(test)]
mod tests;
