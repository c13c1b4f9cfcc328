use std::fs::File;
use std::os::unix::fs::FileExt;

use guest_memory::{HostBuffer, Segments};

use super::*;
use crate::conformance::Rig;
use crate::test_reactor::on_reactor;

fn options() -> MallocOptions {
    MallocOptions {
        name: "Malloc0".into(),
        block_size: 512,
        num_blocks: 2048,
        physical_block_size: Some(4096),
        uuid: None,
    }
}

#[test]
fn information_is_what_was_asked_for() {
    let uuid = Uuid::from_u128(7);
    let bdev = create(MallocOptions {
        uuid: Some(uuid),
        ..options()
    })
    .unwrap();
    let info = bdev.info();
    assert_eq!(
        (info.name.as_str(), info.product_name),
        ("Malloc0", "Malloc disk")
    );
    assert_eq!(
        (info.block_size, info.physical_block_size, info.num_blocks),
        (512, 4096, 2048)
    );
    assert_eq!(info.uuid, uuid);
    assert!(!info.features.contains(Features::WRITE_CACHE));
    assert!(bdev.driver_specific().is_empty());
    assert!(bdev.rescan().is_err() && bdev.resize(1).is_err());
}

#[test]
fn two_disks_without_identity_differ() {
    let (a, b) = (create(options()).unwrap(), create(options()).unwrap());
    assert_ne!(a.info().uuid, b.info().uuid);
}

/// Bytes of the range that are in memory or swap.
fn resident(ram: &SharedRam, offset: u64, len: u64) -> u64 {
    let first = ram.pages(offset, len).unwrap() as u64 / 4096;
    let mut entries = vec![0; (len / 4096 * 8) as usize];
    let pagemap = File::open("/proc/self/pagemap").unwrap();
    pagemap.read_exact_at(&mut entries, first * 8).unwrap();
    // Bits 63 and 62 of each little-endian entry (pagemap.rst of the kernel's documentation).
    let there = entries.chunks(8).filter(|entry| entry[7] & 0xc0 != 0);
    there.count() as u64 * 4096
}

#[test]
fn unmapping_gives_the_memory_back() {
    const MIB: u64 = 1 << 20;
    let disk = Disk::new(Make {
        name: "Malloc0".into(),
        product_name: "Malloc disk",
        uuid: None,
        block_size: 512,
        physical_block_size: None,
        num_blocks: 256 * MIB / 512,
        features: Features::WRITE | Features::UNMAP | Features::UNMAP_ZEROES,
    });
    let ram = Arc::new(SharedRam::new(256 << 20).unwrap());
    let bdev: SharedBdev = Arc::new(Malloc {
        disk: Arc::new(disk.unwrap()),
        ram: Arc::clone(&ram),
    });
    assert_eq!(
        resident(&ram, 0, 256 * MIB),
        0,
        "nothing is taken beforehand"
    );
    let rig = Rig::new(&bdev);
    for mib in 0..64 {
        let written = rig.write(mib * 2048, &[1; MIB as usize]);
        assert_eq!(written, IoStatus::Ok);
    }
    assert_eq!(resident(&ram, 0, 64 * MIB), 64 * MIB);
    // Short enough to end at once, and in the ring; both leave the edges of pages alone.
    for (lba, blocks) in [(1, 2048), (5 * 2048, 55 * 2048 + 1)] {
        let unmapped = rig.command(IoKind::Unmap, lba, blocks, false);
        assert_eq!(unmapped, IoStatus::Ok);
    }
    assert_eq!(resident(&ram, 4096, MIB - 4096), 0);
    assert_eq!(resident(&ram, 5 * MIB, 55 * MIB), 0);
    assert_eq!(resident(&ram, 2 * MIB, 3 * MIB), 3 * MIB);
    for (lba, expected) in [
        (0, 1),
        (1, 0),
        (2048, 0),
        (2049, 1),
        (5 * 2048 - 1, 1),
        (5 * 2048, 0),
        (60 * 2048, 0),
        (60 * 2048 + 1, 1),
    ] {
        assert_eq!(rig.read(lba, 1).unwrap(), [expected; 512], "block {lba}");
    }
}

#[test]
fn long_unmaps_go_in_steps_and_survive_a_refusal() {
    on_reactor(|reactor| {
        let ram = Arc::new(SharedRam::new(4 << 30).unwrap());
        let disk = Disk::new(Make {
            name: "d".into(),
            product_name: "test",
            uuid: None,
            block_size: 512,
            physical_block_size: None,
            num_blocks: 8 << 20,
            features: Features::WRITE | Features::UNMAP,
        });
        let mut channel = MallocChannel {
            disk: Arc::new(disk.unwrap()),
            ram: Arc::clone(&ram),
            announced: Cell::new(None),
            releases: TagMap::default(),
        };
        let mark = |at| assert!(ram.write(at, &Segments::from_host(buffer(1))));
        for at in [0, 4095, 4096, 1 << 30, 3 << 30] {
            mark(at);
        }
        let unmap = Io {
            kind: IoKind::Unmap,
            lba: 1,
            blocks: (8 << 20) - 1,
            segments: Segments::new(),
            fua: false,
        };
        let submitted = channel.submit(reactor.cx(), 5, unmap);
        assert!(matches!(submitted, Submitted::Queued));
        // The first step is in the ring, with nobody to take its end; say in its place that the kernel refused.
        let mut op = Op::Release {
            ram: Arc::clone(&ram),
            offset: 4096,
            len: 1 << 20,
        };
        let mut steps = 1;
        let status = loop {
            match channel.released(5, op, Err(Errno::EINVAL)) {
                Next::Done(status) => break status,
                Next::Submit(Op::Release { offset, len, ram }) => {
                    assert_eq!(offset, 4096 + steps * Op::MAX_RELEASE);
                    assert!(len <= Op::MAX_RELEASE);
                    steps += 1;
                    // Clearing gigabytes is not the point here.
                    let len = 1 << 20;
                    op = Op::Release { ram, offset, len };
                }
                Next::Submit(_) => panic!("a release was expected"),
            }
        };
        assert_eq!((status, steps), (IoStatus::Ok, 4));
        assert!(channel.releases.is_empty());
        for (at, expected) in [(0, 1), (4095, 0), (4096, 0)] {
            assert_eq!(
                ram.matches(at, &Segments::from_host(buffer(expected))),
                Some(true),
                "byte {at}"
            );
        }
    });
}

fn buffer(byte: u8) -> HostBuffer {
    let mut buffer = HostBuffer::new(1);
    buffer.as_mut_slice()[0] = byte;
    buffer
}

#[test]
fn more_memory_than_there_can_be_is_refused_in_words() {
    let error = create(MallocOptions {
        num_blocks: 1 << 53,
        ..options()
    })
    .unwrap_err();
    assert_eq!(error.errno, Errno::ENOMEM);
    assert!(error.reason.contains("make it smaller"), "{error}");
}
