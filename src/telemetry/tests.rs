use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use crossbeam_channel::{Receiver, bounded};
use reactor::{Config, Mode, ReactorHandle};

use super::Telemetry;
use crate::control::tests::control_of;
use crate::control::{Control, Message, Methods};

type Seen = Rc<RefCell<Vec<Telemetry>>>;

fn reactor(lcore: u32) -> (ReactorHandle, std::thread::JoinHandle<()>) {
    let config = Config {
        lcore,
        pin: false,
        mode: Mode::Interrupt,
        ..Config::default()
    };
    reactor::spawn(config).expect("a reactor")
}

/// Asks for the picture and lets the control thread work until it is there.
fn gather(control: &mut Control, mail: &Receiver<Message>, methods: &Methods) -> Telemetry {
    let seen = Seen::default();
    let kept = Rc::clone(&seen);
    control.telemetry(move |control, telemetry| {
        kept.borrow_mut().push(telemetry);
        control.leave();
    });
    control.run_until_left(mail, methods);
    let found = seen.borrow_mut().pop();
    found.expect("a picture")
}

#[test]
fn everybody_is_in_the_picture() {
    let (handles, threads): (Vec<_>, Vec<_>) = (0..3).map(reactor).unzip();
    let (mut control, mail, methods) = control_of(handles.clone());
    let telemetry = gather(&mut control, &mail, &methods);
    let lcores: Vec<u32> = telemetry.reactors.iter().map(|it| it.lcore).collect();
    assert_eq!(lcores, [0, 1, 2]);
    assert!(telemetry.reactors.iter().all(|it| it.responding));
    assert!(telemetry.reactors.iter().all(|it| it.mode == "interrupt"));
    assert!(telemetry.tick_rate > 0 && telemetry.ticks > 0);
    assert_eq!(telemetry.pid, std::process::id());
    for reactor in &handles {
        reactor.stop();
    }
    for thread in threads {
        thread.join().expect("it ends");
    }
}

#[test]
fn one_that_does_not_answer_is_shown_so_and_asked_once() {
    let (handles, threads): (Vec<_>, Vec<_>) = (0..2).map(reactor).unzip();
    let (mut control, mail, methods) = control_of(handles.clone());
    let known = gather(&mut control, &mail, &methods);
    let (release, released) = bounded::<()>(0);
    handles[1].send(move |_| {
        let _ = released.recv();
    });

    control.gathering.patience = Duration::from_millis(50);
    let stuck = gather(&mut control, &mail, &methods);
    assert!(!stuck.reactors[1].responding);
    // What it said last.
    assert_eq!(stuck.reactors[1].idle, known.reactors[1].idle);
    // Its question is still on its way, so a round without it need not wait: with endless patience it still ends.
    control.gathering.patience = Duration::MAX;
    let stuck = gather(&mut control, &mail, &methods);
    assert!(stuck.reactors[0].responding && !stuck.reactors[1].responding);

    drop(release);
    let (asked, answered) = bounded(1);
    handles[1].send(move |_| {
        let _ = asked.send(());
    });
    answered.recv().expect("it works again");
    let fine = gather(&mut control, &mail, &methods);
    assert!(fine.reactors.iter().all(|it| it.responding));
    for reactor in &handles {
        reactor.stop();
    }
    for thread in threads {
        thread.join().expect("it ends");
    }
}

#[test]
fn who_asks_during_a_round_is_answered_by_the_next() {
    let (handle, thread) = reactor(0);
    let (mut control, mail, methods) = control_of(vec![handle.clone()]);
    let seen = Seen::default();
    for last in [false, false, true] {
        let seen = Rc::clone(&seen);
        control.telemetry(move |control, telemetry| {
            seen.borrow_mut().push(telemetry);
            if last {
                control.leave();
            }
        });
    }
    control.run_until_left(&mail, &methods);
    let seen = seen.borrow();
    assert_eq!(seen.len(), 3);
    assert_ne!(seen[0].ticks, seen[1].ticks, "asked for in another round");
    assert_eq!(seen[1], seen[2], "asked for in the same round");
    handle.stop();
    thread.join().expect("it ends");
}

#[test]
fn the_picture_survives_its_text() {
    let (mut control, mail, methods) = control_of(Vec::new());
    let telemetry = gather(&mut control, &mail, &methods);
    let text = serde_json::to_string(&telemetry).expect("text");
    let back: Telemetry = serde_json::from_str(&text).expect("a picture");
    assert_eq!(back, telemetry);
}
