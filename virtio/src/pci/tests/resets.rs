//! Every reset, in every situation.

use ::pci::{Access, Function, ResetKind};
use virtio_spec::status::{ACKNOWLEDGE, DRIVER};

use super::rig::*;
use crate::DeviceEvent;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum How {
    Status,
    Flr,
    Device,
    Gone,
    Removed,
}

const HOWS: [How; 5] = [How::Status, How::Flr, How::Device, How::Gone, How::Removed];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Situation {
    Untouched,
    Negotiated,
    Running,
    /// A queue is being stopped.
    StoppingOne,
    Broken,
    /// A reset of each kind has begun and has not ended.
    Draining(How),
}

impl How {
    fn leaves(self) -> bool {
        matches!(self, Self::Gone | Self::Removed)
    }
}

fn reset(rig: &mut Rig<'_>, how: How) -> Access {
    let kind = match how {
        How::Status => return rig.write_region(4, at::STATUS, &[0]),
        How::Flr => {
            rig.flr();
            return Access::Done;
        }
        How::Device => ResetKind::Device,
        How::Gone => ResetKind::ClientGone,
        How::Removed => ResetKind::Removed,
    };
    rig.pci.reset(rig.cx, kind)
}

fn situations() -> Vec<Situation> {
    let mut all = vec![
        Situation::Untouched,
        Situation::Negotiated,
        Situation::Running,
        Situation::StoppingOne,
        Situation::Broken,
    ];
    all.extend(
        HOWS.into_iter()
            .filter(|how| !how.leaves())
            .map(Situation::Draining),
    );
    all
}

fn arrange(rig: &mut Rig<'_>, situation: Situation) {
    match situation {
        Situation::Untouched => {}
        Situation::Negotiated => rig.negotiate(0),
        Situation::Running => rig.bring_up(0),
        Situation::StoppingOne => {
            rig.bring_up(virtio_spec::feature::RING_RESET);
            rig.hold();
            rig.write(at::QUEUE_RESET, 1, 2);
        }
        Situation::Broken => {
            rig.bring_up(0);
            rig.hold();
            let cause = "a test".to_owned();
            rig.say(DeviceEvent::Broken { index: None, cause });
        }
        Situation::Draining(how) => {
            rig.bring_up(0);
            rig.hold();
            reset(rig, how);
        }
    }
    rig.hold();
}

/// What holds after a reset that has ended, whatever it was.
fn is_as_new(rig: &mut Rig<'_>) {
    assert_eq!(rig.status(), 0);
    let common = rig.common();
    with_rig(move |fresh| {
        let mut expected = fresh.common();
        expected[at::GENERATION as usize] = common[at::GENERATION as usize];
        assert_eq!(common, expected);
    });
    assert_eq!(rig.read(at::ISR, 1), 0);
    assert!(!rig.fake.borrow().resetting);
    assert!(rig.fake.borrow().running.is_empty());
}

#[test]
fn every_reset_in_every_situation_ends_as_new() {
    for situation in situations() {
        for how in HOWS.into_iter().filter(|how| !how.leaves()) {
            for again in [None, Some(How::Status), Some(How::Flr), Some(How::Device)] {
                with_rig(move |rig| {
                    let what = format!("{how:?}, {again:?} in {situation:?}");
                    arrange(rig, situation);
                    let before = rig.status();
                    let access = reset(rig, how);
                    let again = again.map(|again| (again, reset(rig, again)));
                    rig.poll();
                    let drains = situation != Situation::Untouched;
                    assert_eq!(rig.status(), if drains { before } else { 0 }, "{what}");
                    assert_eq!(rig.fake.borrow().resetting, drains, "{what}");
                    let answers = [Some((how, access)), again];
                    for (how, access) in answers.into_iter().flatten() {
                        let deferred = how == How::Device && drains;
                        let expected = if deferred {
                            Access::Defer
                        } else {
                            Access::Done
                        };
                        assert_eq!(access, expected, "{what}");
                    }
                    assert_eq!(rig.pci.deferred(), None, "{what}");
                    rig.release();
                    let waits = answers
                        .iter()
                        .flatten()
                        .any(|(_, access)| *access == Access::Defer)
                        || drains && situation == Situation::Draining(How::Device);
                    assert_eq!(rig.pci.deferred(), waits.then_some(Access::Done), "{what}");
                    assert_eq!(rig.pci.deferred(), None, "{what}: taken once");
                    let resets = rig.calls();
                    let resets = resets.iter().filter(|call| **call == Call::Reset).count();
                    assert_eq!(resets, usize::from(drains), "{what}: one drain");
                    is_as_new(rig);
                    rig.bring_up(0);
                });
            }
        }
    }
}

