//! A driver and a VMM that do anything at all. The device model checks the contract.

use ::pci::{Access, CONFIG_REGION, Function, ResetKind};
use guest_memory::DmaMap;
use proptest::prelude::*;

use super::rig::*;
use crate::DeviceEvent;

#[derive(Clone, Debug)]
enum Act {
    Register(u64, u64, usize),
    Write(u32, u64, Vec<u8>),
    Read(u32, u64, usize),
    Window(u32, u32, Vec<u8>),
    Status(u8),
    Enable(u16),
    BringUp,
    Flr,
    Reset,
    Map,
    Hold,
    Release,
    Say(DeviceEvent),
    Poll,
}

fn event() -> impl Strategy<Value = DeviceEvent> {
    prop_oneof![
        Just(DeviceEvent::ConfigChanged),
        Just(DeviceEvent::Broken {
            index: Some(1),
            cause: String::new()
        }),
        Just(DeviceEvent::Broken {
            index: None,
            cause: String::new()
        }),
    ]
}

fn act() -> impl Strategy<Value = Act> {
    let bytes = proptest::collection::vec(any::<u8>(), 0..80);
    let status = prop_oneof![Just(0), Just(1), Just(3), Just(11), Just(15), any::<u8>()];
    let value = prop_oneof![0u64..4, Just(0x100), any::<u64>()];
    prop_oneof![
        8 => (0u64..0x40, value, 1usize..9).prop_map(|(at, value, len)| Act::Register(at, value, len)),
        2 => (0u32..9, 0u64..0x4100, bytes).prop_map(|(region, at, data)| Act::Write(region, at, data)),
        2 => (0u32..9, 0u64..0x4100, 0usize..80).prop_map(|(region, at, len)| Act::Read(region, at, len)),
        2 => (0u32..0x4004, prop_oneof![Just(1u32), Just(2), Just(4), any::<u32>()], proptest::collection::vec(any::<u8>(), 0..5))
            .prop_map(|(at, length, data)| Act::Window(at, length, data)),
        4 => status.prop_map(Act::Status),
        4 => (0u16..6).prop_map(Act::Enable),
        2 => Just(Act::BringUp),
        1 => Just(Act::Flr),
        1 => Just(Act::Reset),
        1 => Just(Act::Map),
        1 => Just(Act::Hold),
        2 => Just(Act::Release),
        2 => event().prop_map(Act::Say),
        2 => Just(Act::Poll),
    ]
}

/// What a transport does with an access that was deferred: it lets the client wait.
fn settle(rig: &mut Rig<'_>, access: Access) {
    if access == Access::Defer {
        rig.release();
        assert_eq!(rig.pci.deferred(), Some(Access::Done));
    }
}

fn run(rig: &mut Rig<'_>, act: Act) {
    match act {
        Act::Register(at, value, len) => {
            let access = rig.write_region(4, at, &value.to_le_bytes()[..len.min(8)]);
            settle(rig, access);
        }
        Act::Write(region, at, data) => {
            let access = rig.write_region(region, at, &data);
            settle(rig, access);
        }
        Act::Read(region, at, len) => {
            let access = rig.pci.read(rig.cx, region, at, &mut vec![0; len]);
            assert_ne!(access, Access::Defer, "no read ever waits");
        }
        Act::Window(offset, length, data) => {
            let window = rig.capability(9)[4];
            rig.write_region(CONFIG_REGION, window + 4, &[4]);
            rig.write_region(CONFIG_REGION, window + 8, &offset.to_le_bytes());
            rig.write_region(CONFIG_REGION, window + 12, &length.to_le_bytes());
            rig.read_region(CONFIG_REGION, window + 16, data.len());
            let access = rig.write_region(CONFIG_REGION, window + 16, &data);
            settle(rig, access);
        }
        Act::Status(value) => {
            let access = rig.write_region(4, at::STATUS, &[value]);
            settle(rig, access);
        }
        Act::Enable(index) => {
            for (register, value) in [(at::QUEUE_SELECT, index), (at::QUEUE_ENABLE, 1)] {
                let access = rig.write_region(4, register, &value.to_le_bytes());
                settle(rig, access);
            }
        }
        Act::BringUp => {
            rig.release();
            rig.set_status(0);
            rig.release();
            rig.bring_up(virtio_spec::feature::RING_RESET);
        }
        Act::Flr => rig.flr(),
        Act::Reset => {
            let access = rig.pci.reset(rig.cx, ResetKind::Device);
            settle(rig, access);
        }
        Act::Map => {
            let map = DmaMap::empty();
            rig.pci.map_changed(rig.cx, &map);
        }
        Act::Hold => rig.hold(),
        Act::Release => rig.release(),
        Act::Say(event) => rig.say(event),
        Act::Poll => rig.poll(),
    }
}

/// Queues that the device model serves are queues that a driver enabled, with what it reads there.
fn check(rig: &mut Rig<'_>) {
    let selected = rig.read(at::QUEUE_SELECT, 2);
    let running: Vec<_> = rig
        .fake
        .borrow()
        .running
        .iter()
        .map(|(index, setup)| (*index, setup.clone()))
        .collect();
    assert!(running.is_empty() || rig.status() & 12 == 12);
    for (index, setup) in running {
        if u64::from(index) != selected {
            continue;
        }
        assert_eq!(rig.read(at::QUEUE_ENABLE, 2), 1);
        assert_eq!(rig.read(at::QUEUE_SIZE, 2), u64::from(setup.size));
        assert_eq!(rig.read(at::QUEUE_DESC, 8), setup.desc);
        assert_eq!(rig.read(at::QUEUE_DRIVER, 8), setup.driver);
        assert_eq!(rig.read(at::QUEUE_DEVICE, 8), setup.device);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 192, ..ProptestConfig::default() })]

    #[test]
    fn nothing_a_driver_does_ends_the_device(acts in proptest::collection::vec(act(), 1..120)) {
        with_rig(|rig| {
            for act in acts {
                run(rig, act);
                check(rig);
            }
            rig.release();
            rig.set_status(0);
            rig.release();
            rig.bring_up(0);
            let gone = rig.pci.reset(rig.cx, ResetKind::ClientGone);
            rig.poll();
            assert!(rig.pci.is_quiescent(), "{gone:?}");
        });
    }
}
