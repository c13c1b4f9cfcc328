//! Where the disk ends, and when that moves.

use super::data::{Random, assert_same};
use super::rig::{Request, Rig};
use super::{Maker, Spec, Subject, each};
use crate::{Features, IoKind, IoStatus};

const ALL: [IoKind; 5] = [
    IoKind::Read,
    IoKind::Write,
    IoKind::Compare,
    IoKind::WriteZeroes,
    IoKind::Unmap,
];

fn kinds(subject: &Subject) -> Vec<IoKind> {
    let mut kinds = ALL.to_vec();
    if !subject.features().contains(Features::UNMAP) {
        kinds.retain(|kind| *kind != IoKind::Unmap);
    }
    kinds
}

/// The last block is there, the one after it is not, and no number however large gets around the check.
pub fn ends_of_the_disk(maker: Maker) {
    each(maker, 4, |subject, spec| {
        let rig = Rig::new(&subject.bdev);
        let size = spec.block_size as usize;
        let last = spec.num_blocks - 1;
        for kind in kinds(subject) {
            let run = |lba, blocks, len| rig.run(Request::new(kind, lba, blocks, (0, len)));
            rig.put(0, &vec![0; 2 * size]);
            assert_eq!(run(last, 1, size), IoStatus::Ok, "{kind:?}");
            for lba in [
                last,
                last + 1,
                u64::MAX - 1,
                u64::MAX,
                u64::MAX / size as u64,
            ] {
                assert_eq!(
                    run(lba, 2, 2 * size),
                    IoStatus::OutOfRange,
                    "{kind:?} {lba}"
                );
            }
            assert_eq!(run(last + 1, 1, size), IoStatus::OutOfRange, "{kind:?}");
            assert_eq!(run(0, 0, 0), IoStatus::Ok, "{kind:?} of nothing");
            assert_eq!(run(spec.num_blocks, 0, 0), IoStatus::Ok);
            let refused = run(spec.num_blocks + 1, 0, 0);
            assert_eq!(refused, IoStatus::OutOfRange);
            if matches!(kind, IoKind::WriteZeroes | IoKind::Unmap) {
                assert_eq!(run(1, u64::MAX, 0), IoStatus::OutOfRange);
                assert_eq!(run(0, spec.num_blocks + 1, 0), IoStatus::OutOfRange);
            }
        }
    });
}

fn set_len(subject: &Subject, num_blocks: u64) -> bool {
    match subject.set_len {
        Some(set_len) => {
            set_len(subject, num_blocks);
            let found = subject.bdev.rescan().expect("can be looked at again");
            assert_eq!(found, num_blocks);
            true
        }
        None => subject.bdev.resize(num_blocks).is_ok(),
    }
}

/// A new length counts at once, on channels that are open and busy too; what was in the part that stays is still there.
pub fn sizes_change_under_way(maker: Maker) {
    each(maker, 4, |subject, spec| {
        let Spec { num_blocks, .. } = spec;
        if !set_len(subject, num_blocks) {
            return;
        }
        let size = spec.block_size as usize;
        let rig = Rig::new(&subject.bdev);
        let first = vec![0x77; size];
        assert_eq!(rig.write(0, &first), IoStatus::Ok);
        for blocks in [num_blocks / 2, 1, num_blocks * 2, num_blocks] {
            assert!(set_len(subject, blocks));
            assert_eq!(subject.bdev.info().num_blocks, blocks);
            assert_eq!(rig.read(blocks, 1), Err(IoStatus::OutOfRange));
            assert!(rig.read(blocks - 1, 1).is_ok());
            let grown = rig.write(blocks - 1, &vec![3; size]);
            assert_eq!(grown, IoStatus::Ok);
            assert_eq!(rig.write(0, &first), IoStatus::Ok);
        }
        if subject.keeps_data() {
            assert_same(&rig.read(0, 1).expect("in range"), &first, "what stayed");
        }
        // Under load every request ends, well or out of range. (A transfer that the kernel has begun when the
        // file shrinks may also write it longer again: nobody can order the two.)
        std::thread::scope(|scope| {
            let load = scope.spawn(|| {
                let mut random = Random(3);
                for _ in 0..40 {
                    let requests = (0..64).map(|_| {
                        let kind = ALL[random.below(2) as usize];
                        let lba = random.below(num_blocks);
                        Request::new(kind, lba, 1, (0, size))
                    });
                    for status in rig.run_all(requests.collect()) {
                        assert!(matches!(status, IoStatus::Ok | IoStatus::OutOfRange));
                    }
                }
            });
            let mut larger = false;
            while !load.is_finished() {
                let blocks = if larger { num_blocks } else { num_blocks / 2 };
                match subject.set_len {
                    Some(set_len) => {
                        set_len(subject, blocks);
                        subject.bdev.rescan().expect("can be looked at again");
                    }
                    None => subject
                        .bdev
                        .resize(blocks)
                        .expect("could be resized before"),
                }
                larger = !larger;
            }
        });
        if subject.set_len.is_none() {
            assert!(subject.bdev.resize(0).is_err());
        }
    });
}
