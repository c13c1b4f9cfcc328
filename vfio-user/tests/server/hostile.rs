//! Nonsense, half messages, sizes that lie, too many descriptors, and clients that do not read.

use std::os::fd::AsFd;

use proptest::prelude::*;
use testkit::vfio_user::{Client, dma_map_message};
use vfio_user::wire::{Command, FLAG_NO_REPLY};
use zerocopy::IntoBytes;

use crate::fake::Call;
use crate::harness::{RW, Server, alive, guest_memory, invalid, words};

const MOST: u32 = (1 << 20) + 32;

/// A header with any size.
fn header(command: Command, size: u32, flags: u32) -> Vec<u8> {
    words(&[u32::from(command.0) << 16, size, flags, 0])
}

fn answer(client: &mut Client, command: Command) -> testkit::vfio_user::Result<()> {
    client.wire().reply_to(0, command).map(drop)
}

#[test]
fn a_size_below_a_header_is_refused() {
    let server = Server::start();
    let mut client = server.client();
    for size in [0, 1, 15] {
        let bytes = header(Command::DEVICE_RESET, size, 0);
        client.wire().send_bytes(&bytes, &[]).unwrap();
        invalid(answer(&mut client, Command::DEVICE_RESET));
        alive(&mut client);
    }
    assert!(
        !server
            .device
            .calls()
            .contains(&Call::Reset(pci::ResetKind::Device))
    );
}

#[test]
fn a_size_above_the_limit_is_refused_as_soon_as_it_is_seen() {
    let server = Server::start();
    for size in [MOST + 1, u32::MAX] {
        let mut client = server.client();
        let bytes = header(Command::REGION_WRITE, size, 0);
        client.wire().send_bytes(&bytes, &[]).unwrap();
        invalid(answer(&mut client, Command::REGION_WRITE));
    }
}

#[test]
fn the_payload_of_a_message_that_is_too_large_is_not_obeyed() {
    let server = Server::start();
    let mut client = server.client();
    let mut bytes = header(Command::REGION_WRITE, MOST + 16, 0);
    let reset = header(Command::DEVICE_RESET, 16, 0);
    bytes.extend(reset.repeat(MOST as usize / 16));
    client.wire().send_bytes(&bytes, &[]).unwrap();
    invalid(answer(&mut client, Command::REGION_WRITE));
    alive(&mut client);
    assert!(
        !server
            .device
            .calls()
            .contains(&Call::Reset(pci::ResetKind::Device))
    );
}

#[test]
fn a_message_of_a_size_that_lies_swallows_only_what_it_claims() {
    let server = Server::start();
    let mut client = server.client();
    // A read that claims eight bytes more than it has: the next request's beginning is its end.
    let mut bytes = header(Command::REGION_READ, 40, 0);
    bytes.extend(words(&[0, 0, 7, 4]));
    bytes.extend([0; 8]);
    client.wire().send_bytes(&bytes, &[]).unwrap();
    invalid(answer(&mut client, Command::REGION_READ));
    alive(&mut client);
}

#[test]
fn an_unsolicited_reply_is_refused() {
    let server = Server::start();
    let mut client = server.client();
    for kind in [1, 2, 0xf] {
        client
            .wire()
            .send_bytes(&header(Command::REGION_READ, 16, kind), &[])
            .unwrap();
        invalid(answer(&mut client, Command::REGION_READ));
    }
    client
        .wire()
        .send_bytes(&header(Command::REGION_READ, 16, 1 | FLAG_NO_REPLY), &[])
        .unwrap();
    alive(&mut client);
}

#[test]
fn every_request_in_single_bytes() {
    let server = Server::start();
    let mut client = server.client();
    let memory = guest_memory(1);
    let map = dma_map_message(RW, 0, 0, 4096);
    let (id, bytes) = client.wire().message(Command::DMA_MAP, 0, map.as_bytes());
    client
        .wire()
        .send_in_pieces(&bytes, 1, &[memory.fd()])
        .unwrap();
    client.wire().reply_to(id, Command::DMA_MAP).unwrap();
    server
        .device
        .run(|fake| fake.view.write(0, &77_u32))
        .unwrap();
    assert_eq!(memory.load_u32(0), 77);
    let (id, bytes) = client
        .wire()
        .message(Command::REGION_READ, 0, &words(&[0, 0, 7, 4]));
    client.wire().send_in_pieces(&bytes, 1, &[]).unwrap();
    client.wire().reply_to(id, Command::REGION_READ).unwrap();
}

