//! Whatever is set over RPC comes back: random calls, accepted and refused, then every way in which a configuration is saved
//! and loaded. A method joins by a line in [`calls`].

mod calls;
mod dice;

use std::path::Path;

use nix::sys::signal::Signal;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use serde_json::{Value, json};

use crate::common::{Daemon, directory, file};
use calls::{Family, RUNTIME, STARTUP, TRANSIENT};
use dice::Dice;

/// One call: which of the table, and what the dice show.
type Step = (u16, [u8; 24]);

/// What shows the state that a configuration must bring back.
const VIEWS: &[&str] = &[
    "bdev_get_bdevs",
    "nvmf_get_subsystems",
    "nvmf_get_transports",
    "vfu_get_endpoints",
    "vhost_get_controllers",
    "log_get_level",
    "log_get_print_level",
    "log_get_flags",
    "framework_get_scheduler",
    "sock_get_default_impl",
];

/// Everything that can be seen of a daemon.
#[derive(Debug, PartialEq)]
struct Picture {
    saved: Value,
    views: Vec<(&'static str, Value)>,
}

impl Picture {
    fn of(daemon: &mut Daemon) -> Self {
        let saved = daemon.save_config();
        let views = VIEWS.iter();
        let views = views.map(|method| (*method, daemon.ok(method, Value::Null)));
        Self {
            saved,
            views: views.collect(),
        }
    }

