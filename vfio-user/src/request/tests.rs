use std::os::fd::AsRawFd;

use nix::errno::Errno;

use super::*;
use crate::test_fds::{Witness, several, watched};
use crate::wire::Header;

fn header(command: Command) -> Header {
    Header {
        message_id: 1,
        command: command.0,
        message_size: 0,
        flags: 0,
        error: 0,
    }
}

fn with_fds(command: Command, payload: &[u8], fds: Vec<OwnedFd>) -> Result<Request<'_>, Rejection> {
    let header = header(command);
    decode(Message {
        header,
        payload,
        fds,
    })
}

fn request(command: Command, payload: &[u8]) -> Result<Request<'_>, Rejection> {
    with_fds(command, payload, Vec::new())
}

/// Payload of 32-bit words, stated without the structures.
fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}

fn null() -> OwnedFd {
    std::fs::File::open("/dev/null").unwrap().into()
}

#[track_caller]
fn refused(command: Command, payload: &[u8]) {
    let rejection = request(command, payload).unwrap_err();
    assert_eq!(rejection.errno, Errno::EINVAL);
}

#[test]
fn replies_and_unknown_types_are_refused() {
    for flags in [1, 2, 0xf] {
        let header = Header {
            flags,
            ..header(Command::DEVICE_RESET)
        };
        let message = Message {
            header,
            payload: &[],
            fds: Vec::new(),
        };
        assert_eq!(decode(message).unwrap_err().errno, Errno::EINVAL);
    }
}

#[test]
fn unknown_and_unsupported_commands_are_refused() {
    for command in [0, 11, 12, 14, 16, 17, 18, 19, 999, u16::MAX] {
        refused(Command(command), &[0; 64]);
    }
}

#[test]
fn every_request_that_is_too_short_is_refused() {
    for (command, least) in [
        (Command::VERSION, 4),
        (Command::DMA_MAP, 32),
        (Command::DMA_UNMAP, 24),
        (Command::DEVICE_GET_INFO, 16),
        (Command::DEVICE_GET_REGION_INFO, 32),
        (Command::DEVICE_GET_REGION_IO_FDS, 16),
        (Command::DEVICE_GET_IRQ_INFO, 16),
        (Command::DEVICE_SET_IRQS, 20),
        (Command::REGION_READ, 16),
        (Command::REGION_WRITE, 16),
        (Command::REGION_WRITE_MULTI, 8),
    ] {
        let payload = vec![0x7f; least];
        for length in 0..least {
            refused(command, &payload[..length]);
        }
    }
}

#[test]
fn argsz_below_the_structure_is_refused() {
    for (command, size) in [
        (Command::DMA_MAP, 32_u32),
        (Command::DMA_UNMAP, 24),
        (Command::DEVICE_GET_INFO, 16),
        (Command::DEVICE_GET_REGION_INFO, 32),
        (Command::DEVICE_GET_REGION_IO_FDS, 16),
        (Command::DEVICE_GET_IRQ_INFO, 16),
        (Command::DEVICE_SET_IRQS, 20),
    ] {
        for argsz in [0, 8, size - 1] {
            let mut payload = vec![0; size as usize];
            payload[..4].copy_from_slice(&argsz.to_ne_bytes());
            refused(command, &payload);
        }
    }
}

#[test]
fn device_queries_are_read() {
    assert!(matches!(
        request(Command::DEVICE_GET_INFO, &words(&[32, 0, 0, 0])),
        Ok(Request::DeviceInfo)
    ));
    assert!(matches!(
        request(Command::DEVICE_GET_IRQ_INFO, &words(&[32, 0, 4, 0])),
        Ok(Request::IrqInfo { index: 4 })
    ));
    refused(Command::DEVICE_GET_IRQ_INFO, &words(&[16, 0, 5, 0]));
    assert!(matches!(
        request(Command::DEVICE_RESET, &[]),
        Ok(Request::DeviceReset)
    ));
}

#[test]
fn region_queries_are_read_also_when_padded() {
    let mut padded = words(&[4064, 0, 8, 0, 0, 0, 0, 0]);
    padded.resize(4064, 0);
    assert!(matches!(
        request(Command::DEVICE_GET_REGION_INFO, &padded),
        Ok(Request::RegionInfo {
            argsz: 4064,
            index: 8
        })
    ));
    refused(
        Command::DEVICE_GET_REGION_INFO,
        &words(&[32, 0, 9, 0, 0, 0, 0, 0]),
    );
}

