use super::*;
use crate::wire::{Command, DeviceFlags, IrqFlags, RegionAccess};

const REQUEST: Header = Header {
    message_id: 0x1234,
    command: Command::DEVICE_GET_REGION_INFO.0,
    message_size: 48,
    flags: 0,
    error: 0,
};

/// Little-endian words, to state expectations independently of the structures.
fn words(bytes: &[u8]) -> Vec<u32> {
    assert_eq!(bytes.len() % 4, 0);
    bytes
        .chunks_exact(4)
        .map(|word| u32::from_ne_bytes(word.try_into().unwrap()))
        .collect()
}

fn encoded(reply: &Reply<'_>) -> Vec<u8> {
    let mut out = vec![0xee; 3];
    encode(&REQUEST, reply, &mut out);
    assert_eq!(&out[..3], [0xee; 3]);
    out.drain(..3);
    out
}

fn payload(reply: &Reply<'_>) -> Vec<u32> {
    let bytes = encoded(reply);
    let header = words(&bytes[..16]);
    assert_eq!(
        header,
        [0x0005_1234, u32::try_from(bytes.len()).unwrap(), 1, 0]
    );
    words(&bytes[16..])
}

const DOORBELLS: Region = Region {
    index: 0,
    flags: RegionFlags::READ.union(RegionFlags::WRITE),
    size: 0x4000,
    mappable: Some(Mappable {
        area: SparseArea {
            offset: 0x1000,
            size: 0x2000,
        },
        file_offset: 0x8000,
    }),
};

#[test]
fn an_error_is_a_header_alone() {
    let mut out = Vec::new();
    encode_error(&REQUEST, Errno::EEXIST, &mut out);
    assert_eq!(words(&out), [0x0005_1234, 16, 0x21, 17]);
}

#[test]
fn done_is_a_header_alone() {
    assert_eq!(encoded(&Reply::Done).len(), 16);
}

#[test]
fn version_has_the_capabilities_behind_it() {
    let bytes = encoded(&Reply::Version { minor: 1 });
    assert_eq!(words(&bytes[..20])[4], 1 << 16);
    assert_eq!(&bytes[20..], crate::version::offer());
}

#[test]
fn fixed_replies_have_the_specified_layout() {
    let flags = DeviceFlags::PCI | DeviceFlags::RESET;
    assert_eq!(payload(&Reply::DeviceInfo(flags)), [16, 3, 9, 5]);
    let irq = Reply::IrqInfo {
        index: 2,
        flags: IrqFlags::EVENTFD,
        count: 2048,
    };
    assert_eq!(payload(&irq), [16, 1, 2, 2048]);
    assert_eq!(payload(&Reply::RegionIoFds { index: 4 }), [16, 0, 4, 0]);
    let access = RegionAccess {
        offset: 0x1_0000_0004,
        region: 7,
        count: 4,
    };
    assert_eq!(payload(&Reply::RegionWrite(access)), [4, 1, 7, 4]);
    assert_eq!(
        payload(&Reply::RegionRead(access, &9_u32.to_ne_bytes())),
        [4, 1, 7, 4, 9]
    );
    assert_eq!(payload(&Reply::RegionWriteMulti(3)), [3, 0]);
    let unmap = wire::DmaUnmap {
        argsz: 24,
        flags: 2,
        address: 0,
        size: 1 << 32,
    };
    assert_eq!(payload(&Reply::DmaUnmap(unmap)), [24, 2, 0, 0, 0, 1]);
}

#[test]
fn an_absent_region_is_all_zero() {
    let region = Region {
        index: 3,
        flags: RegionFlags::empty(),
        size: 0,
        mappable: None,
    };
    let reply = Reply::RegionInfo { argsz: 32, region };
    assert_eq!(payload(&reply), [32, 0, 3, 0, 0, 0, 0, 0]);
}

#[test]
fn a_region_without_areas_ignores_a_larger_argsz() {
    let region = Region {
        mappable: None,
        ..DOORBELLS
    };
    assert!(!region.carries_descriptor(4064));
    let reply = Reply::RegionInfo {
        argsz: 4064,
        region,
    };
    assert_eq!(payload(&reply), [32, 3, 0, 0, 0x4000, 0, 0, 0]);
}

#[test]
fn an_area_that_does_not_fit_is_announced_without_descriptor() {
    for argsz in [32, 40, 63] {
        assert!(!DOORBELLS.carries_descriptor(argsz));
        let reply = Reply::RegionInfo {
            argsz,
            region: DOORBELLS,
        };
        // MMAP without CAPS, and the size to ask for.
        assert_eq!(payload(&reply), [64, 7, 0, 0, 0x4000, 0, 0x8000, 0]);
    }
}

#[test]
fn an_area_that_fits_is_described_by_a_capability() {
    for argsz in [64, 4064] {
        assert!(DOORBELLS.carries_descriptor(argsz));
        let reply = Reply::RegionInfo {
            argsz,
            region: DOORBELLS,
        };
        let fixed = [64, 0xf, 0, 32, 0x4000, 0, 0x8000, 0];
        let capability = [1 << 16 | 1, 0, 1, 0, 0x1000, 0, 0x2000, 0];
        assert_eq!(payload(&reply), [fixed, capability].concat());
    }
}
