//! A client's memory: what it shares now, and what it took away but the device may still reach.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use guest_memory::{Access, DmaMap, MapError, Mapping, MappingError, Region, reaper};
use nix::errno::Errno;
use nix::sys::stat::{SFlag, fstat};

use crate::Refusal;
use crate::wire::{MAX_MEM_SLOTS, MemoryRegion};

/// Where a region's bytes come from: device and inode of the file. The mapping keeps the inode alive, so its number stays unique.
type File = (u64, u64);

#[derive(Clone, Debug)]
struct Slot {
    region: MemoryRegion,
    file: File,
    mapping: Arc<Mapping>,
}

/// All regions of a client, and the map that devices see. Cheap to change and throw away: see [`Memory::commit`].
#[derive(Clone, Debug)]
pub(crate) struct Table {
    slots: Vec<Slot>,
    map: Arc<DmaMap>,
}

impl Table {
    /// Where `len` bytes at one of the client's own addresses lie in the guest's memory, if in one region.
    pub(crate) fn translate(&self, user_address: u64, len: usize) -> Option<u64> {
        self.slots.iter().find_map(|Slot { region, .. }| {
            let offset = user_address.checked_sub(region.user_address)?;
            let end = offset.checked_add(len as u64)?;
            // Neither sum of a region's wraps.
            (end <= region.size).then(|| region.guest_address.wrapping_add(offset))
        })
    }

    /// The map.
    pub(crate) fn map(&self) -> &Arc<DmaMap> {
        &self.map
    }

    /// Number of regions.
    pub(crate) fn len(&self) -> usize {
        self.slots.len()
    }

    /// This table with one more region.
    ///
    /// # Errors
    ///
    /// The region wraps, overlaps, lies outside its file, is one too many or cannot be mapped.
    pub(crate) fn with(&self, region: MemoryRegion, fd: &OwnedFd) -> Result<Self, Refusal> {
        let mut table = self.clone();
        table.add(region, fd, &[])?;
        Ok(table)
    }

    /// This table without a region, whatever its offset in its file (the text compares the rest).
    ///
    /// # Errors
    ///
    /// There is no such region.
    pub(crate) fn without(&self, region: &MemoryRegion) -> Result<Self, Refusal> {
        let key = |region: &MemoryRegion| (region.guest_address, region.size, region.user_address);
        let mut table = self.clone();
        table.slots.retain(|slot| key(&slot.region) != key(region));
        table.map = match self.map.without(region.guest_address, region.size) {
            Ok((map, _)) if table.slots.len() < self.slots.len() => map,
            _ => {
                return Err(Refusal::new(
                    "no memory region is exactly the one to remove",
                ));
            }
        };
        Ok(table)
    }

    /// A table of other regions. Those that stay the same keep their mappings.
    ///
    /// # Errors
    ///
    /// As [`with`](Self::with).
    pub(crate) fn replaced(&self, regions: &[(MemoryRegion, OwnedFd)]) -> Result<Self, Refusal> {
        let mut table = Self {
            slots: Vec::with_capacity(regions.len()),
            map: self.map.cleared(),
        };
        for (region, fd) in regions {
            table.add(*region, fd, &self.slots)?;
        }
        Ok(table)
    }

    fn add(&mut self, region: MemoryRegion, fd: &OwnedFd, known: &[Slot]) -> Result<(), Refusal> {
        if self.slots.len() >= MAX_MEM_SLOTS {
            return Err(Refusal::new(format!(
                "the client has more than {MAX_MEM_SLOTS} memory regions"
            )));
        }
        self.check(&region)?;
        let file = file_of(fd)?;
        let same = known
            .iter()
            .find(|slot| slot.region == region && slot.file == file && !slot.mapping.is_poisoned());
        let mapping = match same {
            Some(slot) => Arc::clone(&slot.mapping),
            None => map(&region, fd)?,
        };
        let backed = Region {
            iova: region.guest_address,
            len: region.size,
            access: Access::READ | Access::WRITE,
            backing: Some(Arc::clone(&mapping)),
        };
        self.map = self.map.with(backed).map_err(|error| match error {
            MapError::Overlap => Refusal::new("two memory regions overlap in the guest"),
            MapError::BadRange | MapError::NotFound => wraps(),
        })?;
        self.slots.push(Slot {
            region,
            file,
            mapping,
        });
        Ok(())
    }

