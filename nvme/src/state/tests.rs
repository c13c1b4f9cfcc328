use nvme_spec::registers::{Ams, Css};
use proptest::prelude::*;

use super::*;

fn cc(en: bool, shn: Shn) -> Cc {
    Cc::new()
        .with_en(en)
        .with_shn(shn)
        .with_iosqes(6)
        .with_iocqes(4)
}

const EVENTS: [&str; 15] = [
    "enable",
    "bad mps",
    "bad css",
    "bad ams",
    "disable",
    "shut down",
    "shut down disabled",
    "acknowledge",
    "enable failed",
    "nssr",
    "flr",
    "device reset",
    "client gone",
    "fatal",
    "drained",
];

fn event(name: &str) -> Event {
    let on = cc(true, Shn::NONE);
    match name {
        "enable" => Event::Configure(on),
        "bad mps" => Event::Configure(on.with_mps(5)),
        "bad css" => Event::Configure(on.with_css(Css::ALL_SUPPORTED)),
        "bad ams" => Event::Configure(on.with_ams(Ams::WEIGHTED_ROUND_ROBIN)),
        "disable" => Event::Configure(cc(false, Shn::NONE)),
        "shut down" => Event::Configure(cc(true, Shn::NORMAL)),
        "shut down disabled" => Event::Configure(cc(false, Shn::ABRUPT)),
        "acknowledge" => Event::AcknowledgeStatus(Csts::new().with_nssro(true)),
        "enable failed" => Event::EnableFailed,
        "nssr" => Event::SubsystemReset,
        "flr" => Event::FunctionReset,
        "device reset" => Event::DeviceReset,
        "client gone" => Event::ClientGone,
        "fatal" => Event::Fatal,
        "drained" => Event::Drained,
        other => panic!("{other}"),
    }
}

fn after(names: &[&str]) -> State {
    let start = State::new(4);
    names
        .iter()
        .fold(start, |state, name| state.step(event(name)).0)
}

/// A step as text: phase, CC.EN, CSTS, then effects.
fn describe((state, effects): (State, Effects)) -> String {
    let csts = state.csts();
    let mut text = match state.phase() {
        Phase::Draining(ending) => format!("Draining({ending:?})"),
        phase => format!("{phase:?}"),
    };
    let shst = match csts.shst() {
        Shst::NORMAL => "",
        Shst::OCCURRING => " shutting-down",
        _ => " shut-down",
    };
    for (set, word) in [
        (state.cc().en(), " en"),
        (csts.rdy(), " rdy"),
        (csts.cfs(), " cfs"),
        (true, shst),
        (csts.nssro(), " nssro"),
        (effects.clear == Clear::KeepAdminQueue, " | clear"),
        (effects.clear == Clear::Everything, " | clear-all"),
        (effects.enable, " | enable"),
        (effects.refused, " | refused"),
        (effects.drain, " | drain"),
    ] {
        text += if set { word } else { "" };
    }
    text
}

