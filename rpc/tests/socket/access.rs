//! Whose socket it is, who calls, and what is sent without being asked for.

use crate::common::{Harness, Peer};
use nix::unistd::{Gid, chown, getegid, geteuid, getpid};
use rpc::{
    Access, Caller, LOST, Limits, NotifyError, Params, Registry, RpcError, Server, ServerOptions,
};
use rpc::{State, When};
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::MetadataExt;

#[test]
fn calls_say_who_calls() {
    let harness = Harness::new();
    let mut peer = harness.connect();
    peer.call("whoami", Value::Null, 1);
    let who = peer.result();
    let expected = format!(
        "Caller {{ access: Full, peer: Some(Peer {{ pid: {}, uid: {}, gid: {} }}) }}",
        getpid(),
        geteuid(),
        getegid()
    );
    assert_eq!(who, expected);
    let harness = Harness::with(|options| options.access = Access::ReadOnly);
    let mut peer = harness.connect();
    peer.call("whoami", Value::Null, 1);
    assert!(peer.result().as_str().unwrap().contains("access: ReadOnly"));
}

#[test]
fn the_socket_belongs_to_the_group_asked_for() {
    // Only root may give files to any group.
    let group = match geteuid().is_root() {
        true => 12_345,
        false => getegid().as_raw(),
    };
    let harness = Harness::with(|options| {
        options.group = Some(group);
        options.mode = 0o660;
    });
    let socket = fs::metadata(harness.path()).unwrap();
    assert_eq!((socket.gid(), socket.mode() & 0o777), (group, 0o660));
    harness.assert_alive();
    // Changing the group of a file takes no rights away from its owner.
    chown(&harness.path(), None, Some(Gid::from_raw(group))).unwrap();
}

fn is_small(params: &Params) -> Result<(), RpcError> {
    match params.value() {
        None => Ok(()),
        Some(_) => Err(RpcError::new(
            -13,
            "Permission denied: with parameters it changes",
        )),
    }
}

