//! Every register of the common configuration, with every width, in every state.

use virtio_spec::feature::{ACCESS_PLATFORM, NOTIFICATION_DATA, RING_RESET, VERSION_1};
use virtio_spec::status::{ACKNOWLEDGE, DEVICE_NEEDS_RESET, DRIVER, DRIVER_OK, FEATURES_OK};

use super::super::common::{Register, WRITABLE};
use super::rig::*;
use crate::DeviceEvent;

/// States a driver can meet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Met {
    Fresh,
    Begun,
    Negotiated,
    Enabled,
    Ready,
    Broken,
}

const ALL: [Met; 6] = [
    Met::Fresh,
    Met::Begun,
    Met::Negotiated,
    Met::Enabled,
    Met::Ready,
    Met::Broken,
];

fn meet(rig: &mut Rig<'_>, state: Met) {
    if state == Met::Fresh {
        return;
    }
    rig.set_status(ACKNOWLEDGE);
    rig.set_status(ACKNOWLEDGE | DRIVER);
    rig.accept(VERSION_1);
    if state == Met::Begun {
        return;
    }
    rig.set_status(ACKNOWLEDGE | DRIVER | FEATURES_OK);
    if state == Met::Negotiated {
        return;
    }
    rig.enable(0);
    if state == Met::Enabled {
        return;
    }
    rig.set_status(READY);
    if state == Met::Broken {
        let cause = "a test".to_owned();
        rig.say(DeviceEvent::Broken { index: None, cause });
    }
}

