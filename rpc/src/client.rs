//! A blocking client, for command lines and tests.

use crate::error::RpcError;
use crate::frame::{Frame, FrameLimits, Framer};
use crate::server::MAX_PATH;
use nix::errno::Errno;
use nix::sys::socket::{self, AddressFamily, SockFlag, SockType, UnixAddr, setsockopt, sockopt};
use nix::sys::time::TimeVal;
use serde_json::{Map, Value};
use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

/// Replies may be larger than requests: the server's 32 MiB and any number of values.
const REPLY: FrameLimits = FrameLimits {
    bytes: 64 * 1024 * 1024,
    values: usize::MAX,
};

/// How patient a client is. The defaults are those of SPDK's `rpc.py`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClientOptions {
    /// For connecting once, and for each call until its answer (60 s).
    pub timeout: Duration,
    /// Further attempts to connect (0).
    pub retries: u32,
    /// Pause between them (200 ms).
    pub retry_interval: Duration,
}

impl Default for ClientOptions {
    fn default() -> Self {
        Self {
            timeout: Duration::from_secs(60),
            retries: 0,
            retry_interval: Duration::from_millis(200),
        }
    }
}

/// Why a call has no result.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// There is no socket.
    #[error(
        "there is no RPC socket {0:?}: is the daemon running? If it uses another socket, give it \
         with -r"
    )]
    NoSocket(PathBuf),
    /// There is a socket, but no server behind it.
    #[error(
        "nothing listens on {0:?}: the daemon is no longer running, or uses another socket (give \
         it with -r)"
    )]
    NotListening(PathBuf),
    /// The socket's permissions do not allow it.
    #[error("permission denied to connect to {0:?}: run as the user who runs the daemon")]
    Denied(PathBuf),
    /// The path does not fit a socket address.
    #[error("the RPC socket path {0:?} is longer than the {MAX_PATH} bytes that the system allows")]
    PathTooLong(PathBuf),
    /// No answer in time. The call may still run.
    #[error("no answer from {path:?} within {seconds} s; the call may still be running")]
    Timeout {
        /// The socket's path.
        path: PathBuf,
        /// The patience that ran out.
        seconds: f64,
    },
    /// The server closed the connection instead of answering.
    #[error("the daemon closed the connection before it answered")]
    Closed,
    /// What came back is not JSON-RPC.
    #[error("{path:?} does not answer with JSON-RPC: {reason}")]
    Protocol {
        /// The socket's path.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The server refused the call.
    #[error(transparent)]
    Rpc(#[from] RpcError),
    /// The system failed.
    #[error("RPC over {path:?}: {source}")]
    Io {
        /// The socket's path.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
}

/// A message that answers no call.
#[derive(Debug, Clone, PartialEq)]
pub struct Notification {
    /// What it is about.
    pub method: String,
    /// The rest; `null` if there is none.
    pub params: Value,
}

impl Notification {
    /// A message, if it is one: it has a method and no id (JSON-RPC 2.0 section 4.1).
    fn take(message: &mut Value) -> Option<Self> {
        if message.get("id").is_some() {
            return None;
        }
        let method = message.get("method")?.as_str()?.to_owned();
        let params = message.get_mut("params").map(Value::take);
        Some(Self {
            method,
            params: params.unwrap_or_default(),
        })
    }
}

/// Notifications kept while a reply is waited for: more than any server sends meanwhile.
const MAX_NOTIFICATIONS: usize = 64 * 1024;

/// One connection to a server. One call at a time; answers to earlier calls that timed out are
/// skipped.
#[derive(Debug)]
pub struct Client {
    path: PathBuf,
    stream: UnixStream,
    timeout: Duration,
    framer: Framer,
    /// Replies that came with one that was read.
    inbox: VecDeque<Value>,
    /// Notifications that came before a reply.
    notifications: VecDeque<Notification>,
    last_id: u64,
}

impl Client {
    /// Connects, as often as the options say.
    ///
    /// # Errors
    /// The last attempt's.
    pub fn connect(path: impl Into<PathBuf>, options: ClientOptions) -> Result<Self, ClientError> {
        let path = path.into();
        let mut left = options.retries;
        let stream = loop {
            match connect(&path, options.timeout) {
                Ok(stream) => break stream,
                Err(ClientError::PathTooLong(path)) => return Err(ClientError::PathTooLong(path)),
                Err(error) if left == 0 => return Err(error),
                Err(_) => {
                    left -= 1;
                    thread::sleep(options.retry_interval);
                }
            }
        };
        Ok(Self {
            path,
            stream,
            timeout: options.timeout,
            framer: Framer::new(REPLY),
            inbox: VecDeque::new(),
            notifications: VecDeque::new(),
            last_id: 0,
        })
    }

    /// Sends one call and waits for its result. Parameters that are `null` or empty are left out.
    ///
    /// # Errors
    /// [`ClientError::Rpc`] if the server refused the call; otherwise what kept the answer away.
    pub fn call(&mut self, method: &str, params: Value) -> Result<Value, ClientError> {
        let (id, request) = self.request(method, params);
        let deadline = self.send(&request)?;
        loop {
            let mut reply = self.receive_reply(deadline)?;
            if !reply.is_object() {
                return Err(self.protocol("the reply is not an object"));
            }
            match reply.get("id").and_then(Value::as_u64) {
                Some(other) if other != id => continue,
                // An id of null answers what the server could not make sense of.
                _ => return Ok(self.outcome(&mut reply)??),
            }
        }
    }

    /// Sends calls as one batch. The results are in the calls' order.
    ///
    /// # Errors
    /// What kept the answer away, or [`ClientError::Rpc`] if the batch as a whole was refused.
    pub fn batch<'a>(
        &mut self,
        calls: impl IntoIterator<Item = (&'a str, Value)>,
    ) -> Result<Vec<Result<Value, RpcError>>, ClientError> {
        let calls = calls.into_iter();
        let (ids, requests): (Vec<u64>, Vec<Value>) = calls
            .map(|(method, params)| self.request(method, params))
            .unzip();
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let deadline = self.send(&Value::Array(requests))?;
        let mut replies = loop {
            match self.receive_reply(deadline)? {
                Value::Array(replies) => break replies,
                // A late answer to an earlier call, unless it has no id.
                mut reply => {
                    if reply.get("id").is_none_or(Value::is_null) {
                        self.outcome(&mut reply)??;
                    }
                }
            }
        };
        ids.iter()
            .map(|id| {
                let reply = replies
                    .iter_mut()
                    .find(|reply| reply.get("id").and_then(Value::as_u64) == Some(*id));
                match reply {
                    Some(reply) => self.outcome(reply),
                    None => Err(self.protocol("a call of the batch is not answered")),
                }
            })
            .collect()
    }

    fn request(&mut self, method: &str, params: Value) -> (u64, Value) {
        self.last_id = self.last_id.wrapping_add(1);
        let mut request = Map::new();
        request.insert("jsonrpc".into(), "2.0".into());
        request.insert("method".into(), method.into());
        request.insert("id".into(), self.last_id.into());
        let empty = match &params {
            Value::Null => true,
            Value::Object(entries) => entries.is_empty(),
            _ => false,
        };
        if !empty {
            request.insert("params".into(), params);
        }
        (self.last_id, request.into())
    }

    /// Returns the time at which patience ends.
    fn send(&mut self, request: &Value) -> Result<Instant, ClientError> {
        let started = Instant::now();
        let deadline = started.checked_add(self.timeout).unwrap_or(started);
        let bytes = request.to_string().into_bytes();
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            let left = self.left(deadline)?;
            let sent = self
                .stream
                .set_write_timeout(Some(left))
                .and_then(|()| self.stream.write(rest));
            match sent {
                Ok(count) => rest = rest.get(count..).unwrap_or_default(),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // A server that refuses a request says why before it closes.
                Err(error) if error.kind() == ErrorKind::BrokenPipe => break,
                Err(error) if is_timeout(&error) => {
                    // Half a request: nothing can follow it.
                    let _ = self.stream.shutdown(Shutdown::Both);
                    return Err(self.timed_out());
                }
                Err(error) => return Err(self.io(error)),
            }
        }
        Ok(deadline)
    }

    /// The next notification that the server sends of itself, for as long as it takes, or up to `patience` (then
    /// [`ClientError::Timeout`]).
    ///
    /// # Errors
    /// What keeps it away; [`ClientError::Closed`] once the server has gone.
    pub fn notification(
        &mut self,
        patience: Option<Duration>,
    ) -> Result<Notification, ClientError> {
        let deadline = patience.and_then(|patience| Instant::now().checked_add(patience));
        loop {
            if let Some(notification) = self.notifications.pop_front() {
                return Ok(notification);
            }
            let mut message = self.receive(deadline)?;
            // Anything else is a late answer to an earlier call.
            if let Some(notification) = Notification::take(&mut message) {
                return Ok(notification);
            }
        }
    }

    /// The next reply, whatever it answers. Notifications that come before it are kept.
    fn receive_reply(&mut self, deadline: Instant) -> Result<Value, ClientError> {
        loop {
            let mut message = self.receive(Some(deadline))?;
            match Notification::take(&mut message) {
                Some(notification) if self.notifications.len() < MAX_NOTIFICATIONS => {
                    self.notifications.push_back(notification);
                }
                Some(_) => {
                    return Err(self.protocol("it sends notifications without end"));
                }
                None => return Ok(message),
            }
        }
    }

    /// The next message; without a deadline, for as long as it takes.
    fn receive(&mut self, deadline: Option<Instant>) -> Result<Value, ClientError> {
        let mut chunk = [0; 16 * 1024];
        loop {
            if let Some(reply) = self.inbox.pop_front() {
                return Ok(reply);
            }
            let left = deadline.map(|deadline| self.left(deadline)).transpose()?;
            let count = self
                .stream
                .set_read_timeout(left)
                .and_then(|()| self.stream.read(&mut chunk));
            let count = match count {
                Ok(0) => return Err(ClientError::Closed),
                Ok(count) => count,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == ErrorKind::ConnectionReset => {
                    return Err(ClientError::Closed);
                }
                Err(error) if is_timeout(&error) => return Err(self.timed_out()),
                Err(error) => return Err(self.io(error)),
            };
            let mut input = chunk.get(..count).unwrap_or_default();
            while let Some(frame) = self.framer.next(&mut input) {
                let reply = match frame {
                    Ok(Frame::Container(bytes)) => {
                        serde_json::from_slice(&bytes).map_err(|error| error.to_string())
                    }
                    Ok(Frame::Scalar) => Err("the reply is not an object".to_owned()),
                    Err(error) => Err(error.to_string()),
                };
                match reply {
                    Ok(reply) => self.inbox.push_back(reply),
                    Err(reason) => return Err(self.protocol(reason)),
                }
            }
        }
    }

    /// Takes a reply apart. The outer error is one of the protocol.
    fn outcome(&self, reply: &mut Value) -> Result<Result<Value, RpcError>, ClientError> {
        if let Some(error) = reply.get_mut("error").filter(|error| !error.is_null()) {
            return serde_json::from_value(error.take())
                .map(Err)
                .map_err(|error| self.protocol(format!("the error of the reply: {error}")));
        }
        match reply.get_mut("result") {
            Some(result) => Ok(Ok(result.take())),
            None => Err(self.protocol("the reply has neither result nor error")),
        }
    }

    fn left(&self, deadline: Instant) -> Result<Duration, ClientError> {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(self.timed_out());
        }
        Ok(left)
    }

    fn timed_out(&self) -> ClientError {
        timeout(&self.path, self.timeout)
    }

    fn protocol(&self, reason: impl Into<String>) -> ClientError {
        ClientError::Protocol {
            path: self.path.clone(),
            reason: reason.into(),
        }
    }

    fn io(&self, source: io::Error) -> ClientError {
        let path = self.path.clone();
        ClientError::Io { path, source }
    }
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
}

