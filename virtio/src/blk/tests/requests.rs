//! What each request does, in any layout.

use std::sync::Arc;

use bdev::test_disk::TestDisk;
use bdev::{Features, IoKind, IoStatus};
use testkit::virtio::Buffer;
use testkit::virtio::blk::Parts;
use virtio_spec::blk::*;
use zerocopy::IntoBytes;

use super::rig::{Rig, USUAL, Vq, buffer, pattern};
use crate::blk::BlkConfig;

const ALL: Features = Features::all();

fn rig() -> (Rig, Arc<TestDisk>, Vq) {
    rig_with(512, ALL, BlkConfig::default())
}

fn rig_with(block: u32, features: Features, config: BlkConfig) -> (Rig, Arc<TestDisk>, Vq) {
    let blocks = (16u64 << 20) / u64::from(block);
    let disk = TestDisk::new(block, blocks, features);
    let rig = Rig::with(config, Some(disk.shared()), 1, USUAL);
    let vq = rig.queue(0, 128);
    (rig, disk, vq)
}

#[test]
fn what_is_written_is_read_back() {
    let (rig, disk, mut vq) = rig();
    let data = pattern(1, 8192);
    let (from, to) = (rig.alloc(8192), rig.alloc(8192));
    rig.ram.write(from, &data);
    assert_eq!(
        rig.run(&mut vq, T_OUT, 100, &[buffer(from, 8192)]),
        (S_OK, 1)
    );
    assert_eq!(disk.bytes(100 * 512, 8192), data);
    assert_eq!(
        rig.run(&mut vq, T_IN, 100, &[buffer(to, 8192)]),
        (S_OK, 8193)
    );
    assert_eq!(rig.ram.read(to, 8192), data);
    assert_eq!(
        disk.taken(),
        [
            (IoKind::Write, 100, 16, false),
            (IoKind::Read, 100, 16, false)
        ]
    );
}

/// A small generator of numbers: layouts need variety, not chance.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, end: u32) -> u32 {
        self.0 = self
            .0
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        (self.0 >> 33) as u32 % end
    }
}

#[test]
fn any_layout_will_do() {
    let (rig, disk, mut vq) = rig();
    let mut numbers = Numbers(7);
    for round in 0..200u32 {
        let sectors = 1 + numbers.below(16);
        let len = sectors as usize * 512;
        // Header and data in one piece, data and status in one piece: then cut wherever it pleases.
        let area = rig.ram.alloc(16 + len + 1, 1).unwrap();
        let kind = if round % 2 == 0 { T_OUT } else { T_IN };
        let sector = u64::from(numbers.below(1000));
        rig.set_header(area, kind, sector);
        let data = pattern(round as u8, len);
        let mut parts = if kind == T_OUT {
            rig.ram.write(area + 16, &data);
            Parts::plain(kind, area, &[buffer(area + 16, len)], rig.status())
        } else {
            disk.fill(sector * 512, &data);
            let status = area + 16 + len as u64;
            Parts::plain(kind, area, &[buffer(area + 16, len)], status)
        };
        parts.join();
        let cuts: Vec<u32> = (0..numbers.below(6))
            .map(|_| numbers.below(40 + len as u32))
            .collect();
        parts.cut(&cuts);
        let written = if kind == T_OUT { 1 } else { len as u32 + 1 };
        assert_eq!(rig.run_parts(&mut vq, &parts), (S_OK, written), "{cuts:?}");
        if kind == T_OUT {
            assert_eq!(disk.bytes(sector * 512, len), data, "{cuts:?}");
        } else {
            assert_eq!(rig.ram.read(area + 16, len), data, "{cuts:?}");
        }
    }
}

