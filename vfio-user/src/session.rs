//! One client, from its connection to the moment when nothing of it is left.

use std::cell::RefCell;
use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use nix::errno::Errno;
use nix::libc::{POLLERR, POLLHUP, POLLIN};
use pci::{Function, ResetKind};
use reactor::{Cx, Event, Idle, Poll, Poller};
use unix_socket::Link;

use crate::Rejection;
use crate::connection::{Input, Output, Received};
use crate::device::Device;
use crate::frame::Frame;
use crate::reply::Reply;
use crate::request::{self, Request};
use crate::tags;
use crate::version::Proposal;
use crate::wire::{Command, Header};

/// Reads of the socket in one pass, so that a client that sends without end does not keep its reactor from others.
const READS_PER_PASS: usize = 64;

/// How long the I/O of a client that is gone may take before the operator hears of it.
const LINGERING: Duration = Duration::from_secs(10);

/// Makes the device of a client, on the home reactor.
pub type Factory = Box<dyn FnMut(&mut Cx) -> Result<Box<dyn Function>, FactoryError> + Send>;

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
    /// Close once the last answer is sent.
    ending: bool,
}

impl Connection {
    /// Whether there is nothing to do but wait for the socket: all that most passes look at.
    #[inline]
    fn is_quiet(&self) -> bool {
        !self.readable && !self.ending && !self.hung_up && self.output.is_empty()
    }
}

/// A client's session: a poller of its own, so that events of one client's device never reach the next one's.
pub(crate) struct Session {
    name: String,
    link: Rc<Link>,
    factory: Rc<RefCell<Factory>>,
    answer_within: Duration,
    socket: Arc<OwnedFd>,
    connection: Option<Connection>,
    device: Option<Device>,
}

impl Session {
    pub(crate) fn new(
        name: String,
        socket: OwnedFd,
        link: Rc<Link>,
        factory: Rc<RefCell<Factory>>,
        answer_within: Duration,
    ) -> Self {
        let socket = Arc::new(socket);
        let connection = Connection {
            input: Input::new(Arc::clone(&socket)),
            output: Output::new(Arc::clone(&socket)),
            watched: false,
            readable: true,
            hung_up: false,
            ending: false,
        };
        Self {
            name,
            link,
            factory,
            answer_within,
            socket,
            connection: Some(connection),
            device: None,
        }
    }

    /// Moves the connection on. `Err` when it has come to its end.
    fn serve(&mut self, cx: &mut Cx) -> Result<bool, End> {
        let mut busy = self.advance(cx);
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
            let held = self.device.as_ref().is_some_and(Device::is_holding);
            if held || !connection.output.is_empty() {
                return if connection.hung_up {
                    Err(End::Gone)
                } else {
                    Ok(busy)
                };
            }
            if connection.ending {
                return Err(End::Refused);
            }
            if !connection.readable {
                return Ok(busy);
            }
            busy |= self.receive(cx)?;
        }
        Ok(true)
    }

    /// Looks after a held request.
    fn advance(&mut self, cx: &mut Cx) -> bool {
        match (&mut self.device, &mut self.connection) {
            (Some(device), Some(connection)) => device.advance(cx, &mut connection.output),
            _ => false,
        }
    }

    /// Reads once and handles what came. Whether anything did.
    fn receive(&mut self, cx: &mut Cx) -> Result<bool, End> {
        let Some(Connection {
            input,
            output,
            readable,
            ending,
            ..
        }) = &mut self.connection
        else {
            return Ok(false);
        };
        let (header, refused) = match input.receive().map_err(End::Broken)? {
            Received::Part => return Ok(true),
            Received::Nothing => {
                *readable = false;
                return Ok(false);
            }
            Received::End { in_message: true } => return Err(End::InMessage),
            Received::End { in_message: false } => return Err(End::Gone),
            Received::Frame(Frame::Rejected(header, rejection)) => (header, Err(rejection)),
            Received::Frame(Frame::Message(message)) => {
                let header = message.header;
                let handled = request::decode(message).and_then(|request| match &mut self.device {
                    Some(device) => device.handle(cx, header, request, output),
                    None => {
                        let proposal = proposal(request)?;
                        let function = make(&self.factory, cx, &self.link)?;
                        let minor = proposal.agreed_minor();
                        tracing::debug!(name = self.name, ?proposal, "client connected");
                        let link = Rc::clone(&self.link);
                        self.device = Some(Device::new(function, self.answer_within, link));
                        output.reply(&header, &Reply::Version { minor });
                        Ok(())
                    }
                });
                (header, handled)
            }
        };
        if let Err(rejection) = refused {
            output.refuse(&header, rejection.errno);
            // Whoever cannot agree on a version has nothing more to say; the specification closes.
            *ending |= self.device.is_none();
            self.report(&header, &rejection);
        }
        Ok(true)
    }

    /// Tells the operator of a refused request.
    fn report(&self, header: &Header, rejection: &Rejection) {
        let (name, command) = (&self.name, header.command());
        if !is_notable(command) || !self.link.complaints().allow() {
            tracing::debug!(name, %command, %rejection, "request refused");
        } else if self.device.is_none() {
            tracing::warn!(name, %command, %rejection, "client refused");
        } else {
            tracing::info!(name, %command, %rejection, "request refused; others at level debug");
        }
    }

    /// Lets go of the client. The device may take a while to let go of the client's memory.
    fn close(&mut self, cx: &mut Cx, kind: ResetKind) {
        self.connection = None;
        // The reactor's watch may hold the descriptor for another moment, but the client is to see the end now. It may
        // be gone already.
        let _ = rustix::net::shutdown(&self.socket, rustix::net::Shutdown::Both);
        if let Some(device) = &mut self.device {
            device.close(cx, kind);
            cx.timer(LINGERING, tags::LINGERING);
        }
    }
}