fn timeout(path: &Path, patience: Duration) -> ClientError {
    ClientError::Timeout {
        path: path.to_owned(),
        seconds: patience.as_secs_f64(),
    }
}

fn connect(path: &Path, patience: Duration) -> Result<UnixStream, ClientError> {
    if path.as_os_str().as_bytes().len() > MAX_PATH {
        return Err(ClientError::PathTooLong(path.to_owned()));
    }
    let connected = || -> Result<UnixStream, Errno> {
        let flags = SockFlag::SOCK_CLOEXEC;
        let fd = socket::socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
        // connect(2) waits this long for room in the listen queue (unix_stream_connect).
        let micros = i64::try_from(patience.as_micros()).unwrap_or(i64::MAX);
        let patience = TimeVal::new(micros / 1_000_000, micros % 1_000_000);
        setsockopt(&fd, sockopt::SendTimeout, &patience)?;
        socket::connect(fd.as_raw_fd(), &UnixAddr::new(path)?)?;
        Ok(UnixStream::from(fd))
    };
    connected().map_err(|error| match error {
        Errno::ENOENT => ClientError::NoSocket(path.to_owned()),
        Errno::ECONNREFUSED => ClientError::NotListening(path.to_owned()),
        Errno::EACCES | Errno::EPERM => ClientError::Denied(path.to_owned()),
        Errno::EAGAIN => timeout(path, patience),
        error => ClientError::Io {
            path: path.to_owned(),
            source: error.into(),
        },
    })
}
