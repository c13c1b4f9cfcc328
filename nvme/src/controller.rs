//! The controller on its home reactor: registers, admin queue, and what it knows of everything else.
//!
//! Split by concern: `function` is how the transport sees it, `lifecycle` carries out what the state machine decides,
//! `inbox` takes what shards and the control thread say, and [`crate::admin`] executes commands.

mod function;
mod inbox;
mod lifecycle;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bdev::Traffic;
use crossbeam_channel::{Receiver, unbounded};
use guest_memory::{DmaMap, MapView, MappingError, PAGE_SIZE, SharedMemory};
use nix::time::{ClockId, clock_gettime};
use pci::{
    Access, ConfigSpace, Identity, InterruptKind, Interrupts, MsixLayout, MsixTable, REGION_COUNT,
    Region, SharedArea,
};
use reactor::{Cx, ReactorHandle, TimerId};

use crate::admin::features::Limits;
use crate::admin::health::MediaState;
use crate::admin::queue::AdminQueue;
use crate::config::ControllerConfig;
use crate::handle::{
    Control, ControllerHandle, ControllerSnapshot, Gather, NamespaceSnapshot, QueueSnapshot,
};
use crate::history::Life;
use crate::limit::LogLimit;
use crate::messages::{FromShard, MediaFault, ToShard, VectorBinding};
use crate::model::{Model, Stage};
use crate::namespace::NamespaceSet;
use crate::queue::Doorbells;
use crate::shards::{ShardFactory, Shards};

/// Who the controller is on PCI: the identity under which vfio-user NVMe targets are known to hosts and their quirk tables.
pub(crate) mod ids {
    /// PCI vendor and subsystem vendor ID.
    pub(crate) const VENDOR: u16 = 0x4e58;
    /// PCI device ID.
    pub(crate) const DEVICE: u16 = 0x0001;
    /// NVM Express I/O controller.
    pub(crate) const CLASS: u32 = 0x01_08_02;
    /// IEEE OUI of the vendor, least significant byte first.
    pub(crate) const OUI: [u8; 3] = [0x8d, 0x6b, 0x50];
}

/// BAR0: registers, then doorbells, then nothing.
const BAR0_SIZE: u64 = 0x4000;
/// Where the doorbells start in BAR0.
const DOORBELLS: u64 = 0x1000;
/// BAR with the MSI-X table.
const MSIX_BAR: u32 = 4;
/// BAR with the MSI-X pending bits.
const PENDING_BAR: u32 = 5;

/// Timer tags; below 2⁶³ as the transport asks.
const KEEP_ALIVE_TIMER: u64 = 1;

/// An NVMe controller. See the crate's documentation for its place.
pub struct Controller {
    config: Arc<ControllerConfig>,
    regions: [Region; REGION_COUNT],
    interrupts: Interrupts,
    pci: ConfigSpace,
    msix: MsixTable,
    page: SharedMemory,
    pub(crate) doorbells: Doorbells,
    pub(crate) model: Model,
    /// What was before this controller, its own power cycle included.
    past: Life,
    pub(crate) view: MapView,
    pub(crate) namespaces: Arc<NamespaceSet>,
    pub(crate) shards: Shards,
    /// While enabled.
    pub(crate) admin: Option<AdminQueue>,
    /// Interrupts raised for the admin queue since it was created.
    admin_interrupts: u64,
    /// Counts the lives of the admin queue: what shards say to a former one is not for this one.
    pub(crate) generation: u64,
    mailbox: Receiver<Control>,
    from_shards: Receiver<FromShard>,
    /// A reset answered `Defer` and has not ended.
    reset_pending: bool,
    /// It has ended; the transport has not taken it.
    deferred: Option<Access>,
    /// Last seen [`guest_memory::fault::count`].
    faults: u64,
    keep_alive: Option<TimerId>,
    /// Monotonic milliseconds at which the controller was made.
    born_ms: u64,
    pub(crate) limit: LogLimit,
    /// The operator was told that the client's memory is not shared.
    memory_reported: bool,
}

impl std::fmt::Debug for Controller {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Controller")
            .field("label", &self.config.label)
            .field("state", &self.model.state)
            .finish_non_exhaustive()
    }
}

/// Milliseconds of a clock that only goes forward.
pub(crate) fn monotonic_ms() -> u64 {
    // The clock exists on every supported system.
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(Duration::ZERO, Duration::from);
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}

fn regions(config: &ControllerConfig, page: &SharedMemory) -> [Region; REGION_COUNT] {
    let plain = |size| Region {
        size,
        readable: true,
        writable: true,
        shared: None,
    };
    let mut regions: [Region; REGION_COUNT] = Default::default();
    regions[0] = plain(BAR0_SIZE);
    if config.mappable_bar0 {
        regions[0].shared = Some(SharedArea {
            offset: DOORBELLS,
            memory: page.clone(),
        });
    }
    regions[MSIX_BAR as usize] = plain(msix_bar_size(config));
    regions[PENDING_BAR as usize] = plain(PAGE_SIZE as u64);
    regions[pci::CONFIG_REGION as usize] = plain(pci::CONFIG_SIZE as u64);
    regions
}

