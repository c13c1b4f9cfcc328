//! The region in which requests in flight are written down.

use guest_memory::SharedMemory;

use crate::client::{Client, F_PACKED, RAM, w32, w64};
use crate::fake::{MAX_SIZE, QUEUES};
use crate::harness::{Server, event, guest_memory};

fn description(size: u64, offset: u64, queues: u16, entries: u16) -> Vec<u8> {
    let counts = [queues.to_ne_bytes(), entries.to_ne_bytes(), [0; 2], [0; 2]].concat();
    [w64(&[size, offset]), counts].concat()
}

fn get(client: &Client, queues: u16, entries: u16) -> (Vec<u8>, SharedMemory) {
    let mut reply = client.ask(31, &description(0, 0, queues, entries));
    assert_eq!(
        reply.payload[16..],
        description(0, 0, queues, entries)[16..]
    );
    let size = u64::from_ne_bytes(reply.payload[..8].try_into().unwrap());
    let offset = u64::from_ne_bytes(reply.payload[8..16].try_into().unwrap());
    let memory = SharedMemory::from_fd(reply.fds.remove(0), offset, size).unwrap();
    assert!(reply.fds.is_empty());
    (reply.payload, memory)
}

#[test]
fn a_region_outlives_its_session_and_reaches_the_rings_of_the_next() {
    for more in [0, F_PACKED] {
        let server = Server::start();
        let client = server.client();
        client.set_features(more);
        let (description, region) = get(&client, 2, 256);
        drop(client);

        let client = server.client();
        client.set_features(more);
        client.set_with(32, &description, &[region.fd()]);
        let memory = guest_memory(RAM);
        client.share(&memory);
        let _kicks = [client.start_ring(0, 0), client.start_ring(1, 0)];
        let started = server.device.started();
        let parts: Vec<_> = started
            .iter()
            .map(|(_, setup)| setup.inflight.as_ref().unwrap())
            .collect();
        let least = if more == 0 {
            16 + 256 * 16
        } else {
            32 + 256 * 32
        };
        assert_eq!(parts[0].offset, 0);
        assert!(parts[0].len >= least && parts[1].offset == parts[0].len);
        assert!(parts[1].offset + parts[1].len <= region.len());
        parts[1].memory.write(parts[1].offset, &0xabcdu16);
        assert_eq!(region.read::<u16>(parts[1].offset), Some(0xabcd));
        // A queue beyond those of the region.
        client.place(3, 0);
        client.kick(3, &event());
        client.refused(18, &w32(&[3, 1]), &[]);
    }
}

#[test]
fn a_region_that_was_made_is_zero_and_cannot_be_truncated() {
    let server = Server::start();
    let client = server.client();
    let (_, region) = get(&client, 4, 128);
    assert_eq!(region.read::<u64>(0), Some(0));
    assert!(nix::unistd::ftruncate(region.fd(), 0).is_err());
}

#[test]
fn regions_that_cannot_be_are_refused() {
    let server = Server::start();
    let client = server.client();
    let memory = guest_memory(RAM);
    client.share(&memory);
    let file = guest_memory(8192);
    for payload in [
        description(8193, 0, 1, 256),
        description(8192, 4096, 1, 256),
        description(0, 0, 1, 256),
        description(u64::MAX, 1, 1, 256),
        description(8192, 0, QUEUES + 1, 16),
        description(8192, 0, 1, MAX_SIZE + 1),
        description(8192, 0, 0, 256),
        description(8192, 0, 1, 0),
    ] {
        client.refused(32, &payload, &[file.fd()]);
    }
    client.refused(32, &description(8192, 0, 1, 256), &[]);
    // Too short for its queues: seen when the format is known.
    client.set_with(32, &description(64, 0, 1, 256), &[file.fd()]);
    client.place(0, 0);
    client.kick(0, &event());
    client.refused(18, &w32(&[0, 1]), &[]);
}

#[test]
fn a_region_does_not_change_under_rings() {
    let server = Server::start();
    let client = server.client();
    let memory = guest_memory(RAM);
    client.share(&memory);
    let (description, region) = get(&client, 1, 256);
    let _kick = client.start_ring(0, 0);
    client.refused(32, &description, &[region.fd()]);
    client.stop_ring(0);
    client.set_with(32, &description, &[region.fd()]);
}

#[test]
fn a_region_too_large_to_wish_for_ends_the_connection() {
    let server = Server::start();
    for (queues, entries) in [
        (QUEUES + 1, 16),
        (1, MAX_SIZE + 1),
        (u16::MAX, u16::MAX),
        (0, 1),
    ] {
        let client = server.client();
        client.send(31, 0, &description(0, 0, queues, entries), &[]);
        client.closed();
    }
}
