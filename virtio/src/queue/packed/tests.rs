use virtio_spec::feature::{EVENT_IDX, IN_ORDER, INDIRECT_DESC};
use virtio_spec::ring::EventSuppression;

use super::*;
use crate::queue::testing::{DESC, DEVICE, DRIVER, Driver, Guest, PackedDriver, TABLES, setup};
use crate::queue::{Buffer, MAX_BUFFERS};

fn ring(features: u64, size: u16) -> (Guest, PackedDriver, Packed, MapView) {
    let guest = Guest::new();
    let view = guest.view();
    let driver = PackedDriver::new(&guest, size);
    let ring = Packed::new(&setup(features, size), &view).unwrap();
    (guest, driver, ring, view)
}

fn buffer(addr: u64, len: u32) -> Buffer {
    Buffer { addr, len }
}

fn desc(addr: u64, len: u32, id: u16, flags: u16) -> PackedDescriptor {
    PackedDescriptor {
        addr,
        len,
        id,
        flags,
    }
}

#[test]
fn a_chain_goes_through_the_ring_byte_for_byte() {
    let (guest, _, mut ring, view) = ring(0, 3);
    let mut chain = Chain::default();
    assert_eq!(ring.take(&view, &mut chain), Ok(None));
    let at = |index: u64| DESC + 16 * index;
    // Flags by hand: NEXT 1, WRITE 2, AVAIL 0x80, USED 0x8000.
    guest.write(at(1), desc(0x2000, 512, 0xfeed, 0x0082));
    guest.write(at(0), desc(0x1000, 16, 0x1234, 0x0081));
    assert_eq!(ring.take(&view, &mut chain), Ok(Some(Head(0))));
    assert_eq!(chain.readable, [buffer(0x1000, 16)]);
    assert_eq!(chain.writable, [buffer(0x2000, 512)]);
    assert_eq!(ring.take(&view, &mut chain), Ok(None));
    // Across the end: the second one's wrap counter is the other.
    guest.write(at(0), desc(0x4000, 1, 5, 0x8002));
    guest.write(at(2), desc(0x3000, 16, 0, 0x0081));
    assert_eq!(
        ring.take(&view, &mut chain),
        Err(RingError::Length),
        "its second descriptor is in flight"
    );
}

#[test]
fn used_descriptors_follow_the_wrap_counter() {
    let (guest, mut driver, mut ring, view) = ring(0, 3);
    let mut chain = Chain::default();
    let used = |index: u64| guest.read::<PackedDescriptor>(DESC + 16 * index);
    driver.put(desc(0x1000, 16, 0, 1));
    driver.put(desc(0x2000, 512, 7, 2));
    assert_eq!(ring.take(&view, &mut chain), Ok(Some(Head(0))));
    ring.put(Head(0), 512);
    let first = used(0);
    assert_eq!((first.id, first.len, first.flags), (7, 512, 0x8082));
    // The place behind the chain, then the start with the other counter; nothing written: no WRITE.
    driver.put(desc(0x1000, 16, 8, 0));
    driver.put(desc(0x1000, 16, 9, 0));
    let one = ring.take(&view, &mut chain).unwrap().unwrap();
    let two = ring.take(&view, &mut chain).unwrap().unwrap();
    ring.put(two, 0);
    ring.put(one, 0);
    assert_eq!((used(2).id, used(2).flags), (9, 0x8080));
    assert_eq!((used(0).id, used(0).flags), (8, 0x0000));
    let state = ring.state();
    assert_eq!((state.next_avail, state.avail_wrap), (1, false));
    assert_eq!((state.next_used, state.used_wrap), (1, false));
}

#[test]
fn rings_of_any_size_turn_many_times() {
    for size in [1, 2, 3, 5, 8, 1000] {
        let (_, mut driver, mut ring, view) = ring(INDIRECT_DESC, size);
        let mut chain = Chain::default();
        for token in 0..3000 {
            let pieces = [(u64::from(token) + 1, 1, false), (9, 1, true)];
            let indirect = (size < 2 || token % 3 == 0).then_some(0);
            assert!(driver.offer(token, &pieces, indirect));
            let head = ring.take(&view, &mut chain).unwrap().unwrap();
            assert_eq!(chain.readable, [buffer(u64::from(token) + 1, 1)]);
            assert_eq!(ring.take(&view, &mut Chain::default()), Ok(None));
            ring.put(head, token);
            assert_eq!(driver.used(), Some((token, token)));
            assert_eq!(driver.used(), None);
        }
    }
}

