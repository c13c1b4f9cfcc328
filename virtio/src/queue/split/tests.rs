use virtio_spec::feature::{EVENT_IDX, IN_ORDER, INDIRECT_DESC};

use super::*;
use crate::queue::testing::{DESC, DEVICE, DRIVER, Driver, Guest, SplitDriver, TABLES, setup};
use crate::queue::{Buffer, MAX_BUFFERS};
use virtio_spec::ring::{DESC_F_WRITE, UsedElement};

fn ring(features: u64, size: u16) -> (Guest, SplitDriver, Split, MapView) {
    let guest = Guest::new();
    let view = guest.view();
    let driver = SplitDriver::new(&guest, size);
    let ring = Split::new(&setup(features, size), &view).unwrap();
    (guest, driver, ring, view)
}

fn buffer(addr: u64, len: u32) -> Buffer {
    Buffer { addr, len }
}

fn desc(addr: u64, len: u32, flags: u16, next: u16) -> Descriptor {
    Descriptor {
        addr,
        len,
        flags,
        next,
    }
}

#[test]
fn a_chain_goes_through_the_ring_byte_for_byte() {
    let (guest, _, mut ring, view) = ring(0, 4);
    let mut chain = Chain::default();
    assert_eq!(ring.take(&view, &mut chain), Ok(None));
    // Descriptors 2 → 0 → 3, by hand.
    guest.write(DESC + 32, desc(0x1000, 16, 1, 0));
    guest.write(DESC, desc(0x2000, 512, 3, 3));
    guest.write(DESC + 48, desc(0x3000, 1, 2, 99));
    guest.write(DRIVER, [0_u16, 1, 2]);
    assert_eq!(ring.take(&view, &mut chain), Ok(Some(Head(2))));
    assert_eq!(chain.readable, [buffer(0x1000, 16)]);
    assert_eq!(chain.writable, [buffer(0x2000, 512), buffer(0x3000, 1)]);
    assert_eq!(ring.take(&view, &mut chain), Ok(None));
    assert_eq!(guest.read::<[u16; 2]>(DEVICE), [0, 0]);
    ring.put(Head(2), 513);
    assert_eq!(
        guest.read::<[u32; 3]>(DEVICE),
        [1 << 16, 2, 513],
        "flags and idx, id, len"
    );
    assert!(ring.wants_interrupt());
    assert!(!ring.wants_interrupt(), "nothing since");
    let state = ring.state();
    assert_eq!((state.next_avail, state.next_used), (1, 1));
}

#[test]
fn indices_run_through_all_of_16_bits() {
    for size in [1, 2, 32, 1024] {
        let guest = Guest::new();
        let view = guest.view();
        let mut driver = SplitDriver::at(&guest, size, 0xff80);
        let mut setup = setup(0, size);
        setup.state.next_avail = 0xff80;
        setup.state.next_used = 0xff80;
        let mut ring = Split::new(&setup, &view).unwrap();
        let mut chain = Chain::default();
        for token in 0..3000 {
            assert!(driver.offer(token, &[(u64::from(token) + 1, 1, true)], None));
            let head = ring.take(&view, &mut chain).unwrap().unwrap();
            assert_eq!(chain.writable, [buffer(u64::from(token) + 1, 1)]);
            ring.put(head, token);
            assert_eq!(driver.used(), Some((token, token)));
        }
    }
}

#[test]
fn a_chain_may_end_in_an_indirect_table() {
    let (_, mut driver, mut ring, view) = ring(INDIRECT_DESC, 8);
    let mut chain = Chain::default();
    let pieces = [
        (0x1000, 16, false),
        (0x2000, 32, false),
        (0x3000, 48, true),
        (0x4000, 1, true),
    ];
    for indirect in [None, Some(0), Some(1), Some(2), Some(3)] {
        assert!(driver.offer(7, &pieces, indirect));
        let head = ring.take(&view, &mut chain).unwrap().unwrap();
        assert_eq!(chain.readable, [buffer(0x1000, 16), buffer(0x2000, 32)]);
        assert_eq!(chain.writable, [buffer(0x3000, 48), buffer(0x4000, 1)]);
        ring.put(head, 49);
        assert_eq!(driver.used(), Some((7, 49)));
    }
}

