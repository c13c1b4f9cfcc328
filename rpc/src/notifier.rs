//! Messages to a client that it did not ask for one by one (JSON-RPC 2.0 section 4.1, from the
//! server).

use serde::Serialize;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Why a notification was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotifyError {
    /// The client has too much to read already. It will be told how many it missed.
    #[error("the client does not read its notifications")]
    Full,
    /// The connection is closed, or is about to be.
    #[error("the client is gone")]
    Gone,
}

/// How much is on its way to one client.
#[derive(Debug, Default)]
struct Flow {
    /// Bytes handed to the server and not yet written to the socket.
    unsent: usize,
    /// Notifications refused since the client was last told.
    lost: u64,
    gone: bool,
}

/// The part that the connection and its notifiers share.
#[derive(Debug, Default)]
pub(crate) struct Subscription {
    flow: Mutex<Flow>,
}

impl Subscription {
    fn flow(&self) -> MutexGuard<'_, Flow> {
        // Nothing in here panics, and plain numbers are never half changed.
        self.flow.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// So many bytes were written to the socket. Returns how many notifications the client missed,
    /// if it has not been told.
    pub(crate) fn sent(&self, bytes: usize) -> u64 {
        let mut flow = self.flow();
        flow.unsent = flow.unsent.saturating_sub(bytes);
        std::mem::take(&mut flow.lost)
    }

    pub(crate) fn close(&self) {
        self.flow().gone = true;
    }
}

#[derive(Serialize)]
struct Notification<'a, T> {
    jsonrpc: &'static str,
    method: &'a str,
    params: &'a T,
}

/// The bytes of a notification, without the final newline.
pub(crate) fn encode(method: &str, params: &impl Serialize) -> Option<Vec<u8>> {
    let notification = Notification {
        jsonrpc: "2.0",
        method,
        params,
    };
    serde_json::to_vec(&notification).ok()
}

/// What a client is told, with `{"count": n}`, once it reads again after [`NotifyError::Full`].
pub const LOST: &str = "notifications_lost";

/// Sends notifications to the client of one connection, from any thread and without waiting, until
/// the connection closes. Replies and notifications share the connection in the order in which
/// they were sent.
///
/// A client that does not read costs at most
/// [`Limits::notification_bytes`](crate::Limits::notification_bytes): further notifications are
/// refused, and once it reads again it is told how many ([`LOST`]).
#[derive(Clone)]
pub struct Notifier {
    pub(crate) subscription: Arc<Subscription>,
    pub(crate) limit: usize,
    pub(crate) post: Arc<dyn Fn(Vec<u8>) + Send + Sync>,
}

impl Notifier {
    /// Sends one notification.
    ///
    /// # Errors
    /// See [`NotifyError`]. What cannot be written as JSON counts as sent: it is a mistake of the
    /// program and would be one every time.
    pub fn notify(&self, method: &str, params: &impl Serialize) -> Result<(), NotifyError> {
        let Some(bytes) = encode(method, params) else {
            return Ok(());
        };
        let mut flow = self.subscription.flow();
        if flow.gone {
            return Err(NotifyError::Gone);
        }
        // One always fits, whatever its size.
        if flow.unsent > 0 && flow.unsent.saturating_add(bytes.len()) > self.limit {
            flow.lost = flow.lost.saturating_add(1);
            return Err(NotifyError::Full);
        }
        flow.unsent = flow.unsent.saturating_add(bytes.len());
        drop(flow);
        (self.post)(bytes);
        Ok(())
    }

    /// Whether both send to the same connection.
    pub fn is_for_same_client(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.subscription, &other.subscription)
    }

    /// Whether nothing sent will arrive any more.
    pub fn is_gone(&self) -> bool {
        self.subscription.flow().gone
    }
}

impl fmt::Debug for Notifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Notifier")
    }
}