#[test]
fn a_table_may_hold_far_more_buffers_than_the_queue() {
    let (guest, mut driver, mut ring, view) = ring(INDIRECT_DESC, 1);
    let mut chain = Chain::default();
    let table = |count: usize| {
        for i in 0..count {
            let flags = if i > 0 { 2 } else { 0 };
            // NEXT has no meaning here.
            let flags = flags | if i % 2 == 0 { 1 } else { 0 };
            guest.write(TABLES + 16 * i as u64, desc(0x1000, 4096, 0, flags));
        }
        desc(TABLES, 16 * count as u32, 3, 4)
    };
    for count in [1, 1026, MAX_BUFFERS] {
        driver.put(table(count));
        assert_eq!(ring.take(&view, &mut chain), Ok(Some(Head(0))));
        assert_eq!((chain.readable.len(), chain.writable.len()), (1, count - 1));
        ring.put(Head(0), 0);
    }
    driver.put(table(MAX_BUFFERS + 1));
    assert_eq!(ring.take(&view, &mut chain), Err(RingError::Length));
}

/// Offers descriptors as a queue of 4 with one chain in flight, and says how they were refused.
fn refused(features: u64, table: &[PackedDescriptor], chain: &[PackedDescriptor]) -> RingError {
    let (guest, mut driver, mut ring, view) = ring(features, 4);
    let mut taken = Chain::default();
    driver.put(desc(0x1000, 16, 77, 0));
    assert_eq!(ring.take(&view, &mut taken), Ok(Some(Head(0))));
    for (index, entry) in table.iter().enumerate() {
        guest.write(TABLES + 16 * index as u64, *entry);
    }
    let at = driver.next.index;
    for descriptor in chain {
        driver.put(*descriptor);
    }
    let state = ring.state();
    let error = ring.take(&view, &mut taken).unwrap_err();
    assert_eq!(taken, Chain::default());
    assert_eq!(ring.state(), state, "nothing was taken");
    // Dead: a good request is not looked at any more, what is in flight still ends.
    guest.write(DESC + 16 * u64::from(at), desc(0x1000, 16, 1, 0x80));
    assert_eq!(ring.take(&view, &mut taken), Err(error));
    ring.put(Head(0), 5);
    assert_eq!(
        guest.read::<PackedDescriptor>(DESC),
        desc(0x1000, 5, 77, 0x8082)
    );
    error
}

#[test]
fn broken_chains_are_refused_whole() {
    let chain = |features, chain: &[_]| refused(features, &[], chain);
    let end = desc(0x2000, 1, 1, 2);
    let more = desc(0x1000, 1, 1, 1);
    assert_eq!(chain(0, &[more, more, more]), RingError::Length);
    assert_eq!(chain(0, &[desc(0, 0, 1, 1), end]), RingError::Buffer);
    assert_eq!(chain(0, &[desc(u64::MAX, 1, 1, 0)]), RingError::Buffer);
    assert_eq!(
        chain(0, &[desc(0, 1, 1, 3), desc(0, 1, 1, 0)]),
        RingError::Order
    );
    assert_eq!(
        chain(0, &[desc(0, 1, 77, 0)]),
        RingError::Duplicate(77),
        "the ID is in flight"
    );
    let table = desc(TABLES, 16, 1, 4);
    assert_eq!(chain(0, &[table]), RingError::Indirect, "not negotiated");
    let both = desc(TABLES, 16, 1, 5);
    assert_eq!(chain(INDIRECT_DESC, &[both, end]), RingError::Indirect);
    for len in [0, 8, 15, 17, u32::MAX] {
        let table = desc(TABLES, len, 1, 4);
        assert_eq!(chain(INDIRECT_DESC, &[table]), RingError::Indirect);
    }
    let fault = RingError::Memory(Fault { iova: 0x10 });
    assert_eq!(chain(INDIRECT_DESC, &[desc(0x10, 16, 1, 4)]), fault);
    let table = |entries: &[PackedDescriptor]| {
        let at = desc(TABLES, 16 * entries.len() as u32, 1, 4);
        refused(INDIRECT_DESC, entries, &[at])
    };
    assert_eq!(table(&[desc(0, 0, 0, 0)]), RingError::Buffer);
    assert_eq!(
        table(&[desc(0, 1, 0, 2), desc(0, 1, 0, 0)]),
        RingError::Order
    );
    assert_eq!(
        table(&[desc(0, 1, 0, 0), desc(TABLES, 16, 0, 4)]),
        RingError::Indirect
    );
}

