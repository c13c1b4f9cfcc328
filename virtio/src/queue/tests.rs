//! What holds for both formats, and between them.

use std::sync::Arc;

use guest_memory::{Access, DmaMap, Region, SharedMemory};
use proptest::prelude::*;
use virtio_spec::feature::{EVENT_IDX, IN_ORDER, INDIRECT_DESC, RING_PACKED};

use super::testing::*;
use super::*;

const FORMATS: [u64; 2] = [0, RING_PACKED];

fn driver(features: u64, guest: &Guest, size: u16) -> Box<dyn Driver> {
    if features & RING_PACKED == 0 {
        Box::new(SplitDriver::new(guest, size))
    } else {
        Box::new(PackedDriver::new(guest, size))
    }
}

/// A queue of each format with a driver.
struct Pair {
    guest: Guest,
    view: MapView,
    driver: Box<dyn Driver>,
    ring: Virtqueue,
    setup: QueueSetup,
    /// Token and head of what is in flight, in the order in which it was taken.
    flight: Vec<(u64, Head)>,
}

impl Pair {
    fn new(features: u64, size: u16) -> Self {
        let guest = Guest::new();
        let view = guest.view();
        let setup = setup(features, size);
        Self {
            driver: driver(features, &guest, size),
            ring: Virtqueue::new(&setup, &view).unwrap(),
            guest,
            view,
            setup,
            flight: Vec::new(),
        }
    }

    fn take(&mut self) -> Option<Chain> {
        let mut chain = Chain::default();
        let head = self.ring.take(&self.view, &mut chain).unwrap()?;
        assert!(head.0 < self.setup.size);
        assert!(self.flight.iter().all(|(_, other)| *other != head));
        let first = chain.readable.first().or(chain.writable.first()).unwrap();
        self.flight.push((first.addr, head));
        Some(chain)
    }

    /// Goes on in another process, if nothing is in flight.
    fn move_on(&mut self) {
        if self.ring.in_flight() == 0 {
            self.setup.state = self.ring.state();
            self.ring = Virtqueue::new(&self.setup, &self.view).unwrap();
            assert_eq!(self.ring.state(), self.setup.state);
        }
    }
}

#[derive(Clone, Debug)]
enum Act {
    Offer {
        readable: usize,
        writable: usize,
        indirect: Option<usize>,
    },
    Take,
    Put(usize, u32),
    Reap,
    MoveOn,
    Remap(bool),
    Kicks(bool),
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let offer = (0..4_usize, 0..4_usize, prop::option::of(0..4_usize))
        .prop_filter("a buffer at least", |(r, w, _)| r + w > 0);
    let act = prop_oneof![
        5 => offer.prop_map(|(readable, writable, indirect)| Act::Offer {
            readable,
            writable,
            indirect: indirect.map(|at| at % (readable + writable)),
        }),
        5 => Just(Act::Take),
        5 => (any::<usize>(), any::<u32>()).prop_map(|(which, written)| Act::Put(which, written)),
        2 => Just(Act::Reap),
        1 => Just(Act::MoveOn),
        1 => any::<bool>().prop_map(Act::Remap),
        1 => any::<bool>().prop_map(Act::Kicks),
    ];
    prop::collection::vec(act, 1..200)
}

