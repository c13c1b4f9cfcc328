//! A client's memory: what it has mapped, and what it has unmapped but the device may still reach.

use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use guest_memory::{Access, DmaMap, MapError, Mapping, MappingError, Region, reaper};
use nix::errno::Errno;
use nix::sys::stat::fstat;
use unix_socket::Link;

use crate::Rejection;
use crate::request;
use crate::wire::{DmaMapFlags, MAX_DMA_MAPS};

/// Where a region's bytes come from. The descriptor itself is closed once the region is mapped: a client may have
/// tens of thousands of regions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Source {
    /// Device and inode of the file, and the offset in it; `None` without a descriptor. The mapping keeps the inode
    /// alive, so its number stays unique.
    file: Option<(u64, u64, u64)>,
    access: Access,
}

/// A region on its way out.
#[derive(Debug)]
struct Retired {
    iova: u64,
    len: u64,
    mapping: Arc<Mapping>,
}

/// What one client has mapped.
#[derive(Debug)]
pub(crate) struct Memory {
    map: Arc<DmaMap>,
    /// By address.
    sources: HashMap<u64, Source>,
    retired: Vec<Retired>,
    retired_since: Option<Instant>,
    /// Regions at once, at most.
    limit: usize,
    link: Rc<Link>,
}

impl Memory {
    pub(crate) fn new(link: Rc<Link>) -> Self {
        Self::with_limit(MAX_DMA_MAPS, link)
    }

    fn with_limit(limit: usize, link: Rc<Link>) -> Self {
        Self {
            limit,
            map: DmaMap::empty(),
            sources: HashMap::new(),
            retired: Vec::new(),
            retired_since: None,
            link,
        }
    }

    /// The current map.
    pub(crate) fn current(&self) -> &Arc<DmaMap> {
        &self.map
    }

    /// Adds a region. `false` when it was there already, exactly so.
    ///
    /// # Errors
    ///
    /// EEXIST for an overlap, EINVAL for a region outside its file or one too many, or what mmap says. The map is
    /// unchanged then.
    pub(crate) fn map(&mut self, region: request::DmaMap) -> Result<bool, Rejection> {
        let access = access_of(region.flags);
        let (iova, len, offset) = (region.address, region.size, region.offset);
        let source = Source {
            file: file_of(region.fd.as_ref(), offset)?,
            access,
        };
        if self.map.find_exact(iova, len).is_some() && self.sources.get(&iova) == Some(&source) {
            return Ok(false);
        }
        if self.map.len() >= self.limit {
            return Err(Rejection::invalid("more DMA regions than max_dma_maps"));
        }
        let backing = match region.fd {
            None => None,
            Some(fd) => Some(
                Mapping::from_fd(fd.as_fd(), offset, len, access)
                    .map(Arc::new)
                    .map_err(|error| self.refuse(iova, len, &error))?,
            ),
        };
        let region = Region {
            iova,
            len,
            access,
            backing,
        };
        self.map = self.map.with(region).map_err(|error| match error {
            MapError::Overlap => {
                Rejection::new(Errno::EEXIST, "DMA region overlaps one that is mapped")
            }
            MapError::BadRange | MapError::NotFound => {
                Rejection::invalid("DMA region is empty or wraps")
            }
        })?;
        self.sources.insert(iova, source);
        Ok(true)
    }

