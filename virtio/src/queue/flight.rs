//! What is in flight: which chains were taken, in which order, and what is kept until they can be used.

use std::collections::VecDeque;
use std::sync::Arc;

use super::{Buffer, Chain, DirtyLog};

/// How far a chain has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// The driver's.
    Free,
    /// In flight in the process before this one, not yet handed out again.
    Recovered,
    /// Handed out.
    Taken,
    /// Put, but not yet used: those before it are not (IN_ORDER), or the ring is out of memory.
    Ended,
}

#[derive(Clone, Copy, Debug)]
struct Slot {
    stage: Stage,
    /// Once ended.
    written: u32,
}

/// What is to be done with a chain that was put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Put {
    /// Nothing: it was not in flight.
    Unknown,
    /// It is used now.
    Use,
    /// It waits with others; ask [`Flight::next_in_order`] for all that may be used.
    InOrder,
}

/// All chains of a ring by slot: the head descriptor in a split ring, a number of our own in a packed one.
#[derive(Debug)]
pub(super) struct Flight {
    slots: Box<[Slot]>,
    /// Taken and not put.
    taken: u16,
    order: Option<VecDeque<u16>>,
    /// Ended while the ring was out of memory, in the order in which they are to be used.
    parked: VecDeque<u16>,
    log: Option<Log>,
}

/// With a dirty log: what each chain in flight may have written.
#[derive(Debug)]
struct Log {
    pages: Arc<DirtyLog>,
    writable: Vec<Vec<Buffer>>,
}

impl Flight {
    /// Nothing in flight in a ring of `size` slots.
    pub(super) fn new(size: u16, in_order: bool, log: Option<Arc<DirtyLog>>) -> Self {
        let free = Slot {
            stage: Stage::Free,
            written: 0,
        };
        let mut flight = Self {
            slots: vec![free; size.into()].into(),
            taken: 0,
            order: in_order.then(|| VecDeque::with_capacity(size.into())),
            parked: VecDeque::new(),
            log: None,
        };
        flight.set_log(log);
        flight
    }

    /// Taken and not put.
    pub(super) fn taken(&self) -> u16 {
        self.taken
    }

    /// Whether the slot's chain is the driver's.
    #[inline]
    pub(super) fn is_free(&self, slot: u16) -> bool {
        self.slots
            .get(usize::from(slot))
            .is_some_and(|slot| slot.stage == Stage::Free)
    }

    /// A chain was in flight before this process began: it is not the driver's, and is yet to begin.
    pub(super) fn recover(&mut self, slot: u16) {
        if let Some(slot) = self.slots.get_mut(usize::from(slot)) {
            slot.stage = Stage::Recovered;
        }
    }

    /// A chain has been taken.
    #[inline]
    pub(super) fn begin(&mut self, slot: u16, chain: &Chain) {
        if let Some(slot) = self.slots.get_mut(usize::from(slot)) {
            slot.stage = Stage::Taken;
            self.taken += 1;
        }
        if let Some(order) = &mut self.order {
            order.push_back(slot);
        }
        if let Some(log) = &mut self.log
            && let Some(writable) = log.writable.get_mut(usize::from(slot))
        {
            writable.clear();
            writable.extend_from_slice(&chain.writable);
        }
    }

    /// The device has ended a chain.
    #[inline]
    pub(super) fn end(&mut self, slot: u16, written: u32) -> Put {
        let Some(state) = self
            .slots
            .get_mut(usize::from(slot))
            .filter(|state| state.stage == Stage::Taken)
        else {
            return Put::Unknown;
        };
        state.stage = Stage::Ended;
        state.written = written;
        self.taken -= 1;
        if let Some(log) = &self.log {
            for buffer in log.writable.get(usize::from(slot)).into_iter().flatten() {
                log.pages.mark(buffer.addr, buffer.len.into());
            }
        }
        if self.order.is_some() {
            Put::InOrder
        } else {
            Put::Use
        }
    }

    /// The next chain that may be used with IN_ORDER: the oldest one, if it has ended.
    #[inline]
    pub(super) fn next_in_order(&mut self) -> Option<u16> {
        let order = self.order.as_mut()?;
        let slot = *order.front()?;
        if self.slots.get(usize::from(slot))?.stage != Stage::Ended {
            return None;
        }
        order.pop_front()
    }

    /// The chain is used: it is the driver's again. How many bytes were written.
    #[inline]
    pub(super) fn release(&mut self, slot: u16) -> u32 {
        self.slots.get_mut(usize::from(slot)).map_or(0, |slot| {
            slot.stage = Stage::Free;
            slot.written
        })
    }

    /// Keeps an ended chain until the ring is in memory again.
    #[cold]
    pub(super) fn park(&mut self, slot: u16) {
        self.parked.push_back(slot);
    }

    /// What was parked first.
    pub(super) fn unpark(&mut self) -> Option<u16> {
        self.parked.pop_front()
    }

    /// The log of writes.
    #[inline]
    pub(super) fn log(&self) -> Option<&DirtyLog> {
        self.log.as_ref().map(|log| &*log.pages)
    }

    pub(super) fn set_log(&mut self, log: Option<Arc<DirtyLog>>) {
        self.log = log.map(|pages| Log {
            pages,
            writable: vec![Vec::new(); self.slots.len()],
        });
    }
}
