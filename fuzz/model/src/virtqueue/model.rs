//! What the device side of a virtqueue should do, whatever its format.

use virtio::{MAX_BUFFERS, RingState};
use virtio_spec::ring::DESC_F_WRITE;

use super::memory::{Guest, Write};

/// A chain that the driver described.
#[derive(Debug, Default)]
pub(super) struct Expected {
    pub(super) readable: Vec<(u64, u32)>,
    pub(super) writable: Vec<(u64, u32)>,
}

impl Expected {
    pub(super) fn add(&mut self, addr: u64, len: u32, flags: u16) -> Result<(), ()> {
        if len == 0 || u128::from(addr) + u128::from(len) >= 1 << 64 {
            return Err(());
        }
        let writable = flags & DESC_F_WRITE != 0;
        if !writable && !self.writable.is_empty() {
            return Err(());
        }
        let list = if writable {
            &mut self.writable
        } else {
            &mut self.readable
        };
        list.push((addr, len));
        if self.readable.len() + self.writable.len() > MAX_BUFFERS {
            return Err(());
        }
        Ok(())
    }
}

/// A format's rules.
pub(super) trait Model {
    /// Where the ring stands.
    fn state(&self) -> RingState;

    /// Whether no chain in flight has this head or ID.
    fn is_free(&self, id: u16) -> bool;

    /// What taking a chain gives; `Err` for a driver that broke the rules.
    fn take(&mut self, guest: &Guest) -> Result<Option<Expected>, ()>;

    /// The chain that was just taken goes by this name.
    fn took(&mut self, head: u16);

    /// A chain has ended: what is written.
    fn put(&mut self, head: u16, written: u32) -> Vec<Write>;

    /// Whether the driver wants an interrupt.
    fn wants_interrupt(&mut self, guest: &Guest) -> bool;

    /// Asks for notifications, or not: what is written.
    fn want_kicks(&mut self, wanted: bool) -> Vec<Write>;

    /// Looks for the rings again; what is written once they are found.
    fn remap(&mut self, guest: &Guest) -> Option<Vec<Write>>;

    /// Places of the ring that were used, where that matters to the driver.
    fn used(&self) -> u64;
}