fn msix_bar_size(config: &ControllerConfig) -> u64 {
    (u64::from(config.msix_vectors) * 16)
        .next_power_of_two()
        .max(PAGE_SIZE as u64)
}

fn config_space(config: &ControllerConfig) -> ConfigSpace {
    let identity = Identity {
        vendor: ids::VENDOR,
        device: ids::DEVICE,
        subsystem_vendor: ids::VENDOR,
        subsystem: 0,
        class: ids::CLASS,
        revision: 0,
    };
    let msix_size = u32::try_from(msix_bar_size(config)).unwrap_or(0x2000);
    ConfigSpace::new(identity, true)
        .with_bar64(0, BAR0_SIZE)
        .with_bar32(MSIX_BAR as usize, msix_size)
        .with_bar32(PENDING_BAR as usize, PAGE_SIZE as u32)
        .with_power_management()
        .with_pcie()
        .with_msix(MsixLayout {
            vectors: config.msix_vectors,
            table: (4, 0),
            pending: (5, 0),
        })
}

impl Controller {
    /// A controller in its power-on state on the reactor of `cx`, and the control thread's handle to it. I/O queues will be
    /// spread over `reactors` (over the home reactor alone if there are none).
    ///
    /// # Errors
    /// If the doorbell page cannot be made.
    pub fn new(
        cx: &mut Cx,
        config: ControllerConfig,
        namespaces: Arc<NamespaceSet>,
        reactors: Vec<ReactorHandle>,
    ) -> Result<(Self, ControllerHandle), MappingError> {
        let factory = Arc::new(crate::shards::make_shard);
        Self::with_factory(cx.handle(), config, namespaces, reactors, factory)
    }

    pub(crate) fn with_factory(
        home: &ReactorHandle,
        config: ControllerConfig,
        namespaces: Arc<NamespaceSet>,
        reactors: Vec<ReactorHandle>,
        factory: ShardFactory,
    ) -> Result<(Self, ControllerHandle), MappingError> {
        let config = Arc::new(config.clamped());
        let past = config.history.begin();
        let page = SharedMemory::new_at(c"nvme-doorbells", DOORBELLS, PAGE_SIZE)?;
        let (sender, mailbox) = unbounded();
        let (shards, from_shards) = Shards::new(
            Arc::clone(&config),
            page.clone(),
            home.clone(),
            reactors,
            factory,
        );
        let controller = Self {
            regions: regions(&config, &page),
            interrupts: Interrupts::new(1, config.msix_vectors),
            pci: config_space(&config),
            msix: MsixTable::new(config.msix_vectors),
            doorbells: Doorbells::new(page.clone()),
            page,
            model: Model::new(&config, &past),
            past,
            view: MapView::new(DmaMap::empty()),
            namespaces,
            shards,
            admin: None,
            admin_interrupts: 0,
            generation: 0,
            mailbox,
            from_shards,
            reset_pending: false,
            deferred: None,
            faults: guest_memory::fault::count(),
            keep_alive: None,
            born_ms: monotonic_ms(),
            limit: LogLimit::new(),
            memory_reported: false,
            config,
        };
        let handle = ControllerHandle {
            mailbox: sender,
            home: home.clone(),
        };
        Ok((controller, handle))
    }

    /// The settings.
    pub(crate) fn config(&self) -> &Arc<ControllerConfig> {
        &self.config
    }

    /// The doorbells' memory.
    #[cfg(test)]
    pub(crate) fn doorbell_page(&self) -> SharedMemory {
        self.page.clone()
    }

    /// What has been counted, by this controller and those before it.
    pub(crate) fn life(&self) -> Life {
        let counters = self.shards.counters();
        let busy_ms = u128::from(counters.busy) * 1000 / u128::from(reactor::tick_rate().max(1));
        let age_ms = monotonic_ms().saturating_sub(self.born_ms);
        let mut life = self.past;
        life.traffic.add(&counters.traffic);
        life.busy_ms += u64::try_from(busy_ms).unwrap_or(u64::MAX).min(age_ms);
        life.on_ms += age_ms;
        life.media_errors = self.model.media_errors;
        life.error_log_entries = self.model.errors.count();
        life
    }

    /// How the disks are.
    pub(crate) fn media_state(&self) -> MediaState {
        let faults = &self.model.media;
        let is = |nsid: u32, fault| faults.iter().any(|(at, it)| at.1 == nsid && *it == fault);
        let mut nsids = self.namespaces.iter().map(|namespace| namespace.nsid);
        MediaState {
            failing: faults.values().any(|fault| *fault == MediaFault::Failing),
            // "All of the media": if none is left that can be written.
            read_only: !faults.is_empty() && nsids.all(|nsid| is(nsid, MediaFault::ReadOnly)),
        }
    }

