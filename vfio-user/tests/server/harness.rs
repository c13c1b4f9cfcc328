//! An endpoint with a fake device on a real reactor.

use std::path::Path;
use std::thread::JoinHandle;
use std::time::Duration;

use guest_memory::SharedMemory;
use nix::errno::Errno;
use reactor::{Ack, Config, Mode, ReactorHandle};
use testkit::vfio_user::{Client, Error, MapFlags, Result};
use vfio_user::{Endpoint, EndpointHandle, Listener, Options};

use crate::fake::Remote;

/// Long enough to never run out on a slow machine.
const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) struct Server {
    pub(crate) reactor: ReactorHandle,
    thread: Option<JoinHandle<()>>,
    pub(crate) directory: tempfile::TempDir,
    pub(crate) endpoint: EndpointHandle,
    pub(crate) device: Remote,
}

impl Server {
    pub(crate) fn start() -> Self {
        Self::with_options(Options {
            answer_within: PATIENCE,
        })
    }

    pub(crate) fn with_options(options: Options) -> Self {
        let config = Config {
            mode: Mode::Interrupt,
            ..Config::default()
        };
        let (reactor, thread) = reactor::spawn(config).unwrap();
        let directory = tempfile::tempdir().unwrap();
        let listener = Listener::bind(&directory.path().join("cntrl")).unwrap();
        let device = Remote::new(reactor.clone());
        let remote = device.clone();
        let factory = Box::new(move |_: &mut reactor::Cx| Ok(remote.make()));
        let endpoint = Endpoint::start(listener, &reactor, options, factory);
        Self {
            reactor,
            thread: Some(thread),
            directory,
            endpoint,
            device,
        }
    }

    pub(crate) fn path(&self) -> &Path {
        self.endpoint.path()
    }

    /// A client in a session.
    pub(crate) fn client(&self) -> Client {
        Client::connect(self.path()).unwrap()
    }

    /// A client that has said nothing yet.
    pub(crate) fn stranger(&self) -> Client {
        Client::connect_only(self.path()).unwrap()
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

pub(crate) const RW: MapFlags = MapFlags::READ.union(MapFlags::WRITE);

/// Guest memory.
pub(crate) fn guest_memory(pages: usize) -> SharedMemory {
    SharedMemory::new(c"guest", pages * 4096).unwrap()
}

#[track_caller]
pub(crate) fn refused<T: std::fmt::Debug>(result: Result<T>, errno: Errno) {
    match result {
        Err(Error::Refused(seen)) => assert_eq!(seen, errno),
        other => panic!("{other:?} instead of {errno}"),
    }
}

#[track_caller]
pub(crate) fn invalid<T: std::fmt::Debug>(result: Result<T>) {
    refused(result, Errno::EINVAL);
}

/// Payload of 32-bit words, stated without the protocol's structures.
pub(crate) fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}

/// The session goes on.
#[track_caller]
pub(crate) fn alive(client: &mut Client) {
    assert_eq!(client.read::<u32>(7, 0).unwrap(), 0x5845_1b36);
}
