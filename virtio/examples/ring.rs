//! What a request costs in the rings: `cargo run --release -p virtio --example ring`, or under `valgrind --tool=callgrind
//! --collect-atstart=no --toggle-collect='*device_turn*'` for instructions.
//!
//! One thread is driver and device in turns, so no cache line travels: what is left is the ring's own work.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a tool for developers"
)]

use std::time::{Duration, Instant};

use guest_memory::{Access, DmaMap, MapView, Region};
use testkit::ram::GuestRam;
use testkit::virtio::{Buffer, Ring as Driver, Table, When};
use virtio::{Chain, Head, Kick, QueueSetup, Ring, RingState, Virtqueue};
use virtio_spec::feature;

const BATCH: usize = 32;
const ROUNDS: u32 = 20_000;

#[inline(never)]
fn device_turn(ring: &mut Virtqueue, view: &MapView, chain: &mut Chain, heads: &mut Vec<Head>) {
    heads.clear();
    while let Ok(Some(head)) = ring.take(view, chain) {
        heads.push(head);
    }
    for head in heads.iter() {
        ring.put(*head, 4097);
    }
    std::hint::black_box(ring.wants_interrupt());
}

fn measure(name: &str, features: u64, indirect: bool) {
    let ram = GuestRam::new(0x10_0000, 16 << 20).unwrap();
    let map = DmaMap::empty()
        .with(Region {
            iova: ram.base(),
            len: ram.memory().len() as u64,
            access: Access::READ | Access::WRITE,
            backing: Some(ram.memory().mapping().clone()),
        })
        .unwrap();
    let view = MapView::new(map);
    let features = features | feature::INDIRECT_DESC | feature::EVENT_IDX;
    let mut driver = Driver::new(&ram, 256, features).unwrap();
    driver.interrupt(When::Never);
    let areas = driver.areas();
    let mut ring = Virtqueue::new(
        &QueueSetup {
            size: 256,
            features,
            desc: areas.desc,
            driver: areas.driver,
            device: areas.device,
            state: RingState::default(),
            kick: Kick::Polled,
            interrupt: None,
            inflight: None,
            log: None,
        },
        &view,
    )
    .unwrap();
    let buffer = |len: u32| Buffer {
        addr: ram.alloc(len as usize, 64).unwrap(),
        len,
    };
    let (header, data, status) = (buffer(16), buffer(4096), buffer(1));
    let tables: Vec<Table> = (0..BATCH)
        .map(|_| match indirect {
            true => Table::Indirect(ram.alloc(48, 16).unwrap()),
            false => Table::Direct,
        })
        .collect();
    let mut chain = Chain::default();
    let mut heads = Vec::new();
    let mut spent = Duration::MAX;
    for _ in 0..10 {
        let mut now = Duration::ZERO;
        for _ in 0..ROUNDS / 10 {
            for table in &tables {
                driver.add(&[header], &[data, status], *table).unwrap();
            }
            driver.publish();
            let start = Instant::now();
            device_turn(&mut ring, &view, &mut chain, &mut heads);
            now += start.elapsed();
            while driver.poll().unwrap().is_some() {}
        }
        spent = spent.min(now);
    }
    let each = spent.as_nanos() as f64 / f64::from(ROUNDS / 10) / BATCH as f64;
    println!("{name}: {each:.1} ns per request of 3 buffers");
}

fn main() {
    measure("split, direct  ", 0, false);
    measure("split, indirect", 0, true);
    measure("packed, direct ", feature::RING_PACKED, false);
    measure("packed, indirect", feature::RING_PACKED, true);
}
