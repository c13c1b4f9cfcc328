//! What careless and hostile clients do, and that nobody else notices.

use crate::common::{Harness, Peer};
use rpc::{FrameLimits, Limits};
use serde_json::{Value, json};
use std::io::{ErrorKind, Write};
use std::os::unix::net::UnixStream;

/// Sends what the server refuses; it may be refused before all of it is sent.
fn send_refused(peer: &mut Peer, bytes: &[u8]) {
    if let Err(error) = peer.stream.write_all(bytes) {
        assert_eq!(error.kind(), ErrorKind::BrokenPipe);
    }
}

#[test]
fn garbage_is_answered_and_the_connection_closed() {
    let harness = Harness::new();
    let mut bystander = harness.connect();
    for garbage in [
        &b"GET / HTTP/1.1\r\n\r\n"[..],
        b"\x00",
        b"\xff\xfe",
        b"]",
        b"{\"method\":\"echo\",}",
        b"{\"method\":\"\xc3\",\"id\":1}",
        b"{\"method\":\"\\ud800\",\"id\":1}",
        b"// comment\n{\"method\":\"echo\",\"id\":1}",
    ] {
        let mut peer = harness.connect();
        send_refused(&mut peer, garbage);
        let message = peer.expect_error(-32700, Value::Null);
        assert!(message.starts_with("Parse error: "), "{message}");
        peer.expect_end();
        bystander.assert_alive();
    }
}

