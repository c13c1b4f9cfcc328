//! VERSION, each time on a fresh connection.

use nix::errno::Errno;
use testkit::vfio_user::{Client, Proposal};
use vfio_user::wire::{Command, FLAG_NO_REPLY};

use crate::harness::{Server, alive, invalid, refused};

/// The server answers EINVAL, closes, and takes the next client.
#[track_caller]
fn sent_away(server: &Server, send: impl FnOnce(&mut Client)) {
    let mut client = server.stranger();
    send(&mut client);
    client.wire().wait_closed().unwrap();
    alive(&mut server.client());
}

#[track_caller]
fn proposal_refused(proposal: &Proposal) {
    let server = Server::start();
    sent_away(&server, |client| invalid(client.negotiate(proposal)));
}

#[test]
fn version_without_payload_is_refused() {
    let server = Server::start();
    sent_away(&server, |client| {
        invalid(client.request(Command::VERSION, &[], &[]))
    });
}

#[test]
fn an_unknown_first_command_is_refused() {
    let server = Server::start();
    sent_away(&server, |client| {
        invalid(client.request(Command(999), &[], &[]))
    });
}

#[test]
fn any_other_first_request_is_refused() {
    let server = Server::start();
    sent_away(&server, |client| invalid(client.reset()));
    sent_away(&server, |client| invalid(client.device_info()));
    sent_away(&server, |client| invalid(client.dma_unmap_all()));
    assert!(server.device.calls().iter().all(|call| matches!(
        call,
        crate::fake::Call::Read(..) | crate::fake::Call::Reset(_) | crate::fake::Call::Dropped
    )));
}

#[test]
fn a_first_message_larger_than_any_is_refused() {
    let server = Server::start();
    sent_away(&server, |client| {
        let header = [0x0001_0000, (1 << 20) + 33, 0, 0];
        client
            .wire()
            .send_bytes(&crate::harness::words(&header), &[])
            .unwrap();
        invalid(client.wire().reply_to(0, Command::VERSION));
    });
}

#[test]
fn another_major_version_is_refused() {
    proposal_refused(&Proposal::bare(999, 0));
}

#[test]
fn malformed_data_is_refused() {
    let without_nul = Proposal {
        data: b"{}".to_vec(),
        ..Proposal::bare(0, 1)
    };
    proposal_refused(&without_nul);
    proposal_refused(&Proposal::json("{"));
    proposal_refused(&Proposal::json("\""));
    proposal_refused(&Proposal::json(r#"{"capabilities":"23"}"#));
}

#[test]
fn absurd_capabilities_are_refused() {
    proposal_refused(&Proposal::json(r#"{"capabilities":{"max_msg_fds":"foo"}}"#));
    proposal_refused(&Proposal::json(r#"{"capabilities":{"max_msg_fds":-1}}"#));
    proposal_refused(&Proposal::json(r#"{"capabilities":{"max_msg_fds":1025}}"#));
    proposal_refused(&Proposal::json(r#"{"capabilities":{"migration":"23"}}"#));
    proposal_refused(&Proposal::json(
        r#"{"capabilities":{"migration":{"pgsize":"foo"}}}"#,
    ));
    proposal_refused(&Proposal::json(
        r#"{"capabilities":{"migration":{"pgsize":4095}}}"#,
    ));
}

#[test]
fn a_refused_version_that_takes_no_reply_just_closes() {
    let server = Server::start();
    sent_away(&server, |client| {
        client
            .wire()
            .send(Command::VERSION, FLAG_NO_REPLY, &[9, 9, 0, 0], &[])
            .unwrap();
    });
}

#[test]
fn a_client_without_capabilities_still_learns_the_servers() {
    let server = Server::start();
    for (proposed, agreed) in [(0, 0), (1, 1), (7, 1)] {
        let mut client = server.stranger();
        let answer = client.negotiate(&Proposal::bare(0, proposed)).unwrap();
        assert_eq!((answer.major, answer.minor), (0, agreed));
        let json: serde_json::Value = serde_json::from_str(&answer.json).unwrap();
        assert_eq!(json["capabilities"]["max_msg_fds"], 16);
        assert_eq!(json["capabilities"]["max_data_xfer_size"], 1 << 20);
        alive(&mut client);
    }
}

#[test]
fn what_real_clients_propose_is_accepted() {
    let server = Server::start();
    for proposal in [
        Proposal::qemu(),
        Proposal::default(),
        Proposal::json("{}"),
        Proposal::json(r#"{"capabilities":{}}"#),
        Proposal::json(r#"{"capabilities":{"max_msg_fds":1024,"max_data_xfer_size":1048576}}"#),
        Proposal::json(
            r#"{"capabilities":{"max_msg_fds":1,"max_data_xfer_size":1048576,"migration":{"pgsize":4096}}}"#,
        ),
        Proposal::json(
            r#"{"capabilities":{"twin_socket":{"supported":true},"never_heard_of":{}}}"#,
        ),
    ] {
        let mut client = server.stranger();
        client.negotiate(&proposal).unwrap();
        alive(&mut client);
    }
}

#[test]
fn the_reply_fits_the_buffer_of_a_qemu_and_brings_no_descriptor() {
    let server = Server::start();
    let mut client = server.stranger();
    let data = Proposal::qemu().data;
    let payload = [&[0; 4][..], &data].concat();
    client
        .wire()
        .send(Command::VERSION, 0, &payload, &[])
        .unwrap();
    // One read gets all of it: SPDK's initiator reads a body once only.
    let mut buffer = [0; 1024];
    let (count, ancillary) = client.wire().receive_raw(&mut buffer).unwrap();
    assert!(count <= 214, "{count}");
    assert_eq!(&buffer[4..8], &u32::try_from(count).unwrap().to_ne_bytes());
    assert!(ancillary.fds.is_empty());
    alive(&mut client);
}

#[test]
fn a_second_version_is_refused_but_the_session_goes_on() {
    let server = Server::start();
    let mut client = server.client();
    invalid(client.negotiate(&Proposal::default()));
    alive(&mut client);
}

#[test]
fn a_client_that_leaves_after_negotiation_makes_room() {
    let server = Server::start();
    drop(server.client());
    alive(&mut server.client());
}

#[test]
fn a_device_that_cannot_be_made_is_a_clean_refusal() {
    let directory = tempfile::tempdir().unwrap();
    let listener = vfio_user::Listener::bind(&directory.path().join("cntrl")).unwrap();
    let (reactor, thread) = reactor::spawn(reactor::Config::default()).unwrap();
    let endpoint = vfio_user::Endpoint::start(
        listener,
        &reactor,
        vfio_user::Options::default(),
        Box::new(|_| Err("out of doorbells".into())),
    );
    let mut client = Client::connect_only(endpoint.path()).unwrap();
    refused(client.negotiate(&Proposal::default()), Errno::ENOMEM);
    client.wire().wait_closed().unwrap();
    reactor.stop();
    thread.join().unwrap();
}
