use std::collections::VecDeque;
use std::sync::Arc;

use guest_memory::{HostBuffer, Segments};

use super::*;
use crate::null::{self, NullOptions};
use crate::test_reactor::on_reactor;
use crate::{
    Bdev, BdevInfo, DriverValue, Features, IoStats, Limiter, RateLimits, StatsReset, local_stats,
    reset_local_stats,
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

/// A load on one channel that keeps its requests' places, and what it was answered.
struct Guest {
    channel: Box<dyn Channel>,
    io: fn() -> Io,
    free: Vec<u64>,
    /// How many have ended, for others to see.
    ended: Arc<std::sync::atomic::AtomicU64>,
    /// When to tell how many.
    until: u64,
    report: Option<Box<dyn FnOnce(u64) + Send>>,
    expedite: bool,
}

impl Guest {
    fn ended(&mut self, tag: u64, status: IoStatus) {
        assert_eq!(status, IoStatus::Ok);
        self.free.push(tag);
        let ended = self.ended.load(std::sync::atomic::Ordering::Relaxed) + 1;
        self.ended
            .store(ended, std::sync::atomic::Ordering::Relaxed);
    }
}

impl reactor::Poller for Guest {
    fn name(&self) -> String {
        "guest".to_owned()
    }

    fn poll(&mut self, cx: &mut Cx) -> reactor::Poll {
        if std::mem::take(&mut self.expedite) {
            self.channel.expedite(cx, None);
        }
        let mut is_limited = true;
        for _ in 0..self.free.len() {
            let Some(tag) = self.free.pop() else { break };
            match self.channel.submit(cx, tag, (self.io)()) {
                Submitted::Done(status) => {
                    is_limited = false;
                    self.ended(tag, status);
                }
                Submitted::Queued => {}
                Submitted::Full(_) => unreachable!("null disks have room"),
            }
        }
        // All wait: what was due by now has gone in this pass, so counts and clock belong together, however late the pass is.
        if is_limited
            && cx.now() >= self.until
            && let Some(report) = self.report.take()
        {
            report(cx.now());
        }
        reactor::Poll::Busy
    }

    fn event(&mut self, cx: &mut Cx, event: reactor::Event) {
        if let reactor::Event::Complete { tag, op, result } = event
            && let Finished::Done(status) = self.channel.finish(cx, tag, op, result)
        {
            self.ended(tag, status);
        }
    }

    fn idle(&self) -> reactor::Idle {
        reactor::Idle::UntilEvent
    }
}

/// Runs loads of one kind of request on two reactors under limits for a second; what went, of how much time.
fn limited(limits: RateLimits, io: fn() -> Io, depth: u64) -> (u64, f64) {
    use std::sync::atomic::{AtomicU64, Ordering};
    let bdev = null_disk();
    let limiter = Limiter::new(&limits);
    let counts: [Arc<AtomicU64>; 2] = Default::default();
    let (sender, receiver) = std::sync::mpsc::channel();
    let reactors: Vec<_> = (0..2)
        .map(|_| reactor::spawn(reactor::Config::default()).unwrap())
        .collect();
    for (at, (handle, _)) in reactors.iter().enumerate() {
        let (bdev, limiter, all) = (Arc::clone(&bdev), limiter.clone(), counts.clone());
        let sender = sender.clone();
        handle.send(move |reactor| {
            let cx = reactor.cx();
            crate::set_local_limits(&bdev, cx, limiter);
            let start = ticks();
            let first: u64 = all.iter().map(|it| it.load(Ordering::Relaxed)).sum();
            let ended = Arc::clone(&all[at]);
            let report = move |now: u64| {
                let went: u64 = all.iter().map(|it| it.load(Ordering::Relaxed)).sum();
                let passed = (now - start) as f64 / reactor::tick_rate() as f64;
                let _ = sender.send((went - first, passed));
            };
            let channel = open(&bdev, cx).unwrap();
            reactor.add_poller(Box::new(Guest {
                channel,
                io,
                free: (0..depth).collect(),
                ended,
                until: start + reactor::tick_rate(),
                report: (at == 0).then(|| Box::new(report) as _),
                expedite: false,
            }));
        });
    }
    let found = receiver
        .recv_timeout(std::time::Duration::from_secs(60))
        .unwrap();
    for (handle, thread) in reactors {
        handle.stop();
        thread.join().unwrap();
    }
    found
}

/// By the ticks that have really passed, whatever the machine is doing besides.
#[test]
fn a_second_under_limits_is_exact_to_three_per_cent() {
    let limits = |ios, mbytes| RateLimits {
        rw_ios_per_sec: ios,
        rw_mbytes_per_sec: mbytes,
        ..RateLimits::default()
    };
    let small: fn() -> Io = || io(IoKind::Read, 0, 8);
    let large: fn() -> Io = || io(IoKind::Write, 0, 64);
    let cases = [
        (limits(1000, 0), small, 1000.0),
        (limits(50_000, 0), small, 50_000.0),
        (limits(0, 100), small, 25_600.0),
        (limits(0, 200), large, 6400.0),
    ];
    for (limits, io, rate) in cases {
        let (went, passed) = limited(limits, io, 32);
        let part = went as f64 / (rate * passed);
        assert!(
            (0.97..=1.03).contains(&part),
            "{limits:?}: {went} in {passed} s"
        );
    }
}

#[test]
fn what_is_held_back_is_counted_and_let_go() {
    on_reactor(|reactor| {
        let cx = reactor.cx();
        let bdev = null_disk();
        let mut channel = open(&bdev, cx).unwrap();
        let limits = RateLimits {
            rw_ios_per_sec: 1,
            ..RateLimits::default()
        };
        crate::set_local_limits(&bdev, cx, Limiter::new(&limits));
        let done = channel.submit(cx, 0, io(IoKind::Read, 0, 1));
        assert!(matches!(done, Submitted::Done(IoStatus::Ok)));
        for tag in 1..=5 {
            let queued = channel.submit(cx, tag, io(IoKind::Write, 0, 1));
            assert!(matches!(queued, Submitted::Queued));
        }
        // Requests that move no data pass.
        for kind in [IoKind::Flush, IoKind::Unmap, IoKind::WriteZeroes] {
            let done = channel.submit(cx, 9, io(kind, 0, 1));
            assert!(matches!(done, Submitted::Done(IoStatus::Ok)));
        }
        let stats = local_stats(&bdev, cx);
        assert_eq!((stats.in_flight, stats.held), (5, 5));
        assert_eq!((stats.read.ops, stats.write.ops), (1, 0));

        // An early end of the wait changes nothing.
        let wait = || Op::Wait { until: 0 };
        let early = channel.finish(cx, 1, wait(), Ok(0));
        assert!(matches!(early, Finished::Queued));
        channel.expedite(cx, Some(3));
        let done = channel.finish(cx, 3, wait(), Ok(0));
        assert!(matches!(done, Finished::Done(IoStatus::Ok)));
        assert_eq!(local_stats(&bdev, cx).held, 4);
        // No limit any more: they go one after the other, in order.
        crate::set_local_limits(&bdev, cx, None);
        for tag in [1, 2, 4] {
            let done = channel.finish(cx, tag, wait(), Ok(0));
            assert!(matches!(done, Finished::Done(IoStatus::Ok)), "{tag}");
        }
        let stats = local_stats(&bdev, cx);
        assert_eq!((stats.in_flight, stats.held, stats.write.ops), (1, 1, 4));
        drop(channel);
        let stats = local_stats(&bdev, cx);
        assert_eq!((stats.in_flight, stats.held), (0, 0));
    });
}

#[test]
fn a_disk_without_room_is_tried_again_and_paid_once() {
    on_reactor(|reactor| {
        let cx = reactor.cx();
        let bdev: SharedBdev = Arc::new(Scripted);
        let mut channel = open(&bdev, cx).unwrap();
        let limits = RateLimits {
            rw_ios_per_sec: 1,
            ..RateLimits::default()
        };
        crate::set_local_limits(&bdev, cx, Limiter::new(&limits));
        // "queue", then "full", "queue".
        let queued = channel.submit(cx, 1, io(IoKind::Read, 0, 1));
        assert!(matches!(queued, Submitted::Queued));
        assert_eq!(local_stats(&bdev, cx).held, 0);
        let queued = channel.submit(cx, 2, io(IoKind::Read, 0, 1));
        assert!(matches!(queued, Submitted::Queued));
        assert_eq!(local_stats(&bdev, cx).held, 1);
        channel.expedite(cx, None);
        for held in [1, 0] {
            let queued = channel.finish(cx, 2, Op::Wait { until: 0 }, Ok(0));
            assert!(matches!(queued, Finished::Queued));
            assert_eq!(local_stats(&bdev, cx).held, held);
        }
    });
}

#[test]
fn a_reactor_lets_go_of_what_waits_when_the_limits_are_gone() {
    use std::sync::atomic::{AtomicU64, Ordering};
    let bdev = null_disk();
    let (handle, thread) = reactor::spawn(reactor::Config::default()).unwrap();
    let ended: Arc<AtomicU64> = Arc::default();
    let slow = RateLimits {
        rw_mbytes_per_sec: 1,
        ..RateLimits::default()
    };
    let patience = std::time::Duration::from_secs(60);
    let (disk, counter) = (Arc::clone(&bdev), Arc::clone(&ended));
    let limiter = Limiter::new(&slow);
    let begin = move |reactor: &mut reactor::Reactor| {
        crate::set_local_limits(&disk, reactor.cx(), limiter);
        let channel = open(&disk, reactor.cx()).unwrap();
        reactor.add_poller(Box::new(Guest {
            channel,
            // Half a second each.
            io: || io(IoKind::Write, 0, 1000),
            free: (0..100).collect(),
            ended: counter,
            until: u64::MAX,
            report: None,
            expedite: false,
        }));
    };
    handle.call(begin).wait(patience).unwrap();
    let asked = |change: Option<Option<Arc<Limiter>>>| {
        let disk = Arc::clone(&bdev);
        let ask = move |reactor: &mut reactor::Reactor| {
            if let Some(limiter) = change {
                crate::set_local_limits(&disk, reactor.cx(), limiter);
            }
            local_stats(&disk, reactor.cx())
        };
        handle.call(ask).wait(patience).unwrap()
    };
    while asked(None).held == 0 {
        std::thread::yield_now();
    }
    let slow = asked(None).write.ops;
    asked(Some(None));
    // At a MiB per second this would take an hour.
    while ended.load(Ordering::Relaxed) < slow + 10_000 {
        std::thread::yield_now();
    }
    handle.stop();
    thread.join().unwrap();
}
