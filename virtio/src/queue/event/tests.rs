use super::*;

#[test]
fn a_split_event_is_passed_by_the_entry_that_has_its_index() {
    // The definition: entries old, old + 1, … were added; the one with index `event` among them?
    for old in [0, 1, 2, 7, 8, 0x7fff, 0x8000, 0xfff9, 0xfffe, 0xffff_u16] {
        for count in 0..20_u16 {
            let new = old.wrapping_add(count);
            for event in 0..=u16::MAX {
                let passed = (0..count).any(|i| old.wrapping_add(i) == event);
                assert_eq!(
                    split_passed(event, new, count.into()),
                    passed,
                    "old {old:#x} count {count} event {event:#x}"
                );
            }
        }
    }
}

#[test]
fn a_whole_turn_passes_every_split_event() {
    for event in 0..=u16::MAX {
        for count in [0x10000, 0x10001, u32::MAX] {
            assert!(split_passed(event, 77, count));
        }
        let missed = event == 77_u16.wrapping_sub(1).wrapping_sub(0xffff);
        assert_eq!(split_passed(event, 77, 0xffff), !missed);
    }
}

fn places(size: u16) -> impl Iterator<Item = Place> {
    [true, false]
        .into_iter()
        .flat_map(move |wrap| (0..size).map(move |index| Place { index, wrap }))
}

#[test]
fn a_place_advances_one_by_one() {
    for size in 1..=17 {
        for place in places(size) {
            let mut slow = place;
            for by in 0..=size {
                assert_eq!(place.advance(by, size), slow, "{place:?} by {by} of {size}");
                slow = if slow.index + 1 == size {
                    Place {
                        index: 0,
                        wrap: !slow.wrap,
                    }
                } else {
                    Place {
                        index: slow.index + 1,
                        ..slow
                    }
                };
            }
        }
    }
    let last = Place {
        index: 0x7fff,
        wrap: true,
    };
    assert_eq!(last.off_wrap(), 0xffff);
    let all_round = last.advance(0x8000, 0x8000);
    assert_eq!((all_round.index, all_round.wrap), (0x7fff, false));
}

#[test]
fn a_packed_event_is_passed_by_the_descriptor_that_it_names() {
    for size in 1..=9_u16 {
        for old in places(size) {
            for event in places(size) {
                for count in 0..=3 * u32::from(size) {
                    let mut place = old;
                    let mut passed = false;
                    for _ in 0..count {
                        passed |= place == event;
                        place = place.advance(1, size);
                    }
                    assert_eq!(
                        packed_passed(event.off_wrap(), old, count, size),
                        passed,
                        "{old:?} + {count} of {size}, {event:?}"
                    );
                }
            }
            for outside in size..size + 3 {
                assert!(packed_passed(outside, old, 0, size));
            }
        }
    }
}
