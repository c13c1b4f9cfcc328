//! A socket that serves one client after the other.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use reactor::ReactorHandle;
use unix_socket::{Listener, Server};

use crate::session::{Factory, Session};

/// What an operator may set.
#[derive(Clone, Debug)]
pub struct Options {
    /// The longest time until a request is answered whatever the device does. QEMU gives a connection up for good after
    /// 5 s without an answer.
    pub answer_within: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            answer_within: Duration::from_secs(4),
        }
    }
}

/// An endpoint, seen from other threads.
pub type EndpointHandle = unix_socket::ServerHandle;

/// Listens and starts a session for each client, one at a time; others wait in the socket's backlog.
/// Sessions are pollers of their own on the same reactor.
pub struct Endpoint(());

impl Endpoint {
    /// Puts an endpoint onto its home reactor. `factory` makes a device for each client, there.
    pub fn start(
        listener: Listener,
        reactor: &ReactorHandle,
        options: Options,
        factory: Factory,
    ) -> EndpointHandle {
        let name = listener.path().display().to_string();
        Server::start(listener, reactor, "vfio-user", move || {
            let factory = Rc::new(RefCell::new(factory));
            Box::new(move |socket, link| {
                Box::new(Session::new(
                    name.clone(),
                    socket,
                    Rc::clone(link),
                    Rc::clone(&factory),
                    options.answer_within,
                ))
            })
        })
    }
}