/// Every state that events lead to, and what each event does there, in the order of [`EVENTS`].
const TABLE: &[(&[&str], [&str; 15])] = &[
    // Disabled.
    (
        &[],
        [
            "Ready en rdy | enable",
            "Halted en cfs | refused",
            "Halted en cfs | refused",
            "Halted en cfs | refused",
            "Disabled",
            "Draining(Shutdown) en rdy shutting-down | enable | drain",
            "Disabled shut-down",
            "Disabled",
            "Disabled",
            "Draining(Reset) nssro | clear-all | drain",
            "Draining(Reset) | clear-all | drain",
            "Draining(Reset) | clear-all | drain",
            "Draining(Departure) | clear-all | drain",
            "Disabled",
            "Disabled",
        ],
    ),
    // Ready. MPS, CSS and AMS do not change while enabled, so the bad ones change nothing.
    (
        &["enable"],
        [
            "Ready en rdy",
            "Ready en rdy",
            "Ready en rdy",
            "Ready en rdy",
            "Draining(Reset) rdy | clear | drain",
            "Draining(Shutdown) en rdy shutting-down | drain",
            "Draining(Reset) rdy | clear | drain",
            "Ready en rdy",
            "Halted en cfs",
            "Draining(Reset) rdy nssro | clear-all | drain",
            "Draining(Reset) rdy | clear-all | drain",
            "Draining(Reset) rdy | clear-all | drain",
            "Draining(Departure) rdy | clear-all | drain",
            "Draining(Failure) en rdy cfs | drain",
            "Ready en rdy",
        ],
    ),
    (
        &["enable", "shut down"],
        [
            "Draining(Shutdown) en rdy shutting-down",
            "Draining(Shutdown) en rdy shutting-down",
            "Draining(Shutdown) en rdy shutting-down",
            "Draining(Shutdown) en rdy shutting-down",
            "Draining(Reset) rdy | clear | drain",
            "Draining(Shutdown) en rdy shutting-down",
            "Draining(Reset) rdy | clear | drain",
            "Draining(Shutdown) en rdy shutting-down",
            "Halted en cfs shut-down",
            "Draining(Reset) rdy nssro | clear-all | drain",
            "Draining(Reset) rdy | clear-all | drain",
            "Draining(Reset) rdy | clear-all | drain",
            "Draining(Departure) rdy | clear-all | drain",
            "Draining(Failure) en rdy cfs shutting-down | drain",
            "Halted en rdy shut-down",
        ],
    ),
    // Shut down: only a reset leads on.
    (
        &["enable", "shut down", "drained"],
        [
            "Halted en rdy shut-down",
            "Halted en rdy shut-down",
            "Halted en rdy shut-down",
            "Halted en rdy shut-down",
            "Draining(Reset) rdy | clear | drain",
            "Halted en rdy shut-down",
            "Draining(Reset) rdy | clear | drain",
            "Halted en rdy shut-down",
            "Halted en rdy shut-down",
            "Draining(Reset) rdy nssro | clear-all | drain",
            "Draining(Reset) rdy | clear-all | drain",
            "Draining(Reset) rdy | clear-all | drain",
            "Draining(Departure) rdy | clear-all | drain",
            "Halted en rdy cfs shut-down",
            "Halted en rdy shut-down",
        ],
    ),
    (
        &["enable", "fatal"],
        [
            "Draining(Failure) en rdy cfs",
            "Draining(Failure) en rdy cfs",
            "Draining(Failure) en rdy cfs",
            "Draining(Failure) en rdy cfs",
            "Draining(Reset) rdy | clear | drain",
            "Draining(Failure) en rdy cfs shutting-down",
            "Draining(Reset) rdy | clear | drain",
            "Draining(Failure) en rdy cfs",
            "Draining(Failure) en rdy cfs",
            "Draining(Reset) rdy nssro | clear-all | drain",
            "Draining(Reset) rdy | clear-all | drain",
            "Draining(Reset) rdy | clear-all | drain",
            "Draining(Departure) rdy | clear-all | drain",
            "Draining(Failure) en rdy cfs",
            "Halted en rdy cfs",
        ],
    ),
    // Failed: a shutdown has nothing to wait for.
    (
        &["enable", "fatal", "drained"],
        [
            "Halted en rdy cfs",
            "Halted en rdy cfs",
            "Halted en rdy cfs",
            "Halted en rdy cfs",
            "Draining(Reset) rdy | clear | drain",
            "Halted en rdy cfs shut-down",
            "Draining(Reset) rdy | clear | drain",
            "Halted en rdy cfs",
            "Halted en rdy cfs",
            "Draining(Reset) rdy nssro | clear-all | drain",
            "Draining(Reset) rdy | clear-all | drain",
            "Draining(Reset) rdy | clear-all | drain",
            "Draining(Departure) rdy | clear-all | drain",
            "Halted en rdy cfs",
            "Halted en rdy cfs",
        ],
    ),
    // A reset under way: CC is remembered and acted on when it is over.
    (
        &["enable", "disable"],
        [
            "Draining(Reset) en",
            "Draining(Reset) en",
            "Draining(Reset) en",
            "Draining(Reset) en",
            "Draining(Reset) rdy",
            "Draining(Reset) en",
            "Draining(Reset) rdy",
            "Draining(Reset) rdy",
            "Draining(Reset) rdy",
            "Draining(Reset) rdy nssro | clear-all | drain",
            "Draining(Reset) rdy | clear-all | drain",
            "Draining(Reset) rdy | clear-all | drain",
            "Draining(Departure) rdy | clear-all | drain",
            "Draining(Reset) rdy",
            "Disabled",
        ],
    ),
    (
        &["enable", "disable", "enable"],
        [
            "Draining(Reset) en",
            "Draining(Reset) en",
            "Draining(Reset) en",
            "Draining(Reset) en",
            "Draining(Reset) rdy",
            "Draining(Reset) en",
            "Draining(Reset) rdy",
            "Draining(Reset) en",
            "Draining(Reset) en",
            "Draining(Reset) rdy nssro | clear-all | drain",
            "Draining(Reset) rdy | clear-all | drain",
            "Draining(Reset) rdy | clear-all | drain",
            "Draining(Departure) rdy | clear-all | drain",
            "Draining(Reset) en",
            "Ready en rdy | enable",
        ],
    ),
    (
        &["nssr"],
        [
            "Draining(Reset) en nssro",
            "Draining(Reset) en nssro",
            "Draining(Reset) en nssro",
            "Draining(Reset) en nssro",
            "Draining(Reset) nssro",
            "Draining(Reset) en nssro",
            "Draining(Reset) nssro",
            "Draining(Reset)",
            "Draining(Reset) nssro",
            "Draining(Reset) nssro | clear-all | drain",
            "Draining(Reset) nssro | clear-all | drain",
            "Draining(Reset) | clear-all | drain",
            "Draining(Departure) nssro | clear-all | drain",
            "Draining(Reset) nssro",
            "Disabled nssro",
        ],
    ),
    (
        &["enable", "client gone"],
        [
            "Draining(Departure) rdy",
            "Draining(Departure) rdy",
            "Draining(Departure) rdy",
            "Draining(Departure) rdy",
            "Draining(Departure) rdy",
            "Draining(Departure) rdy",
            "Draining(Departure) rdy",
            "Draining(Departure) rdy",
            "Draining(Departure) rdy",
            "Draining(Departure) rdy",
            "Draining(Departure) rdy",
            "Draining(Departure) rdy",
            "Draining(Departure) rdy",
            "Draining(Departure) rdy",
            "Gone rdy",
        ],
    ),
    (&["client gone", "drained"], ["Gone"; 15]),
];

