use guest_memory::SharedMemory;
use guest_memory::{Access, DmaMap, MapView, Region};

use super::super::bounce::MOST;
use super::*;
use crate::disk::Make;
use crate::test_reactor::on_reactor;

const BLOCK: u64 = 512;
const BLOCKS: u64 = 8192;
const DIRECT: Option<Align> = Some(Align {
    memory: 512,
    offset: 512,
});

/// A channel of a disk with these properties, and its user's memory. No operation of these tests ever reaches the ring.
struct Bench {
    channel: UringChannel,
    view: MapView,
    memory: SharedMemory,
}

fn bench(cx: &mut Cx, align: Option<Align>, unmap: Unmap, features: Features) -> Bench {
    let disk = Disk::new(Make {
        name: "d".into(),
        product_name: "test",
        uuid: None,
        block_size: BLOCK as u32,
        physical_block_size: None,
        num_blocks: BLOCKS,
        features,
    });
    let opened = Opened {
        fd: tempfile::tempfile().unwrap().into(),
        num_blocks: BLOCKS,
        block_size: BLOCK as u32,
        physical_block_size: BLOCK as u32,
        features,
        unmap,
        align,
        notes: Vec::new(),
    };
    let shared = Shared::new(disk.unwrap(), opened, "/a/file".into());
    let file = cx.register_file(Arc::clone(&shared.fd)).unwrap();
    let memory = SharedMemory::new(c"test", 8 << 20).unwrap();
    let region = Region {
        iova: 0,
        len: 8 << 20,
        access: Access::READ | Access::WRITE,
        backing: Some(Arc::clone(memory.mapping())),
    };
    Bench {
        channel: UringChannel::new(Arc::new(shared), file),
        view: MapView::new(DmaMap::empty().with(region).unwrap()),
        memory,
    }
}

fn with_bench(align: Option<Align>, unmap: Unmap, body: impl FnOnce(&mut Bench) + Send + 'static) {
    on_reactor(move |reactor| {
        let all = Features::WRITE | Features::UNMAP | Features::WRITE_CACHE;
        let mut bench = bench(reactor.cx(), align, unmap, all);
        body(&mut bench);
        assert!(bench.channel.side.is_empty(), "nothing is left behind");
        assert_eq!(bench.channel.pool.out(), 0, "no buffer is left behind");
    });
}

impl Bench {
    fn io(&self, kind: IoKind, lba: u64, blocks: u64, at: u64) -> Io {
        let mut segments = Segments::new();
        if matches!(kind, IoKind::Read | IoKind::Write | IoKind::Compare) {
            let len = (blocks * BLOCK) as usize;
            self.view
                .push(&mut segments, at, len, Access::READ)
                .unwrap();
        }
        Io {
            kind,
            lba,
            blocks,
            segments,
            fua: false,
        }
    }

    #[track_caller]
    fn begin(&mut self, tag: u64, io: Io) -> Op {
        match self.channel.begin(tag, io) {
            Begin::Submit(op) => op,
            other => panic!("an operation was expected: {other:?}"),
        }
    }

    #[track_caller]
    fn goes_on(&mut self, tag: u64, op: Op, result: Result<u32, Errno>) -> Op {
        match self.channel.step(tag, op, result) {
            Next::Submit(op) => op,
            other => panic!("an operation was expected: {other:?}"),
        }
    }

    #[track_caller]
    fn ends(&mut self, tag: u64, op: Op, result: Result<u32, Errno>) -> IoStatus {
        match self.channel.step(tag, op, result) {
            Next::Done(status) => status,
            other => panic!("an end was expected: {other:?}"),
        }
    }
}

/// Offset, length and number of segments of a read or write.
#[track_caller]
fn transfer(op: &Op) -> (u64, usize, usize) {
    match op {
        Op::Read {
            offset, segments, ..
        }
        | Op::Write {
            offset, segments, ..
        } => (*offset, segments.len(), segments.count()),
        other => panic!("a transfer was expected: {other:?}"),
    }
}

fn is_sync(op: &Op) -> bool {
    matches!(op, Op::Fdatasync { .. })
}

