//! The client must notice what a server does wrong: a client that believes everything proves nothing.

use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::thread;

use nix::errno::Errno;
use vfio_user::wire::{DmaUnmap, Header, RegionFlags};
use zerocopy::IntoBytes;

use super::*;

/// A reply of the scripted server.
struct Say {
    flags: u32,
    error: u32,
    id_offset: u16,
    payload: Vec<u8>,
    fd: bool,
}

fn say(payload: &[u8]) -> Say {
    Say {
        flags: 1,
        error: 0,
        id_offset: 0,
        payload: payload.to_vec(),
        fd: false,
    }
}

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}

/// Runs `client` against a server that answers its requests with `script`, one by one.
fn against<T>(script: Vec<Say>, client: impl FnOnce(&mut Client) -> T) -> T {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let mut server = Wire::new(theirs).unwrap();
    let thread = thread::spawn(move || {
        for say in script {
            let request = server.receive().unwrap();
            let header = Header {
                message_id: request.header.message_id.wrapping_add(say.id_offset),
                message_size: 16 + u32::try_from(say.payload.len()).unwrap(),
                flags: say.flags,
                error: say.error,
                ..request.header
            };
            let file = std::fs::File::open("/dev/null").unwrap();
            let fd = say.fd.then(|| file.as_fd());
            let bytes = [header.as_bytes(), &say.payload].concat();
            server.send_bytes(&bytes, fd.as_slice()).unwrap();
        }
    });
    let result = client(&mut Client::over(ours).unwrap());
    thread.join().unwrap();
    result
}

fn protocol<T: std::fmt::Debug>(result: Result<T>) {
    assert!(matches!(result, Err(Error::Protocol(_))), "{result:?}");
}

#[test]
fn a_refusal_carries_its_errno() {
    let refusal = Say {
        flags: 0x21,
        error: 17,
        ..say(&[])
    };
    let result = against(vec![refusal], |client| {
        client.dma_map(MapFlags::READ, None, 0, 0, 1)
    });
    assert_eq!(result.unwrap_err().errno(), Some(Errno::EEXIST));
}

#[test]
fn malformed_replies_are_noticed() {
    for wrong in [
        Say {
            flags: 0x21,
            error: 22,
            ..say(&[0])
        },
        Say {
            error: 22,
            ..say(&[])
        },
        Say {
            flags: 0x21,
            error: 0,
            ..say(&[])
        },
        Say {
            flags: 0,
            ..say(&[])
        },
        Say {
            flags: 0x11,
            ..say(&[])
        },
        Say {
            id_offset: 1,
            ..say(&[])
        },
        Say {
            fd: true,
            ..say(&[])
        },
        say(&[0; 4]),
    ] {
        protocol(against(vec![wrong], Client::reset));
    }
}

#[test]
fn replies_of_another_size_or_content_are_noticed() {
    let other = DmaUnmap {
        argsz: 24,
        flags: 0,
        address: 0,
        size: 8192,
    };
    protocol(against(vec![say(other.as_bytes())], |client| {
        client.dma_unmap(0, 4096)
    }));
    protocol(against(vec![say(&words(&[16, 3, 9]))], Client::device_info));
    protocol(against(
        vec![say(&words(&[20, 3, 9, 5]))],
        Client::device_info,
    ));
    protocol(against(vec![say(&words(&[16, 1, 3, 1]))], |client| {
        client.irq_info(2)
    }));
    // A region read of three bytes for four.
    let short = [words(&[0, 0, 0, 4]), vec![1, 2, 3]].concat();
    protocol(against(vec![say(&short)], |client| {
        client.read::<u32>(0, 0)
    }));
}

#[test]
fn region_info_is_asked_for_again_with_room_for_its_capabilities() {
    let first = words(&[64, 7, 0, 0, 0x4000, 0, 0, 0]);
    let mut second = words(&[64, 0xf, 0, 32, 0x4000, 0, 0, 0]);
    second.extend(words(&[0x1_0001, 0, 1, 0, 0x1000, 0, 0x1000, 0]));
    let script = vec![
        say(&first),
        Say {
            fd: true,
            ..say(&second)
        },
    ];
    let info = against(script, |client| client.region_info(0)).unwrap();
    assert_eq!(info.flags, RegionFlags::all());
    assert_eq!((info.areas[0].offset, info.areas[0].size), (0x1000, 0x1000));
    assert!(info.fd.is_some());
}

#[test]
fn broken_capability_chains_are_noticed() {
    for (next, areas) in [(32, 1), (0, 2), (1000, 1)] {
        let mut reply = words(&[64, 0xf, 0, 32, 0x4000, 0, 0, 0]);
        reply.extend(words(&[0x1_0001, next, areas, 0, 0x1000, 0, 0x1000, 0]));
        protocol(against(vec![say(&reply)], |client| {
            client.region_info_within(0, 64)
        }));
    }
}

#[test]
fn a_server_that_goes_away_is_told_from_one_that_breaks_off() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    drop(theirs);
    let mut wire = Wire::new(ours).unwrap();
    assert!(matches!(wire.receive(), Err(Error::Closed)));

    let (ours, theirs) = UnixStream::pair().unwrap();
    Wire::new(theirs).unwrap().send_bytes(&[0; 7], &[]).unwrap();
    let mut wire = Wire::new(ours).unwrap();
    assert!(matches!(wire.receive(), Err(Error::Protocol(_))));
}