#[test]
fn a_socket_for_monitoring_changes_nothing() {
    let mut registry = Registry::<u32>::new();
    registry
        .method("get", When::Always, |value, _| Ok((*value).into()))
        .and_then(|registry| {
            registry.method("add", When::Always, |value, _| {
                *value += 1;
                Ok(true.into())
            })
        })
        .and_then(|registry| registry.alias("increment", "add"))
        .and_then(|registry| registry.alias("read", "get"))
        .and_then(|registry| registry.method("sometimes", When::Always, |_, _| Ok(Value::Null)))
        .and_then(|registry| registry.read_only(["get"]))
        .and_then(|registry| registry.read_only_if("sometimes", is_small))
        .unwrap();
    assert!(registry.read_only(["nothing"]).is_err());
    assert!(
        registry.read_only(["increment"]).is_err(),
        "an alias has no mark of its own"
    );

    let directory = tempfile::tempdir().unwrap();
    let (send, requests) = std::sync::mpsc::channel();
    let serve = |name: &str, access| {
        let mut options = ServerOptions::new(directory.path().join(name));
        options.access = access;
        let send = send.clone();
        let server = Server::bind(options).unwrap();
        let server = server.start(move |request| drop(send.send(request)));
        server.unwrap()
    };
    let full = serve("full", Access::Full);
    let monitor = serve("monitor", Access::ReadOnly);
    drop(send);
    let control = std::thread::spawn(move || {
        let mut value = 0;
        for request in requests {
            registry.dispatch(&mut value, State::Runtime, request);
        }
    });

    let mut owner = Peer::connect(full.path());
    let mut watcher = Peer::connect(monitor.path());
    owner.call("add", Value::Null, 1);
    assert_eq!(owner.result(), true);
    for method in ["add", "increment"] {
        watcher.call(method, Value::Null, 1);
        let message = watcher.expect_error(-13, json!(1));
        assert!(message.starts_with("Permission denied: "), "{message}");
        assert!(
            message.contains(method) && message.contains("read-only"),
            "{message}"
        );
    }
    watcher.call("nothing", Value::Null, 1);
    assert_eq!(watcher.expect_error(-32601, json!(1)), "Method not found");
    for method in ["get", "read"] {
        watcher.call(method, Value::Null, 1);
        assert_eq!(watcher.result(), 1);
    }
    watcher.call("sometimes", Value::Null, 1);
    assert_eq!(watcher.result(), Value::Null);
    watcher.call("sometimes", json!({"all": true}), 1);
    let message = watcher.expect_error(-13, json!(1));
    assert!(message.contains("with parameters"), "{message}");
    owner.call("sometimes", json!({"all": true}), 1);
    assert_eq!(owner.result(), Value::Null);

    // Also within a batch, and the list of methods is true for whoever asks for it.
    watcher.send(r#"[{"method":"get","id":1},{"method":"add","id":2}]"#);
    let batch = watcher.receive();
    assert_eq!(
        (&batch[0]["result"], &batch[1]["error"]["code"]),
        (&json!(1), &json!(-13))
    );
    watcher.call("rpc_get_methods", json!({"include_aliases": true}), 1);
    assert_eq!(
        watcher.result(),
        json!(["get", "read", "rpc_get_methods", "sometimes"])
    );
    owner.call("rpc_get_methods", json!({"current": true}), 1);
    assert_eq!(
        owner.result(),
        json!(["add", "get", "rpc_get_methods", "sometimes"])
    );

    drop((full, monitor));
    control.join().unwrap();
}

#[test]
fn notifications_come_until_the_client_goes() {
    let harness = Harness::new();
    let mut peer = harness.connect();
    peer.call("park", Value::Null, 1);
    let request = harness.next_parked();
    let notifier = request.responder.notifier().unwrap();
    notifier.notify("event", &json!({"n": 0})).unwrap();
    request.responder.ok("subscribed");
    notifier.notify("event", &json!({"n": 1})).unwrap();
    let event = |n| json!({"jsonrpc": "2.0", "method": "event", "params": {"n": n}});
    assert_eq!(peer.receive(), event(0));
    assert_eq!(peer.result(), "subscribed");
    assert_eq!(peer.receive(), event(1));
    // Calls go on beside them.
    peer.assert_alive();
    assert!(!notifier.is_gone());
    peer.end_sending();
    peer.expect_end();
    assert_eq!(notifier.notify("event", &json!({})), Err(NotifyError::Gone));
    assert!(notifier.is_gone());
    harness.assert_alive();
}

#[test]
fn who_does_not_read_notifications_is_told_how_many_are_lost() {
    let harness = Harness::with_limits(Limits {
        notification_bytes: 10_000,
        ..Limits::default()
    });
    let mut peer = harness.connect();
    peer.call("park", Value::Null, 1);
    let notifier = harness.next_parked().responder.notifier().unwrap();
    assert_eq!(peer.receive()["error"]["code"], -32603);
    // What the system buffers, and then what the server does.
    let text = "x".repeat(5000);
    let (mut taken, mut lost) = (0_u64, 0_u64);
    while lost < 100 {
        match notifier.notify("event", &json!([taken, text])) {
            Ok(()) => taken += 1,
            Err(NotifyError::Full) => lost += 1,
            Err(NotifyError::Gone) => panic!("it is there"),
        }
        assert!(taken < 100_000, "its backlog has no limit");
        harness.assert_alive();
    }
    let (mut received, mut told) = (0, 0);
    while told < lost {
        let notification = peer.receive();
        match notification["method"].as_str() {
            Some("event") => {
                assert_eq!(notification["params"][0], received);
                received += 1;
            }
            Some(LOST) => told += notification["params"]["count"].as_u64().unwrap(),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(told, lost);
    notifier.notify("event", &json!([taken])).unwrap();
    while received <= taken {
        assert_eq!(peer.receive()["params"][0], received);
        received += 1;
    }
    peer.assert_alive();
}

#[test]
fn calls_from_within_the_process_have_nobody_to_notify() {
    let responder = rpc::Responder::new(drop);
    assert!(responder.notifier().is_none());
    responder.ok(true);
    assert_eq!(Caller::default().access, Access::Full);
}

#[test]
fn what_stands_between_a_call_and_its_answer_keeps_its_client() {
    let harness = Harness::new();
    let mut peer = harness.connect();
    peer.call("park", Value::Null, 1);
    let request = harness.next_parked();
    let responder = request.responder.through(|responder, outcome| {
        responder.answer(outcome.map(|result| json!(["seen", result])));
    });
    responder
        .notifier()
        .unwrap()
        .notify("event", &json!([]))
        .unwrap();
    assert_eq!(peer.receive()["method"], "event");
    responder.ok(1);
    assert_eq!(peer.result(), json!(["seen", 1]));
    // Forgetting it is answered once, too.
    peer.call("park", Value::Null, 2);
    let request = harness.next_parked();
    drop(
        request
            .responder
            .through(|responder, outcome| responder.answer(outcome)),
    );
    peer.expect_error(-32603, json!(2));
    peer.assert_alive();
}
