//! A socket that serves one client after the other.

use std::cell::RefCell;
use std::path::Path;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use reactor::{Ack, ReactorHandle};
use unix_socket::{Listener, Server, ServerHandle};

use crate::session::{Factory, Session};

/// What an operator may set.
#[derive(Clone, Debug)]
pub struct Options {
    /// With [`EndpointHandle::remove`]: how long requests in flight have to end before the client is disconnected, and then again
    /// until nobody waits for them any more.
    pub removal_grace: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            removal_grace: Duration::from_secs(2),
        }
    }
}

/// Where a client's session stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SessionInfo {
    /// Features that the client and its driver chose, those of the transport included.
    pub features: u64,
    /// Protocol features that the client chose.
    pub protocol_features: u64,
    /// Regions of memory that it shares.
    pub memory_regions: usize,
    /// Its rings, all that the device has.
    pub queues: Vec<QueueInfo>,
}

/// Where a ring stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueueInfo {
    /// Entries; 0 before the client has said.
    pub size: u16,
    /// The client has started it.
    pub is_started: bool,
    /// The client has enabled it, or need not.
    pub is_enabled: bool,
    /// The device serves it.
    pub is_served: bool,
}

/// What sessions tell, whatever thread asks.
pub(crate) type Snapshot = Arc<Mutex<Option<SessionInfo>>>;

/// An endpoint, seen from other threads.
#[derive(Clone, Debug)]
pub struct EndpointHandle {
    server: ServerHandle,
    snapshot: Snapshot,
}

impl EndpointHandle {
    /// Where it listens.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.server.path()
    }

    /// Whether a client is connected, or one that is gone is still being drained.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.server.is_connected()
    }

    /// Where the client's session stands; `None` without one, or before its first message.
    #[must_use]
    pub fn session(&self) -> Option<SessionInfo> {
        let snapshot = self.snapshot.lock();
        snapshot.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Closes the socket, removes its name, lets what is in flight end within [`Options::removal_grace`] and disconnects the client.
    /// `done` is dropped when nothing of the endpoint is left, or when a disk has not ended its I/O within another such time: that
    /// is then let go of as soon as it ends.
    pub fn remove(&self, done: Ack) {
        self.server.remove(done);
    }
}

/// Listens and starts a session for each client, one at a time; others wait in the socket's backlog.
/// Sessions are pollers of their own on the same reactor.
pub struct Endpoint(());

impl Endpoint {
    /// Puts an endpoint onto its home reactor. `factory` makes a device for each client, there, with its first message.
    pub fn start(
        listener: Listener,
        reactor: &ReactorHandle,
        options: Options,
        factory: Factory,
    ) -> EndpointHandle {
        let name = listener.path().display().to_string();
        let snapshot = Snapshot::default();
        let of_sessions = Arc::clone(&snapshot);
        let server = Server::start(listener, reactor, "vhost-user", move || {
            let factory = Rc::new(RefCell::new(factory));
            Box::new(move |socket, link| {
                Box::new(Session::new(
                    name.clone(),
                    socket,
                    Rc::clone(link),
                    Rc::clone(&factory),
                    options.removal_grace,
                    Arc::clone(&of_sessions),
                ))
            })
        });
        EndpointHandle { server, snapshot }
    }
}
