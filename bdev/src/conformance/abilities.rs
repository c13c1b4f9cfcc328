//! What a disk says it can, it can; what it says it cannot, it refuses.

use super::data::{assert_disk, assert_same, pattern};
use super::rig::{Request, Rig};
use super::{BLOCK_SIZES, Maker, Spec, each};
use crate::{Features, IoKind, IoStatus};

/// The disk's own description is consistent with what was asked for.
pub fn describes_itself(maker: Maker) {
    each(maker, 8, |subject, spec| {
        let info = subject.bdev.info();
        assert!(!info.name.is_empty() && !info.product_name.is_empty());
        assert!(!info.uuid.is_nil());
        assert_eq!(info.block_size, spec.block_size);
        assert_eq!(info.num_blocks, spec.num_blocks);
        assert_eq!(info.len_bytes(), spec.len());
        assert!(info.physical_block_size.is_power_of_two());
        assert!(info.physical_block_size >= info.block_size);
        assert!(info.features.contains(Features::WRITE));
        let unmap = info.features.contains(Features::UNMAP);
        assert!(unmap || !info.features.contains(Features::UNMAP_ZEROES));
        assert_eq!(subject.bdev.info(), info);
    });
}

/// `WriteZeroes` always works; `Unmap` where it is offered, and then keeps its promise. Neither touches what lies beside.
pub fn zeroes_and_unmaps(maker: Maker) {
    each(maker, 16, |subject, spec| {
        let rig = Rig::new(&subject.bdev);
        let features = subject.features();
        let size = spec.block_size as usize;
        let mib = (1 << 20) / u64::from(spec.block_size);
        let data = pattern(9, 1 << 20);
        for index in 0..16 {
            assert_eq!(rig.write(index * mib, &data), IoStatus::Ok);
        }
        let mut model = data.repeat(16);
        // Single blocks, odd places, more than any bounce buffer, and up to the end.
        let ranges = [
            (0, 1),
            (3, 1),
            (17, 100),
            (mib, 2 * mib + 3),
            (5 * mib + 1, 8 * mib - 2),
            (spec.num_blocks - 1, 1),
        ];
        for (index, (lba, blocks)) in ranges.into_iter().enumerate() {
            let kind = if index % 2 == 0 && features.contains(Features::UNMAP) {
                IoKind::Unmap
            } else {
                IoKind::WriteZeroes
            };
            let status = rig.command(kind, lba, blocks, index == 2);
            assert_eq!(status, IoStatus::Ok, "{kind:?} of {blocks} at {lba}");
            let range = lba as usize * size..(lba + blocks) as usize * size;
            if kind == IoKind::Unmap && !features.contains(Features::UNMAP_ZEROES) {
                // Reads as anything: give it contents again.
                assert_eq!(
                    rig.command(IoKind::WriteZeroes, lba, blocks, false),
                    IoStatus::Ok
                );
            }
            model[range].fill(0);
        }
        if subject.keeps_data() {
            assert_disk(&rig, spec, &model);
        }
        if !features.contains(Features::UNMAP) {
            let status = rig.command(IoKind::Unmap, 0, 1, false);
            assert_eq!(status, IoStatus::Unsupported);
        }
        let whole = rig.command(IoKind::WriteZeroes, 0, spec.num_blocks, true);
        assert_eq!(whole, IoStatus::Ok);
        if subject.keeps_data() {
            assert_disk(&rig, spec, &vec![0; spec.len() as usize]);
        }
    });
}

/// A compare tells equal from different, wherever the difference is, and changes neither side.
pub fn compares(maker: Maker) {
    each(maker, 8, |subject, spec| {
        let rig = Rig::new(&subject.bdev);
        let size = spec.block_size as usize;
        let blocks = (300 << 10) / spec.block_size as usize;
        let data = pattern(1, blocks * size);
        assert_eq!(rig.write(7, &data), IoStatus::Ok);
        let compare = |at, len| {
            let blocks = (len / size) as u64;
            rig.run(Request::new(IoKind::Compare, 7, blocks, (at, len)))
        };
        assert_eq!(compare(0, data.len()), IoStatus::Ok);
        if !subject.keeps_data() {
            return;
        }
        rig.put(333, &data);
        assert_eq!(compare(333, data.len()), IoStatus::Ok);
        for at in [0, 1, size, 131_071, 131_072, data.len() - 1] {
            rig.put(333 + at, &[data[at] ^ 0x10]);
            assert_eq!(compare(333, data.len()), IoStatus::Miscompare, "byte {at}");
            rig.put(333 + at, &[data[at]]);
        }
        assert_eq!(compare(333, size), IoStatus::Ok);
        assert_same(&rig.get(333, data.len()), &data, "memory of a compare");
        let found = rig.read(7, blocks as u64).expect("in range");
        assert_same(&found, &data, "disk of a compare");
    });
}

/// Flushes and durable writes complete, with and without anything to make durable.
pub fn flushes_and_fua(maker: Maker) {
    each(maker, 4, |subject, spec| {
        let rig = Rig::new(&subject.bdev);
        assert_eq!(rig.command(IoKind::Flush, 0, 0, false), IoStatus::Ok);
        let size = spec.block_size as usize;
        for (at, len) in [(0, size), (1, size), (0, 1 << 20), (3, 1 << 20)] {
            let data = pattern(len as u64, len);
            rig.put(at, &data);
            let request = Request::new(IoKind::Write, 1, (len / size) as u64, (at, len));
            assert_eq!(
                rig.run(Request {
                    fua: true,
                    ..request
                }),
                IoStatus::Ok
            );
            assert_eq!(rig.command(IoKind::Flush, 0, 0, false), IoStatus::Ok);
            if subject.keeps_data() {
                let found = rig.read(1, (len / size) as u64).expect("in range");
                assert_same(&found, &data, "a durable write");
            }
        }
        // The range of a flush means nothing.
        let status = rig.command(IoKind::Flush, u64::MAX, u64::MAX, true);
        assert_eq!(status, IoStatus::Ok);
    });
}

/// A read-only disk reads, and refuses everything that would change it.
pub fn read_only(maker: Maker) {
    for block_size in BLOCK_SIZES {
        let spec = Spec {
            readonly: true,
            ..Spec::new(block_size, 2)
        };
        let Some(subject) = maker(spec) else { return };
        assert!(!subject.features().contains(Features::WRITE));
        let rig = Rig::new(&subject.bdev);
        let contents: Vec<u8> = (0..spec.len()).map(Spec::pattern_of).collect();
        let size = block_size as usize;
        assert_eq!(rig.write(0, &vec![1; size]), IoStatus::ReadOnly);
        for kind in [IoKind::WriteZeroes, IoKind::Unmap] {
            assert_eq!(rig.command(kind, 0, 1, false), IoStatus::ReadOnly);
        }
        assert_eq!(rig.command(IoKind::Flush, 0, 0, false), IoStatus::Ok);
        assert_disk(&rig, spec, &contents);
        rig.put(1, &contents[..size]);
        let compare = Request::new(IoKind::Compare, 0, 1, (1, size));
        assert_eq!(rig.run(compare), IoStatus::Ok);
    }
}
