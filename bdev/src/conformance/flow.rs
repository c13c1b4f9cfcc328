//! Many requests, many users, and the end of one.

use super::data::{Random, assert_same, pattern};
use super::rig::{MEMORY, Request, Rig};
use super::{Maker, each};
use crate::{IoKind, IoStatus};

/// Many more requests than the ring has room for: "full" loses none of them.
pub fn deep_queues(maker: Maker) {
    each(maker, 4, |subject, spec| {
        let size = spec.block_size as usize;
        let rig = Rig::with_room(&subject.bdev, 4);
        let count = 500;
        let mut model = vec![0; count * size];
        // Memory that can be used as it is, and memory that needs a buffer on the way.
        for shift in [0, 1] {
            let half = MEMORY / 2 + shift;
            let all = |kind, from: usize| {
                let requests = (0..count).map(|index| {
                    let place = (from + index * size, size);
                    Request::new(kind, index as u64, 1, place)
                });
                let statuses = rig.run_all(requests.collect());
                let well = statuses.iter().all(|status| *status == IoStatus::Ok);
                assert!(well, "{kind:?} at offset {shift}");
            };
            let read = |model: &[u8]| {
                rig.put(half, &vec![0xee; count * size]);
                all(IoKind::Read, half);
                if subject.keeps_data() {
                    let found = rig.get(half, count * size);
                    assert_same(&found, model, "500 reads at once");
                }
            };
            read(&model);
            model = pattern(2 + shift as u64, count * size);
            rig.put(shift, &model);
            all(IoKind::Write, shift);
            read(&model);
        }
        let full = rig.fulls() > 0;
        assert_eq!(full, subject.uses_ring, "whether the ring was ever full");
    });
}

/// Many requests at once whose memory cannot be used as it is: bounded memory serves them all.
pub fn many_unaligned_requests(maker: Maker) {
    each(maker, 16, |subject, spec| {
        let size = spec.block_size as usize;
        let rig = Rig::new(&subject.bdev);
        let len = 140 << 10;
        let count = MEMORY / (len + 1) / 2;
        let blocks = (len / size) as u64;
        let data = pattern(4, count * (len + 1));
        rig.put(1, &data);
        let all = |kind, from: usize| {
            let requests = (0..count).map(|index| {
                let place = (from + index * (len + 1), len);
                Request::new(kind, index as u64 * blocks, blocks, place)
            });
            rig.run_all(requests.collect())
        };
        for (kind, from) in [
            (IoKind::Write, 1),
            (IoKind::Compare, 1),
            (IoKind::Read, MEMORY / 2),
        ] {
            let statuses = all(kind, from);
            assert!(
                statuses.iter().all(|status| *status == IoStatus::Ok),
                "{kind:?}"
            );
        }
        if subject.keeps_data() {
            for index in 0..count {
                let at = index * (len + 1);
                let found = rig.get(MEMORY / 2 + at, len);
                assert_same(&found, &data[at..at + len], &format!("request {index}"));
            }
        }
    });
}

/// Two reactors work on one disk, each on every other block, and see each other's data.
pub fn two_reactors_at_once(maker: Maker) {
    each(maker, 4, |subject, spec| {
        let size = spec.block_size as usize;
        let rigs = [Rig::new(&subject.bdev), Rig::new(&subject.bdev)];
        let count = 256;
        std::thread::scope(|scope| {
            for (index, rig) in rigs.iter().enumerate() {
                let subject = &subject;
                scope.spawn(move || {
                    let mut random = Random(index as u64 + 1);
                    for round in 0..8 {
                        let data = pattern(round * 2 + index as u64, count * size);
                        rig.put(0, &data);
                        let requests = (0..count).map(|block| {
                            let lba = (block * 2 + index) as u64;
                            let request = Request::new(IoKind::Write, lba, 1, (block * size, size));
                            let fua = random.below(64) == 0;
                            Request { fua, ..request }
                        });
                        let statuses = rig.run_all(requests.collect());
                        assert!(statuses.iter().all(|status| *status == IoStatus::Ok));
                        let mine = rig.read(2 * 13 + index as u64, 1).expect("in range");
                        if subject.keeps_data() {
                            let expected = &data[13 * size..14 * size];
                            assert_same(&mine, expected, "own block");
                        }
                    }
                });
            }
        });
        if !subject.keeps_data() {
            return;
        }
        for (index, rig) in rigs.iter().rev().enumerate() {
            // `rev`: each looks at what the other wrote last.
            let data = pattern(14 + index as u64, count * size);
            for (block, expected) in data.chunks(size).enumerate() {
                let lba = (block * 2 + index) as u64;
                let found = rig.read(lba, 1).expect("in range");
                assert_same(&found, expected, "the other reactor's block");
            }
        }
    });
}

/// A user that goes away with requests in flight takes nobody with it, and the disk stays as usable as before.
pub fn closing_early(maker: Maker) {
    each(maker, 4, |subject, spec| {
        let size = spec.block_size as usize;
        for round in 0..4 {
            let rig = Rig::new(&subject.bdev);
            let requests = (0..64).map(|index| {
                let kind = [IoKind::Read, IoKind::Write, IoKind::WriteZeroes][index % 3];
                // Aligned and not, so that buffers of both sides are on their way.
                let place = (index * 2 * size + round, size);
                Request::new(kind, index as u64, 1, place)
            });
            rig.run_and_close(requests.collect());
        }
        let rig = Rig::new(&subject.bdev);
        let data = pattern(5, size);
        assert_eq!(rig.write(0, &data), IoStatus::Ok);
        if subject.keeps_data() {
            assert_same(&rig.read(0, 1).expect("in range"), &data, "afterwards");
        }
    });
}

/// Everything is counted, once.
pub fn statistics(maker: Maker) {
    each(maker, 4, |subject, spec| {
        let size = u64::from(spec.block_size);
        let rig = Rig::new(&subject.bdev);
        let data = vec![1; 3 * size as usize];
        for lba in 0..10 {
            assert_eq!(rig.write(lba, &data), IoStatus::Ok);
            assert!(rig.read(lba, 2).is_ok());
        }
        assert_eq!(rig.command(IoKind::Flush, 0, 0, false), IoStatus::Ok);
        assert_eq!(rig.command(IoKind::WriteZeroes, 0, 5, true), IoStatus::Ok);
        assert!(rig.read(spec.num_blocks, 1).is_err());
        let stats = rig.stats(&subject.bdev);
        assert_eq!((stats.read.ops, stats.read.bytes), (10, 20 * size));
        assert_eq!((stats.write.ops, stats.write.bytes), (10, 30 * size));
        assert_eq!((stats.flush.ops, stats.flush.bytes), (1, 0));
        let zeroes = stats.write_zeroes;
        assert_eq!((zeroes.ops, zeroes.bytes), (1, 5 * size));
        assert_eq!(stats.failures.total(), 1);
        for stats in [stats.read, stats.write] {
            assert!(stats.min_latency_ticks <= stats.max_latency_ticks);
            assert!(stats.latency_ticks <= stats.max_latency_ticks * stats.ops);
        }
    });
}