#[test]
fn a_flush_is_an_fdatasync() {
    with_bench(DIRECT, Unmap::Never, |bench| {
        let op = bench.begin(1, bench.io(IoKind::Flush, 0, 0, 0));
        assert!(is_sync(&op));
        assert_eq!(bench.ends(1, op, Ok(0)), IoStatus::Ok);
        let op = bench.begin(1, bench.io(IoKind::Flush, 0, 0, 0));
        let status = bench.ends(1, op, Err(Errno::EIO));
        assert_eq!(status, IoStatus::Failed(Errno::EIO));
    });
}

#[test]
fn only_fua_writes_are_durable_writes() {
    with_bench(DIRECT, Unmap::Never, |bench| {
        // Aligned and bounced.
        for (fua, at) in [(false, 0), (true, 0), (false, 1), (true, 1)] {
            let io = bench.io(IoKind::Write, 0, 8, at);
            let op = bench.begin(1, Io { fua, ..io });
            assert!(matches!(&op, Op::Write { durable, .. } if *durable == fua));
            assert_eq!(bench.ends(1, op, Ok(4096)), IoStatus::Ok);
        }
    });
}

#[test]
fn durable_clearing_ends_with_an_fdatasync() {
    with_bench(DIRECT, Unmap::PunchHole, |bench| {
        for kind in [IoKind::Unmap, IoKind::WriteZeroes] {
            let io = bench.io(kind, 8, 8, 0);
            let op = bench.begin(1, Io { fua: true, ..io });
            assert!(matches!(
                op,
                Op::Fallocate {
                    offset: 4096,
                    len: 4096,
                    ..
                }
            ));
            let op = bench.goes_on(1, op, Ok(0));
            assert!(is_sync(&op));
            assert_eq!(bench.ends(1, op, Ok(0)), IoStatus::Ok);
            let op = bench.begin(1, bench.io(kind, 8, 8, 0));
            assert_eq!(bench.ends(1, op, Ok(0)), IoStatus::Ok, "not durable");
        }
    });
}

#[test]
fn memory_that_fits_is_used_as_it_is() {
    with_bench(DIRECT, Unmap::Never, |bench| {
        let io = bench.io(IoKind::Read, 3, 16, 1024);
        let address = io.segments.iovecs()[0].iov_base;
        let op = bench.begin(1, io);
        assert_eq!(transfer(&op), (3 * BLOCK, 8192, 1));
        let segments = op.into_segments().unwrap();
        assert_eq!(segments.iovecs()[0].iov_base, address);
    });
    with_bench(None, Unmap::Never, |bench| {
        let io = bench.io(IoKind::Read, 3, 1, 13);
        let address = io.segments.iovecs()[0].iov_base;
        let op = bench.begin(1, io);
        let segments = op.into_segments().unwrap();
        assert_eq!(segments.iovecs()[0].iov_base, address, "the page cache");
    });
}

#[test]
fn too_many_segments_pass_through_a_buffer() {
    with_bench(None, Unmap::Never, |bench| {
        for (segments, bounces) in [(1024, false), (1025, true)] {
            let mut io = bench.io(IoKind::Read, 0, segments, 0);
            io.segments = Segments::new();
            for index in 0..segments {
                let at = index * 1024;
                bench
                    .view
                    .push(&mut io.segments, at, BLOCK as usize, Access::WRITE)
                    .unwrap();
            }
            let op = bench.begin(1, io);
            assert_eq!(transfer(&op).2 == 1, bounces);
            let status = bench.ends(1, op, Err(Errno::EIO));
            assert_eq!(status, IoStatus::Failed(Errno::EIO));
        }
    });
}

#[test]
fn short_transfers_go_on_where_they_stopped() {
    with_bench(DIRECT, Unmap::Never, |bench| {
        for kind in [IoKind::Read, IoKind::Write] {
            let op = bench.begin(1, bench.io(kind, 8, 32, 0));
            let op = bench.goes_on(1, op, Ok(4096));
            assert_eq!(transfer(&op), (8192, 12288, 1));
            // Inside a block: direct I/O cannot go on there.
            let op = bench.goes_on(1, op, Ok(1000));
            assert_eq!(transfer(&op), (8192 + 512, 12288 - 512, 1));
            assert_eq!(bench.ends(1, op, Ok(12288 - 512)), IoStatus::Ok);
        }
    });
    with_bench(None, Unmap::Never, |bench| {
        let op = bench.begin(1, bench.io(IoKind::Write, 0, 8, 0));
        let op = bench.goes_on(1, op, Ok(1));
        assert_eq!(transfer(&op), (1, 4095, 1));
        assert_eq!(bench.ends(1, op, Ok(4095)), IoStatus::Ok);
    });
}