#[test]
fn small_requests_answer_by_themselves() {
    let config = BlkConfig {
        serial: "a serial number that is too long".to_owned(),
        ..BlkConfig::default()
    };
    let (rig, _disk, mut vq) = rig_with(512, ALL, config);
    let at = rig.alloc(64);
    assert_eq!(rig.run(&mut vq, T_GET_ID, 0, &[buffer(at, 20)]), (S_OK, 21));
    assert_eq!(rig.ram.read(at, 21), *b"a serial number that\0");
    // Longer than asked for, and shorter, each in pieces.
    rig.ram.write(at, &[0xff; 64]);
    let pieces = [buffer(at, 7), buffer(at + 7, 57)];
    assert_eq!(rig.run(&mut vq, T_GET_ID, 0, &pieces), (S_OK, 20));
    assert_eq!(rig.ram.read(at + 18, 4), [b'a', b't', 0xff, 0xff]);
    assert_eq!(rig.run(&mut vq, T_GET_ID, 0, &[buffer(at, 8)]), (S_OK, 9));

    rig.ram.write(at, &[0xff; 64]);
    assert_eq!(
        rig.run(&mut vq, T_GET_LIFETIME, 0, &[buffer(at, 6)]),
        (S_OK, 7)
    );
    assert_eq!(rig.ram.read(at, 7), [0, 0, 0, 0, 0, 0, 0xff]);
    assert_eq!(
        rig.run(&mut vq, T_GET_LIFETIME, 0, &[buffer(at, 5)]),
        (S_IOERR, 0)
    );
    // Nothing but a header and a status is enough for these.
    assert_eq!(rig.run(&mut vq, T_FLUSH, 0, &[]), (S_OK, 1));
    assert_eq!(rig.run(&mut vq, T_GET_ID, 0, &[]), (S_OK, 1));
    assert_eq!(rig.run(&mut vq, T_IN, 0, &[]), (S_OK, 1));
    assert_eq!(rig.run(&mut vq, T_OUT, 0, &[]), (S_OK, 1));
}

#[test]
fn an_unknown_type_is_not_supported() {
    let (rig, disk, mut vq) = rig();
    let at = rig.alloc(512);
    for kind in [
        2,
        3,
        5,
        9,
        15,
        16,
        18,
        T_SECURE_ERASE,
        0x8000_0000,
        u32::MAX,
    ] {
        assert_eq!(rig.run(&mut vq, kind, 0, &[buffer(at, 512)]), (S_UNSUPP, 1));
    }
    assert!(disk.taken().is_empty());
}

#[test]
fn what_was_not_negotiated_is_not_supported() {
    let disk = TestDisk::new(512, 100, ALL);
    let features = USUAL & !(feature::DISCARD | feature::WRITE_ZEROES | feature::LIFETIME);
    let rig = Rig::with(BlkConfig::default(), Some(disk.shared()), 1, features);
    let mut vq = rig.queue(0, 16);
    let at = rig.alloc(16);
    for kind in [T_DISCARD, T_WRITE_ZEROES, T_GET_LIFETIME] {
        assert_eq!(
            rig.run(&mut vq, kind, 0, &[buffer(at, 16)]),
            Rig::failure(S_UNSUPP, kind)
        );
    }
    rig.device(|blk, cx| crate::Device::set_features(blk, cx, USUAL));
    rig.ram.write(at, one(0, 8, 0).as_bytes());
    assert_eq!(rig.run(&mut vq, T_DISCARD, 0, &[buffer(at, 16)]), (S_OK, 1));
}

#[test]
fn ranges_outside_the_disk_or_its_blocks_are_errors() {
    let (rig, disk, mut vq) = rig_with(4096, ALL, BlkConfig::default());
    let at = rig.alloc(64 << 10);
    let end = (16 << 20) / 512;
    let cases = [
        // Sector, bytes.
        (0, 511),
        (0, 513),
        (0, 512),
        (0, 4095),
        (0, 4096 + 512),
        (1, 4096),
        (7, 4096),
        (end, 4096),
        (end - 8, 8192),
        (u64::MAX, 4096),
        (u64::MAX - 7, 4096),
        (u64::MAX / 8, 4096),
    ];
    for kind in [T_IN, T_OUT] {
        for (sector, len) in cases {
            let answer = rig.run(&mut vq, kind, sector, &[buffer(at, len)]);
            assert_eq!(answer, Rig::failure(S_IOERR, kind), "{kind} {sector} {len}");
        }
        let (status, _) = rig.run(&mut vq, kind, end - 8, &[buffer(at, 4096)]);
        assert_eq!(status, S_OK);
        let (status, _) = rig.run(&mut vq, kind, 8, &[buffer(at, 1), buffer(at + 1, 8191)]);
        assert_eq!(status, S_OK);
    }
    assert_eq!(disk.bytes(0, 4096), vec![0; 4096]);
}

