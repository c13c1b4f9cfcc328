use super::*;
use crate::cli::top::samples::{BOUNDS, telemetry};

fn picture(samples: &[Telemetry]) -> Picture {
    let mut picture = Picture::default();
    for sample in samples {
        picture.update(sample.clone());
    }
    picture
}

#[test]
fn rates_are_differences_over_the_daemons_own_time() {
    let picture = picture(&[telemetry(100), telemetry(102)]);
    assert!((picture.seconds() - 2.0).abs() < 1e-9);
    let flow = picture.bdev(&picture.now.bdevs[0]);
    let expected = Flow {
        reads: 9000.0,
        writes: 3000.0,
        requests: 12_000.0,
        read_bytes: 36_864_000.0,
        written_bytes: 12_288_000.0,
    };
    assert_eq!(flow, expected);
    assert_eq!(
        picture.reactor_time(&picture.now.reactors[1]),
        (700_000, 2_000_000)
    );
    assert_eq!(
        picture.poller(&picture.now.reactors[1], 0),
        (1_000_000.0, 250_000.0)
    );
    let queue = &picture.now.controllers[1].queues[0];
    assert!(
        (picture.queue(&picture.now.controllers[1], queue).0.requests - 250_000.0).abs() < 1e-9
    );
}

#[test]
fn percentiles_are_those_of_the_interval() {
    let mut late = telemetry(102);
    // A slow second in a long life.
    late.bdevs[0].read.buckets[3] += 10_000;
    let picture = picture(&[telemetry(100), late]);
    let latency = picture.read_latency(&picture.now.bdevs[0]);
    let p99 = latency.quantile(0.99, &BOUNDS).expect("there were reads");
    assert!((100_000.0..1_000_000.0).contains(&p99), "{p99}");
    let p50 = latency.quantile(0.5, &BOUNDS).expect("there were reads");
    assert!((10_000.0..20_000.0).contains(&p50), "{p50}");
    let idle = picture.latency(&picture.now.bdevs[2]);
    assert_eq!(idle.quantile(0.5, &BOUNDS), None);
}

#[test]
fn requests_of_the_last_bucket_took_at_least_its_beginning() {
    let latency = Latency {
        counts: vec![0, 0, 0, 0, 5],
    };
    assert_eq!(latency.quantile(0.5, &BOUNDS), Some(1_000_000.0));
    // More buckets than bounds, as no daemon sends them.
    let latency = Latency {
        counts: vec![0, 0, 0, 0, 0, 0, 7],
    };
    assert_eq!(latency.quantile(0.99, &BOUNDS), Some(1_000_000.0));
}

#[test]
fn counters_that_were_set_back_count_from_there() {
    let mut reset = telemetry(101);
    reset.bdevs[0].read.ops = 500;
    reset.bdevs[0].read.buckets = vec![0, 500, 0, 0, 0];
    let picture = picture(&[telemetry(100), reset]);
    let disk = &picture.now.bdevs[0];
    assert!((picture.bdev(disk).reads - 500.0).abs() < 1e-9);
    let p99 = picture.read_latency(disk).quantile(0.99, &BOUNDS);
    assert!(p99.is_some_and(|p99| p99 <= 20_000.0), "{p99:?}");
}

#[test]
fn another_process_is_not_compared_with_the_one_before() {
    let mut other = telemetry(3);
    other.pid += 1;
    let picture = picture(&[telemetry(100), other]);
    assert!(!picture.has_rates());
    assert_eq!(picture.bdev(&picture.now.bdevs[0]), Flow::default());
    // Neither is one whose clock stands still.
    let picture = self::picture(&[telemetry(100), telemetry(100)]);
    assert!(!picture.has_rates());
}

#[test]
fn another_guests_queue_of_the_same_number_is_another_queue() {
    let mut later = telemetry(102);
    later.controllers[1].connections += 1;
    let picture = picture(&[telemetry(100), later]);
    let controller = &picture.now.controllers[1];
    let (flow, interrupts) = picture.queue(controller, &controller.queues[0]);
    assert_eq!((flow, interrupts), (Flow::default(), 0.0));
}
