//! The server: one thread, one socket, many clients.

mod connection;
mod event_loop;
mod outbox;
mod socket;

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
use std::sync::{Arc, mpsc};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// Where requests go. Called on the server's thread, so it must not block: typically it puts the
/// request into a channel.
type Sink = Box<dyn FnMut(Request) + Send>;

/// What clients may cost. The defaults are SPDK's figures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Clients served at a time (64). Further ones wait in the listen queue.
    pub connections: usize,
    /// Size of a request (256 KiB, 8192 values). Depth is always [`MAX_DEPTH`](crate::MAX_DEPTH).
    pub request: FrameLimits,
    /// Bytes of replies one client may leave unread (32 MiB). A reply beyond them is replaced by
    /// an error.
    pub reply_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 64,
            request: FrameLimits::REQUEST,
            reply_bytes: 32 * 1024 * 1024,
        }
    }
}

/// Where and how to listen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerOptions {
    /// The socket's path. `<path>.lock` is used too.
    pub path: PathBuf,
    /// Permission bits of the socket, whatever the umask is. They are the only access control.
    pub mode: u32,
    /// What clients may cost.
    pub limits: Limits,
}

impl ServerOptions {
    /// Mode 0600 and the default limits.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            mode: 0o600,
            limits: Limits::default(),
        }
    }
}

/// A socket that listens. Clients may connect and send already; they are answered after
/// [`start`](Self::start). Dropping it removes the socket and its lock.
#[derive(Debug)]
pub struct Server {
    limits: Limits,
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
        let (listener, files) = socket::bind(&options.path, options.mode)?;
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
        let mailbox = Mailbox {
            notes: sender,
            waker: self.waker,
        };
        let event_loop = EventLoop {
            poll: self.poll,
            listener: Some(self.listener),
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
            files: self.files,
        })
    }
}

/// A running server. Dropping it is [`shutdown`](Self::shutdown) without patience. Neither may
/// happen on the server's own thread, that is, within the sink.
pub struct ServerHandle {
    mailbox: Mailbox,
    thread: Option<JoinHandle<()>>,
    files: SocketFiles,
}

impl ServerHandle {
    /// The socket's path.
    pub fn path(&self) -> &Path {
        self.files.path()
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
