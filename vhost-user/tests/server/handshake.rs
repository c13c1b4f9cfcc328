//! Features, protocol features, configuration space, status.

use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;

use virtio::DeviceEvent;
use virtio_spec::feature;
use virtio_spec::status::DEVICE_NEEDS_RESET;

use crate::client::{
    Client, F_LOG_ALL, F_PACKED, F_PROTOCOL, NEED_REPLY, REPLY_ACK, VERSION, w32, w64,
};
use crate::fake::{CONFIG, Call, FEATURES, QUEUES};
use crate::harness::{Server, event, eventually};

/// MQ, LOG_SHMFD, REPLY_ACK, BACKEND_REQ, CONFIG, INFLIGHT_SHMFD, RESET_DEVICE, CONFIGURE_MEM_SLOTS, STATUS.
const PROTOCOL: u64 = 0b1_1011_0010_0010_1011;

#[test]
fn features_are_the_devices_without_what_cannot_be_carried_and_with_the_transports() {
    let server = Server::start();
    let client = server.stranger();
    let not_carried = feature::RING_RESET | feature::NOTIFICATION_DATA;
    let expected = FEATURES & !not_carried | F_PROTOCOL | F_LOG_ALL;
    assert_eq!(client.ask(1, &[]).u64(), expected);
    assert_eq!(client.ask(15, &[]).u64(), PROTOCOL);
}

#[test]
fn the_device_learns_of_its_own_features_only() {
    let server = Server::start();
    let client = server.client();
    client.set_features(F_LOG_ALL | F_PACKED);
    let own = FEATURES & !feature::RING_RESET & !feature::NOTIFICATION_DATA;
    server
        .device
        .wait_for(|call| matches!(call, Call::Features(features) if *features == own));
}

#[test]
fn features_that_were_not_offered_are_refused() {
    let server = Server::start();
    let client = server.client();
    for features in [feature::RING_RESET, feature::ACCESS_PLATFORM, 1, 1 << 63] {
        client.refused(2, &w64(&[features]), &[]);
    }
    for features in [1 << 2, 1 << 8, 1 << 14, 1 << 63] {
        client.refused(16, &w64(&[features]), &[]);
    }
}

#[test]
fn requests_are_acknowledged_if_both_sides_want_it() {
    let server = Server::start();
    let mut client = server.stranger();
    // Not negotiated: the wish means nothing.
    client.send(3, NEED_REPLY, &[], &[]);
    client.negotiate(REPLY_ACK, 0);
    client.set(3, &[]);
    client.set(4, &[]);
    // An answer of its own is the only one.
    client.send(1, NEED_REPLY, &[], &[]);
    client.receive(1);
    // Not asked for: none.
    client.send(3, 0, &[], &[]);
    client.alive();
}

#[test]
fn the_choice_of_protocol_features_is_itself_acknowledged() {
    let server = Server::start();
    let client = server.stranger();
    client.set(16, &w64(&[REPLY_ACK]));
}

#[test]
fn what_belongs_to_a_protocol_feature_is_refused_without_it() {
    let server = Server::start();
    let mut client = server.stranger();
    client.negotiate(REPLY_ACK, 0);
    let (ours, theirs) = UnixStream::pair().unwrap();
    drop(ours);
    client.refused(21, &[], &[theirs.as_fd()]);
    client.refused(25, &w32(&[0, 0, 0]), &[]);
    client.refused(34, &[], &[]);
    client.refused(39, &w64(&[1]), &[]);
    let memory = crate::harness::guest_memory(4096);
    client.refused(37, &w64(&[0, 0, 4096, 0, 0]), &[memory.fd()]);
    client.refused(38, &w64(&[0, 0, 4096, 0, 0]), &[]);
}

#[test]
fn a_refusal_that_cannot_be_told_ends_the_connection() {
    let server = Server::start();
    for code in [17, 36, 40] {
        let mut client = server.stranger();
        client.negotiate(REPLY_ACK, 0);
        client.send(code, NEED_REPLY, &[], &[]);
        client.closed();
    }
    let mut client = server.stranger();
    client.negotiate(0, 0);
    client.send(16, NEED_REPLY, &w64(&[1 << 8]), &[]);
    client.closed();
    server.client().alive();
}

