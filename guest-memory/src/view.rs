//! One shard's eyes on a client's memory: look-up, values, rings, scatter lists.
#![allow(unsafe_code, reason = "turns checked addresses into accesses")]

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;

use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::access;
use crate::map::DmaMap;
use crate::mapping::Access;
use crate::segments::{Lease, Segments};

/// The device cannot reach a guest-physical range: unmapped, mapped without a file descriptor, or without the right.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("guest memory at {iova:#x} cannot be reached by the device")]
pub struct Fault {
    /// First address that could not be reached.
    pub iova: u64,
}

/// The last region that a look-up hit, flattened to what a hit needs.
#[derive(Clone, Copy, Debug)]
struct Hit {
    iova: u64,
    len: u64,
    host: *mut u8,
    access: Access,
}

const NO_HIT: Hit = Hit {
    iova: 0,
    len: 0,
    host: std::ptr::null_mut(),
    access: Access::empty(),
};

#[derive(Debug)]
pub(crate) struct ViewInner {
    map: Arc<DmaMap>,
    last: Cell<Hit>,
}

impl ViewInner {
    /// Address of `iova` in our address space and how many bytes from there are contiguous in its region.
    #[inline]
    fn translate(&self, iova: u64, access: Access) -> Result<(*mut u8, u64), Fault> {
        let hit = self.last.get();
        let offset = iova.wrapping_sub(hit.iova);
        if offset < hit.len && hit.access.contains(access) {
            // The region's length fits the address space: it is mapped.
            return Ok((hit.host.wrapping_add(offset as usize), hit.len - offset));
        }
        self.translate_slow(iova, access)
    }

    #[cold]
    fn translate_slow(&self, iova: u64, access: Access) -> Result<(*mut u8, u64), Fault> {
        let fault = Fault { iova };
        let region = self.map.find(iova).ok_or(fault)?;
        let backing = region.backing.as_ref().ok_or(fault)?;
        if !region.access.contains(access) {
            return Err(fault);
        }
        let host = backing.start();
        let len = region.len.min(backing.len() as u64);
        self.last.set(Hit {
            iova: region.iova,
            len,
            host,
            access: region.access,
        });
        let offset = iova - region.iova;
        if offset >= len {
            return Err(fault);
        }
        Ok((host.wrapping_add(offset as usize), len - offset))
    }
}

/// A thread's view of one [`DmaMap`] snapshot, with the last region cached.
///
/// Cloning and leasing cost a non-atomic increment. Replacing the snapshot does not disturb leases taken before.
#[derive(Clone, Debug)]
pub struct MapView {
    inner: Rc<ViewInner>,
}

impl MapView {
    /// A view of `map`.
    #[must_use]
    pub fn new(map: Arc<DmaMap>) -> Self {
        Self {
            inner: Rc::new(ViewInner {
                map,
                last: Cell::new(NO_HIT),
            }),
        }
    }

    /// The snapshot that this view shows.
    #[must_use]
    pub fn map(&self) -> &Arc<DmaMap> {
        &self.inner.map
    }

