//! Where tails and heads are read: the doorbell page, or the guest's shadow doorbell buffer.

use std::sync::atomic::{Ordering, fence};

use guest_memory::{Access, MapView, SharedMemory, Window};

use crate::messages::ShadowDoorbells;

/// A doorbell held a value that the queue cannot have (asynchronous event "Invalid Doorbell Write Value", Base 2.0c, 5.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("doorbell of queue {qid} has the value {value}, which lies outside the queue")]
pub(crate) struct InvalidDoorbell {
    /// Whose.
    pub(crate) qid: u16,
    /// What it held.
    pub(crate) value: u32,
}

/// Offset of the tail doorbell of submission queue `qid` from the first doorbell (CAP.DSTRD is 0: PCIe Transport 1.0, 3.1.2).
#[inline]
pub(crate) fn tail_offset(qid: u16) -> usize {
    usize::from(qid) * 8
}

/// Offset of the head doorbell of completion queue `qid` from the first doorbell.
#[inline]
pub(crate) fn head_offset(qid: u16) -> usize {
    usize::from(qid) * 8 + 4
}

/// Bits 31:16 of a doorbell are reserved (PCIe Transport 1.0, 3.1.2.1): ignored.
const VALUE: u32 = 0xffff;

/// The shadow doorbell and EventIdx buffers, resolved.
#[derive(Debug)]
struct Shadow {
    place: ShadowDoorbells,
    /// `None` while the client has them unmapped.
    windows: Option<(Window, Window)>,
}

impl Shadow {
    fn remap(&mut self, view: &MapView, len: usize) {
        let resolve = |iova| view.window(iova, len, Access::READ | Access::WRITE).ok();
        self.windows = resolve(self.place.doorbells).zip(resolve(self.place.event_indexes));
    }
}

/// All doorbells of a controller.
#[derive(Debug)]
pub(crate) struct Doorbells {
    page: SharedMemory,
    shadow: Option<Shadow>,
}

impl Doorbells {
    /// The doorbells in `page`: what lies in BAR0 from 1000h on.
    pub(crate) fn new(page: SharedMemory) -> Self {
        Self { page, shadow: None }
    }

    /// Starts or stops using shadow doorbells for I/O queues (Base 2.0c, 5.8; the admin queue never has them).
    pub(crate) fn set_shadow(&mut self, view: &MapView, place: Option<ShadowDoorbells>) {
        self.shadow = place.map(|place| Shadow {
            place,
            windows: None,
        });
        self.remap(view);
    }

    /// Takes the place of the shadow buffers from a new map.
    pub(crate) fn remap(&mut self, view: &MapView) {
        let len = self.page.len().min(guest_memory::PAGE_SIZE);
        if let Some(shadow) = &mut self.shadow {
            shadow.remap(view, len);
        }
    }

    /// Whether shadow doorbells are in use.
    #[inline]
    pub(crate) fn has_shadow(&self) -> bool {
        self.shadow.is_some()
    }

    /// Whether shadow doorbells are in use but not mapped: no I/O queue's doorbell can be known.
    #[inline]
    pub(crate) fn is_parked(&self) -> bool {
        self.shadow
            .as_ref()
            .is_some_and(|shadow| shadow.windows.is_none())
    }

    #[inline]
    fn load(&self, qid: u16, offset: usize) -> Option<u32> {
        let value = match &self.shadow {
            Some(shadow) if qid != 0 => shadow.windows.as_ref()?.0.load_u32(offset)?,
            _ => self.page.load_u32(offset),
        };
        Some(value & VALUE)
    }

    /// The tail of submission queue `qid`, loaded with acquire ordering: the entries before it are visible. `None`
    /// while [`Doorbells::is_parked`].
    #[inline]
    pub(crate) fn tail(&self, qid: u16) -> Option<u32> {
        self.load(qid, tail_offset(qid))
    }

    /// The head of completion queue `qid`, loaded with acquire ordering. `None` while [`Doorbells::is_parked`].
    #[inline]
    pub(crate) fn head(&self, qid: u16) -> Option<u32> {
        self.load(qid, head_offset(qid))
    }

    /// A submission queue comes into being: whatever a former queue of this number left in its doorbell is gone.
    pub(crate) fn clear_tail(&self, qid: u16) {
        self.page.store_u32(tail_offset(qid), 0);
        self.store_shadow(qid, tail_offset(qid), 0);
    }

    /// As [`Doorbells::clear_tail`] for a completion queue.
    pub(crate) fn clear_head(&self, qid: u16) {
        self.page.store_u32(head_offset(qid), 0);
        self.store_shadow(qid, head_offset(qid), 0);
    }

    /// Puts the value that a submission queue has into its doorbell when shadow doorbells come into use or go out of it:
    /// what the new place held before means nothing.
    pub(crate) fn adopt_tail(&self, qid: u16, tail: u32) {
        self.adopt(qid, tail_offset(qid), tail);
    }

    /// As [`Doorbells::adopt_tail`] for a completion queue.
    pub(crate) fn adopt_head(&self, qid: u16, head: u32) {
        self.adopt(qid, head_offset(qid), head);
    }

    fn adopt(&self, qid: u16, offset: usize, value: u32) {
        if self.has_shadow() {
            self.store_shadow(qid, offset, value);
        } else {
            self.page.store_u32(offset, value);
        }
    }

    fn store_shadow(&self, qid: u16, offset: usize, value: u32) {
        if let Some(Shadow {
            windows: Some((doorbells, indexes)),
            ..
        }) = &self.shadow
            && qid != 0
        {
            let _ = indexes.store_u32(offset, value.wrapping_sub(1) & VALUE);
            let _ = doorbells.store_u32(offset, value & VALUE);
        }
    }

    fn store_event_index(&self, offset: usize, value: u32) {
        if let Some(Shadow {
            windows: Some((_, indexes)),
            ..
        }) = &self.shadow
        {
            let _ = indexes.store_u32(offset, value & VALUE);
        }
    }

    /// Asks the guest not to ring when it moves the tail on from `tail`: we look by ourselves. A guest rings when its
    /// tail passes EventIdx, so a value just behind the tail asks for silence.
    pub(crate) fn hush(&self, qid: u16, tail: u32) {
        self.store_event_index(tail_offset(qid), tail.wrapping_sub(1));
    }

    /// As [`Doorbells::hush`] for a completion queue's head.
    pub(crate) fn hush_head(&self, qid: u16, head: u32) {
        self.store_event_index(head_offset(qid), head.wrapping_sub(1));
    }

    /// Asks the guest to ring (write the trapped doorbell) when it moves the tail on from `tail`. After all queues are
    /// armed, call [`Doorbells::settle`] and look at every tail once more before sleeping.
    pub(crate) fn arm(&self, qid: u16, tail: u32) {
        self.store_event_index(tail_offset(qid), tail);
    }

    /// Orders EventIdx stores before the loads of tails that follow. The guest stores its tail, has a full barrier, then
    /// loads EventIdx: so either it sees the request to ring or we see its tail.
    pub(crate) fn settle(&self) {
        fence(Ordering::SeqCst);
    }
}
