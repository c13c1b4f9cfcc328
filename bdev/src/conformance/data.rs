//! What is written is what is read.

use super::rig::{Request, Rig};
use super::{Maker, Spec, each};
use crate::{Features, IoKind, IoStatus};

/// Bytes that differ from place to place and from round to round.
pub(super) fn pattern(seed: u64, len: usize) -> Vec<u8> {
    let mut random = Random(seed.wrapping_mul(2).wrapping_add(0x1234_5678_9abc_def1));
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        bytes.extend_from_slice(&random.next().to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

/// A small generator (xorshift64*): the same numbers in every run.
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number below `end`.
    pub(super) fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }
}

/// Where two byte strings differ first: the whole strings would drown the message.
#[track_caller]
pub(super) fn assert_same(found: &[u8], expected: &[u8], what: &str) {
    assert_eq!(found.len(), expected.len(), "length: {what}");
    let difference = found.iter().zip(expected).position(|(a, b)| a != b);
    assert_eq!(difference, None, "first byte that differs: {what}");
}

/// A disk that nobody has written reads as zeroes.
pub fn fresh_disks_read_zeroes(maker: Maker) {
    each(maker, 8, |subject, spec| {
        if !subject.keeps_data() {
            return;
        }
        let rig = Rig::new(&subject.bdev);
        let blocks = (1 << 20) / u64::from(spec.block_size);
        for lba in [0, 1, spec.num_blocks - blocks] {
            let found = rig.read(lba, blocks).expect("in range");
            assert_same(&found, &vec![0; 1 << 20], "a fresh disk");
        }
    });
}

/// Transfers of every size, at every kind of place, arrive whole and touch nothing beside.
pub fn data_come_back(maker: Maker) {
    each(maker, 8, |subject, spec| {
        let rig = Rig::new(&subject.bdev);
        let size = spec.block_size as usize;
        let mut model = vec![0; spec.len() as usize];
        for (round, blocks) in [1, 2, 3, 7, 8, 9, 64, 255, 256].into_iter().enumerate() {
            for lba in [0, 1, 13, spec.num_blocks / 2, spec.num_blocks - blocks] {
                let data = pattern(round as u64 * 100 + lba, blocks as usize * size);
                assert_eq!(rig.write(lba, &data), IoStatus::Ok);
                let at = lba as usize * size;
                model[at..at + data.len()].copy_from_slice(&data);
                if subject.keeps_data() {
                    let found = rig.read(lba, blocks).expect("in range");
                    assert_same(&found, &data, "just written");
                }
            }
        }
        if subject.keeps_data() {
            assert_disk(&rig, spec, &model);
        }
    });
}

/// The whole disk is as the model says.
#[track_caller]
pub(super) fn assert_disk(rig: &Rig, spec: Spec, model: &[u8]) {
    let step = (1 << 20) / u64::from(spec.block_size);
    for (index, expected) in model.chunks(1 << 20).enumerate() {
        let blocks = expected.len() as u64 / u64::from(spec.block_size);
        let found = rig.read(index as u64 * step, blocks).expect("in range");
        assert_same(&found, expected, &format!("MiB {index} of the disk"));
    }
}

/// Memory in any number of pieces at any address serves as well as one aligned piece.
pub fn scattered_memory(maker: Maker) {
    each(maker, 8, |subject, spec| {
        let rig = Rig::new(&subject.bdev);
        let size = spec.block_size as usize;
        // (bytes in all, length of a piece, distance between pieces, offset of the first)
        let shapes = [
            (4096, 4096, 0, 1),
            (4096, 4096, 0, 4),
            (4096, 4096, 0, 511),
            (4096, 4096, 0, 512),
            (8192, 512, 1024, 0),
            (8192, 512, 700, 100),
            (8192, 100, 300, 3),
            (4096, 1, 2, 0),
            (1 << 20, 4096, 8192, 0),
            (1 << 20, 4096, 8192, 2048),
            (1 << 20, 65536, 131_072, 7),
            (1 << 20, 512, 1024, 0),
            (1 << 20, 513, 1024, 1),
            ((1 << 20) + 4096, 300_000, 300_001, 5),
        ];
        for (index, (total, len, distance, first)) in shapes.into_iter().enumerate() {
            let mut pieces = Vec::new();
            let (mut left, mut at) = (total, first);
            while left > 0 {
                let piece = len.min(left);
                pieces.push((at, piece));
                left -= piece;
                at += distance.max(len);
            }
            let data = pattern(index as u64, total);
            let mut rest = &data[..];
            for (at, len) in &pieces {
                rig.put(*at, &rest[..*len]);
                rest = &rest[*len..];
            }
            let blocks = (total / size) as u64;
            let request = |kind, pieces| Request {
                pieces,
                ..Request::new(kind, 5, blocks, (0, 0))
            };
            let what = format!("{total} bytes in pieces of {len} every {distance} from {first}");
            let written = rig.run(request(IoKind::Write, pieces.clone()));
            assert_eq!(written, IoStatus::Ok, "{what}");
            if !subject.keeps_data() {
                continue;
            }
            assert_same(&rig.read(5, blocks).expect("in range"), &data, &what);
            rig.put(0, &vec![0xee; at + 4096]);
            let read = rig.run(request(IoKind::Read, pieces.clone()));
            assert_eq!(read, IoStatus::Ok, "{what}");
            let mut expected = vec![0xee; at + 4096];
            let mut rest = &data[..];
            for (at, len) in &pieces {
                expected[*at..at + len].copy_from_slice(&rest[..*len]);
                rest = &rest[*len..];
            }
            assert_same(&rig.get(0, at + 4096), &expected, &what);
        }
    });
}

/// Hundreds of requests of all kinds, one after the other, leave the disk as a model in memory says.
pub fn random_work(maker: Maker) {
    each(maker, 4, |subject, spec| {
        if !subject.keeps_data() {
            return;
        }
        let rig = Rig::new(&subject.bdev);
        let size = spec.block_size as usize;
        let zeroes = subject.features().contains(Features::UNMAP_ZEROES);
        let mut model = vec![0; spec.len() as usize];
        let mut random = Random(u64::from(spec.block_size) + 1);
        for round in 0..400 {
            let most = 1 << random.below(8);
            let blocks = 1 + random.below(most);
            let lba = random.below(spec.num_blocks - blocks);
            let at = lba as usize * size;
            let range = at..at + blocks as usize * size;
            let what = format!("round {round}: {blocks} blocks at {lba}");
            let fua = random.below(4) == 0;
            match random.below(10) {
                0..4 => {
                    let data = pattern(round, range.len());
                    let place = random.below(4096) as usize;
                    rig.put(place, &data);
                    let request = Request::new(IoKind::Write, lba, blocks, (place, data.len()));
                    let status = rig.run(Request { fua, ..request });
                    assert_eq!(status, IoStatus::Ok, "{what}");
                    model[range].copy_from_slice(&data);
                }
                4..7 => assert_same(
                    &rig.read(lba, blocks).expect("in range"),
                    &model[range],
                    &what,
                ),
                7 => {
                    let status = rig.command(IoKind::WriteZeroes, lba, blocks, fua);
                    assert_eq!(status, IoStatus::Ok, "{what}");
                    model[range].fill(0);
                }
                8 if zeroes => {
                    let status = rig.command(IoKind::Unmap, lba, blocks, fua);
                    assert_eq!(status, IoStatus::Ok, "{what}");
                    model[range].fill(0);
                }
                _ => assert_eq!(rig.command(IoKind::Flush, 0, 0, false), IoStatus::Ok),
            }
        }
        assert_disk(&rig, spec, &model);
    });
}
