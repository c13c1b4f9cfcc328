//! The guest's RAM.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use guest_memory::SharedMemory;

use super::{Error, Result};

/// RAM that the guest shares with the device, with a bump allocator: addresses are `base` + offset.
#[derive(Clone, Debug)]
pub struct GuestRam {
    memory: SharedMemory,
    base: u64,
    next: Arc<AtomicUsize>,
}

impl GuestRam {
    /// `len` bytes of zeroes at guest-physical `base`.
    ///
    /// # Errors
    /// If the memory cannot be made.
    pub fn new(base: u64, len: usize) -> Result<Self> {
        let memory = SharedMemory::new_unsealed(c"testkit guest", len)?;
        Ok(Self {
            memory,
            base,
            next: Arc::new(AtomicUsize::new(0)),
        })
    }

    /// The memory itself.
    #[must_use]
    pub fn memory(&self) -> &SharedMemory {
        &self.memory
    }

    /// First guest-physical address.
    #[must_use]
    pub fn base(&self) -> u64 {
        self.base
    }

    /// Takes `len` bytes aligned to `align` (a power of two); they are never given back.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`].
    pub fn alloc(&self, len: usize, align: usize) -> Result<u64> {
        let mut offset = 0;
        self.next
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |next| {
                offset = next.checked_next_multiple_of(align)?;
                let end = offset.checked_add(len)?;
                (end <= self.memory.len()).then_some(end)
            })
            .map_err(|_| Error::OutOfMemory(len))?;
        Ok(self.base + offset as u64)
    }

    /// Offset in the memory of a guest-physical address.
    #[must_use]
    pub fn offset(&self, address: u64) -> usize {
        usize::try_from(address.wrapping_sub(self.base)).unwrap_or(usize::MAX)
    }

    /// Copies bytes out.
    #[must_use]
    pub fn read(&self, address: u64, len: usize) -> Vec<u8> {
        let mut out = vec![0; len];
        assert!(
            self.memory.read_slice(self.offset(address), &mut out),
            "inside guest memory"
        );
        out
    }

    /// Copies bytes in.
    pub fn write(&self, address: u64, data: &[u8]) {
        assert!(
            self.memory.write_slice(self.offset(address), data),
            "inside guest memory"
        );
    }

    /// The two PRP entries for `len` contiguous bytes at `address`; a PRP list is built where needed.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`] for the list.
    pub fn prps(&self, address: u64, len: usize) -> Result<(u64, u64)> {
        const PAGE: u64 = 4096;
        let end = address + len as u64;
        let second = (address / PAGE + 1) * PAGE;
        if end <= second {
            return Ok((address, 0));
        }
        if end <= second + PAGE {
            return Ok((address, second));
        }
        let pages: Vec<u64> = (second..end).step_by(PAGE as usize).collect();
        // The last entry of a full list page leads to the next one.
        let per_page = 512;
        let mut lists = Vec::new();
        let mut rest = pages.as_slice();
        while !rest.is_empty() {
            let take = if rest.len() > per_page {
                per_page - 1
            } else {
                rest.len()
            };
            lists.push((self.alloc(4096, 4096)?, &rest[..take]));
            rest = &rest[take..];
        }
        for (index, (at, entries)) in lists.iter().enumerate() {
            let next = lists.get(index + 1).map(|(next, _)| *next);
            for (slot, entry) in entries.iter().copied().chain(next).enumerate() {
                self.write(at + slot as u64 * 8, &entry.to_le_bytes());
            }
        }
        Ok((address, lists[0].0))
    }
}
