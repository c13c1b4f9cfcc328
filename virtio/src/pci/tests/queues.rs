//! Queues: when they start, what they start with, and how one of them is reset.

use virtio_spec::feature::{RING_PACKED, RING_RESET, VERSION_1};
use virtio_spec::status::{ACKNOWLEDGE, DRIVER, DRIVER_OK, FEATURES_OK};

use super::rig::*;
use crate::{DeviceEvent, Kick, RingState, VirtioPciConfig};

#[test]
fn queues_start_with_driver_ok() {
    with_rig(|rig| {
        rig.negotiate(0);
        rig.enable(0);
        rig.write(at::QUEUE_SELECT, 2, 2);
        rig.write(at::QUEUE_SIZE, 16, 2);
        rig.enable(2);
        assert_eq!(rig.calls(), [Call::Features(VERSION_1)]);
        rig.set_status(READY);
        assert_eq!(rig.calls(), [Call::Start(0), Call::Start(2)]);
        let fake = rig.fake.borrow();
        let (first, other) = (&fake.running[&0], &fake.running[&2]);
        assert_eq!((first.size, other.size), (256, 16));
        assert_eq!(first.desc, 0x1_0010_0000);
        assert_eq!(first.driver, 0x1_0011_0000);
        assert_eq!(first.device, 0x1_0012_0000);
        assert_eq!(other.desc, 0x1_0030_0000);
        assert_eq!(first.state, RingState::default());
        assert!(matches!(first.kick, Kick::Polled));
        assert!(first.inflight.is_none() && first.log.is_none());
    });
}

#[test]
fn a_queue_may_come_late() {
    with_rig(|rig| {
        rig.negotiate(0);
        rig.set_status(READY);
        rig.calls();
        rig.enable(1);
        assert_eq!(rig.calls(), [Call::Start(1)]);
        rig.write(at::QUEUE_ENABLE, 1, 2);
        rig.write(at::QUEUE_ENABLE, 0, 2);
        assert_eq!(rig.read(at::QUEUE_ENABLE, 2), 1);
        assert_eq!(rig.calls(), [], "once");
    });
}

#[test]
fn a_queue_that_is_not_there_reads_as_absent() {
    with_rig(|rig| {
        rig.negotiate(0);
        for index in [4, 5, 1023, 0xffff] {
            rig.write(at::QUEUE_SELECT, index, 2);
            for (register, width) in [
                (at::QUEUE_SIZE, 2),
                (at::QUEUE_DESC, 8),
                (at::QUEUE_DEVICE, 8),
            ] {
                rig.write(register, 8, width);
                assert_eq!(rig.read(register, width), 0);
            }
            rig.write(at::QUEUE_VECTOR, 0, 2);
            assert_eq!(rig.read(at::QUEUE_VECTOR, 2), 0xffff);
            rig.write(at::QUEUE_ENABLE, 1, 2);
            assert_eq!(rig.read(at::QUEUE_ENABLE, 2), 0);
        }
        for index in 0..QUEUES {
            rig.write(at::QUEUE_SELECT, index.into(), 2);
            assert_eq!(rig.read(at::QUEUE_SIZE, 2), u64::from(QUEUE_SIZE));
            assert_eq!(
                rig.read(at::QUEUE_SIZE + 6, 2),
                u64::from(index),
                "notify_off"
            );
        }
        rig.set_status(READY);
        assert_eq!(rig.fake.borrow().running.len(), 0);
    });
}

#[test]
fn packed_queues_need_no_power_of_two() {
    for (features, expected) in [(0, 256), (RING_PACKED, 100)] {
        with_rig(move |rig| {
            rig.write(at::QUEUE_SIZE, 100, 2);
            assert_eq!(
                rig.read(at::QUEUE_SIZE, 2),
                256,
                "the format is not known yet"
            );
            rig.negotiate(features);
            rig.write(at::QUEUE_SIZE, 100, 2);
            assert_eq!(rig.read(at::QUEUE_SIZE, 2), expected);
            rig.enable(0);
            rig.set_status(READY);
            assert_eq!(u64::from(rig.fake.borrow().running[&0].size), expected);
        });
    }
}

#[test]
fn notifications_that_cannot_be_mapped_are_trapped() {
    let config = VirtioPciConfig {
        mappable_notify: false,
        ..VirtioPciConfig::default()
    };
    with_config(config, |rig| {
        rig.bring_up(0);
        assert!(matches!(rig.fake.borrow().running[&0].kick, Kick::Trapped));
    });
}

