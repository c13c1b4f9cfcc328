//! "Everybody has finished": a token whose last clone's drop is the message.

use std::sync::Arc;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};

/// A token to hand to everybody who must finish something; each drops its clone when done. A holder that dies drops it too, so
/// the waiter never hangs on a lost message.
#[derive(Clone, Debug)]
pub struct Ack(#[expect(dead_code, reason = "held for its drop")] Arc<Last>);

struct Last {
    notify: Option<Box<dyn FnOnce() + Send + Sync>>,
}

impl std::fmt::Debug for Last {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Last")
    }
}

impl Drop for Last {
    fn drop(&mut self) {
        if let Some(notify) = self.notify.take() {
            notify();
        }
    }
}

/// Where an [`Ack`]'s end is heard.
#[derive(Debug)]
pub struct AckReceiver(Receiver<()>);

impl Ack {
    /// A token and the place to wait for its end.
    #[must_use]
    pub fn channel() -> (Self, AckReceiver) {
        let (sender, receiver): (Sender<()>, _) = bounded(1);
        (
            Self::with(move || {
                let _ = sender.try_send(());
            }),
            AckReceiver(receiver),
        )
    }

    /// A token that calls `notify` on the thread that drops its last clone.
    #[must_use]
    pub fn with(notify: impl FnOnce() + Send + Sync + 'static) -> Self {
        Self(Arc::new(Last {
            notify: Some(Box::new(notify)),
        }))
    }
}

impl AckReceiver {
    /// Whether all clones are gone.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.0.try_recv().is_ok()
    }

    /// Waits until all clones are gone; `false` if `timeout` passes first.
    #[must_use]
    pub fn wait(&self, timeout: std::time::Duration) -> bool {
        !matches!(self.0.recv_timeout(timeout), Err(RecvTimeoutError::Timeout))
    }
}
