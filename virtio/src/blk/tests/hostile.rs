//! Drivers that break the rules: each costs only itself.

use bdev::Features;
use bdev::test_disk::TestDisk;
use guest_memory::{DmaMap, Region};
use nix::unistd::ftruncate;
use testkit::virtio::blk::Parts;
use testkit::virtio::{Buffer, Table};
use virtio_spec::blk::*;

use super::rig::{PATIENCE, Rig, USUAL, buffer, region};
use crate::blk::BlkConfig;
use crate::device::DeviceEvent;

fn rig(queues: u16) -> Rig {
    let disk = TestDisk::new(512, 1000, Features::all());
    let config = BlkConfig {
        num_queues: queues,
        ..BlkConfig::default()
    };
    Rig::with(config, Some(disk.shared()), 1, USUAL)
}

fn broken(rig: &Rig, index: Option<u16>) -> String {
    rig.event("a broken device", |event| match event {
        DeviceEvent::Broken { index: of, cause } if of == index => Some(cause),
        _ => None,
    })
}

#[test]
fn a_request_without_a_place_for_its_answer_breaks_its_queue() {
    let no_status = |rig: &Rig| Parts {
        readable: vec![buffer(rig.header(T_OUT, 0), 16)],
        writable: Vec::new(),
    };
    let no_header = |rig: &Rig| Parts {
        readable: Vec::new(),
        writable: vec![buffer(rig.status(), 1)],
    };
    let short_header = |rig: &Rig| Parts {
        readable: vec![buffer(rig.header(T_OUT, 0), 7), buffer(rig.header(0, 0), 8)],
        writable: vec![buffer(rig.status(), 1)],
    };
    let status_elsewhere = |rig: &Rig| Parts {
        readable: vec![buffer(rig.header(T_FLUSH, 0), 16)],
        writable: vec![buffer(0x1000, 1)],
    };
    type Make<'a> = &'a dyn Fn(&Rig) -> Parts;
    let cases: [(Make<'_>, &str); 4] = [
        (&no_status, "no room for its status"),
        (&no_header, "shorter than its header"),
        (&short_header, "shorter than its header"),
        (&status_elsewhere, "status does not lie in memory"),
    ];
    for (make, reason) in cases {
        let rig = rig(2);
        let (mut bad, mut good) = (rig.queue(0, 16), rig.queue(1, 16));
        let parts = make(&rig);
        rig.send(&mut bad, &parts, Table::Direct);
        let cause = broken(&rig, Some(0));
        assert!(cause.contains(reason), "{cause}");
        // It is not read again, and told once.
        let fine = rig.parts(T_FLUSH, 0, &[]);
        rig.send(&mut bad, &fine, Table::Direct);
        assert_eq!(rig.run(&mut good, T_FLUSH, 0, &[]), (S_OK, 1));
        assert_eq!(rig.events(), []);
        assert!(bad.ring.poll().unwrap().is_none());
        assert!(rig.stop(&bad).is_some(), "it can be stopped all the same");
        rig.reset();
    }
}

#[test]
fn a_broken_ring_breaks_its_queue_and_what_was_taken_ends() {
    let disk = TestDisk::new(512, 1000, Features::all());
    let rig = Rig::new(disk.shared());
    let mut vq = rig.queue(0, 16);
    disk.script(|script| script.gated = true);
    let at = rig.alloc(512);
    let parts = rig.parts(T_IN, 0, &[buffer(at, 512)]);
    rig.send(&mut vq, &parts, Table::Direct);
    super::rig::wait_for("the request", || (!disk.taken().is_empty()).then_some(()));
    // An available index far ahead.
    let driver = vq.ring.areas().driver;
    rig.ram.write(driver + 2, &[0xff, 0x7f]);
    broken(&rig, Some(0));
    disk.release(1);
    assert_eq!(vq.used().written, Some(513));
    assert_eq!(rig.status_of(&parts), S_OK);
    rig.reset();
}

#[test]
fn memory_that_is_not_there_fails_the_request() {
    let rig = rig(1);
    let mut vq = rig.queue(0, 16);
    let end = super::rig::RAM + rig.ram.memory().len() as u64;
    let at = rig.alloc(512);
    let nowhere = [
        buffer(0x1000, 512),
        buffer(end, 512),
        buffer(end - 256, 512),
        buffer(u64::MAX - 512, 512),
    ];
    for bad in nowhere {
        for kind in [
            T_IN,
            T_OUT,
            T_GET_ID,
            T_DISCARD,
            T_WRITE_ZEROES,
            T_GET_LIFETIME,
        ] {
            let ranges = matches!(kind, T_DISCARD | T_WRITE_ZEROES);
            let data = if ranges {
                vec![bad]
            } else {
                vec![buffer(at, 512), bad]
            };
            assert_eq!(
                rig.run(&mut vq, kind, 0, &data),
                Rig::failure(S_IOERR, kind),
                "{kind} {bad:?}"
            );
        }
    }
    // A header that cannot be read can still be answered.
    for header in [0x1000, end - 8] {
        let parts = Parts::plain(T_FLUSH, header, &[], rig.status());
        assert_eq!(rig.run_parts(&mut vq, &parts), (S_IOERR, 1));
    }
    assert_eq!(rig.run(&mut vq, T_FLUSH, 0, &[]), (S_OK, 1));
    assert_eq!(rig.events(), []);
}

#[test]
fn a_long_request_is_checked_whole() {
    let disk = TestDisk::new(512, 1 << 16, Features::all());
    let rig = Rig::new(disk.shared());
    let mut vq = rig.queue(0, 16);
    let at = rig.alloc(8 << 20);
    let data = [buffer(at, 8 << 20), buffer(0x1000, 512)];
    for kind in [T_IN, T_OUT] {
        assert_eq!(
            rig.run(&mut vq, kind, 0, &data),
            Rig::failure(S_IOERR, kind)
        );
    }
    assert!(disk.taken().is_empty(), "no effect before all is checked");
}

/// A client may map 65 535 regions, each as small as it likes: a buffer in all of them would be as many segments.
#[test]
fn buffers_in_very_many_regions_are_refused() {
    const TINY: u64 = 1 << 40;
    let disk = TestDisk::new(512, 1 << 16, Features::all());
    let mut rig = Rig::new(disk.shared());
    let mut map = rig.whole_map();
    for n in 0..20_000 {
        let tiny = Region {
            iova: TINY + 512 * n,
            len: 512,
            ..region(&rig.ram)
        };
        map = map.with(tiny).unwrap();
    }
    rig.set_map(map);
    let mut vq = rig.queue(0, 16);
    for regions in [3000, 20_000] {
        for kind in [T_IN, T_OUT] {
            let data = [buffer(TINY, regions * 512)];
            assert_eq!(
                rig.run(&mut vq, kind, 0, &data),
                Rig::failure(S_IOERR, kind)
            );
        }
    }
    assert!(disk.taken().is_empty(), "no effect");
    let data = [buffer(TINY, 1024 * 512)];
    assert_eq!(rig.run(&mut vq, T_OUT, 0, &data), (S_OK, 1));
}

#[test]
fn four_gigabytes_in_one_request_are_answered() {
    let rig = rig(1);
    let mut vq = rig.queue(0, 128);
    let at = rig.alloc(32 << 20);
    // The same memory again and again: 132 × 32 MiB.
    let data: Vec<Buffer> = (0..132).map(|_| buffer(at, 32 << 20)).collect();
    assert_eq!(rig.run(&mut vq, T_IN, 0, &data), (S_IOERR, 0));
    assert_eq!(rig.run(&mut vq, T_IN, 0, &data[..100]), (S_IOERR, 0));
}

#[test]
fn a_client_that_truncates_its_memory_loses_its_device_alone() {
    let mut one = rig(2);
    let other = rig(1);
    let mut queues = [one.queue(0, 16), one.queue(1, 16)];
    let mut undisturbed = other.queue(0, 16);
    assert_eq!(one.run(&mut queues[0], T_FLUSH, 0, &[]), (S_OK, 1));
    ftruncate(one.ram.memory().fd(), 0).unwrap();
    broken(&one, None);
    assert_eq!(other.run(&mut undisturbed, T_FLUSH, 0, &[]), (S_OK, 1));
    assert_eq!(other.events(), []);
    let again = one.events();
    assert!(again.is_empty(), "told once: {again:?}");
    for vq in &queues {
        one.stop(vq);
    }
    one.reset();
    // Whoever comes with whole memory is served again.
    let ram = testkit::ram::GuestRam::new(super::rig::RAM, 8 << 20).unwrap();
    let map = one.map.cleared().with(region(&ram)).unwrap();
    (one.ram, one.map) = (ram, map.clone());
    one.set_map(map);
    one.device(|blk, cx| crate::Device::set_features(blk, cx, USUAL));
    let mut vq = one.queue(0, 16);
    assert_eq!(one.run(&mut vq, T_FLUSH, 0, &[]), (S_OK, 1));
}

#[test]
fn calls_out_of_turn_do_nothing() {
    let rig = rig(2);
    rig.device(|blk, cx| {
        use crate::Device;
        for index in [0, 1, 2, u16::MAX] {
            blk.notify(index);
            blk.set_interrupt(index, None);
            blk.stop_queue(cx, index);
        }
        blk.map_changed(cx, &DmaMap::empty());
        let events: Vec<_> = std::iter::from_fn(|| blk.poll(cx)).collect();
        assert_eq!(events.len(), 4, "each stop has its end");
    });
    let vq = rig.queue(0, 16);
    let setup = vq.setup(crate::RingState::default());
    let twice = setup.clone();
    rig.device(move |blk, cx| {
        use crate::Device;
        blk.start_queue(cx, 0, twice);
        blk.start_queue(cx, 9, setup);
    });
    assert_eq!(rig.handle.snapshot(PATIENCE).unwrap().queues.len(), 1);
    assert!(rig.stop(&vq).is_some());
}