#[test]
fn region_fd_queries_are_read() {
    let command = Command::DEVICE_GET_REGION_IO_FDS;
    assert!(matches!(
        request(command, &words(&[16, 0, 2, 0])),
        Ok(Request::RegionIoFds { index: 2 })
    ));
    refused(command, &words(&[16, 1, 2, 0]));
    refused(command, &words(&[16, 0, 2, 1]));
    refused(command, &words(&[(1 << 20) + 1, 0, 2, 0]));
    refused(command, &words(&[16, 0, 512, 0]));
}

fn dma_map_payload(flags: u32, offset: u64, address: u64, size: u64) -> Vec<u8> {
    let mut payload = words(&[32, flags]);
    for field in [offset, address, size] {
        payload.extend_from_slice(&field.to_ne_bytes());
    }
    payload
}

#[test]
fn dma_maps_keep_their_first_descriptor_and_close_the_rest() {
    let payload = dma_map_payload(3, 0x1000, 0x2000, 0x3000);
    let first = null();
    let raw = first.as_raw_fd();
    let (second, witness) = watched();
    let fds = vec![first, second];
    let Ok(Request::DmaMap(map)) = with_fds(Command::DMA_MAP, &payload, fds) else {
        panic!("no map");
    };
    assert_eq!(
        (map.offset, map.address, map.size),
        (0x1000, 0x2000, 0x3000)
    );
    assert_eq!(
        map.flags,
        wire::DmaMapFlags::READ | wire::DmaMapFlags::WRITE
    );
    assert_eq!(map.fd.unwrap().as_raw_fd(), raw);
    assert!(witness.is_closed());
}

#[test]
fn dma_maps_may_come_without_descriptor_but_then_not_name_a_way_to_use_it() {
    let Ok(Request::DmaMap(map)) = request(Command::DMA_MAP, &dma_map_payload(1, 0, 0, 4096))
    else {
        panic!("no map");
    };
    assert!(map.fd.is_none());
    for flags in [0x4, 0x8, 0xf] {
        let payload = dma_map_payload(flags, 0, 0, 4096);
        refused(Command::DMA_MAP, &payload);
        with_fds(Command::DMA_MAP, &payload, vec![null()]).unwrap();
    }
}

#[test]
fn absurd_dma_maps_are_refused() {
    refused(Command::DMA_MAP, &dma_map_payload(0x10, 0, 0, 4096));
    refused(Command::DMA_MAP, &dma_map_payload(3, 0, 0, 0));
    refused(
        Command::DMA_MAP,
        &dma_map_payload(3, 0, u64::MAX - 4094, 4096),
    );
    refused(Command::DMA_MAP, &dma_map_payload(3, 0, 4096, u64::MAX));
    refused(
        Command::DMA_MAP,
        &dma_map_payload(3, u64::MAX - 4094, 0, 4096),
    );
}

fn dma_unmap_payload(flags: u32, address: u64, size: u64) -> Vec<u8> {
    let mut payload = words(&[24, flags]);
    payload.extend_from_slice(&address.to_ne_bytes());
    payload.extend_from_slice(&size.to_ne_bytes());
    payload
}

#[test]
fn dma_unmaps_are_read() {
    let Ok(Request::DmaUnmap(unmap)) =
        request(Command::DMA_UNMAP, &dma_unmap_payload(0, 0x1000, 0x2000))
    else {
        panic!("no unmap");
    };
    assert_eq!((unmap.address, unmap.size), (0x1000, 0x2000));
    assert!(matches!(
        request(Command::DMA_UNMAP, &dma_unmap_payload(2, 0, 0)),
        Ok(Request::DmaUnmapAll(_))
    ));
    // Everything with a range; unknown flags; dirty pages, alone and with everything.
    refused(Command::DMA_UNMAP, &dma_unmap_payload(2, 4096, 0));
    refused(Command::DMA_UNMAP, &dma_unmap_payload(2, 0, 4096));
    refused(Command::DMA_UNMAP, &dma_unmap_payload(4, 0, 4096));
    refused(Command::DMA_UNMAP, &dma_unmap_payload(1, 0, 4096));
    refused(Command::DMA_UNMAP, &dma_unmap_payload(3, 0, 0));
    // A descriptor with it is closed, not refused: SPDK's initiator sends one.
    let (fd, witness) = watched();
    with_fds(Command::DMA_UNMAP, &dma_unmap_payload(0, 0, 4096), vec![fd]).unwrap();
    assert!(witness.is_closed());
}

