//! virtio guests that break their rings, their memory and their word, beside one on the same reactor that must not notice.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use testkit::virtio::{Buffer, Ring, Setup, Table};
use virtio_spec::blk::{S_OK, T_OUT};
use virtio_spec::feature;
use virtio_spec::ring::{DESC_F_INDIRECT, DESC_F_NEXT, DESC_F_WRITE, Descriptor, PackedDescriptor};

use crate::virtio::mix::{Mix, holds};
use crate::virtio::{Guest, MIB, Rig, Vfio, Vhost, Way};

/// A guest with verified load in a thread of its own.
struct Bystander {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Bystander {
    fn start<W: Way + 'static>(socket: PathBuf) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let seen = stop.clone();
        let thread = std::thread::spawn(move || {
            let mut guest = Guest::<W>::linux(&socket, true);
            let mut mix = Mix::new(&guest.queues, 8 * MIB, 4, 77);
            while !seen.load(Ordering::Relaxed) {
                mix.run(&mut guest.queues, 20);
            }
            holds(guest.queue(), &mix.model);
        });
        Self { stop, thread }
    }

    fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("the bystander has noticed");
    }
}

/// One reactor, a bystander at work, and an endpoint for the culprit.
struct Two {
    rig: Rig,
    culprit: PathBuf,
    bystander: Bystander,
}

impl Two {
    fn start<W: Way + 'static>() -> Self {
        let mut rig = Rig::start(&["-m", "0x1"]);
        rig.malloc("culprit");
        rig.malloc("bystander");
        let culprit = rig.endpoint::<W>("c", "culprit");
        let socket = rig.endpoint::<W>("b", "bystander");
        Self {
            rig,
            culprit,
            bystander: Bystander::start::<W>(socket),
        }
    }

    /// The next guest of the endpoint finds it in order, and nobody else has noticed.
    fn end<W: Way>(self) {
        Guest::<W>::linux(&self.culprit, false).works();
        self.bystander.stop();
        self.rig.daemon.stop();
    }
}

/// Something that no honest driver puts into its ring.
#[derive(Clone, Copy, Debug)]
enum Crime {
    /// A chain that comes back to itself.
    Loop,
    /// A buffer of no bytes.
    Empty,
    /// A buffer that wraps around the address space.
    Wrap,
    /// A readable buffer after a writable one.
    Order,
    /// A descriptor beyond the table.
    Beyond,
    /// An indirect table whose length is no multiple of 16.
    Ragged,
    /// An indirect table in an indirect table.
    Nested,
    /// An indirect table outside the memory.
    Nowhere,
    /// More available than the ring is long.
    Overrun,
}

const CRIMES: [Crime; 9] = [
    Crime::Loop,
    Crime::Empty,
    Crime::Wrap,
    Crime::Order,
    Crime::Beyond,
    Crime::Ragged,
    Crime::Nested,
    Crime::Nowhere,
    Crime::Overrun,
];

