//! A scatter list over memory that stays mapped while the list exists.
#![allow(unsafe_code, reason = "copies to and from the leased memory")]

use std::cell::RefCell;
use std::rc::Rc;

use crate::access;
use crate::host::HostBuffer;
use crate::view::ViewInner;

/// Segments kept without a spill: a 4 KiB or 8 KiB request of scattered pages fits.
pub const INLINE_SEGMENTS: usize = 4;

/// What keeps the memory of a list alive.
#[derive(Debug, Default)]
pub(crate) enum Lease {
    #[default]
    None,
    View(Rc<ViewInner>),
    Host(HostBuffer),
}

/// Comparing copies this many bytes at a time out of shared memory, so that what is compared holds still.
pub(crate) const COMPARE_CHUNK: usize = 4096;

const EMPTY: libc::iovec = libc::iovec {
    iov_base: std::ptr::null_mut(),
    iov_len: 0,
};

/// A list of memory ranges for one transfer: guest memory under a lease on its map, or an own [`HostBuffer`].
///
/// Bound to its thread (the lease is an `Rc`). Contiguous pushes merge. Up to [`INLINE_SEGMENTS`] ranges live inside; longer lists
/// borrow a vector from a per-thread pool, so building one allocates nothing once the pool is warm.
#[derive(Default)]
pub struct Segments {
    /// Ranges in use; beyond `INLINE_SEGMENTS` all of them are in `spill`.
    count: usize,
    total: usize,
    inline: Inline,
    spill: Vec<libc::iovec>,
    lease: Lease,
}

struct Inline([libc::iovec; INLINE_SEGMENTS]);

impl Default for Inline {
    fn default() -> Self {
        Self([EMPTY; INLINE_SEGMENTS])
    }
}

impl std::fmt::Debug for Segments {
    /// Lengths only: addresses and contents of guest memory do not belong in logs.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Segments")
            .field("count", &self.count)
            .field("bytes", &self.total)
            .finish()
    }
}

thread_local! {
    static SPILLS: RefCell<Vec<Vec<libc::iovec>>> = const { RefCell::new(Vec::new()) };
}

/// Spill vectors kept per thread; beyond that they are freed.
const POOLED_SPILLS: usize = 256;
/// First capacity of a spill: the pages of 1 MiB and one more for an offset.
const SPILL_CAPACITY: usize = 257;

impl Segments {
    /// An empty list.
    #[inline]
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Bytes in all segments.
    #[inline]
    #[must_use]
    pub fn len(&self) -> usize {
        self.total
    }

