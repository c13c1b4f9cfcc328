//! virtio over PCI (4.1), modern only: a [`pci::Function`] over any [`Device`].
//!
//! ```text
//!  BAR4 0x0000 common configuration   trapped    ─► Model ─► State ─► Device::{set_features, start_queue, reset, …}
//!       0x1000 ISR status             trapped, read clears
//!       0x2000 device configuration   trapped    ─► Device::{read_config, write_config}
//!       0x3000 notifications          a shared page that the client maps; or trapped ─► Device::notify
//!  BAR1 MSI-X table, BAR2 its pending bits
//! ```
//! Split by concern: `function` is how the transport sees it, `common` and `model` are the registers, `state` decides what status and
//! resets do, `lifecycle` carries it out, `signal` chooses who is interrupted, `window` is the access through configuration space.
//!
//! The layout is the one that SPDK's initiator has built in. The subsystem ID is the one that QEMU gives its own modern devices:
//! Windows' drivers are installed for it, and OVMF takes none below 0x40. BAR4 is 32 bits wide, so that every firmware reaches it.
//!
//! A store to the mapped notification page tells nobody: such queues are polled ([`Kick::Polled`]). What still comes by message
//! (a client that does not map, firmware that goes through configuration space) is passed on in either case.

mod common;
mod function;
mod lifecycle;
mod model;
mod signal;
mod state;
mod window;

use std::sync::Arc;
use std::sync::atomic::AtomicU8;

use guest_memory::{MappingError, PAGE_SIZE, SharedMemory};
use pci::{
    Access, ConfigSpace, Identity, InterruptKind, Interrupts, MsixLayout, MsixTable, REGION_COUNT,
    Region, SharedArea, Vector,
};
use virtio_spec::feature::{
    ACCESS_PLATFORM, NOTIF_CONFIG_DATA, NOTIFICATION_DATA, RING_RESET, SR_IOV, VERSION_1,
    VHOST_LOG_ALL, VHOST_USER_PROTOCOL_FEATURES,
};
use virtio_spec::pci::{CAP_COMMON, CAP_DEVICE, CAP_ISR, CAP_NOTIFY, CAP_PCI, DEVICE_BASE, VENDOR};

use crate::device::{Device, Kick};
use model::{Limits, Model};
use signal::Delivery;
use window::Window;

/// Subsystem ID; see the [module documentation](self).
const SUBSYSTEM: u16 = 0x1100;
/// Mass storage, SCSI: what drivers and firmware know virtio-blk by.
const CLASS: u32 = 0x01_00_00;
/// 1 is the least of a modern device (4.1.2.1).
const REVISION: u8 = 1;

/// BAR with the MSI-X table.
const MSIX_BAR: u32 = 1;
/// BAR with the MSI-X pending bits.
const PENDING_BAR: u32 = 2;
/// BAR with the structures of virtio.
const BAR: u32 = 4;
/// Its length: one page per structure.
const BAR_SIZE: u64 = 4 * PAGE;
const PAGE: u64 = PAGE_SIZE as u64;
const COMMON: u64 = 0;
const ISR: u64 = PAGE;
const DEVICE: u64 = 2 * PAGE;
const NOTIFY: u64 = 3 * PAGE;
/// Bytes between the places where queues are notified.
const NOTIFY_MULTIPLIER: u32 = 4;
/// More do not fit into the notification page.
const MAX_QUEUES: u16 = 1024;
/// Most MSI-X vectors.
const MAX_VECTORS: u16 = 2048;

/// Features of the transport.
const TRANSPORT: u64 = VERSION_1 | ACCESS_PLATFORM | NOTIFICATION_DATA | RING_RESET;
/// What a device model may offer and this transport does not have.
const FOREIGN: u64 = NOTIF_CONFIG_DATA | SR_IOV | VHOST_LOG_ALL | VHOST_USER_PROTOCOL_FEATURES;

/// Settings of one function; fixed while a client is connected.
#[derive(Clone, Debug)]
pub struct VirtioPciConfig {
    /// Name for logs: the endpoint's path.
    pub label: String,
    /// MSI-X vectors, at most 2048; 0 = one per queue and one for configuration changes.
    pub msix_vectors: u16,
    /// Whether the client may map the notification page. If so, queues are polled; if not, each notification is a message.
    pub mappable_notify: bool,
}

impl Default for VirtioPciConfig {
    fn default() -> Self {
        Self {
            label: String::new(),
            msix_vectors: 0,
            mappable_notify: true,
        }
    }
}

/// A write that waits for a drain.
#[derive(Debug)]
struct HeldWrite {
    offset: u64,
    data: Vec<u8>,
}

/// A virtio device on PCI. See the crate's documentation for its place.
#[derive(Debug)]
pub struct VirtioPci {
    config: VirtioPciConfig,
    device: Box<dyn Device>,
    limits: Limits,
    regions: [Region; REGION_COUNT],
    interrupts: Interrupts,
    pci: ConfigSpace,
    window: Window,
    msix: MsixTable,
    model: Model,
    /// The ISR status; shared with whoever raises the pin.
    isr: Arc<AtomicU8>,
    /// Stands for the pin while it may not be raised: its cause is still written down.
    silent: Vector,
    /// How interrupts travel at present.
    delivery: Delivery,
    /// What a driver wrote during a reset that it did not wait for.
    held: Option<HeldWrite>,
    /// A reset answered `Defer` and has not ended.
    reset_pending: bool,
    /// A deferred access or reset has ended; the transport has not taken it.
    deferred: Option<Access>,
}

