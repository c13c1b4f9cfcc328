//! `vtarget top` on a terminal, against a daemon with a guest.

use std::fs::File;
use std::io::{Read, Write};
use std::num::NonZeroU16;
use std::path::Path;
use std::process::{Child, Command};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use nvme_spec::{NvmOpcode, Sqe};
use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};
use testkit::nvme::{Driver, Options};

use crate::common::{Daemon, directory};

/// How long to wait for what must come, on the slowest machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A terminal and the program on it.
struct Terminal {
    program: Child,
    keyboard: File,
    /// The program's end, kept open to look at its modes.
    line: File,
    output: Receiver<Vec<u8>>,
    parser: vt100::Parser,
}

fn size(number: u16) -> NonZeroU16 {
    NonZeroU16::new(number).expect("not zero")
}

fn window(columns: u16, rows: u16) -> Winsize {
    Winsize {
        ws_col: columns,
        ws_row: rows,
        ws_xpixel: 0,
        ws_ypixel: 0,
    }
}

impl Terminal {
    /// Starts `vtarget top` on a terminal of this size.
    fn start(socket: &Path, columns: u16, rows: u16) -> Self {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a terminal");
        grantpt(&master).expect("a terminal");
        unlockpt(&master).expect("a terminal");
        let line = ioctl_tiocgptpeer(&master, OpenptFlags::RDWR | OpenptFlags::NOCTTY);
        let line = File::from(line.expect("a terminal"));
        tcsetwinsize(&master, window(columns, rows)).expect("a size");
        let master = File::from(master);
        let end = || line.try_clone().expect("a descriptor");
        // As a shell does it: the terminal is the program's own, so that it is told of resizes.
        let program = Command::new("setsid")
            .args([
                "--ctty",
                env!("CARGO_BIN_EXE_vtarget"),
                "top",
                "-i",
                "0.1",
                "-s",
            ])
            .arg(socket)
            .env("TERM", "xterm-256color")
            .env_remove("NO_COLOR")
            .stdin(end())
            .stdout(end())
            .stderr(end())
            .spawn()
            .expect("vtarget starts");
        let mut screen = master.try_clone().expect("a descriptor");
        let (sender, output) = channel();
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(count @ 1..) = screen.read(&mut bytes) {
                if sender.send(bytes[..count].to_vec()).is_err() {
                    break;
                }
            }
        });
        Self {
            program,
            keyboard: master,
            line,
            output,
            parser: vt100::Parser::new(size(rows), size(columns), 0),
        }
    }

    fn text(&self) -> String {
        self.parser.screen().contents()
    }

    /// Waits until the screen is as it must be.
    fn until(&mut self, what: &str, is: impl Fn(&vt100::Screen) -> bool) {
        let end = Instant::now() + PATIENCE;
        while !is(self.parser.screen()) {
            let left = end.saturating_duration_since(Instant::now());
            match self.output.recv_timeout(left) {
                Ok(bytes) => self.parser.process(&bytes),
                Err(_) => panic!("never came: {what}; the screen:\n{}", self.text()),
            }
        }
    }

    fn until_text(&mut self, text: &str) {
        self.until(text, |screen| screen.contents().contains(text));
    }

    fn until_gone(&mut self, text: &str) {
        let what = format!("an end of {text}");
        self.until(&what, |screen| !screen.contents().contains(text));
    }

    fn press(&mut self, keys: &str) {
        self.keyboard
            .write_all(keys.as_bytes())
            .expect("a terminal");
    }

    fn resize(&mut self, columns: u16, rows: u16) {
        self.parser.set_size(size(rows), size(columns));
        tcsetwinsize(&self.keyboard, window(columns, rows)).expect("a size");
    }

    /// Waits for the program's end; its exit code. The terminal must be as it was.
    fn end(mut self) -> Option<i32> {
        let code = self.program.wait().expect("it ends").code();
        self.until("the normal screen with a cursor", |screen| {
            !screen.alternate_screen() && !screen.hide_cursor()
        });
        let modes = tcgetattr(&self.line).expect("modes").local_modes;
        assert!(modes.contains(LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG));
        code
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.program.kill();
        let _ = self.program.wait();
    }
}