#[test]
fn a_read_only_device_takes_no_writes() {
    let readonly = BlkConfig {
        readonly: true,
        ..BlkConfig::default()
    };
    for (features, config) in [
        (ALL, readonly),
        (ALL - Features::WRITE, BlkConfig::default()),
    ] {
        let (rig, disk, mut vq) = rig_with(512, features, config);
        let offered = rig.device(|blk, _| crate::Device::features(blk));
        let writing = feature::DISCARD | feature::WRITE_ZEROES | feature::CONFIG_WCE;
        assert_eq!(offered & (feature::RO | writing), feature::RO);
        let at = rig.alloc(512);
        disk.script(|script| script.fail = Some(IoStatus::ReadOnly));
        assert_eq!(rig.run(&mut vq, T_OUT, 0, &[buffer(at, 512)]), (S_IOERR, 1));
        rig.ram.write(at, one(0, 8, 0).as_bytes());
        assert_eq!(
            rig.run(&mut vq, T_WRITE_ZEROES, 0, &[buffer(at, 16)]),
            (S_IOERR, 1)
        );
        assert_eq!(
            rig.run(&mut vq, T_DISCARD, 0, &[buffer(at, 16)]),
            (S_IOERR, 1)
        );
        disk.script(|script| script.fail = None);
        assert_eq!(rig.run(&mut vq, T_IN, 0, &[buffer(at, 512)]), (S_OK, 513));
    }
}

#[test]
fn failures_of_the_disk_have_their_status() {
    let (rig, disk, mut vq) = rig();
    let at = rig.alloc(512);
    let cases = [
        (IoStatus::OutOfRange, S_IOERR),
        (IoStatus::Unsupported, S_UNSUPP),
        (IoStatus::ReadOnly, S_IOERR),
        (IoStatus::NoSpace, S_IOERR),
        (IoStatus::BadMemory, S_IOERR),
        (IoStatus::Failed(nix::errno::Errno::EIO), S_IOERR),
    ];
    for (cause, status) in cases {
        disk.script(|script| script.fail = Some(cause));
        assert_eq!(rig.run(&mut vq, T_IN, 0, &[buffer(at, 512)]), (status, 0));
    }
    disk.script(|script| (script.fail, script.gated) = (None, true));
    disk.release(1);
    assert_eq!(rig.run(&mut vq, T_IN, 0, &[buffer(at, 512)]), (S_OK, 513));
}

fn one(sector: u64, num_sectors: u32, flags: u32) -> Range {
    Range {
        sector,
        num_sectors,
        flags,
    }
}

/// Runs a request about ranges, its list cut in odd places.
fn run_ranges(rig: &Rig, vq: &mut Vq, kind: u32, ranges: &[Range]) -> (u8, u32) {
    let bytes = ranges.as_bytes();
    let at = rig.ram.alloc(bytes.len() + 1, 1).unwrap();
    rig.ram.write(at, bytes);
    let mut parts = rig.parts(kind, 0, &[buffer(at, bytes.len())]);
    parts.cut(&[16 + 5, 16 + 20]);
    rig.run_parts(vq, &parts)
}

#[test]
fn zeroes_and_discards_follow_their_ranges() {
    let (rig, disk, mut vq) = rig();
    disk.fill(0, &pattern(9, 64 << 10));
    let two = [one(2, 2, 0), one(8, 1, 0)];
    assert_eq!(run_ranges(&rig, &mut vq, T_WRITE_ZEROES, &two), (S_OK, 1));
    let expected = [
        (IoKind::WriteZeroes, 2, 2, false),
        (IoKind::WriteZeroes, 8, 1, false),
    ];
    assert_eq!(disk.taken(), expected);
    assert_eq!(disk.bytes(1024, 1024), vec![0; 1024]);
    assert_ne!(disk.bytes(2048, 512), vec![0; 512]);

    let unmap = [one(4, 1, RANGE_UNMAP), one(0, 0, RANGE_UNMAP)];
    assert_eq!(run_ranges(&rig, &mut vq, T_WRITE_ZEROES, &unmap), (S_OK, 1));
    assert_eq!(rig.run(&mut vq, T_DISCARD, 0, &[]), (S_IOERR, 1));
    assert_eq!(
        run_ranges(&rig, &mut vq, T_DISCARD, &[one(5, 1, 0)]),
        (S_OK, 1)
    );
    let expected = [
        (IoKind::Unmap, 4, 1, false),
        (IoKind::Unmap, 0, 0, false),
        (IoKind::Unmap, 5, 1, false),
    ];
    assert_eq!(disk.taken(), expected);
    let many: Vec<Range> = (0..256).map(|n| one(n, 1, 0)).collect();
    assert_eq!(run_ranges(&rig, &mut vq, T_DISCARD, &many), (S_OK, 1));
    assert_eq!(disk.taken().len(), 256);
    // The same through the ring.
    disk.script(|script| script.gated = true);
    disk.release(256);
    assert_eq!(run_ranges(&rig, &mut vq, T_DISCARD, &many), (S_OK, 1));
    assert_eq!(disk.taken().len(), 256);
}

