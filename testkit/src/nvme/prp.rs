//! PRP entries and lists over the guest's memory.

use crate::ram::{GuestRam, RamError};

impl GuestRam {
    /// The two PRP entries for `len` contiguous bytes at `address`; a PRP list is built where needed.
    ///
    /// # Errors
    /// [`RamError::Exhausted`] for the list.
    pub fn prps(&self, address: u64, len: usize) -> Result<(u64, u64), RamError> {
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
