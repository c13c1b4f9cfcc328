//! A controller as data: everything another process would need to carry it on.
//!
//! Nothing here holds memory, a descriptor or a thread's handle. What is alive (rings, shards, timers) is built from it. Heads,
//! tails and phases of I/O queues are their shards' to add; the admin queue's are in [`crate::admin::queue::AdminQueue`].

use std::collections::BTreeMap;

use nvme_spec::Sqe;

use crate::admin::ana::AnaChanges;
use crate::admin::events::Events;
use crate::admin::features::Features;
use crate::admin::log::{ChangedNamespaces, ErrorLog};
use crate::config::ControllerConfig;
use crate::history::Life;
use crate::messages::{MediaFault, ShadowDoorbells};
use crate::registers::{MPSMAX, Registers};
use crate::state::State;

/// How far a queue is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Its shard was asked to make it by this admin command.
    Creating {
        /// The command's identifier.
        cid: u16,
    },
    /// In use.
    Live,
    /// Its shard was asked to remove it by this admin command.
    Deleting {
        /// The command's identifier.
        cid: u16,
    },
}

/// An I/O completion queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CqModel {
    /// Guest-physical address.
    pub(crate) base: u64,
    /// Size.
    pub(crate) entries: u32,
    /// Interrupt vector; `None` for a queue that does not interrupt.
    pub(crate) vector: Option<u16>,
    /// The shard it lives on.
    pub(crate) shard: usize,
    /// How far it is.
    pub(crate) stage: Stage,
}

/// An I/O submission queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SqModel {
    /// Guest-physical address.
    pub(crate) base: u64,
    /// Size.
    pub(crate) entries: u32,
    /// The completion queue it is bound to; on the same shard.
    pub(crate) cqid: u16,
    /// How far it is.
    pub(crate) stage: Stage,
}

/// An Abort that a shard works on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct AbortModel {
    /// The Abort's own identifier.
    pub(crate) cid: u16,
    /// The shard.
    pub(crate) shard: usize,
}

/// The controller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Model {
    /// CC, CSTS and what they wait for.
    pub(crate) state: State,
    /// The other registers.
    pub(crate) registers: Registers,
    /// Feature values.
    pub(crate) features: Features,
    /// Asynchronous Event Requests and events.
    pub(crate) events: Events,
    /// I/O completion queues by ID.
    pub(crate) cqs: BTreeMap<u16, CqModel>,
    /// I/O submission queues by ID.
    pub(crate) sqs: BTreeMap<u16, SqModel>,
    /// Aborts under way.
    pub(crate) aborts: Vec<AbortModel>,
    /// Reads of the health page that wait for the shards' counters.
    pub(crate) health_reads: Vec<Sqe>,
    /// Shadow doorbell buffers, if the host configured them.
    pub(crate) shadow_doorbells: Option<ShadowDoorbells>,
    /// What Identify Controller told the host of a write cache since the last reset, if it asked.
    pub(crate) write_cache_shown: Option<bool>,
    /// Error log.
    pub(crate) errors: ErrorLog,
    /// Changed namespace list.
    pub(crate) changed: ChangedNamespaces,
    /// Changes of how namespaces are reached.
    pub(crate) ana: AnaChanges,
    /// Such a change is to be told when the shards know it.
    pub(crate) ana_news: bool,
    /// Commands that ended because of the medium, over the controller's life.
    pub(crate) media_errors: u64,
    /// What shards say is wrong with disks, by shard and NSID.
    pub(crate) media: BTreeMap<(usize, u32), MediaFault>,
    /// The host has enabled the controller and not shut it down since.
    pub(crate) unclean: bool,
}

impl Model {
    /// After power-on; `past` is what is kept over power cycles.
    pub(crate) fn new(config: &ControllerConfig, past: &Life) -> Self {
        Self {
            state: State::new(MPSMAX),
            registers: Registers::new(config),
            features: Features::default(),
            events: Events::default(),
            cqs: BTreeMap::new(),
            sqs: BTreeMap::new(),
            aborts: Vec::new(),
            health_reads: Vec::new(),
            shadow_doorbells: None,
            write_cache_shown: None,
            errors: ErrorLog::after(past.error_log_entries),
            changed: ChangedNamespaces::default(),
            ana: AnaChanges::default(),
            ana_news: false,
            media_errors: past.media_errors,
            media: BTreeMap::new(),
            unclean: false,
        }
    }
}
