//! What has happened, told at once: every event once, in order, and nobody waits for a reader.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use nvme_spec::{NvmOpcode, Sqe, Status};
use rpc::Client;
use serde_json::{Value, json};
use testkit::nvme::{Driver, Options};
use testkit::virtio::Setup;

use crate::common::{Daemon, NQN, directory};
use crate::virtio::{Guest, Rig, Vfio, Vhost, Way};

/// Long enough that only what never comes is missed.
const PATIENCE: Duration = Duration::from_secs(20);

/// A connection that has subscribed.
fn subscribe(daemon: &Daemon, params: Value) -> Client {
    let mut client = daemon.connect();
    client
        .call("vtarget_subscribe", params)
        .expect("a subscription");
    client
}

/// The next event.
fn next(client: &mut Client) -> Value {
    let notification = client.notification(Some(PATIENCE)).expect("an event");
    assert_eq!(notification.method, "vtarget_event");
    notification.params
}

/// Takes these events, in this order, with consecutive numbers and nothing between them.
#[track_caller]
fn expect(client: &mut Client, expected: &[(&str, &str)]) -> Vec<Value> {
    let events: Vec<Value> = expected.iter().map(|_| next(client)).collect();
    let found: Vec<_> = events
        .iter()
        .map(|event| {
            let text = |key: &str| event[key].as_str().unwrap_or_default();
            (text("type"), text("ctx"))
        })
        .collect();
    assert_eq!(found, expected);
    for pair in events.windows(2) {
        let id = |event: &Value| event["id"].as_u64().expect("a number");
        assert_eq!(id(&pair[1]), id(&pair[0]) + 1);
    }
    events
}

fn guest(socket: &Path) -> Driver {
    Driver::connect(socket, &Options::default()).expect("a controller")
}

#[test]
fn an_nvme_guest_s_life_is_told_in_order() {
    let place = directory();
    let mut daemon = Daemon::start(place.path(), &["-m", "0x3"]);
    let mut events = subscribe(&daemon, Value::Null);
    daemon.subsystem();
    daemon.malloc("disk");
    daemon.add_ns("disk");
    expect(&mut events, &[("bdev_register", "disk")]);
    let home = place.path().join("vm");
    let socket = daemon.listen(&home);
    let ep = home.to_str().expect("a path");

    let mut driver = guest(&socket);
    let queue = driver.create_queue_pair(16, None).expect("a queue pair");
    driver.disable().expect("a reset");
    drop((queue, driver));
    let told = expect(
        &mut events,
        &[
            ("guest_connected", ep),
            ("controller_enabled", ep),
            ("controller_reset", ep),
            ("guest_disconnected", ep),
        ],
    );
    assert_eq!(told[1]["details"]["controller"], "nvme");
    assert_eq!(told[1]["details"]["subsystem"], NQN);
    assert!(told[1]["time_ms"].as_u64().is_some_and(|time| time > 0));

    // CC.SHN (Base 2.0c, 3.1.3.5): a normal shutdown.
    let mut driver = guest(&socket);
    let cc: u32 = driver.client().read(0, 0x14).expect("CC");
    let shutdown = (cc | 1 << 14).to_le_bytes();
    let client = driver.client();
    client.region_write(0, 0x14, &shutdown).expect("CC");
    drop(driver);
    expect(
        &mut events,
        &[
            ("guest_connected", ep),
            ("controller_enabled", ep),
            ("controller_shutdown", ep),
            ("guest_disconnected", ep),
        ],
    );

    let mut driver = guest(&socket);
    let queue = driver.create_queue_pair(16, None).expect("a queue pair");
    nix::unistd::ftruncate(driver.ram().memory().fd(), 0).expect("truncated");
    queue.poke(2);
    let told = expect(
        &mut events,
        &[
            ("guest_connected", ep),
            ("controller_enabled", ep),
            ("controller_failed", ep),
        ],
    );
    let cause = told[2]["details"]["cause"].as_str().expect("a cause");
    assert!(cause.contains("truncated"), "{cause}");
    drop((queue, driver));
    expect(&mut events, &[("guest_disconnected", ep)]);

    daemon.ok("bdev_malloc_delete", json!({"name": "disk"}));
    expect(&mut events, &[("bdev_unregister", "disk")]);
    daemon.stop();
}

