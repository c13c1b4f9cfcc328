use serde_json::json;

use super::{Events, KEPT, Kind};

#[test]
fn names_lead_back() {
    for kind in Kind::ALL {
        assert_eq!(Kind::named(kind.name()), Some(*kind));
    }
    assert_eq!(Kind::named("bdev"), None);
}

#[test]
fn events_come_in_order_whoever_made_them() {
    let mut events = Events::default();
    events.push(Kind::BdevRegister, "a");
    events.push(Kind::GuestConnected, "ep");
    events.push(Kind::BdevResize, "a");
    events.push(Kind::GuestDisconnected, "ep");
    let all = events.since(0, usize::MAX);
    let ids: Vec<_> = all.iter().map(|event| event["id"].as_u64()).collect();
    assert_eq!(ids, [Some(0), Some(1), Some(2), Some(3)]);
    assert_eq!(
        events.since(1, 2),
        [
            json!({"type": "guest_connected", "ctx": "ep", "id": 1}),
            json!({"type": "bdev_resize", "ctx": "a", "id": 2}),
        ]
    );
    assert_eq!(events.next_id(), 4);
    assert!(events.since(4, usize::MAX).is_empty());
}

#[test]
fn guests_push_out_nothing_of_operators() {
    let mut events = Events::default();
    events.push(Kind::BdevRegister, "a");
    for _ in 0..2 * KEPT {
        events.push(Kind::ControllerReset, "ep");
    }
    let all = events.since(0, usize::MAX);
    assert_eq!(all.len(), KEPT + 1);
    assert_eq!(all[0]["type"], "bdev_register");
    assert_eq!(all[1]["id"], 1 + KEPT);
}
