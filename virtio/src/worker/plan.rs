//! Requests that take more than one step: several ranges, or more data than goes at once.

use bdev::{Io, IoKind};
use guest_memory::{Access, Fault, MapView, Segments};

use crate::queue::Buffer;

/// Most bytes of one step of a transfer: long enough for any disk's best rate, short enough for others on the same reactor not to
/// notice when it is copied.
pub(super) const MAX_STEP: u64 = 4 << 20;
/// Most segments of one step: what a channel takes ([`bdev::Channel`]).
pub(super) const MAX_SEGMENTS: usize = 1024;
/// Most segments of one step in the end: buffers that cross borders of regions are more than one.
pub(super) const CROSSED: usize = 2 * MAX_SEGMENTS;
/// Plans kept for the next request that needs one.
const POOLED: usize = 64;

/// What is left to do of a request.
#[derive(Debug, Default)]
pub(super) struct Plan {
    /// What each step does; a transfer if it reads or writes.
    kind: Option<IoKind>,
    fua: bool,
    /// Ranges as (first block, blocks).
    ranges: Vec<(u64, u64)>,
    next: usize,
    transfer: Transfer,
}

/// What is left of a transfer.
#[derive(Debug, Default)]
struct Transfer {
    buffers: Vec<Buffer>,
    /// The buffer at which to go on, and how many of its bytes are through.
    at: usize,
    skip: u32,
    lba: u64,
    left: u64,
    block_shift: u32,
}

impl Plan {
    /// Several ranges.
    pub(super) fn set_ranges(
        &mut self,
        kind: IoKind,
        fua: bool,
        ranges: impl Iterator<Item = (u64, u64)>,
    ) {
        (self.kind, self.fua, self.next) = (Some(kind), fua, 0);
        self.ranges.clear();
        self.ranges.extend(ranges);
    }

    /// A transfer of `len` bytes, whole blocks, to or from `buffers` (taken; what comes back is empty), of which the first `skip`
    /// bytes are left out.
    pub(super) fn set_transfer(
        &mut self,
        (kind, fua): (IoKind, bool),
        (lba, len, block_shift): (u64, u64, u32),
        buffers: &mut Vec<Buffer>,
        skip: (usize, u32),
    ) {
        (self.kind, self.fua) = (Some(kind), fua);
        let transfer = &mut self.transfer;
        transfer.buffers.clear();
        std::mem::swap(&mut transfer.buffers, buffers);
        (transfer.at, transfer.skip) = skip;
        (transfer.lba, transfer.left, transfer.block_shift) = (lba, len, block_shift);
    }

    /// The next step, or `None` at the end.
    ///
    /// # Errors
    /// Memory that cannot be reached (the whole request has been checked in the same view, so this does not happen), or that lies in
    /// very many regions.
    pub(super) fn next(&mut self, view: &MapView) -> Result<Option<Io>, Fault> {
        match self.kind {
            Some(kind @ (IoKind::Read | IoKind::Write)) => self.transfer.next(kind, self.fua, view),
            Some(kind) => {
                let range = self.ranges.get(self.next).copied();
                self.next += 1;
                Ok(range.map(|(lba, blocks)| Io {
                    kind,
                    lba,
                    blocks,
                    segments: Segments::new(),
                    fua: self.fua,
                }))
            }
            None => Ok(None),
        }
    }
}

impl Transfer {
    fn next(&mut self, kind: IoKind, fua: bool, view: &MapView) -> Result<Option<Io>, Fault> {
        if self.left == 0 {
            return Ok(None);
        }
        let access = if kind == IoKind::Read {
            Access::WRITE
        } else {
            Access::READ
        };
        let block = 1u64 << self.block_shift;
        let most = self.left.min(MAX_STEP.max(block));
        let mut segments = Segments::new();
        let (mut at, mut skip, mut taken) = (self.at, self.skip, 0u64);
        while taken < most && (segments.count() < MAX_SEGMENTS || taken < block) {
            let Some(buffer) = self.buffers.get(at) else {
                break;
            };
            let rest = buffer.len.saturating_sub(skip);
            let piece = u64::from(rest).min(most - taken);
            let from = buffer.addr.wrapping_add(u64::from(skip));
            view.push(&mut segments, from, piece as usize, access)?;
            if segments.count() > CROSSED {
                return Err(Fault { iova: from });
            }
            taken += piece;
            if piece == u64::from(rest) {
                (at, skip) = (at + 1, 0);
            } else {
                skip = skip.saturating_add(u32::try_from(piece).unwrap_or(rest));
            }
        }
        let whole = taken & !(block - 1);
        if whole == 0 {
            // Fewer buffers than bytes: not what was checked.
            self.left = 0;
            return Ok(None);
        }
        segments.truncate(usize::try_from(whole).unwrap_or(usize::MAX));
        (self.at, self.skip) = self.back(at, skip, taken - whole);
        let (lba, blocks) = (self.lba, whole >> self.block_shift);
        self.lba = self.lba.wrapping_add(blocks);
        self.left -= whole;
        Ok(Some(Io {
            kind,
            lba,
            blocks,
            segments,
            fua,
        }))
    }

    /// The place `bytes` bytes before another one.
    fn back(&self, mut at: usize, mut skip: u32, mut bytes: u64) -> (usize, u32) {
        while bytes > u64::from(skip) {
            bytes -= u64::from(skip);
            let Some(before) = at.checked_sub(1) else {
                return (0, 0);
            };
            at = before;
            skip = self.buffers.get(at).map_or(0, |buffer| buffer.len);
        }
        (at, skip - u32::try_from(bytes).unwrap_or(skip))
    }
}

/// Plans that are not in use: a plan's vectors are worth keeping.
#[derive(Debug, Default)]
#[expect(
    clippy::vec_box,
    reason = "a request holds its plan as a pointer, and gives the same one back"
)]
pub(super) struct Plans(Vec<Box<Plan>>);

impl Plans {
    pub(super) fn take(&mut self) -> Box<Plan> {
        self.0.pop().unwrap_or_default()
    }

    #[cold]
    pub(super) fn give(&mut self, plan: Box<Plan>) {
        if self.0.len() < POOLED {
            self.0.push(plan);
        }
    }
}

#[cfg(test)]
mod tests;
