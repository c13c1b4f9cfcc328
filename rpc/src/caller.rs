//! Who calls, and what they may.

use std::fmt;

/// What the clients of a socket may do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Access {
    /// Call every method.
    #[default]
    Full,
    /// Call only methods that are marked as changing nothing
    /// ([`Registry::read_only`](crate::Registry::read_only)).
    ReadOnly,
}

/// The process at the other end of a socket, as it was when it connected (`SO_PEERCRED`, unix(7)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    /// Its process id, 0 where it is outside of our process id namespace.
    pub pid: i32,
    /// Its effective user.
    pub uid: u32,
    /// Its effective group.
    pub gid: u32,
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { pid, uid, gid } = self;
        write!(f, "process {pid} of user {uid} and group {gid}")
    }
}

/// Where a call comes from. The default is the process itself, which may do everything.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Caller {
    /// What it may do.
    pub access: Access,
    /// Who it is; `None` for calls from within the process, and where the system does not say.
    pub peer: Option<Peer>,
}
