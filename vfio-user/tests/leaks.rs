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
#[path = "server/fake.rs"]
mod fake;
#[allow(
    dead_code,
    reason = "shared with the server's tests, which use more of it"
)]
#[path = "server/harness.rs"]
mod harness;

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use nix::sys::eventfd::EventFd;
use testkit::vfio_user::{Client, dma_map_message};
use vfio_user::wire::{Command, INTX_IRQ, IrqSetFlags, MSIX_IRQ};
use zerocopy::IntoBytes;

use harness::{RW, Server, alive, guest_memory, words};

fn open_descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

fn mappings() -> usize {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    maps.lines()
        .filter(|line| line.contains("memfd:guest"))
        .count()
}

/// Waits until the process has no more of them than before: what a client had is let go of after it has gone.
fn settles(what: &str, count: fn() -> usize, before: usize) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while count() > before {
        assert!(
            Instant::now() < deadline,
            "{what}: {} instead of {before}",
            count()
        );
        std::thread::yield_now();
    }
}

fn thousand_maps(client: &mut Client) {
    let memory = guest_memory(16);
    let before = (open_descriptors(), mappings());
    for cycle in 0..1000_u64 {
        let address = cycle % 16 * 4096;
        client
            .dma_map(RW, Some(memory.fd()), address, address, 4096)
            .unwrap();
        client.dma_unmap(address, 4096).unwrap();
    }
    // Each reply promises that the memory is not used any more, and a small mapping goes at once.
    assert_eq!((open_descriptors(), mappings()), before);
}

fn refused_maps(client: &mut Client) {
    let memory = guest_memory(1);
    let before = (open_descriptors(), mappings());
    client.dma_map(RW, Some(memory.fd()), 0, 0, 4096).unwrap();
    for _ in 0..100 {
        client.dma_map(RW, Some(memory.fd()), 0, 0, 4096).unwrap();
        client
            .dma_map(RW, Some(memory.fd()), 0, 0x800, 4096)
            .unwrap_err();
        client
            .dma_map(RW, Some(memory.fd()), 0, 4096, 8192)
            .unwrap_err();
    }
    client.dma_unmap_all().unwrap();
    assert_eq!((open_descriptors(), mappings()), before);
}

fn replaced_eventfds(client: &mut Client) {
    let event = EventFd::new().unwrap();
    let before = open_descriptors();
    let sixteen = [event.as_fd(); 16];
    let unmask = IrqSetFlags::ACTION_UNMASK | IrqSetFlags::DATA_EVENTFD;
    for _ in 0..100 {
        client.set_eventfds(MSIX_IRQ, 0, &sixteen).unwrap();
        client.set_eventfds(INTX_IRQ, 0, &[event.as_fd()]).unwrap();
        client
            .set_irqs(unmask, INTX_IRQ, 0..1, &[], &[event.as_fd()])
            .unwrap();
    }
    client.disable_irqs(MSIX_IRQ).unwrap();
    client.disable_irqs(INTX_IRQ).unwrap();
    settles("eventfds", open_descriptors, before);
}

/// Leaves maps, eventfds, a message that is not complete, and descriptors with it.
fn untidy(server: &Server) {
    let mut client = server.client();
    let memory = guest_memory(4);
    let event = EventFd::new().unwrap();
    client
        .dma_map(RW, Some(memory.fd()), 0, 0, 4 * 4096)
        .unwrap();
    client.dma_map(RW, None, 0, 1 << 40, 4096).unwrap();
    client
        .set_eventfds(MSIX_IRQ, 0, &[event.as_fd(); 16])
        .unwrap();
    let info = client.region_info(0).unwrap();
    assert!(info.fd.is_some());
    let map = dma_map_message(RW, 0, 1 << 20, 4096);
    let (_, bytes) = client.wire().message(Command::DMA_MAP, 0, map.as_bytes());
    client
        .wire()
        .send_bytes(&bytes[..30], &[memory.fd(), event.as_fd()])
        .unwrap();
}

/// Has its last request held when it dies.
fn interrupted(server: &Server) {
    let mut client = server.client();
    let memory = guest_memory(1);
    client.dma_map(RW, Some(memory.fd()), 0, 0, 4096).unwrap();
    server.device.run(|fake| fake.hold_on = true);
    // Those of former clients.
    server.device.calls();
    client
        .wire()
        .send(Command::DMA_UNMAP, 0, &words(&[24, 0, 0, 0, 4096, 0]), &[])
        .unwrap();
    drop(client);
    server
        .device
        .wait_for(|call| matches!(call, fake::Call::Reset(_)));
    server.device.run(|fake| fake.in_flight.clear());
}

#[test]
fn nothing_stays_open_or_mapped() {
    let server = Server::start();
    alive(&mut server.client());
    let idle = || !server.endpoint.is_connected();
    while !idle() {
        std::thread::yield_now();
    }
    let before = (open_descriptors(), mappings());

    let mut client = server.client();
    thousand_maps(&mut client);
    refused_maps(&mut client);
    replaced_eventfds(&mut client);
    drop(client);
    for _ in 0..50 {
        untidy(&server);
        interrupted(&server);
        drop(server.stranger());
    }
    settles("descriptors", open_descriptors, before.0);
    settles("mappings", mappings, before.1);
}