    /// Where another differs, in words.
    fn differs(&self, other: &Self) -> Option<String> {
        if self.saved != other.saved {
            return Some(format!(
                "saved {:#}\nbut came back as {:#}",
                self.saved, other.saved
            ));
        }
        let mut views = self.views.iter().zip(&other.views);
        let ((method, before), (_, after)) = views.find(|(before, after)| before != after)?;
        Some(format!(
            "{method} showed {before:#}\nand after {after:#}\nalthough the same is saved: {:#}",
            self.saved
        ))
    }
}

/// Makes the calls; what was called, and how it ended.
fn play(
    daemon: &mut Daemon,
    place: &Path,
    families: &[Family],
    steps: &[Step],
) -> Result<Vec<String>, String> {
    let mut story = Vec::new();
    let total: usize = families.iter().map(|it| it.weight).sum();
    let mut before = None;
    for (which, bytes) in steps {
        let mut left = usize::from(*which) % total;
        let chosen = families.iter().find(|it| {
            let found = left < it.weight;
            left = left.saturating_sub(it.weight);
            found
        });
        let chosen = chosen.expect("one of the table");
        let params = (chosen.params)(&mut Dice::new(bytes, place));
        let unchanged = match before.take() {
            Some(saved) => saved,
            None => save(daemon, families),
        };
        let called = format!("{} {params}", chosen.method);
        match daemon.call(chosen.method, params) {
            Ok(result) => story.push(format!("{called} = {result}")),
            Err((code, text)) => {
                story.push(format!("{called}: {text} ({code})"));
                let now = save(daemon, families);
                if now != unchanged {
                    return Err(format!(
                        "a refused call changed {unchanged:#}\nto {now:#}\n{}",
                        story.join("\n")
                    ));
                }
                before = Some(now);
            }
        }
    }
    Ok(story)
}

/// The configuration, if it can be asked for.
fn save(daemon: &mut Daemon, families: &[Family]) -> Value {
    match std::ptr::eq(families, STARTUP) {
        true => Value::Null,
        false => daemon.save_config(),
    }
}

/// Loads a configuration as SPDK's `load_config` does: what may be called now, in the file's order, then initialization.
fn load(daemon: &mut Daemon, saved: &Value) {
    let subsystems = saved["subsystems"].as_array().expect("a list").iter();
    let mut left: Vec<&Value> = subsystems
        .flat_map(|it| it["config"].as_array().expect("a list"))
        .collect();
    while !left.is_empty() {
        let callable = daemon.ok("rpc_get_methods", json!({"current": true}));
        let callable = callable.as_array().expect("a list");
        left.retain(|entry| {
            let is_callable = callable.contains(&entry["method"]);
            if is_callable {
                let method = entry["method"].as_str().expect("a name");
                daemon.ok(method, entry["params"].clone());
            }
            !is_callable
        });
        if callable.contains(&"framework_start_init".into()) {
            daemon.ok("framework_start_init", Value::Null);
        }
    }
}

fn comes_back(startup: &[Step], runtime: &[Step]) -> Result<(), String> {
    let place = directory();
    for name in calls::FILES {
        file(place.path(), name, 1 << 20);
    }
    for name in calls::DIRECTORIES {
        std::fs::create_dir(place.path().join(name)).expect("a directory");
    }
    let state = place.path().join("state");
    let saved = place.path().join("saved.json");
    let text = |path: &Path| path.to_str().expect("a path").to_owned();
    let (sockets, state, saved) = (text(place.path()), text(&state), text(&saved));
    let start = |args: &[&str]| {
        let args: Vec<&str> = ["-S", &sockets].iter().chain(args).copied().collect();
        Daemon::start(place.path(), &args)
    };

    let mut daemon = start(&["--wait-for-rpc", "--state", &state]);
    let mut story = play(&mut daemon, place.path(), STARTUP, startup)?;
    daemon.ok("framework_start_init", Value::Null);
    story.extend(play(&mut daemon, place.path(), RUNTIME, runtime)?);
    let before = Picture::of(&mut daemon);
    daemon.signal(Signal::SIGKILL);
    daemon.wait();
    std::fs::write(&saved, before.saved.to_string()).map_err(|error| error.to_string())?;

    let check = |how: &str, start: &dyn Fn() -> Daemon| {
        let again = std::panic::AssertUnwindSafe(|| {
            let mut daemon = start();
            let after = Picture::of(&mut daemon);
            daemon.stop();
            after
        });
        let wrong = match std::panic::catch_unwind(again) {
            Ok(after) => before.differs(&after),
            Err(_) => Some(format!(
                "it cannot be loaded, see above: {:#}",
                before.saved
            )),
        };
        wrong.map_or(Ok(()), |wrong| {
            Err(format!("{how}: {wrong}\n{}", story.join("\n")))
        })
    };
    check("--state", &|| start(&["--state", &state]))?;
    check("-c", &|| start(&["-c", &saved]))?;
    check("load_config", &|| {
        let mut daemon = start(&["--wait-for-rpc"]);
        load(&mut daemon, &before.saved);
        daemon
    })
}

#[test]
fn what_is_set_comes_back() {
    let config = Config {
        cases: 24,
        failure_persistence: None,
        // Each try starts four daemons.
        max_shrink_iters: 300,
        ..Config::default()
    };
    let steps = |range| vec(any::<Step>(), range);
    let mut runner = TestRunner::new(config);
    let result = runner.run(&(steps(0..6), steps(10..60)), |(startup, runtime)| {
        comes_back(&startup, &runtime).map_err(TestCaseError::fail)
    });
    if let Err(error) = result {
        panic!("{error}");
    }
}

#[test]
fn no_method_is_forgotten() {
    let place = directory();
    let mut daemon = Daemon::start(place.path(), &[]);
    let methods = daemon.ok("rpc_get_methods", Value::Null);
    daemon.stop();
    let methods = methods.as_array().expect("a list").iter();
    let methods: Vec<&str> = methods
        .map(|method| method.as_str().expect("a name"))
        .collect();
    let table = || STARTUP.iter().chain(RUNTIME).map(|it| it.method);
    let known = |method: &str| {
        method.contains("_get_") || TRANSIENT.contains(&method) || table().any(|it| it == method)
    };
    let forgotten: Vec<_> = methods.iter().filter(|method| !known(method)).collect();
    assert!(
        forgotten.is_empty(),
        "give {forgotten:?} a line in roundtrip/calls.rs: does what they set come back?"
    );
}
