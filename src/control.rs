//! The control thread: the one owner of everything that exists.
//!
//! It takes one [`Message`] after the other and never waits for anything else. What takes longer than looking at its own
//! state is asked of others, and goes on when their answer comes back as a message:
//!
//! ```text
//!  method body ─► Control::help(job, then)      a helper thread runs `job`; `then` runs here with its result
//!              ─► Control::wait(…) -> Ack       handed to reactors; `done` runs here when the last clone is dropped
//!              ─► Control::after(time, then)    `then` runs here, later
//! ```
//! A call that waits keeps its `Responder` with the continuation, so other calls go on meanwhile.

mod helpers;
mod keeping;
mod shutdown;
mod timers;
mod waits;

use std::sync::Arc;
use std::time::Instant;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};
use nvme::{ControllerHandle, NamespaceSet};
use reactor::ReactorHandle;
use rpc::{Registry, Request, Responder, RpcError, Server, ServerHandle, State, code};
use serde_json::{Value, json};

use crate::disks::Disks;
use crate::events::Events;
use crate::examine::Examination;
use crate::logging::Logging;
use crate::notify::Notify;
use crate::nvmf::{ListenerId, Nvmf};
use crate::options::Options;
use crate::state::Store;
use crate::telemetry::Gathering;
use crate::virtio_blk::{BasePath, VirtioBlk};
pub(crate) use helpers::Helpers;
use helpers::Job;
pub(crate) use keeping::rest_of;
use keeping::{Answer, Keeper};
use shutdown::Ending;
use timers::Timers;
use waits::Waits;

/// What the control thread is told.
pub(crate) enum Message {
    /// A call from the RPC socket.
    Call(Request),
    /// A call from the configuration: not restricted by `--rpcs-allowed`.
    Configure(Request),
    /// A call from the RPC socket has been answered, which its client must not hear before the configuration is saved.
    Answered(Answer),
    /// The part of the configuration that precedes initialization is done; the rest is to come.
    StartupReplayed(Vec<(String, Value)>),
    /// The rest is done, or failed.
    Replayed(Result<(), String>),
    /// The command line needs a transport: make one if there is none.
    DefaultTransport,
    /// A signal that asks to end.
    Signal(i32),
    /// A client of a listener got its controller, which shows these namespaces.
    Connected {
        listener: ListenerId,
        controller: ControllerHandle,
        namespaces: Arc<NamespaceSet>,
    },
    /// The last clone of a wait's token was dropped.
    Acked(u64),
    /// The end of a helper's job, or the next step of something.
    Run(Box<dyn FnOnce(&mut Control) + Send>),
}

/// Methods as seen by the two kinds of callers.
pub(crate) struct Methods {
    /// For the socket.
    pub(crate) offered: Registry<Control>,
    /// For the configuration.
    pub(crate) all: Arc<Registry<Control>>,
}

/// How far initialization is.
#[derive(Debug, Default)]
struct Init {
    /// Tells the configuration's thread to go on.
    go: Option<Sender<()>>,
    /// It was told, and may not have finished.
    started: bool,
    finished: bool,
    /// Who waits for it.
    waiting: Vec<Responder>,
    /// Said when it is reached.
    ready: Vec<String>,
}

/// What the control thread is made from.
pub(crate) struct Parts {
    /// Where messages to it are put.
    pub(crate) inbox: Sender<Message>,
    pub(crate) logging: Logging,
    pub(crate) reactors: Vec<ReactorHandle>,
    /// Bound RPC sockets.
    pub(crate) servers: Vec<Server>,
    /// Tells the configuration's thread to replay the second part.
    pub(crate) go: Sender<()>,
    pub(crate) wait_for_rpc: bool,
    /// Where the configuration is kept, and what is there.
    pub(crate) store: Option<(Arc<Store>, Option<String>)>,
    /// Where sockets of virtio-blk endpoints are made.
    pub(crate) sockets: BasePath,
    /// Lines for the person who started the daemon, once it is ready.
    pub(crate) ready: Vec<String>,
}

