//! Submission and completion queues as rings in guest memory (Base 2.0c, 3.3.1).
//!
//! Both kinds serve the admin queue and I/O queues alike. A queue owns its indexes; where its memory lies is resolved once
//! into a [`Window`] and again when the client's map changes. While the map lacks the ring the queue is *parked*:
//! nothing is fetched or posted, nothing is lost, and it goes on when the ring is mapped again.

mod doorbells;

pub(crate) use doorbells::{Doorbells, InvalidDoorbell};
use guest_memory::{Access, Fault, MapView, Window};
use nvme_spec::{Cqe, Sqe, Status};
use zerocopy::transmute;

/// Bytes of a submission queue entry (CC.IOSQES is 6, the only size the NVM command set knows).
const SQE_SIZE: usize = size_of::<Sqe>();
/// Bytes of a completion queue entry (CC.IOCQES is 4).
const CQE_SIZE: usize = size_of::<Cqe>();

/// Why a queue cannot be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum QueueError {
    /// Fewer than 2 or more than 65 536 entries.
    #[error("a queue has 2 to 65536 entries")]
    Size,
    /// The ring is not in memory that the client has mapped.
    #[error(transparent)]
    Unreachable(#[from] Fault),
}

impl QueueError {
    /// What the create command ends with.
    pub(crate) fn status(self) -> Status {
        match self {
            Self::Size => Status::INVALID_QUEUE_SIZE,
            // No code of the table speaks of an address that does not exist; PRP1 is the field at fault.
            Self::Unreachable(_) => Status::INVALID_FIELD,
        }
        .with_dnr(true)
    }
}

fn check_size(entries: u32) -> Result<(), QueueError> {
    if (2..=1 << 16).contains(&entries) {
        Ok(())
    } else {
        Err(QueueError::Size)
    }
}

/// `index + 1` in a ring.
#[inline]
fn next(index: u32, entries: u32) -> u32 {
    let next = index + 1;
    if next == entries { 0 } else { next }
}

/// How many steps lead from `from` to `to` in a ring; both are below `entries`.
#[inline]
fn distance(from: u32, to: u32, entries: u32) -> u32 {
    if to >= from {
        to - from
    } else {
        to + entries - from
    }
}

/// A submission queue: the guest writes entries and the tail, we take them and tell the head in completions.
#[derive(Debug)]
pub(crate) struct SubmissionQueue {
    qid: u16,
    base: u64,
    entries: u32,
    head: u32,
    /// The last valid value of the tail doorbell.
    tail: u32,
    /// The last invalid one: reported once, ignored until it changes.
    refused: Option<u32>,
    ring: Option<Window>,
}

impl SubmissionQueue {
    /// A new, empty queue of `entries` entries at the guest-physical address `base`.
    ///
    /// # Errors
    /// See [`QueueError`].
    pub(crate) fn new(
        view: &MapView,
        qid: u16,
        base: u64,
        entries: u32,
    ) -> Result<Self, QueueError> {
        check_size(entries)?;
        let mut queue = Self {
            qid,
            base,
            entries,
            head: 0,
            tail: 0,
            refused: None,
            ring: None,
        };
        queue.ring = Some(queue.resolve(view)?);
        Ok(queue)
    }

    fn resolve(&self, view: &MapView) -> Result<Window, Fault> {
        view.window(self.base, self.entries as usize * SQE_SIZE, Access::READ)
    }

    /// Takes the ring's place from a new map; `false` if the queue is parked now.
    pub(crate) fn remap(&mut self, view: &MapView) -> bool {
        self.ring = self.resolve(view).ok();
        self.ring.is_some()
    }

    /// Identifier.
    #[inline]
    pub(crate) fn qid(&self) -> u16 {
        self.qid
    }

    /// Size in entries.
    pub(crate) fn entries(&self) -> u32 {
        self.entries
    }

    /// Index of the next entry to take: what completions report as SQHD.
    #[inline]
    pub(crate) fn head(&self) -> u16 {
        (self.head & 0xffff) as u16
    }

    /// The last valid tail.
    pub(crate) fn tail(&self) -> u32 {
        self.tail
    }

    /// How far the tail has moved on from `from`.
    pub(crate) fn distance_from(&self, from: u32) -> u32 {
        distance(from, self.tail, self.entries)
    }

    /// Whether the ring is not mapped at the moment.
    pub(crate) fn is_parked(&self) -> bool {
        self.ring.is_none()
    }

    /// Entries known to wait, by the last look at the doorbell.
    #[inline]
    pub(crate) fn waiting(&self) -> u32 {
        distance(self.head, self.tail, self.entries)
    }

    /// Looks at the tail doorbell; answers how many entries wait.
    ///
    /// # Errors
    /// [`InvalidDoorbell`], once for each value outside the queue; the last valid tail stays.
    #[inline]
    pub(crate) fn look(&mut self, doorbells: &Doorbells) -> Result<u32, InvalidDoorbell> {
        if let Some(tail) = doorbells.tail(self.qid)
            && tail != self.tail
        {
            if tail >= self.entries {
                return self.refuse(tail);
            }
            self.tail = tail;
            self.refused = None;
        }
        Ok(self.waiting())
    }

    #[cold]
    fn refuse(&mut self, value: u32) -> Result<u32, InvalidDoorbell> {
        if self.refused.replace(value) == Some(value) {
            return Ok(self.waiting());
        }
        Err(InvalidDoorbell {
            qid: self.qid,
            value,
        })
    }

    /// Takes the next entry, by value; `None` if none is known to wait or the queue is parked.
    #[inline(always)]
    pub(crate) fn pop(&mut self) -> Option<Sqe> {
        if self.head == self.tail {
            return None;
        }
        let ring = self.ring.as_ref()?;
        let words: [u64; SQE_SIZE / 8] = ring.read_words(self.head as usize * SQE_SIZE)?;
        self.head = next(self.head, self.entries);
        Some(transmute!(words))
    }