    /// Holds a region against those that are there.
    fn check(&self, region: &MemoryRegion) -> Result<(), Refusal> {
        if region.size == 0 {
            return Err(Refusal::new("a memory region is empty"));
        }
        let user_end = region
            .user_address
            .checked_add(region.size)
            .ok_or(wraps())?;
        region
            .guest_address
            .checked_add(region.size)
            .ok_or(wraps())?;
        region.mmap_offset.checked_add(region.size).ok_or(wraps())?;
        let overlaps = self.slots.iter().any(|Slot { region: other, .. }| {
            region.user_address < other.user_address.saturating_add(other.size)
                && other.user_address < user_end
        });
        if overlaps {
            return Err(Refusal::new("two memory regions overlap in the client"));
        }
        Ok(())
    }
}

fn wraps() -> Refusal {
    Refusal::new("a memory region wraps around the end of the address space")
}

/// Devices and inodes of files that can back memory: a pipe, a socket or an eventfd cannot.
fn file_of(fd: &OwnedFd) -> Result<File, Refusal> {
    let stat =
        fstat(fd).map_err(|errno| Refusal::new(format!("the file of a memory region: {errno}")))?;
    let kind = SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits());
    if kind != SFlag::S_IFREG && kind != SFlag::S_IFCHR {
        return Err(Refusal::new(
            "the descriptor of a memory region is not a file that can be mapped",
        ));
    }
    Ok((stat.st_dev, stat.st_ino))
}

fn map(region: &MemoryRegion, fd: &OwnedFd) -> Result<Arc<Mapping>, Refusal> {
    let access = Access::READ | Access::WRITE;
    let mapped = Mapping::from_fd(fd.as_fd(), region.mmap_offset, region.size, access);
    mapped.map(Arc::new).map_err(|error| {
        let hint = match error {
            MappingError::Os(Errno::ENOMEM) => {
                "raise vm.max_map_count, or give the VM its memory in fewer pieces"
            }
            _ => "the VM must share its memory as a mappable file that is long enough",
        };
        Refusal::new(format!(
            "memory of {:#x} bytes at guest address {:#x} cannot be mapped: {error}: {hint}",
            region.size, region.guest_address
        ))
    })
}

/// The table in force, and what is on its way out.
#[derive(Debug)]
pub(crate) struct Memory {
    table: Table,
    retired: Vec<Arc<Mapping>>,
}

impl Memory {
    pub(crate) fn new() -> Self {
        Self {
            table: Table {
                slots: Vec::new(),
                map: DmaMap::empty(),
            },
            retired: Vec::new(),
        }
    }

    /// What is in force.
    pub(crate) fn table(&self) -> &Table {
        &self.table
    }

    /// Puts another table in force. The device may reach what has gone with the old one until [`is_drained`](Self::is_drained).
    pub(crate) fn commit(&mut self, table: Table) {
        let old = std::mem::replace(&mut self.table, table);
        let gone = old.slots.into_iter().map(|slot| slot.mapping);
        let is_kept = |mapping: &Arc<Mapping>| {
            let mut kept = self.table.slots.iter();
            kept.any(|slot| Arc::ptr_eq(&slot.mapping, mapping))
        };
        self.retired
            .extend(gone.filter(|mapping| !is_kept(mapping)));
    }

    /// Whether nothing that has gone can be reached any more. What cannot is unmapped.
    ///
    /// Cheap while it is not: the look ends at the first region that still has users.
    pub(crate) fn is_drained(&mut self) -> bool {
        let mut free = Vec::new();
        while let Some(mapping) = self.retired.pop_if(|mapping| mapping.is_sole_owner()) {
            free.push(mapping);
        }
        reaper::unmap(free);
        self.retired.is_empty()
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        self.table.map = DmaMap::empty();
        reaper::unmap(self.table.slots.drain(..).map(|slot| slot.mapping));
        reaper::unmap(self.retired.drain(..));
    }
}

#[cfg(test)]
mod tests;
