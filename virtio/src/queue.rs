//! Virtqueues, device side: split and packed behind one interface.

mod log;

use guest_memory::{Fault, MapView};

use crate::device::RingState;

pub use log::DirtyLog;

/// A part of a chain's buffers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Buffer {
    /// Guest-physical address.
    pub addr: u64,
    /// Length in bytes; never 0, `addr + len` does not wrap.
    pub len: u32,
}

/// A chain of buffers that was taken from a ring, checked for form: readable before writable, no loop, no empty buffer. Whether
/// it lies in memory is found when it is resolved. Reused from one request to the next, so taking one allocates nothing.
#[derive(Clone, Debug, Default)]
pub struct Chain {
    /// What the device reads.
    pub readable: Vec<Buffer>,
    /// What the device writes.
    pub writable: Vec<Buffer>,
}

impl Chain {
    /// Forgets everything, keeps the room.
    pub fn clear(&mut self) {
        self.readable.clear();
        self.writable.clear();
    }
}

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

    /// Whether the driver wants an interrupt for what was put since this was last asked. Asked once per pass, not per chain.
    fn wants_interrupt(&mut self) -> bool;

    /// Asks the driver to notify (`true`) or not to. After asking, look with `take` once more.
    fn want_kicks(&mut self, wanted: bool);

    /// How many chains are in flight.
    fn in_flight(&self) -> u16;

    /// Where it stands, to go on later.
    fn state(&self) -> RingState;

    /// Finds the ring again after a change of the client's memory. On failure it holds no memory and takes and puts nothing
    /// until a later `remap` succeeds (in-flight chains that end meanwhile are kept and put then).
    ///
    /// # Errors
    /// The ring does not lie in memory.
    fn remap(&mut self, view: &MapView) -> Result<(), Fault>;
}
