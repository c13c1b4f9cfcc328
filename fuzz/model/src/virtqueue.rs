//! A hostile driver against the device side of a virtqueue.
//!
//! Input: the format, size and place of a queue, then what a driver and a device do in turns: chains that are right or wrong in one
//! point, any bytes anywhere in the rings, requests that end in any order, memory that goes and comes back, a stop and a start
//! somewhere else. The oracle predicts every chain, every refusal, and every byte that the device writes.

use std::sync::Arc;

use arbitrary::{Result, Unstructured};
use guest_memory::MapView;
use virtio::{Chain, DirtyLog, Head, Kick, QueueSetup, Ring, RingState, Virtqueue};
use virtio_spec::feature;

use crate::{Seed, noise};

mod driver;
mod memory;
mod model;
mod packed;
mod split;

use driver::Driver;
use memory::{BASE, Guest};
use model::Model;

/// Most operations of one input: what more would find, many short inputs find sooner.
const OPERATIONS: usize = 128;
/// Bytes of the log of written pages: for 256 pages, more than there are.
const LOG: usize = 32;

/// A queue as it was set up.
#[derive(Clone, Copy, Debug)]
struct Shape {
    size: u16,
    features: u64,
    desc: u64,
    driver: u64,
    device: u64,
}

impl Shape {
    fn has(&self, feature: u64) -> bool {
        self.features & feature != 0
    }

    fn arbitrary(input: &mut Unstructured<'_>) -> Result<Self> {
        let bits: u8 = input.arbitrary()?;
        let mut features = feature::VERSION_1;
        for (bit, feature) in [
            (0, feature::EVENT_IDX),
            (1, feature::INDIRECT_DESC),
            (2, feature::IN_ORDER),
            (3, feature::RING_PACKED),
        ] {
            if bits >> bit & 1 != 0 {
                features |= feature;
            }
        }
        let size = match bits >> 4 {
            0..=7 => 8,
            8..=14 => 1 << ((bits >> 4) % 7),
            _ => 256,
        };
        let place: u8 = input.arbitrary()?;
        let mut shape = Self {
            size,
            features,
            desc: BASE,
            driver: BASE + 0x2000,
            device: BASE + 0x4000,
        };
        if place & 0x80 != 0 {
            // Anywhere that the text allows, over each other and over the end too.
            let mut anywhere = |align: u64| -> Result<u64> {
                let at = u64::from(input.arbitrary::<u16>()?) * 2;
                Ok(BASE.wrapping_add(at & !(align - 1)).wrapping_sub(0x400))
            };
            let driver_align = if shape.has(feature::RING_PACKED) {
                4
            } else {
                2
            };
            shape.desc = anywhere(16)?;
            shape.driver = anywhere(driver_align)?;
            shape.device = anywhere(4)?;
        }
        Ok(shape)
    }

    /// What a ring that goes on at `state` should do; `None` if none can be there.
    fn model(&self, state: RingState) -> Option<Box<dyn Model>> {
        if self.has(feature::RING_PACKED) {
            packed::Packed::new(*self, state).map(|model| Box::new(model) as Box<dyn Model>)
        } else {
            Some(Box::new(split::Split::new(*self, state)))
        }
    }

    fn setup(&self, state: RingState, log: Option<&Arc<DirtyLog>>) -> QueueSetup {
        QueueSetup {
            size: self.size,
            features: self.features,
            desc: self.desc,
            driver: self.driver,
            device: self.device,
            state,
            kick: Kick::Polled,
            interrupt: None,
            inflight: None,
            log: log.cloned(),
        }
    }
}

/// A chain that the device has.
struct Taken {
    head: Head,
    /// What it may write.
    writable: Vec<(u64, u32)>,
}

struct Subject {
    guest: Guest,
    driver: Driver,
    shape: Shape,
    ring: Virtqueue,
    model: Box<dyn Model>,
    view: MapView,
    chain: Chain,
    taken: Vec<Taken>,
    log: Option<Arc<DirtyLog>>,
}

/// Runs one input.
pub fn run(data: &[u8]) {
    let mut input = Unstructured::new(data);
    // An input that ends within an operation has said all it has to say.
    let _ = operations(&mut input);
}

fn operations(input: &mut Unstructured<'_>) -> Result<()> {
    let shape = Shape::arbitrary(input)?;
    let mut guest = Guest::new(input.arbitrary()?);
    let view = guest.view();
    let state = RingState::default();
    let mut model = shape.model(state).expect("the beginning of a ring");
    let ring = Virtqueue::new(&shape.setup(state, None), &view);
    let found = model.remap(&guest);
    assert_eq!(ring.is_ok(), found.is_some(), "{ring:?} {shape:?}");
    let (Ok(ring), Some(writes)) = (ring, found) else {
        return Ok(());
    };
    guest.expect(&writes);
    let mut subject = Subject {
        driver: Driver::new(shape),
        guest,
        shape,
        ring,
        model,
        view,
        chain: Chain::default(),
        taken: Vec::new(),
        log: None,
    };
    for _ in 0..OPERATIONS {
        if input.is_empty() {
            break;
        }
        subject.operate(input)?;
        assert_eq!(usize::from(subject.ring.in_flight()), subject.taken.len());
        assert_eq!(subject.ring.state(), subject.model.state());
    }
    Ok(())
}