#[test]
fn one_queue_is_reset_and_comes_back_smaller() {
    with_rig(|rig| {
        rig.bring_up(RING_RESET);
        rig.calls();
        rig.hold();
        rig.write(at::QUEUE_SELECT, 1, 2);
        rig.write(at::QUEUE_RESET, 1, 2);
        assert_eq!(rig.calls(), [Call::Stop(1)]);
        for _ in 0..3 {
            rig.poll();
            assert_eq!(rig.read(at::QUEUE_RESET, 2), 1);
            assert_eq!(rig.read(at::QUEUE_ENABLE, 2), 1);
        }
        rig.write(at::QUEUE_RESET, 1, 2);
        rig.write(at::QUEUE_ENABLE, 1, 2);
        rig.write(at::QUEUE_SIZE, 8, 2);
        assert_eq!(rig.calls(), [], "twice is once");
        rig.release();
        assert_eq!(rig.read(at::QUEUE_RESET, 2), 0);
        assert_eq!(rig.read(at::QUEUE_ENABLE, 2), 0);
        assert_eq!(rig.read(at::QUEUE_SIZE, 2), 256);
        assert_eq!(rig.read(at::QUEUE_DESC, 8), 0);
        assert_eq!(rig.read(at::QUEUE_VECTOR, 2), 0xffff);
        rig.write(at::QUEUE_SIZE, 8, 2);
        rig.enable(1);
        assert_eq!(rig.calls(), [Call::Start(1)]);
        let fake = rig.fake.borrow();
        assert_eq!(fake.running[&1].size, 8);
        assert_eq!(fake.running.len(), 4, "the others never stopped");
    });
}

#[test]
fn a_queue_that_does_not_run_is_reset_at_once() {
    with_rig(|rig| {
        rig.negotiate(RING_RESET);
        rig.write(at::QUEUE_RESET, 1, 2);
        assert_eq!(rig.read(at::QUEUE_RESET, 2), 0, "nothing to reset");
        rig.enable(0);
        rig.write(at::QUEUE_RESET, 1, 2);
        assert_eq!(rig.read(at::QUEUE_ENABLE, 2), 0);
        assert_eq!(rig.read(at::QUEUE_DESC, 8), 0);
        rig.set_status(READY);
        assert!(rig.fake.borrow().running.is_empty());
    });
}

#[test]
fn a_device_reset_overtakes_a_queue_reset() {
    with_rig(|rig| {
        rig.bring_up(RING_RESET);
        rig.hold();
        rig.write(at::QUEUE_SELECT, 1, 2);
        rig.write(at::QUEUE_RESET, 1, 2);
        rig.set_status(0);
        assert_eq!(rig.status(), READY);
        rig.release();
        assert_eq!(rig.status(), 0);
        assert_eq!(rig.read(at::QUEUE_RESET, 2), 0);
        rig.bring_up(0);
    });
}

#[test]
fn a_queue_lost_with_its_reactor_counts_as_stopped() {
    with_rig(|rig| {
        rig.bring_up(RING_RESET);
        rig.hold();
        rig.write(at::QUEUE_RESET, 1, 2);
        rig.say(DeviceEvent::QueueStopped {
            index: 3,
            state: None,
        });
        assert_eq!(rig.read(at::QUEUE_RESET, 2), 0);
    });
}

#[test]
fn a_broken_device_serves_nothing_until_it_is_reset() {
    with_rig(|rig| {
        let line = rig.line(pci::InterruptKind::Msix, 0);
        rig.set_msix(0x8000);
        rig.negotiate(0);
        rig.write(at::CONFIG_VECTOR, 0, 2);
        rig.enable(0);
        rig.enable(1);
        rig.set_status(READY);
        rig.calls();
        for _ in 0..2 {
            let cause = "a descriptor loops".to_owned();
            rig.say(DeviceEvent::Broken {
                index: Some(1),
                cause,
            });
        }
        assert_eq!(rig.status(), READY | 0x40);
        assert_eq!(rig.calls(), [Call::Stop(0), Call::Stop(1)]);
        assert_eq!(line.count(), 1, "told once");
        rig.write(at::NOTIFY, 0, 2);
        rig.enable(2);
        rig.set_status(READY);
        assert_eq!(rig.status(), READY | 0x40, "not the driver's to clear");
        assert_eq!(rig.calls(), []);
        rig.set_status(0);
        assert_eq!(rig.status(), 0);
        rig.bring_up(0);
        assert_eq!(rig.status(), READY);
    });
}

#[test]
fn a_device_that_breaks_before_driver_ok_serves_nothing() {
    with_rig(|rig| {
        rig.negotiate(0);
        rig.enable(0);
        let cause = "its memory is gone".to_owned();
        rig.say(DeviceEvent::Broken { index: None, cause });
        rig.set_status(READY);
        let begun = ACKNOWLEDGE | DRIVER | FEATURES_OK;
        assert_eq!(rig.status(), begun | DRIVER_OK | 0x40);
        assert!(rig.fake.borrow().running.is_empty());
        rig.set_status(0);
        assert_eq!(rig.status(), 0);
    });
}
