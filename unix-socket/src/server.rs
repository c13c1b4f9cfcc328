//! A socket that serves one client after the other.

use std::cell::Cell;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use nix::libc::POLLIN;
use reactor::{Ack, Cx, Event, Idle, Poll, Poller, ReactorHandle, WatchId};

use crate::complaints::Complaints;
use crate::listener::Listener;

/// How long a server that cannot accept (too many open files) waits before it tries again.
const RETRY: Duration = Duration::from_secs(1);

/// What a session and its server share on their reactor. The server sees that the session has ended, in whatever way,
/// by being the only owner.
#[derive(Debug, Default)]
pub struct Link {
    removed: Cell<bool>,
    /// The present session is to end, the server stays.
    dismissed: Cell<bool>,
    complaints: Complaints,
}

impl Link {
    /// Whether the session must end: the server is to go, or this client is.
    #[must_use]
    pub fn is_removed(&self) -> bool {
        self.removed.get() || self.dismissed.get()
    }

    /// What this server's clients do wrong.
    #[must_use]
    pub fn complaints(&self) -> &Complaints {
        &self.complaints
    }
}

/// Makes the session of a client that has connected, on the server's reactor. The session keeps the link as long as the next
/// client has to wait.
pub type Sessions = Box<dyn FnMut(OwnedFd, &Rc<Link>) -> Box<dyn Poller>>;

/// What the handle and the server share between threads.
#[derive(Debug, Default)]
struct Shared {
    removed: AtomicBool,
    connected: AtomicBool,
    dismissed: AtomicBool,
    /// Who waits for the server to be gone; `None` once it is.
    waiting: Mutex<Option<Vec<Ack>>>,
}

impl Shared {
    fn waiting(&self) -> std::sync::MutexGuard<'_, Option<Vec<Ack>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A server, seen from other threads.
#[derive(Clone, Debug)]
pub struct ServerHandle {
    shared: Arc<Shared>,
    reactor: ReactorHandle,
    path: PathBuf,
}

impl ServerHandle {
    /// Where it listens.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether a client is connected, or one that is gone is still being drained.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.shared.connected.load(Ordering::Relaxed)
    }

    /// Ends the present client's session, if there is one; others may connect afterwards.
    pub fn dismiss(&self) {
        self.shared.dismissed.store(true, Ordering::Release);
        self.reactor.wake();
    }

    /// Closes the socket, removes its name, ends the client's session and drains its device. `done` is dropped when nothing
    /// of it is left.
    pub fn remove(&self, done: Ack) {
        if let Some(waiting) = &mut *self.shared.waiting() {
            waiting.push(done);
        }
        self.shared.removed.store(true, Ordering::Release);
        self.reactor.wake();
    }
}

/// Tells those who wait for the server's end, in whatever way it comes.
#[derive(Debug)]
struct Gone(Arc<Shared>);

impl Drop for Gone {
    fn drop(&mut self) {
        drop(self.0.waiting().take());
    }
}

/// A poller that listens and starts a session for each client, one at a time; others wait in the socket's backlog.
/// Sessions are pollers of their own on the same reactor.
pub struct Server {
    protocol: &'static str,
    name: String,
    /// `None` once removed.
    listener: Option<Listener>,
    link: Rc<Link>,
    sessions: Sessions,
    watch: Option<WatchId>,
    /// Somebody may be waiting.
    may_accept: bool,
    is_serving: bool,
    /// Last, so that the name is gone when those who wait are told.
    shared: Gone,
}

impl Server {
    /// Puts a server onto its reactor, where `make` is called once. `protocol` names it in statistics.
    pub fn start(
        listener: Listener,
        reactor: &ReactorHandle,
        protocol: &'static str,
        make: impl FnOnce() -> Sessions + Send + 'static,
    ) -> ServerHandle {
        let shared = Arc::new(Shared {
            waiting: Mutex::new(Some(Vec::new())),
            ..Shared::default()
        });
        let handle = ServerHandle {
            shared: Arc::clone(&shared),
            reactor: reactor.clone(),
            path: listener.path().to_owned(),
        };
        // Made here, so that its end is told even if the reactor never gets to run the message.
        let shared = Gone(shared);
        reactor.send(move |reactor| {
            reactor.add_poller(Box::new(Self {
                protocol,
                name: listener.path().display().to_string(),
                listener: Some(listener),
                link: Rc::default(),
                sessions: make(),
                watch: None,
                may_accept: true,
                is_serving: false,
                shared,
            }));
        });
        handle
    }

    /// Whether no session is alive.
    fn is_free(&self) -> bool {
        Rc::strong_count(&self.link) == 1
    }

    /// Closes the socket and ends the session.
    fn remove(&mut self, cx: &mut Cx) -> Poll {
        if let Some(listener) = self.listener.take() {
            if let Some(watch) = self.watch.take() {
                cx.unwatch(watch);
            }
            drop(listener);
            self.link.removed.set(true);
            return Poll::Busy;
        }
        if self.is_free() {
            Poll::Remove
        } else {
            Poll::Idle
        }
    }

    /// Starts a session for the client that waits longest, if one does.
    fn accept(&mut self, cx: &mut Cx) -> Poll {
        let Some(listener) = &self.listener else {
            return Poll::Idle;
        };
        if self.watch.is_none() {
            match cx.watch(Arc::clone(listener.socket()), POLLIN as u32, CLIENT) {
                Ok(watch) => self.watch = Some(watch),
                Err(error) => return self.retry(cx, &error.into()),
            }
        }
        match listener.accept() {
            Ok(Some(socket)) => {
                self.shared.0.connected.store(true, Ordering::Relaxed);
                let session = (self.sessions)(socket, &self.link);
                cx.add_poller(session);
                self.is_serving = true;
                Poll::Busy
            }
            Ok(None) => {
                self.may_accept = false;
                Poll::Idle
            }
            Err(error) => self.retry(cx, &error),
        }
    }

    /// A resource is short (most likely open files): clients wait a little longer.
    fn retry(&mut self, cx: &mut Cx, error: &io::Error) -> Poll {
        let name = &self.name;
        tracing::error!(name, %error, "no client can be accepted for now; raise RLIMIT_NOFILE if files are short");
        self.may_accept = false;
        cx.timer(RETRY, CLIENT);
        Poll::Idle
    }
}

/// Tag of the only event: a client may be waiting.
const CLIENT: u64 = 0;

impl Poller for Server {
    fn name(&self) -> String {
        format!("{} {}", self.protocol, self.name)
    }

    #[inline]
    fn poll(&mut self, cx: &mut Cx) -> Poll {
        if self.shared.0.removed.load(Ordering::Acquire) {
            return self.remove(cx);
        }
        // A look without a read-modify-write: this is asked in every pass.
        if self.shared.0.dismissed.load(Ordering::Acquire) {
            self.shared.0.dismissed.store(false, Ordering::Relaxed);
            self.link.dismissed.set(self.is_serving);
        }
        if self.is_serving {
            if !self.is_free() {
                return Poll::Idle;
            }
            self.is_serving = false;
            self.link.dismissed.set(false);
            self.shared.0.connected.store(false, Ordering::Relaxed);
        }
        if self.may_accept {
            self.accept(cx)
        } else {
            Poll::Idle
        }
    }

    fn event(&mut self, _cx: &mut Cx, _event: Event) {
        self.may_accept = true;
    }

    fn idle(&self) -> Idle {
        Idle::UntilEvent
    }
}
