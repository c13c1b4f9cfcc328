use super::*;
use crate::cli::top::samples::{model, telemetry};

fn names(model: &Model, panel: Panel) -> Vec<String> {
    let (rows, _) = model.rows(panel);
    rows.into_iter()
        .map(|row| row.cells[0].text.clone())
        .collect()
}

#[test]
fn who_works_most_comes_first_and_reactors_keep_their_order() {
    let mut model = model();
    assert_eq!(names(&model, Panel::Bdevs), ["disk1", "disk0", "spare"]);
    assert_eq!(names(&model, Panel::Reactors), ["0", "1"]);
    model.sort_by("p99");
    assert_eq!(names(&model, Panel::Bdevs), ["disk0", "disk1", "spare"]);
    model.view_mut(Panel::Bdevs).reversed = true;
    assert_eq!(names(&model, Panel::Bdevs), ["spare", "disk1", "disk0"]);
    model.sort_by("BDEV");
    assert_eq!(names(&model, Panel::Bdevs), ["disk0", "disk1", "spare"]);
    model.sort_by("no such column");
    assert_eq!(model.view(Panel::Bdevs).sort, 0);
}

#[test]
fn any_column_can_be_sorted_by() {
    let mut model = model();
    for panel in Panel::ALL {
        model.focus = panel;
        let first = model.view(panel).sort;
        for _ in panel.columns() {
            model.next_sort(true);
            assert_eq!(model.rows(panel).0.len(), model.rows(panel).1);
        }
        assert_eq!(model.view(panel).sort, first);
        model.next_sort(false);
        model.next_sort(true);
        assert_eq!(model.view(panel).sort, first);
    }
}

#[test]
fn a_filter_looks_at_names_states_and_disks() {
    let mut model = model();
    model.filter = "DISK1".to_owned();
    assert_eq!(names(&model, Panel::Bdevs), ["disk1"]);
    assert_eq!(names(&model, Panel::Controllers), ["vhost.1"]);
    assert_eq!(names(&model, Panel::Reactors), ["0", "1"]);
    model.filter = "listening".to_owned();
    assert_eq!(names(&model, Panel::Controllers), ["virtio.2"]);
    assert_eq!(model.rows(Panel::Controllers).1, 3);
}

#[test]
fn a_held_picture_stands_until_it_goes_on() {
    let mut model = model();
    model.toggle_pause();
    model.sample(telemetry(104));
    model.sample(telemetry(105));
    assert_eq!(model.picture.now.uptime_ms, 102_000);
    model.toggle_pause();
    assert_eq!(model.picture.now.uptime_ms, 105_000);
    // The interval is the whole time that was not shown.
    assert!((model.picture.seconds() - 3.0).abs() < 1e-9);
}

#[test]
fn a_daemon_that_goes_away_is_said_to_be_gone_since_then_and_back_as_another() {
    let mut model = model();
    model.lost("nobody listens".to_owned());
    let since = model.clock;
    model.clock += Duration::from_secs(5);
    model.lost("nobody listens still".to_owned());
    let reason = "nobody listens still".to_owned();
    assert_eq!(model.link, Link::Down { reason, since });
    let mut other = telemetry(1);
    other.pid = 4712;
    model.sample(other);
    assert_eq!(model.link, Link::Up);
    assert!(!model.picture.has_rates());
    let last = model.events.back().expect("an event");
    assert_eq!(last.context, "another process, pid 4712");
}

#[test]
fn intervals_stay_in_their_range() {
    let mut model = model();
    model.change_interval(true);
    assert_eq!(model.interval, Duration::from_secs(2));
    for _ in 0..20 {
        model.change_interval(false);
    }
    assert_eq!(model.interval, Duration::from_millis(100));
    model.interval = Duration::from_millis(300);
    model.change_interval(false);
    assert_eq!(model.interval, Duration::from_millis(250));
    for _ in 0..20 {
        model.change_interval(true);
    }
    assert_eq!(model.interval, Duration::from_secs(60));
}

#[test]
fn only_the_last_events_are_kept() {
    let mut model = model();
    for number in 0..1000 {
        model.event("bdev_resize", &number.to_string(), true);
    }
    assert_eq!(model.events.len(), EVENTS);
    assert_eq!(
        model.events.back().map(|it| it.context.as_str()),
        Some("999")
    );
}
