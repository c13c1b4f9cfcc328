//! A guest of a virtio-blk device on PCI: the real device and its workers on a reactor, without a transport.
//!
//! Input: what the disk and the device are, then what the guest and its VMM do: the steps of an ordinary driver, and any access to any
//! region, memory that goes and comes back, resets, disks that are taken away. As long as the guest keeps to the rules its
//! requests end, well, with the data that it wrote; whatever it does, every reset ends, and at the end nothing of it is held.

use std::sync::mpsc;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use arbitrary::Unstructured;
use reactor::{Config, ReactorHandle};

use crate::{Seed, noise, panics};

mod guest;
mod host;
mod steps;

use host::{Host, Shape};

/// Most operations of one input: what more would find, many short inputs find sooner.
const OPERATIONS: usize = 64;
/// After this a device that does not come to rest never will.
const TIMEOUT: Duration = Duration::from_secs(8);

/// A home and a reactor for queues, for the life of the process.
struct Fixture {
    home: ReactorHandle,
    other: ReactorHandle,
}

impl Fixture {
    /// The fixture, for one input at a time.
    fn lock() -> MutexGuard<'static, Self> {
        static FIXTURE: OnceLock<Mutex<Fixture>> = OnceLock::new();
        let fixture = FIXTURE.get_or_init(|| {
            panics::watch();
            let reactor = |lcore| {
                let config = Config {
                    lcore,
                    ..Config::default()
                };
                reactor::spawn(config).expect("a reactor").0
            };
            Mutex::new(Self {
                home: reactor(0),
                other: reactor(1),
            })
        });
        fixture.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Runs one input.
pub fn run(data: &[u8]) {
    let mut input = Unstructured::new(data);
    let shape = input
        .arbitrary::<u8>()
        .map_or(Shape::default(), Shape::from);
    let mut steps = Vec::new();
    for _ in 0..OPERATIONS {
        // An input that ends within an operation has said all it has to say.
        if input.is_empty() || steps::add(&mut input, &mut steps).is_err() {
            break;
        }
    }
    let fixture = Fixture::lock();
    let (sender, receiver) = mpsc::channel();
    let other = fixture.other.clone();
    fixture.home.send(move |reactor| {
        let host = Host::new(shape, steps, other, sender);
        reactor.add_poller(Box::new(host));
    });
    let ended = receiver.recv_timeout(TIMEOUT);
    if let Some(panic) = panics::take() {
        panic!("on the reactor: {panic}");
    }
    ended.expect("the device comes to rest");
}

/// Requests of all kinds in both ways of notifying, what interrupts them, and noise.
pub fn seeds() -> Vec<Seed> {
    let mut seeds = noise::seeds(24);
    for variant in 0..32u8 {
        let mut bytes = vec![variant, 0, variant];
        for (n, kind) in [1, 0, 1, 0, 2, 3, 4, 5, 1, 0].into_iter().enumerate() {
            let n = u8::try_from(n).unwrap_or(0);
            bytes.extend([2, variant.wrapping_add(n / 2), kind, 0]);
        }
        bytes.extend([8, 9]);
        match variant % 8 {
            0 => bytes.extend([9, 1, 8, 3, 9, 0, 0, 0]),
            1 => bytes.extend([10, 0, variant]),
            2 => bytes.extend([11, 1, 2, 0, 0, 0, 11, 0, 2, 0, 0, 0]),
            3 => bytes.extend([12, 0, 2, 0, 0, 0]),
            4 => bytes.extend([13, 0, 0, 0x14, 0, 1, 0, 0, variant]),
            5 => bytes.extend([14, 0, 0, 255]),
            _ => bytes.extend([0, variant]),
        }
        bytes.extend([2, 0, 1, 0, 2, 0, 0, 0]);
        seeds.push((format!("requests-{variant}"), bytes));
    }
    seeds
}
