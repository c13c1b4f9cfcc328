use std::os::fd::AsFd;

use nix::unistd::dup;
use zerocopy::IntoBytes;

use super::*;
use crate::wire::{Header, VERSION};

fn fds(count: usize) -> Vec<OwnedFd> {
    let (reader, _writer) = std::io::pipe().unwrap();
    (0..count).map(|_| dup(reader.as_fd()).unwrap()).collect()
}

fn decode_with(code: Code, payload: &[u8], count: usize) -> Result<String, Refusal> {
    let header = Header {
        request: code.0,
        flags: VERSION,
        size: payload.len() as u32,
    };
    decode(Message {
        header,
        payload,
        fds: fds(count),
    })
    .map(|request| format!("{request:?}"))
}

/// Every request that is served: its payload's size and its descriptors.
const SERVED: &[(Code, usize, usize)] = &[
    (Code::GET_FEATURES, 0, 0),
    (Code::SET_FEATURES, 8, 0),
    (Code::SET_OWNER, 0, 0),
    (Code::RESET_OWNER, 0, 0),
    (Code::SET_LOG_BASE, 16, 1),
    (Code::SET_LOG_FD, 0, 1),
    (Code::SET_VRING_NUM, 8, 0),
    (Code::SET_VRING_ADDR, 40, 0),
    (Code::SET_VRING_BASE, 8, 0),
    (Code::GET_VRING_BASE, 8, 0),
    (Code::SET_VRING_KICK, 8, 1),
    (Code::SET_VRING_CALL, 8, 1),
    (Code::SET_VRING_ERR, 8, 1),
    (Code::GET_PROTOCOL_FEATURES, 0, 0),
    (Code::SET_PROTOCOL_FEATURES, 8, 0),
    (Code::GET_QUEUE_NUM, 0, 0),
    (Code::SET_VRING_ENABLE, 8, 0),
    (Code::SET_BACKEND_REQ_FD, 0, 1),
    (Code::RESET_DEVICE, 0, 0),
    (Code::GET_MAX_MEM_SLOTS, 0, 0),
    (Code::ADD_MEM_REG, 40, 1),
    (Code::REM_MEM_REG, 40, 0),
    (Code::SET_STATUS, 8, 0),
    (Code::GET_STATUS, 0, 0),
];

#[test]
fn each_request_has_its_size_and_its_descriptors() {
    for &(code, size, count) in SERVED {
        assert!(
            decode_with(code, &vec![0; size], count).is_ok(),
            "{code} {size} {count}"
        );
        assert!(
            decode_with(code, &vec![0; size + 1], count).is_err(),
            "{code}"
        );
        if size > 0 {
            assert!(
                decode_with(code, &vec![0; size - 1], count).is_err(),
                "{code}"
            );
        }
        // A descriptor may come with REM_MEM_REG, for the sake of front-ends that exist.
        let surplus = if code == Code::REM_MEM_REG {
            2
        } else {
            count + 1
        };
        assert!(
            decode_with(code, &vec![0; size], surplus).is_err(),
            "{code}"
        );
        if count > 0 {
            assert!(decode_with(code, &vec![0; size], 0).is_err(), "{code}");
        }
    }
    assert!(decode_with(Code::REM_MEM_REG, &[0; 40], 1).is_ok());
}

#[test]
fn what_is_not_offered_is_not_served() {
    let served: Vec<u32> = SERVED.iter().map(|(code, ..)| code.0).collect();
    let others = [
        Code::SET_MEM_TABLE,
        Code::GET_CONFIG,
        Code::SET_CONFIG,
        Code::GET_INFLIGHT_FD,
        Code::SET_INFLIGHT_FD,
    ];
    for code in 0..100 {
        if served.contains(&code) || others.contains(&Code(code)) {
            continue;
        }
        for size in [0, 8, 16, 40] {
            assert!(
                decode_with(Code(code), &vec![0; size], 0).is_err(),
                "{code}"
            );
        }
    }
}

#[test]
fn a_ring_without_event_comes_without_descriptor() {
    let word = |value: u64| value.to_ne_bytes();
    let nofd = wire::VRING_NO_FD | 3;
    assert_eq!(
        decode_with(Code::SET_VRING_KICK, &word(nofd), 0).unwrap(),
        "SetVringKick(3, None)"
    );
    assert!(decode_with(Code::SET_VRING_KICK, &word(nofd), 1).is_err());
    assert!(decode_with(Code::SET_VRING_KICK, &word(3), 0).is_err());
}

#[test]
fn a_memory_table_has_a_descriptor_for_each_region() {
    let table = |count: u32, regions: usize| {
        let header = wire::MemoryHeader { count, padding: 0 };
        let regions = vec![wire::MemoryRegion::default(); regions];
        [header.as_bytes(), regions.as_bytes()].concat()
    };
    assert!(decode_with(Code::SET_MEM_TABLE, &table(2, 2), 2).is_ok());
    assert!(decode_with(Code::SET_MEM_TABLE, &table(0, 0), 0).is_ok());
    for (count, regions, descriptors) in
        [(2, 2, 1), (2, 2, 3), (1, 2, 2), (3, 2, 2), (u32::MAX, 2, 2)]
    {
        let payload = table(count, regions);
        assert!(decode_with(Code::SET_MEM_TABLE, &payload, descriptors).is_err());
    }
    assert!(decode_with(Code::SET_MEM_TABLE, &table(1, 1)[..39], 1).is_err());
    assert!(decode_with(Code::SET_MEM_TABLE, &[0; 7], 0).is_err());
}

#[test]
fn the_configuration_space_is_read_and_written_within_its_bounds() {
    let config = |offset: u32, size: u32, data: usize| {
        let header = wire::ConfigHeader {
            offset,
            size,
            flags: 0,
        };
        [header.as_bytes(), &vec![0; data]].concat()
    };
    for code in [Code::GET_CONFIG, Code::SET_CONFIG] {
        assert!(decode_with(code, &config(0, 60, 60), 0).is_ok());
        assert!(decode_with(code, &config(255, 1, 1), 0).is_ok());
        assert!(decode_with(code, &config(32, 1, 256), 0).is_ok());
        for (offset, size, data) in [
            (256, 1, 1),
            (200, 57, 57),
            (u32::MAX, 1, 1),
            (0, 8, 7),
            (0, u32::MAX, 8),
        ] {
            assert!(decode_with(code, &config(offset, size, data), 0).is_err());
        }
    }
}

#[test]
fn the_in_flight_description_comes_with_and_without_padding() {
    let inflight = wire::Inflight {
        num_queues: 4,
        queue_size: 128,
        padding: 0xdead,
        ..wire::Inflight::default()
    };
    let bytes = inflight.as_bytes();
    assert!(decode_with(Code::GET_INFLIGHT_FD, bytes, 0).is_ok());
    assert!(decode_with(Code::GET_INFLIGHT_FD, &bytes[..20], 0).is_ok());
    for size in [0, 19, 21, 23] {
        assert!(decode_with(Code::GET_INFLIGHT_FD, &bytes[..size], 0).is_err());
    }
    assert!(decode_with(Code::GET_INFLIGHT_FD, &[0; 24], 0).is_err());
    assert!(decode_with(Code::SET_INFLIGHT_FD, bytes, 1).is_ok());
    assert!(decode_with(Code::SET_INFLIGHT_FD, bytes, 0).is_err());
}
