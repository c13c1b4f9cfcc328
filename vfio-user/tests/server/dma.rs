//! DMA_MAP and DMA_UNMAP.

use std::os::fd::AsFd;
use std::time::Duration;

use guest_memory::SharedMemory;
use nix::errno::Errno;
use testkit::vfio_user::{Client, MapFlags, Result, dma_map_message};
use vfio_user::Options;
use vfio_user::wire::Command;
use zerocopy::IntoBytes;

use crate::fake::Call;
use crate::harness::{RW, Server, alive, guest_memory, invalid, refused, words};

const PAGE: u64 = 4096;

fn map(
    client: &mut Client,
    memory: &SharedMemory,
    offset: u64,
    address: u64,
    size: u64,
) -> Result<()> {
    client.dma_map(RW, Some(memory.fd()), offset, address, size)
}

fn raw(client: &mut Client, command: Command, payload: &[u8]) -> Result<()> {
    client.request(command, payload, &[]).map(drop)
}

#[test]
fn the_device_sees_what_is_mapped_and_nothing_else() {
    let server = Server::start();
    let mut client = server.client();
    let memory = guest_memory(4);
    map(&mut client, &memory, PAGE, 0x8000_0000, 2 * PAGE).unwrap();
    assert_eq!(server.device.calls(), [Call::MapChanged(1)]);
    server.device.run(|fake| {
        fake.view.write(0x8000_0010, &0xabcd_u32).unwrap();
        fake.view.write(0x8000_2000, &1_u32).unwrap_err();
        fake.view.write(0x7fff_fffc, &1_u32).unwrap_err();
    });
    assert_eq!(memory.load_u32(4096 + 16), 0xabcd);
}

#[test]
fn malformed_maps_are_refused() {
    let server = Server::start();
    let mut client = server.client();
    let memory = guest_memory(1);
    invalid(raw(&mut client, Command::DMA_MAP, &words(&[32, 3])));
    invalid(raw(
        &mut client,
        Command::DMA_MAP,
        &words(&[31, 3, 0, 0, 0, 0, 4096, 0]),
    ));
    let flags = MapFlags::from_bits_retain(0x13);
    invalid(client.dma_map(flags, Some(memory.fd()), 0, 0, PAGE));
    invalid(client.dma_map(RW | MapFlags::MMAP, None, 0, 0, PAGE));
    invalid(client.dma_map(RW | MapFlags::FILE_IO, None, 0, 0, PAGE));
    client
        .dma_map(RW | MapFlags::MMAP, Some(memory.fd()), 0, 0, PAGE)
        .unwrap();
    alive(&mut client);
}

#[test]
fn maps_that_wrap_or_overlap_or_leave_their_file_are_refused() {
    let server = Server::start();
    let mut client = server.client();
    let memory = guest_memory(4);
    invalid(map(&mut client, &memory, 0, u64::MAX - 4095, PAGE));
    invalid(map(&mut client, &memory, 0, u64::MAX, 1));
    invalid(map(&mut client, &memory, 0, PAGE, u64::MAX - PAGE + 1));
    invalid(map(&mut client, &memory, u64::MAX - 4094, 0, PAGE));
    invalid(map(&mut client, &memory, 0, 0, 5 * PAGE));
    invalid(map(&mut client, &memory, 4 * PAGE, 0, PAGE));
    invalid(map(&mut client, &memory, 0, 0, 0));
    map(&mut client, &memory, 0, PAGE, 2 * PAGE).unwrap();
    refused(map(&mut client, &memory, 0, 0, 2 * PAGE), Errno::EEXIST);
    refused(map(&mut client, &memory, 0, 2 * PAGE, PAGE), Errno::EEXIST);
    refused(
        map(&mut client, &memory, PAGE, PAGE, 2 * PAGE),
        Errno::EEXIST,
    );
    assert_eq!(server.device.calls(), [Call::MapChanged(1)]);
    alive(&mut client);
}

