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
