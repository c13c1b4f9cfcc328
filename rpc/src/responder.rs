//! A call on its way to who answers it.

use crate::error::RpcError;
use crate::message::Outcome;
use crate::params::Params;
use serde::Serialize;
use serde_json::Value;
use std::fmt;

/// One call of a client.
#[derive(Debug)]
pub struct Request {
    /// The method's name as the client gave it.
    pub method: String,
    /// Its parameters.
    pub params: Params,
    /// Where the answer goes.
    pub responder: Responder,
}

/// The obligation to answer one call, exactly once, at any time, from any thread.
///
/// Dropped without an answer (its thread ended, its queue was closed), it answers an internal
/// error, so a client never waits for nothing. Where the client is gone, the answer is dropped
/// silently.
#[must_use = "dropping it answers an internal error"]
pub struct Responder {
    answer: Option<Box<dyn FnOnce(Outcome) + Send>>,
}

impl Responder {
    /// A responder that hands the answer to a function: for calls that come from within the
    /// process, such as those of a configuration file.
    pub fn new(answer: impl FnOnce(Result<Value, RpcError>) + Send + 'static) -> Self {
        Self {
            answer: Some(Box::new(answer)),
        }
    }

    /// Answers with a result.
    pub fn ok(self, result: impl Into<Value>) {
        self.answer(Ok(result.into()));
    }

    /// Answers with a result of any serialisable type.
    pub fn serialize(self, result: &impl Serialize) {
        self.answer(serde_json::to_value(result).map_err(RpcError::internal));
    }

    /// Answers with an error.
    pub fn err(self, error: RpcError) {
        self.answer(Err(error));
    }

    /// Answers with what a handler returned.
    pub fn answer(mut self, outcome: Result<Value, RpcError>) {
        if let Some(answer) = self.answer.take() {
            answer(outcome);
        }
    }
}

impl Drop for Responder {
    fn drop(&mut self) {
        if let Some(answer) = self.answer.take() {
            let reason = "the call was dropped unanswered, it may or may not have taken effect";
            answer(Err(RpcError::internal(reason)));
        }
    }
}

impl fmt::Debug for Responder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Responder")
    }
}
