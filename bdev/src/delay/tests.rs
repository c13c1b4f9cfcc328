use std::sync::mpsc::TryRecvError;

use super::*;
use crate::conformance::{Request, Rig};
use crate::malloc::{self, MallocOptions};

fn base() -> SharedBdev {
    let options = MallocOptions {
        name: "Malloc0".into(),
        block_size: 512,
        num_blocks: 2048,
        physical_block_size: None,
        uuid: Some(uuid!("11111111-1111-4111-8111-111111111111")),
    };
    malloc::create(options).unwrap()
}

fn same(microseconds: u64) -> Latencies {
    Latencies {
        avg_read: microseconds,
        p99_read: microseconds,
        avg_write: microseconds,
        p99_write: microseconds,
    }
}

#[test]
fn requests_take_their_time() {
    let disk = create("D", base(), None, same(20_000)).unwrap();
    let shared: SharedBdev = disk.clone();
    let rig = Rig::new(&shared);
    let begin = ticks();
    assert_eq!(rig.write(0, &[7; 512]), IoStatus::Ok);
    assert_eq!(rig.read(0, 1).unwrap(), vec![7; 512]);
    // At least what was asked for; how much more is the machine's affair.
    let wanted = 2 * 20 * tick_rate() / 1000;
    assert!(ticks() - begin >= wanted);
    disk.set_latency(Latency::AvgRead, 0);
    disk.set_latency(Latency::P99Read, 0);
    assert_eq!(disk.latencies().avg_read, 0);
    let stats = rig.stats(&shared);
    assert!(stats.write.min_latency_ticks >= wanted / 2);
}

#[test]
fn who_must_end_need_not_wait() {
    let forever = create("D", base(), None, same(u64::MAX)).unwrap();
    let shared: SharedBdev = forever;
    let rig = Rig::new(&shared);
    rig.put(0, &[9; 512]);
    let write = Request::new(IoKind::Write, 3, 1, (0, 512));
    let read = Request::new(IoKind::Read, 3, 1, (4096, 512));
    let answers = rig.start(vec![write, read]);
    // Neither flushes nor zeroes are delayed, so they end while the others wait.
    assert_eq!(rig.command(IoKind::Flush, 0, 0, false), IoStatus::Ok);
    assert_eq!(rig.command(IoKind::WriteZeroes, 9, 1, false), IoStatus::Ok);
    assert_eq!(answers.try_recv(), Err(TryRecvError::Empty));
    rig.expedite();
    for _ in 0..2 {
        let (_, status) = answers.recv().unwrap();
        assert_eq!(status, IoStatus::Ok, "they had been done");
    }
    assert_eq!(rig.get(4096, 512), vec![9; 512]);
}

#[test]
fn failures_are_late_too() {
    let disk = create("D", base(), None, same(u64::MAX)).unwrap();
    let shared: SharedBdev = disk;
    let rig = Rig::new(&shared);
    let answers = rig.start(vec![Request::new(IoKind::Read, 4096, 1, (0, 512))]);
    assert_eq!(rig.command(IoKind::Flush, 0, 0, false), IoStatus::Ok);
    assert_eq!(answers.try_recv(), Err(TryRecvError::Empty));
    rig.expedite();
    assert_eq!(answers.recv().unwrap(), (0, IoStatus::OutOfRange));
}

#[test]
fn one_in_a_hundred_is_rare() {
    let latencies = Latencies {
        avg_read: 0,
        p99_read: u64::MAX,
        ..same(0)
    };
    let disk = create("D", base(), None, latencies).unwrap();
    let shared: SharedBdev = disk;
    let rig = Rig::new(&shared);
    let count = 20_000;
    let requests = (0..count).map(|_| Request::new(IoKind::Read, 0, 1, (0, 512)));
    let answers = rig.start(requests.collect());
    assert_eq!(rig.command(IoKind::Flush, 0, 0, false), IoStatus::Ok);
    // The flush came after all of them, so those that wait are the rare ones.
    let waiting = count - answers.try_iter().count();
    // 200 expected, with a deviation of 14.
    assert!((100..=300).contains(&waiting), "{waiting} of {count}");
    rig.expedite();
    assert_eq!(answers.iter().take(waiting).count(), waiting);
}

#[test]
fn is_called_as_spdk_calls_it() {
    // Figures of a running SPDK target.
    let passthru = crate::passthru::create("P", base(), None).unwrap();
    let expected = uuid!("fb530fef-0dea-5bc1-8c9c-25610cadb721");
    assert_eq!(passthru.info().uuid, expected);
    let broken = crate::error::create(passthru, None).unwrap();
    assert_eq!(broken.info().name, "EE_P");
    let broken: SharedBdev = broken;
    let disk = create("D", broken, None, same(5)).unwrap();
    assert_eq!(disk.info().product_name, "delay");
    assert_eq!(disk.over.base_name(), "EE_P");
}

#[test]
fn impossible_settings_are_refused() {
    let upside_down = Latencies {
        avg_write: 3,
        p99_write: 2,
        ..same(0)
    };
    let error = check(&upside_down).unwrap_err();
    assert_eq!(error.errno, Errno::EINVAL);
    assert!(error.reason.contains("p99_write_latency 2"));
    assert!(create("", base(), None, same(0)).is_err());
}
