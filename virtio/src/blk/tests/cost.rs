//! What a request may not cost.

use bdev::SharedBdev;
use bdev::null::NullOptions;
use testkit::virtio::Table;
use testkit::virtio::blk::Parts;
use virtio_spec::blk::*;
use virtio_spec::feature::{EVENT_IDX, RING_PACKED};
use zerocopy::IntoBytes;

use super::flow::malloc;
use super::rig::{Rig, USUAL, Vq, buffer};
use crate::blk::BlkConfig;

fn null() -> SharedBdev {
    let options = NullOptions {
        name: "n".to_owned(),
        block_size: 512,
        num_blocks: 1 << 20,
        physical_block_size: None,
        uuid: None,
    };
    bdev::null::create(options).unwrap()
}

/// One request of every kind and layout that a well-behaved driver sends.
fn requests(rig: &Rig) -> Vec<(Parts, Table)> {
    let data = rig.alloc(1 << 20);
    let pages = (0..64).map(|n| buffer(data + n * 8192, 4096));
    let pages: Vec<_> = pages.collect();
    let range = rig.alloc(64);
    for n in 0..2u64 {
        let one = Range {
            sector: n * 64,
            num_sectors: 8,
            flags: 0,
        };
        rig.ram.write(range + n * 16, one.as_bytes());
    }
    let list: [(u32, u64, &[testkit::virtio::Buffer]); 8] = [
        (T_IN, 8, &pages[..1]),
        (T_OUT, 16, &pages[..2]),
        (T_IN, 8, &pages),
        (T_OUT, 1024, &pages),
        (T_FLUSH, 0, &[]),
        (T_GET_ID, 0, &[buffer(data, 20)]),
        (T_WRITE_ZEROES, 0, &[buffer(range, 16)]),
        (T_WRITE_ZEROES, 0, &[buffer(range, 32)]),
    ];
    list.iter()
        .map(|(kind, sector, data)| {
            let parts = rig.parts(*kind, *sector, data);
            let table = rig.alloc(parts.count() * 16);
            (parts, Table::Indirect(table))
        })
        .collect()
}

fn burst(rig: &Rig, vq: &mut Vq, requests: &[(Parts, Table)]) {
    for (parts, table) in requests.iter().cycle().take(48) {
        let id = vq.ring.add(&parts.readable, &parts.writable, *table);
        id.expect("room");
    }
    rig.publish(vq);
    for _ in 0..48 {
        vq.used();
    }
}

#[test]
fn no_request_allocates_once_everything_is_warm() {
    for features in [0, EVENT_IDX, RING_PACKED | EVENT_IDX] {
        for disk in [malloc(), null()] {
            let config = BlkConfig {
                packed: true,
                ..BlkConfig::default()
            };
            let rig = Rig::with(config, Some(disk), 1, USUAL | features);
            let mut vq = rig.queue(0, 64);
            let requests = requests(&rig);
            for _ in 0..3 {
                burst(&rig, &mut vq, &requests);
            }
            // The question itself allocates on the reactor's thread, always the same.
            let asked = rig.allocations(0);
            let question = rig.allocations(0) - asked;
            let before = rig.allocations(0);
            assert!(before > 0, "the counting allocator is in place");
            for _ in 0..50 {
                burst(&rig, &mut vq, &requests);
            }
            let after = rig.allocations(0);
            assert!(
                after - before <= question,
                "{} allocations in 2400 requests",
                after - before
            );
            for (parts, _) in &requests {
                assert_eq!(rig.status_of(parts), S_OK);
            }
        }
    }
}

#[test]
fn no_request_in_the_ring_allocates() {
    let disk = bdev::test_disk::TestDisk::new(512, 64, bdev::Features::all());
    let rig = Rig::new(disk.shared());
    let mut vq = rig.queue(0, 64);
    let at = rig.alloc(512);
    let parts: Vec<_> = (0..32)
        .map(|n| rig.parts(T_IN, n, &[buffer(at, 512)]))
        .collect();
    let round = |vq: &mut Vq| {
        disk.script(|script| script.gated = true);
        for parts in &parts {
            let id = vq.ring.add(&parts.readable, &parts.writable, Table::Direct);
            if id.is_none() {
                break;
            }
        }
        rig.publish(vq);
        let sent = vq.ring.in_flight();
        disk.release(usize::from(sent));
        for _ in 0..sent {
            vq.used();
        }
        disk.script(|script| {
            script.log.clear();
            script.announced.clear();
        });
        u64::from(sent)
    };
    round(&mut vq);
    round(&mut vq);
    let before = rig.allocations(0);
    let requests: u64 = (0..20).map(|_| round(&mut vq)).sum();
    let after = rig.allocations(0);
    // The test's disk takes a buffer and a table entry for each; the worker adds nothing.
    assert!(
        after - before <= 2 * requests + 64,
        "{} for {requests}",
        after - before
    );
}
