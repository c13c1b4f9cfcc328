//! REGION_READ, REGION_WRITE, REGION_WRITE_MULTI, DEVICE_RESET.

use nix::errno::Errno;
use pci::{Access, ResetKind};
use testkit::vfio_user::{Client, Result};
use vfio_user::wire::{Command, FLAG_NO_REPLY};

use crate::fake::{BAR0_SIZE, BAR1_SIZE, Call, FORBIDDEN};
use crate::harness::{Server, alive, invalid, refused, words};

fn raw(client: &mut Client, command: Command, payload: &[u8]) -> Result<Vec<u8>> {
    Ok(client.request(command, payload, &[])?.payload)
}

#[test]
fn what_is_written_is_read() {
    let server = Server::start();
    let mut client = server.client();
    for width in [1, 2, 4, 8, 64, 4096] {
        let data: Vec<u8> = (0..width).map(|index| index as u8 ^ 0x5a).collect();
        client.region_write(0, 0x18, &data).unwrap();
        let mut back = vec![0; width];
        client.region_read(0, 0x18, &mut back).unwrap();
        assert_eq!(back, data);
    }
}

#[test]
fn an_access_reaches_the_device_as_it_was_sent() {
    let server = Server::start();
    let mut client = server.client();
    client.region_write(7, 4, &[6, 4]).unwrap();
    let mut word = [0; 2];
    client.region_read(7, 4, &mut word).unwrap();
    assert_eq!(word, [6, 4]);
    assert_eq!(
        server.device.calls(),
        [Call::Write(7, 4, vec![6, 4]), Call::Read(7, 4, 2)]
    );
}

#[test]
fn the_whole_configuration_space_at_once() {
    let server = Server::start();
    let mut config = [0; 4096];
    server.client().region_read(7, 0, &mut config).unwrap();
    assert_eq!(config[..4], 0x5845_1b36_u32.to_le_bytes());
}

#[test]
fn the_largest_access_works() {
    let server = Server::start();
    let mut client = server.client();
    let mut data = vec![0; 1 << 20];
    client.region_read(2, 5 << 30, &mut data).unwrap();
    assert!(data.iter().all(|byte| *byte == 0xff));
    alive(&mut client);
}

#[test]
fn an_access_of_no_bytes_succeeds() {
    let server = Server::start();
    let mut client = server.client();
    client.region_read(0, 0, &mut []).unwrap();
    client.region_read(0, BAR0_SIZE, &mut []).unwrap();
    client.region_write(0, 0, &[]).unwrap();
    assert_eq!(server.device.calls(), []);
}

#[test]
fn accesses_outside_their_region_are_refused() {
    let server = Server::start();
    let mut client = server.client();
    let mut word = [0; 4];
    for (region, offset) in [
        (0, BAR0_SIZE),
        (0, BAR0_SIZE - 3),
        (7, 4096),
        (7, u64::MAX),
        (0, u64::MAX - 3),
        (1, BAR1_SIZE),
    ] {
        invalid(client.region_read(region, offset, &mut word));
        invalid(client.region_write(region, offset, &word));
    }
    let mut large = [0; 256];
    invalid(client.region_read(7, u64::MAX, &mut large));
    assert_eq!(server.device.calls(), []);
    alive(&mut client);
}

#[test]
fn absent_regions_are_refused() {
    let server = Server::start();
    let mut client = server.client();
    for region in [3, 5, 6, 8, 9, 512, u32::MAX] {
        invalid(client.region_read(region, 0, &mut [0; 4]));
        invalid(client.region_write(region, 0, &[0; 4]));
    }
    // BAR 2 is there to read only.
    invalid(client.region_write(2, 0, &[0; 4]));
    alive(&mut client);
}

#[test]
fn payloads_of_another_length_are_refused() {
    let server = Server::start();
    let mut client = server.client();
    invalid(raw(&mut client, Command::REGION_READ, &words(&[0, 0, 7])));
    invalid(raw(
        &mut client,
        Command::REGION_READ,
        &words(&[0, 0, 7, 4, 0]),
    ));
    invalid(raw(
        &mut client,
        Command::REGION_READ,
        &words(&[0, 0, 7, (1 << 20) + 8]),
    ));
    invalid(raw(&mut client, Command::REGION_WRITE, &words(&[0, 0])));
    invalid(raw(
        &mut client,
        Command::REGION_WRITE,
        &words(&[0, 0, 0, 4]),
    ));
    invalid(raw(
        &mut client,
        Command::REGION_WRITE,
        &words(&[0, 0, 0, 8, 1]),
    ));
    invalid(raw(
        &mut client,
        Command::REGION_WRITE,
        &words(&[0, 0, 0, 4, 1, 2]),
    ));
    assert_eq!(server.device.calls(), []);
    alive(&mut client);
}