fn in_every_state(test: fn(&mut Rig<'_>, Met)) {
    for state in ALL {
        with_rig(move |rig| {
            meet(rig, state);
            test(rig, state);
        });
    }
}

#[test]
fn reads_of_every_width_and_place_show_the_same_bytes() {
    in_every_state(|rig, state| {
        let whole = rig.common();
        for width in [1, 2, 3, 4, 8, 16, 64] {
            for offset in 0..64 {
                let part = rig.read_region(4, offset, width);
                let from = offset as usize;
                let mut expected = whole[from..64.min(from + width)].to_vec();
                expected.resize(width, 0);
                assert_eq!(part, expected, "{state:?} {offset:#x}+{width}");
            }
        }
        assert_eq!(rig.read_region(4, 0x40, 0xfc0), vec![0; 0xfc0]);
    });
}

/// What a register reads after a value was written to it, with the width it has.
#[test]
fn a_write_changes_what_the_state_allows() {
    in_every_state(|rig, state| {
        let negotiated = !matches!(state, Met::Fresh | Met::Begun);
        let enabled = !matches!(state, Met::Fresh | Met::Begun | Met::Negotiated);
        let before = rig.common();
        let old = |register| {
            let (at, width, _) = WRITABLE.iter().find(|entry| entry.2 == register).unwrap();
            let mut value = [0; 8];
            value[..*width].copy_from_slice(&before[*at..at + width]);
            u64::from_le_bytes(value)
        };
        for (at, width, register) in WRITABLE {
            let stays = |fixed, value| if fixed { old(register) } else { value };
            let cases: &[(u64, u64)] = &match register {
                Register::DeviceFeatureSelect | Register::DriverFeatureSelect => {
                    vec![(7, 7), (0xffff_ffff, 0xffff_ffff), (1, 1)]
                }
                Register::DriverFeature => {
                    vec![(0x21, stays(negotiated, 0x21)), (1, stays(negotiated, 1))]
                }
                Register::ConfigVector => vec![(2, 2), (4, 4), (5, 0xffff), (0xffff, 0xffff)],
                Register::QueueSelect => vec![(3, 3), (0xffff, 0xffff), (0, 0)],
                Register::QueueSize => vec![
                    (64, stays(enabled, 64)),
                    (0, stays(enabled, 64)),
                    (48, stays(enabled, 64)),
                    (512, stays(enabled, 64)),
                    (0x8000, stays(enabled, 64)),
                    (1, stays(enabled, 1)),
                    (256, 256),
                ],
                Register::QueueVector => vec![(3, 3), (99, 0xffff), (0, 0)],
                Register::QueueEnable => {
                    let on = u64::from(enabled);
                    vec![(0, on), (2, on), (0xffff, on), (1, u64::from(negotiated))]
                }
                // Queue 0 is enabled by now if it can be.
                Register::DescLow | Register::DriverLow | Register::DeviceLow => {
                    vec![(0x1234_5670, stays(negotiated, 0x1234_5670))]
                }
                Register::DescHigh | Register::DriverHigh | Register::DeviceHigh => {
                    vec![(0x77, stays(negotiated, 0x77))]
                }
                // Not negotiated.
                Register::QueueReset => vec![(1, 0), (0xffff, 0)],
                // Has tests of its own.
                Register::Status => vec![],
            };
            for (value, expected) in cases {
                rig.write(at as u64, *value, width);
                let found = rig.read(at as u64, width);
                assert_eq!(found, *expected, "{state:?} {register:?} <- {value:#x}");
            }
        }
    });
}

/// Nothing but the registers that a write covers whole changes, whatever its width and place.
#[test]
fn writes_of_other_widths_reach_whole_registers_only() {
    in_every_state(|rig, state| {
        // One after the other, the pattern grows: so no write is without effect because its value is there already.
        let mut pattern = 0u64;
        for width in [1usize, 2, 3, 4, 8] {
            for offset in 0..64usize {
                pattern = pattern.wrapping_add(0x0101_0101_0101_0101);
                let data = pattern.to_le_bytes();
                let covers = |at: usize, len: usize| offset <= at && at + len <= offset + width;
                let covered: Vec<Register> = WRITABLE
                    .iter()
                    .filter(|(at, len, _)| covers(*at, *len))
                    .map(|entry| entry.2)
                    .collect();
                // These change what others show.
                if covered.iter().any(|register| {
                    matches!(
                        register,
                        Register::Status
                            | Register::QueueSelect
                            | Register::DeviceFeatureSelect
                            | Register::DriverFeatureSelect
                    )
                }) {
                    continue;
                }
                let before = rig.common();
                rig.write_region(4, offset as u64, &data[..width]);
                let after = rig.common();
                for (at, len, register) in WRITABLE {
                    if !covered.contains(&register) {
                        let range = at..at + len;
                        assert_eq!(
                            before[range.clone()],
                            after[range],
                            "{state:?} {register:?} after {offset:#x}+{width}"
                        );
                    }
                }
                for fixed in [
                    4..8,
                    0x12..0x14,
                    0x15..0x16,
                    0x1e..0x20,
                    0x38..0x3a,
                    0x3c..0x40,
                ] {
                    assert_eq!(before[fixed.clone()], after[fixed], "{state:?} read-only");
                }
            }
        }
        rig.write_region(4, 0x40, &[0xff; 0xfc0]);
        assert_eq!(rig.read_region(4, 0x40, 0xfc0), vec![0; 0xfc0]);
    });
}

#[test]
fn one_wide_write_is_several() {
    with_rig(|rig| {
        rig.negotiate(0);
        let mut data = Vec::new();
        data.extend(2u16.to_le_bytes());
        data.extend(32u16.to_le_bytes());
        data.extend(1u16.to_le_bytes());
        data.extend(1u16.to_le_bytes());
        data.extend([0, 0]);
        data.extend(0x1_0000_2000u64.to_le_bytes());
        rig.write_region(4, at::QUEUE_SELECT, &data);
        assert_eq!(rig.read(at::QUEUE_SELECT, 2), 2);
        assert_eq!(rig.read(at::QUEUE_SIZE, 2), 32);
        assert_eq!(rig.read(at::QUEUE_ENABLE, 2), 1);
        assert_eq!(rig.read(at::QUEUE_DESC, 8), 0, "enabled before");
        rig.write(at::QUEUE_SELECT, 1, 2);
        rig.write(at::QUEUE_DRIVER, 0x1_0000_3000, 8);
        assert_eq!(rig.read(at::QUEUE_DRIVER, 8), 0x1_0000_3000);
    });
}

#[test]
fn features_are_shown_by_halves() {
    with_rig(|rig| {
        let offered = OFFERED | VERSION_1 | ACCESS_PLATFORM | NOTIFICATION_DATA | RING_RESET;
        for (select, expected) in [
            (0, offered & 0xffff_ffff),
            (1, offered >> 32),
            (2, 0),
            (0x8000_0000, 0),
            (0xffff_ffff, 0),
        ] {
            rig.write(at::DEVICE_FEATURE_SELECT, select, 4);
            assert_eq!(rig.read(at::DEVICE_FEATURE, 4), expected, "{select:#x}");
        }
    });
}

#[test]
fn bits_of_other_transports_are_not_offered() {
    use virtio_spec::feature::{
        NOTIF_CONFIG_DATA, SR_IOV, VHOST_LOG_ALL, VHOST_USER_PROTOCOL_FEATURES,
    };
    with_rig(|rig| {
        let foreign = NOTIF_CONFIG_DATA | SR_IOV | VHOST_LOG_ALL | VHOST_USER_PROTOCOL_FEATURES;
        rig.fake.borrow_mut().offered |= foreign;
        for (select, bits) in [(0, foreign & 0xffff_ffff), (1, foreign >> 32)] {
            rig.write(at::DEVICE_FEATURE_SELECT, select, 4);
            assert_eq!(rig.read(at::DEVICE_FEATURE, 4) & bits, 0);
        }
    });
}

#[test]
fn features_that_were_not_offered_are_refused() {
    for (features, acceptable) in [
        (VERSION_1, true),
        (
            OFFERED | VERSION_1 | RING_RESET | NOTIFICATION_DATA | ACCESS_PLATFORM,
            true,
        ),
        (0, false),
        (OFFERED, false),
        (VERSION_1 | 1 << 30, false),
        (VERSION_1 | 1 << 63, false),
        (VERSION_1 | 1 << 6, false),
    ] {
        with_rig(move |rig| {
            rig.set_status(ACKNOWLEDGE | DRIVER);
            rig.accept(features);
            rig.set_status(ACKNOWLEDGE | DRIVER | FEATURES_OK);
            let accepted = rig.status() & FEATURES_OK != 0;
            assert_eq!(accepted, acceptable, "{features:#x}");
            let told = rig.fake.borrow().features;
            assert_eq!(told, acceptable.then_some(features));
            if !acceptable {
                rig.set_status(READY);
                assert_eq!(rig.status(), ACKNOWLEDGE | DRIVER, "not without features");
                rig.enable(0);
                assert_eq!(rig.read(at::QUEUE_ENABLE, 2), 0);
                rig.accept(VERSION_1);
                rig.set_status(READY);
                assert_eq!(rig.status(), READY, "a second thought is allowed");
            }
        });
    }
}

#[test]
fn features_beyond_bit_63_are_refused() {
    with_rig(|rig| {
        rig.set_status(ACKNOWLEDGE | DRIVER);
        rig.accept(VERSION_1);
        rig.write(at::DRIVER_FEATURE_SELECT, 2, 4);
        rig.write(at::DRIVER_FEATURE, 1, 4);
        rig.set_status(ACKNOWLEDGE | DRIVER | FEATURES_OK);
        assert_eq!(rig.status() & FEATURES_OK, 0);
        // As a driver of more than 64 bits does: it writes zeroes there.
        rig.write(at::DRIVER_FEATURE, 0, 4);
        rig.set_status(ACKNOWLEDGE | DRIVER | FEATURES_OK);
        assert_ne!(rig.status() & FEATURES_OK, 0);
    });
}

#[test]
fn a_driver_keeps_the_features_that_it_was_shown() {
    with_rig(|rig| {
        rig.set_status(ACKNOWLEDGE | DRIVER);
        assert_eq!(rig.read(at::DEVICE_FEATURE, 4) & 1 << 9, 1 << 9);
        rig.fake.borrow_mut().offered &= !(1 << 9);
        rig.accept(VERSION_1 | 1 << 9);
        rig.set_status(ACKNOWLEDGE | DRIVER | FEATURES_OK);
        assert_ne!(rig.status() & FEATURES_OK, 0);
        rig.set_status(0);
        assert_eq!(rig.status(), 0);
        assert_eq!(
            rig.read(at::DEVICE_FEATURE, 4) & 1 << 9,
            0,
            "the next one sees the new"
        );
    });
}

#[test]
fn the_device_configuration_is_the_models() {
    with_rig(|rig| {
        let whole: Vec<u8> = (1..=72).collect();
        assert_eq!(rig.read_region(4, at::DEVICE, 72), whole);
        assert_eq!(rig.read(at::DEVICE + 2, 2), 0x0403);
        assert_eq!(
            rig.read(at::DEVICE + 70, 4),
            0x4847,
            "zeroes behind the end"
        );
        assert_eq!(rig.read(at::DEVICE + 72, 8), 0);
        assert_eq!(rig.read(at::DEVICE + 0xff8, 8), 0);
        rig.write(at::DEVICE + 32, 1, 1);
        assert_eq!(rig.calls(), [], "not before the features are agreed on");
        rig.negotiate(0);
        rig.calls();
        rig.write(at::DEVICE + 32, 1, 1);
        rig.write(at::DEVICE + 72, 1, 1);
        rig.write(at::DEVICE + 0x100, 1, 4);
        assert_eq!(rig.calls(), [Call::WriteConfig(32, vec![1])]);
    });
}

#[test]
fn an_access_may_cover_several_structures() {
    with_rig(|rig| {
        rig.bring_up(0);
        let mut whole = vec![0; 0x4000];
        whole[..64].copy_from_slice(&rig.common());
        whole[0x2000..0x2048].copy_from_slice(&rig.read_region(4, at::DEVICE, 72));
        assert_eq!(rig.read_region(4, 0, 0x4000), whole);
        assert_eq!(rig.read_region(4, 0xffe, 4), [0; 4]);
        rig.calls();
        rig.write_region(4, 0, &[0xff; 0x4000]);
        let calls = rig.calls();
        let notified = calls.iter().filter(|call| matches!(call, Call::Notify(_)));
        assert_eq!(notified.count(), usize::from(QUEUES));
        assert!(calls.contains(&Call::WriteConfig(0, vec![0xff; 0x1000])));
        assert_eq!(
            rig.status() & (FEATURES_OK | DRIVER_OK),
            FEATURES_OK | DRIVER_OK
        );
        assert_eq!(
            rig.status() & DEVICE_NEEDS_RESET,
            0,
            "is not the driver's to set"
        );
    });
}
