//! The contract between a device model and its transport.

use std::sync::Arc;

use guest_memory::{DmaMap, SharedMemory};
use nix::errno::Errno;
use reactor::{Cx, Event, Idle, Poll};

use crate::interrupts::Interrupts;

/// Number of the region that is the configuration space (VFIO's `VFIO_PCI_CONFIG_REGION_INDEX`).
pub const CONFIG_REGION: u32 = 7;
/// BARs are regions 0 to 5.
pub const BAR_REGIONS: std::ops::Range<u32> = 0..6;
/// Regions in all: six BARs, ROM, configuration space, VGA.
pub const REGION_COUNT: usize = 9;

/// Part of a region that the client may map and access without telling us.
#[derive(Clone, Debug)]
pub struct SharedArea {
    /// Where it starts in the region, in bytes; page aligned.
    pub offset: u64,
    /// The memory behind it, from its byte 0; its length (page aligned) is the area's length. Its
    /// [`file_offset`](SharedMemory::file_offset) is `offset` (see [`SharedMemory::new_at`]): a client looks for the area at
    /// the same place in the descriptor as in the region.
    pub memory: SharedMemory,
}

/// A region as the client sees it.
#[derive(Clone, Debug, Default)]
pub struct Region {
    /// Length in bytes; 0 = absent.
    pub size: u64,
    /// Whether the client may read it by message.
    pub readable: bool,
    /// Whether the client may write it by message.
    pub writable: bool,
    /// A part that may be mapped. Never one that holds the MSI-X table or PBA.
    pub shared: Option<SharedArea>,
}

/// How an access ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Done; a read has filled its buffer.
    Done,
    /// Refused; for a protocol violation only. A guest's odd but possible access reads as zeroes or ones and is `Done`.
    Fault(Errno),
    /// Will be done later: the transport holds its answer (and this client's further requests) until
    /// [`Function::deferred`] says so.
    Defer,
}

/// Why a function is reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResetKind {
    /// The client asked (VFIO device reset): power-on state; maps and interrupts stay.
    Device,
    /// The client is gone: drain, drop all maps; the function is dropped when quiescent.
    ClientGone,
    /// The operator removes the endpoint: as `ClientGone`.
    Removed,
}

/// A PCI function on its home reactor.
///
/// # Contract
///
/// The transport guarantees: calls come from the home reactor's thread only; `offset + data.len()` lies inside the region; `data` is
/// never longer than the transport's message limit; while a deferred access or reset is outstanding nothing but
/// [`Function::poll`], [`Function::event`], [`Function::deferred`] and [`Function::reset`] with a stronger kind is called.
///
/// The function guarantees: no call blocks; no call panics, whatever the arguments; after `reset(ClientGone)` it becomes quiescent
/// in bounded time (as soon as the disks end the I/O they have) and then holds no memory, file or event of the client.
pub trait Function {
    /// The regions. Sizes and shared areas do not change during the function's life.
    fn regions(&self) -> &[Region; REGION_COUNT];

    /// Where the transport installs the client's event descriptors.
    fn interrupts(&self) -> &Interrupts;

    /// Reads `data.len()` bytes at `offset` of a region.
    fn read(&mut self, cx: &mut Cx, region: u32, offset: u64, data: &mut [u8]) -> Access;

    /// Writes `data` at `offset` of a region.
    fn write(&mut self, cx: &mut Cx, region: u32, offset: u64, data: &[u8]) -> Access;

    /// The client's memory map has changed: use `map` for everything from here on, and let go of leases on older maps as
    /// operations in flight end. The transport answers an unmap when the last lease on the removed memory is gone.
    fn map_changed(&mut self, cx: &mut Cx, map: &Arc<DmaMap>);

    /// Stops everything and returns to the power-on state. `Defer` if operations must end first.
    fn reset(&mut self, cx: &mut Cx, kind: ResetKind) -> Access;

    /// The client has unmasked the INTx pin (which is also how a guest's end of interrupt arrives) or connected it: raise the
    /// pin again if its cause is still there. A signal while the guest handled the previous one is otherwise lost, since the line was up.
    fn pin_unmasked(&mut self, _cx: &mut Cx) {}

    /// Whether the access or reset that answered `Defer` has finished. Taken once. A read that was deferred is asked again
    /// then, for its data.
    fn deferred(&mut self) -> Option<Access>;

    /// Whether nothing of the client is held any more (asked after `reset(ClientGone | Removed)`).
    fn is_quiescent(&self) -> bool;

    /// One look for work (the admin queue, answers of shards), once per pass of the home reactor. Never `Remove`.
    fn poll(&mut self, cx: &mut Cx) -> Poll;

    /// An event for a tag below 2⁶³ (the transport keeps the tags above for itself).
    fn event(&mut self, cx: &mut Cx, event: Event);

    /// How long the home reactor may sleep on this function's behalf.
    fn idle(&self) -> Idle;
}
