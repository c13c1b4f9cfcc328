//! A daemon of its own for each test.

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rpc::{Client, ClientError, ClientOptions};
use serde_json::{Value, json};
use tempfile::TempDir;

pub(crate) const NQN: &str = "nqn.2026-11.io.example:disk0";

/// A running daemon, in a directory of its own; killed with the test if it is still there.
pub(crate) struct Daemon {
    child: Child,
    out: BufReader<ChildStdout>,
    log: PathBuf,
    socket: PathBuf,
    client: Option<Client>,
}

/// A directory whose path is short enough for sockets.
pub(crate) fn directory() -> TempDir {
    tempfile::Builder::new()
        .prefix("vt")
        .tempdir_in("/tmp")
        .expect("a directory")
}

fn command(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_vtarget"));
    command.arg("serve").args(args).stdin(Stdio::null());
    command.env_remove("VTARGET_LOG");
    command
}

/// Starts `vtarget serve` and waits for its end.
pub(crate) fn run(args: &[&str]) -> Output {
    command(args).output().expect("vtarget starts")
}

/// What a command that must fail says.
pub(crate) fn refusal(args: &[&str]) -> String {
    let output = run(args);
    assert!(!output.status.success(), "{args:?} must be refused");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

impl Daemon {
    /// Starts `vtarget serve -r …` and waits until it says that it listens.
    pub(crate) fn start(directory: &Path, args: &[&str]) -> Self {
        let socket = directory.join("rpc.sock");
        let text = socket.to_str().expect("a path").to_owned();
        let args: Vec<&str> = ["-r", &text]
            .into_iter()
            .chain(args.iter().copied())
            .collect();
        Self::start_at(socket, directory, &args)
    }

    /// Starts `vtarget serve` with these arguments alone; it will listen at `socket`.
    pub(crate) fn start_at(socket: PathBuf, directory: &Path, args: &[&str]) -> Self {
        let log = directory.join("log");
        let file = std::fs::File::create(&log).expect("a log");
        let mut child = command(args)
            .stdout(Stdio::piped())
            .stderr(file)
            .spawn()
            .expect("vtarget starts");
        let out = BufReader::new(child.stdout.take().expect("its output"));
        let mut daemon = Self {
            child,
            out,
            log,
            socket,
            client: None,
        };
        let line = daemon.line();
        assert!(
            line.starts_with("vtarget "),
            "no ready line but {line:?}; the log:\n{}",
            daemon.log()
        );
        daemon
    }

    /// The next line of its output; empty if it has ended.
    pub(crate) fn line(&mut self) -> String {
        let mut line = String::new();
        self.out.read_line(&mut line).expect("readable output");
        line
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn socket(&self) -> &Path {
        &self.socket
    }

    /// A connection of its own.
    pub(crate) fn connect(&self) -> Client {
        let options = ClientOptions {
            timeout: Duration::from_secs(50),
            ..ClientOptions::default()
        };
        match Client::connect(&self.socket, options) {
            Ok(client) => client,
            Err(error) => panic!("{error}; the log:\n{}", self.log()),
        }
    }

    /// Calls a method; its result, or code and text of its error.
    pub(crate) fn call(&mut self, method: &str, params: Value) -> Result<Value, (i64, String)> {
        let mut client = self.client.take().unwrap_or_else(|| self.connect());
        let result = client.call(method, params);
        self.client = Some(client);
        result.map_err(|error| match error {
            ClientError::Rpc(error) => (error.code, error.message),
            error => panic!("{method}: {error}; the log:\n{}", self.log()),
        })
    }

    /// Calls a method that must work.
    pub(crate) fn ok(&mut self, method: &str, params: Value) -> Value {
        match self.call(method, params.clone()) {
            Ok(result) => result,
            Err((code, text)) => panic!("{method} {params}: {text} ({code})"),
        }
    }

    /// Calls a method that must be refused with this code, and with a text that has this part.
    #[track_caller]
    pub(crate) fn refused(&mut self, method: &str, params: Value, code: i64, part: &str) {
        match self.call(method, params.clone()) {
            Ok(result) => panic!("{method} {params} was not refused but answered {result}"),
            Err((found, text)) => {
                assert_eq!(found, code, "{method} {params}: {text}");
                assert!(
                    text.contains(part),
                    "{method} {params}: {text:?} lacks {part:?}"
                );
            }
        }
    }

    /// The configuration, as `save_config` of SPDK's client makes it.
    pub(crate) fn save_config(&mut self) -> Value {
        let subsystems = self.ok("framework_get_subsystems", Value::Null);
        let subsystems = subsystems
            .as_array()
            .expect("a list")
            .iter()
            .map(|subsystem| {
                let name = &subsystem["subsystem"];
                let config = self.ok("framework_get_config", json!({ "name": name }));
                json!({"subsystem": name, "config": config})
            });
        let subsystems: Vec<Value> = subsystems.collect();
        json!({ "subsystems": subsystems })
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id()).expect("a process id");
        kill(Pid::from_raw(pid), signal).expect("it is there");
    }

    /// Waits for its end; its exit code.
    pub(crate) fn wait(&mut self) -> Option<i32> {
        self.client = None;
        let mut rest = String::new();
        self.out.read_to_string(&mut rest).expect("readable output");
        self.child.wait().expect("it ends").code()
    }

    /// Ends it as an operator would: it must leave in order.
    pub(crate) fn stop(mut self) {
        self.signal(Signal::SIGTERM);
        assert_eq!(self.wait(), Some(0), "the log:\n{}", self.log());
        assert!(!self.socket.exists(), "the RPC socket is left");
    }

    /// A subsystem with a transport, ready for namespaces and listeners.
    pub(crate) fn subsystem(&mut self) {
        self.ok("nvmf_create_transport", json!({"trtype": "VFIOUSER"}));
        self.ok(
            "nvmf_create_subsystem",
            json!({"nqn": NQN, "allow_any_host": true}),
        );
    }

    pub(crate) fn malloc(&mut self, name: &str) {
        let params = json!({"name": name, "block_size": 512, "num_blocks": 16384});
        assert_eq!(self.ok("bdev_malloc_create", params), name);
    }

    pub(crate) fn add_ns(&mut self, bdev: &str) -> u64 {
        let params = json!({"nqn": NQN, "namespace": {"bdev_name": bdev}});
        self.ok("nvmf_subsystem_add_ns", params)
            .as_u64()
            .expect("a number")
    }

    /// Listens in a new directory; the socket's path.
    pub(crate) fn listen(&mut self, directory: &Path) -> PathBuf {
        std::fs::create_dir_all(directory).expect("a directory");
        self.ok(
            "nvmf_subsystem_add_listener",
            json!({"nqn": NQN, "listen_address": address(directory)}),
        );
        directory.join("cntrl")
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) fn address(directory: &Path) -> Value {
    json!({"trtype": "VFIOUSER", "traddr": directory, "trsvcid": "0"})
}

/// A file of zeroes.
pub(crate) fn file(directory: &Path, name: &str, bytes: u64) -> PathBuf {
    let path = directory.join(name);
    let file = std::fs::File::create(&path).expect("a file");
    file.set_len(bytes).expect("room");
    path
}
