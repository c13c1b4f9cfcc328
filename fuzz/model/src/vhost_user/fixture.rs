//! The back-end that every input meets: one endpoint on one reactor, for the life of the process.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Instant;

use reactor::{Config, Mode};
use vhost_user::{Endpoint, EndpointHandle, Listener, Options};

use super::TIMEOUT;
use super::probe::{Probe, Script};
use crate::panics;

pub(super) struct Fixture {
    endpoint: EndpointHandle,
    /// The socket's inode: its name is gone, so that nothing stays behind.
    socket: File,
    script: Arc<Mutex<Script>>,
}

impl Fixture {
    /// The fixture, for one input at a time.
    pub(super) fn lock() -> MutexGuard<'static, Self> {
        static FIXTURE: OnceLock<Mutex<Fixture>> = OnceLock::new();
        let fixture = FIXTURE.get_or_init(|| Mutex::new(Self::new()));
        fixture.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn new() -> Self {
        panics::watch();
        let config = Config {
            mode: Mode::Adaptive,
            ..Config::default()
        };
        let (reactor, _) = reactor::spawn(config).expect("a reactor");
        let directory = std::env::temp_dir().join(format!("vtarget-fuzz-{}", std::process::id()));
        std::fs::create_dir_all(&directory).expect("a directory");
        let path = directory.join("socket");
        let listener = Listener::bind(&path).expect("a listener");
        let script = Arc::new(Mutex::new(Script::default()));
        let of_devices = Arc::clone(&script);
        let endpoint = Endpoint::start(
            listener,
            &reactor,
            Options::default(),
            Box::new(move |_| {
                let script = *of_devices.lock().unwrap_or_else(PoisonError::into_inner);
                Ok(Box::new(Probe::new(script)))
            }),
        );
        let socket = File::options()
            .read(true)
            .custom_flags(nix::libc::O_PATH)
            .open(&path)
            .expect("the socket");
        std::fs::remove_dir_all(&directory).expect("our own directory");
        Self {
            endpoint,
            socket,
            script,
        }
    }

    pub(super) fn connect(&self, script: Script) -> UnixStream {
        *self.script.lock().unwrap_or_else(PoisonError::into_inner) = script;
        UnixStream::connect(format!("/proc/self/fd/{}", self.socket.as_raw_fd()))
            .expect("a connection")
    }

    /// Waits until nothing of the client is left.
    pub(super) fn wait_for_the_end(&self) {
        let deadline = Instant::now() + TIMEOUT;
        while self.endpoint.is_connected() {
            assert!(Instant::now() < deadline, "the client is never let go of");
            std::thread::yield_now();
        }
    }
}
