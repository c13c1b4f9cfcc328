//! Counters that outlive what counted them.

use std::collections::HashMap;

use super::QueueCounters;

/// What was counted under one number (a queue's, a namespace's).
#[derive(Clone, Copy, Debug, Default)]
struct Carried {
    /// By those that are gone.
    retired: QueueCounters,
    /// By the present one, when it was last seen.
    last: QueueCounters,
}

/// Adds up what the queues, or namespaces, of one endpoint count, whichever guest they belonged to: each begins at zero, the sum
/// never goes back. What one counted after it was last seen is not in the sum; disks' own counters know of it.
#[derive(Debug, Default)]
pub(super) struct Carry {
    /// Whose counters were seen last.
    session: u64,
    carried: HashMap<u32, Carried>,
}

impl Carry {
    /// Takes over what the present ones say.
    pub(super) fn update(&mut self, session: u64, present: &[(u32, QueueCounters)]) {
        let others = session != self.session;
        self.session = session;
        for (number, carried) in &mut self.carried {
            let now = present.iter().find(|(it, _)| it == number);
            // One that counts less than before is a new one of the same number.
            if others || now.is_none_or(|(_, now)| now.is_behind(&carried.last)) {
                let last = std::mem::take(&mut carried.last);
                carried.retired.add(&last);
            }
        }
        for (number, now) in present {
            self.carried.entry(*number).or_default().last = *now;
        }
    }

    /// Forgets all but these numbers.
    pub(super) fn retain(&mut self, keep: impl Fn(u32) -> bool) {
        self.carried.retain(|number, _| keep(*number));
    }

    /// What was counted under a number.
    pub(super) fn of(&self, number: u32) -> QueueCounters {
        let mut sum = QueueCounters::default();
        if let Some(carried) = self.carried.get(&number) {
            sum.add(&carried.retired);
            sum.add(&carried.last);
        }
        sum
    }

    /// Everything.
    pub(super) fn total(&self) -> QueueCounters {
        let mut sum = QueueCounters::default();
        for carried in self.carried.values() {
            sum.add(&carried.retired);
            sum.add(&carried.last);
        }
        sum
    }
}

#[cfg(test)]
mod tests;