#[test]
fn what_came_before_the_garbage_is_still_answered() {
    let harness = Harness::new();
    let mut peer = harness.connect();
    peer.send(r#"{"method":"park","id":1}{"method":"echo","id":2} oops {"method":"echo","id":3}"#);
    peer.expect_error(-32700, Value::Null);
    assert_eq!(peer.receive()["id"], 2);
    harness.next_parked().responder.ok(true);
    assert_eq!(peer.receive()["id"], 1);
    peer.expect_end();
    harness.assert_alive();
}

#[test]
fn half_a_request_is_said_to_be_half() {
    let harness = Harness::new();
    let mut peer = harness.connect();
    peer.send(r#"{"method":"echo","params":["#).end_sending();
    let message = peer.expect_error(-32700, Value::Null);
    assert!(message.contains("ended within a message"), "{message}");
    peer.expect_end();
}

#[test]
fn a_giant_request_is_refused_without_being_kept() {
    let harness = Harness::new();
    let mut bystander = harness.connect();
    let mut peer = harness.connect();
    let mut giant = b"{\"method\":\"echo\",\"params\":[\"".to_vec();
    giant.resize(16 * 1024 * 1024, b'x');
    // The client gets rid of all of it, and so can read why it was refused.
    peer.stream.write_all(&giant).unwrap();
    let message = peer.expect_error(-32600, Value::Null);
    assert!(message.contains("longer than 262144 bytes"), "{message}");
    peer.expect_end();
    bystander.assert_alive();
}

#[test]
fn an_endless_request_is_cut_off() {
    let harness = Harness::new();
    let mut peer = harness.connect();
    let chunk = vec![b'['; 1024 * 1024];
    let mut sent = 0_usize;
    while peer.stream.write_all(&chunk).is_ok() {
        sent += chunk.len();
        assert!(sent < 1 << 30, "the server reads on and on");
    }
    harness.assert_alive();
}

#[test]
fn depth_and_number_of_values_are_limited() {
    let harness = Harness::new();
    let mut bystander = harness.connect();
    for (bomb, text) in [
        ("[".repeat(200_000), "nested more than 64 levels"),
        ("{\"a\":".repeat(50_000), "nested more than 64 levels"),
        (
            format!("[{}1]", "1,".repeat(20_000)),
            "more than 8192 JSON values",
        ),
    ] {
        let mut peer = harness.connect();
        send_refused(&mut peer, bomb.as_bytes());
        let message = peer.expect_error(-32700, Value::Null);
        assert!(message.contains(text), "{message}");
        peer.expect_end();
        bystander.assert_alive();
    }
}

#[test]
fn a_batch_as_large_as_allowed_is_answered() {
    let harness = Harness::new();
    let mut peer = harness.connect();
    peer.send(&format!("[{}1]", "1,".repeat(8189)));
    let reply = peer.receive();
    assert_eq!(reply.as_array().unwrap().len(), 8190);
    peer.assert_alive();
}

#[test]
fn a_slow_reader_costs_only_itself() {
    let harness = Harness::with_limits(Limits {
        reply_bytes: 8 * 1024 * 1024,
        ..Limits::default()
    });
    let mut slow = harness.connect();
    let mut bystander = harness.connect();
    // 100 MiB of replies are asked for, and none is read.
    for id in 0..100 {
        slow.call("big", json!([1024 * 1024]), id);
    }
    for _ in 0..20 {
        bystander.assert_alive();
    }
    // Every call is answered in the end, those beyond the limit by an error.
    for id in 0..100 {
        let reply = slow.receive();
        assert_eq!(reply["id"], id);
        assert!(
            reply.get("result").is_some() || reply["error"]["code"] == -32603,
            "{reply}"
        );
    }
    slow.assert_alive();
}

#[test]
fn a_reply_beyond_the_limit_becomes_an_error() {
    let harness = Harness::with_limits(Limits {
        reply_bytes: 1000,
        ..Limits::default()
    });
    let mut peer = harness.connect();
    peer.call("big", json!([1001]), 1);
    let message = peer.expect_error(-32603, json!(1));
    assert!(message.contains("does not fit"), "{message}");
    peer.send(r#"[{"method":"big","params":[700],"id":1},{"method":"big","params":[700],"id":2}]"#);
    let reply = peer.receive();
    assert_eq!(reply[0]["result"].as_str().unwrap().len(), 700);
    assert_eq!(reply[1]["error"]["code"], -32603);
    peer.assert_alive();
}

/// Writes requests until the server takes no more, even after it had several rounds for it.
/// Returns how many bytes.
fn fill(peer: &mut Peer, request: &[u8], bystander: &mut Peer, at_most: usize) -> usize {
    peer.stream.set_nonblocking(true).unwrap();
    let mut sent = 0;
    let mut tries = 0;
    while tries < 20 {
        match peer.stream.write(&request[sent % request.len()..]) {
            Ok(count) => {
                sent += count;
                tries = 0;
                assert!(sent < at_most, "the server takes calls without end");
            }
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::WouldBlock);
                // Its answer shows that the server has been through all connections.
                bystander.assert_alive();
                tries += 1;
            }
        }
    }
    peer.stream.set_nonblocking(false).unwrap();
    sent
}

#[test]
fn calls_without_answers_stop_their_client_only() {
    let harness = Harness::new();
    let mut peer = harness.connect();
    let mut bystander = harness.connect();
    let request = json!({"method": "park", "id": 1, "params": ["x".repeat(1000)]}).to_string();
    let request = request.as_bytes();
    let sent = fill(&mut peer, request, &mut bystander, 8 << 20);
    let calls = sent.div_ceil(request.len());
    // Answering some lets the rest in.
    for _ in 0..100 {
        harness.next_parked().responder.ok(true);
    }
    peer.stream
        .write_all(&request[request.len() - (calls * request.len() - sent)..])
        .unwrap();
    for _ in 100..calls {
        harness.next_parked().responder.ok(true);
    }
    for _ in 0..calls {
        assert_eq!(peer.result(), true);
    }
    peer.assert_alive();
}

#[test]
fn a_client_that_vanishes_frees_its_place_and_its_calls_run_on() {
    let harness = Harness::with_limits(Limits {
        connections: 2,
        reserved: 0,
        ..Limits::default()
    });
    let _other = harness.connect();
    for _ in 0..10 {
        let mut peer = harness.connect();
        peer.call("park", json!([]), 1);
        peer.send(r#"[{"method":"park","id":2},{"method":"park","id":3}]"#);
        drop(peer);
        let parked = [
            harness.next_parked(),
            harness.next_parked(),
            harness.next_parked(),
        ];
        // There is one place only, so this is served because the place is free again.
        harness.assert_alive();
        for request in parked {
            request.responder.ok(true);
        }
        harness.assert_alive();
    }
}

#[test]
fn a_client_that_vanishes_while_being_answered_harms_nobody() {
    let harness = Harness::new();
    for _ in 0..20 {
        let mut peer = harness.connect();
        for id in 0..5 {
            peer.call("big", json!([4_000_000]), id);
        }
        drop(peer);
    }
    harness.assert_alive();
}

#[test]
fn connections_that_say_nothing_are_no_trouble() {
    let harness = Harness::new();
    let _idle: Vec<UnixStream> = (0..30)
        .map(|_| UnixStream::connect(harness.path()).unwrap())
        .collect();
    for _ in 0..200 {
        drop(UnixStream::connect(harness.path()).unwrap());
    }
    harness.assert_alive();
}

#[test]
fn limits_are_the_owner_s_to_set() {
    let harness = Harness::with_limits(Limits {
        request: FrameLimits {
            bytes: 40,
            values: 8,
        },
        ..Limits::default()
    });
    let mut peer = harness.connect();
    peer.send(r#"{"method":"echo","id":1}"#);
    assert_eq!(peer.result(), Value::Null);
    peer.send(r#"{"method":"echo","id":1,"params":[1]}"#);
    peer.expect_error(-32700, Value::Null);
    peer.expect_end();
}
