//! Interrupts and notifications.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bdev::Features;
use bdev::test_disk::TestDisk;
use testkit::virtio::{Table, When};
use virtio_spec::blk::*;
use virtio_spec::feature::{EVENT_IDX, RING_PACKED};
use virtio_spec::ring::*;

use super::flow::{Load, malloc};
use super::rig::{Kicked, Rig, USUAL, Vq, buffer, wait_for};
use crate::blk::{BlkConfig, Coalescing};
use crate::device::{Device, Kick, RingState};

fn all_rings() -> [u64; 4] {
    [0, EVENT_IDX, RING_PACKED, RING_PACKED | EVENT_IDX]
}

fn rig(features: u64) -> Rig {
    let config = BlkConfig {
        packed: true,
        num_queues: 2,
        ..BlkConfig::default()
    };
    Rig::with(config, Some(malloc()), 1, USUAL | features)
}

/// Whether the driver is asked to notify of what it makes available next.
fn is_asked(rig: &Rig, vq: &Vq) -> bool {
    let areas = vq.ring.areas();
    let word = |at: u64| {
        let bytes = rig.ram.read(at, 2);
        u16::from_le_bytes([bytes[0], bytes[1]])
    };
    let by_index = rig.features & EVENT_IDX != 0;
    if vq.is_packed() {
        return match word(areas.device + 2) {
            EVENT_FLAGS_DISABLE => false,
            EVENT_FLAGS_DESC => word(areas.device) == vq.ring.avail_position(),
            _ => true,
        };
    }
    let event = areas.device + RING_ELEMENTS as u64 + 8 * u64::from(vq.ring.size());
    if by_index {
        word(event) == vq.ring.avail_position()
    } else {
        word(areas.device) & USED_F_NO_NOTIFY == 0
    }
}

/// Waits until the queue is asked to notify: from then on nothing else wakes its reactor.
fn asleep(rig: &Rig, vq: &Vq) {
    wait_for("a request for notifications", || {
        is_asked(rig, vq).then_some(())
    });
}

fn flush(rig: &Rig, vq: &mut Vq) {
    assert_eq!(rig.run(vq, T_FLUSH, 0, &[]), (S_OK, 1));
}

#[test]
fn an_interrupt_comes_when_it_is_wanted() {
    for features in all_rings() {
        let rig = rig(features);
        let mut vq = rig.queue(0, 16);
        vq.ring.interrupt(When::Always);
        flush(&rig, &mut vq);
        wait_for("an interrupt", || (vq.calls() > 0).then_some(()));
        vq.ring.interrupt(When::Never);
        for _ in 0..20 {
            flush(&rig, &mut vq);
        }
        rig.settle();
        assert_eq!(vq.calls(), 0, "{features:#x}");
        vq.ring.interrupt(When::Always);
        flush(&rig, &mut vq);
        wait_for("an interrupt", || (vq.calls() > 0).then_some(()));
    }
}

#[test]
fn a_batch_is_worth_one_interrupt() {
    let rig = rig(0);
    let mut vq = rig.queue(0, 64);
    let at = rig.alloc(512);
    let requests: Vec<_> = (0..16)
        .map(|n| rig.parts(T_IN, n, &[buffer(at, 512)]))
        .collect();
    for parts in &requests {
        vq.ring
            .add(&parts.readable, &parts.writable, Table::Direct)
            .unwrap();
    }
    rig.publish(&mut vq);
    for _ in 0..16 {
        vq.used();
    }
    rig.settle();
    assert_eq!(vq.calls(), 1);
}

#[test]
fn an_interrupt_follows_its_vector() {
    let rig = rig(0);
    let (mut first, second) = (rig.queue(0, 16), rig.queue(1, 16));
    rig.device(|blk, _| blk.set_interrupt(0, None));
    flush(&rig, &mut first);
    rig.settle();
    assert_eq!(first.calls(), 0);
    // What ended without a vector is told by the next one.
    let interrupt = second.setup(RingState::default()).interrupt;
    rig.device(move |blk, _| blk.set_interrupt(0, interrupt));
    wait_for("an interrupt", || (second.calls() > 0).then_some(()));
    assert_eq!(first.calls(), 0);
}

#[test]
fn coalescing_gathers_interrupts_and_keeps_the_last() {
    let rig = rig(0);
    let mut load = Load::new(&rig, rig.queue(0, 64), 1);
    load.run(&rig, 2000);
    rig.settle();
    let alone = load.vq.calls();
    assert!(alone >= 1900, "one for each: {alone}");
    rig.handle.set_coalescing(Coalescing {
        delay_us: 100_000,
        iops_threshold: 1,
    });
    rig.settle();
    // The rate is known after the first window.
    wait_for("the rate to be seen", || {
        load.run(&rig, 200);
        load.vq.calls();
        load.run(&rig, 200);
        (load.vq.calls() < 50).then_some(())
    });
    load.run(&rig, 1000);
    load.drain(&rig);
    // The last one comes, if late.
    load.vq.calls();
    load.send(&rig);
    load.drain(&rig);
    wait_for("the held interrupt", || (load.vq.calls() > 0).then_some(()));
    // Off again at run time.
    rig.handle.set_coalescing(Coalescing::default());
    rig.settle();
    load.vq.calls();
    load.run(&rig, 500);
    rig.settle();
    assert!(load.vq.calls() >= 400);
}

