//! What the driver is shown, and what it may change.

use std::sync::Arc;

use bdev::test_disk::TestDisk;
use bdev::{Features, IoKind, Tally};
use virtio_spec::blk::*;
use virtio_spec::feature::RING_PACKED;

use super::rig::{Rig, USUAL, buffer};
use crate::blk::{Blk, BlkConfig};
use crate::device::{Device, DeviceEvent};

const ALL: Features = Features::all();

fn fua(disk: &TestDisk) -> Vec<bool> {
    let taken = disk.taken();
    taken.iter().map(|(_, _, _, fua)| *fua).collect()
}

#[test]
fn the_configuration_tells_the_disk() {
    let disk = TestDisk::new(4096, 1000, ALL);
    let config = BlkConfig {
        num_queues: 5,
        queue_size: 256,
        ..BlkConfig::default()
    };
    let rig = Rig::with(config, Some(disk.shared()), 1, USUAL);
    let shown = rig.read_config();
    assert_eq!(shown.capacity, 8000);
    assert_eq!((shown.seg_max, shown.blk_size), (254, 4096));
    assert_eq!((shown.num_queues, shown.wce), (5, 1));
    assert_eq!((shown.physical_block_exp, shown.min_io_size), (0, 1));
    assert_eq!(shown.discard_sector_alignment, 8);
    assert_eq!(shown.write_zeroes_may_unmap, 1);
    for limit in [shown.max_discard_sectors, shown.max_write_zeroes_sectors] {
        assert!(limit >= 8 && limit.is_multiple_of(8));
    }
    let (queues, size, len, odd) = rig.device(|blk, _| {
        let mut odd = [0xff; 12];
        blk.read_config(66, &mut odd);
        let mut beyond = [0xff; 4];
        blk.read_config(usize::MAX, &mut beyond);
        assert_eq!(beyond, [0; 4]);
        (
            blk.num_queues(),
            blk.max_queue_size(),
            blk.config_len(),
            odd,
        )
    });
    assert_eq!((queues, size, len), (5, 256, 72));
    assert_eq!(odd[6..], [0; 6], "beyond the end");
}

#[test]
fn packed_rings_are_the_operators_choice() {
    let disk = TestDisk::new(512, 100, ALL);
    for packed in [false, true] {
        let config = BlkConfig {
            packed,
            ..BlkConfig::default()
        };
        let rig = Rig::with(config, Some(disk.shared()), 1, USUAL);
        let offered = rig.device(|blk, _| blk.features());
        assert_eq!(offered & RING_PACKED != 0, packed);
        assert_eq!(offered & feature::SECURE_ERASE, 0);
        assert_eq!(offered & USUAL, USUAL);
    }
    let rig = Rig::new(TestDisk::new(512, 100, ALL - Features::UNMAP).shared());
    let offered = rig.device(|blk, _| blk.features());
    let both = feature::DISCARD | feature::WRITE_ZEROES;
    assert_eq!(offered & both, feature::WRITE_ZEROES);
}

#[test]
fn numbers_out_of_range_are_brought_in() {
    let disk = TestDisk::new(512, 100, ALL);
    for (queues, size, queues_then, size_then) in [
        (0, 0, 1, 2),
        (u16::MAX, u16::MAX, 256, 32768),
        (3, 100, 3, 64),
    ] {
        let config = BlkConfig {
            num_queues: queues,
            queue_size: size,
            ..BlkConfig::default()
        };
        let rig = Rig::with(config, Some(disk.shared()), 1, USUAL);
        let made = rig.device(|blk, _| (blk.num_queues(), blk.max_queue_size()));
        assert_eq!(made, (queues_then, size_then));
        assert!(rig.read_config().seg_max > 0);
    }
}

