//! Clients that come and go, endpoints that are removed.

use std::os::fd::AsFd;

use nix::sys::eventfd::EventFd;
use pci::ResetKind;
use testkit::vfio_user::{Client, Proposal};
use vfio_user::Listener;
use vfio_user::wire::{Command, MSIX_IRQ};

use crate::fake::Call;
use crate::harness::{RW, Server, alive, guest_memory, words};

#[test]
fn the_next_client_gets_a_clean_device() {
    let server = Server::start();
    let memory = guest_memory(1);
    for _ in 0..5 {
        let mut client = server.client();
        assert_eq!(client.read::<u32>(0, 0).unwrap(), 0);
        server
            .device
            .run(|fake| fake.view.read::<u32>(0))
            .unwrap_err();
        client.region_write(0, 0, &[1; 4]).unwrap();
        client.dma_map(RW, Some(memory.fd()), 0, 0, 4096).unwrap();
        drop(client);
        let calls = server.device.wait_for(|call| *call == Call::Dropped);
        let gone = Call::Reset(ResetKind::ClientGone);
        assert_eq!(calls.iter().filter(|call| **call == gone).count(), 1);
    }
}

#[test]
fn clients_wait_in_line() {
    let server = Server::start();
    let mut first = server.client();
    let mut waiting: Vec<Client> = (0..8).map(|_| server.stranger()).collect();
    // They may even have spoken.
    let data = Proposal::default().data;
    let payload = [&[0; 4][..], &data].concat();
    for client in &mut waiting {
        client
            .wire()
            .send(Command::VERSION, 0, &payload, &[])
            .unwrap();
    }
    alive(&mut first);
    drop(first);
    for mut client in waiting {
        client.wire().reply_to(0, Command::VERSION).unwrap();
        alive(&mut client);
    }
}

#[test]
fn a_client_that_dies_in_the_middle_of_a_message() {
    let server = Server::start();
    for count in [1, 8, 15, 16, 17, 31] {
        let mut client = server.client();
        let message = [words(&[9 << 16, 32, 0, 0]), words(&[0, 0, 7, 4])].concat();
        client.wire().send_bytes(&message[..count], &[]).unwrap();
        drop(client);
        alive(&mut server.client());
    }
}

#[test]
fn a_stranger_that_leaves_without_a_word() {
    let server = Server::start();
    for _ in 0..10 {
        drop(server.stranger());
    }
    alive(&mut server.client());
}

#[test]
fn a_client_that_dies_while_its_request_is_held() {
    let server = Server::start();
    let memory = guest_memory(1);
    for held in [
        Command::REGION_WRITE,
        Command::REGION_READ,
        Command::DEVICE_RESET,
    ] {
        let mut client = server.client();
        server.device.run(|fake| fake.defer = true);
        let payload = match held {
            Command::REGION_WRITE => words(&[0, 0, 0, 4, 1]),
            Command::REGION_READ => words(&[0, 0, 0, 4]),
            _ => Vec::new(),
        };
        client.wire().send(held, 0, &payload, &[]).unwrap();
        server
            .device
            .wait_for(|call| !matches!(call, Call::Dropped | Call::MapChanged(_)));
        drop(client);
        server.device.wait_for(|call| *call == Call::Dropped);
    }
    let mut client = server.client();
    client.dma_map(RW, Some(memory.fd()), 0, 0, 4096).unwrap();
    server.device.run(|fake| fake.hold_on = true);
    client
        .wire()
        .send(Command::DMA_UNMAP, 0, &words(&[24, 0, 0, 0, 4096, 0]), &[])
        .unwrap();
    server.device.wait_for(|call| *call == Call::MapChanged(0));
    drop(client);
    server
        .device
        .wait_for(|call| *call == Call::Reset(ResetKind::ClientGone));
    server.device.run(|fake| fake.in_flight.clear());
    server.device.wait_for(|call| *call == Call::Dropped);
    alive(&mut server.client());
}

#[test]
fn a_client_that_dies_with_operations_in_flight_is_drained_before_the_next() {
    let server = Server::start();
    let memory = guest_memory(1);
    let mut client = server.client();
    client.dma_map(RW, Some(memory.fd()), 0, 0, 4096).unwrap();
    server.device.run(|fake| {
        let view = fake.view.clone();
        fake.in_flight.push(view);
    });
    drop(client);
    server
        .device
        .wait_for(|call| *call == Call::Reset(ResetKind::ClientGone));
    assert!(server.endpoint.is_connected());
    let mut next = server.stranger();
    let payload = [&[0; 4][..], &Proposal::default().data].concat();
    next.wire()
        .send(Command::VERSION, 0, &payload, &[])
        .unwrap();
    // The operation still reaches its memory.
    server
        .device
        .run(|fake| fake.in_flight[0].write(0, &9_u32))
        .unwrap();
    assert_eq!(memory.load_u32(0), 9);
    assert!(
        !next.wire().readable(0).unwrap(),
        "served before the last one was drained"
    );
    server.device.run(|fake| fake.in_flight.clear());
    next.wire().reply_to(0, Command::VERSION).unwrap();
    alive(&mut next);
}

