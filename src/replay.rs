//! The configuration, replayed as calls: those that precede initialization first, then the others.
//!
//! A thread of its own sends one call after the other to the control thread and waits for each answer, as a client would.

use std::collections::VecDeque;
use std::sync::Arc;

use crossbeam_channel::{Receiver, Sender, bounded};
use rpc::config::{Call, Config, Entry};
use rpc::{Caller, Params, Registry, Request, Responder, RpcError, State};
use serde_json::Value;

use crate::configuration::is_subsystem;
use crate::control::{Control, Message, rest_of};
use crate::state::Store;

/// The end of what is said about an entry that keeps the daemon from starting.
const WHAT_TO_DO: &str =
    "correct or remove it, or start with --json-ignore-init-errors to go on without it";

/// What to replay, and how strictly.
pub(crate) struct Replay {
    pub(crate) config: Config,
    /// Where the configuration is from, for messages.
    pub(crate) source: String,
    /// What the command line asks for, after the configuration.
    pub(crate) extra: Vec<(&'static str, Value)>,
    /// Whether that needs the NVMe transport.
    pub(crate) needs_transport: bool,
    pub(crate) ignore_errors: bool,
    /// Where the configuration is from, if it will be replaced by what comes of it: what is skipped would be lost.
    pub(crate) keep_skipped: Option<Arc<Store>>,
    pub(crate) methods: Arc<Registry<Control>>,
    pub(crate) control: Sender<Message>,
}

/// One call and where it stands.
struct Step {
    call: Call,
    subsystem: String,
}

impl Replay {
    /// Starts the thread. Its second part begins when `go` says so.
    ///
    /// # Errors
    /// The system has no thread to give.
    pub(crate) fn start(self, go: Receiver<()>) -> std::io::Result<()> {
        std::thread::Builder::new()
            .name("config".into())
            .stack_size(256 << 10)
            .spawn(move || self.run(&go))
            .map(drop)
    }

    fn run(mut self, go: &Receiver<()>) {
        let outcome = self.split().and_then(|(startup, runtime)| {
            self.replay(startup)?;
            let rest = runtime
                .iter()
                .map(|step| rest_of(&step.subsystem, &step.call.method, &step.call.params));
            let _ = self.control.send(Message::StartupReplayed(rest.collect()));
            if go.recv().is_err() {
                return Err("the daemon ended before it was initialized".to_owned());
            }
            self.replay(runtime)?;
            if self.needs_transport {
                let _ = self.control.send(Message::DefaultTransport);
            }
            for (method, params) in std::mem::take(&mut self.extra) {
                self.call(method, params.into())
                    .map_err(|error| format!("{method}: {error}"))?;
            }
            Ok(())
        });
        let _ = self.control.send(Message::Replayed(outcome));
    }

    /// The calls of the two passes.
    fn split(&mut self) -> Result<(VecDeque<Step>, VecDeque<Step>), String> {
        let (mut startup, mut runtime) = (VecDeque::new(), VecDeque::new());
        for subsystem in std::mem::take(&mut self.config.subsystems) {
            let calls = subsystem.entries.into_iter().flat_map(|entry| match entry {
                Entry::Call(call) => vec![call],
                Entry::Batch(calls) => calls,
            });
            for call in calls {
                let (source, place, method) = (&self.source, call.place, &call.method);
                let name = &subsystem.name;
                let Some(when) = self.methods.when(method) else {
                    let reason = format!(
                        "{source}, {place} of subsystem {name}: there is no method {method}"
                    );
                    if is_subsystem(name) && !self.ignore_errors {
                        return Err(format!("{reason}; {WHAT_TO_DO}"));
                    }
                    tracing::info!("{reason}; skipped");
                    self.skip()?;
                    continue;
                };
                let step = Step {
                    call,
                    subsystem: name.clone(),
                };
                if when.includes(State::Startup) {
                    startup.push_back(step);
                } else {
                    runtime.push_back(step);
                }
            }
        }
        Ok((startup, runtime))
    }

    /// Before the first entry that is skipped.
    fn skip(&mut self) -> Result<(), String> {
        if let Some(store) = self.keep_skipped.take() {
            let path = store.keep_skipped().map_err(|error| error.to_string())?;
            tracing::warn!("the configuration as it was is kept as {path:?}");
        }
        Ok(())
    }

    fn replay(&mut self, steps: VecDeque<Step>) -> Result<(), String> {
        for Step { call, subsystem } in steps {
            if call.method == "framework_start_init" {
                continue;
            }
            if let Err(error) = self.call(&call.method, call.params) {
                let (source, place, method) = (&self.source, call.place, &call.method);
                let reason =
                    format!("{source}, {place} of subsystem {subsystem}, {method}: {error}");
                if !self.ignore_errors {
                    return Err(format!("{reason}; {WHAT_TO_DO}"));
                }
                tracing::warn!("{reason}; going on");
                self.skip()?;
            }
        }
        Ok(())
    }

    fn call(&self, method: &str, params: Params) -> Result<Value, RpcError> {
        let (sender, answer) = bounded(1);
        let request = Request {
            method: method.to_owned(),
            params,
            caller: Caller::default(),
            responder: Responder::new(move |outcome| drop(sender.send(outcome))),
        };
        let _ = self.control.send(Message::Configure(request));
        answer
            .recv()
            .unwrap_or_else(|_| Err(RpcError::internal("the daemon is ending")))
    }
}