#[test]
fn a_refused_write_is_never_taken_for_the_next_request() {
    let server = Server::start();
    let mut client = server.client();
    // The payload is a well-formed DEVICE_RESET, sent to a region that does not exist.
    let (_, reset) = client.wire().message(Command::DEVICE_RESET, 0, &[]);
    invalid(client.region_write(9, 0, &reset));
    invalid(client.region_write(4, 0, &reset.repeat(100)));
    alive(&mut client);
    let resets = server.device.calls();
    assert!(
        !resets.contains(&Call::Reset(ResetKind::Device)),
        "{resets:?}"
    );
}

#[test]
fn the_devices_own_refusal_is_passed_on() {
    let server = Server::start();
    let mut client = server.client();
    refused(client.region_write(1, FORBIDDEN, &[0; 4]), Errno::EPERM);
    refused(client.region_read(1, FORBIDDEN, &mut [0; 4]), Errno::EPERM);
    alive(&mut client);
}

#[test]
fn posted_writes_are_answered_with_nothing_whatever_becomes_of_them() {
    let server = Server::start();
    let mut client = server.client();
    client.region_write_posted(0, 0, &[1; 4]).unwrap();
    client.region_write_posted(0, BAR0_SIZE, &[2; 4]).unwrap();
    client.region_write_posted(9, 0, &[2; 4]).unwrap();
    client.region_write_posted(1, FORBIDDEN, &[3; 4]).unwrap();
    client.region_write_posted(7, 0x40, &[4; 4]).unwrap();
    client
        .wire()
        .send(Command(999), FLAG_NO_REPLY, &[1, 2, 3], &[])
        .unwrap();
    client
        .wire()
        .send(Command::DEVICE_GET_INFO, FLAG_NO_REPLY, &[0; 16], &[])
        .unwrap();
    // The next reply is the next request's.
    assert_eq!(client.read::<u32>(0, 0).unwrap(), 0x0101_0101);
    assert_eq!(client.read::<u32>(7, 0x40).unwrap(), 0x0404_0404);
}

#[test]
fn thousands_of_posted_writes_arrive_in_order() {
    let server = Server::start();
    let mut client = server.client();
    for value in 0_u32..4000 {
        client
            .region_write_posted(0, 0x1000, &value.to_ne_bytes())
            .unwrap();
    }
    assert_eq!(client.read::<u32>(0, 0x1000).unwrap(), 3999);
    let written: Vec<Call> = (0_u32..4000)
        .map(|value| Call::Write(0, 0x1000, value.to_ne_bytes().to_vec()))
        .collect();
    assert_eq!(server.device.calls()[..4000], written);
}

#[test]
fn several_writes_in_one_message() {
    let server = Server::start();
    let mut client = server.client();
    let writes: [(u32, u64, &[u8]); 3] = [
        (0, 0x1000, &[1; 4]),
        (7, 0x40, &[2; 1]),
        (0, 0x1000, &[3; 8]),
    ];
    client.region_write_multi(&writes).unwrap();
    let expected: Vec<Call> = writes
        .iter()
        .map(|(region, offset, data)| Call::Write(*region, *offset, data.to_vec()))
        .collect();
    assert_eq!(server.device.calls(), expected);
    client.region_write_multi(&[]).unwrap();
}

#[test]
fn several_posted_writes_as_qemu_sends_them() {
    let server = Server::start();
    let mut client = server.client();
    let values: Vec<[u8; 4]> = (0_u32..200).map(u32::to_ne_bytes).collect();
    let writes: Vec<(u32, u64, &[u8])> = values
        .iter()
        .map(|value| (0, 0x1000, value.as_slice()))
        .collect();
    client.region_write_multi_posted(&writes).unwrap();
    assert_eq!(client.read::<u32>(0, 0x1000).unwrap(), 199);
    assert_eq!(server.device.calls().len(), 201);
}

#[test]
fn several_writes_of_which_one_is_impossible_write_nothing() {
    let server = Server::start();
    let mut client = server.client();
    let good: (u32, u64, &[u8]) = (0, 0, &[1; 4]);
    invalid(client.region_write_multi(&[good, (0, BAR0_SIZE, &[1; 4])]));
    invalid(client.region_write_multi(&[good, (5, 0, &[1; 4])]));
    invalid(client.region_write_multi(&[good, (0, 0, &[])]));
    assert_eq!(server.device.calls(), []);
    // The device's own refusal comes too late for those before it.
    let refused_late = client.region_write_multi(&[good, (1, FORBIDDEN, &[1; 4]), good]);
    refused(refused_late, Errno::EPERM);
    assert_eq!(server.device.calls().len(), 2);
    alive(&mut client);
}

