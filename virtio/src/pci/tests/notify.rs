//! Notifications that come by message.

use virtio_spec::feature::NOTIFICATION_DATA;

use super::rig::*;

#[test]
fn the_place_tells_the_queue() {
    with_rig(|rig| {
        rig.bring_up(0);
        rig.calls();
        for index in 0..QUEUES {
            rig.write(at::NOTIFY + 4 * u64::from(index), index.into(), 2);
            rig.write(at::NOTIFY + 4 * u64::from(index), index.into(), 4);
            assert_eq!(rig.calls(), [Call::Notify(index), Call::Notify(index)]);
        }
        for offset in [1, 2, 3, 16, 20, 0xffc, 0xffe] {
            rig.write(at::NOTIFY + offset, 0, 2);
        }
        rig.write(at::NOTIFY, 0, 1);
        assert_eq!(rig.calls(), [], "no queue is notified there");
        rig.write(at::NOTIFY + 4, 0, 8);
        assert_eq!(rig.calls(), [Call::Notify(1), Call::Notify(2)]);
        assert_eq!(rig.read(at::NOTIFY, 4), 0);
    });
}

#[test]
fn notification_data_is_as_good() {
    with_rig(|rig| {
        rig.bring_up(NOTIFICATION_DATA);
        rig.calls();
        rig.write(at::NOTIFY + 8, 0x8005_0002, 4);
        assert_eq!(rig.calls(), [Call::Notify(2)]);
    });
}

#[test]
fn queues_that_do_not_run_are_not_notified() {
    with_rig(|rig| {
        rig.write(at::NOTIFY, 0, 2);
        rig.negotiate(0);
        rig.enable(0);
        rig.write(at::NOTIFY, 0, 2);
        rig.set_status(READY);
        rig.calls();
        rig.write(at::NOTIFY + 4, 1, 2);
        assert_eq!(rig.calls(), []);
        rig.hold();
        rig.set_status(0);
        rig.calls();
        rig.write(at::NOTIFY, 0, 2);
        assert_eq!(rig.calls(), [], "and never held: it is posted");
        rig.release();
    });
}
