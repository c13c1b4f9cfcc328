//! SPDK's `spdk_top`, unmodified, shows threads, pollers and cores of the daemon.

use std::io::{Read, Write};
use std::num::NonZero;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use crate::common::Daemon;

/// The built program, or why it is not tried.
fn program() -> Option<PathBuf> {
    let Some(directory) = std::env::var_os("VTARGET_SPDK_DIR") else {
        println!("skipped: VTARGET_SPDK_DIR names no checkout of SPDK");
        return None;
    };
    let program = PathBuf::from(directory).join("build/bin/spdk_top");
    if !program.exists() {
        println!("skipped: {} has not been built", program.display());
        return None;
    }
    Some(program)
}

const ROWS: NonZero<u16> = NonZero::new(50).expect("not zero");
const COLUMNS: NonZero<u16> = NonZero::new(160).expect("not zero");
/// Python has a pseudo-terminal without unsafe code, and is there where `rpc.py` runs.
const RELAY: &str = "import pty, sys; pty.spawn(sys.argv[1:])";

/// The program on a terminal of its own.
struct Screen {
    child: Child,
    output: Receiver<Vec<u8>>,
    terminal: vt100::Parser,
}

impl Screen {
    fn start(program: &PathBuf, socket: &std::path::Path) -> Self {
        let mut child = Command::new("python3")
            .args(["-c", RELAY])
            .arg(program)
            .arg("-r")
            .arg(socket)
            .env("TERM", "xterm")
            .env("LINES", ROWS.to_string())
            .env("COLUMNS", COLUMNS.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("python3 runs");
        let mut from = child.stdout.take().expect("its output");
        let (sender, output) = channel();
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(read @ 1..) = from.read(&mut buffer) {
                let _ = sender.send(buffer[..read].to_vec());
            }
        });
        let terminal = vt100::Parser::new(ROWS, COLUMNS, 0);
        Self {
            child,
            output,
            terminal,
        }
    }

    fn press(&mut self, key: u8) {
        let stdin = self.child.stdin.as_mut().expect("its input");
        stdin.write_all(&[key]).expect("it reads");
        stdin.flush().expect("it reads");
    }

    /// Waits until all of these are on the screen.
    fn shows(&mut self, wanted: &[&str]) {
        let until = Instant::now() + Duration::from_secs(60);
        loop {
            let text = self.terminal.screen().contents();
            if wanted.iter().all(|part| text.contains(part)) {
                return;
            }
            let left = until.saturating_duration_since(Instant::now());
            match self.output.recv_timeout(left) {
                Ok(bytes) => self.terminal.process(&bytes),
                Err(_) => panic!("the screen lacks one of {wanted:?}:\n{text}"),
            }
        }
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn spdk_top_shows_the_daemon() {
    let Some(program) = program() else {
        return;
    };
    let place = crate::common::directory();
    let mut daemon = Daemon::start(place.path(), &["-m", "0x1"]);
    daemon.subsystem();
    daemon.listen(&place.path().join("vm"));
    let mut screen = Screen::start(&program, daemon.socket());
    screen.shows(&["THREADS", "Thread name", "reactor_0"]);
    screen.press(b'2');
    screen.shows(&["Poller name", "vm/cntrl", "reactor_0"]);
    screen.press(b'3');
    screen.shows(&["Core", "Busy %", "Intr", " 0 "]);
    screen.press(b'q');
    let ended = screen.child.wait().expect("it ends");
    assert!(ended.success(), "{ended}");
    daemon.stop();
}
