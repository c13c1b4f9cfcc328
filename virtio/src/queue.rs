//! Virtqueues, device side: split and packed behind one interface.

mod chain;
mod event;
mod flight;
mod inflight;
mod log;
mod packed;
mod split;
#[cfg(test)]
mod testing;

use std::sync::Arc;

use guest_memory::{Fault, MapView};
use virtio_spec::feature;

use crate::device::{QueueSetup, RingState};

pub use chain::{Buffer, Chain, MAX_BUFFERS};
pub use inflight::inflight_size;
pub use log::{DirtyLog, LOG_PAGE};
pub use packed::Packed;
pub use split::Split;

/// The features of rings that both formats can do, with those that choose the format.
pub const RING_FEATURES: u64 = feature::INDIRECT_DESC
    | feature::EVENT_IDX
    | feature::VERSION_1
    | feature::RING_PACKED
    | feature::IN_ORDER
    | feature::RING_RESET;

/// Names a chain from the moment it is taken until it is used: below the queue's size, unique among the chains in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Head(pub u16);

/// The driver broke a rule of the ring; it is not read again until it is reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RingError {
    /// A ring or an indirect table does not lie in the client's memory.
    #[error(transparent)]
    Memory(#[from] Fault),
    /// The available index is further ahead than the ring is long.
    #[error("the driver made {0} buffers available in a queue that is shorter")]
    Overrun(u16),
    /// A descriptor index beyond the table.
    #[error("descriptor {0} is beyond the table")]
    Index(u16),
    /// A chain longer than its table or this device's limit, or one that loops.
    #[error("a chain is too long or loops")]
    Length,
    /// A buffer of length 0, or one that wraps around the address space.
    #[error("a buffer is empty or wraps around the address space")]
    Buffer,
    /// A readable buffer after a writable one.
    #[error("a readable buffer follows a writable one")]
    Order,
    /// An indirect table inside an indirect table, of a wrong size, with both NEXT and INDIRECT, or without the feature.
    #[error("an indirect descriptor is not allowed here")]
    Indirect,
    /// A head or buffer ID that is in flight already.
    #[error("buffer {0} was made available twice")]
    Duplicate(u16),
    /// The queue cannot be served as it was set up: its size, or where it is to go on. Transports check both.
    #[error("a queue of {0} entries cannot be served from where it is said to stand")]
    Setup(u16),
}

/// What the rings of both formats do.
///
/// Never both of a pair: `take` after the ring has failed, or `put` of a head that is not in flight, does nothing.
pub trait Ring {
    /// Takes the next available chain, or `None`. Chains that the in-flight region says were not finished come first.
    ///
    /// # Errors
    /// The driver broke the rules; nothing was taken.
    fn take(&mut self, view: &MapView, chain: &mut Chain) -> Result<Option<Head>, RingError>;

    /// Marks a chain used, `written` bytes of it written. With IN_ORDER the entry may be held until those before it are.
    fn put(&mut self, head: Head, written: u32);

    /// Whether the driver wants an interrupt for what was put since this was last asked. Asked once per pass, not per chain; and
    /// once after a queue was started, because the process before may have died between a used entry and its interrupt.
    fn wants_interrupt(&mut self) -> bool;

    /// Asks the driver to notify (`true`) or not to. After asking, look with `take` once more.
    fn want_kicks(&mut self, wanted: bool);

    /// How many chains are in flight.
    fn in_flight(&self) -> u16;

    /// Where it stands, to go on later. What is in flight counts as taken.
    fn state(&self) -> RingState;

    /// Finds the ring again after a change of the client's memory. On failure it holds no memory and takes and puts nothing
    /// until a later `remap` succeeds (in-flight chains that end meanwhile are kept and put then).
    ///
    /// # Errors
    /// The ring does not lie in memory.
    fn remap(&mut self, view: &MapView) -> Result<(), Fault>;

    /// Begins or ends logging writes to guest memory. Only while nothing is in flight: what was taken before is not known.
    fn set_log(&mut self, log: Option<Arc<DirtyLog>>);
}

/// A virtqueue of the format that was negotiated.
#[derive(Debug)]
pub enum Virtqueue {
    /// Split (2.7).
    Split(Split),
    /// Packed (2.8).
    Packed(Packed),
}

impl Virtqueue {
    /// A queue as `setup` describes it, in the client's memory as `view` shows it.
    ///
    /// # Errors
    /// [`RingError::Memory`] if its rings do not lie in memory: may be tried again when the memory has changed.
    /// [`RingError::Setup`] for a size or a state that no queue of the format can have, or an in-flight region that is too short
    /// or belongs to another queue.
    pub fn new(setup: &QueueSetup, view: &MapView) -> Result<Self, RingError> {
        if setup.features & feature::RING_PACKED == 0 {
            Split::new(setup, view).map(Self::Split)
        } else {
            Packed::new(setup, view).map(Self::Packed)
        }
    }
}

macro_rules! each {
    ($self:expr, $ring:ident => $result:expr) => {
        match $self {
            Virtqueue::Split($ring) => $result,
            Virtqueue::Packed($ring) => $result,
        }
    };
}

impl Ring for Virtqueue {
    #[inline]
    fn take(&mut self, view: &MapView, chain: &mut Chain) -> Result<Option<Head>, RingError> {
        each!(self, ring => ring.take(view, chain))
    }

    #[inline]
    fn put(&mut self, head: Head, written: u32) {
        each!(self, ring => ring.put(head, written));
    }

    fn wants_interrupt(&mut self) -> bool {
        each!(self, ring => ring.wants_interrupt())
    }

    fn want_kicks(&mut self, wanted: bool) {
        each!(self, ring => ring.want_kicks(wanted));
    }

    fn in_flight(&self) -> u16 {
        each!(self, ring => ring.in_flight())
    }

    fn state(&self) -> RingState {
        each!(self, ring => ring.state())
    }

    fn remap(&mut self, view: &MapView) -> Result<(), Fault> {
        each!(self, ring => ring.remap(view))
    }

    fn set_log(&mut self, log: Option<Arc<DirtyLog>>) {
        each!(self, ring => ring.set_log(log));
    }
}

#[cfg(test)]
mod tests;
