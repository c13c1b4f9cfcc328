//! One client, from its connection to the moment when nothing of it is left.

use std::cell::RefCell;
use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use guest_memory::fault;
use nix::libc::{POLLERR, POLLHUP, POLLIN};
use reactor::{Cx, Event, Idle, Poll, Poller, TimerId};
use unix_socket::Link;
use virtio::Device;

use crate::Refusal;
use crate::backend::{Backend, Progress};
use crate::connection::{Input, Output, Received};
use crate::endpoint::Snapshot;
use crate::frame::Frame;
use crate::request;
use crate::tags;
use crate::wire::Header;

/// Reads of the socket in one pass, so that a client that sends without end does not keep its reactor from others.
const READS_PER_PASS: usize = 64;

/// How long the I/O of a client that is gone may take before the operator hears of it.
const LINGERING: Duration = Duration::from_secs(10);

/// Makes the device of a client, on the home reactor.
pub type Factory = Box<dyn FnMut(&mut Cx) -> Result<Box<dyn Device>, FactoryError> + Send>;

/// Why there is no device.
pub type FactoryError = Box<dyn std::error::Error + Send + Sync>;

/// The socket, while there is one.
struct Connection {
    input: Input,
    output: Output,
    watched: bool,
    /// There may be something to read.
    readable: bool,
    /// The client is gone: nobody takes answers.
    hung_up: bool,
    /// The request that is held.
    held: Option<Header>,
}

impl Connection {
    /// Whether there is nothing to do but wait for the socket: all that most passes look at.
    #[inline]
    fn is_quiet(&self) -> bool {
        !self.readable && !self.hung_up && self.output.is_empty()
    }
}

/// A client's session: a poller of its own, so that events of one client's device never reach the next one's.
pub(crate) struct Session {
    name: String,
    /// `None` once the endpoint need not wait any more.
    link: Option<Rc<Link>>,
    factory: Rc<RefCell<Factory>>,
    removal_grace: Duration,
    snapshot: Snapshot,
    socket: Arc<OwnedFd>,
    connection: Option<Connection>,
    backend: Option<Backend>,
    /// The endpoint is to go: rings are ending.
    is_winding_down: bool,
    grace: Option<TimerId>,
    /// What [`fault::count`] was when our own memory was last looked at.
    faults: u64,
}

impl Session {
    pub(crate) fn new(
        name: String,
        socket: OwnedFd,
        link: Rc<Link>,
        factory: Rc<RefCell<Factory>>,
        removal_grace: Duration,
        snapshot: Snapshot,
    ) -> Self {
        let socket = Arc::new(socket);
        let connection = Connection {
            input: Input::new(Arc::clone(&socket)),
            output: Output::new(Arc::clone(&socket)),
            watched: false,
            readable: true,
            hung_up: false,
            held: None,
        };
        Self {
            name,
            link: Some(link),
            factory,
            removal_grace,
            snapshot,
            socket,
            connection: Some(connection),
            backend: None,
            is_winding_down: false,
            grace: None,
            faults: fault::count(),
        }
    }

    /// Moves the connection on. `Err` when it has come to its end.
    fn serve(&mut self, cx: &mut Cx) -> Result<bool, End> {
        self.look_for_faults()?;
        let mut busy = self.advance(cx)?;
        let Some(connection) = &mut self.connection else {
            return Ok(busy);
        };
        if connection.is_quiet() {
            return Ok(busy);
        }
        if !connection.watched {
            cx.watch(Arc::clone(&self.socket), POLLIN as u32, tags::READABLE)
                .map_err(|errno| End::Broken(errno.into()))?;
            connection.watched = true;
        }
        for _ in 0..READS_PER_PASS {
            let Some(connection) = &mut self.connection else {
                return Ok(busy);
            };
            connection.output.flush(cx).map_err(End::Broken)?;
            if connection.held.is_some() || !connection.output.is_empty() {
                return if connection.hung_up {
                    Err(End::Gone)
                } else {
                    Ok(busy)
                };
            }
            if !connection.readable {
                return Ok(busy);
            }
            busy |= self.receive(cx)?;
        }
        Ok(true)
    }

    /// A client that truncates what it shares for our own use is not served any more. Its guest's memory is the device's affair.
    fn look_for_faults(&mut self) -> Result<(), End> {
        let faults = fault::count();
        if std::mem::replace(&mut self.faults, faults) == faults {
            return Ok(());
        }
        if self.backend.as_ref().is_some_and(Backend::is_deceived) {
            let why = "the client truncated its log of writes or its in-flight region";
            return Err(End::Refused(Refusal::new(why)));
        }
        Ok(())
    }