proptest! {
    /// The same requests through both formats: the same chains and the same completions in the same order.
    #[test]
    fn split_and_packed_do_the_same(
        acts in acts(), order in 0..6_u32, in_order in any::<bool>(), event_idx in any::<bool>(),
    ) {
        let features = INDIRECT_DESC
            | if in_order { IN_ORDER } else { 0 }
            | if event_idx { EVENT_IDX } else { 0 };
        let mut pairs = FORMATS.map(|format| Pair::new(features | format, 1 << order));
        let mut token = 0;
        for act in acts {
            match act {
                Act::Offer { readable, writable, indirect } => {
                    let pieces: Vec<Piece> = (0..readable + writable)
                        .map(|i| (0x1000 * u64::from(token + 1) + i as u64, 1 + i as u32, i >= readable))
                        .collect();
                    let [split, packed] =
                        pairs.each_mut().map(|pair| pair.driver.offer(token, &pieces, indirect));
                    prop_assert_eq!(split, packed);
                    token += 1;
                }
                Act::Take => {
                    let [split, packed] = pairs.each_mut().map(Pair::take);
                    prop_assert_eq!(split, packed);
                }
                Act::Put(which, written) => for pair in &mut pairs {
                    if !pair.flight.is_empty() {
                        let (_, head) = pair.flight.remove(which % pair.flight.len());
                        pair.ring.put(head, written);
                    }
                },
                Act::Reap => {
                    let [split, packed] = pairs.each_mut().map(|pair| {
                        std::iter::from_fn(|| pair.driver.used()).collect::<Vec<_>>()
                    });
                    prop_assert_eq!(&split, &packed);
                    if in_order {
                        prop_assert!(split.is_sorted_by_key(|(token, _)| *token));
                    }
                }
                Act::MoveOn => pairs.each_mut().map(Pair::move_on).into_iter().collect(),
                Act::Remap(there) => for pair in &mut pairs {
                    let view = if there {
                        pair.guest.view()
                    } else {
                        MapView::new(pair.guest.map().cleared())
                    };
                    prop_assert_eq!(pair.ring.remap(&view).is_ok(), there);
                    let view = pair.guest.view();
                    prop_assert!(pair.ring.remap(&view).is_ok());
                    pair.view = view;
                },
                Act::Kicks(wanted) => for pair in &mut pairs {
                    pair.ring.want_kicks(wanted);
                },
            }
            let [split, packed] = pairs.each_ref().map(|pair| pair.ring.in_flight());
            prop_assert_eq!(split, packed);
            prop_assert_eq!(usize::from(split), pairs[0].flight.len());
            let [split, packed] = pairs.each_mut().map(|pair| pair.ring.wants_interrupt());
            if !event_idx && pairs[0].setup.state == pairs[1].setup.state {
                prop_assert_eq!(split, packed);
            }
        }
    }

    /// A driver that writes anything anywhere, at any time: no panic, no endless loop, no buffer that breaks the rules.
    #[test]
    fn hostile_drivers_are_borne(
        packed in any::<bool>(), order in 0..4_u32, features in any::<u64>(), nearly in any::<bool>(),
        memory in prop::collection::vec(any::<u8>(), 256),
        writes in prop::collection::vec((0..4_u8, any::<u16>(), any::<u64>(), any::<u8>()), 1..60),
    ) {
        let size = 1_u16 << order;
        let guest = Guest::new();
        let features = (features & !RING_PACKED) | if packed { RING_PACKED } else { 0 };
        let view = guest.view();
        let block = <[u8; 256]>::try_from(memory.as_slice()).unwrap();
        for area in [DESC, DRIVER, DEVICE, TABLES] {
            guest.write(area, block);
        }
        let mut ring = Virtqueue::new(&setup(features, size), &view).unwrap();
        let mut chain = Chain::default();
        let mut flight = Vec::new();
        let mut broken = None;
        for (area, at, mut value, put) in writes {
            if nearly {
                // Looks like a driver: flags that say available, small numbers, tables where there are some.
                let descriptor = [TABLES + (value & 0xf0), (value >> 8) & 0xff | (value & 0x87) << 48
                    | if value & 8 == 0 { 0x80 << 48 } else { 0x8000 << 48 }];
                guest.write(DESC + 16 * u64::from(at % size), descriptor);
                let descriptor = [value, (value >> 8) & 0xff | (value & 0x3) << 32 | (value >> 4 & 3) << 48];
                guest.write(TABLES + 16 * u64::from(at % 16), descriptor);
                guest.set_u16(DRIVER + 4 + 2 * u64::from(at % size), (value & 0x7) as u16);
                value &= 0x0003_0003_0003_0003;
            }
            let area = [DESC, DRIVER, DEVICE, TABLES][usize::from(area)];
            guest.write(area + u64::from(at % 32) * 8, value);
            guest.set_u16(DRIVER + 2, ring.state().next_avail.wrapping_add(u16::from(put % 3)));
            for _ in 0..4 {
                match ring.take(&view, &mut chain) {
                    Ok(Some(head)) => {
                        prop_assert!(broken.is_none());
                        prop_assert!(head.0 < size && !flight.contains(&head));
                        let all: Vec<Buffer> = chain.readable.iter().chain(&chain.writable).copied().collect();
                        prop_assert!(!all.is_empty() && all.len() <= MAX_BUFFERS);
                        prop_assert!(all.iter().all(|b| b.len > 0 && b.addr.checked_add(b.len.into()).is_some()));
                        flight.push(head);
                    }
                    Ok(None) => prop_assert!(broken.is_none()),
                    Err(error) => {
                        prop_assert_eq!(*broken.get_or_insert(error), error);
                        prop_assert!(chain == Chain::default());
                    }
                }
            }
            ring.put(Head(at), put.into());
            flight.retain(|head| head.0 != at);
            if put % 2 == 0 && !flight.is_empty() {
                ring.put(flight.remove(0), u32::MAX);
            }
            ring.wants_interrupt();
            ring.want_kicks(put % 4 < 2);
            prop_assert_eq!(usize::from(ring.in_flight()), flight.len());
        }
    }
}

#[test]
fn once_warm_nothing_is_allocated() {
    for format in FORMATS {
        for in_order in [0, IN_ORDER] {
            let features = format | in_order | INDIRECT_DESC | EVENT_IDX;
            let guest = Guest::new();
            let view = guest.view();
            let log = Arc::new(DirtyLog::new(SharedMemory::new(c"log", 64).unwrap()));
            let setup = QueueSetup {
                inflight: Some(crate::Inflight {
                    memory: SharedMemory::new(c"inflight", inflight_size(features, 16)).unwrap(),
                    offset: 0,
                    len: inflight_size(features, 16),
                }),
                log: Some(log),
                ..setup(features, 16)
            };
            let mut driver = driver(features, &guest, 16);
            let mut ring = Virtqueue::new(&setup, &view).unwrap();
            let mut chain = Chain::default();
            let pieces: Vec<Piece> = (0..40).map(|i| (BASE, 1, i > 0)).collect();
            let mut round = |warm: bool| {
                let mut flight = [Head(0); 3];
                for token in 0..3 {
                    assert!(driver.offer(token, &pieces, Some(1)));
                }
                let before = testkit::alloc::allocations();
                for head in &mut flight {
                    *head = ring.take(&view, &mut chain).unwrap().unwrap();
                }
                for head in [flight[1], flight[0], flight[2]] {
                    ring.put(head, 1);
                }
                ring.wants_interrupt();
                ring.want_kicks(true);
                let after = testkit::alloc::allocations();
                assert!(!warm || before == after, "{features:#x}");
                assert_eq!(std::iter::from_fn(|| driver.used()).count(), 3);
            };
            (0..20).for_each(|_| round(false));
            (0..50).for_each(|_| round(true));
        }
    }
}

