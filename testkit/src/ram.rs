//! The guest's RAM.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use guest_memory::{MappingError, SharedMemory};

/// Why the guest has no memory.
#[derive(Debug, thiserror::Error)]
pub enum RamError {
    /// It could not be made or mapped.
    #[error("guest memory: {0}")]
    Mapping(#[from] MappingError),
    /// It is used up.
    #[error("the guest has no {0} bytes left")]
    Exhausted(usize),
}

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
    pub fn new(base: u64, len: usize) -> Result<Self, RamError> {
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
    /// [`RamError::Exhausted`].
    pub fn alloc(&self, len: usize, align: usize) -> Result<u64, RamError> {
        let mut offset = 0;
        self.next
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |next| {
                offset = next.checked_next_multiple_of(align)?;
                let end = offset.checked_add(len)?;
                (end <= self.memory.len()).then_some(end)
            })
            .map_err(|_| RamError::Exhausted(len))?;
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
}
