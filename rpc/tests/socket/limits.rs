//! Too slow, too many, too much: who pays, and what they are told.

use crate::common::{Harness, Peer};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use rpc::Limits;
use serde_json::{Value, json};
use std::io::Read;
use std::os::unix::net::UnixStream;
use std::time::Duration;

/// A thousand clients need a thousand descriptors, at both ends.
fn raise_file_limit(wanted: u64) {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    if soft < wanted {
        assert!(hard >= wanted, "at most {hard} files may be open");
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard).unwrap();
    }
}

#[test]
fn a_thousand_clients_at_once_are_served() {
    const CLIENTS: u64 = 1000;
    raise_file_limit(3 * CLIENTS);
    let harness = Harness::new();
    let mut peers: Vec<Peer> = (0..CLIENTS).map(|_| harness.connect()).collect();
    for (number, peer) in (0..CLIENTS).zip(&mut peers) {
        peer.call("echo", json!([number]), number);
        peer.send(&format!(
            r#"[{{"method":"echo","params":[{number},1],"id":1}},{{"method":"fail","id":2}}]"#
        ));
        peer.call("big", json!([number]), number + 1);
    }
    for (number, peer) in (0..CLIENTS).zip(&mut peers) {
        let first = peer.receive();
        assert_eq!(first["id"], number);
        assert_eq!(first["result"], json!([number]));
        let batch = peer.receive();
        assert_eq!(batch[0]["result"], json!([number, 1]));
        assert_eq!(batch[1]["error"]["code"], -19);
        let last = peer.receive();
        assert_eq!(last["id"], number + 1);
        assert_eq!(
            last["result"].as_str().map(str::len),
            usize::try_from(number).ok()
        );
    }
    assert_eq!(
        harness.handle.as_ref().map(rpc::ServerHandle::clients),
        usize::try_from(CLIENTS).ok()
    );
    // All of them are still there, and a further one is welcome.
    harness.assert_alive();
    for peer in &mut peers {
        peer.assert_alive();
    }
}

#[test]
fn a_request_that_is_not_finished_in_time_is_refused() {
    let harness = Harness::with_limits(Limits {
        request_time: Duration::from_millis(50),
        ..Limits::default()
    });
    // They say nothing, or nothing more: there is no hurry.
    let mut silent = harness.connect();
    let mut bystander = harness.connect();
    bystander.assert_alive();
    for beginning in [
        "{",
        "[",
        r#""a string"#,
        r#"{"method":"echo","id":1}{"method":"#,
    ] {
        let mut slow = harness.connect();
        slow.send(beginning);
        if beginning.contains("id") {
            assert_eq!(slow.result(), Value::Null);
        }
        let message = slow.expect_error(-32600, Value::Null);
        assert!(message.contains("within 0.05 s"), "{message}");
        slow.expect_end();
    }
    bystander.assert_alive();
    silent.assert_alive();
}

#[test]
fn a_trickle_does_not_stretch_the_time() {
    let harness = Harness::with_limits(Limits {
        request_time: Duration::from_millis(50),
        ..Limits::default()
    });
    let mut slow = harness.connect();
    slow.stream
        .set_read_timeout(Some(Duration::from_millis(5)))
        .unwrap();
    let mut answer = Vec::new();
    slow.send("[");
    // Each pause is shorter than the time allowed; all together are not.
    let mut tries = 0;
    while answer.is_empty() {
        let mut bytes = [0; 1000];
        match slow.stream.read(&mut bytes) {
            Ok(count) => answer.extend(&bytes[..count]),
            Err(_) => drop(std::io::Write::write_all(&mut slow.stream, b"1,")),
        }
        tries += 1;
        assert!(tries < 10_000, "it goes on for ever");
    }
    let text = String::from_utf8(answer).unwrap();
    assert!(text.contains("-32600") && text.contains("within"), "{text}");
    harness.assert_alive();
}

