//! The life of rings.

use std::io::pipe;
use std::os::fd::AsFd;

use nix::sys::eventfd::EventFd;
use virtio::{DeviceEvent, Kick, RingState};

use crate::client::{Client, F_PACKED, F_PROTOCOL, GUEST, NEED_REPLY, RAM, USER, w32, w64};
use crate::fake::{Call, FEATURES, Fake, MAX_SIZE, QUEUES};
use crate::harness::{Server, event, eventually, guest_memory};

const NO_FD: u64 = 1 << 8;

fn ready() -> (Server, Client, guest_memory::SharedMemory) {
    let server = Server::start();
    let client = server.client();
    let memory = guest_memory(RAM);
    client.share(&memory);
    (server, client, memory)
}

#[test]
fn a_ring_is_served_once_it_is_started_and_enabled_with_what_the_client_said() {
    let (server, client, memory) = ready();
    // The used index of ring 2, where a split ring goes on.
    memory.write(0x2_c002, &41u16);
    client.place(2, 44);
    let kick = event();
    client.kick(2, &kick);
    assert!(server.device.started().is_empty());
    client.enable(2, true);
    let started = server.device.started();
    let [(2, setup)] = &started[..] else {
        panic!("{started:?}");
    };
    assert_eq!(setup.size, 256);
    assert_eq!(
        (setup.desc, setup.driver, setup.device),
        (GUEST + 0x2_0000, GUEST + 0x2_8000, GUEST + 0x2_c000)
    );
    let state = RingState {
        next_avail: 44,
        next_used: 41,
        ..RingState::default()
    };
    assert_eq!(setup.state, state);
    assert!(matches!(setup.kick, Kick::Event(_)));
    assert!(setup.interrupt.is_some() && setup.inflight.is_none() && setup.log.is_none());
    let info = server.endpoint.session().unwrap();
    assert!(info.queues[2].is_started && info.queues[2].is_enabled && info.queues[2].is_served);
    assert!(!info.queues[1].is_served);
}

#[test]
fn the_order_of_enable_and_kick_does_not_matter() {
    let (server, client, _memory) = ready();
    client.enable(0, true);
    client.place(0, 0);
    assert!(server.device.started().is_empty());
    client.kick(0, &event());
    assert_eq!(server.device.started().len(), 1);
}

#[test]
fn without_protocol_features_rings_start_enabled() {
    let server = Server::start();
    let client = server.stranger();
    client.send(2, 0, &w64(&[FEATURES & (1 << 32)]), &[]);
    let memory = guest_memory(RAM);
    client.send(5, 0, &Client::table(&memory), &[memory.fd()]);
    client.send(8, 0, &w32(&[0, 128]), &[]);
    client.send(9, 0, &Client::address(0, 0), &[]);
    client.send(12, 0, &w64(&[0]), &[event().as_fd()]);
    client.alive();
    assert_eq!(server.device.started().len(), 1);
}

#[test]
fn a_ring_without_kick_is_polled() {
    let (server, client, _memory) = ready();
    client.place(0, 0);
    client.set(12, &w64(&[NO_FD]));
    client.enable(0, true);
    let started = server.device.started();
    assert!(matches!(started[0].1.kick, Kick::Polled));
}

#[test]
fn stopping_a_ring_waits_for_what_is_in_flight_and_holds_back_this_client_only() {
    let (server, client, _memory) = ready();
    let _kick = client.start_ring(1, 5);
    server.device.run(|fake| fake.hold = true);
    client.send(11, 0, &w32(&[1, 0]), &[]);
    client.send(1, 0, &[], &[]);
    server.device.wait_for(|call| matches!(call, Call::Stop(1)));
    client.socket.set_nonblocking(true).unwrap();
    assert!(unix_socket::stream::receive(&client.socket, &mut [0; 1]).is_err());
    client.socket.set_nonblocking(false).unwrap();
    // The reactor does other things meanwhile.
    server.device.run(Fake::release);
    assert_eq!(client.receive(11).payload, w32(&[1, 12]));
    client.receive(1);
    // Stopped twice is as good, and it goes on where it was.
    assert_eq!(client.stop_ring(1), 12);
    client.kick(1, &event());
    assert_eq!(server.device.started()[0].1.state.next_avail, 12);
}

