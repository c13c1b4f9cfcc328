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

fn resident() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: u64 = statm.split(' ').nth(1).unwrap().parse().unwrap();
    pages * 4096
}

#[test]
fn unmapping_gives_the_memory_back() {
    const MIB: u64 = 1 << 20;
    let bdev = create(MallocOptions {
        num_blocks: 1024 * MIB / 512,
        ..options()
    });
    let bdev = bdev.unwrap();
    let rig = Rig::new(&bdev);
    for mib in 0..256 {
        let written = rig.write(mib * 2048, &[1; MIB as usize]);
        assert_eq!(written, IoStatus::Ok);
    }
    // Other tests run in this process, so only a large difference says something.
    let before = resident();
    let unmapped = rig.command(IoKind::Unmap, 1, 300 * 2048, false);
    assert_eq!(unmapped, IoStatus::Ok);
    let after = resident();
    assert!(after + 128 * MIB < before, "{after} of {before}");
    assert_eq!(rig.read(0, 1).unwrap(), [1; 512]);
    assert_eq!(rig.read(1, 1).unwrap(), [0; 512]);
    assert_eq!(rig.read(255 * 2048, 2048).unwrap(), [0; MIB as usize]);
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
