//! What well-meaning clients send, and what they get.

use crate::common::Harness;
use serde_json::{Value, json};
use std::io::{Read, Write};

#[test]
fn a_reply_is_one_line_with_the_request_s_id() {
    let harness = Harness::new();
    let mut peer = harness.connect();
    peer.send(r#"{"jsonrpc":"2.0","method":"echo","params":{"z":1,"a":2.0},"id":"x\u0041"}"#)
        .end_sending();
    let mut text = String::new();
    peer.stream.read_to_string(&mut text).unwrap();
    assert_eq!(
        text,
        "{\"jsonrpc\":\"2.0\",\"id\":\"x\\u0041\",\"result\":{\"z\":1,\"a\":2}}\n"
    );
}

#[test]
fn requests_need_nothing_between_them() {
    let harness = Harness::new();
    let mut peer = harness.connect();
    let mut requests = String::new();
    for id in 0..500 {
        let space = ["", " ", "\r\n\t"][id % 3];
        requests += &format!("{{\"method\":\"echo\",\"params\":[{id}],\"id\":{id}}}{space}");
    }
    peer.send(&requests);
    for id in 0..500 {
        let reply = peer.receive();
        assert_eq!((&reply["id"], &reply["result"]), (&json!(id), &json!([id])));
    }
}

#[test]
fn a_request_may_arrive_byte_by_byte() {
    let harness = Harness::new();
    let mut peer = harness.connect();
    let params = json!(["\\\"{[\u{e4}".repeat(2000)]);
    let request = json!({"method": "echo", "params": params, "id": 1}).to_string();
    for byte in request.as_bytes() {
        peer.stream.write_all(&[*byte]).unwrap();
    }
    assert_eq!(peer.result(), params);
}

#[test]
fn notifications_are_silent_unless_they_fail() {
    let harness = Harness::new();
    let mut peer = harness.connect();
    peer.send(r#"{"method":"echo"}{"method":"echo","id":null}{"method":"fail"}{"method":"nonsense","id":null}"#);
    let message = peer.expect_error(-19, Value::Null);
    assert_eq!(message, "No such device: try another");
    assert_eq!(peer.expect_error(-32601, Value::Null), "Method not found");
    peer.assert_alive();
}

#[test]
fn what_is_no_request_is_refused_and_the_connection_goes_on() {
    let harness = Harness::new();
    let mut peer = harness.connect();
    for text in [
        "true",
        "12",
        " -",
        "3 ",
        "\"echo\"",
        "null",
        "[]",
        "{}",
        "{\"id\":7.5}",
    ] {
        peer.send(text);
        if text != " -" {
            let id = if text.contains("id") {
                json!(7.5)
            } else {
                Value::Null
            };
            peer.expect_error(-32600, id);
        }
    }
    peer.send(r#"{"method":"echo","jsonrpc":"1.0","id":2}"#);
    peer.expect_error(-32600, json!(2));
    peer.assert_alive();
}

#[test]
fn a_batch_has_one_reply_in_its_order() {
    let harness = Harness::new();
    let mut peer = harness.connect();
    peer.send(
        r#"[{"method":"park","id":1},
            {"method":"echo","params":[2],"id":2},
            {"method":"echo","params":["silent"]},
            7,
            {"method":"fail"},
            {"method":"fail","id":"six"},
            {"method":"drop","id":7}]"#,
    );
    let parked = harness.next_parked();
    // The batch waits for its slowest call, the connection does not.
    peer.assert_alive();
    parked.responder.ok("late");
    let reply = peer.receive();
    let replies = reply.as_array().unwrap();
    let ids: Vec<&Value> = replies.iter().map(|reply| &reply["id"]).collect();
    let null = Value::Null;
    assert_eq!(
        ids,
        [&json!(1), &json!(2), &null, &null, &json!("six"), &json!(7)]
    );
    assert_eq!(replies[0]["result"], "late");
    assert_eq!(replies[1]["result"], json!([2]));
    let codes: Vec<&Value> = replies[2..]
        .iter()
        .map(|reply| &reply["error"]["code"])
        .collect();
    assert_eq!(codes, [-32600, -19, -19, -32603]);
}

#[test]
fn a_batch_of_notifications_has_no_reply() {
    let harness = Harness::new();
    let mut peer = harness.connect();
    peer.send(r#"[{"method":"echo"},{"method":"echo","id":null}]"#);
    peer.assert_alive();
}

#[test]
fn replies_come_when_they_are_ready() {
    let harness = Harness::new();
    let mut peer = harness.connect();
    peer.call("park", json!([]), 1);
    peer.call("park", json!([]), 2);
    peer.call("echo", json!([3]), 3);
    assert_eq!(peer.receive()["id"], 3);
    let first = harness.next_parked();
    let second = harness.next_parked();
    second.responder.ok(2);
    assert_eq!(peer.receive()["id"], 2);
    // From any thread.
    std::thread::spawn(move || first.responder.ok(1))
        .join()
        .unwrap();
    assert_eq!(peer.receive()["id"], 1);
}

#[test]
fn a_dropped_responder_still_answers() {
    let harness = Harness::new();
    let mut peer = harness.connect();
    peer.call("drop", json!([]), 5);
    let message = peer.expect_error(-32603, json!(5));
    assert!(message.contains("dropped"), "{message}");
    peer.assert_alive();
}

#[test]
fn a_client_may_stop_sending_and_still_read() {
    let harness = Harness::new();
    let mut peer = harness.connect();
    peer.call("park", json!([]), 1).end_sending();
    let parked = harness.next_parked();
    harness.assert_alive();
    parked.responder.ok("at last");
    assert_eq!(peer.result(), "at last");
    peer.expect_end();
}

#[test]
fn a_large_request_and_its_large_reply_pass() {
    let harness = Harness::new();
    let mut peer = harness.connect();
    let frame = |text: &str| format!("{{\"method\":\"echo\",\"id\":1,\"params\":[\"{text}\"]}}");
    let text = "y".repeat(256 * 1024 - frame("").len());
    peer.send(&frame(&text));
    assert_eq!(peer.result(), json!([text]));
    peer.call("big", json!([20_000_000]), 2);
    assert_eq!(peer.result().as_str().unwrap().len(), 20_000_000);
}