#[test]
fn a_wrong_range_spoils_them_all() {
    let (rig, disk, mut vq) = rig();
    let end = (16u64 << 20) / 512;
    let good = one(0, 1, 0);
    let both = [
        (one(end, 1, 0), S_IOERR),
        (one(end - 1, 2, 0), S_IOERR),
        (one(u64::MAX, 1, 0), S_IOERR),
        (one(u64::MAX - 1, u32::MAX, 0), S_IOERR),
        (one(0, u32::MAX, 0), S_IOERR),
        (one(0, 1, 2), S_UNSUPP),
        (one(0, 1, 0x8000_0000), S_UNSUPP),
    ];
    for (bad, status) in both {
        for kind in [T_DISCARD, T_WRITE_ZEROES] {
            let answer = run_ranges(&rig, &mut vq, kind, &[good, bad]);
            assert_eq!(answer, (status, 1), "{bad:?}");
        }
    }
    // A discard is an unmap anyway: it must not say so.
    let answer = run_ranges(&rig, &mut vq, T_DISCARD, &[good, one(1, 1, RANGE_UNMAP)]);
    assert_eq!(answer, (S_UNSUPP, 1));
    let many: Vec<Range> = (0..257).map(|n| one(n, 1, 0)).collect();
    assert_eq!(run_ranges(&rig, &mut vq, T_DISCARD, &many), (S_IOERR, 1));
    let at = rig.alloc(64);
    for len in [1, 15, 17, 31] {
        assert_eq!(
            rig.run(&mut vq, T_DISCARD, 0, &[buffer(at, len)]),
            (S_IOERR, 1)
        );
    }
    assert_eq!(disk.taken(), []);
}

#[test]
fn ranges_are_whole_blocks() {
    let (rig, disk, mut vq) = rig_with(4096, ALL, BlkConfig::default());
    for bad in [one(1, 8, 0), one(0, 4, 0), one(8, 9, 0)] {
        for kind in [T_DISCARD, T_WRITE_ZEROES] {
            assert_eq!(run_ranges(&rig, &mut vq, kind, &[bad]), (S_IOERR, 1));
        }
    }
    assert_eq!(
        run_ranges(&rig, &mut vq, T_DISCARD, &[one(8, 16, 0)]),
        (S_OK, 1)
    );
    assert_eq!(disk.taken(), [(IoKind::Unmap, 1, 2, false)]);
}

#[test]
fn unmapping_is_no_way_to_zeroes_where_it_leaves_none() {
    let (rig, disk, mut vq) = rig_with(512, ALL - Features::UNMAP_ZEROES, BlkConfig::default());
    let range = [one(3, 1, RANGE_UNMAP)];
    assert_eq!(run_ranges(&rig, &mut vq, T_WRITE_ZEROES, &range), (S_OK, 1));
    assert_eq!(disk.taken(), [(IoKind::WriteZeroes, 3, 1, false)]);
    assert_eq!(rig.read_config().write_zeroes_may_unmap, 0);
}

#[test]
fn long_requests_go_in_steps() {
    let (rig, disk, mut vq) = rig_with(4096, ALL, BlkConfig::default());
    let len = 9 << 20;
    let (from, to) = (rig.alloc(len), rig.alloc(len));
    let data = pattern(5, len);
    rig.ram.write(from, &data);
    let header = rig.header(T_OUT, 8);
    // Steps end in the middle of buffers.
    let mut parts = Parts::plain(T_OUT, header, &[buffer(from, len)], rig.status());
    parts.cut(&[16 + 1000, 16 + (3 << 20) + 1, 16 + (8 << 20) + 77]);
    assert_eq!(rig.run_parts(&mut vq, &parts), (S_OK, 1));
    assert!(disk.bytes(4096, len) == data);
    assert!(disk.taken().len() >= 3);
    disk.script(|script| script.gated = true);
    disk.release(16);
    let answer = rig.run(&mut vq, T_IN, 8, &[buffer(to, len)]);
    assert_eq!(answer, (S_OK, len as u32 + 1));
    assert!(rig.ram.read(to, len) == data);
}

