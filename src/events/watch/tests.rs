use std::time::{Duration, Instant};

use super::{Admission, BURST, INTERVAL, Source, Tap, Valve};
use crate::control::tests::{control_of, run_until_mail_is_read};

#[test]
fn a_flood_is_let_through_at_first_and_at_a_rate_then() {
    let start = Instant::now();
    let mut valve = Valve::new(start);
    for _ in 0..BURST {
        assert_eq!(valve.admit(start), Admission::Admitted);
    }
    assert_eq!(valve.admit(start), Admission::Suppressed(true));
    assert_eq!(valve.admit(start), Admission::Suppressed(false));
    let later = start + INTERVAL;
    assert_eq!(valve.admit(later), Admission::Admitted);
    assert_eq!(valve.admit(later), Admission::Suppressed(false));
    assert_eq!(valve.suppressed, 3);
    // A long rest fills it, and no more than fills it.
    let much_later = later + Duration::from_secs(3600);
    for _ in 0..BURST {
        assert_eq!(valve.admit(much_later), Admission::Admitted);
    }
    assert_eq!(valve.admit(much_later), Admission::Suppressed(false));
}

#[test]
fn an_endpoint_s_events_reach_control_in_order_and_the_client_s_end_is_one() {
    let (mut control, mail, methods) = control_of(Vec::new());
    let source = Source {
        kind: "nvme",
        name: "/run/vm0".to_owned(),
        subsystem: Some("nqn".to_owned()),
    };
    let tap = Tap::new(source, control.inbox());
    // A controller that could not be made had no client.
    drop(tap.client());
    let watch = tap.client();
    watch.connected();
    let events = watch.of_nvme();
    let shard = events.clone();
    events.tell(nvme::ControllerEvent::Enabled);
    let cause = "the sky fell".to_owned();
    events.tell(nvme::ControllerEvent::Failed { cause });
    drop(events);
    // The last part of the controller tells too.
    shard.tell(nvme::ControllerEvent::DiskError {
        bdev: "disk".to_owned(),
        nsid: 1,
        lba: 8,
        cause: bdev::IoStatus::NoSpace,
        suppressed: 2,
    });
    drop(shard);
    run_until_mail_is_read(&mut control, &mail, &methods);
    let events = control.events.since(0, usize::MAX);
    let kinds: Vec<_> = events.iter().map(|it| it["type"].as_str()).collect();
    let expected = [
        "guest_connected",
        "controller_enabled",
        "controller_failed",
        "disk_error",
        "guest_disconnected",
    ];
    assert_eq!(kinds, expected.map(Some));
    assert_eq!(events[2]["ctx"], "/run/vm0");
    assert_eq!(events[2]["details"]["cause"], "the sky fell");
    assert_eq!(events[3]["ctx"], "disk");
    assert_eq!(events[3]["details"]["endpoint"], "/run/vm0");
    assert_eq!(events[3]["details"]["suppressed"], 2);
}

#[test]
fn what_guests_do_too_often_is_counted() {
    let (mut control, mail, methods) = control_of(Vec::new());
    let source = Source {
        kind: "vhost_blk",
        name: "ep".to_owned(),
        subsystem: None,
    };
    let tap = Tap::new(source, control.inbox());
    let events = tap.client().of_blk();
    for _ in 0..10 * BURST {
        events.tell(virtio::BlkEvent::Reset);
    }
    run_until_mail_is_read(&mut control, &mail, &methods);
    let told = control.events.since(0, usize::MAX).len();
    let burst = usize::try_from(BURST).expect("small");
    assert!((burst..10 * burst).contains(&told), "{told}");
    let left_out = tap.take_suppressed();
    assert_eq!(told as u64 + left_out, 10 * u64::from(BURST));
}