#[test]
fn who_cannot_flush_has_no_cache() {
    // 5.2.6.2: with neither FLUSH nor CONFIG_WCE a completed write is stable.
    let disk = TestDisk::new(512, 100, ALL);
    let neither = USUAL & !(feature::FLUSH | feature::CONFIG_WCE);
    for (accepted, durable) in [
        (neither, true),
        (neither | feature::CONFIG_WCE, true),
        (neither | feature::FLUSH, false),
        (USUAL, false),
    ] {
        let rig = Rig::with(BlkConfig::default(), Some(disk.shared()), 1, accepted);
        let mut vq = rig.queue(0, 16);
        let at = rig.alloc(512);
        assert_eq!(rig.run(&mut vq, T_OUT, 1, &[buffer(at, 512)]), (S_OK, 1));
        assert_eq!(fua(&disk), [durable], "{accepted:#x}");
        assert_eq!(rig.run(&mut vq, T_IN, 1, &[buffer(at, 512)]), (S_OK, 513));
        assert_eq!(fua(&disk), [false]);
        // Flushing does no harm to anybody.
        assert_eq!(rig.run(&mut vq, T_FLUSH, 0, &[]), (S_OK, 1));
        assert_eq!(disk.taken()[0].0, IoKind::Flush);
    }
}

#[test]
fn the_cache_is_the_drivers_to_switch() {
    let disk = TestDisk::new(512, 100, ALL);
    let config = BlkConfig {
        num_queues: 2,
        ..BlkConfig::default()
    };
    let rig = Rig::with(config, Some(disk.shared()), 2, USUAL);
    let mut queues = [rig.queue(0, 16), rig.queue(1, 16)];
    let at = rig.alloc(4096);
    assert_eq!(rig.read_config().wce, 1);
    for round in 0..50 {
        let on = round % 2 == 1;
        rig.write_cache(on);
        assert_eq!(rig.read_config().wce, u8::from(on));
        for vq in &mut queues {
            assert_eq!(rig.run(vq, T_OUT, 1, &[buffer(at, 512)]), (S_OK, 1));
            rig.ram.write(at, &[0; 16]);
            assert_eq!(fua(&disk), [!on], "seen at once on every reactor");
        }
    }
    // Other fields are not the driver's; a write over all of them changes this one alone.
    let before = rig.read_config();
    rig.device(|blk, cx| blk.write_config(cx, 0, &[0xff; 72]));
    assert_eq!(rig.read_config(), before);
    rig.device(|blk, cx| {
        blk.write_config(cx, 33, &[0; 39]);
        blk.write_config(cx, 1000, &[0; 4]);
        blk.write_config(cx, 0, &[]);
    });
    assert_eq!(rig.read_config(), before);
    rig.device(|blk, cx| blk.write_config(cx, 0, &[0; 33]));
    assert_eq!(rig.read_config().wce, 0);
}

#[test]
fn the_cache_is_not_switched_without_its_feature() {
    let disk = TestDisk::new(512, 100, ALL);
    let accepted = USUAL & !feature::CONFIG_WCE;
    let rig = Rig::with(BlkConfig::default(), Some(disk.shared()), 1, accepted);
    rig.write_cache(false);
    assert_eq!(rig.read_config().wce, 1);
}

#[test]
fn a_disk_without_a_cache_shows_none() {
    let disk = TestDisk::new(512, 100, ALL - Features::WRITE_CACHE);
    let rig = Rig::new(disk.shared());
    let mut vq = rig.queue(0, 16);
    let at = rig.alloc(512);
    assert_eq!(rig.read_config().wce, 0, "so Linux does not flush");
    assert_eq!(rig.run(&mut vq, T_OUT, 1, &[buffer(at, 512)]), (S_OK, 1));
    assert_eq!(fua(&disk), [false], "nothing to write through");
    // Another disk comes, with a cache: the driver still does not flush.
    let cached = TestDisk::new(512, 100, ALL);
    assert!(
        rig.set_disk(Some(cached.shared()))
            .wait(super::rig::PATIENCE)
    );
    assert_eq!(rig.run(&mut vq, T_OUT, 1, &[buffer(at, 512)]), (S_OK, 1));
    assert_eq!(fua(&cached), [true]);
}

