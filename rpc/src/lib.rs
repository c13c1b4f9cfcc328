//! JSON-RPC 2.0.
#![forbid(unsafe_code)]

mod client;
pub mod config;
mod error;
mod frame;
mod message;
mod params;
mod registry;
mod responder;
mod server;
mod value;

pub use client::{Client, ClientError, ClientOptions};
pub use error::{RpcError, code};
pub use frame::{Frame, FrameError, FrameLimits, Framer, MAX_DEPTH, SyntaxError};
pub use params::{DecodeStyle, Params};
pub use registry::{DeferredHandler, Handler, Registry, RegistryError, State, When};
pub use responder::{Request, Responder};
pub use server::{BindError, Limits, Server, ServerHandle, ServerOptions};
