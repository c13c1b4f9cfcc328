use std::time::Duration;

use super::*;

#[test]
fn nothing_set_is_nothing_saved() {
    assert!(Tuning::default().calls("a").is_empty());
    let mut tuning = Tuning {
        histogram: Some(HistogramOptions {
            kind: None,
            granularity: 9,
            min_ns: MIN_NSEC,
            max_ns: MAX_NSEC,
        }),
        ..Tuning::default()
    };
    tuning.set_qd_period(5);
    tuning.set_qd_period(0);
    // A histogram that was ended is not saved either.
    assert!(tuning.calls("a").is_empty());
}

#[test]
fn what_is_set_is_saved_as_calls() {
    let mut tuning = Tuning {
        limits: RateLimits {
            rw_ios_per_sec: 2000,
            w_mbytes_per_sec: 5,
            burst: Duration::from_millis(1500),
            ..RateLimits::default()
        },
        histogram: Some(HistogramOptions {
            kind: Some(IoKind::WriteZeroes),
            granularity: 9,
            min_ns: MIN_NSEC,
            max_ns: MAX_NSEC,
        }),
        histogram_enabled: true,
        ..Tuning::default()
    };
    tuning.set_qd_period(1000);
    let expected = [
        json!({"method": "bdev_set_qos_limit", "params":
            {"name": "a", "rw_ios_per_sec": 2000, "w_mbytes_per_sec": 5, "burst_ms": 1500}}),
        json!({"method": "bdev_enable_histogram", "params":
            {"name": "a", "enable": true, "opc": "write_zeroes", "granularity": 9}}),
        json!({"method": "bdev_set_qd_sampling_period", "params": {"name": "a", "period": 1000}}),
    ];
    assert_eq!(tuning.calls("a"), expected);
    for (name, kind) in KINDS {
        assert_eq!(kind_called(name), Some(kind));
        assert_eq!(name_of(kind), name);
    }
}