#[test]
fn a_client_that_goes_leaves_nothing_behind_in_any_situation() {
    for situation in situations() {
        for how in [How::Gone, How::Removed] {
            for twice in [false, true] {
                with_rig(move |rig| {
                    let what = format!("{how:?} in {situation:?}");
                    arrange(rig, situation);
                    let line = rig.line(::pci::InterruptKind::Msix, 0);
                    rig.calls();
                    assert_eq!(reset(rig, how), Access::Defer, "{what}");
                    if twice {
                        assert_eq!(reset(rig, how), Access::Defer, "{what}");
                    }
                    rig.poll();
                    assert!(!rig.pci.is_quiescent(), "{what}");
                    let vector = rig
                        .pci
                        .interrupts()
                        .vector(::pci::InterruptKind::Msix, 0)
                        .unwrap();
                    assert!(!vector.is_enabled());
                    vector.signal();
                    assert_eq!(line.count(), 0);
                    rig.release();
                    assert!(rig.pci.is_quiescent(), "{what}");
                    // The last reset began when the memory was gone already: so its end means that nobody holds any.
                    let calls = rig.calls();
                    let map = calls.iter().position(|call| matches!(call, Call::Map(_)));
                    let reset = calls.iter().rposition(|call| *call == Call::Reset);
                    assert!(map.is_some() && map < reset, "{what}: {calls:?}");
                    assert!(!rig.fake.borrow().resetting);
                    // Whatever may still come is harmless.
                    rig.set_status(ACKNOWLEDGE);
                    rig.write_region(4, 0, &[0xff; 0x4000]);
                    rig.flr();
                    rig.poll();
                    assert_eq!(rig.calls(), [], "{what}");
                    assert!(rig.pci.is_quiescent());
                });
            }
        }
    }
}

/// Firmware goes on after a reset without waiting for it: its next write waits in its place.
#[test]
fn a_driver_that_does_not_wait_is_held() {
    for how in [How::Status, How::Flr] {
        with_rig(move |rig| {
            rig.bring_up(0);
            rig.hold();
            assert_eq!(reset(rig, how), Access::Done);
            // Reads are never held.
            assert_eq!(rig.status(), READY);
            assert_eq!(rig.read(at::ISR, 1), 0);
            assert_eq!(rig.read(at::QUEUE_ENABLE, 2), 0);
            assert_eq!(reset(rig, How::Status), Access::Done, "nothing new");
            let written = rig.write_region(4, at::STATUS, &[ACKNOWLEDGE]);
            assert_eq!(written, Access::Defer);
            rig.poll();
            assert_eq!(rig.pci.deferred(), None);
            rig.release();
            assert_eq!(rig.pci.deferred(), Some(Access::Done));
            assert_eq!(rig.status(), ACKNOWLEDGE);
            rig.set_status(0);
            rig.bring_up(0);
        });
    }
}

#[test]
fn a_held_write_may_itself_reset() {
    with_rig(|rig| {
        rig.bring_up(0);
        rig.hold();
        rig.set_status(0);
        let burst = [ACKNOWLEDGE | DRIVER, 0, 0, 0];
        assert_eq!(rig.write_region(4, at::STATUS, &burst), Access::Defer);
        // The client goes while its write is held.
        assert_eq!(reset(rig, How::Gone), Access::Defer);
        rig.release();
        assert!(rig.pci.is_quiescent());
        assert_eq!(rig.status(), 0, "the write is forgotten");
    });
}

#[test]
fn a_reset_under_load_ends_with_the_load() {
    with_rig(|rig| {
        for _ in 0..50 {
            rig.bring_up(0);
            rig.hold();
            rig.write(at::NOTIFY, 0, 2);
            rig.set_status(0);
            rig.say(DeviceEvent::ConfigChanged);
            let cause = "at the last moment".to_owned();
            let index = Some(2);
            rig.say(DeviceEvent::Broken { index, cause });
            let index = 1;
            rig.say(DeviceEvent::QueueStopped { index, state: None });
            assert_eq!(rig.status(), READY, "not yet");
            rig.release();
            assert_eq!(rig.status(), 0);
        }
    });
}

#[test]
fn flr_and_device_reset_take_the_configuration_space_back() {
    for how in [How::Flr, How::Device] {
        with_rig(move |rig| {
            rig.set_command(0x0406);
            rig.set_msix(0x8000);
            rig.bring_up(0);
            reset(rig, how);
            assert_eq!(rig.read_region(7, 4, 2), [0, 0]);
            let msix = rig.capability(0x11)[0];
            assert_eq!(rig.read_region(7, msix + 3, 1), [0]);
            is_as_new(rig);
        });
    }
    with_rig(|rig| {
        rig.set_command(0x0406);
        rig.bring_up(0);
        reset(rig, How::Status);
        assert_eq!(rig.read_region(7, 4, 2), [6, 4], "not virtio's to reset");
        is_as_new(rig);
    });
}
