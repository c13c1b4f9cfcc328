use super::*;
use crate::wire::Header;

const QEMU: &str = r#"{"capabilities":{"pgsizes":4096,"max_msg_fds":16,"max_dma_maps":65535,"max_data_xfer_size":1048576,"migration":{"max_bitmap_size":268435456,"pgsize":4096},"write_multiple":true}}"#;

fn proposal(major: u16, minor: u16, data: &[u8]) -> Vec<u8> {
    [&major.to_ne_bytes(), &minor.to_ne_bytes(), data].concat()
}

fn with_json(json: &str) -> Vec<u8> {
    proposal(0, 1, format!("{json}\0").as_bytes())
}

#[test]
fn qemus_proposal_is_understood() {
    let payload = proposal(0, 0, format!("{QEMU}\0").as_bytes());
    let proposal = Proposal::decode(&payload).unwrap();
    assert_eq!(proposal.agreed_minor(), 0);
    assert_eq!(
        proposal.capabilities,
        Capabilities {
            max_msg_fds: 16,
            write_multiple: true,
            ..Capabilities::default()
        }
    );
}

#[test]
fn the_lower_minor_version_is_spoken() {
    for (proposed, agreed) in [(0, 0), (1, 1), (2, 1), (u16::MAX, 1)] {
        let proposal = Proposal::decode(&proposal(0, proposed, b"")).unwrap();
        assert_eq!(proposal.agreed_minor(), agreed);
    }
}

#[test]
fn absent_capabilities_have_the_specifications_defaults() {
    for payload in [
        proposal(0, 1, b""),
        with_json("{}"),
        with_json(r#"{"capabilities":{}}"#),
        with_json(r#"{"capabilities":{"unheard_of":[1]},"other":0}"#),
    ] {
        let proposal = Proposal::decode(&payload).unwrap();
        assert_eq!(proposal.capabilities, Capabilities::default());
    }
}

#[test]
fn every_capability_is_read() {
    let proposal = Proposal::decode(&with_json(
        r#"{"capabilities":{"max_msg_fds":1024,"max_data_xfer_size":4096,"max_dma_maps":7,"pgsizes":2097152,
            "write_multiple":true,"twin_socket":{"supported":true},"migration":{"pgsize":65536}}}"#,
    ))
    .unwrap();
    assert_eq!(
        proposal.capabilities,
        Capabilities {
            max_msg_fds: 1024,
            max_data_xfer_size: 4096,
            max_dma_maps: 7,
            pgsizes: 2 << 20,
            write_multiple: true,
            twin_socket: true,
        }
    );
}

#[test]
fn malformed_proposals_are_refused() {
    let cases = [
        ("nothing at all", vec![]),
        ("half a version", vec![0, 0, 1]),
        ("another major version", proposal(999, 0, b"")),
        ("no NUL", proposal(0, 1, b"{}")),
        ("NUL only", proposal(0, 1, b"\0")),
        ("half an object", with_json("{")),
        ("half a string", with_json("\"")),
        ("no object", with_json("23")),
        (
            "capabilities no object",
            with_json(r#"{"capabilities":"23"}"#),
        ),
        (
            "text for fds",
            with_json(r#"{"capabilities":{"max_msg_fds":"foo"}}"#),
        ),
        (
            "negative fds",
            with_json(r#"{"capabilities":{"max_msg_fds":-1}}"#),
        ),
        (
            "absurd fds",
            with_json(r#"{"capabilities":{"max_msg_fds":1025}}"#),
        ),
        (
            "text for size",
            with_json(r#"{"capabilities":{"max_data_xfer_size":"1M"}}"#),
        ),
        (
            "migration no object",
            with_json(r#"{"capabilities":{"migration":"23"}}"#),
        ),
        (
            "text for pgsize",
            with_json(r#"{"capabilities":{"migration":{"pgsize":"foo"}}}"#),
        ),
        (
            "odd pgsize",
            with_json(r#"{"capabilities":{"migration":{"pgsize":4095}}}"#),
        ),
        (
            "number for bool",
            with_json(r#"{"capabilities":{"write_multiple":1}}"#),
        ),
        (
            "number for twin",
            with_json(r#"{"capabilities":{"twin_socket":1}}"#),
        ),
        ("not UTF-8", proposal(0, 1, b"{\"\xff\":1}\0")),
        ("bottomless nesting", with_json(&"[".repeat(100_000))),
    ];
    for (what, payload) in cases {
        let rejection = Proposal::decode(&payload).expect_err(what);
        assert_eq!(rejection.errno, nix::errno::Errno::EINVAL, "{what}");
    }
}

#[test]
fn the_offer_fits_what_qemu_accepts() {
    let offer = offer();
    assert_eq!(offer.last(), Some(&0));
    // QEMU's own request is 214 bytes, and that is all it reads.
    assert!(size_of::<Header>() + size_of::<Version>() + offer.len() <= 214);
    let json: serde_json::Value = serde_json::from_slice(&offer[..offer.len() - 1]).unwrap();
    let capabilities = json["capabilities"].as_object().unwrap();
    assert_eq!(capabilities["max_msg_fds"], 16);
    assert_eq!(capabilities["max_data_xfer_size"], 1 << 20);
    assert_eq!(capabilities["max_dma_maps"], 65535);
    assert_eq!(capabilities["pgsizes"], 4096);
    assert_eq!(capabilities.len(), 4);
}
