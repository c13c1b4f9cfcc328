use super::*;

#[test]
fn counting_adds_up() {
    let counters = Counters::of_product("Null disk");
    counters.count(IoKind::Read, 4096, 100, 0);
    counters.count(IoKind::Read, 512, 30, 0);
    counters.count(IoKind::Unmap, 1 << 40, 7, 0);
    counters.count_failure(IoStatus::NoSpace);
    let mut stats = counters.snapshot();
    assert_eq!((stats.read.ops, stats.read.bytes), (2, 4608));
    assert_eq!(stats.read.latency_ticks, 130);
    assert_eq!(
        (stats.read.min_latency_ticks, stats.read.max_latency_ticks),
        (30, 100)
    );
    assert_eq!(stats.unmap.bytes, 1 << 40);
    assert_eq!(stats.write, OpStats::default());
    assert_eq!(stats.failures.total(), 1);

    let elsewhere = Counters::of_product("Null disk");
    elsewhere.count(IoKind::Read, 1, 5, 0);
    elsewhere.count(IoKind::Flush, 0, 1, 0);
    stats.add(&elsewhere.snapshot());
    assert_eq!((stats.read.ops, stats.read.min_latency_ticks), (3, 5));
    assert_eq!(stats.flush.ops, 1);
}

#[test]
fn resets_forget_what_they_are_told_to() {
    let counters = Counters::of_product("Null disk");
    let fill = || {
        counters.count(IoKind::Write, 10, 10, 0);
        counters.count_failure(IoStatus::NoSpace);
    };
    fill();
    counters.reset(StatsReset::MaxMin);
    let stats = counters.snapshot();
    assert_eq!((stats.write.ops, stats.failures.total()), (1, 1));
    assert_eq!(
        (stats.write.min_latency_ticks, stats.write.max_latency_ticks),
        (u64::MAX, 0)
    );
    counters.reset(StatsReset::Errors);
    assert_eq!(
        (
            counters.snapshot().write.ops,
            counters.snapshot().failures.failed
        ),
        (1, 0)
    );
    fill();
    counters.reset(StatsReset::All);
    assert_eq!(counters.snapshot(), IoStats::default());
}
