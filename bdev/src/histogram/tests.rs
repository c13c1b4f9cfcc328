use proptest::prelude::*;

use super::*;

#[test]
fn bounds_divide_the_times() {
    let bounds = LatencyHistogram::bounds_ns();
    assert_eq!(bounds.len() + 1, LatencyHistogram::default().counts().len());
    assert!(bounds.is_sorted_by(|a, b| a < b));
    assert_eq!((bounds[0], bounds[1]), (64, 80));
    assert_eq!(bounds.last(), Some(&(1 << 35)));
    for pair in bounds.windows(2) {
        assert!((pair[1] - pair[0]) * 4 <= pair[0]);
    }
    for (index, bound) in bounds.iter().enumerate() {
        assert_eq!(bucket_of(bound - 1), index);
        assert_eq!(bucket_of(*bound), index + 1);
    }
    assert_eq!(bucket_of(0), 0);
    assert_eq!(bucket_of(u64::MAX), BUCKETS - 1);
}

#[test]
fn percentiles_of_a_known_series() {
    let mut histogram = LatencyHistogram::default();
    assert_eq!(histogram.percentile(99.0), 0);
    for micros in 1..=1000u64 {
        histogram.record(micros * 1000);
    }
    assert_eq!(histogram.total(), 1000);
    for percent in [1.0, 10.0, 50.0, 90.0, 99.0, 99.9] {
        let found = histogram.percentile(percent) as f64 / 10_000.0;
        assert!(
            (found / percent - 1.0).abs() < 0.25,
            "p{percent} is {found}"
        );
    }
    assert!(histogram.percentile(0.0) <= histogram.percentile(100.0));
    assert!(histogram.percentile(100.0) >= 1_000_000);
}

proptest! {
    #[test]
    fn an_interval_is_what_came_in_between(before in prop::collection::vec(any::<u64>(), 0..50), after in prop::collection::vec(any::<u64>(), 0..50)) {
        let (mut all, mut only) = (LatencyHistogram::default(), LatencyHistogram::default());
        before.iter().for_each(|nanos| all.record(*nanos));
        let then = all.clone();
        for nanos in &after {
            all.record(*nanos);
            only.record(*nanos);
        }
        let mut interval = all.clone();
        interval.sub(&then);
        prop_assert_eq!(&interval, &only);
        interval.add(&then);
        prop_assert_eq!(&interval, &all);
    }

    #[test]
    fn percentiles_lie_in_the_bucket_of_their_rank(mut times in prop::collection::vec(0u64..1 << 34, 1..200), percent in 0.0f64..=100.0) {
        let mut histogram = LatencyHistogram::default();
        times.iter().for_each(|nanos| histogram.record(*nanos));
        times.sort_unstable();
        let rank = (percent / 100.0 * times.len() as f64).ceil().max(1.0) as usize;
        let exact = times[rank - 1];
        let found = histogram.percentile(percent);
        let bucket = bucket_of(exact);
        let bounds = LatencyHistogram::bounds_ns();
        let low = if bucket == 0 { 0 } else { bounds[bucket - 1] };
        prop_assert!((low..=bounds[bucket]).contains(&found), "{found} for {exact}");
    }
}