#[test]
fn a_file_that_ends_early_is_out_of_range_until_it_is_rescanned() {
    with_bench(DIRECT, Unmap::Never, |bench| {
        for moved in [0, 100] {
            let op = bench.begin(1, bench.io(IoKind::Read, 8, 8, 0));
            assert_eq!(bench.ends(1, op, Ok(moved)), IoStatus::OutOfRange);
            assert!(bench.channel.shared.shrunk.load(Ordering::Relaxed));
        }
        let op = bench.begin(1, bench.io(IoKind::Write, 8, 8, 0));
        let status = bench.ends(1, op, Ok(0));
        assert_eq!(status, IoStatus::Failed(Errno::EIO));
        // Through a buffer too, and the buffer comes back.
        let op = bench.begin(1, bench.io(IoKind::Read, 8, 8, 1));
        assert_eq!(bench.ends(1, op, Ok(0)), IoStatus::OutOfRange);
    });
}

#[test]
fn not_now_is_asked_again_but_not_for_ever() {
    with_bench(DIRECT, Unmap::PunchHole, |bench| {
        let requests = [
            (IoKind::Read, 0, 4096),
            (IoKind::Write, 3, 4096),
            (IoKind::Flush, 0, 0),
            (IoKind::Unmap, 0, 0),
        ];
        for (kind, at, moved) in requests {
            for errno in [Errno::EAGAIN, Errno::EINTR] {
                let mut op = bench.begin(1, bench.io(kind, 0, 8, at));
                for _ in 0..RETRIES {
                    op = bench.goes_on(1, op, Err(errno));
                }
                assert_eq!(bench.ends(1, op, Ok(moved)), IoStatus::Ok);
                let mut op = bench.begin(1, bench.io(kind, 0, 8, at));
                for _ in 0..RETRIES {
                    op = bench.goes_on(1, op, Err(errno));
                }
                let status = bench.ends(1, op, Err(errno));
                assert_eq!(status, IoStatus::Failed(Errno::EAGAIN));
            }
        }
    });
}

#[test]
fn errors_of_the_kernel_have_their_status() {
    with_bench(DIRECT, Unmap::PunchHole, |bench| {
        for (errno, status) in [
            (Errno::EIO, IoStatus::Failed(Errno::EIO)),
            (Errno::EREMOTEIO, IoStatus::Failed(Errno::EREMOTEIO)),
            (Errno::ENOSPC, IoStatus::NoSpace),
            (Errno::EDQUOT, IoStatus::NoSpace),
            (Errno::EFAULT, IoStatus::BadMemory),
            (Errno::EROFS, IoStatus::ReadOnly),
        ] {
            // Directly, through a buffer, and without data.
            for (kind, at) in [
                (IoKind::Write, 0),
                (IoKind::Write, 1),
                (IoKind::Compare, 0),
                (IoKind::Unmap, 0),
            ] {
                let op = bench.begin(1, bench.io(kind, 0, 8, at));
                assert_eq!(bench.ends(1, op, Err(errno)), status);
            }
        }
    });
}

#[test]
fn long_unaligned_requests_go_piece_by_piece() {
    with_bench(DIRECT, Unmap::Never, |bench| {
        let len = 2 * BUFFER + 512;
        let data: Vec<u8> = (0..len).map(|index| (index % 251) as u8).collect();
        assert!(bench.memory.write_slice(1, &data));
        let blocks = len as u64 / BLOCK;
        let op = bench.begin(1, bench.io(IoKind::Write, 1, blocks, 1));
        assert_eq!(transfer(&op), (512, BUFFER, 1));
        let op = bench.goes_on(1, op, Ok(BUFFER as u32));
        assert_eq!(transfer(&op), (512 + BUFFER as u64, BUFFER, 1));
        // Short inside a piece.
        let op = bench.goes_on(1, op, Ok(BUFFER as u32 - 512));
        assert_eq!(transfer(&op), (2 * BUFFER as u64, 512, 1));
        let op = bench.goes_on(1, op, Ok(512));
        assert_eq!(transfer(&op), (512 + 2 * BUFFER as u64, 512, 1));
        if let Op::Write { segments, .. } = &op {
            assert!(segments.matches(0, &data[2 * BUFFER..]));
        }
        assert_eq!(bench.ends(1, op, Ok(512)), IoStatus::Ok);
    });
}