#[test]
fn more_than_the_ring_holds_is_refused() {
    let (guest, mut driver, mut ring, view) = ring(0, 2);
    let mut chain = Chain::default();
    driver.put(desc(0x1000, 1, 1, 0));
    driver.put(desc(0x1000, 1, 2, 0));
    assert!(ring.take(&view, &mut chain).unwrap().is_some());
    assert!(ring.take(&view, &mut chain).unwrap().is_some());
    assert_eq!(ring.take(&view, &mut chain), Ok(None));
    driver.put(desc(0x1000, 1, 3, 0));
    assert_eq!(ring.take(&view, &mut chain), Err(RingError::Overrun(3)));
    assert_eq!(guest.read::<PackedDescriptor>(DESC).id, 3);
}

#[test]
fn in_order_keeps_descriptors_back_and_loses_no_length() {
    let (_, mut driver, mut ring, view) = ring(IN_ORDER, 8);
    let mut chain = Chain::default();
    let heads: Vec<Head> = (0..4)
        .map(|token| {
            let pieces = [(0x1000, 1, false), (0x1000, 1, true)];
            assert!(driver.offer(token, &pieces, None));
            ring.take(&view, &mut chain).unwrap().unwrap()
        })
        .collect();
    ring.put(heads[2], 102);
    ring.put(heads[1], 101);
    assert_eq!((driver.used(), ring.in_flight()), (None, 2));
    assert!(!ring.wants_interrupt());
    ring.put(heads[0], 100);
    ring.put(heads[3], 103);
    let used: Vec<_> = std::iter::from_fn(|| driver.used()).collect();
    assert_eq!(used, [(0, 100), (1, 101), (2, 102), (3, 103)]);
}

#[test]
fn interrupts_follow_the_drivers_event_suppression() {
    for (features, off_wrap, flags, expected) in [
        (0, 0, EVENT_FLAGS_ENABLE, [true, true, true]),
        (0, 0, EVENT_FLAGS_DISABLE, [false, false, false]),
        (EVENT_IDX, 0, EVENT_FLAGS_DISABLE, [false, false, false]),
        // A reserved value, or one without its feature.
        (EVENT_IDX, 0, 3, [true, true, true]),
        (0, 0x8002, EVENT_FLAGS_DESC, [true, true, true]),
        // In the middle of the second chain; in the next turn.
        (EVENT_IDX, 0x8003, EVENT_FLAGS_DESC, [false, true, false]),
        (EVENT_IDX, 0x0000, EVENT_FLAGS_DESC, [false, false, true]),
    ] {
        let (guest, mut driver, mut ring, view) = ring(features, 5);
        guest.write(DRIVER, EventSuppression { off_wrap, flags });
        let wanted = [0, 1, 2].map(|token| {
            let pieces = [(0x1000, 1, false), (0x1000, 1, true)];
            assert!(driver.offer(token, &pieces, None));
            let head = ring.take(&view, &mut Chain::default()).unwrap().unwrap();
            assert!(!ring.wants_interrupt());
            ring.put(head, 1);
            assert!(driver.used().is_some());
            ring.wants_interrupt()
        });
        assert_eq!(wanted, expected, "{off_wrap:#x} {flags}");
    }
}