    /// Calls `with` with the features and their limits.
    pub(crate) fn with_limits<R>(
        &mut self,
        with: impl FnOnce(&mut crate::admin::features::Features, &Limits<'_>) -> R,
    ) -> R {
        let nsids: BTreeSet<u32> = self.namespaces.iter().map(|ns| ns.nsid).collect();
        let limits = Limits {
            vectors: self.config.msix_vectors,
            queues: self.config.max_io_queues,
            has_queues: !self.model.cqs.is_empty() || !self.model.sqs.is_empty(),
            write_cache: self.shows_write_cache(),
            events: crate::admin::features::events(self.config.ana_reporting),
            nsids: &nsids,
            now_ms: monotonic_ms(),
        };
        with(&mut self.model.features, &limits)
    }

    /// Whether the host sees a volatile write cache: what it was told, or would be told now.
    pub(crate) fn shows_write_cache(&self) -> bool {
        let present = || crate::admin::identify::has_write_cache(&self.namespaces);
        self.model.write_cache_shown.unwrap_or_else(present)
    }

    /// Whether writes may stay in disks' caches. Not if the host turned the cache off; and not if the first disk with a cache
    /// came after the host had been told that there is none, because such a host never flushes.
    pub(crate) fn uses_write_cache(&self) -> bool {
        self.model.features.write_cache && self.shows_write_cache()
    }

    /// What to signal for interrupt vector `index`: its MSI-X vector, or the pin while MSI-X is off. A client that installs
    /// descriptors without showing us its MSI-X control is believed.
    pub(crate) fn binding(&self, index: u16) -> Option<VectorBinding> {
        let msix = self
            .interrupts
            .vector(InterruptKind::Msix, u32::from(index));
        let uses_msix = self.pci.is_msix_enabled() || msix.as_ref().is_some_and(|v| v.is_enabled());
        let (index, vector) = if uses_msix {
            (index, msix)
        } else {
            (0, self.interrupts.vector(InterruptKind::Intx, 0))
        };
        vector.map(|vector| VectorBinding { index, vector })
    }

    /// Whether the pin, not MSI-X, interrupts.
    pub(crate) fn uses_pin(&self) -> bool {
        let first = self.interrupts.vector(InterruptKind::Msix, 0);
        !self.pci.is_msix_enabled() && !first.is_some_and(|vector| vector.is_enabled())
    }

    /// Whether Doorbell Buffer Config is offered: where the guest writes doorbells without a trap it would only cost; and a
    /// VMM takes an access to the BAR for the end of a pin's interrupt, so with the pin the guest must make some.
    pub(crate) fn offers_doorbell_buffers(&self) -> bool {
        !self.config.mappable_bar0 && self.config.shadow_doorbells && !self.uses_pin()
    }

    /// Vectors that may not interrupt, one bit each. INTMS and INTMC have no meaning with MSI-X (Base 2.0c, 3.1.3.3).
    pub(crate) fn interrupt_mask(&self) -> u32 {
        match (self.uses_pin(), self.pci.is_intx_disabled()) {
            (false, _) => 0,
            (true, false) => self.model.registers.interrupt_mask,
            (true, true) => u32::MAX,
        }
    }

    /// Interrupts the host for the admin completion queue: always vector 0.
    pub(crate) fn interrupt(&mut self) {
        if self.interrupt_mask() & 1 != 0 {
            return;
        }
        if let Some(binding) = self.binding(0) {
            binding.vector.signal();
            self.admin_interrupts += 1;
        }
    }

    /// Describes the controller; its shards add what they count.
    fn describe(&mut self, gather: Gather) {
        gather.add(|snapshot| *snapshot = self.snapshot());
        let gather = Arc::new(gather);
        self.shards
            .broadcast(|| ToShard::Describe(Arc::clone(&gather)));
    }

    fn snapshot(&self) -> ControllerSnapshot {
        let csts = self.model.state.csts();
        let admin = self.admin.as_ref().map(|admin| QueueSnapshot {
            qid: 0,
            cqid: 0,
            entries: admin.entries(),
            lcore: self.shards.home_lcore(),
            traffic: admin.traffic(),
            interrupts: self.admin_interrupts,
            in_flight: admin.in_flight(),
        });
        let io = self
            .model
            .sqs
            .iter()
            .filter(|(_, sq)| sq.stage == Stage::Live)
            .map(|(qid, sq)| QueueSnapshot {
                qid: *qid,
                cqid: sq.cqid,
                entries: sq.entries,
                lcore: self
                    .model
                    .cqs
                    .get(&sq.cqid)
                    .map_or(0, |cq| self.shards.lcore(cq.shard)),
                traffic: Traffic::default(),
                interrupts: 0,
                in_flight: 0,
            });
        let namespaces = self.namespaces.iter().map(|namespace| NamespaceSnapshot {
            nsid: namespace.nsid,
            bdev: namespace.info.name.clone(),
            traffic: Traffic::default(),
        });
        ControllerSnapshot {
            cntlid: self.config.cntlid,
            ready: csts.rdy(),
            failed: csts.cfs(),
            queues: admin.into_iter().chain(io).collect(),
            namespaces: namespaces.collect(),
        }
    }
}

impl Drop for Controller {
    fn drop(&mut self) {
        let mut life = self.life();
        life.unsafe_shutdowns += u64::from(self.model.unclean);
        self.config.history.end(life);
    }
}

#[cfg(test)]
mod tests;
