//! A server with a handful of methods, and a raw client that checks the framing of replies.

use rpc::{
    Frame, FrameLimits, Framer, Limits, Params, Request, RpcError, Server, ServerHandle,
    ServerOptions,
};
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver};
use std::time::Duration;
use tempfile::TempDir;

/// Only a test that fails waits as long.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) struct Harness {
    pub(crate) handle: Option<ServerHandle>,
    /// Requests for the method `park`, which the test answers.
    pub(crate) parked: Receiver<Request>,
    pub(crate) directory: TempDir,
}

impl Harness {
    pub(crate) fn new() -> Self {
        Self::with_limits(Limits::default())
    }

    pub(crate) fn with_limits(limits: Limits) -> Self {
        Self::with(|options| options.limits = limits)
    }

    pub(crate) fn with(change: impl FnOnce(&mut ServerOptions)) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut options = ServerOptions::new(directory.path().join("rpc.sock"));
        change(&mut options);
        let (park, parked) = mpsc::channel();
        let server = Server::bind(options).unwrap();
        let handle = server.start(move |request| serve(request, &park)).unwrap();
        Self {
            handle: Some(handle),
            parked,
            directory,
        }
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.directory.path().join("rpc.sock")
    }

    pub(crate) fn connect(&self) -> Peer {
        Peer::connect(&self.path())
    }

    /// The next request for `park`.
    pub(crate) fn next_parked(&self) -> Request {
        self.parked.recv_timeout(PATIENCE).unwrap()
    }

    /// A client that has nothing to do with the test's others is still served.
    pub(crate) fn assert_alive(&self) {
        self.connect().assert_alive();
    }
}

fn serve(request: Request, park: &mpsc::Sender<Request>) {
    let Request {
        method,
        params,
        caller,
        responder,
    } = request;
    match method.as_str() {
        "echo" => responder.ok(params.value().cloned().unwrap_or(Value::Null)),
        // A string of as many bytes.
        "big" => responder.ok("x".repeat(length(&params))),
        "fail" => responder.err(RpcError::new(-19, "No such device: try another")),
        "drop" => drop(responder),
        "whoami" => responder.ok(format!("{caller:?}")),
        "park" => {
            let request = Request {
                method,
                params,
                caller,
                responder,
            };
            let _ = park.send(request);
        }
        _ => responder.err(RpcError::method_not_found()),
    }
}

fn length(params: &Params) -> usize {
    let length = params.value().and_then(|params| params[0].as_u64());
    usize::try_from(length.unwrap()).unwrap()
}

/// A client without any help.
pub(crate) struct Peer {
    pub(crate) stream: UnixStream,
    framer: Framer,
    received: VecDeque<Value>,
}

impl Peer {
    pub(crate) fn connect(path: &Path) -> Self {
        let stream = UnixStream::connect(path).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        let limits = FrameLimits {
            bytes: 1 << 30,
            values: usize::MAX,
        };
        Self {
            stream,
            framer: Framer::new(limits),
            received: VecDeque::new(),
        }
    }

    pub(crate) fn send(&mut self, text: &str) -> &mut Self {
        self.stream.write_all(text.as_bytes()).unwrap();
        self
    }

    pub(crate) fn call(&mut self, method: &str, params: Value, id: u64) -> &mut Self {
        let request = json!({"jsonrpc": "2.0", "method": method, "params": params, "id": id});
        self.send(&request.to_string())
    }

    pub(crate) fn end_sending(&mut self) -> &mut Self {
        self.stream.shutdown(Shutdown::Write).unwrap();
        self
    }

    /// The next reply; `None` at the end of the stream. A reset is an end too: the server threw
    /// away what it had not read.
    pub(crate) fn try_receive(&mut self) -> Option<Value> {
        let mut chunk = vec![0; 65536];
        loop {
            if let Some(reply) = self.received.pop_front() {
                return Some(reply);
            }
            let count = match self.stream.read(&mut chunk) {
                Err(error) if error.kind() == ErrorKind::ConnectionReset => 0,
                count => count.unwrap(),
            };
            if count == 0 {
                self.framer.finish().unwrap();
                return None;
            }
            let mut input = &chunk[..count];
            while let Some(frame) = self.framer.next(&mut input) {
                let Frame::Container(bytes) = frame.unwrap() else {
                    panic!("a reply is no scalar");
                };
                self.received
                    .push_back(serde_json::from_slice(&bytes).unwrap());
            }
        }
    }

    pub(crate) fn receive(&mut self) -> Value {
        self.try_receive().expect("a reply")
    }

    pub(crate) fn result(&mut self) -> Value {
        let mut reply = self.receive();
        assert!(reply.get("error").is_none(), "{reply}");
        reply["result"].take()
    }

    /// The next reply is an error of this code and id.
    pub(crate) fn expect_error(&mut self, code: i64, id: Value) -> String {
        let reply = self.receive();
        assert_eq!(reply["error"]["code"], code, "{reply}");
        assert_eq!(reply["id"], id, "{reply}");
        assert!(reply.get("result").is_none(), "{reply}");
        reply["error"]["message"].as_str().unwrap().to_owned()
    }

    pub(crate) fn expect_end(&mut self) {
        assert_eq!(self.try_receive(), None);
    }

    pub(crate) fn assert_alive(&mut self) {
        self.call("echo", json!(["alive"]), 4242);
        assert_eq!(
            self.receive(),
            json!({"jsonrpc": "2.0", "id": 4242, "result": ["alive"]})
        );
    }
}