    /// Reads an entry that still waits, `ahead` places behind the next one.
    pub(crate) fn peek(&self, ahead: u32) -> Option<Sqe> {
        if ahead >= self.waiting() {
            return None;
        }
        let index = (self.head + ahead) % self.entries;
        self.ring.as_ref()?.read(index as usize * SQE_SIZE)
    }

    /// Brings the next entry closer, whether it is there yet or not.
    #[inline]
    pub(crate) fn prefetch(&self) {
        if let Some(ring) = &self.ring {
            ring.prefetch(self.head as usize * SQE_SIZE);
        }
    }
}

/// A completion queue: we write entries, the guest tells by its head doorbell what it has consumed.
///
/// A place is reserved *before* a command is taken, so that a completion always finds one.
#[derive(Debug)]
pub(crate) struct CompletionQueue {
    qid: u16,
    base: u64,
    entries: u32,
    /// The last valid value of the head doorbell.
    head: u32,
    tail: u32,
    phase: bool,
    /// Places neither occupied nor reserved. One of the ring always stays empty.
    room: u32,
    refused: Option<u32>,
    ring: Option<Window>,
}

impl CompletionQueue {
    /// A new, empty queue of `entries` entries at the guest-physical address `base`.
    ///
    /// # Errors
    /// See [`QueueError`].
    pub(crate) fn new(
        view: &MapView,
        qid: u16,
        base: u64,
        entries: u32,
    ) -> Result<Self, QueueError> {
        check_size(entries)?;
        let mut queue = Self {
            qid,
            base,
            entries,
            head: 0,
            tail: 0,
            phase: true,
            room: entries - 1,
            refused: None,
            ring: None,
        };
        queue.ring = Some(queue.resolve(view)?);
        Ok(queue)
    }

    fn resolve(&self, view: &MapView) -> Result<Window, Fault> {
        view.window(self.base, self.entries as usize * CQE_SIZE, Access::WRITE)
    }

    /// Takes the ring's place from a new map; `false` if the queue is parked now.
    pub(crate) fn remap(&mut self, view: &MapView) -> bool {
        self.ring = self.resolve(view).ok();
        self.ring.is_some()
    }

    /// Identifier.
    #[inline]
    pub(crate) fn qid(&self) -> u16 {
        self.qid
    }

    /// Size in entries.
    pub(crate) fn entries(&self) -> u32 {
        self.entries
    }

    /// Whether the ring is not mapped at the moment.
    #[inline]
    pub(crate) fn is_parked(&self) -> bool {
        self.ring.is_none()
    }

    /// The last valid head.
    pub(crate) fn head(&self) -> u32 {
        self.head
    }

    /// How far the head has moved on from `from`.
    pub(crate) fn distance_from(&self, from: u32) -> u32 {
        distance(from, self.head, self.entries)
    }

    /// Whether entries wait for the guest, by the last look at its doorbell.
    pub(crate) fn is_occupied(&self) -> bool {
        self.head != self.tail
    }

    /// Places that [`CompletionQueue::reserve`] would give, by the last look at the doorbell.
    #[cfg(test)]
    pub(crate) fn room(&self) -> u32 {
        self.room
    }

    /// Looks at the head doorbell.
    ///
    /// # Errors
    /// [`InvalidDoorbell`], once for each value that is outside the queue or consumes what was never posted; the last
    /// valid head stays.
    #[inline]
    pub(crate) fn look(&mut self, doorbells: &Doorbells) -> Result<(), InvalidDoorbell> {
        let Some(head) = doorbells.head(self.qid).filter(|head| *head != self.head) else {
            return Ok(());
        };
        let occupied = distance(self.head, self.tail, self.entries);
        if head >= self.entries || distance(self.head, head, self.entries) > occupied {
            return self.refuse(head);
        }
        self.room += distance(self.head, head, self.entries);
        self.head = head;
        self.refused = None;
        Ok(())
    }

    #[cold]
    fn refuse(&mut self, value: u32) -> Result<(), InvalidDoorbell> {
        if self.refused.replace(value) == Some(value) {
            return Ok(());
        }
        Err(InvalidDoorbell {
            qid: self.qid,
            value,
        })
    }

    /// Reserves a place for one completion. Each reservation ends in [`CompletionQueue::post`] or
    /// [`CompletionQueue::release`].
    #[inline]
    #[must_use]
    pub(crate) fn reserve(&mut self) -> bool {
        match self.room.checked_sub(1) {
            Some(room) => {
                self.room = room;
                true
            }
            None => false,
        }
    }

    /// Gives a reserved place back: its command ends without a completion.
    #[inline]
    pub(crate) fn release(&mut self) {
        self.room += 1;
    }

    /// Writes one completion into a reserved place, at once and in one store, with this pass's phase tag. `false` (and
    /// the reservation stays) while the queue is parked.
    #[inline]
    #[must_use]
    pub(crate) fn post(
        &mut self,
        sqid: u16,
        sqhd: u16,
        cid: u16,
        status: Status,
        dw0: u32,
    ) -> bool {
        let Some(ring) = &self.ring else { return false };
        let cqe = Cqe::new(sqid, sqhd, cid, status, self.phase).with_dw0(dw0);
        if !ring.publish_16(self.tail as usize * CQE_SIZE, cqe.words()) {
            return false;
        }
        self.tail = next(self.tail, self.entries);
        if self.tail == 0 {
            self.phase = !self.phase;
        }
        true
    }
}

#[cfg(test)]
mod tests;
