//! From controllers and devices to the control thread.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bdev::IoStatus;
use crossbeam_channel::Sender;
use nvme::ControllerEvent;
use reactor::Observer;
use serde_json::{Map, Value, json};
use virtio::BlkEvent;

use super::Kind;
use crate::control::{Control, Message};

/// Events of one endpoint let through at once before the limit holds: what a guest that boots, or reboots a few times, causes.
const BURST: u32 = 64;
/// After that, one per this time.
const INTERVAL: Duration = Duration::from_millis(250);
/// How long events are left out before it is said how many.
const STRETCH: Duration = Duration::from_secs(5);

/// Whose events they are.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    /// `nvme`, `vfu_virtio_blk` or `vhost_blk`, as in telemetry.
    pub(crate) kind: &'static str,
    /// What the operator calls the endpoint.
    pub(crate) name: String,
    /// The NQN, of an NVMe endpoint.
    pub(crate) subsystem: Option<String>,
}

impl Source {
    fn details(&self) -> Map<String, Value> {
        let mut details = Map::new();
        details.insert("controller".into(), self.kind.into());
        if let Some(nqn) = &self.subsystem {
            details.insert("subsystem".into(), nqn.as_str().into());
        }
        details
    }
}

/// A token bucket.
#[derive(Debug)]
struct Valve {
    tokens: u32,
    refilled: Instant,
    suppressed: u64,
}

/// What a [`Valve`] says.
#[derive(Debug, PartialEq, Eq)]
enum Admission {
    Admitted,
    /// `true` for the first since somebody asked how many.
    Suppressed(bool),
}

impl Valve {
    fn new(now: Instant) -> Self {
        Self {
            tokens: BURST,
            refilled: now,
            suppressed: 0,
        }
    }

    fn admit(&mut self, now: Instant) -> Admission {
        let passed = now.saturating_duration_since(self.refilled);
        let earned = u32::try_from(passed.as_millis() / INTERVAL.as_millis()).unwrap_or(u32::MAX);
        if earned > 0 {
            self.tokens = self.tokens.saturating_add(earned).min(BURST);
            self.refilled = now;
        }
        match self.tokens.checked_sub(1) {
            Some(rest) => {
                self.tokens = rest;
                Admission::Admitted
            }
            None => {
                self.suppressed += 1;
                Admission::Suppressed(self.suppressed == 1)
            }
        }
    }
}

/// Where an endpoint's events go. It lives as long as the endpoint, so that a guest that comes back has no new allowance.
#[derive(Clone, Debug)]
pub(crate) struct Tap {
    source: Arc<Source>,
    /// Of disks' errors, and of everything else, so that neither hides the other. Locked for a moment, and never on the way of
    /// a request that goes well.
    valves: Arc<[Mutex<Valve>; 2]>,
    inbox: Sender<Message>,
}

impl Tap {
    pub(crate) fn new(source: Source, inbox: Sender<Message>) -> Self {
        let valve = || Mutex::new(Valve::new(Instant::now()));
        Self {
            source: Arc::new(source),
            valves: Arc::new([valve(), valve()]),
            inbox,
        }
    }

    /// The watch over one client's controller.
    pub(crate) fn client(&self) -> Arc<Watch> {
        Arc::new(Watch {
            tap: self.clone(),
            connected: AtomicBool::new(false),
        })
    }

    fn send(&self, then: impl FnOnce(&mut Control) + Send + 'static) {
        // If nobody listens any more, the daemon is ending.
        let _ = self.inbox.send(Message::Run(Box::new(then)));
    }

    fn tell(&self, kind: Kind, context: Option<String>, more: Value) {
        let [errors, others] = &*self.valves;
        let valve = if kind == Kind::DiskError {
            errors
        } else {
            others
        };
        let mut valve = valve.lock().unwrap_or_else(PoisonError::into_inner);
        match valve.admit(Instant::now()) {
            Admission::Admitted => {}
            Admission::Suppressed(first) => {
                drop(valve);
                if first {
                    self.account_later();
                }
                return;
            }
        }
        drop(valve);
        let context = context.unwrap_or_else(|| self.source.name.clone());
        let mut details = self.source.details();
        if let Value::Object(more) = more {
            details.extend(more);
        }
        self.send(move |control| control.events.push_with(kind, context, details));
    }

    /// Has it said, a little later, how many events were left out.
    fn account_later(&self) {
        let tap = self.clone();
        self.send(move |control| {
            control.after(STRETCH, move |control| {
                let count = tap.take_suppressed();
                let mut details = tap.source.details();
                details.insert("count".into(), count.into());
                let name = tap.source.name.clone();
                control
                    .events
                    .push_with(Kind::EventsSuppressed, name, details);
            });
        });
    }

    fn take_suppressed(&self) -> u64 {
        let valves = self.valves.iter();
        let counts = valves.map(|valve| {
            let mut valve = valve.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::take(&mut valve.suppressed)
        });
        counts.sum()
    }
}

/// Watches the controller of one client. What the controller tells through lives as long as any part of it, on whatever
/// reactor; with that it goes, and the client with it.
#[derive(Debug)]
pub(crate) struct Watch {
    tap: Tap,
    connected: AtomicBool,
}

impl Watch {
    /// The client has its controller.
    pub(crate) fn connected(&self) {
        self.connected.store(true, Ordering::Relaxed);
        self.tap.tell(Kind::GuestConnected, None, Value::Null);
    }

    /// What an NVMe controller tells.
    pub(crate) fn of_nvme(self: Arc<Self>) -> Observer<ControllerEvent> {
        Observer::new(move |event| match event {
            ControllerEvent::Enabled => self.state(Kind::ControllerEnabled),
            ControllerEvent::Reset => self.state(Kind::ControllerReset),
            ControllerEvent::ShutDown => self.state(Kind::ControllerShutdown),
            ControllerEvent::Failed { cause } => self.failed(&cause),
            ControllerEvent::DiskError {
                bdev,
                nsid,
                lba,
                cause,
                suppressed,
            } => {
                let place = json!({"nsid": nsid, "lba": lba});
                self.disk_error(bdev, cause, suppressed, place);
            }
        })
    }

    /// What a virtio-blk device tells.
    pub(crate) fn of_blk(self: Arc<Self>) -> Observer<BlkEvent> {
        Observer::new(move |event| match event {
            BlkEvent::Enabled => self.state(Kind::ControllerEnabled),
            BlkEvent::Reset => self.state(Kind::ControllerReset),
            BlkEvent::Failed { cause } => self.failed(&cause),
            BlkEvent::DiskError {
                bdev,
                sector,
                cause,
                suppressed,
            } => self.disk_error(bdev, cause, suppressed, json!({ "sector": sector })),
        })
    }

    fn state(&self, kind: Kind) {
        self.tap.tell(kind, None, Value::Null);
    }

    fn failed(&self, cause: &str) {
        let details = json!({ "cause": cause });
        self.tap.tell(Kind::ControllerFailed, None, details);
    }

    fn disk_error(&self, bdev: String, cause: IoStatus, suppressed: u64, mut details: Value) {
        details["endpoint"] = self.tap.source.name.as_str().into();
        details["cause"] = cause.to_string().into();
        if suppressed > 0 {
            details["suppressed"] = suppressed.into();
        }
        self.tap.tell(Kind::DiskError, Some(bdev), details);
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        if self.connected.load(Ordering::Relaxed) {
            self.state(Kind::GuestDisconnected);
        }
    }
}

#[cfg(test)]
mod tests;
