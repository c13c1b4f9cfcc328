//! Interrupts as event descriptors that the client installs and any reactor signals.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arc_swap::ArcSwapOption;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use reactor::Bell;

/// The interrupt indexes of VFIO.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InterruptKind {
    /// The INTx pin.
    Intx,
    /// MSI-X vectors.
    Msix,
    /// Device error.
    Error,
    /// Device request (please release the device).
    Request,
}

/// A client's eventfd, and how to raise it.
#[derive(Debug)]
enum Event {
    /// A write to it fails where it would wait (`O_NONBLOCK`): what VMMs that hand it to KVM make.
    Writable(Arc<OwnedFd>),
    /// A write to it waits while its counter is at the limit, where any client can put it: raised the longer way.
    Waiting(Box<Bell>),
}

impl Event {
    /// # Errors
    /// `EINVAL` if the descriptor is no eventfd; what keeps a [`Bell`] from being made.
    fn new(fd: Arc<OwnedFd>) -> Result<Self, Errno> {
        let flags = fcntl(&*fd, FcntlArg::F_GETFL)?;
        if OFlag::from_bits_truncate(flags).contains(OFlag::O_NONBLOCK) {
            return Ok(Self::Writable(fd));
        }
        match Bell::new(&fd) {
            Ok(bell) => Ok(Self::Waiting(Box::new(bell))),
            Err(error) => Err(error.raw_os_error().map_or(Errno::EIO, Errno::from_raw)),
        }
    }

    fn raise(&self) {
        match self {
            // EAGAIN: the counter is at its limit, so the client has a signal to take anyway.
            Self::Writable(fd) => drop(nix::unistd::write(fd, &1u64.to_ne_bytes())),
            Self::Waiting(bell) => bell.ring(),
        }
    }
}

#[derive(Debug, Default)]
struct Line {
    event: ArcSwapOption<Event>,
    masked: AtomicBool,
    pending: AtomicBool,
}

/// One interrupt, for whoever raises it. Clones are the same interrupt.
#[derive(Clone, Debug)]
pub struct Vector(Arc<Line>);

impl Vector {
    /// Raises the interrupt: one system call, which does not wait for the client. While the vector is masked or has no descriptor the
    /// interrupt is kept pending and raised once on unmasking or installation.
    pub fn signal(&self) {
        if self.0.masked.load(Ordering::Acquire) {
            self.0.pending.store(true, Ordering::Release);
            // The mask may have gone between the two: whoever clears it looks at `pending` after.
            if self.0.masked.load(Ordering::Acquire) {
                return;
            }
            if !self.0.pending.swap(false, Ordering::AcqRel) {
                return;
            }
        }
        let event = self.0.event.load();
        match event.as_ref() {
            Some(used) => {
                used.raise();
                // The client may have been told meanwhile that another descriptor is in its place; it no longer looks at this one.
                let present = self.0.event.load();
                if !present.as_ref().is_some_and(|it| Arc::ptr_eq(it, used)) {
                    self.raise_again();
                }
            }
            None => self.raise_again(),
        }
    }

    #[cold]
    fn raise_again(&self) {
        self.0.pending.store(true, Ordering::Release);
        if self.0.event.load().is_some() {
            self.deliver_pending();
        }
    }

    fn deliver_pending(&self) {
        if self.0.pending.swap(false, Ordering::AcqRel) {
            self.signal();
        }
    }

    fn install(&self, event: Option<Arc<Event>>) {
        let present = event.is_some();
        self.0.event.store(event);
        if present {
            self.deliver_pending();
        }
    }

    fn set_mask(&self, masked: bool) {
        self.0.masked.store(masked, Ordering::Release);
        if !masked {
            self.deliver_pending();
        }
    }

    /// Whether a signal waits for unmasking or a descriptor.
    #[must_use]
    pub fn is_pending(&self) -> bool {
        self.0.pending.load(Ordering::Acquire)
    }

    /// Whether the client has installed a descriptor.
    #[must_use]
    pub fn is_enabled(&self) -> bool {
        self.0.event.load().is_some()
    }
}

/// All interrupts of one function.
#[derive(Clone, Debug)]
pub struct Interrupts {
    intx: Vec<Vector>,
    msix: Vec<Vector>,
    error: Vec<Vector>,
    request: Vec<Vector>,
}

fn lines(count: u16) -> Vec<Vector> {
    (0..count).map(|_| Vector(Arc::default())).collect()
}

impl Interrupts {
    /// `intx` pins (0 or 1) and `msix` vectors, one error and one request interrupt.
    #[must_use]
    pub fn new(intx: u16, msix: u16) -> Self {
        Self {
            intx: lines(intx),
            msix: lines(msix),
            error: lines(1),
            request: lines(1),
        }
    }

    fn of(&self, kind: InterruptKind) -> &[Vector] {
        match kind {
            InterruptKind::Intx => &self.intx,
            InterruptKind::Msix => &self.msix,
            InterruptKind::Error => &self.error,
            InterruptKind::Request => &self.request,
        }
    }