    /// Looks after a held request.
    fn advance(&mut self, cx: &mut Cx) -> Result<bool, End> {
        let Some(progress) = self.backend.as_mut().and_then(|it| it.advance(cx)) else {
            return Ok(false);
        };
        let held = self.connection.as_mut().and_then(|it| it.held.take());
        if let Some(header) = held {
            self.answer(header, progress)?;
        }
        Ok(true)
    }

    /// Reads once and handles what came. Whether anything did.
    fn receive(&mut self, cx: &mut Cx) -> Result<bool, End> {
        let Some(connection) = &mut self.connection else {
            return Ok(false);
        };
        let message = match connection.input.receive().map_err(End::Broken)? {
            Received::Part => return Ok(true),
            Received::Nothing => {
                connection.readable = false;
                return Ok(false);
            }
            Received::End { in_message: true } => return Err(End::InMessage),
            Received::End { in_message: false } => return Err(End::Gone),
            Received::Frame(Frame::Broken(refusal)) => return Err(End::Refused(refusal)),
            Received::Frame(Frame::Rejected(header, refusal)) => {
                self.answer(header, Err(refusal))?;
                return Ok(true);
            }
            Received::Frame(Frame::Message(message)) => message,
        };
        let header = message.header;
        tracing::trace!(name = self.name, code = %header.code(), size = header.size, "request");
        let backend = match &mut self.backend {
            Some(backend) => backend,
            none => {
                let device = make(&self.factory, cx)?;
                none.insert(Backend::new(self.name.clone(), device))
            }
        };
        let progress = request::decode(message).and_then(|request| backend.handle(cx, request));
        self.answer(header, progress)?;
        Ok(true)
    }

    /// Answers a request, or keeps in mind that it is held. A refusal that cannot be told ends the connection: the client would go
    /// on as if it had been obeyed.
    fn answer(&mut self, header: Header, progress: Result<Progress, Refusal>) -> Result<(), End> {
        let (Some(connection), Some(backend)) = (&mut self.connection, &self.backend) else {
            return match progress {
                Err(refusal) => Err(End::Refused(refusal)),
                Ok(_) => Ok(()),
            };
        };
        *self.snapshot.lock().unwrap_or_else(PoisonError::into_inner) = Some(backend.info());
        let acknowledges = backend.acknowledges()
            && header.needs_reply()
            && !request::has_own_reply(header.code());
        match progress {
            Ok(Progress::Held) => connection.held = Some(header),
            Ok(Progress::Reply(answer)) => {
                connection
                    .output
                    .reply(&header, &answer.payload, answer.memory);
            }
            Ok(Progress::Done) if acknowledges => {
                connection.output.reply(&header, &0u64.to_ne_bytes(), None);
            }
            Ok(Progress::Done) => {}
            // "The back-end uses zero length of payload to indicate an error."
            Err(refusal) if header.code() == crate::wire::Code::GET_CONFIG => {
                self.report(&header, &refusal);
                if let Some(connection) = &mut self.connection {
                    connection.output.reply(&header, &[], None);
                }
            }
            Err(refusal) if acknowledges => {
                self.report(&header, &refusal);
                if let Some(connection) = &mut self.connection {
                    connection.output.reply(&header, &1u64.to_ne_bytes(), None);
                }
            }
            Err(refusal) => {
                let request = header.code();
                return Err(End::Refused(Refusal::new(format!("{request}: {refusal}"))));
            }
        }
        Ok(())
    }

    fn may_complain(&self) -> bool {
        let link = self.link.as_ref();
        link.is_some_and(|link| link.complaints().allow())
    }

    /// Tells the operator of a refused request.
    fn report(&self, header: &Header, refusal: &Refusal) {
        let (name, request) = (&self.name, header.code());
        if self.may_complain() {
            tracing::info!(name, %request, %refusal, "request refused; others at level debug");
        } else {
            tracing::debug!(name, %request, %refusal, "request refused");
        }
    }

    /// The endpoint is to go: what is in flight may end, for a while.
    fn wind_down(&mut self, cx: &mut Cx) {
        self.is_winding_down = true;
        let Some(backend) = &mut self.backend else {
            return;
        };
        if self.connection.is_some() {
            backend.wind_down(cx);
        }
        self.give_grace(cx);
    }

    fn give_grace(&mut self, cx: &mut Cx) {
        if let Some(earlier) = self.grace.take() {
            cx.cancel_timer(earlier);
        }
        self.grace = Some(cx.timer(self.removal_grace, tags::GRACE));
    }