#[test]
fn a_descriptor_that_cannot_be_mapped_is_refused() {
    let server = Server::start();
    let mut client = server.client();
    let (reader, _writer) = std::io::pipe().unwrap();
    let result = client.dma_map(RW, Some(reader.as_fd()), 0, 0, PAGE);
    assert!(result.unwrap_err().errno().is_some());
    // A file opened for reading only, to be written.
    let file = tempfile::NamedTempFile::new().unwrap();
    file.as_file().set_len(PAGE).unwrap();
    let read_only = std::fs::File::open(file.path()).unwrap();
    refused(
        client.dma_map(RW, Some(read_only.as_fd()), 0, 0, PAGE),
        Errno::EACCES,
    );
    client
        .dma_map(MapFlags::READ, Some(read_only.as_fd()), 0, 0, PAGE)
        .unwrap();
    alive(&mut client);
}

#[test]
fn the_same_map_again_is_fine_and_changes_nothing() {
    let server = Server::start();
    let mut client = server.client();
    let memory = guest_memory(1);
    map(&mut client, &memory, 0, 0, PAGE).unwrap();
    map(&mut client, &memory, 0, 0, PAGE).unwrap();
    assert_eq!(server.device.calls(), [Call::MapChanged(1)]);
    client.dma_unmap(0, PAGE).unwrap();
    refused(client.dma_unmap(0, PAGE), Errno::ENOENT);
}

#[test]
fn a_map_without_descriptor_is_taken_and_never_touched() {
    let server = Server::start();
    let mut client = server.client();
    // As QEMU does when the guest turns on BAR 0: its own mappable area, at a guest-physical address.
    client.dma_map(RW, None, 0, 0xfebf_1000, 0x2000).unwrap();
    server.device.run(|fake| {
        fake.view.read::<u32>(0xfebf_1000).unwrap_err();
        fake.view.write(0xfebf_1000, &1_u32).unwrap_err();
    });
    client.dma_unmap(0xfebf_1000, 0x2000).unwrap();
}

#[test]
fn more_descriptors_than_one_are_closed() {
    let server = Server::start();
    let mut client = server.client();
    let memory = guest_memory(1);
    let (reader, writer) = std::io::pipe().unwrap();
    let map = dma_map_message(RW, 0, 0, PAGE);
    let fds = [memory.fd(), writer.as_fd()];
    client
        .request(Command::DMA_MAP, map.as_bytes(), &fds)
        .unwrap();
    drop(writer);
    assert_closed(reader);
    server
        .device
        .run(|fake| fake.view.write(0, &1_u32))
        .unwrap();
    assert_eq!(memory.load_u32(0), 1);
}

/// Reads to the end, which comes only once the server has closed its copy of the other end.
fn assert_closed(mut reader: std::io::PipeReader) {
    use std::io::Read;
    assert_eq!(reader.read(&mut [0; 1]).unwrap(), 0);
}

#[test]
fn a_descriptor_with_an_unmap_is_closed() {
    let server = Server::start();
    let mut client = server.client();
    let memory = guest_memory(1);
    map(&mut client, &memory, 0, 0, PAGE).unwrap();
    // As SPDK's initiator sends it.
    let (reader, writer) = std::io::pipe().unwrap();
    let unmap = words(&[24, 0, 0, 0, 4096, 0]);
    client
        .request(Command::DMA_UNMAP, &unmap, &[writer.as_fd()])
        .unwrap();
    drop(writer);
    assert_closed(reader);
}

#[test]
fn malformed_unmaps_are_refused() {
    let server = Server::start();
    let mut client = server.client();
    let memory = guest_memory(1);
    map(&mut client, &memory, 0, 0, PAGE).unwrap();
    invalid(raw(&mut client, Command::DMA_UNMAP, &words(&[24, 0])));
    invalid(raw(
        &mut client,
        Command::DMA_UNMAP,
        &words(&[8, 0, 0, 0, 4096, 0]),
    ));
    invalid(raw(
        &mut client,
        Command::DMA_UNMAP,
        &words(&[24, 4, 0, 0, 4096, 0]),
    ));
    // The dirty bitmap, which is not tracked, also with a size that overflows, also of everything.
    invalid(raw(
        &mut client,
        Command::DMA_UNMAP,
        &words(&[40, 1, 0, 0, 4096, 0, 4096, 0, 8, 0]),
    ));
    let overflow = words(&[40, 1, 0, 0, 4096, 0, 4096, 0, u32::MAX, u32::MAX]);
    invalid(raw(&mut client, Command::DMA_UNMAP, &overflow));
    invalid(raw(
        &mut client,
        Command::DMA_UNMAP,
        &words(&[24, 3, 0, 0, 0, 0]),
    ));
    // Everything, with a range.
    invalid(raw(
        &mut client,
        Command::DMA_UNMAP,
        &words(&[24, 2, 0, 0, 4096, 0]),
    ));
    invalid(raw(
        &mut client,
        Command::DMA_UNMAP,
        &words(&[24, 2, 4096, 0, 0, 0]),
    ));
    client.dma_unmap(0, PAGE).unwrap();
}

