//! `--state`: what was acknowledged is there after whatever happens.

use std::collections::BTreeSet;
use std::path::Path;

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::common::{Daemon, NQN, directory, file, refusal};

/// A daemon that keeps its configuration in `state` within the directory.
fn start(place: &Path, more: &[&str]) -> Daemon {
    let state = place.join("state");
    let args = ["--state", state.to_str().expect("a path"), "-S"];
    let args = args.into_iter().chain([place.to_str().expect("a path")]);
    Daemon::start(place, &args.chain(more.iter().copied()).collect::<Vec<_>>())
}

/// Ends it without a chance to do anything.
fn kill(mut daemon: Daemon) {
    daemon.signal(Signal::SIGKILL);
    assert_eq!(daemon.wait(), None);
}

fn names(daemon: &mut Daemon) -> BTreeSet<String> {
    let disks = daemon.ok("bdev_get_bdevs", Value::Null);
    let disks = disks.as_array().expect("a list").iter();
    disks
        .map(|disk| disk["name"].as_str().expect("a name").to_owned())
        .collect()
}

fn disk(name: &str) -> Value {
    json!({"name": name, "block_size": 512, "num_blocks": 2048})
}

#[test]
fn what_is_acknowledged_survives() {
    let place = directory();
    let mut daemon = start(place.path(), &[]);
    daemon.malloc("m");
    let image = file(place.path(), "a.img", 1 << 20);
    daemon.ok(
        "bdev_uring_create",
        json!({"name": "u", "filename": image, "block_size": 512}),
    );
    daemon.subsystem();
    daemon.add_ns("m");
    daemon.listen(&place.path().join("vm"));
    daemon.ok("log_set_print_level", json!({"level": "WARNING"}));
    daemon.ok("log_set_flag", json!({"flag": "nvmf"}));
    daemon.ok(
        "vhost_create_blk_controller",
        json!({"ctrlr": "c0", "dev_name": "u", "packed_ring": true}),
    );
    let present = daemon.save_config();
    kill(daemon);

    let mut daemon = start(place.path(), &[]);
    assert_eq!(daemon.save_config(), present);
    // A file's size is the file's affair.
    let image = std::fs::File::options().write(true).open(&image);
    image.and_then(|it| it.set_len(2 << 20)).expect("room");
    daemon.ok("bdev_uring_rescan", json!({"name": "u"}));
    assert_eq!(daemon.save_config(), present);
    daemon.ok("nvmf_subsystem_remove_ns", json!({"nqn": NQN, "nsid": 1}));
    daemon.ok("bdev_malloc_delete", json!({"name": "m"}));
    daemon.refused("bdev_null_create", disk("u"), -17, "exists");
    let present = daemon.save_config();
    // The end takes everything apart, which is not what the operator wants to find at the next start.
    daemon.stop();

    let mut daemon = start(place.path(), &[]);
    assert_eq!(daemon.save_config(), present);
    assert_eq!(names(&mut daemon), BTreeSet::from(["u".to_owned()]));
    daemon.stop();
}

#[test]
fn a_kill_at_any_moment_loses_nothing_that_was_acknowledged() {
    let place = directory();
    let mut daemon = start(place.path(), &[]);
    let mut there = BTreeSet::new();
    for round in 0..8_usize {
        assert_eq!(names(&mut daemon), there, "round {round}");
        // Some are waited for, then a burst is on its way when the end comes.
        for number in 0..3 {
            let name = format!("n{round}-{number}");
            daemon.ok("bdev_null_create", disk(&name));
            there.insert(name);
        }
        if let Some(name) = there.pop_first() {
            daemon.ok("bdev_null_delete", json!({"name": name}));
        }
        let mut clients: Vec<_> = (0..4).map(|_| daemon.connect()).collect();
        let threads: Vec<_> = (0..4)
            .map(|thread| {
                let mut client = clients.pop().expect("a client");
                std::thread::spawn(move || {
                    let (mut sure, mut perhaps) = (Vec::new(), None);
                    for number in 0.. {
                        let name = format!("b{round}-{thread}-{number}");
                        match client.call("bdev_null_create", disk(&name)) {
                            Ok(_) => sure.push(name),
                            Err(_) => {
                                perhaps = Some(name);
                                break;
                            }
                        }
                    }
                    (sure, perhaps)
                })
            })
            .collect();
        // As many answers as it takes to be at another moment in each round.
        for number in 0..round {
            daemon.refused("bdev_null_create", json!({"name": number}), -32603, "");
        }
        kill(daemon);
        let mut open = BTreeSet::new();
        for thread in threads {
            let (sure, perhaps) = thread.join().expect("a thread that ends");
            there.extend(sure);
            open.extend(perhaps);
        }
        daemon = start(place.path(), &[]);
        let found = names(&mut daemon);
        let lost: Vec<_> = there.difference(&found).collect();
        assert!(lost.is_empty(), "round {round}: lost {lost:?}");
        let more: BTreeSet<String> = found.difference(&there).cloned().collect();
        assert!(more.is_subset(&open), "round {round}: {more:?} of {open:?}");
        there = found;
    }
    daemon.stop();
}

#[test]
fn a_change_that_cannot_be_saved_is_in_effect_and_said_so() {
    let place = directory();
    let mut daemon = start(place.path(), &[]);
    daemon.ok("bdev_null_create", disk("first"));
    let obstacle = place.path().join("state/config.json.tmp");
    std::fs::create_dir(&obstacle).expect("a directory");
    let part = "bdev_null_create is in effect, but not saved";
    daemon.refused("bdev_null_create", disk("second"), -21, part);
    // What is refused is refused for its own reason, and who only looks is answered.
    daemon.refused("bdev_null_create", disk("second"), -17, "exists");
    assert_eq!(names(&mut daemon).len(), 2);
    std::fs::remove_dir(&obstacle).expect("a directory");
    daemon.ok("bdev_null_create", disk("third"));
    kill(daemon);
    let mut daemon = start(place.path(), &[]);
    assert_eq!(names(&mut daemon).len(), 3);
    daemon.stop();
}

