//! A submission and a completion queue, driven from one thread.

use std::time::Instant;

use guest_memory::SharedMemory;
use nvme_spec::registers::{DOORBELL_BASE, cq_head_doorbell, sq_tail_doorbell};
use nvme_spec::{Cqe, Sqe};

use super::{Error, GuestRam, PATIENCE, Result};

/// A queue pair. Command identifiers are the caller's.
#[derive(Debug)]
pub struct QueuePair {
    ram: GuestRam,
    qid: u16,
    entries: u32,
    sq: u64,
    cq: u64,
    tail: u32,
    head: u32,
    phase: bool,
    /// The mapped doorbell page, if the device lets it be mapped.
    page: Option<SharedMemory>,
    tail_offset: u64,
    head_offset: u64,
}

impl QueuePair {
    pub(super) fn new(
        ram: &GuestRam,
        qid: u16,
        entries: u32,
        dstrd: u8,
        page: Option<SharedMemory>,
    ) -> Result<Self> {
        let sq = ram.alloc(entries as usize * 64, 4096)?;
        let cq = ram.alloc(entries as usize * 16, 4096)?;
        Ok(Self {
            ram: ram.clone(),
            qid,
            entries,
            sq,
            cq,
            tail: 0,
            head: 0,
            phase: true,
            page,
            tail_offset: sq_tail_doorbell(qid, dstrd),
            head_offset: cq_head_doorbell(qid, dstrd),
        })
    }

    /// Queue ID of both halves.
    #[must_use]
    pub fn qid(&self) -> u16 {
        self.qid
    }

    /// Guest-physical addresses of the submission and the completion ring.
    #[must_use]
    pub fn rings(&self) -> (u64, u64) {
        (self.sq, self.cq)
    }

    /// Entries in each ring; one less can be outstanding.
    #[must_use]
    pub fn entries(&self) -> u32 {
        self.entries
    }

    /// Puts a command into the ring without telling the device. The caller keeps fewer than [`QueuePair::entries`] outstanding.
    #[inline]
    pub fn push(&mut self, sqe: &Sqe) {
        let at = self.ram.offset(self.sq) + self.tail as usize * 64;
        self.ram.memory().write(at, sqe);
        self.tail = if self.tail + 1 == self.entries {
            0
        } else {
            self.tail + 1
        };
    }

    /// The tail's value and BAR0 offset, for a doorbell that must be written through the transport.
    #[must_use]
    pub fn tail_doorbell(&self) -> (u64, u32) {
        (self.tail_offset, self.tail)
    }

    /// The head's value and BAR0 offset.
    #[must_use]
    pub fn head_doorbell(&self) -> (u64, u32) {
        (self.head_offset, self.head)
    }

    /// Whether the doorbells are mapped, so that [`QueuePair::ring`] and [`QueuePair::release`] reach the device.
    #[must_use]
    pub fn is_mapped(&self) -> bool {
        self.page.is_some()
    }

    /// Writes the tail doorbell, if it is mapped.
    #[inline]
    pub fn ring(&self) {
        if let Some(page) = &self.page {
            let at = self.tail_offset as usize - DOORBELL_BASE as usize;
            page.store_u32(at, self.tail);
        }
    }

    /// Writes any value to the tail doorbell, if it is mapped: what a broken or hostile driver does.
    pub fn poke(&self, tail: u32) {
        if let Some(page) = &self.page {
            page.store_u32(self.tail_offset as usize - DOORBELL_BASE as usize, tail);
        }
    }

    /// The next completion, if there is one.
    #[inline]
    pub fn poll(&mut self) -> Option<Cqe> {
        let at = self.ram.offset(self.cq) + self.head as usize * 16;
        let dw3 = self.ram.memory().load_u32(at + 12);
        if (dw3 >> 16 & 1 != 0) != self.phase {
            return None;
        }
        let cqe = self.ram.memory().read(at)?;
        self.head += 1;
        if self.head == self.entries {
            self.head = 0;
            self.phase = !self.phase;
        }
        Some(cqe)
    }

    /// Writes the head doorbell, if it is mapped: the entries taken may be used again.
    #[inline]
    pub fn release(&self) {
        if let Some(page) = &self.page {
            let at = self.head_offset as usize - DOORBELL_BASE as usize;
            page.store_u32(at, self.head);
        }
    }

    /// Waits for the next completion and releases its entry (mapped doorbells only).
    ///
    /// # Errors
    /// [`Error::TimedOut`].
    pub fn wait(&mut self) -> Result<Cqe> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(cqe) = self.poll() {
                self.release();
                return Ok(cqe);
            }
            if Instant::now() > deadline {
                return Err(Error::TimedOut("complete a command"));
            }
            std::thread::yield_now();
        }
    }

    /// Runs one command to its end (mapped doorbells only).
    ///
    /// # Errors
    /// [`Error::TimedOut`], or a completion that belongs to another command.
    pub fn run(&mut self, sqe: &Sqe) -> Result<Cqe> {
        self.push(sqe);
        self.ring();
        let cqe = self.wait()?;
        if cqe.cid != sqe.cid() || cqe.sqid != self.qid {
            return Err(Error::Protocol(format!(
                "{cqe:?} answers command {}",
                sqe.cid()
            )));
        }
        Ok(cqe)
    }
}