/// A guest that reads until it shall stop.
fn load(socket: &Path, stop: &Arc<AtomicBool>) -> JoinHandle<()> {
    let (socket, stop) = (socket.to_owned(), Arc::clone(stop));
    std::thread::spawn(move || {
        let mut driver = Driver::connect(&socket, &Options::default()).expect("a controller");
        let mut queue = driver.create_queue_pair(16, None).expect("a queue");
        let buffer = driver.ram().alloc(4096, 4096).expect("guest memory");
        let sqe = Sqe::nvm(NvmOpcode::READ, 1).with_prps(buffer, 0);
        while !stop.load(Ordering::Relaxed) {
            queue.run(&sqe).expect("a completion");
        }
    })
}

/// Whether a row of this name shows a rate in its column of IOPS.
fn is_busy(screen: &vt100::Screen, name: &str) -> bool {
    let text = screen.contents();
    let mut rows = text.lines().filter(|line| line.starts_with(name));
    rows.any(|row| {
        let rate = row.split_whitespace().nth(1).unwrap_or_default();
        rate.starts_with(|c: char| ('1'..='9').contains(&c))
    })
}

#[test]
fn a_guest_is_seen_at_work_and_a_daemon_that_goes_and_comes_back() {
    let directory = directory();
    let mut daemon = Daemon::start(directory.path(), &[]);
    daemon.malloc("disk0");
    daemon.subsystem();
    daemon.add_ns("disk0");
    let socket = daemon.listen(&directory.path().join("vm0"));
    let stop = Arc::new(AtomicBool::new(false));
    let guest = load(&socket, &stop);

    let mut terminal = Terminal::start(daemon.socket(), 120, 30);
    terminal.until("a working guest", |screen| {
        is_busy(screen, "disk0") && screen.contents().contains("enabled")
    });
    assert!(terminal.text().contains(&format!("pid {}", daemon.pid())));

    terminal.resize(80, 24);
    terminal.until("the keys on the last line", |screen| {
        let text = screen.contents();
        text.lines()
            .nth(23)
            .is_some_and(|line| line.contains("q quit"))
    });
    terminal.press("/nothing\r");
    terminal.until_text("Bdevs 0 of 1");
    terminal.press("\x1b");
    terminal.until_text("Bdevs 1 by IOPS");
    terminal.press("?");
    terminal.until_text("any key goes back");
    terminal.press(" ");
    terminal.until_gone("any key goes back");
    terminal.resize(30, 5);
    terminal.until_text("The terminal has 30x5");
    terminal.resize(100, 30);
    terminal.until("a working guest", |screen| is_busy(screen, "disk0"));

    stop.store(true, Ordering::Relaxed);
    guest.join().expect("a guest without complaints");
    daemon.signal(Signal::SIGKILL);
    daemon.wait();
    terminal.until_text("NO ANSWER");
    assert!(terminal.text().contains("disk0"), "{}", terminal.text());
    let mut again = Daemon::start(directory.path(), &[]);
    again.malloc("disk1");
    terminal.until("the new daemon's disk alone", |screen| {
        let text = screen.contents();
        text.lines().any(|line| line.starts_with("disk1")) && !text.contains("NO ANSWER")
    });
    let text = terminal.text();
    assert!(
        !text.lines().any(|line| line.starts_with("disk0")),
        "{text}"
    );
    assert!(text.contains(&format!("pid {}", again.pid())), "{text}");

    terminal.press("q");
    assert_eq!(terminal.end(), Some(0));
    again.stop();
}

#[test]
fn a_signal_leaves_the_terminal_in_order() {
    let directory = directory();
    let daemon = Daemon::start(directory.path(), &[]);
    let mut terminal = Terminal::start(daemon.socket(), 100, 30);
    terminal.until_text("Bdevs 0");
    let pid = i32::try_from(terminal.program.id()).expect("a process id");
    kill(Pid::from_raw(pid), Signal::SIGTERM).expect("it is there");
    assert_eq!(terminal.end(), Some(128 + 15));
    daemon.stop();
}
