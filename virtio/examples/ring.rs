//! What a request costs in the rings: `cargo run --release -p virtio --example ring`.
//!
//! First with one thread that is driver and device in turns, so that no cache line travels and the ring's own work is left; for
//! instructions run it under `valgrind --tool=callgrind --collect-atstart=no --toggle-collect='*device_turn*'`. Then with a driver on
//! another CPU, as in life: each request's descriptors, table and header come from there.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a tool for developers"
)]

use std::hint::{black_box, spin_loop};
use std::sync::Arc;
use std::time::{Duration, Instant};

use guest_memory::{Access, DmaMap, MapView, Region};
use testkit::ram::GuestRam;
use testkit::virtio::{Buffer, Ring as Driver, Table, When};
use virtio::{Chain, Head, Kick, QueueSetup, Ring, RingState, Virtqueue};
use virtio_spec::feature;

const SIZE: u16 = 256;
const DEPTH: usize = 32;
/// In one run: short enough to be left alone by the scheduler now and then. The best run counts.
const REQUESTS: usize = 2048;
const RUNS: usize = 300;

struct Bench {
    driver: Driver,
    ram: GuestRam,
    map: Arc<DmaMap>,
    setup: QueueSetup,
    requests: Vec<Request>,
}

#[derive(Clone, Copy)]
struct Request {
    header: Buffer,
    data: Buffer,
    status: Buffer,
    table: Table,
}

impl Bench {
    fn new(features: u64, indirect: bool) -> Self {
        let ram = GuestRam::new(0x10_0000, 16 << 20).unwrap();
        let map = DmaMap::empty()
            .with(Region {
                iova: ram.base(),
                len: ram.memory().len() as u64,
                access: Access::READ | Access::WRITE,
                backing: Some(ram.memory().mapping().clone()),
            })
            .unwrap();
        let features = features | feature::INDIRECT_DESC | feature::EVENT_IDX;
        let mut driver = Driver::new(&ram, SIZE, features).unwrap();
        driver.interrupt(When::Never);
        let areas = driver.areas();
        let buffer = |len: u32, align: usize| Buffer {
            addr: ram.alloc(len as usize, align).unwrap(),
            len,
        };
        let requests = (0..DEPTH)
            .map(|_| Request {
                header: buffer(16, 64),
                status: buffer(1, 1),
                data: buffer(4096, 4096),
                table: match indirect {
                    true => Table::Indirect(ram.alloc(48, 64).unwrap()),
                    false => Table::Direct,
                },
            })
            .collect();
        let setup = QueueSetup {
            size: SIZE,
            features,
            desc: areas.desc,
            driver: areas.driver,
            device: areas.device,
            state: RingState::default(),
            kick: Kick::Polled,
            interrupt: None,
            inflight: None,
            log: None,
        };
        Self {
            driver,
            ram,
            map,
            setup,
            requests,
        }
    }

    fn offer(&mut self, which: usize) {
        let Request {
            header,
            data,
            status,
            table,
        } = self.requests[which % DEPTH];
        let first = (which as u64).to_le_bytes();
        self.ram.write(header.addr, &first);
        self.driver
            .add(&[header], &[data, status], table)
            .expect("room for all requests");
    }

    /// Driver and device in turns: nanoseconds for each request.
    fn alone(mut self) -> f64 {
        let view = MapView::new(self.map.clone());
        let mut ring = Virtqueue::new(&self.setup, &view).unwrap();
        let (mut chain, mut heads) = (Chain::default(), Vec::new());
        let mut best = Duration::MAX;
        for _ in 0..RUNS {
            let mut spent = Duration::ZERO;
            for _ in 0..REQUESTS / DEPTH {
                (0..DEPTH).for_each(|which| self.offer(which));
                self.driver.publish();
                let start = Instant::now();
                device_turn(&mut ring, &view, &mut chain, &mut heads);
                spent += start.elapsed();
                while self.driver.poll().unwrap().is_some() {}
            }
            best = best.min(spent);
        }
        best.as_nanos() as f64 / REQUESTS as f64
    }

    /// The driver on another CPU: nanoseconds for each request, from the first to the last.
    fn across(mut self) -> f64 {
        let (map, setup) = (self.map.clone(), self.setup.clone());
        let all = REQUESTS * RUNS;
        let device = std::thread::spawn(move || {
            let view = MapView::new(map);
            let mut ring = Virtqueue::new(&setup, &view).unwrap();
            let mut chain = Chain::default();
            let mut done = 0;
            while done < all {
                match ring.take(&view, &mut chain) {
                    Ok(Some(head)) => {
                        let header: [u64; 2] = view.read(chain.readable[0].addr).unwrap();
                        black_box(header);
                        view.write(chain.writable[1].addr, &0_u8).unwrap();
                        ring.put(head, 4097);
                        done += 1;
                    }
                    _ => spin_loop(),
                }
            }
        });
        let mut best = Duration::MAX;
        let (mut offered, mut done) = (0, 0);
        for run in 1..=RUNS {
            let start = Instant::now();
            while done < run * REQUESTS {
                let before = offered;
                while offered < run * REQUESTS && offered - done < DEPTH {
                    self.offer(offered);
                    offered += 1;
                }
                if offered != before {
                    self.driver.publish();
                }
                while self.driver.poll().unwrap().is_some() {
                    done += 1;
                }
            }
            best = best.min(start.elapsed());
        }
        device.join().unwrap();
        best.as_nanos() as f64 / REQUESTS as f64
    }
}

#[inline(never)]
fn device_turn(ring: &mut Virtqueue, view: &MapView, chain: &mut Chain, heads: &mut Vec<Head>) {
    heads.clear();
    while let Ok(Some(head)) = ring.take(view, chain) {
        heads.push(head);
    }
    for head in heads.iter() {
        ring.put(*head, 4097);
    }
    black_box(ring.wants_interrupt());
}

fn main() {
    for (name, format) in [("split", 0), ("packed", feature::RING_PACKED)] {
        for (kind, indirect) in [("direct", false), ("indirect", true)] {
            let alone = Bench::new(format, indirect).alone();
            let across = Bench::new(format, indirect).across();
            println!(
                "{name}, {kind}: {alone:.1} ns for each request of 3 buffers; with a driver on another CPU {across:.0} ns"
            );
        }
    }
}
