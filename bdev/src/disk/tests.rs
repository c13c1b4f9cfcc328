use guest_memory::{HostBuffer, Segments};

use super::*;

fn disk(features: Features) -> Disk {
    Disk::new(Make {
        name: "d".into(),
        product_name: "test",
        uuid: None,
        block_size: 4096,
        physical_block_size: None,
        num_blocks: 100,
        features,
    })
    .unwrap()
}

fn io(kind: IoKind, lba: u64, blocks: u64, bytes: usize) -> Io {
    Io {
        kind,
        lba,
        blocks,
        segments: if bytes == 0 {
            Segments::new()
        } else {
            Segments::from_host(HostBuffer::new(bytes))
        },
        fua: false,
    }
}

#[test]
fn ranges_are_checked_without_overflow() {
    let disk = disk(Features::WRITE);
    let read = |lba, blocks: u64, bytes| disk.admit(&io(IoKind::Read, lba, blocks, bytes));
    assert_eq!(
        read(99, 1, 4096),
        Ok(Extent {
            offset: 99 * 4096,
            len: 4096
        })
    );
    assert_eq!(read(99, 2, 8192), Err(IoStatus::OutOfRange));
    assert_eq!(read(100, 1, 4096), Err(IoStatus::OutOfRange));
    assert_eq!(read(u64::MAX, 1, 4096), Err(IoStatus::OutOfRange));
    assert_eq!(read(1, u64::MAX, 4096), Err(IoStatus::OutOfRange));
    assert!(read(100, 0, 0).is_ok());
}

#[test]
fn memory_that_does_not_fit_the_blocks_is_refused() {
    let disk = disk(Features::WRITE);
    for kind in [IoKind::Read, IoKind::Write, IoKind::Compare] {
        for bytes in [0, 512, 8192] {
            let refused = Err(IoStatus::Failed(Errno::EINVAL));
            assert_eq!(disk.admit(&io(kind, 0, 1, bytes)), refused);
        }
    }
    assert!(disk.admit(&io(IoKind::WriteZeroes, 0, 100, 0)).is_ok());
}

#[test]
fn abilities_decide_before_ranges() {
    let read_only = disk(Features::empty());
    for kind in [IoKind::Write, IoKind::WriteZeroes, IoKind::Unmap] {
        let status = read_only.admit(&io(kind, 1000, 1, 4096));
        assert_eq!(status, Err(IoStatus::ReadOnly));
    }
    for kind in [IoKind::Read, IoKind::Compare] {
        assert!(read_only.admit(&io(kind, 0, 1, 4096)).is_ok());
    }
    let no_unmap = disk(Features::WRITE);
    let status = no_unmap.admit(&io(IoKind::Unmap, 0, 1, 0));
    assert_eq!(status, Err(IoStatus::Unsupported));
}

#[test]
fn geometry_is_checked() {
    let make = |block_size, physical_block_size, num_blocks| {
        Disk::new(Make {
            name: "d".into(),
            product_name: "test",
            uuid: None,
            block_size,
            physical_block_size,
            num_blocks,
            features: Features::empty(),
        })
        .map(|disk| disk.info())
    };
    for block_size in [0, 1, 256, 511, 520, 4095, 3 << 10, 2 << 20, u32::MAX] {
        let error = make(block_size, None, 1).unwrap_err();
        assert_eq!(error.errno, Errno::EINVAL);
        assert!(error.reason.contains("power of two"), "{error}");
    }
    assert!(make(512, Some(1000), 1).is_err());
    assert!(make(512, None, 0).is_err());
    assert!(make(512, None, 1 << 55).is_err());
    assert!(make(512, None, u64::MAX).is_err());
    assert_eq!(make(4096, Some(512), 1).unwrap().physical_block_size, 4096);
    assert_eq!(
        make(512, Some(4096), (1 << 54) - 1)
            .unwrap()
            .physical_block_size,
        4096
    );
}

#[test]
fn the_end_moves() {
    let disk = disk(Features::WRITE);
    disk.set_num_blocks(10).unwrap();
    assert_eq!(
        disk.admit(&io(IoKind::Read, 10, 1, 4096)),
        Err(IoStatus::OutOfRange)
    );
    assert!(disk.set_num_blocks(0).is_err());
    assert!(disk.set_num_blocks(1 << 60).is_err());
    assert_eq!(disk.num_blocks(), 10);
}
