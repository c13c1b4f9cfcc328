//! Processes that die at every step, and the ones after them.

use std::cell::RefCell;
use std::rc::Rc;

use guest_memory::SharedMemory;
use proptest::prelude::*;
use virtio_spec::feature::{IN_ORDER, INDIRECT_DESC};

use super::*;
use crate::device::QueueSetup;
use crate::queue::testing::{
    DEVICE, Driver, Guest, PackedDriver, Piece, SplitDriver, at_each_step, setup,
};
use crate::queue::{Chain, Head, Ring, Virtqueue};

const OFFSET: usize = 128;

fn region(features: u64, size: u16) -> Inflight {
    let len = inflight_size(features, size);
    Inflight {
        memory: SharedMemory::new(c"inflight", OFFSET + len + 64).unwrap(),
        offset: OFFSET,
        len,
    }
}

/// All that outlives a process.
#[derive(Clone)]
struct Image {
    guest: Vec<u8>,
    region: Vec<u8>,
}

fn image(guest: &Guest, region: &Inflight) -> Image {
    let all = |memory: &SharedMemory| {
        let mut bytes = vec![0; memory.len()];
        assert!(memory.read_slice(0, &mut bytes));
        bytes
    };
    Image {
        guest: all(&guest.memory),
        region: all(&region.memory),
    }
}

fn restore(image: &Image, guest: &Guest, region: &Inflight) {
    assert!(guest.memory.write_slice(0, &image.guest));
    assert!(region.memory.write_slice(0, &image.region));
}

/// What the device and the driver do.
#[derive(Clone, Debug)]
enum Act {
    /// The driver offers a request of so many buffers, in a table if told so.
    Offer(usize, bool),
    Take,
    /// Puts one of the chains in flight.
    Put(usize),
    /// The driver takes back what was used.
    Reap,
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let act = prop_oneof![
        3 => (1..4_usize, any::<bool>()).prop_map(|(count, indirect)| Act::Offer(count, indirect)),
        3 => Just(Act::Take),
        3 => any::<usize>().prop_map(Act::Put),
        1 => Just(Act::Reap),
    ];
    prop::collection::vec(act, 1..40)
}

/// The buffers of a request: the first one's address is its token.
fn pieces(token: u32, count: usize) -> Vec<Piece> {
    (0..count)
        .map(|i| (u64::from(token) + 1, 1 + i as u32, i > 0))
        .collect()
}

fn token(chain: &Chain) -> u32 {
    u32::try_from(chain.readable[0].addr - 1).unwrap()
}

fn offer(driver: &mut dyn Driver, token: u32, count: usize, indirect: bool) -> bool {
    driver.offer(token, &pieces(token, count), indirect.then_some(0))
}

/// Runs `acts`, and after each store that matters looks at what a process that begins there finds: it must be given exactly what is
/// offered and not used, in the order in which it was offered, and end all of it.
fn crash_everywhere<D: Driver + Clone>(
    features: u64,
    mut driver: D,
    guest: &Guest,
    acts: &[Act],
    start: u16,
) {
    let size = driver.size();
    let inflight = region(features, size);
    let mut setup = QueueSetup {
        inflight: Some(inflight.clone()),
        ..setup(features, size)
    };
    (setup.state.next_avail, setup.state.next_used) = (start, start);
    let images = Rc::new(RefCell::new(Vec::new()));
    {
        let (guest, inflight, images) = (guest.clone(), inflight.clone(), Rc::clone(&images));
        at_each_step(Some(Box::new(move || {
            images.borrow_mut().push(image(&guest, &inflight));
        })));
    }
    let view = guest.view();
    let mut ring = Virtqueue::new(&setup, &view).unwrap();
    let mut taken: Vec<Head> = Vec::new();
    let mut offered = 0;
    let mut reaped = Vec::new();
    // The first images are of a region that is not initialised yet.
    let mut drivers = vec![(driver.clone(), offered, reaped.clone()); images.borrow().len()];
    for act in acts {
        match act {
            Act::Offer(count, indirect) => {
                let indirect = *indirect && features & INDIRECT_DESC != 0;
                if offer(&mut driver, offered, (*count).min(size.into()), indirect) {
                    offered += 1;
                }
            }
            Act::Take => {
                let mut chain = Chain::default();
                taken.extend(ring.take(&view, &mut chain).unwrap());
            }
            Act::Put(which) if !taken.is_empty() => {
                ring.put(taken.remove(which % taken.len()), 1);
            }
            Act::Put(_) => {}
            Act::Reap => reaped.extend(std::iter::from_fn(|| driver.used()).map(|used| used.0)),
        }
        // A process may also die between the steps. The driver changes nothing while the device takes a step.
        images.borrow_mut().push(image(guest, &inflight));
        drivers.resize(
            images.borrow().len(),
            (driver.clone(), offered, reaped.clone()),
        );
    }
    at_each_step(None);
    for (image, (driver, offered, reaped)) in images.borrow().iter().zip(drivers) {
        restore(image, guest, &inflight);
        restart(&setup, guest, driver, offered, reaped);
    }
}

