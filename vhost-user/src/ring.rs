//! One ring, as the client has described it and as the device serves it.

use guest_memory::MapView;
use virtio::{Kick, RingState};
use virtio_spec::feature::RING_PACKED;
use virtio_spec::ring::{RING_IDX, available_ring, descriptor_area, used_ring};

use crate::Refusal;
use crate::memory::Table;
use crate::wire::VringAddress;

/// What the device does with a ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Run {
    /// Nothing: it has never been started, or has ended.
    Stopped,
    /// Serves it.
    Running,
    /// Lets it end.
    Stopping,
}

/// Where a ring's parts lie in the guest's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) desc: u64,
    pub(crate) driver: u64,
    pub(crate) device: u64,
}

/// See the [module documentation](self).
#[derive(Debug)]
pub(crate) struct Ring {
    /// Entries; 0 until they are set.
    pub(crate) size: u16,
    pub(crate) address: Option<VringAddress>,
    /// Where to go on, as on the wire: its format depends on features that may be chosen later. `None`: at the beginning.
    pub(crate) base: Option<u32>,
    /// Started, in the protocol's words.
    pub(crate) kick: Option<Kick>,
    /// What SET_VRING_ENABLE said, if anything.
    pub(crate) enabled: Option<bool>,
    pub(crate) run: Run,
    /// Where the device was told that it lies.
    pub(crate) place: Option<Place>,
    /// The driver broke a rule: not started again before the client stops and starts it.
    pub(crate) is_broken: bool,
    /// Where it stands was lost with its reactor.
    pub(crate) is_lost: bool,
}

impl Default for Ring {
    fn default() -> Self {
        Self {
            size: 0,
            address: None,
            base: None,
            kick: None,
            enabled: None,
            run: Run::Stopped,
            place: None,
            is_broken: false,
            is_lost: false,
        }
    }
}

impl Ring {
    /// Where the ring lies under `table`; `None` while it is incomplete or does not lie in memory.
    pub(crate) fn locate(&self, table: &Table, features: u64) -> Option<Place> {
        let address = self.address?;
        let [desc, driver, device] = lengths(self.size.max(1), features);
        Some(Place {
            desc: table.translate(address.descriptor, desc)?,
            driver: table.translate(address.available, driver)?,
            device: table.translate(address.used, device)?,
        })
    }

    /// Whether all is said that is needed to serve it.
    pub(crate) fn is_complete(&self) -> bool {
        self.size > 0 && self.address.is_some()
    }

    /// Refuses a ring that is not one of the format that `features` choose (VIRTIO 2.7, 2.8).
    pub(crate) fn check_format(&self, features: u64) -> Result<(), Refusal> {
        if features & RING_PACKED == 0 && !self.size.is_power_of_two() {
            return Err(Refusal::new(format!(
                "a ring has {} entries: those of a split ring are a power of two",
                self.size
            )));
        }
        match &self.address {
            Some(address) => check_alignment(address, features),
            None => Ok(()),
        }
    }

    /// Where to go on. A split ring's used index is in the ring itself.
    pub(crate) fn state(&self, place: &Place, view: &MapView, features: u64) -> RingState {
        if features & RING_PACKED != 0 {
            return self.base.map_or_else(RingState::default, packed_state);
        }
        let used: Option<u16> = place
            .device
            .checked_add(RING_IDX as u64)
            .and_then(|address| view.read(address).ok());
        RingState {
            // The upper half is not used.
            next_avail: (self.base.unwrap_or(0) & 0xffff) as u16,
            next_used: used.unwrap_or_default(),
            ..RingState::default()
        }
    }
}

/// Holds the addresses of a ring against what the format asks for (VIRTIO 2.7, 2.8).
pub(crate) fn check_alignment(address: &VringAddress, features: u64) -> Result<(), Refusal> {
    let [driver, device] = if features & RING_PACKED != 0 {
        [4, 4]
    } else {
        [2, 4]
    };
    let is_aligned = address.descriptor.is_multiple_of(16)
        && address.available.is_multiple_of(driver)
        && address.used.is_multiple_of(device);
    if is_aligned {
        Ok(())
    } else {
        Err(Refusal::new("a part of a ring is not aligned"))
    }
}

/// Bytes of descriptor, driver and device area.
fn lengths(size: u16, features: u64) -> [usize; 3] {
    if features & RING_PACKED != 0 {
        [descriptor_area(size), 4, 4]
    } else {
        [descriptor_area(size), available_ring(size), used_ring(size)]
    }
}

/// "Vring descriptor indices for packed virtqueues": 15 bits of the available index and its wrap counter, then the same of the
/// used index.
pub(crate) fn packed_state(base: u32) -> RingState {
    let (avail, used) = ((base & 0xffff) as u16, (base >> 16) as u16);
    RingState {
        next_avail: avail & 0x7fff,
        avail_wrap: avail & 0x8000 != 0,
        next_used: used & 0x7fff,
        used_wrap: used & 0x8000 != 0,
    }
}

/// What GET_VRING_BASE answers.
pub(crate) fn base(state: &RingState, features: u64) -> u32 {
    if features & RING_PACKED == 0 {
        return u32::from(state.next_avail);
    }
    let half = |index: u16, wrap: bool| u32::from(index & 0x7fff | u16::from(wrap) << 15);
    half(state.next_avail, state.avail_wrap) | half(state.next_used, state.used_wrap) << 16
}

#[cfg(test)]
mod tests;
