//! Stops, resets, changes of the map, and the ends of threads.

use std::sync::Arc;

use bdev::Features;
use bdev::test_disk::TestDisk;
use guest_memory::{Access, Region};
use testkit::virtio::Table;
use virtio_spec::blk::*;
use virtio_spec::feature::RING_PACKED;

use super::flow::{Load, malloc};
use super::rig::{PATIENCE, Rig, USUAL, buffer, wait_for};
use crate::blk::BlkConfig;
use crate::device::{DeviceEvent, RingState};

const ALL: Features = Features::all();

fn config() -> BlkConfig {
    BlkConfig {
        num_queues: 2,
        packed: true,
        ..BlkConfig::default()
    }
}

#[test]
fn a_queue_goes_on_where_it_stopped() {
    for features in [0, RING_PACKED] {
        let rig = Rig::with(config(), Some(malloc()), 2, USUAL | features);
        let mut load = Load::new(&rig, rig.queue(0, 64), 32);
        let mut other = Load::new(&rig, rig.queue(1, 64), 8);
        for round in 0..50 {
            load.run(&rig, 20 + round);
            load.send(&rig);
            let state = rig.stop(&load.vq).expect("where it stands");
            if load.vq.is_packed() {
                let taken = (state.next_avail, state.avail_wrap);
                assert_eq!(
                    taken,
                    (state.next_used, state.used_wrap),
                    "nothing in flight"
                );
            } else {
                assert_eq!(state.next_avail, state.next_used, "nothing in flight");
            }
            // Whatever was not taken waits in the ring.
            while load.take(&rig) {}
            rig.settle();
            assert!(!load.take(&rig), "nothing happens in a stopped queue");
            rig.start(&load.vq, state);
            other.run(&rig, 5);
        }
        load.drain(&rig);
        other.drain(&rig);
        assert_eq!((load.failed, other.failed), (0, 0));
    }
}

#[test]
fn a_stop_waits_for_what_is_in_flight() {
    let disk = TestDisk::new(512, 100, ALL);
    let rig = Rig::new(disk.shared());
    let mut vq = rig.queue(0, 64);
    let at = rig.alloc(4096);
    disk.script(|script| script.gated = true);
    let parts: Vec<_> = (0..3)
        .map(|n| rig.parts(T_IN, n, &[buffer(at, 512)]))
        .collect();
    for parts in &parts {
        rig.send(&mut vq, parts, Table::Direct);
    }
    wait_for("all in the ring", || {
        disk.script(|it| (it.log.len() == 3).then_some(()))
    });
    // Two more are decoded and find no room.
    disk.script(|script| script.full = u32::MAX);
    let more: Vec<_> = (0..4)
        .map(|n| rig.parts(T_IN, n, &[buffer(at, 512)]))
        .collect();
    for parts in &more {
        rig.send(&mut vq, parts, Table::Direct);
    }
    rig.settle();
    rig.device(|blk, cx| crate::Device::stop_queue(blk, cx, 0));
    disk.release(3);
    for _ in 0..3 {
        vq.used();
    }
    assert_eq!(rig.events(), [], "two are left");
    disk.script(|script| (script.full, script.gated) = (0, false));
    let state = rig.stopped(0).unwrap();
    assert_eq!((state.next_avail, state.next_used), (5, 5));
    assert_eq!((vq.used().id, vq.used().id), (9, 12), "in their order");
    assert!(vq.ring.poll().unwrap().is_none());
    rig.start(&vq, state);
    vq.used();
    vq.used();
    assert_eq!(disk.taken().len(), 7);
}