/// How a connection ends.
enum End {
    /// The client has closed it.
    Gone,
    /// The client has closed it in the middle of a message.
    InMessage,
    /// The client could not be served, and has been told.
    Refused,
    /// The socket fails.
    Broken(io::Error),
}

/// The first request, which can only be one.
fn proposal(request: Request<'_>) -> Result<Proposal, Rejection> {
    match request {
        Request::Version(proposal) => Ok(proposal),
        _ => Err(Rejection::invalid("the first request is not VERSION")),
    }
}

fn make(
    factory: &RefCell<Factory>,
    cx: &mut Cx,
    link: &Link,
) -> Result<Box<dyn Function>, Rejection> {
    let mut factory = factory
        .try_borrow_mut()
        .map_err(|_| Rejection::new(Errno::EBUSY, "the device is being made"))?;
    factory(cx).map_err(|error| {
        if link.complaints().allow() {
            tracing::error!(%error, "no device could be made for a client");
        }
        Rejection::new(Errno::ENOMEM, "no device could be made")
    })
}

/// Whether an operator should hear of a refusal. Clients probe for features as a matter of course.
fn is_notable(command: Command) -> bool {
    !matches!(
        command,
        Command::DEVICE_FEATURE | Command::DMA_UNMAP | Command::DEVICE_GET_REGION_IO_FDS
    )
}

impl Poller for Session {
    fn name(&self) -> String {
        format!("vfio-user client {}", self.name)
    }

    fn poll(&mut self, cx: &mut Cx) -> Poll {
        let mut busy = self.device.as_mut().is_some_and(|device| device.poll(cx));
        if self.connection.is_some() {
            if self.link.is_removed() {
                self.close(cx, ResetKind::Removed);
                busy = true;
            } else {
                match self.serve(cx) {
                    Ok(served) => busy |= served,
                    Err(end) => {
                        self.end(&end);
                        self.close(cx, ResetKind::ClientGone);
                        busy = true;
                    }
                }
            }
        }
        if self.connection.is_none() && self.device.as_ref().is_none_or(Device::is_quiescent) {
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
            Event::Timer {
                tag: tags::DEADLINE,
            } => {
                if let (Some(device), Some(connection)) = (&mut self.device, &mut self.connection) {
                    device.time_is_over(cx, &mut connection.output);
                }
            }
            Event::Timer {
                tag: tags::LINGERING,
            } => tracing::warn!(
                name = self.name,
                "a client is gone, but its I/O has not ended and no other client can connect: look for a disk that does not answer"
            ),
            event => {
                if let Some(device) = &mut self.device {
                    device.event(cx, event);
                }
            }
        }
    }

    fn idle(&self) -> Idle {
        match (&self.device, &self.connection) {
            (Some(device), Some(_)) => device.idle(),
            // Draining: nobody tells when it is over.
            (Some(_), None) => Idle::Bounded,
            (None, _) => Idle::UntilEvent,
        }
    }
}

impl Session {
    fn end(&self, end: &End) {
        let name = &self.name;
        match end {
            End::Gone => tracing::debug!(name, "client gone"),
            End::InMessage => tracing::info!(name, "client gone in the middle of a message"),
            End::Refused => tracing::debug!(name, "client sent away"),
            End::Broken(error) => tracing::info!(name, %error, "connection broken"),
        }
    }
}
