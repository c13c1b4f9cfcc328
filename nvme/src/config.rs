//! What the operator decides about a controller.

use std::sync::Arc;

use reactor::Observer;

use crate::events::ControllerEvent;
use crate::history::History;

/// Most bytes one command may move: a scatter list has at most 1024 ranges, and nothing promises that pages are contiguous.
const MAX_TRANSFER: u32 = 2 << 20;

/// Optional commands that an operator does not want to offer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Masked {
    /// Compare.
    pub compare: bool,
    /// Dataset Management.
    pub dataset_management: bool,
    /// Write Zeroes.
    pub write_zeroes: bool,
}

/// Settings of one controller; fixed while a client is connected.
#[derive(Clone, Debug)]
pub struct ControllerConfig {
    /// NQN of the subsystem.
    pub subnqn: String,
    /// Serial number, at most 20 ASCII characters.
    pub serial_number: String,
    /// Model number, at most 40 ASCII characters.
    pub model_number: String,
    /// Controller ID in the subsystem.
    pub cntlid: u16,
    /// Entries of the largest queue the guest may create (CAP.MQES + 1), 2 to 65536.
    pub max_queue_depth: u32,
    /// I/O queue pairs at most, 1 to 511.
    pub max_io_queues: u16,
    /// MSI-X vectors, 1 to 512.
    pub msix_vectors: u16,
    /// Largest data transfer of one command in bytes (MDTS): a power of two, 4 KiB to 2 MiB.
    pub max_transfer: u32,
    /// Highest NSID.
    pub max_namespaces: u32,
    /// Whether the guest may map the doorbells (otherwise each doorbell write is trapped, and shadow doorbells are
    /// offered unless disabled).
    pub mappable_bar0: bool,
    /// Whether shadow doorbells (Doorbell Buffer Config) are offered where BAR0 is not mappable.
    pub shadow_doorbells: bool,
    /// Whether NVM subsystem reset is offered (CAP.NSSRS).
    pub nssr: bool,
    /// Whether the subsystem can have other controllers, so that its namespaces are shared (CMIC, NMIC).
    pub shared: bool,
    /// Whether the host is told how each namespace is reached (Asymmetric Namespace Access); groups are 1 to `max_namespaces`.
    pub ana_reporting: bool,
    /// Granularity of keep alive timeouts in units of 100 ms (KAS).
    pub kas: u16,
    /// Commands that are not offered.
    pub masked: Masked,
    /// What earlier controllers of the same endpoint have counted, for the health page.
    pub history: Arc<History>,
    /// Name for logs: the endpoint's path.
    pub label: String,
    /// Who hears of what happens to it.
    pub events: Observer<ControllerEvent>,
}

impl Default for ControllerConfig {
    fn default() -> Self {
        Self {
            subnqn: String::new(),
            serial_number: "00000000000000000000".to_owned(),
            model_number: "vtarget NVMe controller".to_owned(),
            cntlid: 1,
            max_queue_depth: 1024,
            max_io_queues: 128,
            msix_vectors: 129,
            max_transfer: 1 << 20,
            max_namespaces: 32,
            mappable_bar0: true,
            shadow_doorbells: true,
            nssr: true,
            shared: true,
            ana_reporting: false,
            kas: 100,
            masked: Masked::default(),
            history: Arc::default(),
            label: String::new(),
            events: Observer::default(),
        }
    }
}

impl ControllerConfig {
    /// The same settings with every number inside its range.
    pub(crate) fn clamped(mut self) -> Self {
        self.max_queue_depth = self.max_queue_depth.clamp(2, 1 << 16);
        self.max_io_queues = self.max_io_queues.clamp(1, 511);
        self.msix_vectors = self.msix_vectors.clamp(1, 512);
        self.max_transfer = 1 << self.max_transfer.clamp(4096, MAX_TRANSFER).ilog2();
        self.max_namespaces = self.max_namespaces.clamp(1, 0xffff_fffd);
        self
    }
}
