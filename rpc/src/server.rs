//! The server: one thread, one socket, many clients. A second socket, with other rights, is a second
//! server: its clients cannot even take places from the clients of the first.

mod connection;
mod event_loop;
mod outbox;
mod socket;

use crate::caller::Access;
use crate::frame::FrameLimits;
use crate::responder::Request;
use event_loop::{EventLoop, LISTENER, Mailbox, Note, WAKER};
use mio::net::UnixListener;
use mio::{Interest, Poll, Waker};
pub use socket::BindError;
pub(crate) use socket::MAX_PATH;
use socket::SocketFiles;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// Where requests go. Called on the server's thread, so it must not block: typically it puts the
/// request into a channel.
type Sink = Box<dyn FnMut(Request) + Send>;

/// What clients may cost. The sizes of requests and replies are SPDK's figures.
///
/// One client has at most 128 calls in hand (a batch may exceed that once) and 1 MiB of requests
/// or of unread replies; then no more is read of it until some are answered and read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Clients served at a time (2048). Further ones are told so and disconnected.
    pub connections: usize,
    /// Clients beyond these that belong to root or to the user of this process (16): the operator
    /// gets in even if others hold all places.
    pub reserved: usize,
    /// Size of a request (256 KiB, 8192 values). Depth is always [`MAX_DEPTH`](crate::MAX_DEPTH).
    pub request: FrameLimits,
    /// How long a request may take from its first byte to its last (30 s). A client that is slower
    /// is disconnected; one that says nothing at all is not.
    pub request_time: Duration,
    /// Bytes of replies one client may leave unread (32 MiB). A reply beyond them is replaced by
    /// an error.
    pub reply_bytes: usize,
    /// Bytes of notifications that may be on their way to one client (1 MiB), see
    /// [`Notifier`](crate::Notifier).
    pub notification_bytes: usize,
    /// Bytes of requests and replies kept for all clients (256 MiB). Beyond them nothing is read of
    /// clients that have more than a little in hand, and the client with most to read is
    /// disconnected if it does not read.
    pub total_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 2048,
            reserved: 16,
            request: FrameLimits::REQUEST,
            request_time: Duration::from_secs(30),
            reply_bytes: 32 * 1024 * 1024,
            notification_bytes: 1024 * 1024,
            total_bytes: 256 * 1024 * 1024,
        }
    }
}

/// Where and how to listen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerOptions {
    /// The socket's path. `<path>.lock` is used too.
    pub path: PathBuf,
    /// Permission bits of the socket, whatever the umask is. With the group they are the only
    /// access control.
    pub mode: u32,
    /// The socket's group, where it is not to be the one of the process (or of the directory, if
    /// that has the set-group-ID bit). Nobody can connect before mode and group are set.
    pub group: Option<u32>,
    /// What its clients may do.
    pub access: Access,
    /// What clients may cost.
    pub limits: Limits,
}

impl ServerOptions {
    /// Mode 0600, full access and the default limits.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            mode: 0o600,
            group: None,
            access: Access::Full,
            limits: Limits::default(),
        }
    }
}

/// A socket that listens. Clients may connect and send already; they are answered after
/// [`start`](Self::start). Dropping it removes the socket and its lock.
#[derive(Debug)]
pub struct Server {
    limits: Limits,
    access: Access,
    poll: Poll,
    waker: Arc<Waker>,
    listener: UnixListener,
    files: SocketFiles,
}

impl Server {
    /// Takes the lock, removes the socket of a dead predecessor, and listens.
    ///
    /// # Errors
    /// Each says what stands in the way and what to do. A lock held by another process is never
    /// waited for.
    pub fn bind(options: ServerOptions) -> Result<Self, BindError> {
        let (listener, files) = socket::bind(&options.path, options.mode, options.group)?;
        let mut listener = UnixListener::from_std(listener);
        let poll = Poll::new().and_then(|poll| {
            let registry = poll.registry();
            registry.register(&mut listener, LISTENER, Interest::READABLE)?;
            let waker = Waker::new(registry, WAKER)?;
            Ok((poll, waker))
        });
        let (poll, waker) = poll.map_err(|source| BindError::Io {
            action: "watch",
            path: options.path,
            source,
        })?;
        Ok(Self {
            limits: options.limits,
            access: options.access,
            poll,
            waker: Arc::new(waker),
            listener,
            files,
        })
    }

    /// The socket's path.
    pub fn path(&self) -> &Path {
        self.files.path()
    }

    /// Starts the thread. Every well-formed request is handed to `sink`, in the order in which its
    /// client sent them. `sink` runs on the server's thread and must not block; it may drop a
    /// request, whose client is then told so.
    ///
    /// # Errors
    /// The system has no thread to give.
    pub fn start(self, sink: impl FnMut(Request) + Send + 'static) -> io::Result<ServerHandle> {
        let (sender, notes) = mpsc::channel();
        let count = Arc::new(AtomicUsize::new(0));
        let mailbox = Mailbox {
            notes: sender,
            waker: self.waker,
        };
        let event_loop = EventLoop {
            poll: self.poll,
            listener: Some(self.listener),
            access: self.access,
            count: Arc::clone(&count),
            mailbox: mailbox.clone(),
            notes,
            limits: self.limits,
            sink: Box::new(sink),
        };
        let thread = thread::Builder::new()
            .name("rpc".into())
            .spawn(move || event_loop.run())?;
        Ok(ServerHandle {
            mailbox,
            thread: Some(thread),
            count,
            files: self.files,
        })
    }
}

/// A running server. Dropping it is [`shutdown`](Self::shutdown) without patience. Neither may
/// happen on the server's own thread, that is, within the sink.
pub struct ServerHandle {
    mailbox: Mailbox,
    thread: Option<JoinHandle<()>>,
    count: Arc<AtomicUsize>,
    files: SocketFiles,
}

impl ServerHandle {
    /// The socket's path.
    pub fn path(&self) -> &Path {
        self.files.path()
    }

    /// How many clients are connected.
    pub fn clients(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// Accepts and reads no more, waits up to `patience` until every call is answered and every
    /// reply is read, then closes all connections and removes the socket and its lock. Responders
    /// left over may still be used, for nothing.
    pub fn shutdown(mut self, patience: Duration) {
        self.stop(patience);
    }

    fn stop(&mut self, patience: Duration) {
        let Some(thread) = self.thread.take() else {
            return;
        };
        let now = Instant::now();
        let until = now.checked_add(patience).unwrap_or(now);
        self.mailbox.post(Note::Stop { until });
        if thread.join().is_err() {
            tracing::error!("the RPC thread had panicked");
        }
    }
}

impl Drop for ServerHandle {
    fn drop(&mut self) {
        self.stop(Duration::ZERO);
    }
}
