//! A reactor for one test.

use std::time::Duration;

use reactor::{Config, Reactor};

/// Runs `body` on a fresh reactor's thread.
pub(crate) fn on_reactor<R: Send + 'static>(
    body: impl FnOnce(&mut Reactor) -> R + Send + 'static,
) -> R {
    let (handle, thread) = reactor::spawn(Config::default()).unwrap();
    let result = handle.call(body).wait(Duration::from_secs(60));
    handle.stop();
    thread.join().unwrap();
    result.expect("the test failed on the reactor's thread")
}