#[test]
fn a_deferred_write_holds_back_this_clients_later_requests() {
    let server = Server::start();
    let mut client = server.client();
    server.device.run(|fake| fake.defer = true);
    let write = [words(&[0x14, 0, 0, 4]), vec![1, 0, 0, 0]].concat();
    let held = client
        .wire()
        .send(Command::REGION_WRITE, 0, &write, &[])
        .unwrap();
    let next = client
        .wire()
        .send(Command::REGION_READ, 0, &words(&[0x14, 0, 0, 4]), &[])
        .unwrap();
    server
        .device
        .wait_for(|call| matches!(call, Call::Write(..)));
    // The device lives on meanwhile, and has not been asked anything else.
    server.device.run(|fake| fake.bar0[0x14] = 9);
    assert_eq!(server.device.calls(), []);
    server.device.run(|fake| fake.finished = Some(Access::Done));
    client.wire().reply_to(held, Command::REGION_WRITE).unwrap();
    let reply = client.wire().reply_to(next, Command::REGION_READ).unwrap();
    assert_eq!(reply.payload[16..], [9, 0, 0, 0]);
}

#[test]
fn a_deferred_read_gets_the_data_of_later() {
    let server = Server::start();
    let mut client = server.client();
    server.device.run(|fake| fake.defer = true);
    let held = client
        .wire()
        .send(Command::REGION_READ, 0, &words(&[0x1c, 0, 0, 4]), &[])
        .unwrap();
    server
        .device
        .wait_for(|call| matches!(call, Call::Read(..)));
    server.device.run(|fake| {
        fake.bar0[0x1c] = 1;
        fake.finished = Some(Access::Done);
    });
    let reply = client.wire().reply_to(held, Command::REGION_READ).unwrap();
    assert_eq!(reply.payload[16..], [1, 0, 0, 0]);
}

#[test]
fn a_deferred_access_can_still_be_refused() {
    let server = Server::start();
    let mut client = server.client();
    server.device.run(|fake| fake.defer = true);
    let write = [words(&[0x14, 0, 0, 4]), vec![1, 0, 0, 0]].concat();
    let held = client
        .wire()
        .send(Command::REGION_WRITE, 0, &write, &[])
        .unwrap();
    server
        .device
        .run(|fake| fake.finished = Some(Access::Fault(Errno::EIO)));
    refused(
        client.wire().reply_to(held, Command::REGION_WRITE),
        Errno::EIO,
    );
    alive(&mut client);
}

#[test]
fn a_deferred_write_among_several_holds_back_the_rest() {
    let server = Server::start();
    let mut client = server.client();
    server.device.run(|fake| fake.defer = true);
    let writes: [(u32, u64, &[u8]); 3] = [(0, 0, &[1]), (0, 1, &[2]), (0, 2, &[3])];
    client.region_write_multi_posted(&writes).unwrap();
    let first = Call::Write(0, 0, vec![1]);
    assert_eq!(server.device.wait_for(|call| *call == first).len(), 1);
    server.device.run(|fake| {
        assert_eq!(fake.bar0[..3], [1, 0, 0]);
        fake.finished = Some(Access::Done);
    });
    assert_eq!(
        client.read::<u32>(0, 0).unwrap().to_ne_bytes(),
        [1, 2, 3, 0]
    );
}

#[test]
fn reset_brings_the_device_back_and_keeps_the_rest() {
    let server = Server::start();
    let mut client = server.client();
    let memory = crate::harness::guest_memory(1);
    client
        .dma_map(crate::harness::RW, Some(memory.fd()), 0, 0, 4096)
        .unwrap();
    client.region_write(0, 0, &[1; 4]).unwrap();
    client.reset().unwrap();
    assert_eq!(client.read::<u32>(0, 0).unwrap(), 0);
    server
        .device
        .run(|fake| fake.view.write(0, &5_u32))
        .unwrap();
    assert_eq!(memory.load_u32(0), 5);
    // Some clients send a payload where there is none.
    raw(&mut client, Command::DEVICE_RESET, &[0; 8]).unwrap();
}

#[test]
fn a_reset_that_drains_is_answered_when_it_has() {
    let server = Server::start();
    let mut client = server.client();
    server.device.run(|fake| fake.defer = true);
    let reset = client
        .wire()
        .send(Command::DEVICE_RESET, 0, &[], &[])
        .unwrap();
    let info = client
        .wire()
        .send(Command::DEVICE_GET_INFO, 0, &words(&[16, 0, 0, 0]), &[])
        .unwrap();
    server
        .device
        .wait_for(|call| *call == Call::Reset(ResetKind::Device));
    server.device.run(|fake| fake.finished = Some(Access::Done));
    client
        .wire()
        .reply_to(reset, Command::DEVICE_RESET)
        .unwrap();
    client
        .wire()
        .reply_to(info, Command::DEVICE_GET_INFO)
        .unwrap();
}
