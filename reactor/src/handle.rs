//! The way in from other threads.

use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded};
use nix::sys::eventfd::EventFd;

use crate::sleep::Sleeper;
use crate::thread::Reactor;

/// A closure to run on a reactor.
pub(crate) type Message = Box<dyn FnOnce(&mut Reactor) + Send>;

#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) lcore: u32,
    pub(crate) sleeper: Sleeper,
    pub(crate) wake: EventFd,
}

/// Names a reactor and sends it work. Cheap to clone, usable from every thread.
#[derive(Clone, Debug)]
pub struct ReactorHandle {
    pub(crate) shared: Arc<Shared>,
    pub(crate) inbox: Sender<Message>,
}

/// The reactor ended before it answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the reactor has ended or did not answer in time")]
pub struct Gone;

/// An answer on its way.
#[derive(Debug)]
pub struct Pending<R>(Receiver<R>);

impl<R> Pending<R> {
    /// Waits for the answer.
    ///
    /// # Errors
    /// [`Gone`] if the reactor ends, or `timeout` passes, first.
    pub fn wait(self, timeout: Duration) -> Result<R, Gone> {
        self.0.recv_timeout(timeout).map_err(|_| Gone)
    }

    /// The answer, if it is there.
    #[must_use]
    pub fn try_take(&self) -> Option<R> {
        self.0.try_recv().ok()
    }
}

impl ReactorHandle {
    /// The processor number by which SPDK's tools know the reactor.
    #[must_use]
    pub fn lcore(&self) -> u32 {
        self.shared.lcore
    }

    /// Runs `message` on the reactor's thread, in order of sending, soon. If the reactor has ended the closure is dropped.
    pub fn send(&self, message: impl FnOnce(&mut Reactor) + Send + 'static) {
        if self.inbox.send(Box::new(message)).is_ok() {
            self.wake();
        }
    }

    /// As [`ReactorHandle::send`], with an answer. Never wait for it on a reactor's own thread.
    pub fn call<R: Send + 'static>(
        &self,
        message: impl FnOnce(&mut Reactor) -> R + Send + 'static,
    ) -> Pending<R> {
        let (sender, receiver) = bounded(1);
        self.send(move |reactor| drop(sender.try_send(message(reactor))));
        Pending(receiver)
    }

    /// Ends the reactor's sleep, so that it looks at all its pollers. Costs one load while it is awake.
    pub fn wake(&self) {
        if self.shared.sleeper.must_signal() {
            // The counter saturates only after 2⁶⁴ wake-ups; an error leaves the reactor to its bounded sleep.
            let _ = self.shared.wake.write(1);
        }
    }

    /// Asks the reactor to end after draining its ring.
    pub fn stop(&self) {
        self.send(Reactor::stop);
    }
}
