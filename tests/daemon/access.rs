//! Who may connect to the RPC sockets and call what, and how many at once.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use rpc::{Client, ClientError, ClientOptions};
use serde_json::{Value, json};

use crate::common::{Daemon, directory, refusal};

fn client(path: &Path) -> Client {
    Client::connect(path, ClientOptions::default()).expect("a connection")
}

/// Code and text of a refusal.
fn refused(client: &mut Client, method: &str, params: Value) -> (i64, String) {
    match client.call(method, params) {
        Err(ClientError::Rpc(error)) => (error.code, error.message),
        other => panic!("{method} was not refused: {other:?}"),
    }
}

/// Mode and group of a file.
fn rights(path: &Path) -> (u32, u32) {
    let file = std::fs::metadata(path).expect("it is there");
    (file.mode() & 0o777, file.gid())
}

#[test]
fn sockets_have_the_mode_and_group_asked_for() {
    let place = directory();
    let monitor = place.path().join("monitor.sock");
    let path = monitor.to_str().expect("a path");
    let own = nix::unistd::getegid().as_raw();
    let group = own.to_string();
    let daemon = Daemon::start(
        place.path(),
        &[
            "--rpc-socket-mode",
            "0640",
            "--rpc-socket-group",
            &group,
            "--rpc-socket-readonly",
            path,
            "--rpc-socket-readonly-mode",
            "0666",
        ],
    );
    assert_eq!(rights(daemon.socket()), (0o640, own));
    assert_eq!(rights(&monitor), (0o666, own));
    daemon.stop();
    assert!(!monitor.exists());

    let socket = place.path().join("other.sock");
    let socket = socket.to_str().expect("a path");
    let text = refusal(&["-r", socket, "--rpc-socket-group", "no-such-group"]);
    assert!(text.contains("no group no-such-group"), "{text}");
    let text = refusal(&["-r", socket, "--rpc-socket-readonly", socket]);
    assert!(text.contains("another path"), "{text}");
}

#[test]
fn the_socket_for_monitoring_shows_and_changes_nothing() {
    let place = directory();
    let monitor = place.path().join("monitor.sock");
    let path = monitor.to_str().expect("a path");
    let mut daemon = Daemon::start(place.path(), &["--rpc-socket-readonly", path, "-L", "all"]);
    daemon.malloc("Malloc0");
    let mut watcher = client(&monitor);
    let disks = watcher.call("bdev_get_bdevs", Value::Null);
    assert_eq!(disks.expect("a list")[0]["name"], "Malloc0");
    watcher
        .call("bdev_get_iostat", json!({"names": ["Malloc0"]}))
        .expect("counters");

    let (code, text) = refused(
        &mut watcher,
        "bdev_malloc_delete",
        json!({"name": "Malloc0"}),
    );
    assert_eq!(code, -13);
    assert!(
        text.starts_with("Permission denied: bdev_malloc_delete changes the target"),
        "{text}"
    );
    let (code, _) = refused(
        &mut watcher,
        "bdev_get_iostat",
        json!({"reset_mode": "all"}),
    );
    assert_eq!(code, -13);
    let (code, text) = refused(&mut watcher, "no_such_method", Value::Null);
    assert_eq!((code, text.as_str()), (-32601, "Method not found"));

    let offered = |client: &mut Client| -> Vec<String> {
        let names = client.call("rpc_get_methods", Value::Null).expect("names");
        serde_json::from_value(names).expect("a list of names")
    };
    let few = offered(&mut watcher);
    let all = offered(&mut daemon.connect());
    assert!(few.len() > 10 && few.len() < all.len(), "{few:?}");
    assert!(few.iter().all(|name| all.contains(name)));
    // Every other one is refused, whatever its parameters.
    for name in all.iter().filter(|name| !few.contains(name)) {
        assert_eq!(refused(&mut watcher, name, Value::Null).0, -13, "{name}");
    }
    assert_eq!(
        daemon.ok("bdev_get_bdevs", Value::Null)[0]["name"],
        "Malloc0"
    );
    let log = daemon.log();
    let pid = std::process::id();
    for part in ["RPC call that changes something", "the socket is read-only"] {
        let line = log.lines().find(|line| line.contains(part));
        let line = line.unwrap_or_else(|| panic!("no {part:?} in the log:\n{log}"));
        assert!(line.contains(&format!("process {pid} of user")), "{line}");
    }
    drop(watcher);
    daemon.stop();
}