#[test]
fn a_table_may_hold_far_more_buffers_than_the_queue() {
    let (guest, mut driver, mut ring, view) = ring(INDIRECT_DESC, 2);
    let mut chain = Chain::default();
    let table = |count: usize| {
        for i in 0..count {
            let flags = if i + 1 < count { 1 } else { 0 } | if i > 0 { 2 } else { 0 };
            let entry = desc(0x1000, 4096, flags, i as u16 + 1);
            guest.write(TABLES + 16 * i as u64, entry);
        }
        desc(TABLES, 16 * count as u32, 4, 0)
    };
    for count in [1026, MAX_BUFFERS] {
        driver.descriptor(1, table(count));
        driver.avail(1);
        assert_eq!(ring.take(&view, &mut chain), Ok(Some(Head(1))));
        assert_eq!((chain.readable.len(), chain.writable.len()), (1, count - 1));
        ring.put(Head(1), 0);
    }
    driver.descriptor(1, table(MAX_BUFFERS + 1));
    driver.avail(1);
    assert_eq!(ring.take(&view, &mut chain), Err(RingError::Length));
}

/// Offers what `prepare` wrote with descriptor 0 as the head of a queue of 4, and says how it was refused.
fn refused(features: u64, prepare: impl FnOnce(&Guest, &mut SplitDriver)) -> RingError {
    let (guest, mut driver, mut ring, view) = ring(features, 4);
    let mut chain = Chain::default();
    // A good one first: it is in flight and can be ended afterwards.
    driver.descriptor(3, desc(0x1000, 16, 0, 0));
    driver.avail(3);
    assert_eq!(ring.take(&view, &mut chain), Ok(Some(Head(3))));
    prepare(&guest, &mut driver);
    let state = ring.state();
    let error = ring.take(&view, &mut chain).unwrap_err();
    assert_eq!(chain, Chain::default());
    assert_eq!(ring.state(), state, "nothing was taken");
    // Dead: a good request is not looked at any more, what is in flight still ends.
    driver.descriptor(0, desc(0x1000, 16, 0, 0));
    assert_eq!(ring.take(&view, &mut chain), Err(error));
    assert_eq!(ring.in_flight(), 1);
    ring.put(Head(3), 5);
    assert_eq!(
        guest.read::<UsedElement>(DEVICE + 4),
        UsedElement { id: 3, len: 5 }
    );
    error
}

#[test]
fn broken_chains_are_refused_whole() {
    let chain = |features, descriptors: &[Descriptor]| {
        refused(features, |_, driver| {
            for (index, descriptor) in descriptors.iter().enumerate() {
                driver.descriptor(index as u16, *descriptor);
            }
            driver.avail(0);
        })
    };
    let end = desc(0x2000, 1, DESC_F_WRITE, 0);
    assert_eq!(chain(0, &[desc(0, 1, 1, 0)]), RingError::Length, "loop");
    assert_eq!(
        chain(0, &[desc(0, 1, 1, 1), desc(0, 1, 1, 0)]),
        RingError::Length
    );
    assert_eq!(chain(0, &[desc(0, 1, 1, 4)]), RingError::Index(4));
    assert_eq!(chain(0, &[desc(0, 0, 1, 1), end]), RingError::Buffer);
    assert_eq!(chain(0, &[desc(u64::MAX, 1, 1, 1), end]), RingError::Buffer);
    assert_eq!(
        chain(0, &[desc(0, 1, 3, 1), desc(0, 1, 0, 0)]),
        RingError::Order
    );
    let table = desc(TABLES, 16, DESC_F_INDIRECT, 0);
    assert_eq!(chain(0, &[table]), RingError::Indirect, "not negotiated");
    let more = desc(TABLES, 16, DESC_F_INDIRECT | 1, 1);
    assert_eq!(chain(INDIRECT_DESC, &[more, end]), RingError::Indirect);
    for len in [0, 8, 15, 17, u32::MAX] {
        let table = desc(TABLES, len, DESC_F_INDIRECT, 0);
        assert_eq!(chain(INDIRECT_DESC, &[table]), RingError::Indirect);
    }
    let away = desc(0x10, 16, DESC_F_INDIRECT, 0);
    let fault = RingError::Memory(Fault { iova: 0x10 });
    assert_eq!(chain(INDIRECT_DESC, &[away]), fault);
    let wraps = desc(u64::MAX - 15, 64, DESC_F_INDIRECT, 0);
    assert!(matches!(
        chain(INDIRECT_DESC, &[wraps]),
        RingError::Memory(_)
    ));
}