/// Begins where another process died; the driver offered so many requests and got some of them back.
fn restart<D: Driver>(
    setup: &QueueSetup,
    guest: &Guest,
    mut driver: D,
    offered: u32,
    mut done: Vec<u32>,
) {
    let used = |driver: &mut D| -> Vec<u32> {
        std::iter::from_fn(|| driver.used())
            .map(|used| used.0)
            .collect()
    };
    let view = guest.view();
    // What the setup says of where the ring stands is old.
    let mut ring = Virtqueue::new(setup, &view).unwrap();
    // What was used and not yet seen.
    done.extend(used(&mut driver));
    let expected: Vec<u32> = (0..offered).filter(|token| !done.contains(token)).collect();
    assert_eq!(ring.in_flight(), 0);
    let mut chain = Chain::default();
    let mut heads = Vec::new();
    let mut again = Vec::new();
    while let Some(head) = ring.take(&view, &mut chain).unwrap() {
        heads.push(head);
        again.push(token(&chain));
    }
    assert_eq!(again, expected, "none lost, none twice, in order");
    assert_eq!(usize::from(ring.in_flight()), heads.len());
    for head in heads.into_iter().rev() {
        ring.put(head, 1);
    }
    let mut ended = used(&mut driver);
    ended.sort_unstable();
    assert_eq!(ended, expected);
    // A third one finds nothing but what is new.
    let mut ring = Virtqueue::new(setup, &view).unwrap();
    assert_eq!(ring.take(&view, &mut chain), Ok(None));
    assert!(ring.wants_interrupt());
    assert!(offer(&mut driver, 7777, 1, false));
    assert!(ring.take(&view, &mut chain).unwrap().is_some());
    assert_eq!(token(&chain), 7777);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn whoever_dies_in_a_split_ring_loses_nothing(
        acts in acts(), order in 0..3_u32, start in any::<u16>(), in_order in any::<bool>(),
    ) {
        let guest = Guest::new();
        let driver = SplitDriver::at(&guest, 1 << order, start);
        let features = INDIRECT_DESC | if in_order { IN_ORDER } else { 0 };
        // A ring that is new in the region begins where the VMM says.
        crash_everywhere(features, driver, &guest, &acts, start);
    }

    #[test]
    fn whoever_dies_in_a_packed_ring_loses_nothing(
        acts in acts(), size in 1..6_u16, in_order in any::<bool>(),
    ) {
        let guest = Guest::new();
        let driver = PackedDriver::new(&guest, size);
        let features = RING_PACKED | INDIRECT_DESC | if in_order { IN_ORDER } else { 0 };
        crash_everywhere(features, driver, &guest, &acts, 0);
    }
}

/// Found by the property above: between the stores of a used index and of its wrap counter the ring seemed to stand a lap back.
#[test]
fn a_position_and_its_wrap_counter_are_never_seen_apart() {
    use Act::{Offer, Put, Reap, Take};
    let guest = Guest::new();
    let driver = PackedDriver::new(&guest, 5);
    let two = || Offer(2, false);
    let acts = [
        two(),
        Take,
        Put(0),
        two(),
        Reap,
        Take,
        two(),
        Take,
        Put(0),
        Put(0),
    ];
    crash_everywhere(RING_PACKED, driver, &guest, &acts, 0);
}

#[test]
fn the_layouts_are_those_of_the_text() {
    assert_eq!(inflight_size(0, 1), 64);
    assert_eq!(inflight_size(0, 128), 128 * 16 + 64);
    assert_eq!(inflight_size(RING_PACKED, 1), 64);
    assert_eq!(inflight_size(RING_PACKED, 128), 128 * 32 + 64);

    let run = |features: u64| {
        let guest = Guest::new();
        let inflight = region(features, 4);
        let setup = QueueSetup {
            inflight: Some(inflight.clone()),
            ..setup(features, 4)
        };
        let mut driver: Box<dyn Driver> = if features == 0 {
            Box::new(SplitDriver::new(&guest, 4))
        } else {
            Box::new(PackedDriver::new(&guest, 4))
        };
        let view = guest.view();
        let mut ring = Virtqueue::new(&setup, &view).unwrap();
        let mut chain = Chain::default();
        assert!(driver.offer(0, &[(0x1000, 2, false)], None));
        assert!(driver.offer(1, &[(0x3000, 4, false), (0x5000, 6, true)], None));
        let first = ring.take(&view, &mut chain).unwrap().unwrap();
        ring.take(&view, &mut chain).unwrap().unwrap();
        ring.put(first, 0);
        let mut bytes = vec![0; inflight.len];
        assert!(inflight.memory.read_slice(OFFSET, &mut bytes));
        let mut outside = vec![1; OFFSET];
        assert!(inflight.memory.read_slice(0, &mut outside));
        assert_eq!(outside, [0; OFFSET], "other queues' parts");
        bytes
    };
    let split = run(0);
    // features; version, desc_num, last_batch_head, used_idx.
    assert_eq!(
        split[..16],
        [0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 4, 0, 0, 0, 1, 0]
    );
    // Of descriptors 0 and 1: inflight, padding, next, counter.
    assert_eq!(split[16..32], [0; 16]);
    assert_eq!(
        split[32..48],
        [1, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0]
    );

    let packed = run(RING_PACKED);
    // free_head and its old value, used_idx and its old value, wrap counters.
    assert_eq!(packed[..12], [0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 4, 0]);
    assert_eq!(packed[12..22], [0, 0, 0, 0, 1, 0, 1, 0, 1, 1]);
    // The first one's entry is free again and leads to the one behind the second's two.
    assert_eq!(packed[32..38], [0, 0, 3, 0, 0, 0]);
    // inflight, padding, next, last, num, counter.
    assert_eq!(packed[64..72], [1, 0, 2, 0, 2, 0, 2, 0]);
    assert_eq!(packed[72..80], [1, 0, 0, 0, 0, 0, 0, 0]);
    // id, flags (NEXT and AVAIL), len, addr.
    assert_eq!(
        packed[82..96],
        [0x81, 0, 4, 0, 0, 0, 0, 0x30, 0, 0, 0, 0, 0, 0]
    );
    let id = 0xfff0_u16.wrapping_add(977).to_le_bytes();
    assert_eq!(packed[112..116], [id[0], id[1], 0x82, 0]);
    assert_eq!(packed[116..128], [6, 0, 0, 0, 0, 0x50, 0, 0, 0, 0, 0, 0]);
}