/// Resets and the end of a guest of either transport.
fn virtio_life<W: Way>(kind: &str) {
    let mut rig = Rig::start(&[]);
    let params = json!({"name": "disk", "num_blocks": 16384, "block_size": 512});
    rig.daemon.ok("bdev_null_create", params);
    let socket = rig.endpoint::<W>("ep", "disk");
    let mut events = subscribe(&rig.daemon, Value::Null);
    let mut guest = Guest::<W>::start(&socket, &Setup::linux(false));
    let told = expect(
        &mut events,
        &[("guest_connected", "ep"), ("controller_enabled", "ep")],
    );
    assert_eq!(told[1]["details"]["controller"], kind);
    guest.queues.clear();
    guest.driver.reset().expect("a reset");
    expect(&mut events, &[("controller_reset", "ep")]);
    rig.daemon
        .ok("bdev_null_resize", json!({"name": "disk", "new_size": 16}));
    expect(&mut events, &[("bdev_resize", "disk")]);
    drop(guest);
    expect(&mut events, &[("guest_disconnected", "ep")]);
    rig.daemon.stop();
}

#[test]
fn a_virtio_guest_s_life_is_told_over_vfio_user() {
    virtio_life::<Vfio>("vfu_virtio_blk");
}

#[test]
fn a_virtio_guest_s_life_is_told_over_vhost_user() {
    virtio_life::<Vhost>("vhost_blk");
}

#[test]
fn a_disk_that_fails_is_told_of() {
    let place = directory();
    let mut daemon = Daemon::start(place.path(), &[]);
    daemon.subsystem();
    daemon.malloc("base");
    let made = daemon.ok("bdev_error_create", json!({"base_name": "base"}));
    let disk = made.as_str().unwrap_or("EE_base").to_owned();
    daemon.add_ns(&disk);
    let home = place.path().join("vm");
    let socket = daemon.listen(&home);
    let mut driver = guest(&socket);
    let mut queue = driver.create_queue_pair(64, None).expect("a queue pair");
    let mut events = subscribe(&daemon, json!({"types": ["disk_error"]}));

    let failures = json!({"name": disk, "io_type": "read", "error_type": "failure", "num": 1000});
    daemon.ok("bdev_error_inject_error", failures);
    let buffer = driver.ram().alloc(4096, 4096).expect("guest memory");
    // Far more often than anybody wants to read of it.
    for _ in 0..200 {
        let sqe = Sqe::nvm(NvmOpcode::READ, 1)
            .with_prps(buffer, 0)
            .with_slba(8);
        let status = queue.run(&sqe).expect("a completion").status();
        assert_ne!(status, Status::SUCCESS);
    }
    let event = next(&mut events);
    assert_eq!(event["type"], "disk_error");
    assert_eq!(event["ctx"], disk.as_str());
    assert_eq!(event["details"]["nsid"], 1);
    assert_eq!(event["details"]["lba"], 8);
    assert_eq!(event["details"]["endpoint"], home.to_str().expect("a path"));
    let cause = event["details"]["cause"].as_str().expect("a cause");
    assert!(!cause.is_empty());
    let kept = daemon.ok("notify_get_notifications", Value::Null);
    let kept = kept.as_array().expect("a list").iter();
    let errors = kept.filter(|event| event["type"] == "disk_error").count();
    assert!(
        (1..100).contains(&errors),
        "{errors} of 200 errors are told"
    );
    drop((queue, driver));
    daemon.stop();
}

#[test]
fn subscribers_get_what_they_chose_and_the_connection_goes_on() {
    let place = directory();
    let mut daemon = Daemon::start(place.path(), &[]);
    daemon.malloc("before");
    let mut all = subscribe(&daemon, Value::Null);
    let mut one = subscribe(&daemon, json!({"types": ["bdev_unregister"]}));
    daemon.malloc("a");
    daemon.ok("bdev_malloc_delete", json!({"name": "a"}));
    expect(
        &mut all,
        &[("bdev_register", "a"), ("bdev_unregister", "a")],
    );
    expect(&mut one, &[("bdev_unregister", "a")]);
    // Calls on the same connection go on, and events that come before their answers are not lost.
    let params = json!({"name": "b", "block_size": 512, "num_blocks": 8});
    let made = all.call("bdev_malloc_create", params).expect("made");
    assert_eq!(made, "b");
    expect(&mut all, &[("bdev_register", "b")]);
    // Another subscription takes the former one's place.
    let params = json!({"types": ["bdev_register"], "since": 1});
    let answer = one.call("vtarget_subscribe", params).expect("subscribed");
    let ids = answer["events"].as_array().expect("what was kept").iter();
    let names: Vec<_> = ids.map(|event| event["ctx"].as_str()).collect();
    assert_eq!(names, [Some("a"), Some("b")]);
    assert_eq!(answer["next_id"], 4);
    daemon.ok("bdev_malloc_delete", json!({"name": "b"}));
    daemon.malloc("c");
    expect(&mut one, &[("bdev_register", "c")]);
    daemon.refused(
        "vtarget_subscribe",
        json!({"types": ["x"]}),
        -32602,
        "there is no type `x`",
    );
    drop(all);
    daemon.malloc("d");
    expect(&mut one, &[("bdev_register", "d")]);
    daemon.stop();
}

