//! What has happened: kept for `notify_get_notifications`, and told to subscribers at once.
//!
//! ```text
//!  methods (bdev added, resized, removed) ───────────────────────────► Events::push ─► the last 1024 of each kind of source
//!  a controller or device, on its home reactor ─► Watch ─ valve ─ mail ─►     │
//!                                                                             └─► rpc::Notifier of every subscriber
//! ```
//! What operators do and what guests do is kept apart, so that a guest that resets its controller without end pushes out none
//! of the former; and its events pass a valve before they reach the control thread. A subscriber that does not read loses
//! events, is told how many, and costs itself only: that is [`rpc::Notifier`]'s work.

mod watch;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::SystemTime;

use rpc::{Notifier, NotifyError};
use serde_json::{Map, Value, json};

pub(crate) use watch::{Source, Tap};

/// How many events of operators, and how many of guests, are kept.
const KEPT: usize = 1024;

/// What subscribers' notifications are called.
pub(crate) const METHOD: &str = "vtarget_event";

macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident = $text:literal,)*) => {
        /// What can happen.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub(crate) enum Kind {
            $($(#[$doc])* $name,)*
        }

        impl Kind {
            /// All of them; SPDK's first.
            pub(crate) const ALL: &[Self] = &[$(Self::$name),*];

            /// Its name.
            pub(crate) fn name(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                }
            }
        }
    };
}

kinds! {
    /// A disk has appeared.
    BdevRegister = "bdev_register",
    /// A disk is on its way out.
    BdevUnregister = "bdev_unregister",
    /// A disk has another size.
    BdevResize = "bdev_resize",
    /// A guest's VMM has connected to an endpoint.
    GuestConnected = "guest_connected",
    /// It is gone, and nothing of it is left.
    GuestDisconnected = "guest_disconnected",
    /// The guest's driver runs.
    ControllerEnabled = "controller_enabled",
    /// The guest's driver, or its VMM, resets the controller or lets go of it.
    ControllerReset = "controller_reset",
    /// The guest has shut the controller down.
    ControllerShutdown = "controller_shutdown",
    /// The controller failed; its guest must reset it.
    ControllerFailed = "controller_failed",
    /// A disk failed a guest's request.
    DiskError = "disk_error",
    /// So many of an endpoint's events were not told, because they were too many.
    EventsSuppressed = "events_suppressed",
}

impl Kind {
    /// The kind of this name.
    pub(crate) fn named(name: &str) -> Option<Self> {
        let mut kinds = Self::ALL.iter().copied();
        kinds.find(|kind| kind.name() == name)
    }

    /// Whether it is of operators' making.
    fn is_operators(self) -> bool {
        matches!(
            self,
            Self::BdevRegister | Self::BdevUnregister | Self::BdevResize
        )
    }
}

/// Something that has happened.
#[derive(Debug)]
struct Event {
    id: u64,
    kind: Kind,
    /// To what: the name of a disk, or of an endpoint.
    context: String,
    /// Milliseconds since 1970.
    time_ms: u64,
    /// More about it; empty for SPDK's kinds.
    details: Map<String, Value>,
}

impl Event {
    /// In SPDK's shape, with the details of our own kinds.
    fn to_notification(&self) -> Value {
        let mut members = json!({"type": self.kind.name(), "ctx": self.context, "id": self.id});
        if !self.details.is_empty() {
            members["details"] = self.details.clone().into();
        }
        members
    }

    /// As a subscriber gets it.
    fn to_params(&self) -> Value {
        json!({
            "id": self.id, "type": self.kind.name(), "ctx": self.context, "time_ms": self.time_ms,
            "details": self.details,
        })
    }
}

#[derive(Debug)]
struct Subscriber {
    notifier: Notifier,
    /// `None`: all.
    kinds: Option<BTreeSet<Kind>>,
}

/// The last events, and who is told of the next.
#[derive(Debug, Default)]
pub(crate) struct Events {
    operators: VecDeque<Event>,
    guests: VecDeque<Event>,
    next: u64,
    subscribers: Vec<Subscriber>,
    counts: BTreeMap<Kind, u64>,
}

impl Events {
    /// Keeps an event, and tells of it.
    pub(crate) fn push(&mut self, kind: Kind, context: impl Into<String>) {
        self.push_with(kind, context, Map::new());
    }

    /// As [`Events::push`], with more about it.
    pub(crate) fn push_with(
        &mut self,
        kind: Kind,
        context: impl Into<String>,
        details: Map<String, Value>,
    ) {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let event = Event {
            id: self.next,
            kind,
            context: context.into(),
            time_ms: now.map_or(0, |now| u64::try_from(now.as_millis()).unwrap_or(u64::MAX)),
            details,
        };
        self.next += 1;
        *self.counts.entry(kind).or_default() += 1;
        self.tell(&event);
        let kept = match kind.is_operators() {
            true => &mut self.operators,
            false => &mut self.guests,
        };
        if kept.len() == KEPT {
            kept.pop_front();
        }
        kept.push_back(event);
    }

    fn tell(&mut self, event: &Event) {
        if self.subscribers.is_empty() {
            return;
        }
        let params = event.to_params();
        self.subscribers.retain(|subscriber| {
            let kinds = subscriber.kinds.as_ref();
            if kinds.is_some_and(|kinds| !kinds.contains(&event.kind)) {
                return true;
            }
            // One that has too much to read already is told by its connection how many it missed.
            subscriber.notifier.notify(METHOD, &params) != Err(NotifyError::Gone)
        });
    }

    /// Tells this client of events of these kinds (`None`: all) from now on, instead of those it chose before.
    pub(crate) fn subscribe(&mut self, notifier: Notifier, kinds: Option<BTreeSet<Kind>>) {
        self.subscribers.retain(|subscriber| {
            !subscriber.notifier.is_gone() && !subscriber.notifier.is_for_same_client(&notifier)
        });
        self.subscribers.push(Subscriber { notifier, kinds });
    }

    /// How many there were of each kind.
    pub(crate) fn counts(&self) -> BTreeMap<String, u64> {
        let kinds = Kind::ALL.iter();
        let counts = kinds.map(|kind| {
            let count = self.counts.get(kind).copied().unwrap_or(0);
            (kind.name().to_owned(), count)
        });
        counts.collect()
    }

    /// The number that the next event gets.
    pub(crate) fn next_id(&self) -> u64 {
        self.next
    }

    /// At most `max` events from number `from` on that are still kept, in SPDK's shape.
    pub(crate) fn since(&self, from: u64, max: usize) -> Vec<Value> {
        let events = self.kept(from).take(max);
        events.map(Event::to_notification).collect()
    }

    /// All events of these kinds (`None`: all) from number `from` on that are still kept, as subscribers get them.
    pub(crate) fn history(&self, from: u64, kinds: Option<&BTreeSet<Kind>>) -> Vec<Value> {
        let wanted = |event: &&Event| kinds.is_none_or(|kinds| kinds.contains(&event.kind));
        self.kept(from)
            .filter(wanted)
            .map(Event::to_params)
            .collect()
    }

    fn kept(&self, from: u64) -> impl Iterator<Item = &Event> {
        let (mut operators, mut guests) = (
            self.operators
                .iter()
                .filter(move |it| it.id >= from)
                .peekable(),
            self.guests
                .iter()
                .filter(move |it| it.id >= from)
                .peekable(),
        );
        std::iter::from_fn(move || match (operators.peek(), guests.peek()) {
            (Some(one), Some(other)) if one.id < other.id => operators.next(),
            (Some(_), None) => operators.next(),
            _ => guests.next(),
        })
    }
}

#[cfg(test)]
mod tests;
