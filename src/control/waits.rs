//! Calls that wait for reactors.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use reactor::{Ack, Reactor};
use rpc::{Responder, RpcError};
use serde_json::Value;

use super::{Control, Message};

/// How long a call waits for a look at every reactor.
const GATHER_TIMEOUT: Duration = Duration::from_secs(5);

type Done = Box<dyn FnOnce(&mut Control, Option<Responder>)>;

struct Wait {
    /// `None` if nobody asked, or the deadline has passed.
    responder: Option<Responder>,
    done: Done,
}

#[derive(Default)]
pub(super) struct Waits {
    waits: HashMap<u64, Wait>,
    last: u64,
}

impl Waits {
    /// Lets go of everything: whoever waits is told so.
    pub(super) fn abandon(&mut self) {
        self.waits.clear();
    }
}

impl Control {
    /// A token to give to all who must finish something. When the last clone is dropped, `done` runs here and gets `responder`
    /// to answer. If that takes longer than `timeout`, `responder` is answered with `late`, and `done` runs in its time without.
    pub(crate) fn wait(
        &mut self,
        responder: Option<Responder>,
        timeout: Duration,
        late: RpcError,
        done: impl FnOnce(&mut Control, Option<Responder>) + 'static,
    ) -> Ack {
        self.waits.last += 1;
        let id = self.waits.last;
        let wait = Wait {
            responder,
            done: Box::new(done),
        };
        self.waits.waits.insert(id, wait);
        self.after(timeout, move |control| {
            let wait = control.waits.waits.get_mut(&id);
            if let Some(responder) = wait.and_then(|wait| wait.responder.take()) {
                responder.err(late);
            }
        });
        let inbox = self.inbox();
        Ack::with(move || drop(inbox.send(Message::Acked(id))))
    }

    pub(super) fn acked(&mut self, id: u64) {
        let Some(Wait { responder, done }) = self.waits.waits.remove(&id) else {
            return;
        };
        let nobody_asks = responder.is_none();
        done(self, responder);
        if nobody_asks {
            self.unsure();
        }
    }

    /// Asks every reactor something and answers with what `then` makes of it, in the reactors' order.
    pub(crate) fn gather<R: Send + 'static>(
        &mut self,
        responder: Responder,
        ask: impl Fn(&mut Reactor) -> R + Send + Sync + 'static,
        then: impl FnOnce(&mut Control, Vec<R>) -> Result<Value, RpcError> + 'static,
    ) {
        let answers: Arc<Mutex<Vec<(usize, R)>>> = Arc::default();
        let collected = Arc::clone(&answers);
        let late = RpcError::errno(
            nix::errno::Errno::ETIMEDOUT,
            "a reactor does not answer; is its processor taken by something else?",
        );
        let done = move |control: &mut Control, responder: Option<Responder>| {
            let mut answers =
                std::mem::take(&mut *collected.lock().unwrap_or_else(PoisonError::into_inner));
            answers.sort_by_key(|(index, _)| *index);
            let answers = answers.into_iter().map(|(_, answer)| answer).collect();
            if let Some(responder) = responder {
                responder.answer(then(control, answers));
            }
        };
        let ack = self.wait(Some(responder), GATHER_TIMEOUT, late, done);
        let ask = Arc::new(ask);
        for (index, reactor) in self.reactors.iter().enumerate() {
            let (ack, ask, answers) = (ack.clone(), Arc::clone(&ask), Arc::clone(&answers));
            reactor.send(move |reactor| {
                let answer = ask(reactor);
                answers
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .push((index, answer));
                drop(ack);
            });
        }
    }
}
