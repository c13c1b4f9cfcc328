use std::time::Duration;

use crossbeam_channel::{Receiver, bounded, unbounded};
use reactor::{Ack, ReactorHandle};
use rpc::{Caller, Params, Request, Responder, RpcError, State};
use serde_json::{Value, json};

use super::{Control, Helpers, Message, Methods, Parts, reply_done};
use crate::logging::{Level, Logging};
use crate::virtio_blk::BasePath;

type Answer = Receiver<Result<Value, RpcError>>;

/// A control thread without reactors, and its mail.
fn control() -> (Control, Receiver<Message>, Methods) {
    control_of(Vec::new())
}

/// A control thread of these reactors, and its mail.
pub(crate) fn control_of(reactors: Vec<ReactorHandle>) -> (Control, Receiver<Message>, Methods) {
    let (inbox, messages) = unbounded();
    let (go, _) = bounded(1);
    let parts = Parts {
        inbox,
        logging: Logging::start(Level::Notice).expect("logs"),
        reactors,
        servers: Vec::new(),
        go,
        wait_for_rpc: false,
        store: None,
        sockets: BasePath::new(None).expect("a directory"),
        ready: Vec::new(),
    };
    let helpers = Helpers::start().expect("threads");
    let methods = Methods {
        offered: crate::methods::table().expect("methods"),
        all: crate::methods::table().expect("methods").into(),
    };
    (Control::new(parts, helpers), messages, methods)
}

impl Control {
    /// Ends [`Control::run_until_left`].
    pub(crate) fn leave(&mut self) {
        self.ended = true;
    }

    /// Works until something leaves.
    pub(crate) fn run_until_left(&mut self, mail: &Receiver<Message>, methods: &Methods) {
        self.run(mail, methods);
        self.ended = false;
    }
}

fn responder() -> (Responder, Answer) {
    let (sender, answer) = bounded(1);
    let responder = Responder::new(move |outcome| drop(sender.send(outcome)));
    (responder, answer)
}

fn request(method: &str, params: Value) -> (Request, Answer) {
    let (responder, answer) = responder();
    let request = Request {
        method: method.to_owned(),
        params: Params::from(params),
        caller: Caller::default(),
        responder,
    };
    (request, answer)
}

/// Lets it work until it has read the mail that is there.
pub(crate) fn run_until_mail_is_read(
    control: &mut Control,
    messages: &Receiver<Message>,
    methods: &Methods,
) {
    let inbox = control.inbox();
    let end = move |control: &mut Control| control.ended = true;
    inbox.send(Message::Run(Box::new(end))).expect("its mail");
    control.run(messages, methods);
    control.ended = false;
}

fn late() -> RpcError {
    RpcError::internal("too late")
}

#[test]
fn a_wait_ends_with_its_last_token() {
    let (mut control, messages, methods) = control();
    let (responder, answer) = responder();
    let timeout = Duration::from_secs(3600);
    let ack = control.wait(Some(responder), timeout, late(), reply_done);
    let other = ack.clone();
    drop(ack);
    run_until_mail_is_read(&mut control, &messages, &methods);
    assert!(answer.try_recv().is_err(), "somebody is not done");
    drop(other);
    run_until_mail_is_read(&mut control, &messages, &methods);
    assert_eq!(answer.try_recv(), Ok(Ok(json!(true))));
}

#[test]
fn a_wait_that_takes_too_long_is_answered_and_still_ends() {
    let (mut control, messages, methods) = control();
    let (responder, answer) = responder();
    let ended = std::rc::Rc::new(std::cell::Cell::new(false));
    let flag = std::rc::Rc::clone(&ended);
    let done = move |_: &mut Control, responder: Option<Responder>| {
        assert!(responder.is_none(), "it was answered already");
        flag.set(true);
    };
    let ack: Ack = control.wait(Some(responder), Duration::ZERO, late(), done);
    run_until_mail_is_read(&mut control, &messages, &methods);
    let answered = answer.try_recv().expect("an answer");
    assert_eq!(answered, Err(late()));
    assert!(!ended.get());
    drop(ack);
    run_until_mail_is_read(&mut control, &messages, &methods);
    assert!(ended.get());
}