#[test]
fn kicks_are_asked_for_by_the_devices_event_suppression() {
    let wish = |guest: &Guest| {
        let wish: EventSuppression = guest.read(DEVICE);
        (wish.off_wrap, wish.flags)
    };
    let (guest, _, mut plain, _) = ring(0, 4);
    assert_eq!(wish(&guest).1, EVENT_FLAGS_ENABLE);
    plain.want_kicks(false);
    assert_eq!(wish(&guest).1, EVENT_FLAGS_DISABLE);

    let (guest, mut driver, mut ring, view) = ring(EVENT_IDX, 2);
    assert_eq!(wish(&guest), (0x8000, EVENT_FLAGS_DESC));
    for (token, expected) in [0x8001, 0x0000, 0x0001, 0x8000].into_iter().enumerate() {
        assert!(driver.offer(token as u32, &[(0x1000, 1, true)], None));
        let head = ring.take(&view, &mut Chain::default()).unwrap().unwrap();
        ring.put(head, 0);
        driver.used();
        ring.want_kicks(true);
        assert_eq!(wish(&guest), (expected, EVENT_FLAGS_DESC));
    }
    ring.want_kicks(false);
    assert_eq!(wish(&guest).1, EVENT_FLAGS_DISABLE);
}

#[test]
fn rings_out_of_memory_keep_what_ends_meanwhile() {
    let (guest, mut driver, mut ring, view) = ring(0, 4);
    let mut chain = Chain::default();
    for token in 0..3 {
        assert!(driver.offer(token, &[(0x1000, 1, true)], None));
    }
    let first = ring.take(&view, &mut chain).unwrap().unwrap();
    let second = ring.take(&view, &mut chain).unwrap().unwrap();
    let empty = MapView::new(guest.map().cleared());
    assert!(ring.remap(&empty).is_err());
    assert!(view.is_unleased());
    assert_eq!(ring.take(&empty, &mut chain), Ok(None));
    ring.put(second, 22);
    ring.put(first, 11);
    ring.want_kicks(false);
    assert!(!ring.wants_interrupt() && ring.in_flight() == 0);
    assert_eq!(ring.remap(&guest.view()), Ok(()));
    assert_eq!(driver.used(), Some((1, 22)));
    assert_eq!(driver.used(), Some((0, 11)));
    assert!(ring.wants_interrupt());
    assert!(ring.take(&guest.view(), &mut chain).unwrap().is_some());
}

#[test]
fn impossible_setups_are_refused() {
    let guest = Guest::new();
    let view = guest.view();
    for size in [0, 0x8001, 0xffff] {
        let error = Packed::new(&setup(0, size), &view).unwrap_err();
        assert_eq!(error, RingError::Setup(size));
    }
    for (next_avail, next_used) in [(3, 0), (0, 3), (0xffff, 0)] {
        let mut setup = setup(0, 3);
        setup.state.next_avail = next_avail;
        setup.state.next_used = next_used;
        assert!(Packed::new(&setup, &view).is_err());
    }
    for (desc, driver, device) in [(8, 0, 0), (0, 2, 0), (0, 0, 2), (u64::MAX - DESC, 0, 0)] {
        let mut setup = setup(0, 8);
        setup.desc = setup.desc.wrapping_add(desc);
        setup.driver += driver;
        setup.device += device;
        assert!(matches!(
            Packed::new(&setup, &view),
            Err(RingError::Memory(_))
        ));
    }
}

#[test]
fn a_ring_goes_on_from_its_state_at_any_point() {
    for rounds in 0..12 {
        let (_, mut driver, mut ring, view) = ring(0, 5);
        let mut chain = Chain::default();
        let mut round = |ring: &mut Packed, token| {
            let pieces = [(0x1000, 1, false), (0x2000, 1, true)];
            assert!(driver.offer(token, &pieces[..1 + token as usize % 2], None));
            let head = ring.take(&view, &mut chain).unwrap().unwrap();
            ring.put(head, token);
            assert_eq!(driver.used(), Some((token, token)));
        };
        for token in 0..rounds {
            round(&mut ring, token);
        }
        let mut setup = setup(0, 5);
        setup.state = ring.state();
        let mut ring = Packed::new(&setup, &view).unwrap();
        assert_eq!(ring.state(), setup.state);
        // A whole number of turns looks like a new ring.
        assert_eq!(ring.wants_interrupt(), setup.state != RingState::default());
        for token in rounds..rounds + 12 {
            round(&mut ring, token);
        }
    }
}