/// All state of the daemon. Lives on the main thread.
pub(crate) struct Control {
    inbox: Sender<Message>,
    pub(crate) logging: Logging,
    pub(crate) reactors: Vec<ReactorHandle>,
    pub(crate) disks: Disks,
    pub(crate) examination: Examination,
    pub(crate) nvmf: Nvmf,
    pub(crate) blk: VirtioBlk,
    pub(crate) options: Options,
    pub(crate) events: Events,
    pub(crate) gathering: Gathering,
    state: State,
    init: Init,
    wait_for_rpc: bool,
    notify: Notify,
    /// Bound, not answering yet.
    servers: Vec<Server>,
    serving: Vec<ServerHandle>,
    helpers: Helpers,
    timers: Timers,
    waits: Waits,
    keeper: Option<Keeper>,
    ending: Option<Ending>,
    ended: bool,
}

impl Control {
    pub(crate) fn new(parts: Parts, helpers: Helpers) -> Self {
        Self {
            inbox: parts.inbox,
            logging: parts.logging,
            reactors: parts.reactors,
            disks: Disks::default(),
            examination: Examination::default(),
            nvmf: Nvmf::default(),
            blk: VirtioBlk::new(parts.sockets),
            options: Options::default(),
            events: Events::default(),
            gathering: Gathering::default(),
            state: State::Startup,
            init: Init {
                go: Some(parts.go),
                ready: parts.ready,
                ..Init::default()
            },
            wait_for_rpc: parts.wait_for_rpc,
            notify: Notify::from_environment(),
            servers: parts.servers,
            serving: Vec::new(),
            helpers,
            timers: Timers::default(),
            waits: Waits::default(),
            keeper: parts.store.map(|(store, saved)| Keeper::new(store, saved)),
            ending: None,
            ended: false,
        }
    }

    /// A way to tell this thread something.
    pub(crate) fn inbox(&self) -> Sender<Message> {
        self.inbox.clone()
    }

    /// Works until the daemon is to end; whether it ends in order.
    pub(crate) fn run(&mut self, messages: &Receiver<Message>, methods: &Methods) -> bool {
        self.keep_alive();
        while !self.ended {
            let message = match self.timers.next() {
                Some(deadline) => messages.recv_deadline(deadline),
                None => messages.recv().map_err(RecvTimeoutError::from),
            };
            match message {
                Ok(message) => self.take(message, methods),
                Err(RecvTimeoutError::Timeout) => {}
                // Not while `self.inbox` lives.
                Err(RecvTimeoutError::Disconnected) => break,
            }
            let now = Instant::now();
            while let Some(then) = self.timers.due(now) {
                then(self);
            }
        }
        self.ending.as_ref().is_none_or(Ending::is_orderly)
    }

    /// Shows the service manager's watchdog that this thread does its work.
    fn keep_alive(&mut self) {
        if let Some(interval) = self.notify.interval() {
            self.notify.alive();
            self.after(interval, Self::keep_alive);
        }
    }

    fn take(&mut self, message: Message, methods: &Methods) {
        match message {
            Message::Call(request) if self.ending.is_some() => {
                let reason = "the daemon is shutting down";
                request.responder.err(RpcError::wrong_state(reason));
            }
            Message::Call(request) => {
                self.gathering.requests += 1;
                let request = self.kept(request);
                methods.offered.dispatch(self, self.state, request);
            }
            Message::Answered(answer) => self.answered(answer),
            Message::Configure(request) => methods.all.dispatch(self, self.state, request),
            Message::StartupReplayed(rest) if self.wait_for_rpc => {
                self.keep_rest(rest);
                self.serve();
                if let Some(line) = self.init.ready.first() {
                    let line = format!("{line}, waiting for framework_start_init");
                    // What starts after this service may be what calls it.
                    self.notify.ready(&line);
                    crate::cli::say(&line);
                }
            }
            Message::StartupReplayed(_) => self.initialize(None),
            Message::Replayed(outcome) => self.initialized(outcome),
            Message::DefaultTransport => self.nvmf.default_transport(),
            Message::Signal(signal) => self.signalled(signal),
            Message::Connected {
                listener,
                controller,
                namespaces,
            } => self.nvmf.connected(listener, controller, &namespaces),
            Message::Acked(id) => self.acked(id),
            Message::Run(then) => then(self),
        }
    }