    /// Number of the snapshot.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.inner.map.epoch()
    }

    /// Whether no [`Segments`], [`Window`] or clone of this view is alive.
    #[must_use]
    pub fn is_unleased(&self) -> bool {
        Rc::strong_count(&self.inner) == 1
    }

    /// Calls `each` for every contiguous piece of `iova..iova + len`.
    #[inline(always)]
    fn pieces(
        &self,
        mut iova: u64,
        mut len: usize,
        access: Access,
        mut each: impl FnMut(*mut u8, usize),
    ) -> Result<(), Fault> {
        while len > 0 {
            let (host, contiguous) = self.inner.translate(iova, access)?;
            let piece = len.min(usize::try_from(contiguous).unwrap_or(usize::MAX));
            each(host, piece);
            len -= piece;
            if len > 0 {
                iova = iova.checked_add(piece as u64).ok_or(Fault { iova })?;
            }
        }
        Ok(())
    }

    /// Copies a value out of guest memory.
    ///
    /// # Errors
    /// [`Fault`] if any byte cannot be read.
    #[inline]
    pub fn read<T: FromBytes + IntoBytes + Immutable>(&self, iova: u64) -> Result<T, Fault> {
        let mut value = T::new_zeroed();
        self.read_slice(iova, value.as_mut_bytes())?;
        Ok(value)
    }

    /// Reads `N` words of 8 bytes, each once if they are aligned: as [`MapView::read`] without the detour over memory of ours.
    ///
    /// # Errors
    /// [`Fault`] if any byte cannot be read.
    #[inline]
    pub fn read_words<const N: usize>(&self, iova: u64) -> Result<[u64; N], Fault> {
        let (host, contiguous) = self.inner.translate(iova, Access::READ)?;
        if contiguous >= 8 * N as u64 && (host as usize).is_multiple_of(8) {
            // SAFETY: `translate` returned that many readable bytes, alive while `self` holds the map; they are aligned.
            return Ok(unsafe { access::read_words(host) });
        }
        self.read_torn_words(iova)
    }

    #[cold]
    fn read_torn_words<const N: usize>(&self, iova: u64) -> Result<[u64; N], Fault> {
        let mut words = [0; N];
        self.read_slice(iova, words.as_mut_bytes())?;
        Ok(words)
    }

    /// Copies a value into guest memory.
    ///
    /// # Errors
    /// [`Fault`] if any byte cannot be written; bytes before it may have been.
    #[inline]
    pub fn write<T: IntoBytes + Immutable>(&self, iova: u64, value: &T) -> Result<(), Fault> {
        self.write_slice(iova, value.as_bytes())
    }

    /// Fills `out` from guest memory.
    ///
    /// # Errors
    /// [`Fault`] if any byte cannot be read.
    #[inline]
    pub fn read_slice(&self, iova: u64, out: &mut [u8]) -> Result<(), Fault> {
        let mut at = out.as_mut_ptr();
        self.pieces(iova, out.len(), Access::READ, |host, len| {
            // SAFETY: `translate` returned `len` readable bytes, alive while `self` holds the map; the pieces
            // together are exactly `out`, which is borrowed mutably.
            unsafe { access::copy(at, host, len) };
            at = at.wrapping_add(len);
        })
    }

    /// Copies `data` into guest memory.
    ///
    /// # Errors
    /// [`Fault`] if any byte cannot be written; bytes before it may have been.
    #[inline]
    pub fn write_slice(&self, iova: u64, data: &[u8]) -> Result<(), Fault> {
        let mut at = data.as_ptr();
        self.pieces(iova, data.len(), Access::WRITE, |host, len| {
            // SAFETY: `translate` returned `len` writable bytes, alive while `self` holds the map; the pieces
            // together are exactly `data`.
            unsafe { access::copy(host, at, len) };
            at = at.wrapping_add(len);
        })
    }

    /// Whether `iova..iova + len` can be reached, without touching it.
    ///
    /// # Errors
    /// [`Fault`] if any byte lacks the right.
    #[inline]
    pub fn check(&self, iova: u64, len: usize, access: Access) -> Result<(), Fault> {
        self.pieces(iova, len, access, |_, _| ())
    }

    /// Adds `iova..iova + len` to `segments`, merging with its last segment where contiguous, and ties `segments` to this
    /// view's snapshot.
    ///
    /// # Errors
    /// [`Fault`] if any byte lacks the right; `segments` may have grown and is to be dropped.
    #[inline]
    pub fn push(
        &self,
        segments: &mut Segments,
        iova: u64,
        len: usize,
        access: Access,
    ) -> Result<(), Fault> {
        segments.lease_view(&self.inner);
        self.pieces(iova, len, access, |host, len| segments.push_raw(host, len))
    }

    /// A ring at `iova..iova + len`, resolved once. It may lie across regions.
    ///
    /// # Errors
    /// [`Fault`] if any byte lacks the right, if the ring does not lie at a multiple of 16 in our memory, or if a region border
    /// does not lie at a multiple of 64 both in the ring and in our memory.
    pub fn window(&self, iova: u64, len: usize, access: Access) -> Result<Window, Fault> {
        // Every element of an NVMe ring is a power of two in size, at most 64 bytes, and aligned to it.
        self.resolve(iova, len, access, 16, 64)
    }

    /// As [`MapView::window`] for a ring that is only accessed in pieces of at most `align` bytes (a power of two) at multiples
    /// of their size: it must begin, and be crossed by region borders, at multiples of `align`.
    ///
    /// # Errors
    /// [`Fault`] if any byte lacks the right, or if the ring's start or a region border is not so aligned in our memory.
    pub fn window_aligned(
        &self,
        iova: u64,
        len: usize,
        access: Access,
        align: usize,
    ) -> Result<Window, Fault> {
        self.resolve(iova, len, access, align, align)
    }

    fn resolve(
        &self,
        iova: u64,
        len: usize,
        access: Access,
        start_align: usize,
        border_align: usize,
    ) -> Result<Window, Fault> {
        let mut pieces = Vec::with_capacity(1);
        let mut start = 0usize;
        self.pieces(iova, len, access, |host, len| {
            pieces.push(Piece { start, host, len });
            start += len;
        })?;
        // A region border inside an element would tear it, and a region that lies askew would misalign all elements behind the
        // border.
        let torn = pieces
            .iter()
            .any(|p| p.start > 0 && !(p.host as usize | p.start).is_multiple_of(border_align));
        let misaligned = pieces
            .first()
            .is_some_and(|p| !(p.host as usize).is_multiple_of(start_align));
        if torn || misaligned || pieces.is_empty() {
            return Err(Fault { iova });
        }
        let first = pieces.remove(0);
        Ok(Window {
            first,
            more: pieces,
            len,
            _lease: Lease::View(Rc::clone(&self.inner)),
        })
    }

    /// Brings the line at `iova` closer if it lies in the region that was accessed last; a hint otherwise ignored.
    #[inline]
    pub fn prefetch(&self, iova: u64) {
        let hit = self.inner.last.get();
        let offset = iova.wrapping_sub(hit.iova);
        if offset < hit.len {
            access::prefetch_read(hit.host.wrapping_add(offset as usize));
        }
    }
}

