//! Changes of namespaces, carried to guests that run.
//!
//! ```text
//!  Subsystem::namespaces changed
//!    ─► the new set is what new controllers start with
//!    ─► a message through each home reactor: every controller made before it has been announced by then
//!    ─► the set goes to every controller, with a token
//!    ─► the token's end: no channel to a disk that left is open any more
//! ```

use std::time::Duration;

use reactor::Ack;
use rpc::{Responder, RpcError};

use crate::control::{Control, Message};

/// How long a call waits for guests' I/O to end. Below the patience of `rpc.py` (60 s).
pub(crate) const DRAIN_TIMEOUT: Duration = Duration::from_secs(30);

impl Control {
    /// Shows the subsystem's present namespaces to its guests. `done` runs when no controller uses a disk that has left, and gets
    /// `responder` to answer; if guests' I/O takes too long to end, that is answered with `late` before.
    pub(crate) fn publish_namespaces(
        &mut self,
        nqn: &str,
        responder: Responder,
        late: RpcError,
        done: impl FnOnce(&mut Control, Option<Responder>) + 'static,
    ) {
        let ack = self.wait(Some(responder), DRAIN_TIMEOUT, late, done);
        self.publish_namespaces_until(nqn, ack);
    }

    /// As [`Control::publish_namespaces`], with a token that goes when no controller uses a disk that has left.
    pub(crate) fn publish_namespaces_until(&mut self, nqn: &str, ack: Ack) {
        let Ok(subsystem) = self.nvmf.find(nqn) else {
            return;
        };
        subsystem.refresh();
        let (inbox, nqn) = (self.inbox(), nqn.to_owned());
        let barrier = Ack::with(move || {
            let show = move |control: &mut Control| control.show_namespaces(&nqn, &ack);
            let _ = inbox.send(Message::Run(Box::new(show)));
        });
        for listener in &subsystem.listeners {
            let barrier = barrier.clone();
            listener.home.send(move |_| drop(barrier));
        }
    }

    fn show_namespaces(&mut self, nqn: &str, ack: &Ack) {
        let Ok(subsystem) = self.nvmf.find(nqn) else {
            return;
        };
        for listener in &subsystem.listeners {
            if let Some(controller) = &listener.controller {
                let shown = listener.view.shown.load_full();
                controller.set_namespaces(shown, ack.clone());
            }
        }
    }
}