fn access(offset: u64, region: u32, count: u32, data: &[u8]) -> Vec<u8> {
    let mut payload = offset.to_ne_bytes().to_vec();
    payload.extend_from_slice(&words(&[region, count]));
    payload.extend_from_slice(data);
    payload
}

#[test]
fn region_reads_are_read() {
    let payload = access(0x1c, 0, 4, &[]);
    let Ok(Request::RegionRead(read)) = request(Command::REGION_READ, &payload) else {
        panic!("no read");
    };
    assert_eq!((read.offset, read.region, read.count), (0x1c, 0, 4));
    request(Command::REGION_READ, &access(0, 7, 0, &[])).unwrap();
    request(Command::REGION_READ, &access(0, 7, 1 << 20, &[])).unwrap();
    refused(Command::REGION_READ, &access(0, 7, 4, &[0]));
    refused(Command::REGION_READ, &access(0, 9, 4, &[]));
    refused(Command::REGION_READ, &access(0, 7, (1 << 20) + 8, &[]));
    refused(Command::REGION_READ, &access(u64::MAX, 7, 256, &[]));
}

#[test]
fn region_writes_have_as_much_data_as_they_say() {
    let payload = access(0x14, 0, 4, &[1, 2, 3, 4]);
    let Ok(Request::RegionWrite(write, data)) = request(Command::REGION_WRITE, &payload) else {
        panic!("no write");
    };
    assert_eq!(
        (write.offset, write.count, data),
        (0x14, 4, &[1, 2, 3, 4][..])
    );
    request(Command::REGION_WRITE, &access(0, 0, 0, &[])).unwrap();
    refused(Command::REGION_WRITE, &access(0, 0, 4, &[1, 2, 3]));
    refused(Command::REGION_WRITE, &access(0, 0, 4, &[1, 2, 3, 4, 5]));
    refused(Command::REGION_WRITE, &access(0, 0, u32::MAX, &[1]));
    refused(Command::REGION_WRITE, &access(0, 9, 1, &[1]));
    refused(Command::REGION_WRITE, &access(u64::MAX, 0, 1, &[1]));
}

fn multi(count: u64, entries: &[(u64, u32, u32)]) -> Vec<u8> {
    let mut payload = count.to_ne_bytes().to_vec();
    for &(offset, region, count) in entries {
        payload.extend_from_slice(&access(offset, region, count, &[1, 2, 3, 4, 5, 6, 7, 8]));
    }
    payload
}

#[test]
fn multiple_writes_are_read_in_order() {
    let payload = multi(2, &[(0x1000, 0, 4), (0x1008, 1, 8)]);
    let Ok(Request::RegionWriteMulti(writes)) = request(Command::REGION_WRITE_MULTI, &payload)
    else {
        panic!("no writes");
    };
    let seen: Vec<_> = writes
        .iter()
        .map(|(access, data)| (access.offset, access.region, data))
        .collect();
    assert_eq!(
        seen,
        [
            (0x1000, 0, &[1, 2, 3, 4][..]),
            (0x1008, 1, &[1, 2, 3, 4, 5, 6, 7, 8][..])
        ]
    );
    request(Command::REGION_WRITE_MULTI, &multi(0, &[])).unwrap();
}

#[test]
fn one_bad_entry_spoils_a_multiple_write() {
    let command = Command::REGION_WRITE_MULTI;
    refused(command, &multi(2, &[(0, 0, 4)]));
    refused(command, &multi(0, &[(0, 0, 4)]));
    refused(command, &multi(1 << 61, &[(0, 0, 4)]));
    refused(command, &multi(u64::MAX, &[(0, 0, 4)]));
    refused(command, &multi(2, &[(0, 0, 4), (0, 0, 9)]));
    refused(command, &multi(2, &[(0, 0, 4), (0, 0, 0)]));
    refused(command, &multi(2, &[(0, 0, 4), (0, 9, 4)]));
    refused(command, &multi(2, &[(0, 0, 4), (u64::MAX, 0, 4)]));
    let mut odd = multi(1, &[(0, 0, 4)]);
    odd.push(0);
    refused(command, &odd);
}

const SET: Command = Command::DEVICE_SET_IRQS;

fn irqs(flags: u32, index: u32, start: u32, count: u32) -> Vec<u8> {
    words(&[20, flags, index, start, count])
}

#[track_caller]
fn range(payload: &[u8], fds: Vec<OwnedFd>) -> IrqRange<'_> {
    match with_fds(SET, payload, fds) {
        Ok(Request::SetIrqs(IrqChange::Range(range))) => range,
        other => panic!("{other:?}"),
    }
}

