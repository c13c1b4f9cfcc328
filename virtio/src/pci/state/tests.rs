use super::*;

const GONE: Ending = Ending::Departure;

fn state(phase: Phase, status: u8) -> State {
    State { phase, status }
}

fn status(value: u8) -> Event {
    Event::Status {
        value,
        acceptable: true,
    }
}

/// Every status byte a driver can bring about.
fn reachable() -> Vec<u8> {
    (0..=u8::MAX)
        .filter(|status| status & (16 | 32) == 0)
        .filter(|status| status & DRIVER_OK == 0 || status & FEATURES_OK != 0)
        .collect()
}

#[test]
fn a_driver_goes_up_step_by_step() {
    let mut state = State::new();
    for (value, negotiated, start) in [
        (ACKNOWLEDGE, false, false),
        (ACKNOWLEDGE | DRIVER, false, false),
        (ACKNOWLEDGE | DRIVER | FEATURES_OK, true, false),
        (ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK, false, true),
        (ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK, false, false),
    ] {
        let (next, effects) = state.step(status(value));
        let expected = Effects {
            negotiated,
            start,
            ..Effects::default()
        };
        assert_eq!((next.status(), effects), (value, expected));
        state = next;
    }
    assert!(state.is_serving());
    let (next, effects) = state.step(status(FAILED));
    assert_eq!(next.status(), state.status() | FAILED);
    assert_eq!(effects, Effects::default());
}

#[test]
fn unacceptable_features_do_not_stick() {
    let (begun, _) = State::new().step(status(ACKNOWLEDGE | DRIVER));
    let (next, effects) = begun.step(Event::Status {
        value: ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK,
        acceptable: false,
    });
    assert_eq!(next.status(), ACKNOWLEDGE | DRIVER);
    assert!(effects.refused && !effects.negotiated && !effects.start);
    let (next, effects) = next.step(status(FEATURES_OK | DRIVER_OK));
    assert!(next.is_serving() && effects.negotiated && effects.start);
}

#[test]
fn a_status_only_gains_bits_that_are_the_drivers() {
    for before in reachable() {
        for value in 1..=u8::MAX {
            let (after, effects) = state(Phase::Present, before).step(status(value));
            let after = after.status();
            assert_eq!(after & before, before, "{before:#x} {value:#x}");
            assert_eq!(
                after & !before & !(value & DRIVERS),
                0,
                "{before:#x} {value:#x}"
            );
            assert!(after & DRIVER_OK == 0 || after & FEATURES_OK != 0);
            assert!(!(effects.drain || effects.clear || effects.halt || effects.notify));
            let newly = |bit| after & !before & bit != 0;
            assert_eq!(effects.negotiated, newly(FEATURES_OK));
            assert_eq!(
                effects.start,
                newly(DRIVER_OK) && before & DEVICE_NEEDS_RESET == 0
            );
        }
    }
}

/// Every phase with every event that resets, breaks or ends.
#[test]
fn resets_departures_and_breaks_in_every_phase() {
    use Ending::{Reset, ResetThenDeparture};
    use Phase::{Draining, Gone, Present};
    let drain = Effects {
        clear: true,
        drain: true,
        ..Effects::default()
    };
    let again = Effects {
        drain: true,
        ..Effects::default()
    };
    let nothing = Effects::default();
    for before in reachable() {
        let present = state(Present, before);
        let touched = before & (FEATURES_OK | DEVICE_NEEDS_RESET) != 0;
        for event in [Event::Reset, status(0)] {
            let expected = if touched {
                (state(Draining(Reset), before), drain)
            } else {
                let clear = Effects {
                    clear: true,
                    ..nothing
                };
                (State::new(), clear)
            };
            assert_eq!(present.step(event), expected, "{before:#x}");
        }
        assert_eq!(
            present.step(Event::ClientGone),
            (state(Draining(GONE), before), drain)
        );
        assert_eq!(present.step(Event::Drained), (present, nothing));
        let (broken, effects) = present.step(Event::Broken);
        assert_eq!(broken, state(Present, before | DEVICE_NEEDS_RESET));
        let first = before & DEVICE_NEEDS_RESET == 0;
        assert_eq!(effects.halt, first);
        assert_eq!(effects.notify, first && before & DRIVER_OK != 0);
        assert!(!broken.is_serving());

        let draining = state(Draining(Reset), before);
        for event in [Event::Reset, status(0), status(0xff), Event::Broken] {
            assert_eq!(draining.step(event), (draining, nothing));
        }
        assert_eq!(draining.step(Event::Drained), (State::new(), nothing));
        let leaving = state(Draining(ResetThenDeparture), before);
        assert_eq!(draining.step(Event::ClientGone), (leaving, nothing));
        for event in [Event::Reset, status(0), Event::Broken, Event::ClientGone] {
            assert_eq!(leaving.step(event), (leaving, nothing));
        }
        let departing = state(Draining(GONE), before);
        assert_eq!(leaving.step(Event::Drained), (departing, again));
        for event in [Event::Reset, status(0), Event::Broken, Event::ClientGone] {
            assert_eq!(departing.step(event), (departing, nothing));
        }
        let gone = state(Gone, 0);
        assert_eq!(departing.step(Event::Drained), (gone, nothing));
    }
    let gone = state(Gone, 0);
    for event in [
        Event::Reset,
        status(0),
        status(15),
        Event::Broken,
        Event::ClientGone,
        Event::Drained,
    ] {
        assert_eq!(gone.step(event), (gone, nothing));
    }
}