impl Subject {
    fn operate(&mut self, input: &mut Unstructured<'_>) -> Result<()> {
        match input.arbitrary::<u8>()? % 16 {
            0..=4 => {
                let free = |head| self.model.is_free(head);
                let used = self.model.used();
                self.driver.add(input, &mut self.guest, free, used)?;
            }
            5..=7 => self.take(),
            8..=10 => self.put(input)?,
            11 => {
                let expected = self.model.wants_interrupt(&self.guest);
                assert_eq!(self.ring.wants_interrupt(), expected);
                self.guest.expect(&[]);
            }
            12 => {
                let wanted = input.arbitrary::<u8>()? % 2 == 0;
                self.ring.want_kicks(wanted);
                let writes = self.model.want_kicks(wanted);
                self.check(&writes);
            }
            13 => self.driver.poke(input, &mut self.guest)?,
            14 => self.remap(input)?,
            _ => self.restart(input)?,
        }
        Ok(())
    }

    fn take(&mut self) {
        let expected = self.model.take(&self.guest);
        let taken = self.ring.take(&self.view, &mut self.chain);
        self.guest.expect(&[]);
        let head = match (taken, expected) {
            (Ok(None), Ok(None)) | (Err(_), Err(())) => return,
            (Ok(Some(head)), Ok(Some(expected))) => {
                let list = |buffers: &[virtio::Buffer]| -> Vec<(u64, u32)> {
                    buffers.iter().map(|b| (b.addr, b.len)).collect()
                };
                assert_eq!(list(&self.chain.readable), expected.readable);
                assert_eq!(list(&self.chain.writable), expected.writable);
                assert!(head.0 < self.shape.size);
                assert!(self.taken.iter().all(|taken| taken.head != head));
                self.model.took(head.0);
                self.taken.push(Taken {
                    head,
                    writable: expected.writable,
                });
                return;
            }
            (taken, expected) => (taken, expected),
        };
        panic!("{head:?}");
    }

    fn put(&mut self, input: &mut Unstructured<'_>) -> Result<()> {
        let code: u8 = input.arbitrary()?;
        if code == 0xff {
            // Nothing has this head: nothing happens.
            let head = Head(input.arbitrary()?);
            if self.taken.iter().all(|taken| taken.head != head) {
                self.ring.put(head, 1);
                self.guest.expect(&[]);
            }
            return Ok(());
        }
        if self.taken.is_empty() {
            return Ok(());
        }
        let taken = self.taken.remove(usize::from(code) % self.taken.len());
        let written = u32::from(input.arbitrary::<u16>()?);
        self.ring.put(taken.head, written);
        let writes = self.model.put(taken.head.0, written);
        if self.log.is_some() {
            for (addr, len) in taken.writable {
                self.guest.dirty(addr, len.into());
            }
        }
        self.check(&writes);
        Ok(())
    }

    /// The device has written just that, and logged it if it logs.
    fn check(&mut self, writes: &[memory::Write]) {
        if let Some(log) = &self.log {
            for (addr, bytes) in writes {
                self.guest.dirty(*addr, bytes.len() as u64);
            }
            let mut seen = [0; LOG];
            assert!(log.memory().read_slice(0, &mut seen));
            assert_eq!(seen, self.guest.log);
        }
        self.guest.expect(writes);
    }

    fn remap(&mut self, input: &mut Unstructured<'_>) -> Result<()> {
        self.guest.relay(input.arbitrary()?);
        self.view = self.guest.view();
        let remapped = self.ring.remap(&self.view);
        let writes = self.model.remap(&self.guest);
        assert_eq!(remapped.is_ok(), writes.is_some());
        self.check(&writes.unwrap_or_default());
        Ok(())
    }

    /// Stops and starts, from where it stood or from anywhere, with or without a log.
    fn restart(&mut self, input: &mut Unstructured<'_>) -> Result<()> {
        let code: u8 = input.arbitrary()?;
        let mut state = self.ring.state();
        if code & 0xf0 == 0xf0 {
            state.next_avail = input.arbitrary()?;
            state.next_used = input.arbitrary()?;
            if self.shape.has(feature::RING_PACKED) {
                (state.avail_wrap, state.used_wrap) = (code & 2 != 0, code & 4 != 0);
            }
        } else if code & 0xf0 == 0xe0 {
            state = RingState::default();
        } else if !self.taken.is_empty() {
            return Ok(());
        }
        let log = if code & 1 != 0 {
            let memory = guest_memory::SharedMemory::new(c"log", LOG).expect("memory");
            Some(Arc::new(DirtyLog::new(memory)))
        } else {
            None
        };
        let mut model = self.shape.model(state);
        let writes = model.as_mut().and_then(|model| model.remap(&self.guest));
        let ring = Virtqueue::new(&self.shape.setup(state, log.as_ref()), &self.view);
        assert_eq!(ring.is_ok(), writes.is_some());
        let (Ok(ring), Some(model), Some(writes)) = (ring, model, writes) else {
            return Ok(());
        };
        (self.ring, self.model, self.log) = (ring, model, log);
        self.taken.clear();
        self.guest.log = [0; LOG];
        self.driver.at(state);
        self.check(&writes);
        Ok(())
    }
}

/// Ordinary requests in all shapes, and noise.
pub fn seeds() -> Vec<Seed> {
    let mut seeds = noise::seeds(32);
    for features in 0..16u8 {
        for size in [0, 8, 11, 15] {
            // Chains of one to four buffers, each taken, ended and told; then all at once.
            let mut bytes = vec![features | size << 4, 0, 0];
            for n in 0..6u8 {
                bytes.extend([0, n, n * 3, 0, 5, 8, 0, n, 1, 11]);
            }
            for n in 0..4u8 {
                bytes.extend([0, n, n, 0]);
            }
            bytes.extend([5; 4]);
            for n in 0..4u8 {
                bytes.extend([8, 3 - n, 0, 2]);
            }
            bytes.extend([11, 12, 1, 12, 0, 14, 1, 14, 0, 15, 1]);
            seeds.push((format!("requests-{features}-{size}"), bytes));
        }
    }
    seeds
}
