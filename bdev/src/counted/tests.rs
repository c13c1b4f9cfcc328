use std::collections::VecDeque;
use std::sync::Arc;

use guest_memory::{HostBuffer, Segments};

use super::*;
use crate::null::{self, NullOptions};
use crate::test_reactor::on_reactor;
use crate::{
    Bdev, BdevInfo, DriverValue, Features, IoStats, StatsReset, local_stats, reset_local_stats,
};

fn null_disk() -> SharedBdev {
    null::create(NullOptions {
        name: "Null0".into(),
        block_size: 512,
        num_blocks: 1000,
        physical_block_size: None,
        uuid: None,
    })
    .unwrap()
}

fn io(kind: IoKind, lba: u64, blocks: u64) -> Io {
    let segments = match kind {
        IoKind::Read | IoKind::Write => Segments::from_host(HostBuffer::new(blocks as usize * 512)),
        _ => Segments::new(),
    };
    Io {
        kind,
        lba,
        blocks,
        segments,
        fua: false,
    }
}

#[test]
fn requests_that_end_at_once_are_counted() {
    let (stats, others) = on_reactor(|reactor| {
        let cx = reactor.cx();
        let (bdev, other) = (null_disk(), null_disk());
        let mut channel = open(&bdev, cx).unwrap();
        let mut run = |kind, lba, blocks, times| {
            for _ in 0..times {
                let submitted = channel.submit(cx, 1, io(kind, lba, blocks));
                assert!(matches!(submitted, Submitted::Done(_)));
            }
        };
        run(IoKind::Read, 1, 8, 100);
        run(IoKind::Write, 0, 1, 50);
        run(IoKind::Unmap, 0, 1000, 2);
        run(IoKind::WriteZeroes, 0, 10, 3);
        run(IoKind::Flush, 0, 0, 4);
        run(IoKind::Read, 1000, 1, 5);
        run(IoKind::Unmap, u64::MAX, u64::MAX, 1);
        (local_stats(&bdev, cx), local_stats(&other, cx))
    });
    assert_eq!((stats.read.ops, stats.read.bytes), (100, 100 * 4096));
    assert_eq!((stats.write.ops, stats.write.bytes), (50, 50 * 512));
    assert_eq!((stats.unmap.ops, stats.unmap.bytes), (2, 2 * 512_000));
    assert_eq!(
        (stats.write_zeroes.ops, stats.write_zeroes.bytes),
        (3, 3 * 5120)
    );
    assert_eq!((stats.flush.ops, stats.flush.bytes), (4, 0));
    assert_eq!(stats.failures.failed, 6);
    let read = stats.read;
    assert!(read.min_latency_ticks <= read.max_latency_ticks);
    assert!(read.latency_ticks >= read.min_latency_ticks * read.ops);
    assert!(read.latency_ticks <= read.max_latency_ticks * read.ops);
    assert_eq!(others, IoStats::default());
}

#[test]
fn closing_a_channel_loses_nothing() {
    on_reactor(|reactor| {
        let cx = reactor.cx();
        let bdev = null_disk();
        for round in 1..=3 {
            let mut channels = [open(&bdev, cx).unwrap(), open(&bdev, cx).unwrap()];
            for channel in &mut channels {
                channel.submit(cx, 0, io(IoKind::Read, 0, 1));
            }
            drop(channels);
            assert_eq!(local_stats(&bdev, cx).read.ops, 2 * round);
        }
        reset_local_stats(&bdev, cx, StatsReset::All);
        assert_eq!(local_stats(&bdev, cx), IoStats::default());
    });
}

#[test]
fn disks_that_are_gone_are_forgotten() {
    on_reactor(|reactor| {
        let cx = reactor.cx();
        for _ in 0..10 {
            let bdev = null_disk();
            open(&bdev, cx).unwrap();
            assert_eq!(local_stats(&bdev, cx), IoStats::default());
        }
        assert!(cx.local::<Registry>().len() <= 2);
    });
}

/// A disk whose channel answers from a script.
#[derive(Debug)]
struct Scripted;

struct ScriptedChannel(VecDeque<&'static str>);

impl Bdev for Scripted {
    fn info(&self) -> BdevInfo {
        BdevInfo {
            features: Features::WRITE,
            ..null_disk().info()
        }
    }

    fn open(&self, _: &mut Cx) -> Result<Box<dyn Channel>, BdevError> {
        let script = [
            "queue", "full", "queue", "done", "stall", "queue", "done", "fail",
        ];
        Ok(Box::new(ScriptedChannel(script.into())))
    }

    fn driver_specific(&self) -> Vec<(&'static str, DriverValue)> {
        Vec::new()
    }
}

impl ScriptedChannel {
    fn finished(&mut self, op: Op) -> Finished {
        match self.0.pop_front() {
            Some("done") => Finished::Done(IoStatus::Ok),
            Some("queue") => Finished::Queued,
            Some("stall") => Finished::Stalled(op),
            _ => Finished::Done(IoStatus::Failed(Errno::EIO)),
        }
    }
}

impl Channel for ScriptedChannel {
    fn submit(&mut self, _: &mut Cx, _: u64, io: Io) -> Submitted {
        match self.0.pop_front() {
            Some("queue") => Submitted::Queued,
            _ => Submitted::Full(io),
        }
    }

    fn finish(&mut self, _: &mut Cx, _: u64, op: Op, _: Result<u32, Errno>) -> Finished {
        self.finished(op)
    }

    fn resume(&mut self, _: &mut Cx, _: u64, op: Op) -> Finished {
        self.finished(op)
    }
}

#[test]
fn requests_in_the_ring_are_counted_when_they_end() {
    on_reactor(|reactor| {
        let file = tempfile::tempfile().unwrap();
        let cx = reactor.cx();
        let bdev: SharedBdev = Arc::new(Scripted);
        let mut channel = open(&bdev, cx).unwrap();
        let file = cx.register_file(Arc::new(file.into())).unwrap();
        let op = || Op::Fdatasync { file: file.clone() };
        let ops = |cx: &mut Cx| {
            let stats = local_stats(&bdev, cx);
            (stats.read.ops, stats.write.ops, stats.failures.failed)
        };

        let queued = channel.submit(cx, 7, io(IoKind::Read, 0, 4));
        assert!(matches!(queued, Submitted::Queued));
        let full = channel.submit(cx, 8, io(IoKind::Write, 0, 4));
        assert!(matches!(full, Submitted::Full(_)));
        let queued = channel.submit(cx, 9, io(IoKind::Write, 0, 2));
        assert!(matches!(queued, Submitted::Queued));
        assert_eq!(ops(cx), (0, 0, 0));
        let done = channel.finish(cx, 9, op(), Ok(0));
        assert!(matches!(done, Finished::Done(IoStatus::Ok)));
        assert_eq!(ops(cx), (0, 1, 0));
        let stalled = channel.finish(cx, 7, op(), Ok(0));
        assert!(matches!(stalled, Finished::Stalled(_)));
        let queued = channel.resume(cx, 7, op());
        assert!(matches!(queued, Finished::Queued));
        assert_eq!(ops(cx), (0, 1, 0));
        let done = channel.resume(cx, 7, op());
        assert!(matches!(done, Finished::Done(IoStatus::Ok)));
        assert_eq!(ops(cx), (1, 1, 0));
        assert_eq!(local_stats(&bdev, cx).read.bytes, 2048);
    });
}