#[test]
fn every_event_in_every_state() {
    for (path, expected) in TABLE {
        let state = after(path);
        for (name, expected) in EVENTS.iter().zip(expected) {
            let got = describe(state.step(event(name)));
            assert_eq!(&got, expected, "after {path:?}: {name}");
        }
    }
}

#[test]
fn a_bad_configuration_asked_for_during_a_reset_fails_when_it_is_over() {
    let state = after(&["enable", "disable", "bad mps"]);
    assert_eq!(
        describe(state.step(Event::Drained)),
        "Halted en cfs | refused"
    );
    let state = after(&["enable", "disable", "shut down disabled"]);
    assert_eq!(describe(state.step(Event::Drained)), "Disabled shut-down");
}

#[test]
fn shutdown_status_ends_with_the_reset() {
    let state = after(&["enable", "shut down", "drained", "disable", "drained"]);
    assert_eq!(state.csts(), Csts::new());
    let state = after(&["shut down disabled", "enable"]);
    assert_eq!(state.csts(), Csts::new().with_rdy(true));
}

#[test]
fn reserved_bits_are_not_stored_and_entry_sizes_may_change() {
    let (state, _) = State::new(4).step(Event::Configure(Cc::from_bits(0xff00_000f)));
    assert_eq!(state.cc(), Cc::new().with_en(true));
    let (state, _) = state.step(Event::Configure(cc(true, Shn::NONE)));
    assert_eq!((state.cc().iosqes(), state.cc().iocqes()), (6, 4));
}

#[test]
fn endings_only_get_stronger() {
    let order = [
        Ending::Shutdown,
        Ending::Failure,
        Ending::Reset,
        Ending::Departure,
    ];
    assert!(order.is_sorted());
}

proptest! {
    /// Whatever a guest and its VMM do in whatever order, the machine stays consistent and can always be reset.
    #[test]
    fn any_sequence_keeps_the_invariants(steps in proptest::collection::vec(0..EVENTS.len(), 0..40)) {
        let mut state = State::new(4);
        for step in steps {
            let before = state;
            let (after, effects) = state.step(event(EVENTS[step]));
            state = after;
            let draining = matches!(state.phase(), Phase::Draining(_));
            prop_assert!(!effects.drain || draining);
            prop_assert!(!(effects.enable && effects.refused));
            prop_assert!(!state.is_ready() || (state.csts().rdy() && state.cc().en() && !state.csts().cfs()));
            prop_assert!(state.phase() != Phase::Disabled || !(state.csts().rdy() || state.cc().en()));
            // RDY falls only when drained, or when the enable that set it has failed.
            let fell = before.csts().rdy() && !state.csts().rdy();
            let asked_again = before.phase() == Phase::Draining(Ending::Reset) && state.cc().en();
            prop_assert!(!fell || asked_again || matches!(EVENTS[step], "drained" | "enable failed"));
            prop_assert!(before.phase() != Phase::Gone || state == before);
        }
        let leaving = matches!(state.phase(), Phase::Gone | Phase::Draining(Ending::Departure));
        let (state, _) = state.step(Event::FunctionReset);
        let (state, _) = state.step(Event::Drained);
        prop_assert_eq!(state.phase(), if leaving { Phase::Gone } else { Phase::Disabled });
    }
}
