//! Which reactor serves what: the one that serves the fewest.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use crate::handle::ReactorHandle;

/// How many seats are taken on each reactor of this process, by its processor number.
static LOAD: Mutex<BTreeMap<u32, u32>> = Mutex::new(BTreeMap::new());

/// A queue's share of a reactor's load, whatever device it belongs to; given back on drop.
#[derive(Debug)]
pub struct Seat(u32);

impl Seat {
    /// Takes a seat on the reactor with the fewest; of equal ones the first from `start` on. Answers its index too; `None` if
    /// there is no reactor.
    #[must_use]
    pub fn take(reactors: &[ReactorHandle], start: usize) -> Option<(usize, Self)> {
        let mut load = LOAD.lock().unwrap_or_else(PoisonError::into_inner);
        let count = reactors.len();
        let order = (0..count).map(|step| (start % count + step) % count);
        let chosen = order.min_by_key(|index| {
            let lcore = reactors.get(*index).map_or(0, ReactorHandle::lcore);
            load.get(&lcore).copied().unwrap_or(0)
        })?;
        let lcore = reactors.get(chosen)?.lcore();
        *load.entry(lcore).or_default() += 1;
        Some((chosen, Self(lcore)))
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut load = LOAD.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(seats) = load.get_mut(&self.0) {
            *seats = seats.saturating_sub(1);
        }
    }
}