#[test]
fn broken_tables_are_refused_whole() {
    let table = |entries: &[Descriptor]| {
        refused(INDIRECT_DESC, |guest, driver| {
            for (index, entry) in entries.iter().enumerate() {
                guest.write(TABLES + 16 * index as u64, *entry);
            }
            let len = 16 * entries.len() as u32;
            driver.descriptor(0, desc(TABLES, len, DESC_F_INDIRECT, 0));
            driver.avail(0);
        })
    };
    assert_eq!(table(&[desc(0, 1, 1, 0)]), RingError::Length);
    assert_eq!(table(&[desc(0, 1, 1, 1)]), RingError::Index(1));
    assert_eq!(table(&[desc(0, 0, 0, 0)]), RingError::Buffer);
    assert_eq!(
        table(&[desc(0, 1, 3, 1), desc(0, 1, 0, 0)]),
        RingError::Order
    );
    assert_eq!(table(&[desc(TABLES, 16, 4, 0)]), RingError::Indirect);
    assert_eq!(
        table(&[desc(0, 1, 1, 1), desc(TABLES, 16, 4, 0)]),
        RingError::Indirect
    );
}

#[test]
fn broken_indices_are_refused() {
    assert_eq!(
        refused(0, |_, driver| driver.avail(4)),
        RingError::Index(4),
        "head beyond the table"
    );
    assert_eq!(
        refused(0, |_, driver| driver.avail(3)),
        RingError::Duplicate(3)
    );
    assert_eq!(
        refused(0, |guest, _| guest.set_u16(DRIVER + 2, 6)),
        RingError::Overrun(5)
    );
    assert_eq!(
        refused(0, |guest, _| guest.set_u16(DRIVER + 2, 0)),
        RingError::Overrun(0xffff)
    );
}

#[test]
fn what_is_not_in_flight_cannot_be_put() {
    let (guest, mut driver, mut ring, view) = ring(0, 4);
    ring.put(Head(0), 1);
    ring.put(Head(0xffff), 1);
    assert!(driver.offer(1, &[(0x1000, 1, true)], None));
    let head = ring.take(&view, &mut Chain::default()).unwrap().unwrap();
    ring.put(head, 1);
    ring.put(head, 1);
    assert_eq!(guest.u16(DEVICE + 2), 1);
    assert_eq!(ring.in_flight(), 0);
    assert!(!driver.free.is_empty() && driver.used().is_some());
}

#[test]
fn in_order_keeps_entries_back_and_loses_no_length() {
    let (guest, mut driver, mut ring, view) = ring(IN_ORDER, 8);
    let mut chain = Chain::default();
    let heads: Vec<Head> = (0..5)
        .map(|token| {
            assert!(driver.offer(token, &[(0x1000, 1, true)], None));
            ring.take(&view, &mut chain).unwrap().unwrap()
        })
        .collect();
    ring.put(heads[2], 102);
    ring.put(heads[1], 101);
    assert_eq!((guest.u16(DEVICE + 2), ring.in_flight()), (0, 3));
    assert!(!ring.wants_interrupt());
    ring.put(heads[0], 100);
    assert_eq!(guest.u16(DEVICE + 2), 3);
    ring.put(heads[4], 104);
    ring.put(heads[3], 103);
    let used: Vec<_> = std::iter::from_fn(|| driver.used()).collect();
    assert_eq!(used, [(0, 100), (1, 101), (2, 102), (3, 103), (4, 104)]);
}

#[test]
fn interrupts_follow_the_flag_or_the_event_index() {
    let (guest, mut driver, mut plain, view) = ring(0, 4);
    let mut chain = Chain::default();
    let mut round = |driver: &mut SplitDriver, ring: &mut Split| {
        assert!(driver.offer(0, &[(0x1000, 1, true)], None));
        let head = ring.take(&view, &mut chain).unwrap().unwrap();
        ring.put(head, 0);
        driver.used();
    };
    guest.set_u16(DRIVER, AVAIL_F_NO_INTERRUPT);
    round(&mut driver, &mut plain);
    assert!(!plain.wants_interrupt());
    guest.set_u16(DRIVER, 0);
    assert!(!plain.wants_interrupt(), "nothing was put since");
    round(&mut driver, &mut plain);
    assert!(plain.wants_interrupt());

    let (guest, mut driver, mut ring, view) = ring(EVENT_IDX, 4);
    let mut round = |driver: &mut SplitDriver, ring: &mut Split| {
        assert!(driver.offer(0, &[(0x1000, 1, true)], None));
        let head = ring.take(&view, &mut chain).unwrap().unwrap();
        ring.put(head, 0);
        driver.used();
    };
    // The flag says nothing now; `used_event` is behind the last element.
    guest.set_u16(DRIVER, AVAIL_F_NO_INTERRUPT);
    guest.set_u16(DRIVER + 4 + 8, 2);
    round(&mut driver, &mut ring);
    assert!(!ring.wants_interrupt());
    round(&mut driver, &mut ring);
    round(&mut driver, &mut ring);
    assert!(ring.wants_interrupt(), "entry 2 is there");
    round(&mut driver, &mut ring);
    assert!(!ring.wants_interrupt());
}