#[test]
fn only_exactly_a_map_is_unmapped() {
    let server = Server::start();
    let mut client = server.client();
    let memory = guest_memory(2);
    map(&mut client, &memory, 0, 0, 2 * PAGE).unwrap();
    refused(client.dma_unmap(0, PAGE), Errno::ENOENT);
    refused(client.dma_unmap(PAGE, PAGE), Errno::ENOENT);
    refused(client.dma_unmap(1 << 40, PAGE), Errno::ENOENT);
    client.dma_unmap(0, 2 * PAGE).unwrap();
    server
        .device
        .run(|fake| fake.view.read::<u32>(0))
        .unwrap_err();
}

#[test]
fn everything_is_unmapped_at_once() {
    let server = Server::start();
    let mut client = server.client();
    let memory = guest_memory(4);
    for page in 0..4 {
        map(&mut client, &memory, page * PAGE, page * PAGE, PAGE).unwrap();
    }
    client.dma_unmap_all().unwrap();
    assert_eq!(server.device.calls().last(), Some(&Call::MapChanged(0)));
    map(&mut client, &memory, 0, 0, 4 * PAGE).unwrap();
}

#[test]
fn a_burst_of_changes_as_firmware_causes_it() {
    let server = Server::start();
    let mut client = server.client();
    let memory = guest_memory(256);
    map(&mut client, &memory, 0, 0, 256 * PAGE).unwrap();
    // QEMU does not wait for each reply.
    let wire = client.wire();
    let mut expected = Vec::new();
    for _ in 0..20 {
        let unmap = words(&[24, 0, 0, 0, 256 * 4096, 0]);
        expected.push((
            wire.send(Command::DMA_UNMAP, 0, &unmap, &[]).unwrap(),
            Command::DMA_UNMAP,
        ));
        for (start, pages) in [(0, 160), (160, 32), (192, 64)] {
            let map = dma_map_message(RW, start * PAGE, start * PAGE, pages * PAGE);
            let id = wire
                .send(Command::DMA_MAP, 0, map.as_bytes(), &[memory.fd()])
                .unwrap();
            expected.push((id, Command::DMA_MAP));
        }
        for (start, pages) in [(0, 160), (160, 32), (192, 64)] {
            let unmap = words(&[24, 0, start * 4096, 0, pages * 4096, 0]);
            let id = wire.send(Command::DMA_UNMAP, 0, &unmap, &[]).unwrap();
            expected.push((id, Command::DMA_UNMAP));
        }
        let map = dma_map_message(RW, 0, 0, 256 * PAGE);
        let id = wire
            .send(Command::DMA_MAP, 0, map.as_bytes(), &[memory.fd()])
            .unwrap();
        expected.push((id, Command::DMA_MAP));
    }
    for (id, command) in expected {
        wire.reply_to(id, command).unwrap();
    }
    server
        .device
        .run(|fake| fake.view.write(255 * PAGE, &3_u32))
        .unwrap();
    assert_eq!(memory.load_u32(255 * 4096), 3);
}

fn send_unmap(client: &mut Client) -> u16 {
    let unmap = words(&[24, 0, 0, 0, 4096, 0]);
    client
        .wire()
        .send(Command::DMA_UNMAP, 0, &unmap, &[])
        .unwrap()
}

