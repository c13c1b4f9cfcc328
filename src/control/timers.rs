//! Things to do later.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::Control;

type Then = Box<dyn FnOnce(&mut Control)>;

#[derive(Default)]
pub(super) struct Timers {
    /// The number keeps timers of the same instant apart.
    due: BTreeMap<(Instant, u64), Then>,
    sequence: u64,
}

impl Timers {
    /// When the next is due.
    pub(super) fn next(&self) -> Option<Instant> {
        self.due.first_key_value().map(|((at, _), _)| *at)
    }

    /// One that is due at `now`.
    pub(super) fn due(&mut self, now: Instant) -> Option<Then> {
        let entry = self.due.first_entry()?;
        (entry.key().0 <= now).then(|| entry.remove())
    }
}

impl Control {
    /// Runs `then` after `time`. A time beyond the clock's end never comes.
    pub(crate) fn after(&mut self, time: Duration, then: impl FnOnce(&mut Control) + 'static) {
        if let Some(at) = Instant::now().checked_add(time) {
            self.timers.sequence += 1;
            let key = (at, self.timers.sequence);
            self.timers.due.insert(key, Box::new(then));
        }
    }
}
