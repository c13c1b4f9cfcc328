//! What the servers of vfio-user and vhost-user share: a socket that listens, one client at a time, and descriptors that travel
//! with bytes.
//!
//! ```text
//!  Listener (binds; takes over what a dead server left; refuses a live one's path)
//!     └─► Server (poller: one client at a time, the others wait in the backlog) ─ socket, Link ─► the protocol's session (poller)
//!         ServerHandle (other threads): path, is_connected, remove   stream::{receive, send}, Outbox ◄┘
//! ```
//!
//! What it does not do: it knows no protocol, and is on no path of a guest's reads and writes.
#![forbid(unsafe_code)]

mod complaints;
mod listener;
mod outbox;
mod server;
pub mod stream;

pub use complaints::Complaints;
pub use listener::{ListenError, Listener, MAX_PATH};
pub use outbox::Outbox;
pub use server::{Link, Server, ServerHandle, Sessions};
pub use stream::Ancillary;
