//! Full rings, stalls, several queues, both formats: nothing is lost, nothing is done twice.

use std::sync::Arc;

use bdev::test_disk::TestDisk;
use bdev::{Features, SharedBdev};
use testkit::virtio::Table;
use testkit::virtio::blk::Parts;
use virtio_spec::blk::*;
use virtio_spec::feature::{EVENT_IDX, IN_ORDER, RING_PACKED};

use super::rig::{PATIENCE, Rig, USUAL, Vq, buffer, pattern, wait_for};
use crate::blk::BlkConfig;

const ALL: Features = Features::all();

/// A driver that keeps a queue full of writes and reads back what it wrote: a block of its own for each request in flight.
pub(super) struct Load {
    pub(super) vq: Vq,
    /// By request: header, data, status, indirect table, how many rounds it has made.
    slots: Vec<(u64, u64, u64, u64, u64)>,
    /// By ID in the ring: the request.
    ids: Vec<Option<usize>>,
    idle: Vec<usize>,
    sector: u64,
    pub(super) done: u64,
    pub(super) failed: u64,
}

const BYTES: usize = 4096;

impl Load {
    pub(super) fn new(rig: &Rig, vq: Vq, depth: usize) -> Self {
        let slot = |_| {
            let (data, table) = (rig.alloc(BYTES), rig.alloc(64));
            (rig.header(T_OUT, 0), data, rig.status(), table, 0)
        };
        let sector = u64::from(vq.index) * 1024;
        Self {
            ids: vec![None; 65536],
            idle: (0..depth).collect(),
            slots: (0..depth).map(slot).collect(),
            sector,
            vq,
            done: 0,
            failed: 0,
        }
    }

    fn seed(slot: usize, round: u64) -> u8 {
        (slot as u64).wrapping_mul(7).wrapping_add(round) as u8
    }

    /// Sends what may be sent.
    pub(super) fn send(&mut self, rig: &Rig) {
        while let Some(slot) = self.idle.pop() {
            let (header, data, status, table, round) = self.slots[slot];
            let write = round % 2 == 0;
            let kind = if write { T_OUT } else { T_IN };
            rig.set_header(header, kind, self.sector + slot as u64 * 8);
            if write {
                let bytes = pattern(Self::seed(slot, round), BYTES);
                rig.ram.write(data, &bytes);
            } else {
                rig.ram.write(data, &[0; BYTES]);
            }
            rig.ram.write(status, &[0xee]);
            let half = BYTES / 2;
            let pieces = [buffer(data, half), buffer(data + half as u64, half)];
            let parts = Parts::plain(kind, header, &pieces, status);
            let table = if slot % 3 == 0 {
                Table::Direct
            } else {
                Table::Indirect(table)
            };
            match self.vq.ring.add(&parts.readable, &parts.writable, table) {
                Some(id) => {
                    let place = &mut self.ids[usize::from(id)];
                    assert!(place.replace(slot).is_none(), "{id} is in flight");
                }
                None => {
                    self.idle.push(slot);
                    break;
                }
            }
        }
        rig.publish(&mut self.vq);
    }

    /// Takes one used chain, if there is one.
    pub(super) fn take(&mut self, rig: &Rig) -> bool {
        let Some(used) = self.vq.ring.poll().unwrap() else {
            return false;
        };
        let slot = self.ids[usize::from(used.id)].take();
        let slot = slot.expect("used once, and only what was sent");
        let (_, data, status, _, round) = &mut self.slots[slot];
        let write = *round % 2 == 0;
        match rig.ram.read(*status, 1)[0] {
            S_OK => {
                if let Some(written) = used.written {
                    assert_eq!(written, if write { 1 } else { BYTES as u32 + 1 });
                }
                if !write {
                    let expected = pattern(Self::seed(slot, *round - 1), BYTES);
                    assert!(rig.ram.read(*data, BYTES) == expected, "slot {slot}");
                }
                *round += 1;
                self.done += 1;
            }
            S_IOERR => self.failed += 1,
            other => panic!("status {other:#x}"),
        }
        self.idle.push(slot);
        true
    }

    pub(super) fn in_flight(&self) -> usize {
        self.slots.len() - self.idle.len()
    }

