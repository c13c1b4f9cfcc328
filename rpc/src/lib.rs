//! JSON-RPC 2.0 over a UNIX stream socket, as SPDK speaks it: its framing, limits, codes and
//! states, so that `rpc.py` and whatever else drives SPDK works unchanged. No domain knowledge: it
//! carries calls, it knows none but `rpc_get_methods`.
//!
//! ```text
//! client ──▶ Framer ──▶ message ──▶ sink ──channel──▶ Registry::dispatch ──▶ handler
//!    ▲       (one "rpc" thread: Server)              (the daemon's control thread)│
//!    └────── Outbox ◀── reply ◀── waker ◀──────────── Responder (any thread) ◀────┘
//! ```
//!
//! Nothing here is on the path of guests' I/O. What matters instead is that a call is answered at
//! once (the thread sleeps in the kernel until something happens, it does not poll), and that no
//! client can harm another: see [`Limits`], and the tests in `tests/socket/hostile.rs`.
//!
//! ```
//! use rpc::{Client, DecodeStyle, Params, Registry, RpcError, Server, ServerOptions, State, When};
//! use serde_json::{Value, json};
//!
//! #[derive(serde::Deserialize)]
//! #[serde(deny_unknown_fields)]
//! struct Resize {
//!     name: String,
//!     #[serde(default)]
//!     new_size: u64,
//! }
//!
//! /// The state that handlers work on.
//! struct Daemon;
//!
//! fn resize(_daemon: &mut Daemon, params: Params) -> Result<Value, RpcError> {
//!     let Resize { name, new_size } = params.decode(DecodeStyle::INTERNAL)?;
//!     if new_size == 0 {
//!         let reason = format!("new_size of {name} is 0, give it in MiB");
//!         return Err(RpcError::errno(nix::errno::Errno::EINVAL, reason));
//!     }
//!     Ok(json!(true))
//! }
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let directory = tempfile::tempdir()?;
//! # let path = directory.path().join("rpc.sock");
//! let mut registry = Registry::new();
//! registry.method("bdev_null_resize", When::Runtime, resize)?;
//!
//! let (sender, requests) = std::sync::mpsc::channel();
//! let server = Server::bind(ServerOptions::new(&path))?;
//! let server = server.start(move |request| drop(sender.send(request)))?;
//! let control = std::thread::spawn(move || {
//!     for request in requests {
//!         registry.dispatch(&mut Daemon, State::Runtime, request);
//!     }
//! });
//!
//! let mut client = Client::connect(&path, Default::default())?;
//! assert_eq!(client.call("bdev_null_resize", json!({"name": "Null0", "new_size": 8}))?, true);
//! let refused = client.call("bdev_null_resize", json!({"name": "Null0", "newsize": 8}));
//! assert!(refused.unwrap_err().to_string().contains("unknown field `newsize`"));
//! # drop(client);
//! server.shutdown(std::time::Duration::from_secs(1));
//! # control.join().unwrap();
//! # Ok(())
//! # }
//! ```
//!
//! # Where it is kinder than SPDK
//! Every refusal says why, after the text SPDK would send. A client learns why before it is
//! disconnected. One that has finished sending (`shutdown(SHUT_WR)`) still gets its answers.
//! Methods without parameters accept `{}`. A call whose handler forgets it is answered. Replies of
//! a batch keep the order of the calls.
//!
//! # What it does not do
//! TCP, authentication (the socket's permissions are the access control; a socket of its own may be
//! restricted to methods that change nothing, see [`Access`]), comments on the socket, calls from the
//! server to the client other than notifications ([`Notifier`]).
#![forbid(unsafe_code)]

mod caller;
mod client;
pub mod config;
mod error;
mod frame;
mod message;
mod notifier;
mod params;
mod registry;
mod responder;
mod server;
mod value;

pub use caller::{Access, Caller, Peer};
pub use client::{Client, ClientError, ClientOptions, Notification};
pub use error::{RpcError, code};
pub use frame::{Frame, FrameError, FrameLimits, Framer, MAX_DEPTH, SyntaxError};
pub use notifier::{LOST, Notifier, NotifyError};
pub use params::{DecodeStyle, Params};
pub use registry::{DeferredHandler, Guard, Handler, Registry, RegistryError, State, When};
pub use responder::{Request, Responder};
pub use server::{BindError, Limits, Server, ServerHandle, ServerOptions};