#[test]
fn a_compare_ends_at_the_first_piece_that_differs() {
    with_bench(DIRECT, Unmap::Never, |bench| {
        let blocks = 3 * BUFFER as u64 / BLOCK;
        let disk = |op: &Op, byte| {
            if let Op::Read { segments, .. } = op {
                segments.copy_from_slice(0, &vec![byte; BUFFER]);
            }
        };
        let op = bench.begin(1, bench.io(IoKind::Compare, 0, blocks, 0));
        disk(&op, 0);
        let op = bench.goes_on(1, op, Ok(BUFFER as u32));
        disk(&op, 1);
        let status = bench.ends(1, op, Ok(BUFFER as u32));
        assert_eq!(status, IoStatus::Miscompare);
    });
}

#[test]
fn a_request_that_found_no_room_comes_back_whole() {
    with_bench(DIRECT, Unmap::PunchHole, |bench| {
        for (kind, at) in [
            (IoKind::Read, 0),
            (IoKind::Write, 5),
            (IoKind::Compare, 0),
            (IoKind::Unmap, 0),
            (IoKind::Flush, 0),
        ] {
            let io = bench.io(kind, 0, 1000, at);
            let len = io.segments.len();
            let address = io.segments.iovecs().first().map(|first| first.iov_base);
            let op = bench.begin(1, io);
            let segments = bench.channel.undo(1, op);
            assert_eq!(segments.len(), len);
            let found = segments.iovecs().first().map(|first| first.iov_base);
            assert_eq!(found, address);
        }
    });
}

#[test]
fn bounce_memory_is_bounded() {
    with_bench(DIRECT, Unmap::Never, |bench| {
        let mut ops = Vec::new();
        for tag in 0..MOST as u64 {
            ops.push((tag, bench.begin(tag, bench.io(IoKind::Write, 0, 8, 1))));
        }
        let refused = bench.channel.begin(99, bench.io(IoKind::Write, 0, 8, 1));
        assert!(matches!(refused, Begin::Full(Io { blocks: 8, .. })));
        // Aligned requests need no buffer.
        let op = bench.begin(99, bench.io(IoKind::Write, 0, 8, 0));
        assert_eq!(bench.ends(99, op, Ok(4096)), IoStatus::Ok);
        for (tag, op) in ops {
            assert_eq!(bench.ends(tag, op, Ok(4096)), IoStatus::Ok);
        }
    });
}

fn mode(op: &Op) -> Option<FallocateMode> {
    match op {
        Op::Fallocate { mode, .. } => Some(*mode),
        _ => None,
    }
}

#[test]
fn zeroes_are_made_by_the_best_means_that_works() {
    with_bench(DIRECT, Unmap::PunchHole, |bench| {
        let blocks = 2 * BUFFER as u64 / BLOCK + 1;
        let zeroes = |bench: &Bench| Io {
            fua: true,
            ..bench.io(IoKind::WriteZeroes, 2, blocks, 0)
        };
        let op = bench.begin(1, zeroes(bench));
        assert_eq!(mode(&op), Some(FallocateMode::ZeroRange));
        let op = bench.goes_on(1, op, Err(Errno::EOPNOTSUPP));
        assert_eq!(mode(&op), Some(FallocateMode::PunchHole));
        let op = bench.goes_on(1, op, Err(Errno::EOPNOTSUPP));
        assert_eq!(transfer(&op), (1024, BUFFER, 1));
        let op = bench.goes_on(1, op, Ok(BUFFER as u32));
        assert_eq!(transfer(&op), (1024 + BUFFER as u64, BUFFER, 1));
        let op = bench.goes_on(1, op, Ok(512));
        assert_eq!(transfer(&op), (1536 + BUFFER as u64, BUFFER - 512, 1));
        let op = bench.goes_on(1, op, Ok(BUFFER as u32 - 512));
        assert_eq!(transfer(&op), (1024 + 2 * BUFFER as u64, 512, 1));
        if let Op::Write { segments, .. } = &op {
            assert!(segments.matches(0, &[0; 512]));
        }
        let op = bench.goes_on(1, op, Ok(512));
        assert!(is_sync(&op), "durable once, at the end");
        assert_eq!(bench.ends(1, op, Ok(0)), IoStatus::Ok);

        // What was refused once is not asked again; unmapping promised zeroes, so it writes them.
        let op = bench.begin(1, bench.io(IoKind::Unmap, 0, 8, 0));
        assert_eq!(transfer(&op), (0, 4096, 1));
        assert_eq!(bench.ends(1, op, Ok(4096)), IoStatus::Ok);
    });
}