    fn range(&self, kind: InterruptKind, start: u32, count: u32) -> Result<&[Vector], Errno> {
        let end = start.checked_add(count).ok_or(Errno::EINVAL)?;
        self.of(kind)
            .get(start as usize..end as usize)
            .ok_or(Errno::EINVAL)
    }

    /// How many interrupts of a kind there are.
    #[must_use]
    pub fn count(&self, kind: InterruptKind) -> u32 {
        u32::try_from(self.of(kind).len()).unwrap_or(u32::MAX)
    }

    /// One interrupt, to keep where it is raised.
    #[must_use]
    pub fn vector(&self, kind: InterruptKind, index: u32) -> Option<Vector> {
        self.of(kind).get(index as usize).cloned()
    }

    /// Installs or replaces descriptors from `start` on; a pending interrupt is raised on the new one at once.
    ///
    /// # Errors
    /// `EINVAL` if there are not that many or a descriptor is no eventfd, or why an eventfd cannot be used; nothing has
    /// changed.
    pub fn install(
        &self,
        kind: InterruptKind,
        start: u32,
        events: Vec<Option<Arc<OwnedFd>>>,
    ) -> Result<(), Errno> {
        let count = u32::try_from(events.len()).map_err(|_| Errno::EINVAL)?;
        let range = self.range(kind, start, count)?;
        let events = events
            .into_iter()
            .map(|fd| fd.map(|fd| Event::new(fd).map(Arc::new)).transpose())
            .collect::<Result<Vec<_>, _>>()?;
        for (vector, event) in range.iter().zip(events) {
            vector.install(event);
        }
        Ok(())
    }

    /// Takes all descriptors of a kind away, and forgets what was pending and masked.
    pub fn disable(&self, kind: InterruptKind) {
        for vector in self.of(kind) {
            // What is pending is forgotten before the descriptor goes: a signal from another thread that comes after that belongs to
            // the descriptor installed next. A client that moves to more vectors disables all of them for a moment.
            vector.0.pending.store(false, Ordering::Release);
            vector.0.event.store(None);
            vector.0.masked.store(false, Ordering::Release);
        }
    }

    /// Masks or unmasks.
    ///
    /// # Errors
    /// `EINVAL` if there are not that many.
    pub fn set_mask(
        &self,
        kind: InterruptKind,
        start: u32,
        count: u32,
        masked: bool,
    ) -> Result<(), Errno> {
        self.range(kind, start, count)?
            .iter()
            .for_each(|vector| vector.set_mask(masked));
        Ok(())
    }

    /// Raises interrupts on the client's own demand (loopback).
    ///
    /// # Errors
    /// `EINVAL` if there are not that many.
    pub fn trigger(&self, kind: InterruptKind, start: u32, count: u32) -> Result<(), Errno> {
        self.range(kind, start, count)?
            .iter()
            .for_each(Vector::signal);
        Ok(())
    }

    /// Takes everything away: the client is gone.
    pub fn disable_all(&self) {
        for kind in [
            InterruptKind::Intx,
            InterruptKind::Msix,
            InterruptKind::Error,
            InterruptKind::Request,
        ] {
            self.disable(kind);
        }
    }
}

/// The MSI-X table and pending bits as memory, for clients that read and write them through us. Clients of vfio-user
/// keep the table themselves and tell us with [`Interrupts::install`] and masks, so nothing here has an effect.
#[derive(Clone, Debug)]
pub struct MsixTable {
    table: Vec<u8>,
}

impl MsixTable {
    /// A table of `vectors` entries of 16 bytes, all masked as after reset.
    #[must_use]
    pub fn new(vectors: u16) -> Self {
        let mut table = vec![0; usize::from(vectors) * 16];
        for entry in table.chunks_exact_mut(16) {
            entry[12] = 1;
        }
        Self { table }
    }

    /// Reads table bytes; beyond the end zeroes.
    pub fn read(&self, offset: u64, data: &mut [u8]) {
        data.fill(0);
        let from = usize::try_from(offset)
            .ok()
            .and_then(|at| self.table.get(at..));
        for (out, byte) in data.iter_mut().zip(from.unwrap_or_default()) {
            *out = *byte;
        }
    }

    /// Writes table bytes; beyond the end nothing happens.
    pub fn write(&mut self, offset: u64, data: &[u8]) {
        let to = usize::try_from(offset)
            .ok()
            .and_then(|at| self.table.get_mut(at..));
        for (byte, value) in to.unwrap_or_default().iter_mut().zip(data) {
            *byte = *value;
        }
    }

    /// Reads the pending bit array.
    pub fn read_pending(interrupts: &Interrupts, offset: u64, data: &mut [u8]) {
        for (index, out) in data.iter_mut().enumerate() {
            let at = offset.wrapping_add(index as u64);
            *out = (0..8).fold(0, |bits, bit| {
                let index = at
                    .checked_mul(8)
                    .and_then(|first| u32::try_from(first + bit).ok());
                let vector = index.and_then(|index| interrupts.vector(InterruptKind::Msix, index));
                bits | u8::from(vector.is_some_and(|vector| vector.is_pending())) << bit
            });
        }
    }
}

#[cfg(test)]
mod tests;