#[test]
fn zeroes_and_discards_are_durable_too() {
    let disk = TestDisk::new(512, 100, ALL);
    let rig = Rig::new(disk.shared());
    let mut vq = rig.queue(0, 16);
    rig.write_cache(false);
    let at = rig.alloc(32);
    for sector in [1u64, 9] {
        rig.ram.write(at, &sector.to_le_bytes());
        rig.ram.write(at + 8, &4u32.to_le_bytes());
        for kind in [T_DISCARD, T_WRITE_ZEROES] {
            assert_eq!(rig.run(&mut vq, kind, 0, &[buffer(at, 16)]), (S_OK, 1));
            assert_eq!(fua(&disk), [true]);
        }
    }
}

fn changes(rig: &Rig) -> usize {
    let events = rig.events();
    events
        .iter()
        .filter(|event| **event == DeviceEvent::ConfigChanged)
        .count()
}

#[test]
fn a_resize_is_told_once() {
    let disk = TestDisk::new(512, 100, ALL);
    let rig = Rig::new(disk.shared());
    let mut vq = rig.queue(0, 16);
    let at = rig.alloc(512);
    rig.handle.resized();
    assert_eq!(changes(&rig), 0, "nothing has changed");
    disk.set_blocks(50);
    rig.handle.resized();
    rig.event("the news", |event| {
        (event == DeviceEvent::ConfigChanged).then_some(())
    });
    assert_eq!(rig.read_config().capacity, 50);
    assert_eq!(changes(&rig), 0);
    // Ranges follow the new end.
    rig.ram.write(at, &60u64.to_le_bytes());
    rig.ram.write(at + 8, &1u32.to_le_bytes());
    assert_eq!(
        rig.run(&mut vq, T_DISCARD, 0, &[buffer(at, 16)]),
        (S_IOERR, 1)
    );
    disk.set_blocks(70);
    rig.handle.resized();
    rig.event("the news", |event| {
        (event == DeviceEvent::ConfigChanged).then_some(())
    });
    assert_eq!(rig.run(&mut vq, T_DISCARD, 0, &[buffer(at, 16)]), (S_OK, 1));
}

#[test]
fn another_disk_changes_what_is_shown() {
    let first = TestDisk::new(512, 100, ALL);
    let second = TestDisk::new(4096, 100, ALL);
    let rig = Rig::new(first.shared());
    assert!(
        rig.set_disk(Some(second.shared()))
            .wait(super::rig::PATIENCE)
    );
    let shown = rig.read_config();
    assert_eq!((shown.capacity, shown.blk_size), (800, 4096));
    assert_eq!(changes(&rig), 1);
    // The same size again: nobody needs to know.
    let third = TestDisk::new(4096, 100, ALL);
    assert!(
        rig.set_disk(Some(third.shared()))
            .wait(super::rig::PATIENCE)
    );
    assert_eq!(changes(&rig), 0);
    // None at all: what is shown stays.
    assert!(rig.set_disk(None).wait(super::rig::PATIENCE));
    assert_eq!(rig.read_config().capacity, 800);
    assert_eq!(changes(&rig), 0);
}

#[test]
fn a_device_may_begin_without_a_disk() {
    let rig = Rig::with(BlkConfig::default(), None, 1, USUAL);
    let mut vq = rig.queue(0, 16);
    let at = rig.alloc(512);
    assert_eq!(rig.read_config().capacity, 0);
    for kind in [T_IN, T_OUT, T_FLUSH, T_DISCARD] {
        let data = if kind == T_DISCARD { 16 } else { 512 };
        let answer = rig.run(&mut vq, kind, 0, &[buffer(at, data)]);
        assert_eq!(answer, Rig::failure(S_IOERR, kind));
    }
    assert_eq!(rig.run(&mut vq, T_GET_ID, 0, &[buffer(at, 20)]), (S_OK, 21));
    let disk = TestDisk::new(512, 100, ALL);
    assert!(rig.set_disk(Some(disk.shared())).wait(super::rig::PATIENCE));
    assert_eq!(rig.read_config().capacity, 100);
    assert_eq!(rig.run(&mut vq, T_IN, 0, &[buffer(at, 512)]), (S_OK, 513));
}

