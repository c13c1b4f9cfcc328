//! How often an operator hears of what a client does wrong.

use std::cell::Cell;
use std::time::{Duration, Instant};

/// The shortest time between two lines of one endpoint above level debug.
const INTERVAL: Duration = Duration::from_secs(1);

/// Lets one line through per interval. Owned by the endpoint, not the session: a client could otherwise fill the log by
/// connecting again and again.
#[derive(Debug, Default)]
pub struct Complaints {
    last: Cell<Option<Instant>>,
}

impl Complaints {
    /// Whether a line may be written now. Then none may for a while.
    #[must_use]
    pub fn allow(&self) -> bool {
        self.allow_at(Instant::now())
    }

    fn allow_at(&self, now: Instant) -> bool {
        let allowed = self
            .last
            .get()
            .is_none_or(|last| now.duration_since(last) >= INTERVAL);
        if allowed {
            self.last.set(Some(now));
        }
        allowed
    }
}

#[cfg(test)]
mod tests;