#[test]
fn what_was_written_is_in_the_log() {
    for format in FORMATS {
        let guest = Guest::new();
        let view = guest.view();
        let log = Arc::new(DirtyLog::new(SharedMemory::new(c"log", 64).unwrap()));
        let pages = |log: &DirtyLog| -> Vec<u64> {
            let first = BASE / LOG_PAGE;
            let pages = (0..512)
                .filter(|page| log.memory().load_u8(page / 8) & (1 << (page % 8)) != 0)
                .map(|page| page as u64 - first)
                .collect();
            log.memory().zero();
            pages
        };
        let mut driver = driver(format, &guest, 4);
        let mut ring = Virtqueue::new(&setup(format, 4), &view).unwrap();
        let mut chain = Chain::default();
        let mut round = |ring: &mut Virtqueue, log: &DirtyLog| {
            let pieces = [
                (BASE + 0x4_0000, 0x3000, false),
                (BASE + 0x5_0fff, 2, true),
                (BASE + 0x6_0000, 1, true),
            ];
            assert!(driver.offer(0, &pieces, None));
            let head = ring.take(&view, &mut chain).unwrap().unwrap();
            assert!(pages(log).is_empty(), "only what is ended");
            ring.put(head, 1);
            assert!(driver.used().is_some());
            pages(log)
        };
        assert!(round(&mut ring, &log).is_empty(), "not wanted");
        ring.set_log(Some(Arc::clone(&log)));
        // The used ring, or the descriptors in its place; and the writable buffers.
        let ring_page = if format == 0 { 0x20 } else { 0 };
        let expected = vec![ring_page, 0x50, 0x51, 0x60];
        assert_eq!(round(&mut ring, &log), expected);
        ring.want_kicks(true);
        assert_eq!(pages(&log), [0x20]);
        ring.set_log(None);
        assert!(round(&mut ring, &log).is_empty());
        // A ring that begins with a log.
        let setup = QueueSetup {
            log: Some(Arc::clone(&log)),
            state: ring.state(),
            ..setup(format, 4)
        };
        let mut ring = Virtqueue::new(&setup, &view).unwrap();
        assert_eq!(pages(&log), [0x20], "its wish for kicks");
        assert_eq!(round(&mut ring, &log), expected);
    }
}

#[test]
fn rings_may_lie_across_the_borders_of_regions() {
    // Regions of 80 bytes, so that each area has several; and no two of them beside each other in our memory.
    const PIECE: u64 = 80;
    for format in FORMATS {
        let size = 16;
        let guest = Guest::new();
        let mut pieces = Vec::new();
        let mut map = DmaMap::empty();
        for area in [DESC, DRIVER, DEVICE] {
            for n in 0..4 {
                let memory = SharedMemory::new(c"piece", PIECE as usize).unwrap();
                let region = Region {
                    iova: area + n * PIECE,
                    len: PIECE,
                    access: Access::READ | Access::WRITE,
                    backing: Some(Arc::clone(memory.mapping())),
                };
                map = map.with(region).unwrap();
                pieces.push((area + n * PIECE, memory));
            }
        }
        let view = MapView::new(map);
        let setup = setup(format, size);
        let mut ring = Virtqueue::new(&setup, &view).unwrap();
        let mut driver = driver(format, &guest, size);
        let mut chain = Chain::default();
        // The driver's memory is in one piece: carried over by hand.
        let copy = |to_device: bool| {
            for (addr, memory) in &pieces {
                let mut bytes = [0; PIECE as usize];
                let flat = &guest.memory;
                if to_device {
                    assert!(flat.read_slice(Guest::at(*addr), &mut bytes));
                    memory.write_slice(0, &bytes);
                } else {
                    assert!(memory.read_slice(0, &mut bytes));
                    flat.write_slice(Guest::at(*addr), &bytes);
                }
            }
        };
        for token in 0..100 {
            let request = [(0x1000, 7, false), (0x2000 + u64::from(token), 9, true)];
            assert!(driver.offer(token, &request, None));
            copy(true);
            let head = ring.take(&view, &mut chain).unwrap().unwrap();
            assert_eq!(chain.writable[0].addr, 0x2000 + u64::from(token));
            ring.put(head, token);
            copy(false);
            assert_eq!(driver.used(), Some((token, token)));
        }
    }
}
