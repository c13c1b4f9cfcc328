use proptest::prelude::*;

use super::*;

fn options(granularity: u8) -> HistogramOptions {
    HistogramOptions {
        kind: None,
        granularity,
        min_ns: 0,
        max_ns: u64::MAX,
    }
}

#[test]
fn ranges_are_as_spdk_lays_them_out() {
    // Its example: 128 buckets per range, ranges 0 to 57.
    let mut histogram = Histogram::new(&options(7));
    assert_eq!((histogram.min_range(), histogram.max_range()), (0, 57));
    assert_eq!(histogram.counts().len(), 58 * 128);
    for (ticks, bucket) in [
        (0, 0),
        (127, 127),
        (128, 128),
        (255, 255),
        (256, 2 * 128),
        (257, 2 * 128),
        (258, 2 * 128 + 1),
        (511, 2 * 128 + 127),
        (2048, 5 * 128),
        (u64::MAX, 58 * 128 - 1),
    ] {
        let before = histogram.counts()[bucket];
        histogram.tally(IoKind::Read, ticks);
        assert_eq!(histogram.counts()[bucket], before + 1, "{ticks}");
    }
}

#[test]
fn ranges_that_nobody_wants_are_left_out() {
    let wanted = HistogramOptions {
        kind: Some(IoKind::Write),
        min_ns: 1000,
        max_ns: 120_000_000_000,
        ..options(7)
    };
    wanted.check().unwrap();
    let mut histogram = Histogram::new(&wanted);
    assert!(histogram.counts().len() < 40 * 128);
    assert!(histogram.min_range() > 0 && histogram.max_range() < 57);
    histogram.tally(IoKind::Read, 100_000);
    assert_eq!(histogram.cumulative(&[]), [0]);
    histogram.tally(IoKind::Write, 0);
    histogram.tally(IoKind::Write, u64::MAX);
    assert_eq!(histogram.counts().first(), Some(&1));
    assert_eq!(histogram.counts().last(), Some(&1));
}

#[test]
fn options_that_make_no_sense_are_refused() {
    let too_fine = options(13).check();
    assert_eq!(too_fine, Err(HistogramError::TooFine(13)));
    let empty = HistogramOptions {
        min_ns: 5000,
        max_ns: 5000,
        ..options(7)
    };
    assert_eq!(empty.check(), Err(HistogramError::Empty(5000, 5000)));
    // What nobody checked does no harm either.
    let mut histogram = Histogram::new(&HistogramOptions {
        granularity: u8::MAX,
        ..empty
    });
    histogram.tally(IoKind::Read, 77);
    assert_eq!(histogram.cumulative(&[u64::MAX]), [1, 1]);
}

proptest! {
    #[test]
    fn every_time_is_in_the_bucket_that_begins_before_it(
        granularity in 0u8..=12, ticks in prop_oneof![0u64..5000, any::<u64>()],
    ) {
        let histogram = Histogram::new(&options(granularity));
        let bucket = histogram.bucket(ticks);
        prop_assert!(histogram.begins(bucket) <= ticks);
        if bucket + 1 < histogram.counts().len() {
            prop_assert!(ticks < histogram.begins(bucket + 1));
        }
    }

    #[test]
    fn borders_divide_as_they_do_the_times(
        times in prop::collection::vec(0u64..1 << 40, 0..100), borders in prop::collection::vec(0u64..1 << 40, 0..10),
    ) {
        let mut histogram = Histogram::new(&options(7));
        let (mut first, mut second) = (histogram.clone(), histogram.clone());
        for (at, ticks) in times.iter().enumerate() {
            histogram.tally(IoKind::Read, *ticks);
            let part = if at % 2 == 0 { &mut first } else { &mut second };
            part.tally(IoKind::Flush, *ticks);
        }
        first.add(&second);
        prop_assert_eq!(&first, &histogram);
        let found = histogram.cumulative(&borders);
        prop_assert_eq!(found.len(), borders.len() + 1);
        prop_assert_eq!(found.last().copied(), Some(times.len() as u64));
        for (border, count) in borders.iter().zip(found) {
            // Off by what shares the border's bucket, a 128th of its time.
            let least = times.iter().filter(|ticks| *ticks <= border).count() as u64;
            let most = times.iter().filter(|ticks| **ticks <= border + border / 64 + 1).count() as u64;
            prop_assert!((least..=most).contains(&count), "{border}: {count}, not {least} to {most}");
        }
    }
}