#[test]
fn zeroes_written_come_from_a_clean_buffer() {
    with_bench(DIRECT, Unmap::Never, |bench| {
        assert!(bench.memory.write_slice(1, &[0xff; 4096]));
        let op = bench.begin(1, bench.io(IoKind::Write, 0, 8, 1));
        assert_eq!(bench.ends(1, op, Ok(4096)), IoStatus::Ok);
        bench
            .channel
            .shared
            .no_zero_range
            .store(true, Ordering::Relaxed);
        let op = bench.begin(1, bench.io(IoKind::WriteZeroes, 0, 8, 0));
        match &op {
            Op::Write { segments, .. } => assert!(segments.matches(0, &[0; 4096])),
            other => panic!("a write was expected: {other:?}"),
        }
        assert_eq!(bench.ends(1, op, Ok(4096)), IoStatus::Ok);
    });
}

#[test]
fn a_file_without_holes_gets_none() {
    with_bench(DIRECT, Unmap::Never, |bench| {
        let op = bench.begin(1, bench.io(IoKind::WriteZeroes, 0, 8, 0));
        assert_eq!(mode(&op), Some(FallocateMode::ZeroRange));
        let op = bench.goes_on(1, op, Err(Errno::EOPNOTSUPP));
        assert_eq!(transfer(&op), (0, 4096, 1));
        assert_eq!(bench.ends(1, op, Ok(4096)), IoStatus::Ok);
    });
}

#[test]
fn zeroes_wait_for_a_buffer() {
    with_bench(DIRECT, Unmap::Never, |bench| {
        let mut ops = Vec::new();
        for tag in 0..MOST as u64 {
            ops.push((tag, bench.begin(tag, bench.io(IoKind::Write, 0, 8, 1))));
        }
        let op = bench.begin(99, bench.io(IoKind::WriteZeroes, 0, 8, 0));
        let Next::Wait(op) = bench.channel.step(99, op, Err(Errno::EOPNOTSUPP)) else {
            panic!("no buffer is free")
        };
        let full = bench
            .channel
            .begin(98, bench.io(IoKind::WriteZeroes, 0, 8, 0));
        assert!(matches!(full, Begin::Full(_)));
        for (tag, op) in ops {
            assert_eq!(bench.ends(tag, op, Ok(4096)), IoStatus::Ok);
        }
        let op = bench.goes_on(99, op, Err(Errno::EOPNOTSUPP));
        assert_eq!(transfer(&op), (0, 4096, 1));
        assert_eq!(bench.ends(99, op, Ok(4096)), IoStatus::Ok);
    });
}

#[test]
fn devices_discard_or_say_that_they_do_not() {
    with_bench(DIRECT, Unmap::Discard, |bench| {
        let op = bench.begin(1, bench.io(IoKind::Unmap, 8, 16, 0));
        assert!(matches!(
            op,
            Op::Discard {
                offset: 4096,
                len: 8192,
                ..
            }
        ));
        assert_eq!(bench.ends(1, op, Ok(0)), IoStatus::Ok);
        let op = bench.begin(1, bench.io(IoKind::Unmap, 8, 16, 0));
        let status = bench.ends(1, op, Err(Errno::EOPNOTSUPP));
        assert_eq!(status, IoStatus::Unsupported);
        let refused = bench.channel.begin(1, bench.io(IoKind::Unmap, 8, 16, 0));
        assert!(matches!(refused, Begin::Done(IoStatus::Unsupported)));
        let op = bench.begin(1, bench.io(IoKind::WriteZeroes, 8, 16, 0));
        assert_eq!(mode(&op), Some(FallocateMode::ZeroRange));
        assert_eq!(bench.ends(1, op, Ok(0)), IoStatus::Ok);
    });
}
