//! Clients that mean harm, or are mad.

use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd};

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use crate::client::{Client, NEED_REPLY, RAM, REPLY, w32, w64};
use crate::harness::{Server, event, eventually, guest_memory};

#[test]
fn what_is_not_the_protocol_ends_the_connection() {
    let server = Server::start();
    let header = |flags: u32, size: u32| w32(&[1, flags, size]);
    for bytes in [
        header(0, 0),
        header(2, 0),
        header(3, 0),
        header(1 | REPLY, 0),
        header(1, 4097),
        header(1, u32::MAX),
        vec![0xff; 100],
        b"GET / HTTP/1.1\r\n\r\n".to_vec(),
    ] {
        let client = server.stranger();
        client.send_bytes(&bytes, &[]);
        client.closed();
    }
    server.client().alive();
}

#[test]
fn unknown_requests_are_refused_and_the_session_goes_on() {
    let server = Server::start();
    let client = server.client();
    for code in [0, 19, 20, 22, 23, 27, 29, 33, 35, 44, 1000, u32::MAX] {
        for payload in [vec![], vec![0; 8], vec![0xee; 4096]] {
            client.refused(code, &payload, &[]);
        }
        client.refused(code, &[], &[event().as_fd()]);
    }
    drop(client);
    // Whoever sends these waits for something else than an acknowledgement.
    for code in [26, 28, 30, 41, 42, 43] {
        let client = server.client();
        client.send(code, NEED_REPLY, &[], &[]);
        client.closed();
    }
}

#[test]
fn a_stream_may_come_byte_by_byte() {
    let server = Server::start();
    let client = server.client();
    for byte in Client::bytes(8, NEED_REPLY, &w32(&[0, 64])) {
        (&client.socket).write_all(&[byte]).unwrap();
    }
    assert_eq!(client.receive(8).u64(), 0);
}

#[test]
fn a_stream_may_end_anywhere() {
    let server = Server::start();
    let memory = guest_memory(RAM);
    let bytes = Client::bytes(5, NEED_REPLY, &Client::table(&memory));
    for end in 0..bytes.len() {
        let client = server.client();
        if end > 0 {
            client.send_bytes(&bytes[..end], &[memory.fd()]);
        }
    }
    server.client().alive();
}

#[test]
fn a_flood_of_descriptors_is_refused_and_closed() {
    let server = Server::start();
    let client = server.client();
    let event = event();
    let many: Vec<BorrowedFd<'_>> = vec![event.as_fd(); 200];
    client.refused(3, &[], &many);
    client.refused(5, &w32(&[0, 0]), &many[..100]);
    // In two pieces of one message.
    let bytes = Client::bytes(3, NEED_REPLY, &[]);
    client.send_bytes(&bytes[..4], &many[..100]);
    client.send_bytes(&bytes[4..], &many[..100]);
    assert_ne!(client.receive(3).u64(), 0);
    client.alive();
}

#[test]
fn a_client_that_does_not_read_answers_is_not_read_either() {
    let server = Server::start();
    let client = server.client();
    client.socket.set_nonblocking(true).unwrap();
    let request = Client::bytes(1, 0, &[]);
    let mut sent = 0;
    // Until both directions are full.
    while (&client.socket).write_all(&request).is_ok() {
        sent += 1;
        assert!(sent < 1_000_000, "the back-end keeps answers without bound");
    }
    server.look_around();
    client.socket.set_nonblocking(false).unwrap();
    drop(client);
    server.client().alive();
}

#[test]
fn truncated_guest_memory_costs_nobody_but_its_guest() {
    let server = Server::start();
    let client = server.client();
    let memory = guest_memory(RAM);
    client.share(&memory);
    nix::unistd::ftruncate(memory.fd(), 0).unwrap();
    // Looks at the used index.
    let _kick = client.start_ring(0, 0);
    client.alive();
    // The same file once it is long enough again is mapped anew.
    nix::unistd::ftruncate(memory.fd(), RAM.try_into().unwrap()).unwrap();
    memory_is_fresh(&server, &client, &memory);
}

fn memory_is_fresh(server: &Server, client: &Client, memory: &guest_memory::SharedMemory) {
    client.share(memory);
    let fresh = guest_memory::SharedMemory::from_fd(crate::harness::duplicate(memory), 0, RAM);
    fresh.unwrap().write(0x100, &0x42u8);
    let seen = server.device.run(|fake| {
        let view = &fake.view;
        view.read::<u8>(crate::client::GUEST + 0x100).unwrap()
    });
    assert_eq!(seen, 0x42);
}

#[test]
fn a_client_may_die_at_any_point_of_a_session() {
    let server = Server::start();
    let memory = guest_memory(RAM);
    let steps: &[fn(&Client, &guest_memory::SharedMemory)] = &[
        |client, memory| client.share(memory),
        |client, _| client.place(0, 0),
        |client, _| client.kick(0, &event()),
        |client, _| client.enable(0, true),
        |client, _| client.enable(0, false),
        |client, _| {
            client.stop_ring(0);
        },
        |client, _| client.set(34, &[]),
    ];
    for last in 0..=steps.len() {
        let client = server.client();
        for step in &steps[..last] {
            step(&client, &memory);
        }
        // Something on its way.
        client.send(11, 0, &w32(&[0, 0]), &[]);
    }
    server.client().alive();
}

/// Requests of every kind with numbers that are often nearly right.
#[test]
fn random_requests_harm_nobody() {
    let server = Server::start();
    let memory = guest_memory(RAM);
    let number = || prop_oneof![0u64..5, Just(256), Just(crate::client::USER), any::<u64>()];
    let request = (
        0u32..46,
        proptest::collection::vec(number(), 0..6),
        0usize..3,
        0usize..3,
        any::<bool>(),
    );
    let requests = proptest::collection::vec(request, 1..60);
    let mut runner = TestRunner::new(Config::with_cases(60));
    runner
        .run(&requests, |requests| {
            let client = server.client();
            client.share(&memory);
            let event = event();
            let kinds = [memory.fd(), event.as_fd(), client.socket.as_fd()];
            let mut waits = 0;
            for (code, words, fds, kind, halves) in requests {
                let payload = if halves {
                    let halves: Vec<u32> = words.iter().map(|word| *word as u32).collect();
                    w32(&halves)
                } else {
                    w64(&words)
                };
                let fds = vec![kinds[kind]; fds];
                let bytes = Client::bytes(code, NEED_REPLY, &payload);
                // It may have closed the connection.
                if unix_socket::stream::send(&client.socket, &bytes, &fds).is_err() {
                    break;
                }
                waits += 1;
                if waits % 10 == 0 {
                    server.look_around();
                }
            }
            Ok(())
        })
        .unwrap();
    server.client().alive();
    eventually("the last client is gone", || {
        !server.endpoint.is_connected()
    });
}
