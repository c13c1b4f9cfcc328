//! The client's DMA map: which guest-physical ranges exist and where they are in our address space.

use std::sync::Arc;

use crate::mapping::{Access, Mapping};

/// A range of guest-physical addresses that the client mapped.
#[derive(Clone, Debug)]
pub struct Region {
    /// First address, as the guest's device sees it.
    pub iova: u64,
    /// Length in bytes; never zero, and `iova + len` never wraps past 2⁶⁴.
    pub len: u64,
    /// What the device may do there.
    pub access: Access,
    /// The mapped memory; `None` for a range without a file descriptor (a ROM, another device's BAR, or RAM that the
    /// client does not share), which the device cannot reach directly.
    pub backing: Option<Arc<Mapping>>,
}

impl Region {
    /// The last address of the region.
    #[must_use]
    pub fn last(&self) -> u64 {
        self.iova.wrapping_add(self.len - 1)
    }
}

/// Why a change to the map was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MapError {
    /// Empty, or wraps around the end of the address space.
    #[error("the region is empty or wraps around the address space")]
    BadRange,
    /// Overlaps a region that is already there.
    #[error("the region overlaps one that is already mapped")]
    Overlap,
    /// No region has exactly this address and length.
    #[error("no region has exactly this address and length")]
    NotFound,
}

/// An immutable snapshot of all regions. Every change makes a new one with the next epoch; whoever still uses the old
/// one keeps its memory mapped.
#[derive(Debug, Default)]
pub struct DmaMap {
    epoch: u64,
    /// Sorted by address, disjoint.
    regions: Vec<Region>,
}

impl DmaMap {
    /// The map of a client that has mapped nothing yet, epoch 0.
    #[must_use]
    pub fn empty() -> Arc<Self> {
        Arc::new(Self::default())
    }

    /// Number of this snapshot; grows by one with each change.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// All regions, sorted by address.
    #[must_use]
    pub fn regions(&self) -> &[Region] {
        &self.regions
    }

    /// The region that contains `iova`.
    #[must_use]
    pub fn find(&self, iova: u64) -> Option<&Region> {
        let next = self.regions.partition_point(|region| region.iova <= iova);
        let region = self.regions.get(next.checked_sub(1)?)?;
        (iova <= region.last()).then_some(region)
    }

    /// The region with exactly this address and length.
    #[must_use]
    pub fn find_exact(&self, iova: u64, len: u64) -> Option<&Region> {
        self.find(iova)
            .filter(|region| region.iova == iova && region.len == len)
    }

    /// A new map with `region` added.
    ///
    /// # Errors
    /// [`MapError::BadRange`] or [`MapError::Overlap`]; this map is unchanged either way.
    pub fn with(&self, region: Region) -> Result<Arc<Self>, MapError> {
        if region.len == 0 || region.iova.checked_add(region.len - 1).is_none() {
            return Err(MapError::BadRange);
        }
        let at = self
            .regions
            .partition_point(|other| other.iova < region.iova);
        let overlaps_next = self
            .regions
            .get(at)
            .is_some_and(|next| next.iova <= region.last());
        let overlaps_previous = at
            .checked_sub(1)
            .and_then(|previous| self.regions.get(previous))
            .is_some_and(|previous| previous.last() >= region.iova);
        if overlaps_next || overlaps_previous {
            return Err(MapError::Overlap);
        }
        let mut regions = Vec::with_capacity(self.regions.len() + 1);
        regions.extend_from_slice(&self.regions[..at]);
        regions.push(region);
        regions.extend_from_slice(&self.regions[at..]);
        Ok(Arc::new(Self {
            epoch: self.epoch + 1,
            regions,
        }))
    }

    /// A new map without the region that has exactly this address and length, and that region.
    ///
    /// # Errors
    /// [`MapError::NotFound`].
    pub fn without(&self, iova: u64, len: u64) -> Result<(Arc<Self>, Region), MapError> {
        let removed = self
            .find_exact(iova, len)
            .cloned()
            .ok_or(MapError::NotFound)?;
        let regions = self
            .regions
            .iter()
            .filter(|region| region.iova != iova)
            .cloned()
            .collect();
        Ok((
            Arc::new(Self {
                epoch: self.epoch + 1,
                regions,
            }),
            removed,
        ))
    }

    /// A new, empty map of the next epoch (unmap-all).
    #[must_use]
    pub fn cleared(&self) -> Arc<Self> {
        Arc::new(Self {
            epoch: self.epoch + 1,
            regions: Vec::new(),
        })
    }

    /// The first region whose client truncated the file behind it, if any.
    #[must_use]
    pub fn poisoned(&self) -> Option<&Region> {
        self.regions
            .iter()
            .find(|region| region.backing.as_ref().is_some_and(|m| m.is_poisoned()))
    }
}

#[cfg(test)]
mod tests;