#[test]
fn a_reset_under_load_leaves_no_trace() {
    let disk = TestDisk::new(512, 16 << 10, ALL);
    let rig = Rig::with(config(), Some(disk.shared()), 2, USUAL);
    for round in 0..30u32 {
        let mut loads = [
            Load::new(&rig, rig.queue(0, 32), 16),
            Load::new(&rig, rig.queue(1, 32), 16),
        ];
        for load in &mut loads {
            load.run(&rig, 20);
        }
        let gated = round % 2 == 0;
        disk.script(|script| {
            (script.gated, script.stall) = (gated, round % 3);
            script.full = if gated { 0 } else { u32::MAX };
        });
        for load in &mut loads {
            load.send(&rig);
        }
        rig.settle();
        rig.device(crate::Device::reset);
        let waiting = disk.script(|script| script.open);
        if gated {
            disk.release(64);
        }
        rig.event("the end of the reset", |event| {
            (event == DeviceEvent::Reset).then_some(())
        });
        assert!(waiting <= 2);
        assert_eq!(
            disk.script(|script| script.open),
            0,
            "all channels are closed"
        );
        let used: Vec<_> = loads.iter().map(|load| load.vq.ring.in_flight()).collect();
        rig.settle();
        let later: Vec<_> = loads.iter().map(|load| load.vq.ring.in_flight()).collect();
        assert_eq!(used, later, "no used entries after a reset");
        // Whatever the gate let through too much is of no use to the next round.
        disk.script(|script| (script.gated, script.full, script.stall) = (false, 0, 0));
        rig.device(|blk, cx| crate::Device::set_features(blk, cx, USUAL));
    }
    assert_eq!(rig.events(), []);
}

#[test]
fn after_a_reset_no_memory_is_held() {
    let disk = TestDisk::new(512, 100, ALL);
    let mut rig = Rig::with(config(), Some(disk.shared()), 2, USUAL);
    let mut queues = [rig.queue(0, 16), rig.queue(1, 16)];
    for vq in &mut queues {
        assert_eq!(rig.run(vq, T_FLUSH, 0, &[]), (S_OK, 1));
    }
    rig.reset();
    rig.set_map(rig.map.cleared());
    drop(queues);
    let mapping = rig.ram.memory().mapping();
    // The test's own RAM, and nobody else.
    wait_for("the end of all leases", || {
        (Arc::strong_count(mapping) == 1).then_some(())
    });
}

#[test]
fn a_reset_answers_a_stop() {
    let disk = TestDisk::new(512, 100, ALL);
    let rig = Rig::new(disk.shared());
    let mut vq = rig.queue(0, 16);
    let at = rig.alloc(512);
    disk.script(|script| script.gated = true);
    let parts = rig.parts(T_IN, 0, &[buffer(at, 512)]);
    rig.send(&mut vq, &parts, Table::Direct);
    wait_for("it in the ring", || {
        disk.script(|it| (it.log.len() == 1).then_some(()))
    });
    rig.device(|blk, cx| {
        use crate::Device;
        blk.stop_queue(cx, 0);
        blk.stop_queue(cx, 0);
        blk.reset(cx);
        blk.reset(cx);
    });
    assert_eq!(rig.stopped(0), None);
    disk.release(1);
    rig.event("the end of the reset", |event| {
        (event == DeviceEvent::Reset).then_some(())
    });
    assert_eq!(rig.events(), []);
    // With nothing to end it ends at once.
    rig.reset();
}

#[test]
fn the_map_changes_under_load() {
    for features in [0, RING_PACKED] {
        let mut rig = Rig::with(config(), Some(malloc()), 2, USUAL | features);
        let mut loads = [
            Load::new(&rig, rig.queue(0, 64), 32),
            Load::new(&rig, rig.queue(1, 64), 32),
        ];
        for round in 0..60 {
            for load in &mut loads {
                load.send(&rig);
            }
            if round % 3 == 0 {
                // As firmware does it: all memory goes and comes again.
                rig.set_map(rig.map.cleared());
                for load in &mut loads {
                    while load.take(&rig) {}
                }
            }
            rig.set_map(rig.whole_map());
            for load in &mut loads {
                load.run(&rig, 20);
            }
        }
        for load in &mut loads {
            load.drain(&rig);
            assert_eq!(load.failed, 0);
        }
        assert_eq!(rig.events(), []);
    }
}