#[test]
fn timers_run_in_their_order() {
    let (mut control, messages, methods) = control();
    let order = std::rc::Rc::new(std::cell::RefCell::new(Vec::new()));
    for (millis, name) in [(3, "c"), (1, "a"), (2, "b")] {
        let order = std::rc::Rc::clone(&order);
        control.after(Duration::from_millis(millis), move |control| {
            order.borrow_mut().push(name);
            control.ended = name == "c";
        });
    }
    control.after(Duration::MAX, |_| unreachable!("never comes"));
    assert!(control.run(&messages, &methods));
    assert_eq!(*order.borrow(), ["a", "b", "c"]);
}

#[test]
fn a_job_that_panics_costs_its_call_only() {
    let (mut control, messages, methods) = control();
    control.help(
        || -> u32 { unreachable!("on purpose") },
        |control, result| {
            assert_eq!(result, None);
            control.help(
                || 7,
                |control, result| {
                    assert_eq!(result, Some(7));
                    control.ended = true;
                },
            );
        },
    );
    assert!(control.run(&messages, &methods));
}

#[test]
fn nothing_new_begins_once_the_end_has_come() {
    let (mut control, messages, methods) = control();
    control.initialize(None);
    let (kept, later) = request("bdev_get_bdevs", json!({"name": "x", "timeout": 600_000}));
    control.take(Message::Call(kept), &methods);
    control.take(Message::Signal(15), &methods);
    let (late, refused) = request("bdev_get_bdevs", Value::Null);
    control.take(Message::Call(late), &methods);
    let refused = refused.try_recv().expect("an answer").expect_err("refused");
    assert!(refused.message.contains("shutting down"));
    assert!(control.run(&messages, &methods), "an orderly end");
    assert!(later.try_recv().is_err());
    control.close_rpc();
    assert!(later.try_recv().expect("an answer").is_err());
}

#[test]
fn initialization_is_waited_for() {
    let (mut control, messages, methods) = control();
    let (wait, waiting) = request("framework_wait_init", Value::Null);
    control.take(Message::Call(wait), &methods);
    let (early, refused) = request("bdev_get_bdevs", Value::Null);
    control.take(Message::Call(early), &methods);
    assert_eq!(
        refused
            .try_recv()
            .expect("an answer")
            .map_err(|error| error.code),
        Err(-1)
    );
    let (start, started) = request("framework_start_init", Value::Null);
    control.take(Message::Call(start), &methods);
    assert_eq!(control.state, State::Runtime);
    assert!(waiting.try_recv().is_err() && started.try_recv().is_err());
    control.take(Message::Replayed(Ok(())), &methods);
    assert_eq!(waiting.try_recv(), Ok(Ok(json!(true))));
    assert_eq!(started.try_recv(), Ok(Ok(json!(true))));
    let (wait, waiting) = request("framework_wait_init", Value::Null);
    control.take(Message::Call(wait), &methods);
    assert_eq!(waiting.try_recv(), Ok(Ok(json!(true))));
    drop(messages);
}

#[test]
fn a_configuration_that_fails_ends_it_in_disorder() {
    let (mut control, messages, methods) = control();
    let (wait, waiting) = request("framework_wait_init", Value::Null);
    control.take(Message::Call(wait), &methods);
    control.take(Message::StartupReplayed(Vec::new()), &methods);
    control.take(Message::Replayed(Err("line 7: no".to_owned())), &methods);
    let error = waiting.try_recv().expect("an answer").expect_err("refused");
    assert!(error.message.contains("line 7"));
    assert!(!control.run(&messages, &methods));
}