#[test]
fn numbers_are_told() {
    let server = Server::start();
    let client = server.client();
    assert_eq!(client.ask(17, &[]).u64(), u64::from(QUEUES));
    assert_eq!(client.ask(36, &[]).u64(), 509);
}

#[test]
fn the_configuration_space_is_read_with_zeroes_behind_it() {
    let server = Server::start();
    let client = server.client();
    let request = [w32(&[50, 20, 0]), vec![0xff; 20]].concat();
    let reply = client.ask(24, &request).payload;
    assert_eq!(reply[..12], request[..12]);
    let expected: Vec<u8> = (50..70u8)
        .map(|at| if usize::from(at) < CONFIG { at } else { 0 })
        .collect();
    assert_eq!(reply[12..], expected);
    // "The payload size must match the front-end's request", also of one that sends more room than it wants filled.
    let roomy = [w32(&[10, 2, 0]), vec![0xff; 256]].concat();
    let reply = client.ask(24, &roomy).payload;
    assert_eq!(reply[12..], [&[10, 11][..], &[0; 254]].concat());
    // An error is an answer without payload.
    let beyond = [w32(&[250, 20, 0]), vec![0; 20]].concat();
    assert!(client.ask(24, &beyond).payload.is_empty());
    client.alive();
}

#[test]
fn the_configuration_space_is_written() {
    let server = Server::start();
    let client = server.client();
    client.set(25, &[w32(&[32, 1, 0]), vec![1]].concat());
    server
        .device
        .wait_for(|call| matches!(call, Call::Write(32, data) if data.as_slice() == [1]));
    client.refused(25, &[w32(&[256, 1, 0]), vec![1]].concat(), &[]);
}

#[test]
fn status_is_kept_shows_a_broken_device_and_resets_it() {
    let server = Server::start();
    let client = server.client();
    assert_eq!(client.ask(40, &[]).u64(), 0);
    client.set(39, &w64(&[0x0f]));
    assert_eq!(client.ask(40, &[]).u64(), 0x0f);
    server.device.run(|fake| {
        fake.events.push_back(DeviceEvent::Broken {
            index: None,
            cause: "a test wants it".to_owned(),
        });
    });
    let broken = u64::from(DEVICE_NEEDS_RESET) | 0x0f;
    eventually("NEEDS_RESET", || client.ask(40, &[]).u64() == broken);
    client.set(39, &w64(&[0]));
    assert_eq!(client.ask(40, &[]).u64(), 0);
    server.device.wait_for(|call| matches!(call, Call::Reset));
    client.refused(39, &w64(&[0x100]), &[]);
}

#[test]
fn a_changed_configuration_is_told_on_the_second_socket_one_at_a_time() {
    let server = Server::start();
    let client = server.client();
    let (ours, theirs) = UnixStream::pair().unwrap();
    client.set_with(21, &[], &[theirs.as_fd()]);
    drop(theirs);
    let ours = Client { socket: ours };
    let change = |server: &Server| {
        server
            .device
            .run(|fake| fake.events.push_back(DeviceEvent::ConfigChanged));
    };
    let expect = || {
        let mut message = [0; 12];
        use std::io::Read;
        (&ours.socket).read_exact(&mut message).unwrap();
        assert_eq!(message.to_vec(), w32(&[2, VERSION | NEED_REPLY, 0]));
    };
    change(&server);
    expect();
    // Two more while the first is unanswered: one more message.
    change(&server);
    change(&server);
    client.alive();
    ours.socket.set_nonblocking(true).unwrap();
    let nothing = unix_socket::stream::receive(&ours.socket, &mut [0; 1]);
    assert_eq!(nothing.unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
    ours.socket.set_nonblocking(false).unwrap();
    let answer = [w32(&[2, VERSION | 4, 8]), w64(&[0])].concat();
    ours.send_bytes(&answer, &[]);
    expect();
    // Nonsense ends the channel, not the session.
    ours.send_bytes(&answer, &[]);
    ours.send_bytes(&[0xff; 20], &[]);
    ours.closed();
    change(&server);
    client.alive();
}

#[test]
fn the_second_socket_must_be_one() {
    let server = Server::start();
    let client = server.client();
    let event = event();
    client.refused(21, &[], &[event.as_fd()]);
}
