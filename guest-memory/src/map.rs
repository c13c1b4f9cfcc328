//! The client's DMA map: which guest-physical ranges exist and where they are in our address space.

use std::ops::Range;
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

/// Most regions in one chunk: the square root of the most that a client of vfio-user may have (65 535), so that a change copies
/// about as many regions as it counts references to chunks. Ordinary guests have a dozen regions, and one chunk.
const CHUNK: usize = 256;

/// Neighbours in the list of regions; never empty.
#[derive(Clone, Debug)]
struct Chunk {
    /// Address of the first region.
    first: u64,
    regions: Arc<[Region]>,
}

impl Chunk {
    /// The chunks for these regions: none, one, or two if they are too many for one.
    fn of(regions: Vec<Region>) -> impl Iterator<Item = Self> {
        let mut regions = regions;
        let half = if regions.len() > CHUNK {
            regions.len() / 2
        } else {
            regions.len()
        };
        let rest = regions.split_off(half);
        [regions, rest].into_iter().filter_map(|regions| {
            Some(Self {
                first: regions.first()?.iova,
                regions: regions.into(),
            })
        })
    }

    fn len(&self) -> usize {
        self.regions.len()
    }
}

/// An immutable snapshot of all regions. Every change makes a new one with the next epoch; whoever still uses the old
/// one keeps its memory mapped.
///
/// Snapshots share what they have in common, in chunks: with n regions a change costs the square root of n. Rejected: a tree,
/// whose look-ups would cost more in the ordinary case, and one list, which a client could make us copy 65 535 times.
#[derive(Debug, Default)]
pub struct DmaMap {
    epoch: u64,
    /// Sorted by address, disjoint. Two neighbours together hold more than half of [`CHUNK`].
    chunks: Vec<Chunk>,
    len: usize,
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

    /// Number of regions.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing is mapped.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// All regions, sorted by address.
    pub fn regions(&self) -> impl Iterator<Item = &Region> + Clone {
        self.chunks.iter().flat_map(|chunk| chunk.regions.iter())
    }

    /// Index of the chunk in which an address lies or belongs, and its regions; the first chunk for an address before it.
    fn chunk_of(&self, iova: u64) -> (usize, &[Region]) {
        let next = self.chunks.partition_point(|chunk| chunk.first <= iova);
        let at = next.saturating_sub(1);
        let chunk = self.chunks.get(at);
        (at, chunk.map_or(&[], |chunk| &chunk.regions))
    }

    /// The region that contains `iova`.
    #[must_use]
    pub fn find(&self, iova: u64) -> Option<&Region> {
        let (_, regions) = self.chunk_of(iova);
        let next = regions.partition_point(|region| region.iova <= iova);
        let region = regions.get(next.checked_sub(1)?)?;
        (iova <= region.last()).then_some(region)
    }

    /// The region with exactly this address and length.
    #[must_use]
    pub fn find_exact(&self, iova: u64, len: u64) -> Option<&Region> {
        self.find(iova)
            .filter(|region| region.iova == iova && region.len == len)
    }

    /// The map of the next epoch, in which `regions` stand for the chunks of `range`.
    fn replace(&self, range: Range<usize>, regions: Vec<Region>) -> Arc<Self> {
        let (before, after) = (&self.chunks[..range.start], &self.chunks[range.end..]);
        let replaced: usize = self.chunks[range].iter().map(Chunk::len).sum();
        let len = self.len - replaced + regions.len();
        let mut chunks = Vec::with_capacity(before.len() + 2 + after.len());
        chunks.extend_from_slice(before);
        chunks.extend(Chunk::of(regions));
        chunks.extend_from_slice(after);
        Arc::new(Self {
            epoch: self.epoch + 1,
            chunks,
            len,
        })
    }

