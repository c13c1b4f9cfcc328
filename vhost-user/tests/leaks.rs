//! Descriptors and mappings of a whole process: alone in its process, since it counts them.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test's helpers fail the test"
)]

#[allow(
    dead_code,
    reason = "shared with the server's tests, which use more of it"
)]
#[path = "server/client.rs"]
mod client;
#[allow(
    dead_code,
    reason = "shared with the server's tests, which use more of it"
)]
#[path = "server/fake.rs"]
mod fake;
#[allow(
    dead_code,
    reason = "shared with the server's tests, which use more of it"
)]
#[path = "server/harness.rs"]
mod harness;

use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;

use client::{Client, F_LOG_ALL, GUEST, NEED_REPLY, RAM, USER, region, w32, w64};
use fake::{Call, Fake};
use harness::{Server, event, eventually, guest_memory};

fn open_descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

fn mappings() -> usize {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    maps.lines().filter(|line| line.contains("memfd:")).count()
}

/// Waits until the process has no more of either than before: what a client had is let go of after it has gone.
#[track_caller]
fn settles(before: (usize, usize)) {
    eventually("something stays open", || {
        open_descriptors() <= before.0 && mappings() <= before.1
    });
}

fn thousand_tables(client: &Client) {
    let memory = guest_memory(RAM);
    let before = (open_descriptors(), mappings());
    for cycle in 0..1000_u64 {
        let slot = [w64(&[0]), region(GUEST, 4096, USER, cycle % 16 * 4096)].concat();
        client.set_with(37, &slot, &[memory.fd()]);
        client.set(38, &slot);
    }
    for cycle in 0..1000_u64 {
        let table = [w32(&[1, 0]), region(GUEST, 4096, USER, cycle % 16 * 4096)].concat();
        client.set_with(5, &table, &[memory.fd()]);
    }
    client.set(5, &w32(&[0, 0]));
    // Each answer promises that the memory is not used any more, and a small mapping goes at once.
    assert_eq!((open_descriptors(), mappings()), before);
}

fn refused_requests(client: &Client) {
    let memory = guest_memory(RAM);
    let event = event();
    let before = (open_descriptors(), mappings());
    for _ in 0..100 {
        let two = [
            w32(&[2, 0]),
            region(0, 4096, 0, 0),
            region(4096, RAM + 1, 4096, 0),
        ];
        client.refused(5, &two.concat(), &[memory.fd(), memory.fd()]);
        client.refused(5, &w32(&[0, 0]), &[memory.fd(); 20]);
        client.refused(12, &w64(&[0]), &[event.as_fd()]);
        client.refused(13, &w64(&[99]), &[event.as_fd()]);
        client.refused(19, &[], &[event.as_fd(); 5]);
        client.refused(32, &[0; 24], &[memory.fd()]);
        client.refused(3, &[], &[event.as_fd(); 200]);
    }
    assert_eq!((open_descriptors(), mappings()), before);
}

fn replaced_descriptors(client: &Client) {
    let memory = guest_memory(RAM);
    client.share(&memory);
    client.place(0, 0);
    let before = open_descriptors();
    for _ in 0..100 {
        let event = event();
        for code in [12, 13, 14] {
            client.set_with(code, &w64(&[0]), &[event.as_fd()]);
        }
        let (_ours, theirs) = UnixStream::pair().unwrap();
        client.set_with(21, &[], &[theirs.as_fd()]);
        client.send(6, 0, &w64(&[4096, 0]), &[memory.fd()]);
        client.receive(6);
    }
    // One of each kind stays, and the log's descriptor.
    assert!(open_descriptors() <= before + 5);
}

/// Leaves memory, eventfds, a log, a message that is not complete, and descriptors with it.
fn untidy(server: &Server) {
    let client = server.client();
    let memory = guest_memory(RAM);
    client.share(&memory);
    client.send(6, 0, &w64(&[4096, 0]), &[memory.fd()]);
    client.receive(6);
    client.set_features(F_LOG_ALL);
    let _kick = client.start_ring(0, 0);
    let (_ours, theirs) = UnixStream::pair().unwrap();
    client.set_with(21, &[], &[theirs.as_fd()]);
    let inflight = [w64(&[0, 0]), w32(&[4 | 256 << 16, 0])].concat();
    drop(client.ask(31, &inflight));
    let bytes = Client::bytes(5, NEED_REPLY, &Client::table(&memory));
    client.send_bytes(&bytes[..20], &[memory.fd(), theirs.as_fd()]);
}

/// Has its last request held when it dies.
fn interrupted(server: &Server) {
    let client = server.client();
    let memory = guest_memory(RAM);
    client.share(&memory);
    let _kick = client.start_ring(0, 0);
    server.device.run(|fake| fake.hold = true);
    server.device.calls();
    client.send(5, NEED_REPLY, &w32(&[0, 0]), &[]);
    server.device.wait_for(|call| matches!(call, Call::Stop(_)));
    drop(client);
    server.device.wait_for(|call| matches!(call, Call::Reset));
    server.device.run(Fake::release);
}

#[test]
fn a_client_leaves_nothing_behind() {
    let server = Server::start();
    // What is made once, on first use.
    untidy(&server);
    server.client().alive();
    eventually("drained", || !server.endpoint.is_connected());
    let before = (open_descriptors(), mappings());
    let client = server.client();
    thousand_tables(&client);
    refused_requests(&client);
    replaced_descriptors(&client);
    drop(client);
    settles(before);
    for _ in 0..20 {
        untidy(&server);
        interrupted(&server);
    }
    settles(before);
}
