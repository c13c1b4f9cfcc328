use nix::errno::Errno;

/// Why a request is refused: a number for the client, a reason for the operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{why} ({errno})")]
pub struct Rejection {
    /// Goes into the error reply.
    pub errno: Errno,
    /// Goes into the log.
    pub why: &'static str,
}

impl Rejection {
    /// A refusal.
    pub fn new(errno: Errno, why: &'static str) -> Self {
        Self { errno, why }
    }

    /// The refusal of a malformed request.
    pub fn invalid(why: &'static str) -> Self {
        Self::new(Errno::EINVAL, why)
    }
}