    /// Lets go of the client. The device may take a while to let go of the client's memory.
    fn close(&mut self, cx: &mut Cx) {
        self.connection = None;
        *self.snapshot.lock().unwrap_or_else(PoisonError::into_inner) = None;
        // The reactor's watch may hold the descriptor for another moment, but the client is to see the end now. It may
        // be gone already.
        let _ = rustix::net::shutdown(&self.socket, rustix::net::Shutdown::Both);
        if let Some(backend) = &mut self.backend {
            backend.close(cx);
            if self.is_winding_down {
                self.give_grace(cx);
            } else {
                cx.timer(LINGERING, tags::LINGERING);
            }
        }
    }

    /// A time of grace is over.
    fn grace_is_over(&mut self, cx: &mut Cx) {
        if self.connection.is_some() {
            self.close(cx);
        } else if self.link.take().is_some() {
            tracing::warn!(
                name = self.name,
                "the endpoint is removed, but I/O of its last client has not ended: look for a disk that does not answer"
            );
        }
    }

    fn end(&self, end: &End) {
        let name = &self.name;
        match end {
            End::Gone => tracing::debug!(name, "client gone"),
            End::InMessage => tracing::info!(name, "client gone in the middle of a message"),
            End::Refused(refusal) if self.may_complain() => {
                tracing::warn!(name, %refusal, "client disconnected");
            }
            End::Refused(refusal) => tracing::debug!(name, %refusal, "client disconnected"),
            End::Broken(error) => tracing::info!(name, %error, "connection broken"),
        }
    }
}

/// How a connection ends.
enum End {
    /// The client has closed it.
    Gone,
    /// The client has closed it in the middle of a message.
    InMessage,
    /// The client cannot be served.
    Refused(Refusal),
    /// The socket fails.
    Broken(io::Error),
}

fn make(factory: &RefCell<Factory>, cx: &mut Cx) -> Result<Box<dyn Device>, End> {
    let no_device = |why: &dyn std::fmt::Display| {
        End::Refused(Refusal::new(format!("no device could be made: {why}")))
    };
    let mut factory = factory
        .try_borrow_mut()
        .map_err(|error| no_device(&error))?;
    factory(cx).map_err(|error| no_device(&error))
}

impl Poller for Session {
    fn name(&self) -> String {
        format!("vhost-user client {}", self.name)
    }

    fn poll(&mut self, cx: &mut Cx) -> Poll {
        let mut busy = self.backend.as_mut().is_some_and(|it| it.poll(cx));
        let is_removed = self.link.as_ref().is_some_and(|link| link.is_removed());
        if is_removed && !self.is_winding_down {
            self.wind_down(cx);
            busy = true;
        }
        if self.connection.is_some() {
            if self.is_winding_down {
                if self.backend.as_ref().is_none_or(Backend::is_at_rest) {
                    self.close(cx);
                    busy = true;
                }
            } else {
                match self.serve(cx) {
                    Ok(served) => busy |= served,
                    Err(end) => {
                        self.end(&end);
                        self.close(cx);
                        busy = true;
                    }
                }
            }
        }
        if self.connection.is_none() && self.backend.as_ref().is_none_or(Backend::is_quiescent) {
            return Poll::Remove;
        }
        if busy { Poll::Busy } else { Poll::Idle }
    }

    fn event(&mut self, cx: &mut Cx, event: Event) {
        match event {
            Event::Ready {
                tag: tags::READABLE,
                events,
            } => {
                if let Some(connection) = &mut self.connection {
                    connection.readable = true;
                    connection.hung_up |= events & (POLLHUP | POLLERR) as u32 != 0;
                }
            }
            // `poll` flushes.
            Event::Ready {
                tag: tags::WRITABLE,
                ..
            } => {}
            Event::Timer { tag: tags::GRACE } => self.grace_is_over(cx),
            Event::Timer {
                tag: tags::LINGERING,
            } => tracing::warn!(
                name = self.name,
                "a client is gone, but its I/O has not ended and no other client can connect: look for a disk that does not answer"
            ),
            event => {
                if let Some(backend) = &mut self.backend {
                    backend.event(cx, event);
                }
            }
        }
    }

    fn idle(&self) -> Idle {
        match (&self.backend, &self.connection) {
            (Some(backend), Some(_)) if !self.is_winding_down => backend.idle(),
            // Draining: nobody tells when it is over.
            (Some(_), _) => Idle::Bounded,
            (None, _) => Idle::UntilEvent,
        }
    }
}
