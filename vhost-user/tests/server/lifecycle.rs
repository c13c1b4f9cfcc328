//! Clients come and go, and so do endpoints.

use std::time::Duration;

use reactor::Ack;

use crate::client::{Client, NEED_REPLY, RAM, w32};
use crate::fake::{Call, Fake};
use crate::harness::{PATIENCE, Server, eventually, guest_memory};

#[test]
fn clients_are_served_one_after_the_other_each_with_a_device_of_its_own() {
    let server = Server::start();
    assert!(!server.endpoint.is_connected() && server.endpoint.session().is_none());
    let first = server.client();
    assert!(server.endpoint.is_connected());
    // Waits in the backlog.
    let second = server.stranger();
    second.send(1, 0, &[], &[]);
    first.alive();
    second.socket.set_nonblocking(true).unwrap();
    assert!(unix_socket::stream::receive(&second.socket, &mut [0; 1]).is_err());
    second.socket.set_nonblocking(false).unwrap();
    drop(first);
    second.receive(1);
    let calls = server.device.wait_for(|call| matches!(call, Call::Dropped));
    let resets = calls.iter().filter(|call| matches!(call, Call::Reset));
    assert_eq!(resets.count(), 1);
}

#[test]
fn the_next_client_waits_until_the_last_ones_memory_is_let_go_of() {
    let server = Server::start();
    let first = server.client();
    let memory = guest_memory(RAM);
    first.share(&memory);
    let _kick = first.start_ring(0, 0);
    server.device.run(|fake| fake.hold = true);
    drop(first);
    server.device.wait_for(|call| matches!(call, Call::Reset));
    let second = server.stranger();
    second.send(1, 0, &[], &[]);
    assert!(server.endpoint.is_connected());
    second.socket.set_nonblocking(true).unwrap();
    assert!(unix_socket::stream::receive(&second.socket, &mut [0; 1]).is_err());
    second.socket.set_nonblocking(false).unwrap();
    server.device.run(Fake::release);
    second.receive(1);
}

#[test]
fn a_client_may_die_while_a_request_is_held() {
    let server = Server::start();
    let memory = guest_memory(RAM);
    for (code, payload) in [
        (11, w32(&[0, 0])),
        (18, w32(&[0, 0])),
        (34, vec![]),
        (5, w32(&[0, 0])),
    ] {
        let client = server.client();
        client.share(&memory);
        let _kick = client.start_ring(0, 0);
        server.device.calls();
        server.device.run(|fake| fake.hold = true);
        client.send(code, NEED_REPLY, &payload, &[]);
        server
            .device
            .wait_for(|call| matches!(call, Call::Stop(0) | Call::Reset));
        drop(client);
        // In mid-reset the device is not asked twice.
        if code != 34 {
            server.device.wait_for(|call| matches!(call, Call::Reset));
        }
        server.device.run(Fake::release);
        server.device.wait_for(|call| matches!(call, Call::Dropped));
    }
    server.client().alive();
}

#[test]
fn removal_lets_requests_end_and_then_disconnects() {
    let server = Server::start();
    let client = server.client();
    let memory = guest_memory(RAM);
    client.share(&memory);
    let _kick = client.start_ring(0, 0);
    server.device.run(|fake| fake.hold = true);
    let (done, gone) = Ack::channel();
    server.endpoint.remove(done);
    let calls = server.device.wait_for(|call| matches!(call, Call::Stop(0)));
    assert!(!calls.iter().any(|call| matches!(call, Call::Reset)));
    assert!(!server.path().exists());
    assert!(!gone.is_done());
    server.device.run(Fake::release);
    assert!(gone.wait(PATIENCE));
    client.closed();
    let calls = server.device.calls();
    assert!(
        matches!(calls[..], [Call::Reset, Call::Dropped]),
        "{calls:?}"
    );
}

#[test]
fn removal_does_not_wait_for_a_disk_that_never_answers() {
    let server = Server::with_grace(Duration::from_millis(20));
    let client = server.client();
    let memory = guest_memory(RAM);
    client.share(&memory);
    let _kick = client.start_ring(0, 0);
    server.device.run(|fake| fake.hold = true);
    server.remove();
    client.closed();
    // What hangs is let go of when it ends.
    server.device.run(Fake::release);
    server.device.wait_for(|call| matches!(call, Call::Dropped));
}

#[test]
fn removal_while_the_last_clients_io_hangs_does_not_wait_either() {
    let server = Server::with_grace(Duration::from_millis(20));
    let client = server.client();
    server.device.run(|fake| fake.hold = true);
    drop(client);
    server.device.wait_for(|call| matches!(call, Call::Reset));
    server.remove();
    server.device.run(Fake::release);
}

#[test]
fn removal_with_nobody_there_and_with_somebody_who_says_nothing() {
    let server = Server::start();
    server.remove();
    let server = Server::start();
    let stranger = server.stranger();
    eventually("accepted", || server.endpoint.is_connected());
    server.remove();
    stranger.closed();
    server.remove();
}

#[test]
fn a_device_that_cannot_be_made_costs_the_connection() {
    let config = reactor::Config {
        mode: reactor::Mode::Interrupt,
        ..reactor::Config::default()
    };
    let (reactor, thread) = reactor::spawn(config).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let listener = vhost_user::Listener::bind(&directory.path().join("vhost.0")).unwrap();
    let factory = Box::new(|_: &mut reactor::Cx| Err("no disk today".into()));
    let options = vhost_user::Options::default();
    let endpoint = vhost_user::Endpoint::start(listener, &reactor, options, factory);
    for _ in 0..3 {
        let client = Client::connect(endpoint.path());
        client.send(1, 0, &[], &[]);
        client.closed();
    }
    let (done, gone) = Ack::channel();
    endpoint.remove(done);
    assert!(gone.wait(PATIENCE));
    reactor.stop();
    thread.join().unwrap();
}
