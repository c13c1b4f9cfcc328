//! What a PCI function is, seen by whoever carries it to a VMM.
//!
//! ```text
//!  transport (vfio-user session)            device model (NVMe controller, virtio-pci)
//!     region read/write  ────────────────►  Function::read / Function::write ─► Access::{Done, Fault, Defer}
//!     DMA_MAP / DMA_UNMAP ───────────────►  Function::map_changed(new DmaMap)
//!     SET_IRQS ──► Interrupts (event fds) ◄─ Vector::signal, from any reactor
//!     DEVICE_RESET, client gone ─────────►  Function::reset
//!     sparse mmap area ◄──────────────────  Region::shared (the doorbell page)
//! ```
//! A function lives on its *home* reactor: the transport calls it there and nowhere else. Its queues may run on other
//! reactors; they get [`Vector`] handles and maps by message. Device models do not know the transport: tests drive them
//! through this trait directly, and a new transport costs one crate.
//!
//! What it does not do: no bus, no bridges, no MSI (MSI-X and INTx only), no expansion ROM.
#![forbid(unsafe_code)]

mod config;
mod function;
mod interrupts;

pub use config::{CONFIG_SIZE, ConfigEffects, ConfigSpace, Identity, MsixLayout};
pub use function::{
    Access, BAR_REGIONS, CONFIG_REGION, Function, REGION_COUNT, Region, ResetKind, SharedArea,
};
pub use interrupts::{InterruptKind, Interrupts, MsixTable, Vector};