    /// Keeps the queue full until so many requests more have ended well.
    pub(super) fn run(&mut self, rig: &Rig, count: u64) {
        let end = self.done + count;
        while self.done < end {
            self.send(rig);
            wait_for("progress", || self.take(rig).then_some(()));
            while self.take(rig) {}
        }
    }

    /// Waits for everything in flight.
    pub(super) fn drain(&mut self, rig: &Rig) {
        while self.in_flight() > 0 {
            wait_for("the rest", || self.take(rig).then_some(()));
        }
    }
}

pub(super) fn malloc() -> SharedBdev {
    let options = bdev::malloc::MallocOptions {
        name: "m".to_owned(),
        block_size: 512,
        num_blocks: 64 << 10,
        physical_block_size: None,
        uuid: None,
    };
    bdev::malloc::create(options).unwrap()
}

#[test]
fn every_format_of_ring_carries_load() {
    for features in [
        0,
        EVENT_IDX,
        IN_ORDER,
        RING_PACKED,
        RING_PACKED | EVENT_IDX,
        RING_PACKED | IN_ORDER,
    ] {
        let config = BlkConfig {
            packed: true,
            ..BlkConfig::default()
        };
        let rig = Rig::with(config, Some(malloc()), 1, USUAL | features);
        let vq = rig.queue(0, 64);
        let mut load = Load::new(&rig, vq, 32);
        load.run(&rig, 5000);
        load.drain(&rig);
        assert_eq!(load.failed, 0);
    }
}

#[test]
fn queues_on_several_reactors_go_their_own_ways() {
    let config = BlkConfig {
        num_queues: 4,
        ..BlkConfig::default()
    };
    let rig = Rig::with(config, Some(malloc()), 2, USUAL);
    let mut loads: Vec<Load> = (0..4)
        .map(|index| Load::new(&rig, rig.queue(index, 32), 16))
        .collect();
    let snapshot = rig.handle.snapshot(PATIENCE).unwrap();
    let on_first = snapshot
        .queues
        .iter()
        .filter(|queue| queue.lcore == 0)
        .count();
    assert!((1..4).contains(&on_first), "{snapshot:?}");
    for _ in 0..20 {
        for load in &mut loads {
            load.send(&rig);
        }
        for load in &mut loads {
            load.run(&rig, 50);
        }
    }
    for load in &mut loads {
        load.drain(&rig);
        assert_eq!(load.failed, 0);
    }
}

#[test]
fn a_full_ring_loses_nothing() {
    let disk = TestDisk::new(512, 16 << 10, ALL);
    let rig = Rig::new(disk.shared());
    let mut load = Load::new(&rig, rig.queue(0, 64), 16);
    for full in [1, 2, 3, 40, 1000] {
        disk.script(|script| script.full = full);
        load.run(&rig, 200);
    }
    disk.script(|script| (script.full, script.gated) = (0, true));
    disk.release(4000);
    for (full, stall, short) in [(1, 0, 0), (0, 1, 0), (0, 7, 7), (5, 40, 3), (0, 0, 50)] {
        disk.script(|script| (script.full, script.stall, script.short) = (full, stall, short));
        load.run(&rig, 100);
    }
    load.drain(&rig);
    assert_eq!(load.failed, 0);
}

#[test]
fn the_next_request_is_announced() {
    let disk = TestDisk::new(512, 16 << 10, ALL);
    let rig = Rig::new(disk.shared());
    let mut vq = rig.queue(0, 64);
    let at = rig.alloc(4096);
    for n in 0..8 {
        let parts = rig.parts(T_IN, n, &[buffer(at, 512)]);
        vq.ring
            .add(&parts.readable, &parts.writable, Table::Direct)
            .unwrap();
    }
    rig.publish(&mut vq);
    for _ in 0..8 {
        vq.used();
    }
    let announced = disk.script(|script| std::mem::take(&mut script.announced));
    assert_eq!(announced, (1..8).collect::<Vec<u64>>());
}

#[test]
fn a_disk_that_cannot_be_opened_can_be_later() {
    let disk = TestDisk::new(512, 100, ALL);
    disk.script(|script| script.locked = true);
    let rig = Rig::new(disk.shared());
    let mut vq = rig.queue(0, 16);
    let at = rig.alloc(512);
    assert_eq!(rig.run(&mut vq, T_IN, 0, &[buffer(at, 512)]), (S_IOERR, 0));
    disk.script(|script| script.locked = false);
    assert_eq!(rig.run(&mut vq, T_IN, 0, &[buffer(at, 512)]), (S_OK, 513));
}