#[test]
fn allowed_methods_are_allowed_and_no_others() {
    let place = directory();
    let monitor = place.path().join("monitor.sock");
    let path = monitor.to_str().expect("a path");
    let allowed = "rpc_get_methods,bdev_get_bdevs,bdev_malloc_create,bdev_malloc_crate";
    let args = ["--rpcs-allowed", allowed, "--rpc-socket-readonly", path];
    let mut daemon = Daemon::start(place.path(), &args);
    daemon.malloc("Malloc0");
    daemon.refused(
        "bdev_malloc_delete",
        json!({"name": "Malloc0"}),
        -32601,
        "Method not found",
    );
    let names = daemon.ok("rpc_get_methods", Value::Null);
    assert_eq!(
        names,
        json!(["bdev_get_bdevs", "bdev_malloc_create", "rpc_get_methods"])
    );
    let mut watcher = client(&monitor);
    let names = watcher.call("rpc_get_methods", Value::Null).expect("names");
    assert_eq!(names, json!(["bdev_get_bdevs", "rpc_get_methods"]));
    assert_eq!(
        refused(&mut watcher, "spdk_get_version", Value::Null).0,
        -32601
    );
    let log = daemon.log();
    assert!(
        log.contains("bdev_malloc_crate"),
        "the misspelt one is pointed out:\n{log}"
    );
    drop(watcher);
    daemon.stop();
}

#[test]
fn a_thousand_clients_at_once_are_answered_right() {
    const CLIENTS: usize = 1000;
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("limits");
    if soft < 2 * CLIENTS as u64 {
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard).expect("more files");
    }
    let place = directory();
    let mut daemon = Daemon::start(place.path(), &[]);
    daemon.malloc("Malloc0");
    let connect = |_| UnixStream::connect(daemon.socket()).expect("a connection");
    let mut streams: Vec<UnixStream> = (0..CLIENTS).map(connect).collect();
    for (number, stream) in streams.iter_mut().enumerate() {
        let calls = [
            json!({"jsonrpc": "2.0", "id": number, "method": "spdk_get_version"}),
            json!({"jsonrpc": "2.0", "id": format!("{number}"), "method": "bdev_null_create",
                "params": {"name": format!("Null{number}"), "num_blocks": 8 + number, "block_size": 512}}),
            json!([{"jsonrpc": "2.0", "id": 1, "method": "bdev_get_bdevs", "params": {"name": format!("Null{number}")}},
                {"jsonrpc": "2.0", "id": 2, "method": "bdev_get_bdevs", "params": {"name": "nobody"}}]),
        ];
        for call in calls {
            stream.write_all(call.to_string().as_bytes()).expect("sent");
        }
    }
    for (number, stream) in streams.iter().enumerate() {
        stream
            .set_read_timeout(Some(Duration::from_secs(60)))
            .expect("a timeout");
        let mut lines = BufReader::new(stream).lines();
        let mut next = || -> Value {
            let line = lines.next().expect("an answer").expect("an answer in time");
            serde_json::from_str(&line).expect("JSON")
        };
        let version = next();
        assert_eq!(version["id"], number);
        assert!(version["result"]["version"].is_string(), "{version}");
        let created = next();
        assert_eq!(created["id"], format!("{number}"));
        assert_eq!(created["result"], format!("Null{number}"));
        let batch = next();
        assert_eq!(batch[0]["result"][0]["num_blocks"], 8 + number);
        assert_eq!(batch[1]["error"]["code"], -19);
    }
    let disks = daemon.ok("bdev_get_bdevs", Value::Null);
    assert_eq!(disks.as_array().map(Vec::len), Some(CLIENTS + 1));
    drop(streams);
    daemon.stop();
}

#[test]
fn a_target_without_descriptors_says_so_and_recovers() {
    let place = directory();
    let daemon = Daemon::start(place.path(), &[]);
    // Its reactors want to know at the start that there would be room for thousands.
    let limited = Command::new("prlimit")
        .args(["--nofile=60", "--pid", &daemon.pid().to_string()])
        .status();
    assert!(limited.expect("util-linux").success());

    let mut served = Vec::new();
    let mut told = 0;
    for _ in 0..100 {
        let mut stream = UnixStream::connect(daemon.socket()).expect("a connection");
        stream
            .set_read_timeout(Some(Duration::from_secs(60)))
            .expect("a timeout");
        let request = br#"{"jsonrpc":"2.0","id":1,"method":"spdk_get_version"}"#;
        // One that is refused may be closed already.
        let _ = stream.write_all(request);
        let mut line = String::new();
        let mut reader = BufReader::new(stream);
        reader.read_line(&mut line).expect("an answer");
        let answer: Value = serde_json::from_str(&line).expect("JSON");
        if answer.get("result").is_some() {
            served.push(reader);
        } else {
            assert_eq!(answer["error"]["code"], -24, "{answer}");
            told += 1;
        }
    }
    assert!(served.len() > 5 && told > 40, "{} and {told}", served.len());
    drop(served);
    // Their descriptors are free as soon as the daemon has seen that they are gone.
    let mut tries = 0..1000;
    let answered = tries.any(|_| {
        let version = daemon.connect().call("spdk_get_version", Value::Null);
        version.is_ok()
    });
    assert!(answered);
    let log = daemon.log();
    assert_eq!(log.matches("no file descriptors left").count(), 1, "{log}");
    daemon.stop();
}
