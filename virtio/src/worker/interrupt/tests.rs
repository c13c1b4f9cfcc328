use super::*;

fn pace(delay_us: u32, iops_threshold: u32) -> Pace {
    let mut pace = Pace::new(Coalescing {
        delay_us,
        iops_threshold,
    });
    pace.since = 1;
    pace
}

/// The delay after `count` requests in `time`, in microseconds.
fn after(pace: &mut Pace, count: u64, time: Duration) -> u64 {
    pace.count = count;
    pace.follow(pace.since + ticks_of(time));
    (u128::from(pace.delay) * 1_000_000).div_ceil(u128::from(tick_rate())) as u64
}

#[test]
fn the_delay_follows_the_rate() {
    let mut pace = pace(100, 10_000);
    let window = Duration::from_millis(20);
    assert_eq!(after(&mut pace, 200, window), 0, "at the threshold");
    let twice = after(&mut pace, 400, window);
    assert!((95..=105).contains(&twice), "{twice}");
    let more = after(&mut pace, 2000, window);
    assert!((880..=920).contains(&more), "{more}");
    assert_eq!(after(&mut pace, 0, window), 0, "and back");
}

#[test]
fn a_short_time_says_nothing_about_the_rate() {
    let mut pace = pace(100, 10_000);
    assert_eq!(after(&mut pace, 1_000_000, Duration::from_millis(1)), 0);
    assert_eq!(pace.count, 1_000_000, "the window goes on");
}

#[test]
fn no_delay_is_longer_than_a_second() {
    let mut pace = pace(u32::MAX, 0);
    let delay = after(&mut pace, u64::MAX, Duration::from_millis(10));
    assert!(delay <= 1_000_001, "{delay}");
}