#[test]
fn a_swap_under_load_loses_nothing() {
    let ram = malloc();
    let rig = Rig::with(BlkConfig::default(), Some(Arc::clone(&ram)), 1, USUAL);
    let mut load = Load::new(&rig, rig.queue(0, 64), 32);
    load.run(&rig, 500);
    // The same contents under another name: a swap that the guest must not notice.
    let gated = TestDisk::new(512, 16 << 10, ALL);
    for _ in 0..20 {
        load.send(&rig);
        let other: SharedBdev = Arc::new(Alias(Arc::clone(&ram)));
        let done = rig.set_disk(Some(other));
        load.run(&rig, 100);
        assert!(done.wait(PATIENCE), "the former disk is closed");
    }
    load.drain(&rig);
    assert_eq!(load.failed, 0);
    drop(gated);
}

/// Another disk with the same contents.
#[derive(Debug)]
struct Alias(SharedBdev);

impl bdev::Bdev for Alias {
    fn info(&self) -> bdev::BdevInfo {
        self.0.info()
    }

    fn open(&self, cx: &mut reactor::Cx) -> Result<Box<dyn bdev::Channel>, bdev::BdevError> {
        self.0.open(cx)
    }

    fn driver_specific(&self) -> Vec<(&'static str, bdev::DriverValue)> {
        Vec::new()
    }
}

#[test]
fn a_former_disk_closes_after_its_last_request() {
    let (first, second) = (TestDisk::new(512, 100, ALL), TestDisk::new(512, 100, ALL));
    let rig = Rig::with(
        BlkConfig {
            num_queues: 2,
            ..BlkConfig::default()
        },
        Some(first.shared()),
        2,
        USUAL,
    );
    let mut queues = [rig.queue(0, 16), rig.queue(1, 16)];
    let at = rig.alloc(512);
    second.fill(0, &[2; 512]);
    first.script(|script| script.gated = true);
    for vq in &mut queues {
        let parts = rig.parts(T_IN, 0, &[buffer(at, 512)]);
        rig.send(vq, &parts, Table::Direct);
    }
    wait_for("both in the ring", || {
        first.script(|script| (script.log.len() == 2).then_some(()))
    });
    // One request more that finds no room: it was taken, so it belongs to the first disk too.
    first.script(|script| script.full = u32::MAX);
    let late = rig.parts(T_OUT, 7, &[buffer(at, 512)]);
    rig.send(&mut queues[0], &late, Table::Direct);
    rig.settle();
    let done = rig.set_disk(Some(second.shared()));
    rig.settle();
    assert!(!done.is_done());
    // New requests go to the new disk, beside those in flight.
    assert_eq!(
        rig.run(&mut queues[1], T_IN, 0, &[buffer(at, 512)]),
        (S_OK, 513)
    );
    assert_eq!(rig.ram.read(at, 1), [2]);
    first.release(2);
    queues[0].used();
    queues[1].used();
    rig.settle();
    assert!(!done.is_done(), "one still waits for room");
    first.script(|script| (script.full, script.gated) = (0, false));
    queues[0].used();
    assert!(done.wait(PATIENCE));
    assert_eq!(first.script(|script| script.open), 0);
    assert_eq!(first.taken().len(), 3);
}

#[test]
fn a_disk_that_is_taken_away_fails_what_comes_after() {
    let disk = TestDisk::new(512, 16 << 10, ALL);
    let rig = Rig::new(disk.shared());
    let mut load = Load::new(&rig, rig.queue(0, 64), 16);
    load.run(&rig, 100);
    load.send(&rig);
    assert!(rig.set_disk(None).wait(PATIENCE));
    assert_eq!(disk.script(|script| script.open), 0);
    while load.failed < 100 {
        load.send(&rig);
        wait_for("progress", || load.take(&rig).then_some(()));
    }
    assert!(rig.set_disk(Some(disk.shared())).wait(PATIENCE));
    load.drain(&rig);
    load.run(&rig, 100);
    load.drain(&rig);
}
