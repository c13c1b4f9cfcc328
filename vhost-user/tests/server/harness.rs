//! An endpoint with a fake device on a real reactor.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use guest_memory::SharedMemory;
use nix::sys::eventfd::{EfdFlags, EventFd};
use reactor::{Ack, Config, Mode, ReactorHandle};
use vhost_user::{Endpoint, EndpointHandle, Listener, Options};

use crate::client::Client;
use crate::fake::Remote;

/// Long enough to never run out on a slow machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) struct Server {
    reactor: ReactorHandle,
    thread: Option<JoinHandle<()>>,
    _directory: tempfile::TempDir,
    pub(crate) endpoint: EndpointHandle,
    pub(crate) device: Remote,
}

impl Server {
    pub(crate) fn start() -> Self {
        Self::with_grace(PATIENCE)
    }

    pub(crate) fn with_grace(removal_grace: Duration) -> Self {
        let config = Config {
            mode: Mode::Interrupt,
            ..Config::default()
        };
        let (reactor, thread) = reactor::spawn(config).unwrap();
        let directory = tempfile::tempdir().unwrap();
        let listener = Listener::bind(&directory.path().join("vhost.0")).unwrap();
        let device = Remote::new(reactor.clone());
        let remote = device.clone();
        let factory = Box::new(move |_: &mut reactor::Cx| Ok(remote.make()));
        let options = Options { removal_grace };
        let endpoint = Endpoint::start(listener, &reactor, options, factory);
        Self {
            reactor,
            thread: Some(thread),
            _directory: directory,
            endpoint,
            device,
        }
    }

    pub(crate) fn path(&self) -> &Path {
        self.endpoint.path()
    }

    /// A client that has said nothing yet.
    pub(crate) fn stranger(&self) -> Client {
        Client::connect(self.path())
    }

    /// A client that has negotiated everything.
    pub(crate) fn client(&self) -> Client {
        let mut client = self.stranger();
        client.negotiate(u64::MAX, 0);
        client
    }

    /// Waits until the reactor has begun another pass: it is not blocked.
    pub(crate) fn look_around(&self) {
        self.reactor.call(|_| ()).wait(PATIENCE).unwrap();
    }

    /// Removes the endpoint and waits until it is gone.
    pub(crate) fn remove(&self) {
        let (done, gone) = Ack::channel();
        self.endpoint.remove(done);
        assert!(gone.wait(PATIENCE), "the endpoint is not gone");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.remove();
        }
        self.reactor.stop();
        if let Some(thread) = self.thread.take()
            && !std::thread::panicking()
        {
            thread.join().unwrap();
        }
    }
}

/// Waits until something is so.
#[track_caller]
pub(crate) fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::yield_now();
    }
}

/// Guest memory.
pub(crate) fn guest_memory(len: u64) -> SharedMemory {
    SharedMemory::new_unsealed(c"guest", len.try_into().unwrap()).unwrap()
}

pub(crate) fn duplicate(memory: &SharedMemory) -> OwnedFd {
    memory.fd().as_fd().try_clone_to_owned().unwrap()
}

pub(crate) fn event() -> EventFd {
    EventFd::from_value_and_flags(0, EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK).unwrap()
}
