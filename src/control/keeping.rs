//! `--state`: no answer leaves before what its call may have changed is on the disk.
//!
//! Which calls change something is not written down anywhere, so no method can be forgotten: every answer comes by here, and
//! goes on at once only if the configuration is, word for word, what the disk has. Otherwise it waits for a write. One write
//! is on its way at a time, on a helper thread; whatever is answered meanwhile shares the next one.
//!
//! ```text
//!  dispatch ─► body ─► answer ─► Message::Answered ─► waiting ─┬─ nothing changed ──────────────► client
//!                                                              └─ help(write) ─► saved ──► client
//! ```
//! Methods that only look (`*_get_*`) do not come by here: they are answered while a disk is slow.
//!
//! # When it cannot be saved
//! The call is not undone: what was deleted cannot be brought back, and guests may have seen the change. Its caller gets an
//! error that says that it is in effect and not saved, and why; it is tried again with every further change and every
//! few seconds, so nobody has to repeat anything once the cause is gone.
//!
//! # The end
//! What is there when the daemon is told to end is the last version; the taking apart after that is not the operator's will.

use std::sync::Arc;
use std::time::Duration;

use nix::errno::Errno;
use reactor::Ack;
use rpc::{Request, Responder, RpcError};
use serde_json::Value;

use super::{Control, Message};
use crate::configuration::call;
use crate::state::{self, StateError, Store};

/// How long a call waits for the disk.
const PATIENCE: Duration = Duration::from_secs(30);
/// Pause between attempts when nothing else happens.
const AGAIN: Duration = Duration::from_secs(3);

/// An answer that has not left.
pub(crate) struct Answer {
    method: String,
    responder: Responder,
    outcome: Result<Value, RpcError>,
}

impl Answer {
    fn send(self) {
        self.responder.answer(self.outcome);
    }

    /// Sends it although the configuration is not saved; a refusal stays what it is.
    fn send_unsaved(self, error: &RpcError) {
        let method = self.method;
        self.responder.answer(self.outcome.and_then(|_| {
            let message = format!("{}; {method} is in effect, but not saved", error.message);
            Err(RpcError {
                code: error.code,
                message,
            })
        }));
    }
}

/// How far the daemon is, as far as the configuration is concerned.
#[derive(Debug)]
enum Phase {
    /// What precedes initialization is replayed. The rest still counts, or a change now would lose it.
    Startup(Vec<(String, Value)>),
    /// The rest is being replayed: it is neither here nor there.
    Loading,
    Ready,
    /// What is saved last; `None` if the daemon never got ready.
    Ending(Option<String>),
}

/// The keeper of the configuration on disk.
pub(super) struct Keeper {
    store: Arc<Store>,
    phase: Phase,
    /// What is on the disk for certain.
    saved: Option<String>,
    /// Numbers writes.
    writes: u64,
    /// The write that is on its way.
    writing: Option<u64>,
    /// Its answers.
    covered: Vec<Answer>,
    /// Answers that came since.
    waiting: Vec<Answer>,
    /// Something may have changed without a call.
    unsure: bool,
    /// The last attempt failed.
    failing: bool,
    /// The next attempt is due by the clock, if none comes before.
    retrying: bool,
    /// Kept until the last version is saved.
    ending: Option<Ack>,
}

impl Keeper {
    pub(super) fn new(store: Arc<Store>, saved: Option<String>) -> Self {
        Self {
            store,
            phase: Phase::Loading,
            saved,
            writes: 0,
            writing: None,
            covered: Vec::new(),
            waiting: Vec::new(),
            unsure: false,
            failing: false,
            retrying: false,
            ending: None,
        }
    }
}

/// Whether a method changes nothing, by its name.
fn only_looks(method: &str) -> bool {
    method.contains("_get_")
}

fn not_saved(error: &StateError) -> RpcError {
    match error {
        StateError::Io { source, .. } => RpcError::io(source, error),
        error => RpcError::internal(error),
    }
}

impl Control {
    /// Puts itself between a call and its answer, if there is a configuration to keep.
    pub(super) fn kept(&self, request: Request) -> Request {
        if self.keeper.is_none() || only_looks(&request.method) {
            return request;
        }
        let Request {
            method,
            params,
            caller,
            responder,
        } = request;
        let (inbox, name) = (self.inbox.clone(), method.clone());
        let responder = responder.through(move |responder, outcome| {
            let method = name;
            let _ = inbox.send(Message::Answered(Answer {
                method,
                responder,
                outcome,
            }));
        });
        Request {
            method,
            params,
            caller,
            responder,
        }
    }

    /// A call is answered: the answer may leave once the disk has what there is.
    pub(super) fn answered(&mut self, answer: Answer) {
        match &mut self.keeper {
            Some(keeper) => keeper.waiting.push(answer),
            None => answer.send(),
        }
        self.keep();
    }

    /// Something may have changed without a call.
    pub(super) fn unsure(&mut self) {
        if let Some(keeper) = &mut self.keeper {
            keeper.unsure = true;
            self.keep();
        }
    }

    /// What precedes initialization is replayed; `rest` is to come.
    pub(super) fn keep_rest(&mut self, rest: Vec<(String, Value)>) {
        if let Some(keeper) = &mut self.keeper {
            keeper.phase = Phase::Startup(rest);
        }
    }

    /// Initialization has begun: nothing is saved until it ends.
    pub(super) fn keep_nothing(&mut self) {
        if let Some(keeper) = &mut self.keeper {
            keeper.phase = Phase::Loading;
        }
    }

    /// Everything is replayed: from now on everything counts.
    pub(super) fn keep_all(&mut self) {
        if let Some(keeper) = &mut self.keeper {
            keeper.phase = Phase::Ready;
            self.unsure();
        }
    }

