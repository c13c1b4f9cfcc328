//! The access through configuration space.

use ::pci::{Access, CONFIG_REGION};
use virtio_spec::status::{ACKNOWLEDGE, DRIVER};

use super::rig::*;

struct Window(u64);

impl Window {
    fn find(rig: &mut Rig<'_>) -> Self {
        let at = rig.capability(9);
        let mut windows = at
            .into_iter()
            .filter(|at| rig.read_region(CONFIG_REGION, at + 3, 1) == [5]);
        Self(windows.next().unwrap())
    }

    /// As SeaBIOS does.
    fn point(&self, rig: &mut Rig<'_>, bar: u8, offset: u32, length: u32) {
        rig.write_region(CONFIG_REGION, self.0 + 4, &[bar]);
        rig.write_region(CONFIG_REGION, self.0 + 8, &offset.to_le_bytes());
        rig.write_region(CONFIG_REGION, self.0 + 12, &length.to_le_bytes());
    }

    fn read(&self, rig: &mut Rig<'_>, offset: u64, len: usize) -> Vec<u8> {
        self.point(rig, 4, offset as u32, len as u32);
        rig.read_region(CONFIG_REGION, self.0 + 16, len)
    }

    fn write(&self, rig: &mut Rig<'_>, offset: u64, data: &[u8]) -> Access {
        self.point(rig, 4, offset as u32, data.len() as u32);
        rig.write_region(CONFIG_REGION, self.0 + 16, data)
    }
}

#[test]
fn a_driver_can_live_on_it() {
    with_rig(|rig| {
        let window = Window::find(rig);
        window.write(rig, at::STATUS, &[ACKNOWLEDGE | DRIVER]);
        assert_eq!(window.read(rig, at::STATUS, 1), [ACKNOWLEDGE | DRIVER]);
        window.write(rig, at::DRIVER_FEATURE_SELECT, &1u32.to_le_bytes());
        window.write(rig, at::DRIVER_FEATURE, &1u32.to_le_bytes());
        window.write(rig, at::STATUS, &[11]);
        assert_eq!(window.read(rig, at::STATUS, 1), [11]);
        window.write(rig, at::QUEUE_SIZE, &128u16.to_le_bytes());
        assert_eq!(window.read(rig, at::QUEUE_SIZE, 2), [128, 0]);
        window.write(rig, at::QUEUE_DESC, &0x1000u32.to_le_bytes());
        window.write(rig, at::QUEUE_ENABLE, &1u16.to_le_bytes());
        window.write(rig, at::STATUS, &[READY]);
        assert_eq!(rig.fake.borrow().running[&0].size, 128);
        rig.calls();
        window.write(rig, at::NOTIFY, &0u16.to_le_bytes());
        assert_eq!(rig.calls(), [Call::Notify(0)]);
        assert_eq!(window.read(rig, at::DEVICE, 4), [1, 2, 3, 4]);
        assert_eq!(window.read(rig, at::DEVICE + 4, 4), [5, 6, 7, 8]);
        window.write(rig, at::DEVICE + 32, &[7]);
        assert_eq!(rig.calls(), [Call::WriteConfig(32, vec![7])]);
        rig.fake.borrow().interrupt(0);
        assert_eq!(window.read(rig, at::ISR, 1), [1]);
        assert_eq!(window.read(rig, at::ISR, 1), [0], "a read clears it");
        window.write(rig, at::STATUS, &[0]);
        assert_eq!(window.read(rig, at::STATUS, 1), [0]);
    });
}

#[test]
fn what_a_driver_must_not_point_to_is_not_accessed() {
    with_rig(|rig| {
        let window = Window::find(rig);
        rig.bring_up(0);
        rig.fake.borrow().interrupt(0);
        let targets: [(u8, u32, u32); 11] = [
            (4, 0x1000, 0),
            (4, 0x1000, 3),
            (4, 0x1000, 8),
            (4, 0x1000, u32::MAX),
            (4, 0x1001, 2),
            (4, 0x1002, 4),
            (4, 0x4000, 1),
            (4, u32::MAX, 1),
            (0, 0x1000, 1),
            (1, 0x1000, 1),
            (0xff, 0x1000, 1),
        ];
        for (bar, offset, length) in targets {
            window.point(rig, bar, offset, length);
            rig.read_region(CONFIG_REGION, window.0 + 16, 4);
            let written = rig.write_region(CONFIG_REGION, window.0 + 16, &[0xff; 4]);
            assert_eq!(written, Access::Done);
        }
        assert_eq!(rig.status(), READY);
        // Reads of anything else have no effect either.
        window.point(rig, 4, 0x1000, 1);
        rig.read_region(CONFIG_REGION, 0, window.0 as usize + 16);
        rig.read_region(CONFIG_REGION, window.0 + 20, 64);
        assert_eq!(rig.read(at::ISR, 1), 1);
    });
}

#[test]
fn only_what_is_the_drivers_can_be_written() {
    with_rig(|rig| {
        let window = Window::find(rig);
        let before = rig.read_region(CONFIG_REGION, window.0, 16);
        rig.write_region(CONFIG_REGION, window.0, &[0xff; 16]);
        let after = rig.read_region(CONFIG_REGION, window.0, 16);
        assert_eq!(after[..4], before[..4]);
        assert_eq!(
            after[4..],
            [
                0xff, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff
            ]
        );
    });
}

#[test]
fn a_write_through_it_waits_for_a_drain_too() {
    with_rig(|rig| {
        let window = Window::find(rig);
        rig.bring_up(0);
        rig.hold();
        window.write(rig, at::STATUS, &[0]);
        assert_eq!(window.read(rig, at::STATUS, 1), [READY]);
        assert_eq!(window.write(rig, at::STATUS, &[ACKNOWLEDGE]), Access::Defer);
        rig.release();
        assert_eq!(::pci::Function::deferred(&mut rig.pci), Some(Access::Done));
        assert_eq!(window.read(rig, at::STATUS, 1), [ACKNOWLEDGE]);
    });
}

#[test]
fn whole_configuration_space_reads_are_harmless() {
    with_rig(|rig| {
        let whole = rig.read_region(CONFIG_REGION, 0, 4096);
        assert_eq!(rig.read_region(CONFIG_REGION, 0, 4096), whole);
        let window = Window::find(rig);
        window.point(rig, 4, at::DEVICE as u32, 4);
        let dump = rig.read_region(CONFIG_REGION, 0, 4096);
        let data = window.0 as usize + 16;
        assert_eq!(dump[data..data + 4], [1, 2, 3, 4]);
    });
}