#[test]
fn below_the_threshold_no_interrupt_waits() {
    let rig = rig(0);
    rig.handle.set_coalescing(Coalescing {
        delay_us: 1_000_000,
        iops_threshold: u32::MAX,
    });
    let mut load = Load::new(&rig, rig.queue(0, 64), 1);
    load.run(&rig, 2000);
    rig.settle();
    assert!(load.vq.calls() >= 1900);
}

#[test]
fn a_quiet_driver_is_asked_to_notify() {
    for features in all_rings() {
        for kicked in [Kicked::Event, Kicked::Trapped] {
            let rig = rig(features);
            let (mut vq, mut other) =
                (rig.queue_with(0, 16, kicked), rig.queue_with(1, 16, kicked));
            for _ in 0..5 {
                flush(&rig, &mut vq);
                asleep(&rig, &vq);
                let before = vq.kicks;
                flush(&rig, &mut vq);
                assert_eq!(vq.kicks, before + 1, "{features:#x} {kicked:?}");
                flush(&rig, &mut other);
            }
        }
    }
}

#[test]
fn a_busy_driver_is_not_asked_to_notify() {
    for features in all_rings() {
        let rig = rig(features);
        let mut load = Load::new(&rig, rig.queue_with(0, 64, Kicked::Event), 16);
        load.run(&rig, 100);
        asleep(&rig, &load.vq);
        let before = load.vq.kicks;
        load.run(&rig, 5000);
        // A thread that loses its processor for a while may be asked once in between.
        let asked = load.vq.kicks - before;
        assert!(asked <= 50, "{asked} notifications in 5000 requests");
    }
}

#[test]
fn a_polled_queue_needs_no_notification() {
    let rig = rig(0);
    let mut vq = rig.queue(0, 16);
    let other = rig.queue_with(1, 16, Kicked::Event);
    flush(&rig, &mut vq);
    // The reactor must wake for the one anyway, so the other is not asked either.
    for _ in 0..50 {
        rig.settle();
        assert!(!is_asked(&rig, &vq) && !is_asked(&rig, &other));
    }
    flush(&rig, &mut vq);
    assert_eq!(vq.kicks, 0);
}

/// Starts queue 0 with a descriptor of the test's as its kick.
fn start_with(rig: &Rig, vq: &Vq, kick: OwnedFd) {
    let mut setup = vq.setup(RingState::default());
    setup.kick = Kick::Event(Arc::new(kick));
    rig.stop(vq);
    rig.device(move |blk, cx| blk.start_queue(cx, 0, setup));
}

#[test]
fn a_kick_that_is_no_eventfd_does_no_harm() {
    let rig = rig(0);
    // The reactor wakes for this one, so the other needs no notification.
    let mut polled = rig.queue(1, 16);
    let (reader, writer) = std::io::pipe().unwrap();
    let blocking = nix::sys::eventfd::EventFd::from_value(1).unwrap();
    let fds: [OwnedFd; 5] = [
        // Always ready; never ready; hung up; blocking; not to be watched at all.
        std::fs::File::open("/dev/zero").unwrap().into(),
        reader.into(),
        {
            let (reader, _) = std::io::pipe().unwrap();
            reader.into()
        },
        blocking.into(),
        std::fs::File::open("/proc/self/exe").unwrap().into(),
    ];
    for fd in fds {
        let vq = rig.queue(0, 16);
        start_with(&rig, &vq, fd);
        let mut vq = vq;
        flush(&rig, &mut vq);
        flush(&rig, &mut polled);
        flush(&rig, &mut vq);
        rig.stop(&vq);
    }
    drop(writer);
}

#[test]
fn a_blocking_eventfd_that_others_empty_does_not_stop_the_reactor() {
    let rig = rig(0);
    let _polled = rig.queue(1, 16);
    let kick = nix::sys::eventfd::EventFd::new().unwrap();
    let ours: OwnedFd = nix::unistd::dup(&kick).unwrap();
    let vq = rig.queue(0, 16);
    start_with(&rig, &vq, ours);
    let mut vq = vq;
    let thief = nix::unistd::dup(&kick).unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = Arc::clone(&stop);
    let ours: OwnedFd = nix::unistd::dup(&kick).unwrap();
    // It takes what was written before the reactor does, time and again.
    let thread = std::thread::spawn(move || {
        while !stopped.load(Ordering::Relaxed) {
            let mut count = [0; 8];
            let _ = kick.write(1);
            let _ = nix::unistd::read(&thief, &mut count);
        }
    });
    for _ in 0..200 {
        flush(&rig, &mut vq);
    }
    stop.store(true, Ordering::Relaxed);
    // The reactor may have been faster: then the thief waits for one more.
    wait_for("the thief", || {
        nix::unistd::write(&ours, &1u64.to_ne_bytes()).unwrap();
        thread.is_finished().then_some(())
    });
    thread.join().unwrap();
}

#[test]
fn a_disk_in_the_ring_and_an_armed_queue_meet() {
    // The end of an operation wakes the reactor whose queues all sleep.
    let disk = TestDisk::new(512, 100, Features::all());
    let rig = Rig::new(disk.shared());
    let mut vq = rig.queue_with(0, 16, Kicked::Event);
    let at = rig.alloc(512);
    disk.script(|script| script.gated = true);
    let parts = rig.parts(T_IN, 0, &[buffer(at, 512)]);
    rig.send(&mut vq, &parts, Table::Direct);
    asleep(&rig, &vq);
    disk.release(1);
    vq.used();
    wait_for("the interrupt", || (vq.calls() > 0).then_some(()));
}