#[derive(Debug, Clone, Copy)]
struct Piece {
    start: usize,
    host: *mut u8,
    len: usize,
}

/// A ring in guest memory, held mapped while this exists. Offsets are in bytes from its start; an access outside answers
/// `None`/`false` and touches nothing.
#[derive(Debug)]
pub struct Window {
    first: Piece,
    /// Further pieces where the ring crosses regions; almost always empty.
    more: Vec<Piece>,
    len: usize,
    _lease: Lease,
}

impl Window {
    /// Length in bytes.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "a window is never empty")]
    pub fn len(&self) -> usize {
        self.len
    }

    #[inline]
    fn at(&self, offset: usize, size: usize) -> Option<*mut u8> {
        if offset.checked_add(size)? <= self.first.len {
            return Some(self.first.host.wrapping_add(offset));
        }
        self.at_more(offset, size)
    }

    #[cold]
    fn at_more(&self, offset: usize, size: usize) -> Option<*mut u8> {
        self.more.iter().find_map(|piece| {
            let inside = offset.checked_sub(piece.start)?;
            (inside.checked_add(size)? <= piece.len).then(|| piece.host.wrapping_add(inside))
        })
    }

    /// As `at`, for an atomic access.
    #[inline]
    fn aligned(&self, offset: usize, size: usize) -> Option<*mut u8> {
        self.at(offset, size)
            .filter(|host| (*host as usize).is_multiple_of(size))
    }

    /// Copies a value out.
    #[inline]
    #[must_use]
    pub fn read<T: FromBytes + IntoBytes>(&self, offset: usize) -> Option<T> {
        let host = self.at(offset, size_of::<T>())?;
        let mut value = T::new_zeroed();
        // SAFETY: `at` checked that `size_of::<T>()` bytes are inside the leased range.
        unsafe { access::copy(value.as_mut_bytes().as_mut_ptr(), host, size_of::<T>()) };
        Some(value)
    }