#[test]
fn several_requests_in_one_segment_with_their_own_descriptors() {
    let server = Server::start();
    let mut client = server.client();
    let (first, second) = (guest_memory(1), guest_memory(1));
    let wire = client.wire();
    let map_one = dma_map_message(RW, 0, 0, 4096);
    let map_two = dma_map_message(RW, 0, 4096, 4096);
    let (read, read_bytes) = wire.message(Command::REGION_READ, 0, &words(&[0, 0, 7, 4]));
    let (one, one_bytes) = wire.message(Command::DMA_MAP, 0, map_one.as_bytes());
    let (two, two_bytes) = wire.message(Command::DMA_MAP, 0, map_two.as_bytes());
    let (info, info_bytes) = wire.message(Command::DEVICE_GET_INFO, 0, &words(&[16, 0, 0, 0]));
    // A read, then in one piece a map with its descriptor and a query, then another map.
    wire.send_bytes(&read_bytes, &[]).unwrap();
    wire.send_bytes(&[one_bytes, info_bytes].concat(), &[first.fd()])
        .unwrap();
    wire.send_bytes(&two_bytes, &[second.fd()]).unwrap();
    wire.reply_to(read, Command::REGION_READ).unwrap();
    wire.reply_to(one, Command::DMA_MAP).unwrap();
    wire.reply_to(info, Command::DEVICE_GET_INFO).unwrap();
    wire.reply_to(two, Command::DMA_MAP).unwrap();
    server.device.run(|fake| {
        fake.view.write(0, &1_u32).unwrap();
        fake.view.write(4096, &2_u32).unwrap();
    });
    assert_eq!((first.load_u32(0), second.load_u32(0)), (1, 2));
}

#[test]
fn many_requests_ahead_are_answered_in_order() {
    let server = Server::start();
    let mut client = server.client();
    let ids: Vec<u16> = (0..500)
        .map(|_| {
            client
                .wire()
                .send(Command::REGION_READ, 0, &words(&[0, 0, 7, 4]), &[])
                .unwrap()
        })
        .collect();
    for id in ids {
        client.wire().reply_to(id, Command::REGION_READ).unwrap();
    }
}

#[test]
fn half_a_header_just_waits() {
    let server = Server::start();
    let mut client = server.client();
    let (id, bytes) = client
        .wire()
        .message(Command::REGION_READ, 0, &words(&[0, 0, 7, 4]));
    client.wire().send_bytes(&bytes[..7], &[]).unwrap();
    // The device goes on.
    server.device.run(|_| ());
    client.wire().send_bytes(&bytes[7..], &[]).unwrap();
    client.wire().reply_to(id, Command::REGION_READ).unwrap();
}

#[test]
fn too_many_descriptors_are_refused_and_closed() {
    let server = Server::start();
    let mut client = server.client();
    let (mut reader, writer) = std::io::pipe().unwrap();
    for count in [65, 253] {
        let many = vec![writer.as_fd(); count];
        let map = dma_map_message(RW, 0, 0, 4096);
        invalid(client.request(Command::DMA_MAP, map.as_bytes(), &many));
        invalid(client.request(Command::DEVICE_GET_INFO, &words(&[16, 0, 0, 0]), &many));
    }
    // In pieces, each with its own.
    let (id, bytes) = client
        .wire()
        .message(Command::REGION_READ, 0, &words(&[0, 0, 7, 4]));
    let some = vec![writer.as_fd(); 30];
    for piece in bytes.chunks(8) {
        client.wire().send_bytes(piece, &some).unwrap();
    }
    invalid(client.wire().reply_to(id, Command::REGION_READ));
    alive(&mut client);
    drop(writer);
    let read = std::io::Read::read(&mut reader, &mut [0; 1]).unwrap();
    assert_eq!(read, 0, "a descriptor is still open");
}

#[test]
fn descriptors_that_nothing_calls_for_are_closed() {
    let server = Server::start();
    let mut client = server.client();
    let (mut reader, writer) = std::io::pipe().unwrap();
    let fds = [writer.as_fd(), writer.as_fd()];
    client
        .request(Command::DEVICE_GET_INFO, &words(&[16, 0, 0, 0]), &fds)
        .unwrap();
    client
        .request(Command::REGION_READ, &words(&[0, 0, 7, 4]), &fds)
        .unwrap();
    client.request(Command::DEVICE_RESET, &[], &fds).unwrap();
    invalid(client.request(Command(999), &[], &fds));
    invalid(client.request(Command::DEVICE_SET_IRQS, &words(&[20, 0x22, 2, 0, 1]), &fds));
    client
        .wire()
        .send_bytes(&header(Command::DEVICE_RESET, 15, 0), &fds)
        .unwrap();
    invalid(answer(&mut client, Command::DEVICE_RESET));
    drop(writer);
    assert_eq!(std::io::Read::read(&mut reader, &mut [0; 1]).unwrap(), 0);
}

#[test]
fn descriptors_of_a_message_that_never_ends_are_closed_with_the_client() {
    let server = Server::start();
    let mut client = server.client();
    let (mut reader, writer) = std::io::pipe().unwrap();
    let (_, bytes) = client.wire().message(Command::DMA_MAP, 0, &[0; 32]);
    client
        .wire()
        .send_bytes(&bytes[..20], &[writer.as_fd()])
        .unwrap();
    drop((client, writer));
    assert_eq!(std::io::Read::read(&mut reader, &mut [0; 1]).unwrap(), 0);
}