#[test]
fn kicks_are_asked_for_by_the_flag_or_the_event_index() {
    let (guest, _, mut ring_, _) = ring(0, 4);
    ring_.want_kicks(false);
    assert_eq!(guest.u16(DEVICE), USED_F_NO_NOTIFY);
    ring_.want_kicks(true);
    assert_eq!(guest.u16(DEVICE), 0);

    let (guest, mut driver, mut ring_, view) = ring(EVENT_IDX, 4);
    let event = || guest.u16(DEVICE + 4 + 32);
    assert_eq!(event(), 0);
    ring_.want_kicks(false);
    assert_eq!((event(), guest.u16(DEVICE)), (0xffff, 0));
    assert!(driver.offer(0, &[(0x1000, 1, true)], None));
    assert!(ring_.take(&view, &mut Chain::default()).unwrap().is_some());
    ring_.want_kicks(true);
    assert_eq!(event(), 1);
}

#[test]
fn rings_out_of_memory_keep_what_ends_meanwhile() {
    let (guest, mut driver, mut ring, view) = ring(0, 4);
    let mut chain = Chain::default();
    assert!(driver.offer(1, &[(0x1000, 1, true)], None));
    assert!(driver.offer(2, &[(0x1000, 1, true)], None));
    assert!(driver.offer(3, &[(0x1000, 1, true)], None));
    let first = ring.take(&view, &mut chain).unwrap().unwrap();
    let second = ring.take(&view, &mut chain).unwrap().unwrap();
    ring.put(second, 22);
    assert_eq!(driver.used(), Some((2, 22)));
    assert!(ring.wants_interrupt());

    let empty = MapView::new(guest.map().cleared());
    assert!(ring.remap(&empty).is_err());
    assert_eq!(ring.take(&empty, &mut chain), Ok(None));
    ring.put(first, 11);
    assert_eq!(ring.in_flight(), 0);
    ring.want_kicks(false);
    assert!(!ring.wants_interrupt());
    assert!(ring.remap(&empty).is_err());
    assert_eq!(driver.used(), None);

    let view = guest.view();
    assert_eq!(ring.remap(&view), Ok(()));
    assert_eq!(driver.used(), Some((1, 11)));
    assert_eq!(guest.u16(DEVICE), USED_F_NO_NOTIFY);
    assert!(ring.wants_interrupt());
    assert!(ring.take(&view, &mut chain).unwrap().is_some());
}

#[test]
fn no_memory_of_the_old_map_is_held_after_a_remap() {
    let (guest, _driver, mut ring, view) = ring(0, 4);
    assert!(!view.is_unleased());
    assert!(ring.remap(&guest.view()).is_ok());
    assert!(view.is_unleased());
    let again = guest.view();
    assert!(ring.remap(&again).is_ok());
    assert!(ring.remap(&MapView::new(guest.map().cleared())).is_err());
    assert!(again.is_unleased());
}

#[test]
fn impossible_setups_are_refused() {
    let guest = Guest::new();
    let view = guest.view();
    for size in [0, 3, 0x8001, 0xffff] {
        let error = Split::new(&setup(0, size), &view).unwrap_err();
        assert_eq!(error, RingError::Setup(size));
    }
    for (desc, driver, device) in [(8, 0, 0), (0, 1, 0), (0, 0, 2), (u64::MAX - DESC, 0, 0)] {
        let mut setup = setup(0, 8);
        setup.desc = setup.desc.wrapping_add(desc);
        setup.driver += driver;
        setup.device += device;
        assert!(matches!(
            Split::new(&setup, &view),
            Err(RingError::Memory(_))
        ));
    }
    // The least alignments of the text are enough.
    let mut setup = setup(0, 8);
    setup.desc += 16;
    setup.driver += 2;
    setup.device += 4;
    assert!(Split::new(&setup, &view).is_ok());
}

#[test]
fn a_ring_that_goes_on_elsewhere_interrupts_once() {
    let (_, mut driver, mut ring, view) = ring(0, 4);
    let mut chain = Chain::default();
    assert!(driver.offer(1, &[(0x1000, 1, true)], None));
    let head = ring.take(&view, &mut chain).unwrap().unwrap();
    ring.put(head, 1);
    let mut setup = setup(0, 4);
    setup.state = ring.state();
    // It is not known whether the one before was still able to.
    let mut ring = Split::new(&setup, &view).unwrap();
    assert!(ring.wants_interrupt());
    assert!(!ring.wants_interrupt());
    assert!(driver.offer(2, &[(0x1000, 1, true)], None));
    assert!(ring.take(&view, &mut chain).unwrap().is_some());
}