/// `count` buffers of `len` bytes that don't touch.
fn scattered(rig: &Rig, count: usize, len: usize) -> Vec<Buffer> {
    let stride = len.next_multiple_of(64) + 64;
    let at = rig.ram.alloc(count * stride, 64).unwrap();
    let each = |n| buffer(at + (n * stride) as u64, len);
    (0..count).map(each).collect()
}

fn put(rig: &Rig, buffers: &[Buffer], data: &[u8]) {
    let mut rest = data;
    for piece in buffers {
        let (now, later) = rest.split_at(piece.len as usize);
        rig.ram.write(piece.addr, now);
        rest = later;
    }
}

fn get(rig: &Rig, buffers: &[Buffer]) -> Vec<u8> {
    let read = |piece: &Buffer| rig.ram.read(piece.addr, piece.len as usize);
    buffers.iter().flat_map(read).collect()
}

#[test]
fn many_segments_work() {
    let config = BlkConfig {
        queue_size: 4096,
        ..BlkConfig::default()
    };
    let disk = TestDisk::new(4096, 4096, ALL);
    let rig = Rig::with(config, Some(disk.shared()), 1, USUAL);
    let mut vq = rig.queue(0, 4096);
    for (count, len) in [
        (126, 4096),
        (1022, 4096),
        (1024, 512),
        (2048, 512),
        (4000, 128 + 1024),
    ] {
        let bytes = count * len / 4096 * 4096;
        let mut buffers = scattered(&rig, count, len);
        // Whole blocks: what is too much is cut off the last ones.
        let mut rest = bytes;
        buffers.retain_mut(|piece| {
            piece.len = piece.len.min(rest as u32);
            rest -= piece.len as usize;
            piece.len > 0
        });
        let data = pattern(count as u8, bytes);
        put(&rig, &buffers, &data);
        assert_eq!(
            rig.run(&mut vq, T_OUT, 16, &buffers),
            (S_OK, 1),
            "{count} × {len}"
        );
        assert!(disk.bytes(8192, bytes) == data);
        put(&rig, &buffers, &vec![0; bytes]);
        let answer = rig.run(&mut vq, T_IN, 16, &buffers);
        assert_eq!(answer, (S_OK, bytes as u32 + 1));
        assert!(get(&rig, &buffers) == data);
    }
}

#[test]
fn files_take_any_memory() {
    let file = tempfile::NamedTempFile::new().unwrap();
    file.as_file().set_len(64 << 20).unwrap();
    let options = bdev::uring::UringOptions {
        block_size: Some(512),
        ..bdev::uring::UringOptions::new("file", file.path())
    };
    let disk = bdev::uring::create(options).unwrap();
    let rig = Rig::new(disk);
    let mut vq = rig.queue(0, 128);
    let len = 5 << 20;
    for odd in [0usize, 4, 1] {
        let (from, to) = (
            rig.alloc(len + 1) + odd as u64,
            rig.alloc(len + 1) + odd as u64,
        );
        let data = pattern(odd as u8, len);
        rig.ram.write(from, &data);
        let answer = rig.run(
            &mut vq,
            T_OUT,
            3,
            &[buffer(from, 4096), buffer(from + 4096, len - 4096)],
        );
        assert_eq!(answer, (S_OK, 1));
        assert_eq!(rig.run(&mut vq, T_FLUSH, 0, &[]), (S_OK, 1));
        let answer = rig.run(&mut vq, T_IN, 3, &[buffer(to, len)]);
        assert_eq!(answer, (S_OK, len as u32 + 1));
        assert!(rig.ram.read(to, len) == data);
        let on_disk = std::fs::read(file.path()).unwrap();
        assert!(on_disk[3 * 512..3 * 512 + len] == data);
    }
    assert_eq!(
        run_ranges(
            &rig,
            &mut vq,
            T_WRITE_ZEROES,
            &[one(3, 64, 0), one(99, 8, 0)]
        ),
        (S_OK, 1)
    );
    assert_eq!(
        run_ranges(&rig, &mut vq, T_DISCARD, &[one(1000, 64, 0)]),
        (S_OK, 1)
    );
    let on_disk = std::fs::read(file.path()).unwrap();
    assert!(on_disk[3 * 512..67 * 512].iter().all(|byte| *byte == 0));
    assert!(
        on_disk[1000 * 512..1064 * 512]
            .iter()
            .all(|byte| *byte == 0)
    );
}