#[test]
fn a_client_that_only_stops_sending_gets_its_answers() {
    let server = Server::start();
    let mut client = server.client();
    let ids: Vec<u16> = (0..10)
        .map(|_| {
            client
                .wire()
                .send(Command::REGION_READ, 0, &words(&[0, 0, 7, 4]), &[])
                .unwrap()
        })
        .collect();
    client.wire().finish_sending().unwrap();
    for id in ids {
        client.wire().reply_to(id, Command::REGION_READ).unwrap();
    }
    client.wire().wait_closed().unwrap();
}

/// Operations and watches of the reactor.
fn in_flight(server: &Server) -> u32 {
    let stats = server.reactor.call(|reactor| reactor.stats().in_flight);
    stats.wait(std::time::Duration::from_secs(20)).unwrap()
}

#[test]
fn nothing_of_a_client_stays_with_the_reactor() {
    let server = Server::start();
    alive(&mut server.client());
    for round in 0..100 {
        if round % 2 == 0 {
            drop(server.stranger());
        } else {
            alive(&mut server.client());
        }
    }
    // A watch whose event crosses its cancellation ends a little later.
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while in_flight(&server) > 1 || server.endpoint.is_connected() {
        assert!(
            std::time::Instant::now() < deadline,
            "{} in flight",
            in_flight(&server)
        );
        std::thread::yield_now();
    }
}

#[test]
fn removal_closes_drains_and_leaves_no_name() {
    let server = Server::start();
    let mut client = server.client();
    let event = EventFd::new().unwrap();
    client.set_eventfds(MSIX_IRQ, 0, &[event.as_fd()]).unwrap();
    let mut waiting = server.stranger();
    server.remove();
    assert!(!server.path().exists());
    client.wire().wait_closed().unwrap();
    waiting.wire().wait_closed().unwrap();
    let calls = server.device.calls();
    assert!(
        calls.contains(&Call::Reset(ResetKind::Removed)),
        "{calls:?}"
    );
    assert_eq!(calls.last(), Some(&Call::Dropped));
    assert!(Client::connect_only(server.path()).is_err());
    // Asked again, it is gone at once; and the name is free.
    server.remove();
    Listener::bind(server.path()).unwrap();
}

#[test]
fn removal_waits_for_operations_in_flight() {
    let server = Server::start();
    let mut client = server.client();
    alive(&mut client);
    server.device.run(|fake| {
        let view = fake.view.clone();
        fake.in_flight.push(view);
    });
    let (done, gone) = reactor::Ack::channel();
    server.endpoint.remove(done);
    server
        .device
        .wait_for(|call| *call == Call::Reset(ResetKind::Removed));
    assert!(!gone.is_done());
    server.device.run(|fake| fake.in_flight.clear());
    assert!(gone.wait(std::time::Duration::from_secs(20)));
}

#[test]
fn removal_without_a_client() {
    let server = Server::start();
    assert!(!server.endpoint.is_connected());
    server.remove();
    assert!(!server.path().exists());
}

#[test]
fn removal_after_the_reactor_has_ended_does_not_hang() {
    let server = Server::start();
    alive(&mut server.client());
    server.reactor.stop();
    server.remove();
    assert!(!server.path().exists());
}

#[test]
fn a_device_that_panics_costs_its_own_client_only() {
    let server = Server::start();
    let mut client = server.client();
    let (reader, _keep) = std::io::pipe().unwrap();
    drop(reader);
    // The job's own answer is lost with it, so it is not waited for.
    let device = server.device.clone();
    let panicking = std::thread::spawn(move || device.run(|_| panic!("a device's bug")));
    client.wire().wait_closed().unwrap();
    assert!(panicking.join().is_err());
    alive(&mut server.client());
}

#[test]
fn two_endpoints_on_one_reactor_do_not_disturb_each_other() {
    let server = Server::start();
    let path = server.directory.path().join("second");
    let device = crate::fake::Remote::new(server.reactor.clone());
    let remote = device.clone();
    let second = vfio_user::Endpoint::start(
        Listener::bind(&path).unwrap(),
        &server.reactor,
        vfio_user::Options::default(),
        Box::new(move |_| Ok(remote.make())),
    );
    let (mut one, mut two) = (server.client(), Client::connect(&path).unwrap());
    // One client's request is held; the other's are answered.
    server.device.run(|fake| fake.defer = true);
    let held = one.wire().send(Command::DEVICE_RESET, 0, &[], &[]).unwrap();
    server
        .device
        .wait_for(|call| *call == Call::Reset(ResetKind::Device));
    for _ in 0..10 {
        alive(&mut two);
    }
    server
        .device
        .run(|fake| fake.finished = Some(pci::Access::Done));
    one.wire().reply_to(held, Command::DEVICE_RESET).unwrap();
    drop(one);
    alive(&mut two);
    let (done, gone) = reactor::Ack::channel();
    second.remove(done);
    assert!(gone.wait(std::time::Duration::from_secs(20)));
    alive(&mut server.client());
}