#[test]
fn a_client_that_never_reads_costs_only_itself() {
    let server = Server::start();
    let path = server.directory.path().join("second");
    let remote = crate::fake::Remote::new(server.reactor.clone());
    let device = remote.clone();
    let second = vfio_user::Endpoint::start(
        vfio_user::Listener::bind(&path).unwrap(),
        &server.reactor,
        vfio_user::Options::default(),
        Box::new(move |_| Ok(device.make())),
    );
    let mut deaf = server.client();
    // More replies than the socket holds, asked for and not read, until the server stops reading too.
    let stream = deaf.wire().stream().try_clone().unwrap();
    stream.set_nonblocking(true).unwrap();
    let (_, request) = deaf
        .wire()
        .message(Command::REGION_READ, 0, &words(&[0, 0, 2, 1 << 20]));
    let mut asked = 0;
    let mut refused = 0;
    while refused < 1000 {
        match vfio_user::socket::send(&stream, &request, &[]) {
            Ok(count) => {
                assert_eq!(count, request.len(), "small messages go whole");
                asked += 1;
            }
            Err(error) => {
                assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock);
                // The other client is served meanwhile; and time passes for the server to stop reading for good.
                let mut other = Client::connect(&path).unwrap();
                alive(&mut other);
                refused += 100;
            }
        }
    }
    // Everything asked for is still answered, in full, once it is read.
    stream.set_nonblocking(false).unwrap();
    for _ in 0..asked.min(8) {
        let reply = deaf.wire().receive().unwrap().into_result().unwrap();
        assert_eq!(reply.payload.len(), 16 + (1 << 20));
        assert!(reply.payload[16..].iter().all(|byte| *byte == 0xff));
    }
    drop((deaf, stream));
    alive(&mut server.client());
    drop(second);
}

#[test]
fn a_client_that_never_reads_and_dies_makes_room() {
    let server = Server::start();
    let mut deaf = server.client();
    for _ in 0..4 {
        deaf.wire()
            .send(Command::REGION_READ, 0, &words(&[0, 0, 2, 1 << 20]), &[])
            .unwrap();
    }
    server
        .device
        .wait_for(|call| matches!(call, Call::Read(2, ..)));
    drop((deaf,));
    alive(&mut server.client());
}

#[test]
fn a_guest_that_truncates_its_memory_costs_only_its_own() {
    let server = Server::start();
    let mut client = server.client();
    let memory = guest_memory_unsealed();
    client.dma_map(RW, Some(memory.fd()), 0, 0, 8192).unwrap();
    let fd = memory.fd().try_clone_to_owned().unwrap();
    drop(memory);
    std::fs::File::from(fd).set_len(0).unwrap();
    // The access does not crash the process; what it reads is nobody's data.
    let value = server.device.run(|fake| fake.view.read::<u32>(4096));
    assert_eq!(value, Ok(0));
    alive(&mut client);
    client.dma_unmap(0, 8192).unwrap();
}

fn guest_memory_unsealed() -> guest_memory::SharedMemory {
    guest_memory::SharedMemory::new_unsealed(c"guest", 8192).unwrap()
}

/// Streams that are sometimes nearly right.
fn nonsense() -> impl Strategy<Value = Vec<u8>> {
    let word = prop_oneof![4 => 0_u32..40, 1 => any::<u32>()];
    let payload = proptest::collection::vec(word, 0..14);
    let message = (
        0_u32..20,
        payload,
        prop_oneof![9 => Just(0_u32), 1 => any::<u32>()],
    )
        .prop_map(|(command, payload, extra)| {
            let size = (16 + 4 * u32::try_from(payload.len()).unwrap()).wrapping_add(extra);
            let mut bytes = words(&[command << 16, size, 0, 0]);
            bytes.extend(words(&payload));
            bytes
        });
    let garbage = proptest::collection::vec(any::<u8>(), 0..100);
    proptest::collection::vec(prop_oneof![5 => message, 1 => garbage], 1..20)
        .prop_map(|parts| parts.concat())
}

#[test]
fn nonsense_is_survived() {
    let server = Server::start();
    let mut runner = proptest::test_runner::TestRunner::new(proptest::test_runner::Config {
        cases: 200,
        failure_persistence: None,
        ..Default::default()
    });
    let outcome = runner.run(&(nonsense(), any::<bool>()), |(bytes, polite)| {
        let mut client = if polite {
            server.client()
        } else {
            server.stranger()
        };
        // The server may close as soon as it has seen enough.
        let _ = client.wire().send_bytes(&bytes, &[]);
        let _ = client.wire().finish_sending();
        client.wire().wait_closed().unwrap();
        alive(&mut server.client());
        Ok(())
    });
    outcome.unwrap();
}
