use super::*;

fn command(cid: u16) -> Command {
    Command {
        cid,
        ..Command::default()
    }
}

fn insert(slots: &mut Slots, cid: u16, state: State) -> u64 {
    let tag = slots.next_tag().unwrap();
    slots.insert(command(cid), state);
    tag
}

#[test]
fn tags_name_group_slot_and_use() {
    let mut slots = Slots::new(0xabcd, 3);
    let first = insert(&mut slots, 1, State::InRing);
    assert_eq!(Slots::group_of(first), 0xabcd);
    let (index, slot) = slots.find(first).unwrap();
    assert_eq!(slot.command.cid, 1);
    assert_eq!(slots.tag_of(index), Some(first));
    let (taken, state) = slots.remove(index).unwrap();
    assert!(taken.cid == 1 && matches!(state, State::InRing));
    assert!(slots.find(first).is_none());
    // The slot is used again under another tag: a late completion of its former use finds nothing.
    let second = insert(&mut slots, 2, State::InRing);
    assert_ne!(first, second);
    assert!(slots.find(first).is_none());
    assert_eq!(
        slots.find(second).map(|(_, slot)| slot.command.cid),
        Some(2)
    );
    assert!(slots.remove(index).is_some());
    assert!(slots.remove(index).is_none());
}

#[test]
fn there_are_as_many_as_promised() {
    let mut slots = Slots::new(0, 5);
    let tags: Vec<u64> = (0..5)
        .map(|cid| insert(&mut slots, cid, State::InRing))
        .collect();
    assert_eq!(slots.used(), 5);
    assert_eq!(slots.next_tag(), None);
    let (index, _) = slots.find(tags[3]).unwrap();
    slots.remove(index);
    assert_eq!(slots.used(), 4);
    assert!(slots.next_tag().is_some());
    for (cid, tag) in (0..).zip(&tags) {
        assert_eq!(
            slots.find(*tag).map(|(_, slot)| slot.command.cid),
            (cid != 3).then_some(cid)
        );
    }
    assert!(slots.find(u64::MAX).is_none());
}

#[test]
fn those_to_be_tried_again_stand_in_line() {
    let mut slots = Slots::new(0, 8);
    assert!(!slots.has_queued());
    let status = Status::SUCCESS;
    for cid in 0..3 {
        insert(&mut slots, cid, State::Unposted(status));
    }
    insert(&mut slots, 9, State::InRing);
    assert_eq!(slots.queued(), 3);
    let (index, first, state) = slots.pop().unwrap();
    assert!(first.cid == 0 && matches!(state, State::Unposted(_)));
    slots.set(index, command(7), State::Unposted(status));
    let order: Vec<u16> = std::iter::from_fn(|| slots.pop())
        .map(|(_, command, _)| command.cid)
        .collect();
    assert_eq!(order, [1, 2, 7]);
    assert!(!slots.has_queued());
    assert_eq!(slots.used(), 4);
    // An empty line takes newcomers again.
    slots.set(index, command(8), State::Unposted(status));
    assert_eq!(slots.pop().map(|(_, command, _)| command.cid), Some(8));
    slots.set(index, command(8), State::InRing);
    assert!(!slots.has_queued());
}