#[test]
fn a_subscriber_that_does_not_read_costs_itself_only() {
    let place = directory();
    let mut daemon = Daemon::start(place.path(), &[]);
    let mut sleepy = UnixStream::connect(daemon.socket()).expect("a connection");
    let call = br#"{"jsonrpc":"2.0","id":1,"method":"vtarget_subscribe"}"#;
    sleepy.write_all(call).expect("room");
    let mut awake = subscribe(&daemon, Value::Null);
    // Names that are as long as they may be, so that fewer events fill what a client may leave unread.
    let name = |n: usize| format!("{n:0>200}");
    const COUNT: usize = 2500;
    let calls = |method: &'static str, from: usize| {
        (from..from + 100).map(move |n| match method {
            "bdev_null_create" => {
                let params = json!({"name": name(n), "num_blocks": 8, "block_size": 512});
                (method, params)
            }
            _ => (method, json!({"name": name(n)})),
        })
    };
    let mut client = daemon.connect();
    for from in (0..COUNT).step_by(100) {
        for method in ["bdev_null_create", "bdev_null_delete"] {
            let results = client.batch(calls(method, from)).expect("answers");
            assert!(results.iter().all(Result::is_ok));
        }
        for _ in 0..200 {
            next(&mut awake);
        }
    }
    // It reads at last: what is there, how many are not, and what comes next.
    let timeout = Some(PATIENCE);
    sleepy.set_read_timeout(timeout).expect("a timeout");
    let mut lines = BufReader::new(sleepy).lines();
    let mut line = || -> Value {
        let line = lines.next().expect("a line").expect("readable");
        serde_json::from_str(&line).expect("JSON")
    };
    assert_eq!(line()["id"], 1, "the answer");
    let (mut read, mut lost) = (0, 0);
    while read + lost < 2 * COUNT as u64 {
        let message = line();
        match message["method"].as_str() {
            Some("vtarget_event") => read += 1,
            Some("notifications_lost") => {
                lost += message["params"]["count"].as_u64().expect("a number");
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(read + lost, 2 * COUNT as u64);
    assert!(read > 0 && lost > 0, "{read} read, {lost} lost");
    daemon.malloc("disk");
    assert_eq!(line()["params"]["ctx"], "disk");
    daemon.stop();
}

fn vtarget_events(daemon: &Daemon, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_vtarget"));
    command
        .arg("events")
        .arg("-s")
        .arg(daemon.socket())
        .args(args);
    command
}

#[test]
fn the_command_line_shows_events() {
    let place = directory();
    let mut daemon = Daemon::start(place.path(), &[]);
    daemon.malloc("a");
    daemon.ok("bdev_malloc_delete", json!({"name": "a"}));
    let output = vtarget_events(&daemon, &[]).output().expect("it runs");
    let text = String::from_utf8(output.stdout).expect("text");
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 2, "{text}");
    assert!(
        lines[0].contains("bdev_register") && lines[0].ends_with(" a"),
        "{text}"
    );

    let mut child = vtarget_events(&daemon, &["--follow", "--json", "--type", "bdev_register"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("it runs");
    let mut lines = BufReader::new(child.stdout.take().expect("its output")).lines();
    let mut line = || -> Value {
        let line = lines.next().expect("a line").expect("readable");
        serde_json::from_str(&line).expect("JSON")
    };
    assert_eq!(line()["ctx"], "a");
    daemon.malloc("b");
    let event = line();
    assert_eq!((&event["ctx"], &event["id"]), (&json!("b"), &json!(2)));
    daemon.stop();
    // It ends with the daemon, and says so.
    assert_eq!(child.wait().expect("its end").code(), Some(3));

    let place = directory();
    let daemon = Daemon::start(place.path(), &[]);
    let output = vtarget_events(&daemon, &["--type", "x"])
        .output()
        .expect("it runs");
    assert_eq!(output.status.code(), Some(1));
    daemon.stop();
}