#[test]
fn an_unmap_waits_for_operations_in_flight() {
    let server = Server::start();
    let mut client = server.client();
    let memory = guest_memory(1);
    map(&mut client, &memory, 0, 0, PAGE).unwrap();
    server.device.run(|fake| fake.hold_on = true);
    let unmap = send_unmap(&mut client);
    let info = client
        .wire()
        .send(Command::DEVICE_GET_INFO, 0, &words(&[16, 0, 0, 0]), &[])
        .unwrap();
    server.device.wait_for(|call| *call == Call::MapChanged(0));
    // The operation may still write, and does so before the reply.
    let view = server.device.run(|fake| {
        fake.view.read::<u32>(0).unwrap_err();
        let in_flight = fake.in_flight.pop().unwrap();
        in_flight.write(0, &1_u32).unwrap();
        fake.in_flight.push(in_flight);
        fake.in_flight.len()
    });
    assert_eq!(view, 1);
    assert!(!client.wire().readable(0).unwrap(), "answered too early");
    assert_eq!(memory.load_u32(0), 1);
    server.device.run(|fake| fake.in_flight.clear());
    client.wire().reply_to(unmap, Command::DMA_UNMAP).unwrap();
    client
        .wire()
        .reply_to(info, Command::DEVICE_GET_INFO)
        .unwrap();
}

#[test]
fn an_unmap_of_everything_waits_too() {
    let server = Server::start();
    let mut client = server.client();
    let memory = guest_memory(2);
    map(&mut client, &memory, 0, 0, PAGE).unwrap();
    map(&mut client, &memory, PAGE, 8 * PAGE, PAGE).unwrap();
    server.device.run(|fake| fake.hold_on = true);
    let unmap = words(&[24, 2, 0, 0, 0, 0]);
    let id = client
        .wire()
        .send(Command::DMA_UNMAP, 0, &unmap, &[])
        .unwrap();
    server.device.wait_for(|call| *call == Call::MapChanged(0));
    assert!(!client.wire().readable(0).unwrap(), "answered too early");
    server.device.run(|fake| fake.in_flight.clear());
    client.wire().reply_to(id, Command::DMA_UNMAP).unwrap();
}

/// A server that answers every request within an instant.
fn impatient() -> Server {
    Server::with_options(Options {
        answer_within: Duration::from_millis(20),
    })
}

#[test]
fn an_unmap_that_takes_too_long_is_refused_and_can_be_asked_again() {
    let server = impatient();
    let mut client = server.client();
    let memory = guest_memory(2);
    map(&mut client, &memory, 0, 0, PAGE).unwrap();
    map(&mut client, &memory, PAGE, PAGE, PAGE).unwrap();
    server.device.run(|fake| fake.hold_on = true);
    refused(client.dma_unmap(0, PAGE), Errno::EBUSY);
    // It is out of the map all the same, and so is the next one, without waiting once more.
    server
        .device
        .run(|fake| fake.view.read::<u32>(0))
        .unwrap_err();
    refused(client.dma_unmap(PAGE, PAGE), Errno::EBUSY);
    refused(client.dma_unmap(0, PAGE), Errno::EBUSY);
    alive(&mut client);
    server.device.run(|fake| {
        fake.in_flight.clear();
        fake.hold_on = false;
    });
    client.dma_unmap(0, PAGE).unwrap();
    refused(client.dma_unmap(0, PAGE), Errno::ENOENT);
}

#[test]
fn a_reset_that_takes_too_long_is_refused_and_later_requests_wait_for_it() {
    let server = impatient();
    let mut client = server.client();
    server.device.run(|fake| fake.defer = true);
    refused(client.reset(), Errno::EBUSY);
    let read = client
        .wire()
        .send(Command::REGION_READ, 0, &words(&[0, 0, 7, 4]), &[])
        .unwrap();
    server
        .device
        .run(|fake| fake.finished = Some(pci::Access::Done));
    client.wire().reply_to(read, Command::REGION_READ).unwrap();
}

#[test]
fn memory_of_any_alignment() {
    let server = Server::start();
    let mut client = server.client();
    let memory = guest_memory(3);
    map(&mut client, &memory, 1234, 0x1_0000_0567, 7000).unwrap();
    server
        .device
        .run(|fake| fake.view.write_slice(0x1_0000_0567 + 6990, b"the end..."))
        .unwrap();
    let mut tail = [0; 10];
    assert!(memory.read_slice(1234 + 6990, &mut tail));
    assert_eq!(&tail, b"the end...");
    client.dma_unmap(0x1_0000_0567, 7000).unwrap();
}
