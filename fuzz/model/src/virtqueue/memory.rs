//! The guest's memory, and what it should hold.

use std::sync::Arc;

use guest_memory::{Access, DmaMap, MapView, Mapping, Region, SharedMemory};
use zerocopy::{FromBytes, IntoBytes};

use super::LOG;

/// First address.
pub(super) const BASE: u64 = 0x1_0000;
/// Bytes.
pub(super) const LEN: usize = 0x1_0000;

/// Bytes that the device should have written, in order.
pub(super) type Write = (u64, Vec<u8>);

/// Layouts of the memory: first address, length, rights.
const LAYOUTS: [&[(u64, u64, bool)]; 5] = [
    &[(0, 0x1_0000, true)],
    // A border that matters to nobody, and one within the available ring's place.
    &[(0, 0x8000, true), (0x8000, 0x8000, true)],
    &[(0, 0x2040, true), (0x2040, 0xdfc0, true)],
    // A hole in the used ring's place; memory that the device may not write.
    &[(0, 0x4000, true), (0x6000, 0xa000, true)],
    &[(0, 0x4000, false), (0x4000, 0xc000, true)],
];

/// Memory, and what the device should have made of it.
pub(super) struct Guest {
    memory: SharedMemory,
    expected: Vec<u8>,
    seen: Vec<u8>,
    layout: usize,
    /// Pages that should be logged.
    pub(super) log: [u8; LOG],
}

impl Guest {
    pub(super) fn new(layout: u8) -> Self {
        let memory = SharedMemory::new(c"guest", LEN).expect("memory");
        Self {
            memory,
            expected: vec![0; LEN],
            seen: vec![0; LEN],
            layout: usize::from(layout) % LAYOUTS.len(),
            log: [0; LOG],
        }
    }

    /// Lays the same memory out in another way; the last one is nothing at all.
    pub(super) fn relay(&mut self, code: u8) {
        self.layout = usize::from(code) % (LAYOUTS.len() + 1);
    }

    fn regions(&self) -> &'static [(u64, u64, bool)] {
        LAYOUTS.get(self.layout).copied().unwrap_or_default()
    }

    pub(super) fn view(&self) -> MapView {
        let mut map = DmaMap::empty();
        for &(at, len, writable) in self.regions() {
            let access = if writable {
                Access::READ | Access::WRITE
            } else {
                Access::READ
            };
            let mapping = Mapping::from_fd(self.memory.fd(), at, len, access).expect("a mapping");
            let region = Region {
                iova: BASE + at,
                len,
                access,
                backing: Some(Arc::new(mapping)),
            };
            map = map.with(region).expect("disjoint");
        }
        MapView::new(map)
    }

    /// Whether the device can reach all of a range, each piece of it at a multiple of `align`.
    pub(super) fn holds(&self, addr: u64, len: usize, write: bool, align: u64) -> bool {
        if !addr.is_multiple_of(align) {
            return false;
        }
        let Some(end) = addr.checked_add(len as u64) else {
            return false;
        };
        let mut at = addr;
        while at < end {
            let region = self.regions().iter().find(|(first, len, writable)| {
                (BASE + first..BASE + first + len).contains(&at) && (!write || *writable)
            });
            let Some((first, len, _)) = region else {
                return false;
            };
            // All regions begin at multiples of 64.
            if !(at - addr).is_multiple_of(align) {
                return false;
            }
            at = BASE + first + len;
        }
        true
    }

    fn offset(addr: u64) -> usize {
        usize::try_from(addr.wrapping_sub(BASE)).unwrap_or(usize::MAX)
    }

    /// What the driver and the device see at an address; zeroes where there is no memory.
    pub(super) fn read<T: FromBytes + IntoBytes>(&self, addr: u64) -> T {
        let offset = Self::offset(addr);
        let bytes = offset
            .checked_add(size_of::<T>())
            .and_then(|end| self.expected.get(offset..end));
        bytes
            .and_then(|bytes| T::read_from_bytes(bytes).ok())
            .unwrap_or_else(T::new_zeroed)
    }

    /// The driver writes.
    pub(super) fn write(&mut self, addr: u64, bytes: &[u8]) {
        for (n, byte) in bytes.iter().enumerate() {
            let offset = Self::offset(addr.wrapping_add(n as u64));
            if let Some(place) = self.expected.get_mut(offset) {
                *place = *byte;
                self.memory.store_u8(offset, *byte);
            }
        }
    }

    /// The device has written just that.
    pub(super) fn expect(&mut self, writes: &[Write]) {
        for (addr, bytes) in writes {
            let at = Self::offset(*addr);
            self.expected[at..at + bytes.len()].copy_from_slice(bytes);
        }
        assert!(self.memory.read_slice(0, &mut self.seen));
        // At once: byte by byte, instrumented, is what the target would spend its time on.
        if self.seen != self.expected {
            let differs = |at: &usize| self.seen[*at] != self.expected[*at];
            let at = (0..LEN).find(differs).unwrap_or(0);
            panic!(
                "at {at:#x}: {:#x} instead of {:#x}; expected {writes:x?}",
                self.seen[at], self.expected[at]
            );
        }
    }

    /// A range should be in the log.
    pub(super) fn dirty(&mut self, addr: u64, len: u64) {
        if len == 0 {
            return;
        }
        for page in addr / 4096..=(addr.saturating_add(len - 1) / 4096).min(LOG as u64 * 8) {
            if let Some(byte) = self.log.get_mut(usize::try_from(page / 8).unwrap_or(LOG)) {
                *byte |= 1 << (page % 8);
            }
        }
    }
}
