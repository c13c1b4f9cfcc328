//! The server and the client over real sockets.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a helper that fails fails its test"
)]

mod access;
mod common;
mod hostile;
mod lifecycle;
mod limits;
mod requests;
