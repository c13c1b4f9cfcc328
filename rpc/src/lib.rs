//! JSON-RPC 2.0.
#![forbid(unsafe_code)]

mod error;
mod frame;
mod message;
mod params;
mod registry;
mod responder;
mod value;

pub use error::{RpcError, code};
pub use frame::{Frame, FrameError, FrameLimits, Framer, MAX_DEPTH, SyntaxError};
pub use params::{DecodeStyle, Params};
pub use registry::{DeferredHandler, Handler, Registry, RegistryError, State, When};
pub use responder::{Request, Responder};
