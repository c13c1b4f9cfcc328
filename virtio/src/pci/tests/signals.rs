//! MSI-X, the pin, and going from one to the other.

use ::pci::{Function, InterruptKind};

use super::rig::*;
use crate::DeviceEvent;

const INTX_DISABLE: u16 = 0x0400;

#[test]
fn messages_go_by_their_vectors_and_leave_the_isr_alone() {
    with_rig(|rig| {
        let lines: Vec<Line> = (0..5)
            .map(|index| rig.line(InterruptKind::Msix, index))
            .collect();
        let pin = rig.line(InterruptKind::Intx, 0);
        rig.set_msix(0x8000);
        rig.bring_up(0);
        for index in 0..QUEUES {
            rig.fake.borrow().interrupt(index);
            let counts: Vec<u64> = lines.iter().map(Line::count).collect();
            let mut expected = [0; 5];
            expected[usize::from(index) + 1] = 1;
            assert_eq!(counts, expected);
        }
        rig.say(DeviceEvent::ConfigChanged);
        assert_eq!(lines[0].count(), 1);
        assert_eq!(pin.count(), 0);
        assert_eq!(rig.read(at::ISR, 1), 0);
    });
}

#[test]
fn a_running_queue_takes_another_vector() {
    with_rig(|rig| {
        let (first, second) = (
            rig.line(InterruptKind::Msix, 1),
            rig.line(InterruptKind::Msix, 4),
        );
        rig.set_msix(0x8000);
        rig.bring_up(0);
        rig.write(at::QUEUE_SELECT, 0, 2);
        rig.calls();
        rig.write(at::QUEUE_VECTOR, 4, 2);
        assert_eq!(rig.calls(), [Call::Interrupt(0)]);
        rig.fake.borrow().interrupt(0);
        assert_eq!((first.count(), second.count()), (0, 1));
        for beyond in [5, 512, 0xffff] {
            rig.write(at::QUEUE_VECTOR, beyond, 2);
            assert_eq!(rig.read(at::QUEUE_VECTOR, 2), 0xffff);
            assert!(rig.fake.borrow().running[&0].interrupt.is_none());
        }
        rig.write(at::CONFIG_VECTOR, 77, 2);
        assert_eq!(rig.read(at::CONFIG_VECTOR, 2), 0xffff);
        rig.say(DeviceEvent::ConfigChanged);
        assert_eq!((first.count(), second.count()), (0, 0));
    });
}

#[test]
fn the_pin_tells_why_and_rises_again_while_it_does() {
    with_rig(|rig| {
        let pin = rig.line(InterruptKind::Intx, 0);
        rig.bring_up(0);
        rig.fake.borrow().interrupt(2);
        assert_eq!(pin.count(), 1);
        rig.say(DeviceEvent::ConfigChanged);
        assert_eq!(pin.count(), 1);
        rig.pci.pin_unmasked(rig.cx);
        assert_eq!(pin.count(), 1, "the cause is still there");
        assert_eq!(rig.read_region(4, at::ISR, 4), [3, 0, 0, 0]);
        assert_eq!(rig.read(at::ISR, 1), 0, "a read clears it");
        rig.pci.pin_unmasked(rig.cx);
        assert_eq!(pin.count(), 0);
        rig.write(at::ISR, 0xff, 1);
        assert_eq!(rig.read(at::ISR, 1), 0, "read-only");
    });
}

#[test]
fn a_vector_is_not_needed_for_the_pin() {
    with_rig(|rig| {
        let pin = rig.line(InterruptKind::Intx, 0);
        rig.bring_up(0);
        rig.write(at::QUEUE_SELECT, 3, 2);
        rig.write(at::QUEUE_VECTOR, 0xffff, 2);
        rig.write(at::CONFIG_VECTOR, 0xffff, 2);
        rig.fake.borrow().interrupt(3);
        assert_eq!((pin.count(), rig.read(at::ISR, 1)), (1, 1));
        rig.say(DeviceEvent::ConfigChanged);
        assert_eq!((pin.count(), rig.read(at::ISR, 1)), (1, 2));
    });
}

#[test]
fn a_disabled_pin_keeps_its_cause() {
    with_rig(|rig| {
        let pin = rig.line(InterruptKind::Intx, 0);
        rig.set_command(INTX_DISABLE | 6);
        rig.bring_up(0);
        rig.fake.borrow().interrupt(0);
        rig.pci.pin_unmasked(rig.cx);
        assert_eq!(pin.count(), 0);
        rig.set_command(6);
        assert_eq!(pin.count(), 1, "it rises with the permission");
        assert_eq!(rig.read(at::ISR, 1), 1);
        rig.set_command(INTX_DISABLE | 6);
        rig.fake.borrow().interrupt(0);
        assert_eq!(
            (pin.count(), rig.read(at::ISR, 1)),
            (0, 1),
            "whoever looks sees it"
        );
        rig.set_command(6);
        assert_eq!(pin.count(), 0);
    });
}

#[test]
fn msix_may_come_and_go_while_queues_run() {
    with_rig(|rig| {
        let message = rig.line(InterruptKind::Msix, 1);
        let pin = rig.line(InterruptKind::Intx, 0);
        rig.bring_up(0);
        rig.calls();
        rig.set_msix(0x8000);
        let rebound: Vec<Call> = (0..QUEUES).map(Call::Interrupt).collect();
        assert_eq!(rig.calls(), rebound);
        rig.fake.borrow().interrupt(0);
        assert_eq!((message.count(), pin.count()), (1, 0));
        rig.set_msix(0xc000);
        rig.set_command(INTX_DISABLE);
        rig.set_command(0);
        assert_eq!(rig.calls(), [], "nothing that matters changed");
        rig.set_msix(0);
        assert_eq!(rig.calls(), rebound);
        rig.fake.borrow().interrupt(0);
        assert_eq!((message.count(), pin.count()), (0, 1));
    });
}

#[test]
fn the_generation_counts_changes_of_the_configuration() {
    with_rig(|rig| {
        let line = rig.line(InterruptKind::Msix, 0);
        rig.set_msix(0x8000);
        let before = rig.read(at::GENERATION, 1);
        rig.say(DeviceEvent::ConfigChanged);
        assert_eq!(rig.read(at::GENERATION, 1), before + 1);
        assert_eq!(line.count(), 0, "nobody is there");
        rig.bring_up(0);
        assert_eq!(line.count(), 0, "that was before this driver");
        for _ in 0..300 {
            rig.say(DeviceEvent::ConfigChanged);
            assert_eq!(line.count(), 1);
        }
        assert_eq!(rig.read(at::GENERATION, 1), (before + 301) & 0xff);
        rig.set_status(0);
        assert_eq!(rig.read(at::GENERATION, 1), (before + 301) & 0xff);
    });
}

/// Linux reads the capacity before it sets DRIVER_OK, and may not be notified before.
#[test]
fn a_change_before_driver_ok_is_told_with_it() {
    with_rig(|rig| {
        let line = rig.line(InterruptKind::Msix, 0);
        rig.set_msix(0x8000);
        rig.set_status(3);
        rig.write(at::CONFIG_VECTOR, 0, 2);
        rig.say(DeviceEvent::ConfigChanged);
        rig.accept(virtio_spec::feature::VERSION_1);
        rig.set_status(11);
        assert_eq!(line.count(), 0);
        rig.set_status(READY);
        assert_eq!(line.count(), 1);
        rig.set_status(READY);
        assert_eq!(line.count(), 0);
    });
}
