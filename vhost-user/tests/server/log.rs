//! The log of writes that migration needs.

use crate::client::{Client, F_LOG_ALL, GUEST, RAM, REPLY_ACK, w32, w64};
use crate::fake::Call;
use crate::harness::{Server, event, eventually, guest_memory};

#[test]
fn the_log_is_switched_under_running_rings_with_nothing_in_flight() {
    let server = Server::start();
    let client = server.client();
    let (memory, log) = (guest_memory(RAM), guest_memory(4096));
    client.share(&memory);
    let _kicks = [client.start_ring(0, 0), client.start_ring(1, 0)];
    server.device.calls();
    // The log alone changes nothing.
    let payload = w64(&[4096, 0]);
    client.send(6, 0, &payload, &[log.fd()]);
    assert_eq!(client.receive(6).payload, payload);
    assert!(server.device.calls().is_empty());
    client.set_features(F_LOG_ALL);
    let calls = server.device.calls();
    let [
        Call::Stop(0),
        Call::Stop(1),
        Call::Features(_),
        Call::Start(0, first),
        Call::Start(1, second),
    ] = &calls[..]
    else {
        panic!("{calls:?}");
    };
    for setup in [first, second] {
        let seen = setup.log.as_ref().unwrap().memory();
        log.write(0, &0x5au8);
        assert_eq!(seen.read::<u8>(0), Some(0x5a));
        assert_eq!(setup.state.next_avail, 7);
        assert_eq!(setup.features & F_LOG_ALL, 0);
    }
    // A ring's own flag, as front-ends set it next.
    client.set(9, &Client::address(0, 1));
    assert!(server.device.started()[0].1.log.is_some());
    // Another log, as a VMM with more memory wants it.
    let longer = guest_memory(8192);
    client.send(6, 0, &w64(&[4096, 4096]), &[longer.fd()]);
    client.receive(6);
    let started = server.device.started();
    assert_eq!(started.len(), 2);
    let seen = started[0].1.log.as_ref().unwrap().memory().clone();
    longer.write(4096, &0x77u8);
    assert_eq!(seen.read::<u8>(0), Some(0x77));
    client.set_features(0);
    let started = server.device.started();
    assert!(started.len() == 2 && started.iter().all(|(_, setup)| setup.log.is_none()));
}

#[test]
fn a_log_that_cannot_be_ends_the_connection() {
    let server = Server::start();
    let log = guest_memory(4096);
    for (payload, fds) in [
        (w64(&[8192, 0]), vec![log.fd()]),
        (w64(&[4096, 4096]), vec![log.fd()]),
        (w64(&[u64::MAX, 1]), vec![log.fd()]),
        (w64(&[0, 0]), vec![log.fd()]),
        (w64(&[4096, 0]), vec![]),
        (w64(&[0x7f00_0000]), vec![]),
    ] {
        let client = server.client();
        client.send(6, 0, &payload, &fds);
        client.closed();
    }
    let mut client = server.stranger();
    client.negotiate(REPLY_ACK, 0);
    client.send(6, 0, &w64(&[4096, 0]), &[log.fd()]);
    client.closed();
}

#[test]
fn a_ring_logged_elsewhere_than_where_it_lies_is_refused() {
    let server = Server::start();
    let client = server.client();
    let memory = guest_memory(RAM);
    client.share(&memory);
    client.set(8, &w32(&[0, 256]));
    let mut address = Client::address(0, 1);
    address[32..].copy_from_slice(&(GUEST + 64).to_ne_bytes());
    client.refused(9, &address, &[]);
    client.set(9, &Client::address(0, 1));
}

#[test]
fn who_would_like_to_hear_of_writes_is_heard_out() {
    use std::os::fd::AsFd;
    let server = Server::start();
    let client = server.client();
    client.set_with(7, &[], &[event().as_fd()]);
    client.refused(7, &[], &[]);
}

#[test]
fn a_truncated_log_costs_its_client_the_connection() {
    let server = Server::start();
    let client = server.client();
    let (memory, log) = (guest_memory(RAM), guest_memory(4096));
    client.share(&memory);
    client.send(6, 0, &w64(&[4096, 0]), &[log.fd()]);
    client.receive(6);
    client.set_features(F_LOG_ALL);
    let _kick = client.start_ring(0, 0);
    nix::unistd::ftruncate(log.fd(), 0).unwrap();
    server.device.run(|fake| {
        let setup = fake.queues[0].as_ref().unwrap();
        setup.log.as_ref().unwrap().memory().write(0, &1u8);
    });
    client.closed();
    eventually("drained", || !server.endpoint.is_connected());
    server.client().alive();
}