    /// A new map with `region` added.
    ///
    /// # Errors
    /// [`MapError::BadRange`] or [`MapError::Overlap`]; this map is unchanged either way.
    pub fn with(&self, region: Region) -> Result<Arc<Self>, MapError> {
        if region.len == 0 || region.iova.checked_add(region.len - 1).is_none() {
            return Err(MapError::BadRange);
        }
        let (chunk, old) = self.chunk_of(region.iova);
        let at = old.partition_point(|other| other.iova < region.iova);
        let (before, after) = old.split_at(at);
        // Behind the chunk's last region comes the next chunk's first.
        let next = after.first().map(|next| next.iova);
        let next = next.or_else(|| self.chunks.get(chunk + 1).map(|chunk| chunk.first));
        let overlaps_next = next.is_some_and(|next| next <= region.last());
        let overlaps_previous = before
            .last()
            .is_some_and(|previous| previous.last() >= region.iova);
        if overlaps_next || overlaps_previous {
            return Err(MapError::Overlap);
        }
        let mut regions = Vec::with_capacity(old.len() + 1);
        regions.extend_from_slice(before);
        regions.push(region);
        regions.extend_from_slice(after);
        Ok(self.replace(chunk..(chunk + 1).min(self.chunks.len()), regions))
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
        let (chunk, old) = self.chunk_of(iova);
        let left = old.len() - 1;
        let fits = |neighbour: &Chunk| left + neighbour.len() <= CHUNK / 2;
        let previous = chunk.checked_sub(1);
        let range = if previous.is_some_and(|previous| fits(&self.chunks[previous])) {
            chunk - 1..chunk + 1
        } else if self.chunks.get(chunk + 1).is_some_and(fits) {
            chunk..chunk + 2
        } else {
            chunk..chunk + 1
        };
        let merged = self.chunks[range.clone()].iter();
        let regions = merged
            .flat_map(|chunk| chunk.regions.iter())
            .filter(|region| region.iova != iova)
            .cloned()
            .collect();
        Ok((self.replace(range, regions), removed))
    }

    /// A new map without all regions inside this range, and those regions: what VFIO's own unmap does.
    ///
    /// # Errors
    /// [`MapError::NotFound`] if there are none, or one lies across an end of the range.
    pub fn without_within(
        &self,
        iova: u64,
        len: u64,
    ) -> Result<(Arc<Self>, Vec<Region>), MapError> {
        let last = len.checked_sub(1).and_then(|len| iova.checked_add(len));
        let last = last.ok_or(MapError::NotFound)?;
        let is_inside = |region: &Region| region.iova >= iova && region.last() <= last;
        let (first, _) = self.chunk_of(iova);
        let reached = self.chunks[first..].iter();
        let reached = reached.take_while(|chunk| chunk.first <= last).count();
        let mut range = first..first + reached;
        let (mut removed, mut left) = (Vec::new(), 0);
        for region in self.chunks[range.clone()]
            .iter()
            .flat_map(|chunk| chunk.regions.iter())
        {
            if is_inside(region) {
                removed.push(region.clone());
            } else if region.iova > last || region.last() < iova {
                left += 1;
            } else {
                return Err(MapError::NotFound);
            }
        }
        if removed.is_empty() {
            return Err(MapError::NotFound);
        }
        let size = |index: usize| self.chunks.get(index).map_or(CHUNK, Chunk::len);
        loop {
            let before = range.start.checked_sub(1);
            if let Some(before) = before.filter(|before| left + size(*before) <= CHUNK / 2) {
                left += size(before);
                range.start = before;
            } else if left + size(range.end) <= CHUNK / 2 {
                left += size(range.end);
                range.end += 1;
            } else {
                break;
            }
        }
        let merged = self.chunks[range.clone()].iter();
        let regions = merged
            .flat_map(|chunk| chunk.regions.iter())
            .filter(|region| !is_inside(region))
            .cloned()
            .collect();
        Ok((self.replace(range, regions), removed))
    }

    /// A new, empty map of the next epoch (unmap-all).
    #[must_use]
    pub fn cleared(&self) -> Arc<Self> {
        Arc::new(Self {
            epoch: self.epoch + 1,
            ..Self::default()
        })
    }

    /// The first region whose client truncated the file behind it, if any.
    #[must_use]
    pub fn poisoned(&self) -> Option<&Region> {
        self.regions()
            .find(|region| region.backing.as_ref().is_some_and(|m| m.is_poisoned()))
    }
}

#[cfg(test)]
mod tests;