#[test]
fn a_packed_ring_goes_on_with_both_indexes_and_wrap_counters() {
    let (server, client, _memory) = ready();
    client.set_features(F_PACKED);
    let _kick = client.start_ring(0, 0x8003_0009);
    let state = RingState {
        next_avail: 9,
        avail_wrap: false,
        next_used: 3,
        used_wrap: true,
    };
    assert_eq!(server.device.started()[0].1.state, state);
    assert_eq!(client.stop_ring(0), 0x800a_0010);
    // One that was never given a base begins at the beginning.
    assert_eq!(client.stop_ring(3), 0x8000_8000);
}

#[test]
fn a_ring_that_was_described_for_another_format_is_not_started() {
    let (server, client, _memory) = ready();
    client.set_features(F_PACKED);
    client.set(8, &w32(&[0, 100]));
    client.set(9, &Client::address(0, 0));
    client.kick(0, &event());
    // What the kick was checked against has changed since: a split ring's size is a power of two.
    client.set_features(0);
    client.enable(0, true);
    assert!(server.device.started().is_empty());
    // Others are.
    let _kick = client.start_ring(1, 0);
    assert_eq!(server.device.started().len(), 1);
}

#[test]
fn a_disabled_ring_is_at_rest_when_that_is_answered() {
    let (server, client, _memory) = ready();
    let _kick = client.start_ring(0, 0);
    client.enable(0, false);
    assert!(server.device.run(|fake| fake.queues[0].is_none()));
    client.enable(0, true);
    assert!(server.device.run(|fake| fake.queues[0].is_some()));
}

#[test]
fn call_eventfds_are_exchanged_under_a_running_ring() {
    let (server, client, _memory) = ready();
    let _kick = client.start_ring(0, 0);
    server.device.calls();
    let raise = || {
        server.device.run(|fake| {
            let setup = fake.queues[0].as_ref().unwrap();
            setup.interrupt.as_ref().unwrap().signal();
        });
    };
    let (first, second) = (event(), event());
    // Raised before there is anyone to hear it: kept.
    raise();
    client.set_with(13, &w64(&[0]), &[first.as_fd()]);
    assert!(first.read().unwrap() >= 1);
    // One that came on the first after the client had looked there for the last time is heard on the second.
    client.set_with(13, &w64(&[0]), &[second.as_fd()]);
    assert_eq!(second.read().unwrap(), 1);
    raise();
    assert_eq!(second.read().unwrap(), 1);
    assert!(first.read().is_err());
    client.set(13, &w64(&[NO_FD]));
    raise();
    assert!(second.read().is_err());
    assert!(server.device.calls().is_empty(), "the ring was disturbed");
}

#[test]
fn an_event_on_which_a_reactor_could_block_is_refused() {
    let (_server, client, _memory) = ready();
    let (reader, writer) = pipe().unwrap();
    client.place(0, 0);
    for code in [12, 13, 14] {
        client.refused(code, &w64(&[0]), &[writer.as_fd()]);
        client.refused(code, &w64(&[0]), &[reader.as_fd()]);
        client.refused(code, &w64(&[0]), &[]);
        client.refused(code, &w64(&[NO_FD]), &[event().as_fd()]);
    }
}