    /// Reads an entry of `N` words of 8 bytes at an 8-aligned offset, each word once: what [`Window::read`] does, but straight
    /// into registers.
    #[inline(always)]
    #[must_use]
    pub fn read_words<const N: usize>(&self, offset: usize) -> Option<[u64; N]> {
        let host = self
            .at(offset, N * 8)
            .filter(|host| (*host as usize).is_multiple_of(8))?;
        // SAFETY: `at` checked the leased range; it is aligned.
        Some(unsafe { access::read_words(host) })
    }

    /// Copies a value in (plain stores, no ordering). `false` if out of range.
    #[inline]
    #[must_use]
    pub fn write<T: IntoBytes + Immutable>(&self, offset: usize, value: &T) -> bool {
        let Some(host) = self.at(offset, size_of::<T>()) else {
            return false;
        };
        // SAFETY: `at` checked that `size_of::<T>()` bytes are inside the leased range.
        unsafe { access::copy(host, value.as_bytes().as_ptr(), size_of::<T>()) };
        true
    }

    /// Loads a 2-aligned `u16` with acquire ordering; `None` if out of range or unaligned.
    #[inline]
    #[must_use]
    pub fn load_u16(&self, offset: usize) -> Option<u16> {
        let host = self.aligned(offset, 2)?;
        // SAFETY: inside the leased range, and aligned.
        Some(unsafe { access::load_u16_acquire(host) })
    }

    /// Stores a 2-aligned `u16` with release ordering. `false` if out of range or unaligned.
    #[inline]
    #[must_use]
    pub fn store_u16(&self, offset: usize, value: u16) -> bool {
        let Some(host) = self.aligned(offset, 2) else {
            return false;
        };
        // SAFETY: inside the leased range, and aligned.
        unsafe { access::store_u16_release(host, value) };
        true
    }

    /// Loads a 4-aligned `u32` with acquire ordering; `None` if out of range or unaligned.
    #[inline]
    #[must_use]
    pub fn load_u32(&self, offset: usize) -> Option<u32> {
        let host = self.aligned(offset, 4)?;
        // SAFETY: inside the leased range, and aligned.
        Some(unsafe { access::load_u32_acquire(host) })
    }

    /// Stores a 4-aligned `u32` with release ordering. `false` if out of range or unaligned.
    #[inline]
    #[must_use]
    pub fn store_u32(&self, offset: usize, value: u32) -> bool {
        let Some(host) = self.aligned(offset, 4) else {
            return false;
        };
        // SAFETY: inside the leased range, and aligned.
        unsafe { access::store_u32_release(host, value) };
        true
    }

    /// Loads a 8-aligned `u64` with acquire ordering; `None` if out of range or unaligned.
    #[inline]
    #[must_use]
    pub fn load_u64(&self, offset: usize) -> Option<u64> {
        let host = self.aligned(offset, 8)?;
        // SAFETY: inside the leased range, and aligned.
        Some(unsafe { access::load_u64_acquire(host) })
    }

    /// Stores a 8-aligned `u64` with release ordering. `false` if out of range or unaligned.
    #[inline]
    #[must_use]
    pub fn store_u64(&self, offset: usize, value: u64) -> bool {
        let Some(host) = self.aligned(offset, 8) else {
            return false;
        };
        // SAFETY: inside the leased range, and aligned.
        unsafe { access::store_u64_release(host, value) };
        true
    }

    /// Publishes a 16-byte entry (an NVMe CQE) at a 16-aligned offset: whoever sees its upper half sees all of it and every
    /// store before. `false` if out of range.
    #[inline]
    #[must_use]
    pub fn publish_16(&self, offset: usize, value: [u64; 2]) -> bool {
        let Some(host) = self.aligned(offset, 16) else {
            return false;
        };
        // SAFETY: inside the leased range, and aligned.
        unsafe { access::publish_16(host, value) };
        true
    }

    /// Brings the line at `offset` closer; nothing happens out of range.
    #[inline]
    pub fn prefetch(&self, offset: usize) {
        if let Some(host) = self.at(offset, 1) {
            access::prefetch_read(host);
        }
    }
}

#[cfg(test)]
mod tests;