    /// Takes a region out of the map, or all that lie in the range. The device may still reach them until
    /// [`is_drained`](Self::is_drained). `false` when they were taken out before and are still draining.
    ///
    /// The protocol's text knows only the first. But QEMU unmaps as from VFIO's own containers: with an IOMMU in the guest it
    /// takes whole address spaces away, in a few large pieces. What stayed would be the wrong memory later.
    ///
    /// # Errors
    ///
    /// ENOENT when no region lies in this range, or one lies across its ends.
    pub(crate) fn unmap(&mut self, iova: u64, len: u64) -> Result<bool, Rejection> {
        let one = self.map.without(iova, len);
        let removed = match one {
            Ok((map, region)) => Ok((map, vec![region])),
            Err(_) => self.map.without_within(iova, len),
        };
        let Ok((map, regions)) = removed else {
            let is_draining = |retired: &Retired| {
                let offset = retired.iova.checked_sub(iova);
                offset.is_some_and(|offset| {
                    let end = offset.checked_add(retired.len);
                    end.is_some_and(|end| end <= len)
                })
            };
            if self.retired.iter().any(is_draining) {
                return Ok(false);
            }
            return Err(Rejection::new(
                Errno::ENOENT,
                "no DMA region has exactly this range, and none lies in it",
            ));
        };
        self.map = map;
        for region in regions {
            self.sources.remove(&region.iova);
            self.retire(region);
        }
        Ok(true)
    }

    /// Takes every region out of the map.
    pub(crate) fn unmap_all(&mut self) {
        let cleared = self.map.cleared();
        let old = std::mem::replace(&mut self.map, cleared);
        self.sources.clear();
        for region in old.regions() {
            self.retire(region.clone());
        }
    }

    fn retire(&mut self, region: Region) {
        if let Some(mapping) = region.backing {
            self.retired_since.get_or_insert_with(Instant::now);
            self.retired.push(Retired {
                iova: region.iova,
                len: region.len,
                mapping,
            });
        }
    }

    /// Whether nothing that was taken out of the map can be reached any more. What cannot is unmapped.
    ///
    /// Cheap while it is not: the look ends at the first region that still has users.
    pub(crate) fn is_drained(&mut self) -> bool {
        let mut free = Vec::new();
        while let Some(retired) = self
            .retired
            .pop_if(|retired| retired.mapping.is_sole_owner())
        {
            free.push(retired.mapping);
        }
        reaper::unmap(free);
        if self.retired.is_empty() {
            self.retired_since = None;
        }
        self.retired.is_empty()
    }

    /// Since when something that was taken out of the map could still be reached.
    pub(crate) fn draining_since(&self) -> Option<Instant> {
        self.retired_since
    }

    /// Tells the operator, who can do something about it.
    fn refuse(&self, iova: u64, len: u64, error: &MappingError) -> Rejection {
        if self.link.complaints().allow() {
            let hint = match error {
                MappingError::Os(Errno::ENOMEM) => {
                    "raise vm.max_map_count, or give the VM its memory in fewer pieces"
                }
                _ => "the client must share its memory as a mappable file that is long enough",
            };
            tracing::warn!(
                iova = format_args!("{iova:#x}"),
                len = format_args!("{len:#x}"),
                %error,
                hint,
                "client memory cannot be mapped"
            );
        }
        let why = match error {
            MappingError::BeyondFile { .. } => "DMA region reaches beyond the end of its file",
            _ => "DMA region cannot be mapped",
        };
        Rejection::new(error.errno(), why)
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        let map = std::mem::replace(&mut self.map, DmaMap::empty());
        let mapped: Vec<_> = map
            .regions()
            .filter_map(|region| region.backing.clone())
            .collect();
        drop(map);
        reaper::unmap(mapped);
        reaper::unmap(self.retired.drain(..).map(|retired| retired.mapping));
    }
}

fn access_of(flags: DmaMapFlags) -> Access {
    let mut access = Access::empty();
    access.set(Access::READ, flags.contains(DmaMapFlags::READ));
    access.set(Access::WRITE, flags.contains(DmaMapFlags::WRITE));
    access
}

fn file_of(fd: Option<&OwnedFd>, offset: u64) -> Result<Option<(u64, u64, u64)>, Rejection> {
    let Some(fd) = fd else {
        return Ok(None);
    };
    let stat = fstat(fd).map_err(|errno| Rejection::new(errno, "file of a DMA region"))?;
    Ok(Some((stat.st_dev, stat.st_ino, offset)))
}

#[cfg(test)]
mod tests;