#[test]
fn the_operator_sees_features_and_queues() {
    let disk = TestDisk::new(512, 100, ALL);
    let config = BlkConfig {
        num_queues: 8,
        ..BlkConfig::default()
    };
    let mut rig = Rig::with(config, Some(disk.shared()), 2, USUAL);
    let none = rig.handle.snapshot(super::rig::PATIENCE).unwrap();
    assert_eq!((none.features, none.queues.len()), (USUAL, 0));
    let mut queues: Vec<_> = [3u16, 0, 5, 1].map(|n| rig.queue(n, 64)).into();
    disk.script(|script| script.gated = true);
    let at = rig.alloc(512);
    let parts = rig.parts(T_IN, 0, &[buffer(at, 512)]);
    rig.send(&mut queues[0], &parts, testkit::virtio::Table::Direct);
    let snapshot = super::rig::wait_for("a request in flight", || {
        let snapshot = rig.handle.snapshot(super::rig::PATIENCE).unwrap();
        let busy = snapshot.queues.iter().any(|queue| queue.in_flight == 1);
        busy.then_some(snapshot)
    });
    let seen: Vec<_> = snapshot.queues.iter().map(|queue| queue.index).collect();
    assert_eq!(seen, [0, 1, 3, 5]);
    assert_eq!(snapshot.queues[2].in_flight, 1);
    assert!(snapshot.queues.iter().all(|it| it.size == 64 && !it.packed));
    let on_first = snapshot.queues.iter().filter(|it| it.lcore == 0).count();
    assert!(on_first < 4, "spread over reactors");
    assert_eq!(snapshot.queues[2].traffic.commands(), 0, "it has not ended");
    disk.release(1);
    queues[0].used();
    disk.script(|script| script.gated = false);
    let at = rig.alloc(1024);
    let data = [buffer(at, 1024)];
    assert_eq!(rig.run(&mut queues[1], T_OUT, 0, &data).0, S_OK);
    assert_eq!(rig.run(&mut queues[1], T_IN, 0, &data).0, S_OK);
    assert_eq!(rig.run(&mut queues[1], T_FLUSH, 0, &[]).0, S_OK);
    assert_ne!(rig.run(&mut queues[1], T_IN, 99, &data).0, S_OK);
    let snapshot = rig.handle.snapshot(super::rig::PATIENCE).unwrap();
    let tally = |commands, bytes| Tally { commands, bytes };
    let [first, third] = [0, 2].map(|at| snapshot.queues[at].traffic);
    assert_eq!(
        (first.read(), first.written()),
        (tally(1, 1024), tally(1, 1024))
    );
    assert_eq!((first.other(), first.errors), (tally(1, 0), 1));
    assert_eq!((third.read(), third.commands()), (tally(1, 512), 1));
    assert!(snapshot.queues[0].interrupts > 0);
    assert_eq!(snapshot.queues[1].interrupts, 0);
    let handle = rig.handle.clone();
    rig.hang_up();
    super::rig::wait_for("the end of the device", || {
        handle.snapshot(super::rig::PATIENCE).err()
    });
    let (ack, done) = reactor::Ack::channel();
    handle.set_disk(None, ack);
    assert!(
        done.wait(super::rig::PATIENCE),
        "nobody waits for a device that is gone"
    );
}

#[test]
fn a_device_is_a_block_device() {
    let disk = TestDisk::new(512, 100, ALL);
    let rig = Rig::new(Arc::clone(&disk) as _);
    assert_eq!(rig.device(|blk: &mut Blk, _| blk.device_id()), 2);
}