#[test]
fn a_region_that_does_not_fit_is_refused() {
    let guest = Guest::new();
    let view = guest.view();
    for features in [0, RING_PACKED] {
        let open = |change: &dyn Fn(&mut Inflight)| {
            let mut inflight = region(features, 4);
            change(&mut inflight);
            let setup = QueueSetup {
                inflight: Some(inflight),
                ..setup(features, 4)
            };
            Virtqueue::new(&setup, &view).map(drop)
        };
        let refused = Err(RingError::Setup(4));
        assert_eq!(open(&|_| {}), Ok(()));
        assert_eq!(open(&|part| part.len -= 1), refused);
        assert_eq!(open(&|part| part.offset += 4), refused);
        assert_eq!(open(&|part| part.offset += 72), refused);
        assert_eq!(open(&|part| part.offset = usize::MAX - 7), refused);
        // Of another size: only if nothing is in flight there.
        let used_before = |part: &Inflight, busy: u8| {
            part.memory.store_u16(OFFSET + VERSION_AT, 1);
            part.memory.store_u16(OFFSET + DESC_NUM, 2);
            part.memory.store_u8(OFFSET + 32, busy);
        };
        assert_eq!(open(&|part| used_before(part, 0)), Ok(()));
        assert_eq!(open(&|part| used_before(part, 1)), refused);
    }
}

proptest! {
    /// Whatever is in the region and in the ring: no panic, no endless loop, and no store outside the queue's part.
    #[test]
    fn a_region_of_nonsense_harms_only_its_own_queue(
        bytes in prop::collection::vec(any::<u8>(), 256),
        ring_bytes in prop::collection::vec(any::<u8>(), 256),
        packed in any::<bool>(), size in 0..3_u32, idx in any::<u8>(),
    ) {
        let features = INDIRECT_DESC | if packed { RING_PACKED } else { 0 };
        let size = 1 << size;
        let guest = Guest::new();
        let inflight = region(features, size);
        let len = inflight.len.min(bytes.len());
        prop_assert!(inflight.memory.write_slice(OFFSET, &bytes[..len]));
        inflight.memory.store_u16(OFFSET + VERSION_AT, 1);
        inflight.memory.store_u16(OFFSET + DESC_NUM, size);
        // Places inside the ring, or nearly all is refused at once.
        if packed {
            inflight.memory.store_u16(OFFSET + super::packed::USED_IDX, u16::from(idx) % size);
            inflight.memory.store_u16(OFFSET + super::packed::OLD_USED_IDX, 0);
            for entry in 0..usize::from(size) {
                let at = OFFSET + super::packed::STATES + entry * super::packed::STATE;
                for field in [super::packed::NEXT, super::packed::LAST, super::packed::NUM] {
                    let value = inflight.memory.load_u16(at + field) % (size + 1);
                    inflight.memory.store_u16(at + field, value);
                }
                inflight.memory.store_u8(at, idx >> entry & 1);
            }
        }
        guest.write(crate::queue::testing::DESC, <[u8; 256]>::try_from(&*ring_bytes).unwrap());
        guest.set_u16(DEVICE + 2, idx.into());
        let setup = QueueSetup { inflight: Some(inflight.clone()), ..setup(features, size) };
        let view = guest.view();
        let mut chain = Chain::default();
        if let Ok(mut ring) = Virtqueue::new(&setup, &view) {
            for _ in 0..3 * size {
                let Ok(Some(head)) = ring.take(&view, &mut chain) else { break };
                if idx % 2 == 0 {
                    ring.put(head, 1);
                }
            }
        }
        let total = inflight.memory.len();
        for at in (0..OFFSET).chain(OFFSET + inflight.len..total) {
            prop_assert_eq!(inflight.memory.load_u8(at), 0);
        }
    }
}
