//! Who comes in.

use super::{Clients, EventLoop, Note};
use crate::caller::{Caller, Peer};
use crate::error::RpcError;
use crate::notifier::Notifier;
use crate::server::connection::Connection;
use mio::net::{UnixListener, UnixStream};
use mio::{Interest, Token};
use nix::errno::Errno;
use nix::sys::socket::{getsockopt, sockopt};
use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long to wait after accept(2) failed for want of memory, or of descriptors even to refuse.
const RETRY: Duration = Duration::from_millis(100);

/// Clients accepted before the others have their turn.
const AT_ONCE: usize = 64;

/// Clients that are told at a time that they are too many. Beyond them nothing is waited for: what
/// they have sent already may then cost them the answer.
const MAX_REFUSED: usize = 64;

/// What is known of the listener.
pub(super) struct Door {
    /// Edge-triggered readiness: true until the system says it would block.
    acceptable: bool,
    again: Option<Instant>,
    /// The operator has been told that clients are refused, and nothing has changed since.
    told: bool,
    /// There was no descriptor a moment ago. Clients that have gone since may have left some.
    exhausted: bool,
    /// Given up when the process has no descriptor left, to accept a client with and tell it.
    reserve: Option<File>,
}

impl Door {
    pub(super) fn new() -> Self {
        Self {
            // Clients may have connected before the thread began.
            acceptable: true,
            again: None,
            told: false,
            exhausted: false,
            reserve: spare(),
        }
    }

    pub(super) fn knock(&mut self) {
        self.acceptable = true;
    }

    /// Whether clients may be waiting that can be accepted now.
    pub(super) fn is_open(&self) -> bool {
        self.acceptable && self.again.is_none()
    }

    /// When to try again.
    pub(super) fn opens_again(&self) -> Option<Instant> {
        self.again
    }

    fn tell(&mut self, reason: &str) {
        if !std::mem::replace(&mut self.told, true) {
            tracing::warn!("RPC clients are refused: {reason}");
        }
    }
}

/// A descriptor in reserve.
fn spare() -> Option<File> {
    File::open("/dev/null").ok()
}

/// The error of a client that cannot be served. It has sent nothing yet that could be answered.
fn refusal(errno: Errno, reason: &str) -> RpcError {
    RpcError::errno(errno, reason)
}

const TOO_MANY: &str =
    "the RPC socket has as many clients as it may have, close some and try again";
const NO_DESCRIPTORS: &str =
    "the target has no file descriptors left, close some clients or raise its limit of open files";

impl EventLoop {
    /// Accepts those who wait. Clients beyond the limit are told so: one that hangs without a word
    /// would be worse than one that can try again.
    pub(super) fn accept(&mut self, clients: &mut Clients) {
        let Some(listener) = &self.listener else {
            clients.door.acceptable = false;
            clients.door.again = None;
            return;
        };
        if clients.door.again.is_some_and(|at| Instant::now() < at) {
            return;
        }
        clients.door.again = None;
        for _ in 0..AT_ONCE {
            if !clients.door.acceptable {
                return;
            }
            match listener.accept() {
                Ok((stream, _)) => {
                    clients.door.exhausted = false;
                    self.admit(clients, stream);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    clients.door.acceptable = false;
                }
                Err(error) if is_the_client_s(&error) => {}
                Err(error)
                    if is_for_want_of_descriptors(&error)
                        && !std::mem::replace(&mut clients.door.exhausted, true) =>
                {
                    // Once more after a look at those who are connected.
                    return;
                }
                Err(error) => {
                    clients.door.exhausted = false;
                    if !is_for_want_of_descriptors(&error)
                        || !turn_away(&mut clients.door, listener)
                    {
                        tracing::error!(%error, "cannot accept an RPC client, will try again");
                        clients.door.again = Some(Instant::now() + RETRY);
                        return;
                    }
                }
            }
        }
    }

    fn admit(&self, clients: &mut Clients, mut stream: UnixStream) {
        let peer = peer_of(&stream);
        let served = clients.connections.len() - clients.refused.len();
        let limits = &self.limits;
        // Whoever runs the target can always ask it what is going on.
        let own =
            peer.is_some_and(|peer| peer.uid == 0 || peer.uid == nix::unistd::geteuid().as_raw());
        let places = match own {
            true => limits.connections.saturating_add(limits.reserved),
            false => limits.connections,
        };
        let full = served >= places;
        if full {
            clients.door.tell(TOO_MANY);
            if clients.refused.len() >= MAX_REFUSED {
                return say(&mut stream, &refusal(Errno::EBUSY, TOO_MANY));
            }
        } else if served < limits.connections / 2 {
            clients.door.told = false;
        }

        let id = clients.next;
        clients.next += 1;
        let interest = Interest::READABLE | Interest::WRITABLE;
        if let Err(error) = self
            .poll
            .registry()
            .register(&mut stream, Token(id), interest)
        {
            tracing::error!(%error, "cannot serve an RPC client");
            return;
        }
        let caller = Caller {
            access: self.access,
            peer,
        };
        let mut connection = Connection::new(id, stream, caller, self.notifier(id), limits);
        if full {
            connection.refuse(refusal(Errno::EBUSY, TOO_MANY), limits);
            clients.refused.insert(id);
        }
        clients.connections.insert(id, connection);
        clients.turns.insert(id);
    }

    fn notifier(&self, connection: usize) -> Notifier {
        let mailbox = self.mailbox.clone();
        Notifier {
            subscription: Arc::default(),
            limit: self.limits.notification_bytes,
            post: Arc::new(move |notification| {
                mailbox.post(Note::Notify {
                    connection,
                    notification,
                });
            }),
        }
    }
}

fn peer_of(stream: &UnixStream) -> Option<Peer> {
    let credentials = getsockopt(stream, sockopt::PeerCredentials).ok()?;
    Some(Peer {
        pid: credentials.pid(),
        uid: credentials.uid(),
        gid: credentials.gid(),
    })
}

/// Accepts one client with the descriptor in reserve, and tells it that there is no other. Whether
/// that worked.
fn turn_away(door: &mut Door, listener: &UnixListener) -> bool {
    door.tell(NO_DESCRIPTORS);
    if door.reserve.take().is_none() {
        door.reserve = spare();
        return false;
    }
    match listener.accept() {
        Ok((mut stream, _)) => say(&mut stream, &refusal(Errno::EMFILE, NO_DESCRIPTORS)),
        // accept(2) asks for a descriptor before it looks whether somebody waits, so the first
        // failure has not said that.
        Err(error) if error.kind() == ErrorKind::WouldBlock => door.acceptable = false,
        Err(_) => {}
    }
    door.reserve = spare();
    // Another thread may have been quicker.
    door.reserve.is_some()
}

/// Writes an error to a client that will not be served. Its socket is empty, so this takes all of
/// it or the client is gone.
fn say(stream: &mut UnixStream, error: &RpcError) {
    if let Some(mut bytes) = crate::message::encode(&None, &Err(error.clone()), usize::MAX) {
        bytes.push(b'\n');
        let _ = stream.write_all(&bytes);
    }
}

fn is_for_want_of_descriptors(error: &io::Error) -> bool {
    let errno = error.raw_os_error().map(Errno::from_raw);
    matches!(errno, Some(Errno::EMFILE | Errno::ENFILE))
}

fn is_the_client_s(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::Interrupted | ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset
    )
}