fn regions(limits: &Limits, page: Option<SharedMemory>) -> [Region; REGION_COUNT] {
    let plain = |size| Region {
        size,
        readable: true,
        writable: true,
        shared: None,
    };
    let mut regions: [Region; REGION_COUNT] = Default::default();
    regions[MSIX_BAR as usize] = plain(msix_bar_size(limits));
    regions[PENDING_BAR as usize] = plain(PAGE);
    regions[BAR as usize] = plain(BAR_SIZE);
    regions[BAR as usize].shared = page.map(|memory| SharedArea {
        offset: NOTIFY,
        memory,
    });
    regions[pci::CONFIG_REGION as usize] = plain(pci::CONFIG_SIZE as u64);
    regions
}

fn msix_bar_size(limits: &Limits) -> u64 {
    (u64::from(limits.vectors) * 16)
        .next_power_of_two()
        .max(PAGE)
}

/// A virtio capability behind its length byte (4.1.4): type, BAR, ID and padding, offset, length.
fn capability(kind: u8, bar: u8, offset: u64, length: u64) -> [u8; 13] {
    let dword = |value| u32::try_from(value).unwrap_or(0).to_le_bytes();
    let mut body = [0; 13];
    (body[0], body[1]) = (kind, bar);
    body[5..9].copy_from_slice(&dword(offset));
    body[9..].copy_from_slice(&dword(length));
    body
}

fn config_space(device_id: u16, limits: &Limits, config_len: usize) -> (ConfigSpace, Window) {
    let identity = Identity {
        vendor: VENDOR,
        device: DEVICE_BASE.saturating_add(device_id),
        subsystem_vendor: VENDOR,
        subsystem: SUBSYSTEM,
        class: CLASS,
        revision: REVISION,
    };
    let mut space = ConfigSpace::new(identity, true)
        .with_bar32(
            MSIX_BAR as usize,
            u32::try_from(msix_bar_size(limits)).unwrap_or(0x8000),
        )
        .with_bar32(PENDING_BAR as usize, PAGE_SIZE as u32)
        .with_bar32(BAR as usize, BAR_SIZE as u32)
        .with_power_management()
        .with_pcie()
        .with_msix(MsixLayout {
            vectors: limits.vectors,
            table: (MSIX_BAR as u8, 0),
            pending: (PENDING_BAR as u8, 0),
        });
    let bar = BAR as u8;
    let common = size_of::<virtio_spec::pci::CommonConfig>() as u64;
    let device = (config_len as u64).clamp(4, PAGE);
    space.add_vendor(&capability(CAP_COMMON, bar, COMMON, common), &[]);
    space.add_vendor(&capability(CAP_ISR, bar, ISR, 1), &[]);
    space.add_vendor(&capability(CAP_DEVICE, bar, DEVICE, device), &[]);
    let notify = capability(CAP_NOTIFY, bar, NOTIFY, PAGE);
    space.add_vendor(
        &[&notify[..], &NOTIFY_MULTIPLIER.to_le_bytes()].concat(),
        &[],
    );
    let body = [&capability(CAP_PCI, 0, 0, 0)[..], &[0; 4]].concat();
    let mut writable = [0xff; 17];
    // Type, ID and padding are not the driver's.
    writable[0] = 0;
    writable[2..5].fill(0);
    let window = Window::new(space.add_vendor(&body, &writable));
    (space, window)
}

impl VirtioPci {
    /// A function in its power-on state.
    ///
    /// # Errors
    /// If the notification page cannot be made.
    pub fn new(config: VirtioPciConfig, device: Box<dyn Device>) -> Result<Self, MappingError> {
        let queues = device.num_queues().min(MAX_QUEUES);
        let vectors = match config.msix_vectors {
            0 => queues + 1,
            vectors => vectors.min(MAX_VECTORS),
        };
        let limits = Limits::new(queues, device.max_queue_size(), vectors);
        let page = match config.mappable_notify {
            true => Some(SharedMemory::new_at(c"virtio-notify", NOTIFY, PAGE_SIZE)?),
            false => None,
        };
        let (pci, window) = config_space(device.device_id(), &limits, device.config_len());
        let interrupts = Interrupts::new(1, vectors);
        Ok(Self {
            regions: regions(&limits, page),
            silent: signal::silent(),
            delivery: Delivery::Pin,
            interrupts,
            pci,
            window,
            msix: MsixTable::new(vectors),
            model: Model::new(&limits),
            isr: Arc::default(),
            held: None,
            reset_pending: false,
            deferred: None,
            limits,
            device,
            config,
        })
    }

    /// The features that the driver is offered.
    fn offered(&self) -> u64 {
        let fresh = || (self.device.features() & !FOREIGN) | TRANSPORT;
        self.model.offered.unwrap_or_else(fresh)
    }

    /// How work is announced.
    fn kick(&self) -> Kick {
        if self.config.mappable_notify {
            Kick::Polled
        } else {
            Kick::Trapped
        }
    }

    fn pin(&self) -> Option<Vector> {
        self.interrupts.vector(InterruptKind::Intx, 0)
    }
}

#[cfg(test)]
mod tests;
