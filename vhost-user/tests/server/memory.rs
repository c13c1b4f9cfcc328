//! The memory table, as a whole and by slots.

use std::io::pipe;
use std::os::fd::AsFd;

use crate::client::{Client, GUEST, NEED_REPLY, RAM, USER, region, w32, w64};
use crate::fake::Call;
use crate::harness::{Server, eventually, guest_memory};

fn table(regions: &[Vec<u8>]) -> Vec<u8> {
    [w32(&[regions.len() as u32, 0]), regions.concat()].concat()
}

fn slot(guest: u64, size: u64, user: u64) -> Vec<u8> {
    [w64(&[0]), region(guest, size, user, 0)].concat()
}

#[test]
fn the_device_sees_memory_by_guest_physical_address() {
    let server = Server::start();
    let client = server.client();
    let memory = guest_memory(RAM);
    memory.write(0x1234, &0xfeed_u16);
    client.share(&memory);
    let value = server
        .device
        .run(|fake| fake.view.read::<u16>(GUEST + 0x1234).unwrap());
    assert_eq!(value, 0xfeed);
}

#[test]
fn offsets_in_the_file_need_no_alignment() {
    let server = Server::start();
    let client = server.client();
    let memory = guest_memory(RAM);
    memory.write(0x1801, &7u8);
    let askew = table(&[region(GUEST, RAM - 0x1801, USER, 0x1801)]);
    client.set_with(5, &askew, &[memory.fd()]);
    assert_eq!(
        server
            .device
            .run(|fake| fake.view.read::<u8>(GUEST).unwrap()),
        7
    );
}

#[test]
fn bad_tables_are_refused_and_the_old_one_stays() {
    let server = Server::start();
    let client = server.client();
    let memory = guest_memory(RAM);
    client.share(&memory);
    let fd = memory.fd();
    let (pipe, _other_end) = pipe().unwrap();
    let cases: Vec<(&str, Vec<u8>, Vec<_>)> = vec![
        (
            "longer than its file",
            table(&[region(0, RAM + 1, 0, 0)]),
            vec![fd],
        ),
        (
            "beyond its file",
            table(&[region(0, 4096, 0, RAM)]),
            vec![fd],
        ),
        ("empty", table(&[region(0, 0, 0, 0)]), vec![fd]),
        (
            "wraps in the guest",
            table(&[region(u64::MAX, 4096, 0, 0)]),
            vec![fd],
        ),
        (
            "wraps in the client",
            table(&[region(0, 4096, u64::MAX, 0)]),
            vec![fd],
        ),
        (
            "wraps in the file",
            table(&[region(0, 4096, 0, u64::MAX)]),
            vec![fd],
        ),
        (
            "overlap in the guest",
            table(&[region(0, 8192, 0, 0), region(4096, 4096, 1 << 30, 0)]),
            vec![fd, fd],
        ),
        (
            "overlap in the client",
            table(&[region(0, 8192, 0, 0), region(1 << 30, 4096, 4096, 0)]),
            vec![fd, fd],
        ),
        ("no descriptor", table(&[region(0, 4096, 0, 0)]), vec![]),
        (
            "too many descriptors",
            table(&[region(0, 4096, 0, 0)]),
            vec![fd, fd],
        ),
        (
            "not a file",
            table(&[region(0, 4096, 0, 0)]),
            vec![pipe.as_fd()],
        ),
        ("fewer regions than said", w32(&[3, 0]), vec![fd, fd, fd]),
        ("too short", w32(&[0]), vec![]),
    ];
    for (case, payload, fds) in cases {
        assert!(!client.try_with(5, &payload, &fds), "{case}");
        let is_there = server
            .device
            .run(|fake| fake.view.read::<u8>(GUEST).is_ok());
        assert!(is_there, "{case}");
    }
    client.alive();
}

#[test]
fn slots_come_and_go() {
    let server = Server::start();
    let client = server.client();
    let (first, second) = (guest_memory(RAM), guest_memory(RAM));
    client.set_with(37, &slot(0, RAM, USER), &[first.fd()]);
    client.set_with(37, &slot(RAM, RAM, USER + RAM), &[second.fd()]);
    client.refused(37, &slot(RAM, RAM, USER + 9 * RAM), &[second.fd()]);
    client.refused(38, &slot(RAM, RAM, USER), &[]);
    client.set(38, &slot(RAM, RAM, USER + RAM));
    client.refused(38, &slot(RAM, RAM, USER + RAM), &[]);
    // A descriptor may come along.
    client.set_with(38, &slot(0, RAM, USER), &[first.fd()]);
    let counts: Vec<usize> = server
        .device
        .calls()
        .into_iter()
        .filter_map(|call| match call {
            Call::MapChanged(count) => Some(count),
            _ => None,
        })
        .collect();
    assert_eq!(counts, [1, 2, 1, 0]);
}

