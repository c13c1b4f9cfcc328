//! Starting, stopping, and the blocking client.

use crate::common::{Harness, PATIENCE};
use rpc::{Client, ClientError, ClientOptions, Server, ServerOptions};
use serde_json::{Value, json};
use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::thread;
use std::time::Duration;

fn client(path: &Path) -> Client {
    Client::connect(path, ClientOptions::default()).unwrap()
}

fn impatient() -> ClientOptions {
    ClientOptions {
        timeout: Duration::from_millis(50),
        ..ClientOptions::default()
    }
}

#[test]
fn clients_may_come_before_the_start() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("sock");
    let server = Server::bind(ServerOptions::new(&path)).unwrap();
    assert_eq!(server.path(), path);
    let early = path.clone();
    let early = thread::spawn(move || client(&early).call("m", json!({"a": 1})).unwrap());
    let handle = server.start(|request| request.responder.ok(request.method));
    let _handle = handle.unwrap();
    assert_eq!(early.join().unwrap(), "m");
}

#[test]
fn dropping_removes_the_files_started_or_not() {
    let directory = tempfile::tempdir().unwrap();
    let options = ServerOptions::new(directory.path().join("sock"));
    drop(Server::bind(options.clone()).unwrap());
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
    drop(Server::bind(options).unwrap().start(drop).unwrap());
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
}

#[test]
fn shutdown_lets_clients_read_what_they_are_owed() {
    let mut harness = Harness::new();
    let mut peer = harness.connect();
    let mut idle = harness.connect();
    idle.assert_alive();
    peer.call("park", json!([]), 1);
    peer.call("big", json!([3_000_000]), 2);
    let parked = harness.next_parked();
    let handle = harness.handle.take().unwrap();
    let stopping = thread::spawn(move || handle.shutdown(PATIENCE));
    // The server is stopping once it has closed an idle connection.
    idle.expect_end();
    parked.responder.ok("last words");
    assert_eq!(peer.result().as_str().unwrap().len(), 3_000_000);
    assert_eq!(peer.result(), "last words");
    peer.expect_end();
    stopping.join().unwrap();
    assert!(!harness.path().exists());
}

#[test]
fn shutdown_does_not_wait_for_ever() {
    let mut harness = Harness::new();
    let mut peer = harness.connect();
    peer.call("park", json!([]), 1);
    let parked = harness.next_parked();
    harness
        .handle
        .take()
        .unwrap()
        .shutdown(Duration::from_millis(20));
    peer.expect_end();
    parked.responder.ok("to nobody");
}

#[test]
fn the_client_calls_and_hears_refusals() {
    let harness = Harness::new();
    let mut client = client(&harness.path());
    assert_eq!(
        client.call("echo", json!({"a": 1})).unwrap(),
        json!({"a": 1})
    );
    // Empty parameters are not sent at all.
    assert_eq!(client.call("echo", json!({})).unwrap(), Value::Null);
    assert_eq!(
        client
            .call("big", json!([9_000_000]))
            .unwrap()
            .as_str()
            .unwrap()
            .len(),
        9_000_000
    );
    match client.call("fail", Value::Null) {
        Err(ClientError::Rpc(error)) => assert_eq!(error.code, -19),
        other => panic!("{other:?}"),
    }
    match client.call("echo", json!(["x".repeat(1 << 20)])) {
        Err(ClientError::Rpc(error)) => assert_eq!(error.code, -32600),
        other => panic!("{other:?}"),
    }
    assert!(matches!(
        client.call("echo", Value::Null),
        Err(ClientError::Closed)
    ));
}

#[test]
fn the_client_sends_batches() {
    let harness = Harness::new();
    let mut client = client(&harness.path());
    let calls = [
        ("echo", json!([1])),
        ("fail", Value::Null),
        ("echo", json!([2])),
    ];
    let results = client.batch(calls).unwrap();
    assert_eq!(results[0], Ok(json!([1])));
    assert_eq!(results[1].as_ref().unwrap_err().code, -19);
    assert_eq!(results[2], Ok(json!([2])));
    assert!(client.batch([]).unwrap().is_empty());
    let many = (0..3000).map(|_| ("echo", json!([1])));
    assert!(matches!(client.batch(many), Err(ClientError::Rpc(_))));
}

#[test]
fn a_late_answer_is_not_taken_for_the_next_one() {
    let harness = Harness::new();
    let mut client = Client::connect(harness.path(), impatient()).unwrap();
    let late = client.call("park", Value::Null);
    assert!(matches!(late, Err(ClientError::Timeout { .. })), "{late:?}");
    harness.next_parked().responder.ok("late");
    // The late answer comes first on the stream.
    harness.assert_alive();
    let next = loop {
        match client.call("echo", json!(["next"])) {
            Err(ClientError::Timeout { .. }) => continue,
            next => break next,
        }
    };
    assert_eq!(next.unwrap(), json!(["next"]));
}

#[test]
fn a_failed_connection_says_why() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("sock");
    let connect = |path: &Path| Client::connect(path, impatient()).unwrap_err();
    let missing = connect(&path);
    assert!(matches!(missing, ClientError::NoSocket(_)), "{missing:?}");
    let text = missing.to_string();
    assert!(
        text.contains("is the daemon running") && text.contains("-r"),
        "{text}"
    );
    drop(UnixListener::bind(&path).unwrap());
    let stale = connect(&path);
    assert!(matches!(stale, ClientError::NotListening(_)), "{stale:?}");
    let long = connect(&directory.path().join("x".repeat(200)));
    assert!(matches!(long, ClientError::PathTooLong(_)), "{long:?}");
    let prefix = connect(Path::new(""));
    assert!(!prefix.to_string().is_empty());
}

#[test]
fn retries_wait_for_a_server_to_come_up() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("sock");
    let options = ClientOptions {
        retries: u32::MAX,
        retry_interval: Duration::from_millis(1),
        ..ClientOptions::default()
    };
    let early = path.clone();
    let early = thread::spawn(move || {
        Client::connect(early, options)
            .unwrap()
            .call("m", json!({}))
    });
    let server = Server::bind(ServerOptions::new(&path)).unwrap();
    let _handle = server.start(|request| request.responder.ok(true)).unwrap();
    assert_eq!(early.join().unwrap().unwrap(), true);
}

#[test]
fn a_server_that_is_none_is_found_out() {
    let directory = tempfile::tempdir().unwrap();
    for (number, (answer, closed)) in [
        ("HTTP/1.1 400 Bad Request", false),
        ("7 ", false),
        ("[]", false),
        ("{\"id\":1}", false),
        ("{\"id\":1,\"error\":\"no\"}", false),
        ("", true),
        ("{\"id\":1,", true),
    ]
    .into_iter()
    .enumerate()
    {
        let path = directory.path().join(number.to_string());
        let listener = UnixListener::bind(&path).unwrap();
        let server = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 1000];
            let _ = stream.read(&mut request).unwrap();
            stream.write_all(answer.as_bytes()).unwrap();
        });
        let error = client(&path).call("m", Value::Null).unwrap_err();
        server.join().unwrap();
        match error {
            ClientError::Closed => assert!(closed, "{answer}"),
            ClientError::Protocol { .. } => assert!(!closed, "{answer}"),
            other => panic!("{answer}: {other:?}"),
        }
    }
}
