//! Cutting a byte stream into JSON values.
//!
//! SPDK's protocol has no delimiter: a value ends where its last bracket closes, white space
//! between values is skipped, and a value is taken the moment it is complete. [`Framer`] does this
//! without looking at any byte twice, however the bytes arrive; parsing proper happens once, on the
//! whole frame.

mod scan;

pub use scan::{MAX_DEPTH, SyntaxError};
use scan::{Scanner, Step};

/// What a peer may send as one value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameLimits {
    /// Bytes from the first bracket to the last.
    pub bytes: usize,
    /// JSON values as SPDK counts them: every name, string, number, literal and bracket is one.
    pub values: usize,
}

impl FrameLimits {
    /// SPDK's limits of a request: 256 KiB and 8192 values.
    pub const REQUEST: Self = Self {
        bytes: 256 * 1024,
        values: 8192,
    };
}

/// One top-level value of the stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// An object or array. Its brackets, strings and numbers are well formed; UTF-8 is not yet
    /// checked.
    Container(Vec<u8>),
    /// A string, number, `true`, `false` or `null`, which is never a message. Its bytes are not
    /// kept. A number counts as soon as it has a digit: waiting for its end would leave a client
    /// that sent nothing else without an answer.
    Scalar,
}

/// Why a stream cannot be cut any further. There is no way to find the next value after one of
/// these.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Not JSON.
    #[error("{error} at byte {offset} of the message")]
    Syntax {
        /// What is wrong.
        error: SyntaxError,
        /// Distance from the first byte of the value.
        offset: usize,
    },
    /// Brackets nested too deeply.
    #[error("nested more than {MAX_DEPTH} levels deep")]
    TooDeep,
    /// More values than [`FrameLimits::values`].
    #[error("more than {0} JSON values in one message")]
    TooManyValues(usize),
    /// More bytes than [`FrameLimits::bytes`].
    #[error("message longer than {0} bytes")]
    TooLong(usize),
    /// The stream ended within a value.
    #[error("the connection ended within a message, after {0} bytes of it")]
    Truncated(usize),
}

/// Cuts one stream into frames.
#[derive(Debug)]
pub struct Framer {
    limits: FrameLimits,
    scanner: Scanner,
    /// The bytes so far of an unfinished container.
    partial: Vec<u8>,
    /// Bytes so far of the unfinished value, kept or not.
    len: usize,
    failed: bool,
}

impl Framer {
    /// A framer at the beginning of a stream.
    pub fn new(limits: FrameLimits) -> Self {
        Self {
            limits,
            scanner: Scanner::new(limits.values),
            partial: Vec::new(),
            len: 0,
            failed: false,
        }
    }

    /// Takes bytes from the front of `input` up to the end of the next value. `None` means that
    /// `input` is used up. After an error everything else is swallowed.
    pub fn next(&mut self, input: &mut &[u8]) -> Option<Result<Frame, FrameError>> {
        if self.failed {
            *input = &[];
        }
        while !input.is_empty() {
            let (used, step) = self.scanner.push(input);
            let (taken, rest) = input.split_at(used);
            *input = rest;
            let error = match step {
                Err(fault) => Some(fault.at(
                    self.len.saturating_add(used).saturating_sub(1),
                    &self.limits,
                )),
                Ok(Step::Skipped) => {
                    self.len = 0;
                    continue;
                }
                Ok(_) => {
                    self.len = self.len.saturating_add(used);
                    (self.len > self.limits.bytes).then_some(FrameError::TooLong(self.limits.bytes))
                }
            };
            if let Some(error) = error {
                self.failed = true;
                self.partial = Vec::new();
                *input = &[];
                return Some(Err(error));
            }
            match step {
                Ok(Step::NumberEnd) => self.len = 0,
                Ok(Step::Container) => {
                    self.len = 0;
                    let mut frame = std::mem::take(&mut self.partial);
                    frame.extend_from_slice(taken);
                    return Some(Ok(Frame::Container(frame)));
                }
                Ok(Step::Scalar) => {
                    self.len = 0;
                    return Some(Ok(Frame::Scalar));
                }
                _ if self.scanner.in_container() => self.partial.extend_from_slice(taken),
                _ => {}
            }
        }
        None
    }

    /// Bytes so far of a value that needs more of them, 0 between values.
    pub fn pending(&self) -> usize {
        if self.failed || self.scanner.may_end() {
            0
        } else {
            self.len.max(1)
        }
    }

    /// Says whether the stream may end here.
    pub fn finish(&self) -> Result<(), FrameError> {
        if self.failed || self.scanner.may_end() {
            Ok(())
        } else {
            Err(FrameError::Truncated(self.len))
        }
    }
}

#[cfg(test)]
mod tests;