#[test]
fn requests_end_in_the_memory_where_they_began() {
    let disk = TestDisk::new(512, 100, ALL);
    let mut rig = Rig::new(disk.shared());
    let mut vq = rig.queue(0, 64);
    let at = rig.alloc(4096);
    disk.fill(0, &[7; 4096]);
    disk.script(|script| script.gated = true);
    let parts: Vec<_> = (0..4)
        .map(|n| rig.parts(T_IN, n, &[buffer(at, 512)]))
        .collect();
    for parts in &parts[..2] {
        rig.send(&mut vq, parts, Table::Direct);
    }
    wait_for("two in the ring", || {
        disk.script(|it| (it.log.len() == 2).then_some(()))
    });
    disk.script(|script| script.full = u32::MAX);
    for parts in &parts[2..] {
        rig.send(&mut vq, parts, Table::Direct);
    }
    rig.settle();
    // The memory is unmapped: two requests are in the ring, two are decoded and wait.
    let before = Arc::downgrade(&rig.map);
    rig.set_map(rig.map.cleared());
    rig.settle();
    assert!(before.upgrade().is_some(), "leases");
    disk.release(2);
    disk.script(|script| (script.full, script.gated) = (0, false));
    wait_for("the end of the leases", || {
        before.upgrade().is_none().then_some(())
    });
    for parts in &parts {
        assert_eq!(rig.status_of(parts), S_OK);
    }
    assert!(vq.ring.poll().unwrap().is_none(), "the ring is not there");
    rig.set_map(rig.whole_map());
    for _ in 0..4 {
        assert_eq!(vq.used().written, Some(513));
    }
    assert_eq!(rig.run(&mut vq, T_FLUSH, 0, &[]), (S_OK, 1));
}

#[test]
fn a_queue_waits_for_its_memory() {
    let mut rig = Rig::new(malloc());
    let whole = Arc::clone(&rig.map);
    rig.set_map(whole.cleared());
    let mut vq = rig.queue(0, 16);
    let parts = rig.parts(T_FLUSH, 0, &[]);
    rig.send(&mut vq, &parts, Table::Direct);
    rig.settle();
    assert!(vq.ring.poll().unwrap().is_none());
    // Memory, but not all of the ring's.
    let part = Region {
        iova: rig.ram.base(),
        len: 4096,
        access: Access::READ,
        backing: Some(Arc::clone(rig.ram.memory().mapping())),
    };
    rig.set_map(rig.map.with(part).unwrap());
    rig.settle();
    assert_eq!(rig.events(), []);
    rig.set_map(rig.whole_map());
    assert_eq!(vq.used().written, Some(1));
    // One that never found its memory stops where it was to begin.
    rig.set_map(rig.map.cleared());
    let other = Rig::with(config(), Some(malloc()), 1, USUAL);
    other.device(|blk, cx| crate::Device::map_changed(blk, cx, &guest_memory::DmaMap::empty()));
    let vq = other.queue(1, 16);
    assert_eq!(other.stop(&vq), Some(RingState::default()));
}

#[test]
fn a_device_that_is_dropped_leaves_nothing_running() {
    let disk = TestDisk::new(512, 100, ALL);
    let mut rig = Rig::with(config(), Some(disk.shared()), 2, USUAL);
    let mut vq = rig.queue(0, 16);
    rig.queue(1, 16);
    let at = rig.alloc(512);
    disk.script(|script| script.gated = true);
    let parts = rig.parts(T_IN, 0, &[buffer(at, 512)]);
    rig.send(&mut vq, &parts, Table::Direct);
    wait_for("it in the ring", || {
        disk.script(|it| (it.log.len() == 1).then_some(()))
    });
    rig.hang_up();
    disk.release(1);
    let pollers = |reactor: &reactor::ReactorHandle| {
        let count = reactor.call(|reactor| reactor.stats().pollers.len());
        count.wait(PATIENCE).unwrap()
    };
    wait_for("the end of all workers", || {
        rig.reactors.iter().all(|it| pollers(it) == 0).then_some(())
    });
    assert_eq!(disk.script(|script| script.open), 0);
}

#[test]
fn a_worker_that_dies_takes_only_its_queues() {
    let disk = TestDisk::new(512, 100, ALL);
    let rig = Rig::with(config(), Some(disk.shared()), 2, USUAL);
    let queues = [rig.queue(0, 16), rig.queue(1, 16)];
    let snapshot = rig.handle.snapshot(PATIENCE).unwrap();
    let away = snapshot.queues.iter().find(|queue| queue.lcore == 1);
    let away = away.expect("a queue on the second reactor").index;
    rig.reactors[1].stop();
    let index = rig.event("the news", |event| match event {
        DeviceEvent::Broken { index, .. } => Some(index),
        _ => None,
    });
    assert_eq!(index, Some(away));
    assert_eq!(rig.stop(&queues[usize::from(away)]), None);
    assert!(rig.stop(&queues[usize::from(1 - away)]).is_some());
    rig.reset();
    // A disk that is taken away does not wait for the dead.
    assert!(rig.set_disk(None).wait(PATIENCE));
}