    /// Whether the list has no bytes.
    #[inline]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.total == 0
    }

    /// Number of contiguous ranges.
    #[inline]
    #[must_use]
    pub fn count(&self) -> usize {
        self.count
    }

    /// The ranges as the kernel takes them. Looking at the pointers is safe; what lies behind them may only be touched
    /// while this list exists.
    #[inline]
    #[must_use]
    pub fn iovecs(&self) -> &[libc::iovec] {
        if self.spill.is_empty() {
            &self.inline.0[..self.count]
        } else {
            &self.spill
        }
    }

    /// Whether every range's address is a multiple of `address` and every length one of `len` (powers of two): what
    /// direct I/O asks for.
    #[inline]
    #[must_use]
    pub fn is_aligned(&self, address: usize, len: usize) -> bool {
        let bits = self.iovecs().iter().fold(0, |bits, v| {
            bits | (v.iov_base as usize & (address - 1)) | (v.iov_len & (len - 1))
        });
        bits == 0
    }

    #[inline]
    pub(crate) fn lease_view(&mut self, view: &Rc<ViewInner>) {
        match &self.lease {
            Lease::View(held) => debug_assert!(Rc::ptr_eq(held, view), "one list, one snapshot"),
            _ => self.lease = Lease::View(Rc::clone(view)),
        }
    }

    #[inline]
    pub(crate) fn push_raw(&mut self, host: *mut u8, len: usize) {
        self.total += len;
        let last = if self.spill.is_empty() {
            self.inline.0[..self.count].last_mut()
        } else {
            self.spill.last_mut()
        };
        if let Some(last) = last
            && last.iov_base.wrapping_byte_add(last.iov_len) == host.cast()
        {
            last.iov_len += len;
            return;
        }
        let segment = libc::iovec {
            iov_base: host.cast(),
            iov_len: len,
        };
        if self.spill.is_empty() && self.count < INLINE_SEGMENTS {
            self.inline.0[self.count] = segment;
        } else {
            self.push_spilled(segment);
        }
        self.count += 1;
    }

    #[cold]
    fn push_spilled(&mut self, segment: libc::iovec) {
        if self.spill.is_empty() {
            self.spill = SPILLS
                .with_borrow_mut(Vec::pop)
                .unwrap_or_else(|| Vec::with_capacity(SPILL_CAPACITY));
            self.spill.extend_from_slice(&self.inline.0);
        }
        self.spill.push(segment);
    }

    /// The whole of an own buffer as one segment; [`Segments::into_host`] gives it back.
    #[must_use]
    pub fn from_host(buffer: HostBuffer) -> Self {
        let mut list = Self::new();
        list.push_raw(buffer.as_ptr().cast_mut(), buffer.len());
        list.lease = Lease::Host(buffer);
        list
    }

    /// The buffer given to [`Segments::from_host`].
    #[must_use]
    pub fn into_host(mut self) -> Option<HostBuffer> {
        match std::mem::take(&mut self.lease) {
            Lease::Host(buffer) => Some(buffer),
            _ => None,
        }
    }

    /// Drops everything behind the first `len` bytes from the list. The memory stays leased.
    pub fn truncate(&mut self, len: usize) {
        if len >= self.total {
            return;
        }
        self.total = len;
        let count = self.count;
        let list = if self.spill.is_empty() {
            &mut self.inline.0[..count]
        } else {
            &mut self.spill[..]
        };
        let mut rest = len;
        let mut kept = 0;
        for segment in list {
            if rest == 0 {
                break;
            }
            segment.iov_len = segment.iov_len.min(rest);
            rest -= segment.iov_len;
            kept += 1;
        }
        self.count = kept;
        // An emptied spill would send `iovecs` to the inline ranges, of which none are in use then.
        self.spill.truncate(kept);
    }

    /// Drops the first `bytes` bytes from the list (what a short transfer has already moved). The memory stays leased.
    pub fn advance(&mut self, bytes: usize) {
        let mut rest = bytes.min(self.total);
        let count = self.count;
        let list = if self.spill.is_empty() {
            &mut self.inline.0[..count]
        } else {
            &mut self.spill[..]
        };
        let mut gone = 0;
        for segment in list.iter_mut() {
            let step = rest.min(segment.iov_len);
            segment.iov_base = segment.iov_base.wrapping_byte_add(step);
            segment.iov_len -= step;
            rest -= step;
            if segment.iov_len > 0 {
                break;
            }
            gone += 1;
        }
        self.total -= bytes.min(self.total);
        self.count -= gone;
        if self.spill.is_empty() {
            self.inline.0.copy_within(gone..count, 0);
        } else {
            self.spill.drain(..gone);
            if self.spill.is_empty() {
                self.count = 0;
            }
        }
    }

    /// Calls `each(pointer, length)` for the ranges of `skip..skip + len`.
    #[inline]
    fn walk(&self, skip: usize, len: usize, mut each: impl FnMut(*mut u8, usize)) {
        let (mut skip, mut left) = (skip, len);
        for segment in self.iovecs() {
            if left == 0 {
                return;
            }
            if skip >= segment.iov_len {
                skip -= segment.iov_len;
                continue;
            }
            let piece = left.min(segment.iov_len - skip);
            each(segment.iov_base.cast::<u8>().wrapping_add(skip), piece);
            left -= piece;
            skip = 0;
        }
    }

    /// Copies from the list, starting `skip` bytes into it, to `out`; returns how many bytes there were.
    pub fn copy_to_slice(&self, skip: usize, out: &mut [u8]) -> usize {
        let mut at = out.as_mut_ptr();
        let mut copied = 0;
        self.walk(skip, out.len(), |host, len| {
            // SAFETY: the lease keeps `host` readable for `len` bytes; the pieces add up to at most `out.len()`.
            unsafe { access::copy(at, host, len) };
            at = at.wrapping_add(len);
            copied += len;
        });
        copied
    }

    /// Copies `data` into the list, starting `skip` bytes into it; returns how many bytes fitted.
    pub fn copy_from_slice(&self, skip: usize, data: &[u8]) -> usize {
        let mut at = data.as_ptr();
        let mut copied = 0;
        self.walk(skip, data.len(), |host, len| {
            // SAFETY: the lease keeps `host` writable for `len` bytes (it was pushed with the right to write where the
            // request writes guest memory); the pieces add up to at most `data.len()`.
            unsafe { access::copy(host, at, len) };
            at = at.wrapping_add(len);
            copied += len;
        });
        copied
    }

    /// Whether the bytes from `skip` on begin with `data`; `false` if there are fewer.
    #[must_use]
    pub fn matches(&self, skip: usize, data: &[u8]) -> bool {
        let mut copy = [0; COMPARE_CHUNK];
        let mut at = skip;
        data.chunks(COMPARE_CHUNK).all(|piece| {
            let copied = self.copy_to_slice(at, &mut copy[..piece.len()]);
            at += copied;
            &copy[..copied] == piece
        })
    }

    /// Copies between the list and raw memory that the caller vouches for.
    ///
    /// # Safety
    /// `memory` must be readable (and for `TO_LIST == false` writable) for `self.len()` bytes and not overlap the list.
    #[inline]
    pub(crate) unsafe fn copy_raw<const TO_LIST: bool>(&self, memory: *mut u8) {
        let mut at = memory;
        self.walk(0, self.total, |host, len| {
            // SAFETY: the lease covers `host..host + len`, the caller covers `memory`; pieces add up to `self.len()`.
            unsafe {
                if TO_LIST {
                    access::copy(host, at, len);
                } else {
                    access::copy(at, host, len);
                }
            }
            at = at.wrapping_add(len);
        });
    }

    /// Copies the list to raw memory that the caller vouches for, claiming the lines from `ahead` on for the next copy.
    ///
    /// # Safety
    /// `memory` must be writable for `self.len()` bytes and not overlap the list. `ahead` may be any address.
    #[inline]
    pub(crate) unsafe fn copy_out_ahead(&self, memory: *mut u8, ahead: *const u8) {
        let (mut at, mut ahead) = (memory, ahead);
        self.walk(0, self.total, |host, len| {
            // SAFETY: the lease covers `host..host + len`, the caller covers `memory`; pieces add up to `self.len()`.
            unsafe { access::copy_ahead(at, host, len, ahead) };
            at = at.wrapping_add(len);
            ahead = ahead.wrapping_add(len);
        });
    }

    /// Writes zeroes over the whole list.
    pub fn zero(&self) {
        self.walk(0, self.total, |host, len| {
            // SAFETY: the lease keeps `host` writable for `len` bytes.
            unsafe { access::zero(host, len) };
        });
    }

    /// Brings the first `lines` cache lines of the first range closer, announcing writes.
    #[inline]
    pub fn prefetch_for_write(&self, lines: usize) {
        if let Some(first) = self.iovecs().first() {
            for line in 0..lines.min(first.iov_len.div_ceil(64)) {
                access::prefetch_write(first.iov_base.cast::<u8>().wrapping_add(line * 64));
            }
        }
    }

    /// Brings the first `lines` cache lines of the first range closer for reading.
    #[inline]
    pub fn prefetch(&self, lines: usize) {
        if let Some(first) = self.iovecs().first() {
            for line in 0..lines.min(first.iov_len.div_ceil(64)) {
                access::prefetch_read(first.iov_base.cast::<u8>().wrapping_add(line * 64));
            }
        }
    }
}

impl Drop for Segments {
    #[inline]
    fn drop(&mut self) {
        if self.spill.capacity() > 0 {
            let mut spill = std::mem::take(&mut self.spill);
            spill.clear();
            // During thread exit the pool may be gone; then the vector is simply freed.
            let _ = SPILLS.try_with(|pool| {
                let mut pool = pool.borrow_mut();
                if pool.len() < POOLED_SPILLS {
                    pool.push(spill);
                }
            });
        }
    }
}

#[cfg(test)]
mod tests;