/// Commits it; `false` if the ring's format has no such thing.
fn commit(ring: &mut Ring, crime: Crime, table: u64, ram: &testkit::ram::GuestRam) -> bool {
    let (next, write, indirect) = (DESC_F_NEXT, DESC_F_WRITE, DESC_F_INDIRECT);
    // Address, length, flags and (split) the next.
    let chain: &[(u64, u32, u16, u16)] = match crime {
        Crime::Loop => &[(table, 16, next, 1), (table, 16, next, 0)],
        Crime::Empty => &[(table, 0, 0, 0)],
        Crime::Wrap => &[(u64::MAX - 8, 64, 0, 0)],
        Crime::Order => &[(table, 16, write | next, 1), (table, 16, 0, 0)],
        Crime::Beyond => &[(table, 16, next, 0x7fff)],
        Crime::Ragged => &[(table, 24, indirect, 0)],
        Crime::Nested => &[(table, 32, indirect, 0)],
        Crime::Nowhere => &[(1 << 50, 32, indirect, 0)],
        Crime::Overrun => &[],
    };
    let packed = matches!(ring, Ring::Packed(_));
    let nested = if packed {
        let entry = PackedDescriptor {
            addr: table,
            len: 16,
            id: 0,
            flags: indirect,
        };
        zerocopy::IntoBytes::as_bytes(&entry).to_vec()
    } else {
        let entry = Descriptor {
            addr: table,
            len: 16,
            flags: indirect,
            next: 0,
        };
        zerocopy::IntoBytes::as_bytes(&entry).to_vec()
    };
    ram.write(table, &nested);
    match ring {
        Ring::Split(ring) => {
            if matches!(crime, Crime::Overrun) {
                ring.poke_avail_idx(ring.used_idx().wrapping_add(ring_size(ring) + 1));
                return true;
            }
            for (index, (addr, len, flags, next)) in (0..).zip(chain) {
                let descriptor = Descriptor {
                    addr: *addr,
                    len: *len,
                    flags: *flags,
                    next: *next,
                };
                ring.poke_descriptor(index, &descriptor);
            }
            ring.push_head(0);
        }
        Ring::Packed(packed) => {
            // A packed chain cannot lead anywhere but on; its loop is one that never ends.
            let endless = [(table, 16, next, 0); 128];
            let chain = match crime {
                Crime::Overrun | Crime::Beyond => return false,
                Crime::Loop => &endless,
                _ => chain,
            };
            for (addr, len, flags, _) in chain {
                packed.push_descriptor(PackedDescriptor {
                    addr: *addr,
                    len: *len,
                    id: 5,
                    flags: *flags,
                });
            }
        }
    }
    true
}

fn ring_size(_: &testkit::virtio::SplitRing) -> u16 {
    128
}

fn rings<W: Way + 'static>() {
    let two = Two::start::<W>();
    for packed in [false, true] {
        for crime in CRIMES {
            let mut guest = Guest::<W>::linux(&two.culprit, packed);
            guest.works();
            let ram = guest.driver.ram().clone();
            let table = ram.alloc(4096, 16).expect("guest memory");
            let queue = guest.queue();
            let overrun = matches!(crime, Crime::Overrun);
            if !commit(queue.ring(), crime, table, &ram) {
                continue;
            }
            if !overrun {
                queue.ring().publish();
            }
            let position = queue.ring().notification_data();
            queue.kicker().send(position).expect("kicked");
            if let Err(error) = guest.driver.wait_broken() {
                panic!("{crime:?}, packed {packed}: {error}");
            }
            // A reset makes it good again.
            guest.driver.reset().expect("reset");
            for queue in &mut guest.queues {
                queue.reset();
            }
            guest.driver.resume(&mut guest.queues).expect("resumed");
            guest.works();
        }
    }
    two.end::<W>();
}

#[test]
fn broken_rings_ask_for_a_reset_over_vfio_user() {
    rings::<Vfio>();
}

#[test]
fn broken_rings_are_errors_over_vhost_user() {
    rings::<Vhost>();
}

/// Buffers that lie outside the memory: an error, not a broken ring.
fn wild_addresses<W: Way + 'static>() {
    let two = Two::start::<W>();
    for packed in [false, true] {
        let mut guest = Guest::<W>::linux(&two.culprit, packed);
        for addr in [0, 1 << 40, (65 << 20) - 100, u64::MAX - 4096] {
            let buffer = Buffer { addr, len: 512 };
            // Either the request fails, or the ring is broken: never more than that.
            let slot = guest.queue().submit(T_OUT, 0, &[buffer]).expect("room");
            guest.queue().kick().expect("kicked");
            let deadline = std::time::Instant::now() + testkit::virtio::PATIENCE;
            let done = loop {
                if let Some(done) = guest.queue().poll().expect("a good ring") {
                    break Some(done);
                }
                if guest.driver.is_lost() {
                    break None;
                }
                assert!(std::time::Instant::now() < deadline, "{addr:#x}: nothing");
            };
            match done {
                Some(done) => {
                    assert_eq!(done.slot, slot);
                    assert_ne!(done.status, S_OK, "{addr:#x}");
                }
                None => {
                    guest.driver.reset().expect("reset");
                    guest.queue().reset();
                    guest.driver.resume(&mut guest.queues).expect("resumed");
                }
            }
            guest.works();
        }
    }
    two.end::<W>();
}