#[test]
fn a_client_whose_eventfd_blocks_blocks_nobody() {
    let (server, client, _memory) = ready();
    let _kick = client.start_ring(0, 0);
    let full = EventFd::from_value(0).unwrap();
    full.write(u64::MAX - 1).unwrap();
    for code in [13, 14] {
        client.set_with(code, &w64(&[0]), &[full.as_fd()]);
    }
    server.device.run(|fake| {
        let setup = fake.queues[0].as_ref().unwrap();
        setup.interrupt.as_ref().unwrap().signal();
        fake.events.push_back(DeviceEvent::Broken {
            index: Some(0),
            cause: "a test wants it".to_owned(),
        });
    });
    client.alive();
}

#[test]
fn a_broken_ring_is_told_and_served_again_after_a_new_start() {
    let (server, client, _memory) = ready();
    let (_kick0, _kick1) = (client.start_ring(0, 0), client.start_ring(1, 0));
    let errors = [event(), event()];
    for (index, error) in errors.iter().enumerate() {
        client.set_with(14, &w64(&[index as u64]), &[error.as_fd()]);
    }
    server.device.run(|fake| {
        fake.events.push_back(DeviceEvent::Broken {
            index: Some(1),
            cause: "a test wants it".to_owned(),
        });
    });
    eventually("the error is told", || errors[1].read().is_ok());
    assert!(errors[0].read().is_err());
    server.device.calls();
    client.enable(1, false);
    client.enable(1, true);
    assert!(server.device.started().is_empty());
    client.stop_ring(1);
    client.kick(1, &event());
    assert_eq!(server.device.started().len(), 1);
}

#[test]
fn a_device_that_broke_begins_again_with_the_next_choice_of_features() {
    let (server, client, _memory) = ready();
    let _kick = client.start_ring(0, 0);
    server.device.run(|fake| {
        fake.events.push_back(DeviceEvent::Broken {
            index: None,
            cause: "a test wants it".to_owned(),
        });
    });
    client.stop_ring(0);
    client.set_features(0);
    let calls = server.device.wait_for(|call| matches!(call, Call::Reset));
    assert!(calls.iter().any(|call| matches!(call, Call::Stop(0))));
    client.set(10, &w32(&[0, 0]));
    client.kick(0, &event());
    assert!(server.device.run(|fake| fake.queues[0].is_some()));
}

#[test]
fn rings_that_cannot_be_are_refused() {
    let (_server, client, _memory) = ready();
    let max = u32::from(MAX_SIZE);
    for size in [0, max + 1, u32::MAX] {
        client.refused(8, &w32(&[0, size]), &[]);
    }
    let beyond = u32::from(QUEUES);
    client.refused(8, &w32(&[beyond, 256]), &[]);
    client.refused(10, &w32(&[beyond, 0]), &[]);
    client.refused(18, &w32(&[beyond, 1]), &[]);
    client.refused(18, &w32(&[0, 2]), &[]);
    client.refused(9, &Client::address(beyond, 0), &[]);
    for code in [12, 13, 14] {
        client.refused(code, &w64(&[beyond.into()]), &[event().as_fd()]);
        client.refused(code, &w64(&[0xff]), &[event().as_fd()]);
    }
    // Started before it is described.
    client.refused(12, &w64(&[0]), &[event().as_fd()]);
    client.set(8, &w32(&[0, 256]));
    client.refused(12, &w64(&[0]), &[event().as_fd()]);
    let address = |desc, used, avail| [w32(&[0, 0]), w64(&[desc, used, avail, 0])].concat();
    let end = USER + RAM;
    for (case, payload) in [
        ("outside", address(USER - 4096, USER, USER)),
        ("guest-physical", address(GUEST, GUEST, GUEST)),
        ("descriptors cross the end", address(end - 4080, USER, USER)),
        ("used ring crosses the end", address(USER, end - 2048, USER)),
        (
            "available ring crosses the end",
            address(USER, USER, end - 512),
        ),
        ("wraps", address(u64::MAX - 15, USER, USER)),
        ("descriptors askew", address(USER + 8, USER, USER)),
        ("used ring askew", address(USER, USER + 2, USER)),
        ("available ring askew", address(USER, USER, USER + 1)),
    ] {
        assert!(!client.try_with(9, &payload, &[]), "{case}");
    }
    // A size that only packed rings may have.
    client.set(8, &w32(&[0, 100]));
    client.set(9, &Client::address(0, 0));
    client.refused(12, &w64(&[0]), &[event().as_fd()]);
    client.set_features(F_PACKED);
    client.kick(0, &event());
}

