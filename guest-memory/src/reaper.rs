//! Where client memory is unmapped, so that no reactor waits for it.

use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, OnceLock};

use crate::Mapping;

/// From this size on, in bytes, unmapping takes long enough (tens of nanoseconds for each page that was touched)
/// to be felt by the other guests of a reactor.
const LARGE: usize = 2 << 20;

type Batch = Vec<Arc<Mapping>>;

/// Drops mappings, the large ones on a thread of their own, so that a guest with gigabytes of memory that goes
/// away does not hold up the reactor. Nobody waits for it: what is dropped here has no users.
pub fn unmap(mappings: impl IntoIterator<Item = Arc<Mapping>>) {
    static THREAD: OnceLock<Option<Sender<Batch>>> = OnceLock::new();
    let large: Batch = mappings
        .into_iter()
        .filter(|mapping| mapping.len() >= LARGE)
        .collect();
    if large.is_empty() {
        return;
    }
    // Without the thread, or if it died, the batch comes back and is dropped here: slower, but done.
    if let Some(thread) = THREAD.get_or_init(start) {
        let _ = thread.send(large);
    }
}

fn start() -> Option<Sender<Batch>> {
    let (sender, batches) = channel::<Batch>();
    std::thread::Builder::new()
        .name("unmap".to_owned())
        .spawn(move || batches.into_iter().for_each(drop))
        .inspect_err(|error| tracing::warn!(%error, "no thread to unmap client memory on"))
        .ok()?;
    Some(sender)
}