#[test]
fn there_are_as_many_slots_as_said() {
    let server = Server::start();
    let client = server.client();
    let memory = guest_memory(4096);
    for index in 0..509 {
        client.set_with(
            37,
            &slot(index << 12, 4096, USER + (index << 12)),
            &[memory.fd()],
        );
    }
    client.refused(
        37,
        &slot(509 << 12, 4096, USER + (509 << 12)),
        &[memory.fd()],
    );
    assert_eq!(server.endpoint.session().unwrap().memory_regions, 509);
}

#[test]
fn memory_that_goes_is_answered_for_when_nobody_uses_it_any_more() {
    let server = Server::start();
    let client = server.client();
    let memory = guest_memory(RAM);
    server.device.run(|fake| fake.keep_views = true);
    client.share(&memory);
    server.device.run(|fake| fake.keep_views = false);
    client.send(5, NEED_REPLY, &table(&[]), &[]);
    // Held, with what comes after it.
    client.send(1, 0, &[], &[]);
    server
        .device
        .wait_for(|call| matches!(call, Call::MapChanged(0)));
    client.socket.set_nonblocking(true).unwrap();
    let early = unix_socket::stream::receive(&client.socket, &mut [0; 1]);
    assert!(early.is_err(), "answered while the memory is in use");
    client.socket.set_nonblocking(false).unwrap();
    server.device.run(|fake| fake.in_flight.clear());
    assert_eq!(client.receive(5).u64(), 0);
    client.receive(1);
}

#[test]
fn a_running_ring_that_stays_where_it_is_is_not_disturbed() {
    let server = Server::start();
    let client = server.client();
    let (memory, more) = (guest_memory(RAM), guest_memory(RAM));
    client.share(&memory);
    let _kick = client.start_ring(0, 0);
    server.device.calls();
    let wider = table(&[
        region(GUEST, RAM, USER, 0),
        region(1 << 32, RAM, USER + RAM, 0),
    ]);
    client.set_with(5, &wider, &[memory.fd(), more.fd()]);
    let calls = server.device.calls();
    assert!(matches!(calls[..], [Call::MapChanged(2)]), "{calls:?}");
}

#[test]
fn a_running_ring_that_moves_is_stopped_and_started_where_it_is_then() {
    let server = Server::start();
    let client = server.client();
    let memory = guest_memory(RAM);
    client.share(&memory);
    let _kick = client.start_ring(0, 3);
    server.device.calls();
    let moved = table(&[region(1 << 32, RAM, USER, 0)]);
    client.set_with(5, &moved, &[memory.fd()]);
    let calls = server.device.calls();
    let [Call::Stop(0), Call::MapChanged(1), Call::Start(0, setup)] = &calls[..] else {
        panic!("{calls:?}");
    };
    assert_eq!(setup.desc, 1 << 32);
    assert_eq!(setup.state.next_avail, 3 + 7);
}

#[test]
fn a_ring_whose_memory_goes_waits_until_it_is_back() {
    let server = Server::start();
    let client = server.client();
    let memory = guest_memory(RAM);
    client.share(&memory);
    let _kick = client.start_ring(0, 0);
    client.set(38, &slot(GUEST, RAM, USER));
    let calls = server.device.calls();
    assert!(
        matches!(
            calls[calls.len() - 2..],
            [Call::Stop(0), Call::MapChanged(0)]
        ),
        "{calls:?}"
    );
    client.set_with(37, &slot(GUEST, RAM, USER), &[memory.fd()]);
    assert_eq!(server.device.started().len(), 1);
    assert_eq!(client.stop_ring(0), 14);
}

#[test]
fn memory_without_answers_is_believed_or_the_connection_ends() {
    let server = Server::start();
    let mut client = server.stranger();
    client.negotiate(0, 0);
    let memory = guest_memory(RAM);
    client.send(5, 0, &Client::table(&memory), &[memory.fd()]);
    client.alive();
    client.send(5, 0, &table(&[region(0, RAM + 4096, 0, 0)]), &[memory.fd()]);
    client.closed();
    eventually("drained", || !server.endpoint.is_connected());
}
