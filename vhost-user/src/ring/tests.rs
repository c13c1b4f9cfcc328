use super::*;

#[test]
fn the_base_of_a_packed_ring_carries_both_indexes_and_wrap_counters() {
    let states = [
        (0x8000_8000, RingState::default()),
        (
            0x0007_8005,
            RingState {
                next_avail: 5,
                avail_wrap: true,
                next_used: 7,
                used_wrap: false,
            },
        ),
    ];
    for (word, state) in states {
        assert_eq!(packed_state(word), state);
        assert_eq!(base(&state, RING_PACKED), word);
    }
}

#[test]
fn the_base_of_a_split_ring_is_the_available_index() {
    let state = RingState {
        next_avail: 0xfffe,
        next_used: 0xfff0,
        ..RingState::default()
    };
    assert_eq!(base(&state, 0), 0xfffe);
}

#[test]
fn each_format_has_its_alignment() {
    let address = VringAddress {
        descriptor: 0x1000,
        available: 0x2002,
        used: 0x3004,
        ..VringAddress::default()
    };
    assert!(check_alignment(&address, 0).is_ok());
    assert!(check_alignment(&address, RING_PACKED).is_err());
    let askew = |descriptor, available, used| VringAddress {
        descriptor,
        available,
        used,
        ..VringAddress::default()
    };
    for address in [
        askew(0x1008, 0x2000, 0x3000),
        askew(0x1000, 0x2001, 0x3000),
        askew(0x1000, 0x2000, 0x3002),
    ] {
        assert!(check_alignment(&address, 0).is_err());
    }
}
