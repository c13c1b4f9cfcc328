//! When a completion queue interrupts (Base 2.0c, 3.1.3.3 and 5.27.1.6: coalescing).

use crate::messages::VectorBinding;

/// Interrupt coalescing as the guest set it (features 08h and 09h).
#[derive(Clone, Debug, Default)]
pub(crate) struct Coalescing {
    /// Completions that are worth an interrupt; below 2 each is.
    threshold: u32,
    /// Longest delay in ticks; 0 is none.
    time: u64,
    /// Vectors that ignore all this.
    exempt: Vec<u16>,
}

impl Coalescing {
    /// Feature 08h.
    pub(crate) fn set(&mut self, threshold: u32, time: u64) {
        self.threshold = threshold;
        self.time = time;
    }

    /// Feature 09h.
    pub(crate) fn exempt(&mut self, vector: u16, disabled: bool) {
        self.exempt.retain(|other| *other != vector);
        if disabled {
            self.exempt.push(vector);
        }
    }

    /// Threshold and time for a vector, if its interrupts are held back at all.
    fn of(&self, vector: u16) -> Option<(u32, u64)> {
        (self.threshold > 1 && self.time > 0 && !self.exempt.contains(&vector))
            .then_some((self.threshold, self.time))
    }
}

/// The interrupt of one completion queue.
#[derive(Debug, Default)]
pub(crate) struct Interrupt {
    /// `None`: the guest created the queue without interrupts and polls it.
    binding: Option<VectorBinding>,
    /// Entries posted since the last signal.
    waiting: u32,
    /// When the first of them was.
    since: u64,
    /// Threshold and time, if held back.
    held: Option<(u32, u64)>,
}

impl Interrupt {
    pub(crate) fn new(binding: Option<VectorBinding>, coalescing: &Coalescing) -> Self {
        let mut interrupt = Self {
            binding,
            ..Self::default()
        };
        interrupt.configure(coalescing);
        interrupt
    }

    /// Follows a change of the settings.
    pub(crate) fn configure(&mut self, coalescing: &Coalescing) {
        self.held = self
            .binding
            .as_ref()
            .and_then(|binding| coalescing.of(binding.index));
    }

    /// Another vector from here on.
    pub(crate) fn rebind(&mut self, binding: VectorBinding, coalescing: &Coalescing) {
        self.binding = Some(binding);
        self.configure(coalescing);
    }

    /// An entry has been posted.
    #[inline]
    pub(crate) fn note(&mut self, now: u64) {
        if self.waiting == 0 {
            self.since = now;
        }
        self.waiting += 1;
    }

    /// Signals if something is to be signalled now; `masked` are the bits of INTMS. Whether it did.
    #[inline]
    pub(crate) fn flush(&mut self, now: u64, masked: u32) -> bool {
        self.waiting > 0 && self.signal(now, masked)
    }

    fn signal(&mut self, now: u64, masked: u32) -> bool {
        let Some(binding) = &self.binding else {
            self.waiting = 0;
            return false;
        };
        if let Some((threshold, time)) = self.held
            && self.waiting < threshold
            && now.wrapping_sub(self.since) < time
        {
            return false;
        }
        if binding.index < 32 && masked >> binding.index & 1 != 0 {
            return false;
        }
        binding.vector.signal();
        self.waiting = 0;
        true
    }

    /// When a held interrupt must be signalled, in ticks.
    pub(crate) fn deadline(&self) -> Option<u64> {
        let (_, time) = self.held.filter(|_| self.waiting > 0)?;
        Some(self.since.saturating_add(time))
    }
}

#[cfg(test)]
mod tests;