    /// The daemon ends: what there is now is the last version. `ack` goes when it is saved.
    pub(super) fn keep_last(&mut self, ack: Ack) {
        let last = self.text();
        let Some(keeper) = &mut self.keeper else {
            return;
        };
        keeper.phase = Phase::Ending(last);
        keeper.ending = Some(ack);
        self.unsure();
    }

    /// What the disk should have; `None` while that cannot be said.
    fn text(&self) -> Option<String> {
        let rest = match &self.keeper.as_ref()?.phase {
            Phase::Startup(rest) => rest.as_slice(),
            Phase::Loading => return None,
            Phase::Ready => &[],
            Phase::Ending(last) => return last.clone(),
        };
        Some(self.live_text(rest))
    }

    fn live_text(&self, rest: &[(String, Value)]) -> String {
        let mut subsystems = self.configuration();
        for (name, calls) in &mut subsystems {
            let rest = rest.iter().filter(|(subsystem, _)| subsystem == name);
            let rest = rest.filter(|(_, call)| !calls.contains(call));
            let rest: Vec<Value> = rest.map(|(_, call)| call.clone()).collect();
            calls.extend(rest);
        }
        state::text(&subsystems)
    }

    /// Lets answers go, or starts the write that they wait for.
    fn keep(&mut self) {
        let Some(keeper) = &self.keeper else {
            return;
        };
        let idle = keeper.waiting.is_empty() && !keeper.unsure;
        if idle || keeper.writing.is_some() {
            return;
        }
        let Some(text) = self.text() else {
            if matches!(keeper.phase, Phase::Ending(_)) {
                self.let_go_unsaved("the daemon ended before its configuration was loaded");
                self.keeper.as_mut().map(|keeper| keeper.ending.take());
            }
            return;
        };
        // Nothing is added to the last version, so a call that was too late has to be told.
        let late = matches!(keeper.phase, Phase::Ending(_)) && self.live_text(&[]) != text;
        if late {
            self.let_go_unsaved("the daemon is shutting down");
        }
        let Some(keeper) = &mut self.keeper else {
            return;
        };
        keeper.unsure = false;
        if keeper.saved.as_ref() == Some(&text) {
            drop(keeper.ending.take());
            return keeper.waiting.drain(..).for_each(Answer::send);
        }
        keeper.covered.append(&mut keeper.waiting);
        // Until it is known what the disk has after this.
        keeper.saved = None;
        keeper.writes += 1;
        let write = keeper.writes;
        keeper.writing = Some(write);
        let store = Arc::clone(&keeper.store);
        self.help(
            move || store.write(&text).map(|()| text),
            |control, result| control.saved(result.unwrap_or(Err(StateError::Internal))),
        );
        self.after(PATIENCE, move |control| control.still_writing(write));
    }

    /// A write has ended.
    fn saved(&mut self, result: Result<String, StateError>) {
        let Some(keeper) = &mut self.keeper else {
            return;
        };
        keeper.writing = None;
        match result {
            Ok(text) => {
                if std::mem::take(&mut keeper.failing) {
                    tracing::info!("the configuration is saved again");
                }
                keeper.saved = Some(text);
                keeper.covered.drain(..).for_each(Answer::send);
            }
            Err(error) => {
                let told = not_saved(&error);
                for answer in keeper.covered.drain(..) {
                    answer.send_unsaved(&told);
                }
                if !std::mem::replace(&mut keeper.failing, true) {
                    tracing::error!(
                        "{error}: changes are in effect, but would be lost at a restart; trying again every {} s",
                        AGAIN.as_secs()
                    );
                }
                let ends = keeper.ending.take().is_some();
                if !ends && !std::mem::replace(&mut keeper.retrying, true) {
                    self.after(AGAIN, |control| {
                        if let Some(keeper) = &mut control.keeper {
                            keeper.retrying = false;
                        }
                        control.unsure();
                    });
                }
            }
        }
        // For what came meanwhile.
        if let Some(keeper) = &mut self.keeper
            && keeper.ending.is_some()
        {
            keeper.unsure = true;
        }
        self.keep();
    }

    /// A write takes too long: its callers hear of it.
    fn still_writing(&mut self, write: u64) {
        let Some(keeper) = &mut self.keeper else {
            return;
        };
        if keeper.writing != Some(write) {
            return;
        }
        let reason = format!(
            "{:?} has not been written within {} s",
            keeper.store.current(),
            PATIENCE.as_secs()
        );
        tracing::error!("{reason}");
        let error = RpcError::errno(Errno::ETIMEDOUT, reason);
        for answer in keeper.covered.drain(..).chain(keeper.waiting.drain(..)) {
            answer.send_unsaved(&error);
        }
        self.after(PATIENCE, move |control| control.still_writing(write));
    }

    fn let_go_unsaved(&mut self, reason: &str) {
        let Some(keeper) = &mut self.keeper else {
            return;
        };
        let error = RpcError::internal(reason);
        for answer in keeper.waiting.drain(..) {
            answer.send_unsaved(&error);
        }
    }

    /// At the very end: who still waits is told.
    pub(super) fn close_keeper(&mut self) {
        let Some(mut keeper) = self.keeper.take() else {
            return;
        };
        let error = RpcError::internal("the daemon ended before its configuration was saved");
        for answer in keeper.covered.drain(..).chain(keeper.waiting.drain(..)) {
            answer.send_unsaved(&error);
        }
    }
}

/// A call that is still to be replayed, as an entry of a configuration.
pub(crate) fn rest_of(subsystem: &str, method: &str, params: &rpc::Params) -> (String, Value) {
    let entry = match params.value() {
        Some(params) => call(method, params.clone()),
        None => serde_json::json!({ "method": method }),
    };
    (subsystem.to_owned(), entry)
}