#[test]
fn a_client_that_waits_for_its_answers_is_not_slow() {
    let harness = Harness::with_limits(Limits {
        request_time: Duration::from_millis(20),
        ..Limits::default()
    });
    let mut peer = harness.connect();
    // As many as are taken at once, and the beginning of one more that is not read.
    for id in 0..128 {
        peer.call("park", json!([]), id);
    }
    peer.send(r#"{"method":"ec"#);
    let parked: Vec<_> = (0..128).map(|_| harness.next_parked()).collect();
    // Somebody else is refused for slowness meanwhile, so the time has passed.
    let mut slow = harness.connect();
    slow.send("{");
    slow.expect_error(-32600, Value::Null);
    peer.send(r#"ho","id":"late"}"#);
    for request in parked {
        request.responder.ok(true);
    }
    for _ in 0..128 {
        assert_eq!(peer.result(), true);
    }
    assert_eq!(peer.receive()["id"], "late");
}

#[test]
fn clients_beyond_the_limit_are_told_so() {
    let harness = Harness::with_limits(Limits {
        connections: 8,
        reserved: 0,
        ..Limits::default()
    });
    let mut peers: Vec<Peer> = (0..8).map(|_| harness.connect()).collect();
    for peer in &mut peers {
        peer.assert_alive();
    }
    for round in 0..200 {
        let mut one_more = harness.connect();
        if round % 2 == 0 {
            one_more.call("echo", json!([]), 1);
        }
        let message = one_more.expect_error(-16, Value::Null);
        assert!(message.contains("as many clients as it may"), "{message}");
        one_more.expect_end();
    }
    for peer in &mut peers {
        peer.assert_alive();
    }
    drop(peers.pop());
    harness.assert_alive();
}

#[test]
fn refused_clients_that_stay_take_no_places() {
    let harness = Harness::with_limits(Limits {
        connections: 1,
        reserved: 0,
        ..Limits::default()
    });
    let mut only = harness.connect();
    only.assert_alive();
    // More than are told in comfort.
    let refused: Vec<UnixStream> = (0..100)
        .map(|_| UnixStream::connect(harness.path()).unwrap())
        .collect();
    only.assert_alive();
    drop(only);
    harness.assert_alive();
    drop(refused);
}

#[test]
fn places_are_kept_for_who_runs_the_target() {
    let harness = Harness::with_limits(Limits {
        connections: 0,
        reserved: 2,
        ..Limits::default()
    });
    let mut first = harness.connect();
    let mut second = harness.connect();
    first.assert_alive();
    second.assert_alive();
    harness.connect().expect_error(-16, Value::Null);
}

#[test]
fn those_who_do_not_read_make_room_for_those_who_do() {
    let harness = Harness::with_limits(Limits {
        total_bytes: 8 << 20,
        ..Limits::default()
    });
    let mut good = harness.connect();
    good.assert_alive();
    // Each may have 32 MiB to read; together they may not have 9.
    let mut hoarders: Vec<Peer> = (0..10).map(|_| harness.connect()).collect();
    for peer in &mut hoarders {
        peer.call("big", json!([3 << 20]), 1);
        good.assert_alive();
    }
    // A call that needs room has it.
    good.call("big", json!([1 << 20]), 7);
    assert_eq!(good.receive()["id"], 7);
    let served = hoarders
        .iter_mut()
        .map(is_answered_in_full)
        .filter(|whole| *whole)
        .count();
    assert!((1..10).contains(&served), "{served}");
}

/// Whether a reply comes whole: a disconnected client has a part of it at most.
fn is_answered_in_full(peer: &mut Peer) -> bool {
    let mut bytes = Vec::new();
    let mut chunk = vec![0; 65536];
    while bytes.last() != Some(&b'\n') {
        match peer.stream.read(&mut chunk) {
            Ok(0) | Err(_) => return false,
            Ok(count) => bytes.extend_from_slice(&chunk[..count]),
        }
    }
    true
}