#[test]
fn rings_before_memory_are_refused() {
    let server = Server::start();
    let client = server.client();
    client.set(8, &w32(&[0, 256]));
    client.refused(9, &Client::address(0, 0), &[]);
}

#[test]
fn what_a_running_ring_depends_on_does_not_change_under_it() {
    let (server, client, _memory) = ready();
    let _kick = client.start_ring(0, 0);
    client.refused(8, &w32(&[0, 128]), &[]);
    client.refused(10, &w32(&[0, 1]), &[]);
    client.refused(2, &w64(&[F_PROTOCOL]), &[]);
    server.device.calls();
    // Another kick, another place: it is stopped in between.
    client.kick(0, &event());
    let calls = server.device.calls();
    assert!(
        matches!(calls[..], [Call::Stop(0), Call::Start(..)]),
        "{calls:?}"
    );
    let elsewhere = [
        w32(&[0, 0]),
        w64(&[USER + 0x5_0000, USER, USER + 0x1000, 0]),
    ]
    .concat();
    client.set(9, &elsewhere);
    let calls = server.device.calls();
    let [Call::Stop(0), Call::Start(0, setup)] = &calls[..] else {
        panic!("{calls:?}");
    };
    assert_eq!(setup.desc, GUEST + 0x5_0000);
    // The same place again is nothing new.
    client.set(9, &elsewhere);
    assert!(server.device.calls().is_empty());
}

#[test]
fn a_ring_that_was_lost_is_not_said_to_stand_anywhere() {
    let (server, client, _memory) = ready();
    let _kick = client.start_ring(0, 0);
    server.device.run(|fake| {
        fake.hold = true;
    });
    client.send(11, 0, &w32(&[0, 0]), &[]);
    server.device.wait_for(|call| matches!(call, Call::Stop(0)));
    server.device.run(|fake| {
        fake.events.push_back(DeviceEvent::QueueStopped {
            index: 0,
            state: None,
        });
    });
    client.closed();
    server.device.run(Fake::release);
}

#[test]
fn a_reset_forgets_the_rings_and_keeps_the_connection() {
    for (code, payload) in [(34, vec![]), (39, w64(&[0]))] {
        let (server, client, _memory) = ready();
        let _kick = client.start_ring(0, 9);
        let call = event();
        client.set_with(13, &w64(&[0]), &[call.as_fd()]);
        server.device.run(|fake| fake.hold = true);
        client.send(code, NEED_REPLY, &payload, &[]);
        server.device.wait_for(|call| matches!(call, Call::Reset));
        client.socket.set_nonblocking(true).unwrap();
        assert!(unix_socket::stream::receive(&client.socket, &mut [0; 1]).is_err());
        client.socket.set_nonblocking(false).unwrap();
        server.device.run(Fake::release);
        assert_eq!(client.receive(code).u64(), 0);
        // The memory is still there for the device, and the rings are to be described anew.
        assert!(
            server
                .device
                .run(|fake| fake.view.read::<u8>(GUEST).is_ok())
        );
        assert_eq!(client.stop_ring(0), 0);
        client.refused(12, &w64(&[0]), &[event().as_fd()]);
        client.set_features(0);
        let _kick = client.start_ring(0, 0);
        let _ = call.read();
        server.device.run(|fake| {
            let setup = fake.queues[0].as_ref().unwrap();
            setup.interrupt.as_ref().unwrap().signal();
        });
        assert_eq!(call.read().unwrap(), 1);
    }
}
