//! The operator's commands against a running daemon.

use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};

use crate::common::{Daemon, NQN, directory};

/// Runs `vtarget` with these words.
fn vtarget(words: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_vtarget"));
    command.args(words).stdin(Stdio::null());
    command.env_remove("VTARGET_RPC_SOCKET");
    command.output().expect("vtarget starts")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The output of a command that must succeed, with the daemon's socket as its last words.
fn ask(socket: &Path, words: &[&str]) -> String {
    let socket = socket.to_str().expect("a path");
    let words: Vec<&str> = words.iter().copied().chain(["-s", socket]).collect();
    let output = vtarget(&words);
    assert!(
        output.status.success(),
        "{words:?}: {}",
        text(&output.stderr)
    );
    text(&output.stdout)
}

/// Exit code and complaint of a command that must fail.
fn refused(words: &[&str]) -> (Option<i32>, String) {
    let output = vtarget(words);
    assert!(
        output.stdout.is_empty(),
        "{words:?}: {}",
        text(&output.stdout)
    );
    (output.status.code(), text(&output.stderr))
}

/// A daemon with a disk behind each kind of endpoint.
fn furnished(directory: &Path) -> Daemon {
    let sockets = directory.to_str().expect("a path");
    let mut daemon = Daemon::start(directory, &["-S", sockets]);
    for disk in ["disk0", "disk1", "disk2"] {
        daemon.malloc(disk);
    }
    daemon.subsystem();
    daemon.add_ns("disk0");
    daemon.listen(&directory.join("vm0"));
    let params = json!({"name": "virtio.0", "bdev_name": "disk1"});
    daemon.ok("vfu_virtio_create_blk_endpoint", params);
    let params = json!({"ctrlr": "vhost.0", "dev_name": "disk2"});
    daemon.ok("vhost_create_blk_controller", params);
    daemon
}

#[test]
fn get_shows_everything_as_a_table_and_as_the_methods_own_json() {
    let directory = directory();
    let mut daemon = furnished(directory.path());
    let socket = daemon.socket().to_owned();
    let samples = [
        ("bdevs", "bdev_get_bdevs", "disk1"),
        ("limits", "bdev_get_bdevs", "disk1"),
        ("subsystems", "nvmf_get_subsystems", NQN),
        ("namespaces", "nvmf_get_subsystems", NQN),
        ("transports", "nvmf_get_transports", "VFIOUSER"),
    ];
    for (kind, method, name) in samples {
        let printed: Value =
            serde_json::from_str(&ask(&socket, &["get", kind, "--json"])).expect("JSON");
        assert_eq!(printed, daemon.ok(method, Value::Null), "{kind}");
        let table = ask(&socket, &["get", kind]);
        assert!(table.contains(name), "{kind}: {table}");
        let one = ask(&socket, &["get", kind, name]);
        assert!(
            one.contains(name) && one.lines().count() == 2,
            "{kind} {name}: {one}"
        );
        assert!(!one.contains('\x1b'), "{kind} is coloured in a pipe");
    }
    for (kind, name) in [
        ("stats", "disk1"),
        ("controllers", "vhost.0"),
        ("endpoints", "virtio.0"),
        ("reactors", "0"),
    ] {
        let _: Value = serde_json::from_str(&ask(&socket, &["get", kind, "--json"])).expect("JSON");
        let one = ask(&socket, &["get", kind, name]);
        assert!(
            one.contains(name) && one.lines().count() == 2,
            "{kind} {name}: {one}"
        );
    }
    let pollers = ask(&socket, &["get", "pollers"]);
    assert!(pollers.starts_with("THREAD"), "{pollers}");
    let events = ask(&socket, &["get", "events"]);
    assert!(events.contains("bdev_register"), "{events}");
    let queues = ask(&socket, &["get", "queues"]);
    assert!(queues.starts_with("no queues"), "{queues}");
    let kinds: Value =
        serde_json::from_str(&ask(&socket, &["get", "endpoints", "--json"])).expect("JSON");
    assert_eq!(kinds["vfu_get_endpoints"][0]["name"], "virtio.0");
    daemon.stop();
}

#[test]
fn exit_codes_tell_refusals_wrong_command_lines_and_missing_daemons_apart() {
    let directory = directory();
    let daemon = furnished(directory.path());
    let socket = daemon.socket().to_str().expect("a path").to_owned();
    let (code, reason) = refused(&["get", "bdevs", "nothing", "-s", &socket]);
    assert_eq!(code, Some(1));
    assert!(
        reason.contains("bdev_get_bdevs") && reason.contains("nothing"),
        "{reason}"
    );
    let (code, reason) = refused(&["get", "controllers", "nothing", "-s", &socket]);
    assert_eq!(code, Some(1));
    assert!(
        reason.contains("virtio.0") && reason.contains("vhost.0"),
        "{reason}"
    );
    let (code, reason) = refused(&["get", "everything", "-s", &socket]);
    assert_eq!(code, Some(2));
    assert!(reason.contains("namespaces"), "{reason}");
    let usages: [&[&str]; 5] = [
        &["get"],
        &["rpc", "bdev_get_bdevs", "name", "-s", &socket],
        &["limit", "disk0", "--off", "--iops", "5", "-s", &socket],
        &["top", "--sort", "nothing", "-s", &socket],
        &["top", "-i", "0", "-s", &socket],
    ];
    for words in usages {
        assert_eq!(refused(words).0, Some(2), "{words:?}");
    }
    daemon.stop();
    let there_is_none: [&[&str]; 6] = [
        &["get", "bdevs"],
        &["limit", "disk0"],
        &["save"],
        &["top", "--once"],
        &["top"],
        &["rpc", "bdev_get_bdevs"],
    ];
    for words in there_is_none {
        let words: Vec<&str> = words.iter().copied().chain(["-s", &socket]).collect();
        let (code, reason) = refused(&words);
        assert_eq!(code, Some(3), "{words:?}: {reason}");
        assert!(
            reason.contains(&socket) && reason.contains("-r"),
            "{reason}"
        );
    }
}

#[test]
fn the_socket_may_come_from_the_environment() {
    let directory = directory();
    let mut daemon = Daemon::start(directory.path(), &[]);
    daemon.malloc("disk0");
    let mut command = Command::new(env!("CARGO_BIN_EXE_vtarget"));
    command
        .args(["get", "bdev"])
        .env("VTARGET_RPC_SOCKET", daemon.socket());
    let output = command.output().expect("vtarget starts");
    assert!(text(&output.stdout).contains("disk0"), "{output:?}");
    daemon.stop();
}

#[test]
fn what_is_saved_can_be_loaded_into_another_daemon() {
    let first = directory();
    let daemon = furnished(first.path());
    let file = first.path().join("saved.json");
    let file = file.to_str().expect("a path");
    ask(daemon.socket(), &["save", file]);
    let printed = ask(daemon.socket(), &["save"]);
    assert_eq!(printed, std::fs::read_to_string(file).expect("a file"));
    daemon.stop();
    let left: Vec<_> = std::fs::read_dir(first.path())
        .expect("a directory")
        .collect();
    assert!(
        !left
            .into_iter()
            .flatten()
            .any(|it| text(it.file_name().as_encoded_bytes()).contains(".new-"))
    );

    let mut daemon = Daemon::start(first.path(), &["--wait-for-rpc"]);
    let said = ask(daemon.socket(), &["load", file]);
    assert!(
        said.contains("calls made") && !said.contains("left out"),
        "{said}"
    );
    let bdevs = daemon.ok("bdev_get_bdevs", Value::Null);
    assert_eq!(bdevs.as_array().map(Vec::len), Some(3));
    assert_eq!(ask(daemon.socket(), &["save"]), printed);
    // Once more: everything is there already.
    let socket = daemon.socket().to_str().expect("a path").to_owned();
    let (code, reason) = refused(&["load", file, "-s", &socket]);
    assert_eq!(code, Some(1));
    assert!(
        reason.contains("saved.json, line") && reason.contains("calls before it were made"),
        "{reason}"
    );
    std::fs::write(
        file,
        r#"{"subsystems": [{"subsystem": "bdev", "config": [{"method": "no_such"}]}]}"#,
    )
    .expect("a file");
    let (code, reason) = refused(&["load", file, "-s", &socket]);
    assert_eq!(code, Some(1));
    assert!(reason.contains("there is no method no_such"), "{reason}");
    daemon.stop();
}

#[test]
fn top_prints_text_where_there_is_no_terminal() {
    let directory = directory();
    let daemon = furnished(directory.path());
    let printed = ask(daemon.socket(), &["top", "-n", "2", "-i", "0.1"]);
    assert_eq!(printed.matches("\nBDEV ").count(), 2, "{printed}");
    for name in ["disk0", "disk1", "disk2", "vhost.0", "virtio.0", "vm0"] {
        assert!(printed.contains(name), "{printed}");
    }
    assert!(!printed.contains('\x1b'), "{printed}");
    let filtered = ask(
        daemon.socket(),
        &["top", "--once", "-i", "0.1", "--filter", "disk1"],
    );
    assert!(
        filtered.contains("virtio.0") && !filtered.contains("vhost.0"),
        "{filtered}"
    );
    daemon.stop();
}