#[test]
fn a_file_fills_an_empty_directory_and_no_other() {
    let place = directory();
    let config = place.path().join("first.json");
    let bdev = json!([{"method": "bdev_null_create", "params": disk("filled")}]);
    let text = json!({"subsystems": [{"subsystem": "bdev", "config": bdev}]});
    std::fs::write(&config, text.to_string()).expect("a file");
    let args = ["-c", config.to_str().expect("a path")];
    let mut daemon = start(place.path(), &args);
    assert_eq!(names(&mut daemon).len(), 1);
    daemon.ok("bdev_null_create", disk("more"));
    daemon.stop();
    let mut daemon = start(place.path(), &args);
    assert_eq!(names(&mut daemon).len(), 2);
    assert!(daemon.log().contains("is not read"), "{}", daemon.log());
    daemon.stop();
}

#[test]
fn changes_before_initialization_lose_nothing() {
    let place = directory();
    let mut daemon = start(place.path(), &[]);
    daemon.ok("bdev_null_create", disk("kept"));
    daemon.stop();
    for size in [4096, 8192] {
        let mut daemon = start(place.path(), &["--wait-for-rpc"]);
        daemon.ok("iobuf_set_options", json!({"small_pool_count": size}));
        kill(daemon);
        let mut daemon = start(place.path(), &["--wait-for-rpc"]);
        let options = daemon.ok("iobuf_set_options", json!({"large_pool_count": size}));
        assert_eq!(options, true);
        daemon.ok("framework_start_init", Value::Null);
        assert_eq!(names(&mut daemon).len(), 1);
        let saved = daemon.ok("framework_get_config", json!({"name": "iobuf"}));
        assert_eq!(saved[0]["params"]["small_pool_count"], size);
        assert_eq!(saved[0]["params"]["large_pool_count"], size);
        daemon.stop();
    }
}

#[test]
fn what_is_wrong_with_the_directory_is_said() {
    let place = directory();
    let state = place.path().join("state");
    let state = state.to_str().expect("a path");
    let socket = place.path().join("other.sock");
    let socket = socket.to_str().expect("a path");

    let mut daemon = start(place.path(), &[]);
    let image = file(place.path(), "a.img", 1 << 20);
    let params = json!({"name": "u", "filename": image, "block_size": 512});
    daemon.ok("bdev_uring_create", params);
    daemon.ok("bdev_null_create", disk("n"));
    let refused = refusal(&["-r", socket, "--state", state]);
    assert!(refused.contains("in use by another daemon"), "{refused}");
    daemon.stop();
    let refused = refusal(&["-r", socket, "--state", state, "--ram", "64M"]);
    assert!(refused.contains("--ram"), "{refused}");

    // A disk that is gone is no reason to forget it.
    std::fs::rename(&image, place.path().join("b.img")).expect("a file");
    let refused = refusal(&["-r", socket, "--state", state]);
    for part in ["config.json, line", "bdev_uring_create", "a.img"] {
        assert!(refused.contains(part), "{refused}");
    }
    let mut daemon = start(place.path(), &["--json-ignore-init-errors"]);
    assert_eq!(names(&mut daemon), BTreeSet::from(["n".to_owned()]));
    daemon.ok("bdev_null_create", disk("o"));
    daemon.stop();
    let kept = place.path().join("state/config.json.skipped");
    let kept = std::fs::read_to_string(kept).expect("a file");
    assert!(kept.contains("a.img"), "{kept}");

    let current = place.path().join("state/config.json");
    let text = std::fs::read_to_string(&current).expect("a file");
    std::fs::write(&current, &text[..text.len() / 2]).expect("a file");
    let refused = refusal(&["-r", socket, "--state", state]);
    for part in ["config.json", "line", "config.json.bak"] {
        assert!(refused.contains(part), "{refused}");
    }
}

#[test]
fn a_slow_disk_holds_back_changes_and_nothing_else() {
    let place = directory();
    let mut daemon = start(place.path(), &[]);
    daemon.ok("bdev_null_create", disk("before"));
    // Who opens a pipe to write waits for who reads.
    let pipe = place.path().join("state/config.json.tmp");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).expect("a pipe");
    let create = |daemon: &mut Daemon, name: &'static str| {
        let mut client = daemon.connect();
        let thread = std::thread::spawn(move || client.call("bdev_null_create", disk(name)));
        // It is in effect, as whoever looks is told, long before its caller hears of it.
        while !names(daemon).contains(name) {
            std::thread::yield_now();
        }
        thread
    };
    let held = ["first", "second", "third"].map(|name| create(&mut daemon, name));
    assert!(held.iter().all(|thread| !thread.is_finished()));
    let reader = std::fs::File::open(&pipe).expect("a pipe");
    // And then a pipe cannot be synced.
    for thread in held {
        let refused = thread.join().expect("an answer").expect_err("a pipe");
        let refused = refused.to_string();
        assert!(refused.contains("in effect, but not saved"), "{refused}");
    }
    std::fs::remove_file(&pipe).expect("a pipe");
    drop(reader);
    daemon.ok("bdev_null_create", disk("last"));
    kill(daemon);
    let mut daemon = start(place.path(), &[]);
    assert_eq!(names(&mut daemon).len(), 5);
    daemon.stop();
}
