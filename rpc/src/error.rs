//! The `error` member of a reply.

use nix::errno::Errno;
use serde::{Deserialize, Serialize};
use std::fmt::{self, Display};

/// JSON-RPC 2.0 section 5.1, and SPDK's own code for a method called in the wrong state.
pub mod code {
    /// The bytes are not JSON.
    pub const PARSE_ERROR: i64 = -32700;
    /// JSON, but not a request.
    pub const INVALID_REQUEST: i64 = -32600;
    /// The method does not exist or is not allowed.
    pub const METHOD_NOT_FOUND: i64 = -32601;
    /// The method's parameters are wrong.
    pub const INVALID_PARAMS: i64 = -32602;
    /// The server failed.
    pub const INTERNAL: i64 = -32603;
    /// The method exists but may not be called in the present state (SPDK).
    pub const WRONG_STATE: i64 = -1;
}

/// Why a call was refused: JSON-RPC 2.0 section 5.1 (`code`, `message`).
///
/// Codes are SPDK's, so that scripts keep working. The message starts with the text SPDK gives and,
/// after a colon, says what SPDK leaves in its log: the reason, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RpcError {
    /// One of [`code`], or `-errno`.
    pub code: i64,
    /// Text for people.
    pub message: String,
}

impl RpcError {
    /// An error with a code and a text of the caller's choice.
    pub fn new(code: i64, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
        }
    }

    fn with_reason(code: i64, text: &str, reason: impl Display) -> Self {
        Self::new(code, format!("{text}: {reason}"))
    }

    /// -32700: the bytes are not JSON.
    pub fn parse_error(reason: impl Display) -> Self {
        Self::with_reason(code::PARSE_ERROR, "Parse error", reason)
    }

    /// -32600: JSON, but not a request.
    pub fn invalid_request(reason: impl Display) -> Self {
        Self::with_reason(code::INVALID_REQUEST, "Invalid request", reason)
    }

    /// -32601, with exactly the text SPDK's clients know.
    pub fn method_not_found() -> Self {
        Self::new(code::METHOD_NOT_FOUND, "Method not found")
    }

    /// -32602: wrong parameters.
    pub fn invalid_params(reason: impl Display) -> Self {
        Self::with_reason(code::INVALID_PARAMS, "Invalid parameters", reason)
    }

    /// -32603: the server failed.
    pub fn internal(reason: impl Display) -> Self {
        Self::with_reason(code::INTERNAL, "Internal error", reason)
    }

    /// -1: the method may not be called in the present state. `reason` says when it may.
    pub fn wrong_state(reason: impl Display) -> Self {
        Self::with_reason(code::WRONG_STATE, "Wrong state", reason)
    }

    /// `-errno` with the system's text for it, then the reason: "No such device: no bdev is called
    /// …".
    pub fn errno(errno: Errno, reason: impl Display) -> Self {
        Self::os_error(errno as i32, reason)
    }

    /// Like [`errno`](Self::errno), for a raw errno of either sign. Zero, which would tell the
    /// client that the failure was none, becomes EIO.
    pub fn os_error(errno: i32, reason: impl Display) -> Self {
        let errno = match errno.unsigned_abs() {
            0 => Errno::EIO as i32,
            value => i32::try_from(value).unwrap_or(Errno::EIO as i32),
        };
        Self::with_reason(-i64::from(errno), &strerror(errno), reason)
    }

    /// The `-errno` of an I/O error (EIO where it carries none), its text, and the reason.
    pub fn io(error: &std::io::Error, reason: impl Display) -> Self {
        match error.raw_os_error() {
            Some(errno) => Self::os_error(errno, reason),
            None => Self::errno(Errno::EIO, format_args!("{reason} ({error})")),
        }
    }
}

impl Display for RpcError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (code {})", self.message, self.code)
    }
}

impl std::error::Error for RpcError {}

/// The C library's text, which is what SPDK sends; `Errno::desc` has texts of its own.
fn strerror(errno: i32) -> String {
    let text = std::io::Error::from_raw_os_error(errno).to_string();
    match text.rfind(" (os error ") {
        Some(end) => text[..end].to_owned(),
        None => text,
    }
}

#[cfg(test)]
mod tests;