#[test]
fn interrupt_changes_in_every_form_are_read() {
    for (bits, action) in [
        (0x08, IrqAction::Mask),
        (0x10, IrqAction::Unmask),
        (0x20, IrqAction::Trigger),
    ] {
        let payload = irqs(bits | 1, 2, 3, 4);
        let all = range(&payload, Vec::new());
        assert_eq!((all.index, all.start, all.count), (2, 3, 4));
        assert_eq!(all.action, action);
        assert!(matches!(all.data, IrqData::None));

        let mut payload = irqs(bits | 2, 2, 0, 3);
        payload.extend_from_slice(&[1, 0, 1]);
        let some = range(&payload, Vec::new());
        assert!(matches!(some.data, IrqData::Bool(&[1, 0, 1])));

        let payload = irqs(bits | 4, 2, 0, 2);
        let with_fds = range(&payload, vec![null(), null()]);
        assert_eq!(with_fds.action, action);
        assert!(matches!(with_fds.data, IrqData::EventFd(fds) if fds.len() == 2));
        let without = range(&payload, Vec::new());
        assert!(matches!(without.data, IrqData::EventFd(fds) if fds.is_empty()));
    }
    let payload = irqs(0x21, 2, 0, 0);
    let disable = request(SET, &payload).unwrap();
    assert!(matches!(
        disable,
        Request::SetIrqs(IrqChange::Disable { index: 2 })
    ));
}

#[test]
fn unclear_interrupt_changes_are_refused() {
    refused(SET, &irqs(0x21, 5, 0, 1));
    for flags in [
        0,
        0x01,
        0x20,
        0x19,
        0x31,
        0x23,
        0x26,
        0x25,
        0x61,
        0x8000_0021,
    ] {
        refused(SET, &irqs(flags, 2, 0, 1));
    }
    refused(SET, &irqs(0x18, 2, 0, 0));
}

#[test]
fn interrupt_changes_of_no_vectors_only_disable() {
    refused(SET, &irqs(0x21, 2, 1, 0));
    refused(SET, &irqs(0x09, 2, 0, 0));
    refused(SET, &irqs(0x22, 2, 0, 0));
    refused(SET, &irqs(0x24, 2, 0, 0));
}

#[test]
fn error_and_request_interrupts_only_trigger_one_vector() {
    for index in [3, 4] {
        refused(SET, &irqs(0x09, index, 0, 1));
        refused(SET, &irqs(0x11, index, 0, 1));
        refused(SET, &irqs(0x21, index, 0, 2));
        request(SET, &irqs(0x21, index, 0, 0)).unwrap();
        request(SET, &irqs(0x24, index, 0, 1)).unwrap();
    }
}

#[test]
fn data_and_descriptors_must_match_the_count() {
    for (flags, data, fds, count) in [
        (0x22, &[1][..], 1, 1),
        (0x21, &[], 1, 1),
        (0x21, &[], 1, 0),
        (0x22, &[], 2, 1),
        (0x24, &[], 1, 2),
        (0x24, &[], 3, 2),
        (0x22, &[1], 0, 2),
        (0x22, &[1, 0, 1], 0, 2),
    ] {
        let mut payload = irqs(flags, 2, 0, count);
        payload.extend_from_slice(data);
        let (fds, witnesses) = several(fds);
        let rejection = with_fds(SET, &payload, fds).unwrap_err();
        assert_eq!(rejection.errno, Errno::EINVAL);
        assert!(witnesses.iter().all(Witness::is_closed));
    }
}

#[test]
fn vectors_are_held_against_the_device() {
    for (flags, start, count, vectors, fits) in [
        (0x21, 0, 2048, 2048, true),
        (0x21, 2047, 1, 2048, true),
        (0x09, 2047, 2, 2048, false),
        (0x09, 2049, 1, 2048, false),
        (0x24, 284, u32::MAX, 2048, false),
        (0x21, 0, 0, 1, true),
        (0x21, 0, 0, 0, false),
        (0x21, 0, 1, 0, false),
    ] {
        let payload = irqs(flags, 2, start, count);
        let Ok(Request::SetIrqs(change)) = request(SET, &payload) else {
            panic!("no change");
        };
        assert_eq!(change.index(), 2);
        assert_eq!(change.check_vectors(vectors).is_ok(), fits);
    }
}

#[test]
fn commands_print_their_names() {
    assert_eq!(Command::DMA_MAP.to_string(), "DMA_MAP");
    assert_eq!(Command(999).to_string(), "command 999");
}
