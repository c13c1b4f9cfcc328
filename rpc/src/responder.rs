//! A call on its way to who answers it.

use crate::caller::Caller;
use crate::error::RpcError;
use crate::message::Outcome;
use crate::notifier::Notifier;
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
    /// Who asks, and what they may.
    pub caller: Caller,
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
    notifier: Option<Notifier>,
}

impl Responder {
    /// A responder that hands the answer to a function: for calls that come from within the
    /// process, such as those of a configuration file.
    pub fn new(answer: impl FnOnce(Result<Value, RpcError>) + Send + 'static) -> Self {
        Self {
            answer: Some(Box::new(answer)),
            notifier: None,
        }
    }

    /// The same for a client of a socket.
    pub(crate) fn for_client(mut self, notifier: Notifier) -> Self {
        self.notifier = Some(notifier);
        self
    }

    /// A responder for the same client that hands the answer to a function first, with the responder
    /// that lets it go: for what must happen before the client hears of it.
    pub fn through(
        self,
        then: impl FnOnce(Responder, Result<Value, RpcError>) + Send + 'static,
    ) -> Self {
        let notifier = self.notifier.clone();
        Self {
            answer: Some(Box::new(move |outcome| then(self, outcome))),
            notifier,
        }
    }

    /// A way to send notifications to who asked, now and after the answer; `None` for calls from
    /// within the process.
    pub fn notifier(&self) -> Option<Notifier> {
        self.notifier.clone()
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