#[test]
fn wild_addresses_cost_only_their_request_over_vfio_user() {
    wild_addresses::<Vfio>();
}

#[test]
fn wild_addresses_cost_only_their_request_over_vhost_user() {
    wild_addresses::<Vhost>();
}

/// The memory's file becomes short under the guest's feet.
fn truncated<W: Way + 'static>() {
    let two = Two::start::<W>();
    for packed in [false, true] {
        let mut guest = Guest::<W>::start(&two.culprit, &Setup::linux(packed).queues(2));
        for queue in &mut guest.queues {
            queue.read(0, 4096).expect("read");
        }
        nix::unistd::ftruncate(guest.driver.ram().memory().fd(), 0).expect("truncated");
        for queue in &guest.queues {
            queue.kicker().send(3).expect("kicked");
        }
        // The device is lost, or its client is disconnected.
        let deadline = std::time::Instant::now() + testkit::virtio::PATIENCE;
        while !guest.driver.is_lost() {
            assert!(std::time::Instant::now() < deadline, "it goes on");
        }
    }
    two.end::<W>();
}

#[test]
fn truncated_memory_costs_only_its_guest_over_vfio_user() {
    truncated::<Vfio>();
}

#[test]
fn truncated_memory_costs_only_its_guest_over_vhost_user() {
    truncated::<Vhost>();
}

/// Guests that die in the middle of their writes.
fn deaths<W: Way + 'static>() {
    let two = Two::start::<W>();
    for round in 0..20 {
        let mut guest = Guest::<W>::start(&two.culprit, &Setup::linux(round % 2 == 0).queues(2));
        let room = guest.queue().bounce(64 << 10).expect("guest memory");
        for queue in &mut guest.queues {
            for n in 0..32 {
                queue.submit(T_OUT, n * 128, &[room]).expect("room");
            }
            queue.kick().expect("kicked");
        }
        if round % 3 == 0 {
            guest.queue().wait().expect("the first one");
        }
    }
    two.end::<W>();
}

#[test]
fn guests_that_die_in_mid_write_leave_a_clean_device_over_vfio_user() {
    deaths::<Vfio>();
}

#[test]
fn guests_that_die_in_mid_write_leave_a_clean_device_over_vhost_user() {
    deaths::<Vhost>();
}

/// Rings of a driver that goes mad: random bytes all over its rings while it kicks.
fn garbage<W: Way + 'static>() {
    let two = Two::start::<W>();
    for round in 0..12u64 {
        let packed = round % 2 == 0;
        let mut setup = Setup::linux(packed);
        if round % 3 == 0 {
            setup.features |= feature::IN_ORDER;
        }
        let mut guest = Guest::<W>::start(&two.culprit, &setup);
        guest.works();
        let mut random = crate::virtio::mix::Random::new(round + 1);
        let ram = guest.driver.ram().clone();
        let areas = guest.queue().ring().areas();
        for _ in 0..30 {
            let area = [areas.desc, areas.driver, areas.device][random.below(3)];
            let room = match area == areas.desc {
                true => 2048,
                false if packed => 4,
                false => 260,
            };
            let at = area + random.below(room) as u64;
            ram.write(at, &[random.below(256) as u8]);
            let buffer = Buffer {
                addr: ram.base() + random.below(MIB) as u64,
                len: 512,
            };
            let ring = guest.queue().ring();
            ring.add(&[buffer], &[buffer], Table::Direct);
            ring.publish();
            let position = ring.notification_data();
            // The client of a device that has been lost is disconnected: that is an answer, too.
            let _ = guest.queue().kicker().send(position);
        }
    }
    two.end::<W>();
}

#[test]
fn garbage_in_the_rings_costs_only_its_guest_over_vfio_user() {
    garbage::<Vfio>();
}

#[test]
fn garbage_in_the_rings_costs_only_its_guest_over_vhost_user() {
    garbage::<Vhost>();
}