    /// Starts answering on the RPC sockets.
    fn serve(&mut self) {
        for server in std::mem::take(&mut self.servers) {
            let inbox = self.inbox.clone();
            match server.start(move |request| drop(inbox.send(Message::Call(request)))) {
                Ok(handle) => self.serving.push(handle),
                Err(error) => self.end(Err(format!("no thread for the RPC socket: {error}"))),
            }
        }
    }

    /// How many clients the RPC sockets have.
    pub(crate) fn rpc_clients(&self) -> usize {
        self.serving.iter().map(ServerHandle::clients).sum()
    }

    /// Leaves the state before initialization; `responder` is answered when everything is set up.
    pub(crate) fn initialize(&mut self, responder: Option<Responder>) {
        self.init.waiting.extend(responder);
        self.state = State::Runtime;
        self.keep_nothing();
        self.init.started = true;
        if let Some(go) = self.init.go.take() {
            // If the thread has gone it has said why.
            let _ = go.send(());
        }
    }

    /// Answers when initialization is finished.
    pub(crate) fn when_initialized(&mut self, responder: Responder) {
        if self.init.finished {
            responder.ok(true);
        } else {
            self.init.waiting.push(responder);
        }
    }

    fn initialized(&mut self, outcome: Result<(), String>) {
        if let Err(reason) = outcome {
            for responder in self.init.waiting.drain(..) {
                responder.err(RpcError::internal(&reason));
            }
            return self.end(Err(reason));
        }
        if !self.init.started || self.ending.is_some() {
            return;
        }
        self.init.finished = true;
        self.keep_all();
        self.serve();
        for responder in self.init.waiting.drain(..) {
            responder.ok(true);
        }
        if let Some(line) = self.init.ready.first() {
            self.notify.ready(line);
        }
        for line in self.init.ready.drain(..) {
            crate::cli::say(&line);
        }
    }

    /// Runs `job` on a helper thread, which may block, and `then` here with its result; without one if the job panicked.
    pub(crate) fn help<R: Send + 'static>(
        &self,
        job: impl FnOnce() -> R + Send + 'static,
        then: impl FnOnce(&mut Control, Option<R>) + Send + 'static,
    ) {
        let inbox = self.inbox.clone();
        self.helpers.run(Job::new(move || {
            let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(job)).ok();
            let _ = inbox.send(Message::Run(Box::new(move |control| then(control, result))));
        }));
    }
}

/// The error of a call that has taken effect for the guest but not ended in time.
pub(crate) fn still_draining(what: &str) -> RpcError {
    RpcError::errno(
        nix::errno::Errno::EBUSY,
        format!(
            "{what} is on its way out, but I/O in flight has not ended yet; it goes when that ends"
        ),
    )
}

/// "Unable to create …: reason" and the like: a text of SPDK's with the cause after it.
pub(crate) fn internal(text: &str, reason: impl std::fmt::Display) -> RpcError {
    RpcError::new(code::INTERNAL, format!("{text}: {reason}"))
}

/// Answers `true` if somebody still waits for it.
pub(crate) fn reply_done(_: &mut Control, responder: Option<Responder>) {
    if let Some(responder) = responder {
        responder.ok(true);
    }
}

/// `true`, the answer of methods that only do.
pub(crate) fn done() -> Result<serde_json::Value, RpcError> {
    Ok(json!(true))
}

#[cfg(test)]
pub(crate) mod tests;
