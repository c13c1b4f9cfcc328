//! How the daemon starts and ends, and the command line.

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use testkit::nvme::{Driver, Options};

use crate::common::{Daemon, NQN, directory, file, refusal, run};

/// Resident memory of a process in KiB.
fn resident(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("a process");
    let line = status
        .lines()
        .find(|line| line.starts_with("VmRSS:"))
        .expect("its memory");
    line.split_whitespace()
        .nth(1)
        .and_then(|kib| kib.parse().ok())
        .expect("a number")
}

#[test]
fn it_is_small_and_starts_at_once() {
    let place = directory();
    let start = Instant::now();
    let mut daemon = Daemon::start(place.path(), &[]);
    let listening = start.elapsed();
    assert_eq!(daemon.ok("bdev_get_bdevs", Value::Null), json!([]));
    daemon.subsystem();
    daemon.malloc("a");
    daemon.add_ns("a");
    daemon.listen(&place.path().join("vm"));
    let resident = resident(daemon.pid());
    println!("listening after {listening:?}, resident {resident} KiB");
    assert!(resident < 40 << 10, "{resident} KiB are resident");
    daemon.stop();
}

#[test]
fn with_no_options_a_disk_is_there_to_try() {
    let default = Path::new("/var/tmp/spdk.sock");
    let place = directory();
    if default.exists() {
        println!(
            "skipped: {} is there, so another daemon may be running",
            default.display()
        );
        return;
    }
    let mut daemon = Daemon::start_at(default.to_owned(), place.path(), &[]);
    let advice: Vec<String> = (0..4).map(|_| daemon.line()).collect();
    let advice = advice.concat();
    assert!(advice.contains("qemu-system-x86_64"), "{advice}");
    let disks = daemon.ok("bdev_get_bdevs", Value::Null);
    assert_eq!(disks[0]["name"], "Malloc0");
    assert_eq!(disks[0]["num_blocks"], 131_072);
    let subsystems = daemon.ok("nvmf_get_subsystems", Value::Null);
    let endpoint = subsystems[1]["listen_addresses"][0]["traddr"]
        .as_str()
        .expect("a directory")
        .to_owned();
    assert!(Path::new(&endpoint).join("cntrl").exists());
    // What was set up for trying is in nobody's way: the transport can be made as a script would.
    let transport = json!({"trtype": "VFIOUSER", "max_queue_depth": 256});
    assert_eq!(daemon.ok("nvmf_create_transport", transport.clone()), true);
    daemon.refused("nvmf_create_transport", transport, -32603, "already exists");
    daemon.stop();
    assert!(
        !Path::new(&endpoint).exists(),
        "the endpoint's directory is left"
    );
}

#[test]
fn disks_can_be_given_on_the_command_line() {
    let place = directory();
    let path = file(place.path(), "disk.img", 8 << 20);
    let endpoint = place.path().join("vm");
    let args = [
        "--disk",
        path.to_str().expect("a path"),
        "--ram",
        "1M",
        "--endpoint",
        endpoint.to_str().expect("a path"),
    ];
    let mut daemon = Daemon::start(place.path(), &args);
    assert!(endpoint.join("cntrl").exists());
    let subsystem = daemon.ok("nvmf_get_subsystems", Value::Null)[1].clone();
    let names: Vec<&Value> = subsystem["namespaces"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|n| &n["name"])
        .collect();
    assert_eq!(names, ["Malloc0", "Disk0"]);
    daemon.stop();
    assert!(!endpoint.exists(), "a directory that was made goes");
    let refused = refusal(&[
        "--disk",
        "/no/such/disk",
        "-r",
        place.path().join("s").to_str().expect("a path"),
    ]);
    assert!(refused.contains("/no/such/disk"), "{refused}");
}

#[test]
fn disks_can_be_attached_as_virtio_blk() {
    for (attach, part) in [("virtio", "vfio-user-pci"), ("vhost", "vhost-user-blk-pci")] {
        let place = directory();
        let sockets = place.path().join("vm");
        let at = sockets.to_str().expect("a path");
        let args = [
            "--attach",
            attach,
            "--ram",
            "1M",
            "--ram",
            "2M",
            "--endpoint",
            at,
        ];
        let mut daemon = Daemon::start(place.path(), &args);
        let advice: String = (0..6).map(|_| daemon.line()).collect();
        for socket in ["Malloc0", "Malloc1"] {
            let socket = sockets.join(socket);
            assert!(socket.exists());
            assert!(
                advice.contains(socket.to_str().expect("a path")),
                "{advice}"
            );
        }
        assert_eq!(advice.matches(part).count(), 2, "{advice}");
        let transports = daemon.ok("nvmf_get_transports", Value::Null);
        assert_eq!(transports, json!([]), "nobody asked for NVMe");
        daemon.stop();
        assert!(!sockets.exists(), "a directory that was made goes");
    }
    // -S says where as well.
    let place = directory();
    let sockets = place.path().to_str().expect("a path");
    let daemon = Daemon::start(place.path(), &["--attach", "vhost", "-S", sockets]);
    assert!(place.path().join("Malloc0").exists());
    daemon.stop();
    let refused = refusal(&["--attach", "vhost", "-S", sockets, "--endpoint", sockets]);
    assert!(refused.contains("one of them"), "{refused}");
}

#[test]
fn one_daemon_per_rpc_socket() {
    let place = directory();
    let daemon = Daemon::start(place.path(), &[]);
    let socket = daemon.socket().to_str().expect("a path").to_owned();
    let refused = refusal(&["-r", &socket]);
    assert!(refused.contains(&socket), "{refused}");
    daemon.stop();
}

#[test]
fn what_a_killed_daemon_leaves_is_in_nobodys_way() {
    let place = directory();
    let path = file(place.path(), "disk.img", 8 << 20);
    let furnish = |daemon: &mut Daemon| {
        daemon.subsystem();
        let disk = json!({"name": "u", "filename": path, "block_size": 512});
        daemon.ok("bdev_uring_create", disk);
        daemon.add_ns("u");
        daemon.listen(&place.path().join("vm"))
    };
    // Several times: for a moment the kernel still holds what the dead process had open.
    for _ in 0..5 {
        let mut daemon = Daemon::start(place.path(), &[]);
        let socket = furnish(&mut daemon);
        let mut driver = Driver::connect(&socket, &Options::default()).expect("a controller");
        let mut queue = driver.create_queue_pair(64, None).expect("a queue pair");
        crate::guests::start_writes(&driver, &mut queue);
        daemon.signal(Signal::SIGKILL);
        assert_eq!(daemon.wait(), None);
        assert!(socket.exists() && daemon.socket().exists());
    }
    let mut daemon = Daemon::start(place.path(), &[]);
    let socket = furnish(&mut daemon);
    daemon.stop();
    assert!(!socket.exists());
}

#[test]
fn sockets_that_cannot_be_are_refused_with_the_reason() {
    let place = directory();
    let at = |name: &str| place.path().join(name).to_str().expect("a path").to_owned();
    let long = at(&"x".repeat(120));
    assert!(refusal(&["-r", &long]).contains("107"));
    let missing = at("missing/rpc.sock");
    assert!(refusal(&["-r", &missing]).contains("missing"));
    let plain = at("plain");
    std::fs::write(&plain, "text").expect("a file");
    assert!(refusal(&["-r", &plain]).contains("not a socket"));
    assert_eq!(std::fs::read(&plain).expect("it is still there"), b"text");
}

#[test]
fn mistakes_on_the_command_line_are_refused() {
    let place = directory();
    let socket = place.path().join("s");
    let socket = socket.to_str().expect("a path");
    for (args, part) in [
        (vec!["-m", "0x0"], "empty"),
        (vec!["-m", "zz"], "no set of processors"),
        (vec!["-m", "[8000]"], "no processor 8000"),
        (vec!["-p", "3"], "not in the mask"),
        (vec!["-c", "/no/such/file"], "/no/such/file"),
        (vec!["-L", "zzz"], "no such flag"),
        (vec!["--ram", "1X"], "unknown unit"),
        (vec!["--nonsense"], "--nonsense"),
    ] {
        let mut all = vec!["-r", socket];
        all.extend(args);
        let refused = refusal(&all);
        assert!(refused.contains(part), "{all:?}: {refused}");
    }
    assert!(!Path::new(socket).exists());
}

#[test]
fn signals_end_it_in_order() {
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        let place = directory();
        let mut daemon = Daemon::start(place.path(), &[]);
        // Somebody who waits for what will not come is no reason to stay.
        let mut waiting = daemon.connect();
        let waiter = std::thread::spawn(move || {
            waiting.call("bdev_get_bdevs", json!({"name": "x", "timeout": 600_000}))
        });
        daemon.signal(Signal::SIGUSR1);
        assert_eq!(daemon.ok("framework_wait_init", Value::Null), true);
        daemon.signal(signal);
        assert_eq!(daemon.wait(), Some(0), "{signal}");
        assert!(!daemon.socket().exists());
        assert!(waiter.join().expect("no panic").is_err());
    }
    let place = directory();
    let mut daemon = Daemon::start(place.path(), &["--wait-for-rpc"]);
    daemon.signal(Signal::SIGTERM);
    assert_eq!(daemon.wait(), Some(0), "before initialization");
}

#[test]
fn it_can_be_ended_by_rpc() {
    for name in [json!("SIGTERM"), json!("INT"), json!("15"), json!(2)] {
        let place = directory();
        let mut daemon = Daemon::start(place.path(), &[]);
        let kill = "spdk_kill_instance";
        daemon.refused(kill, json!({"sig_name": "FOO"}), -32602, "SIGTERM");
        daemon.refused(kill, json!({"sig_name": 77}), -32602, "SIGTERM");
        assert_eq!(daemon.ok(kill, json!({ "sig_name": name })), true);
        assert_eq!(daemon.wait(), Some(0));
    }
}

#[test]
fn it_can_live_without_a_socket() {
    let place = directory();
    let pidfile = place.path().join("pid");
    let args = ["--no-rpc-server", "-f", pidfile.to_str().expect("a path")];
    let mut daemon = Daemon::start_at(place.path().join("none"), place.path(), &args);
    let pid = std::fs::read_to_string(&pidfile).expect("a pid file");
    assert_eq!(pid.trim(), daemon.pid().to_string());
    assert!(!daemon.socket().exists());
    daemon.signal(Signal::SIGTERM);
    assert_eq!(daemon.wait(), Some(0));
    assert!(!pidfile.exists());
}

fn vtarget(args: &[&str]) -> (bool, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_vtarget"));
    let output = command.args(args).output().expect("vtarget runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (
        output.status.success(),
        text(&output.stdout),
        text(&output.stderr),
    )
}

#[test]
fn people_can_call_methods_without_spdks_client() {
    let place = directory();
    let daemon = Daemon::start(place.path(), &[]);
    let socket = daemon.socket().to_str().expect("a path").to_owned();
    let call = |words: &[&str]| {
        let all: Vec<&str> = ["rpc", "-s", &socket]
            .into_iter()
            .chain(words.iter().copied())
            .collect();
        vtarget(&all)
    };
    let (worked, out, _) = call(&[
        "bdev_malloc_create",
        "name=m",
        "block_size=512",
        "num_blocks=2048",
    ]);
    assert_eq!((worked, out.as_str()), (true, "m\n"));
    let (worked, out, _) = call(&["nvmf_create_transport", r#"{"trtype": "VFIOUSER"}"#]);
    assert_eq!((worked, out.as_str()), (true, "true\n"));
    call(&["nvmf_create_subsystem", &format!("nqn={NQN}")]);
    let (worked, out, _) = call(&[
        "nvmf_subsystem_add_ns",
        &format!("nqn={NQN}"),
        "namespace.bdev_name=m",
    ]);
    assert_eq!((worked, out.as_str()), (true, "1\n"));
    let (worked, out, _) = call(&["bdev_get_bdevs"]);
    let disks: Value = serde_json::from_str(&out).expect("JSON");
    assert!(worked && disks[0]["name"] == "m");
    let (worked, out, err) = call(&["bdev_malloc_delete", "name=x"]);
    assert!(!worked && out.is_empty(), "{out}");
    assert!(
        err.contains("No such device") && err.contains("-19"),
        "{err}"
    );
    let (worked, _, err) = call(&["bdev_malloc_delete", "x"]);
    assert!(!worked && err.contains("key=value"), "{err}");
    daemon.stop();
    let (worked, _, err) = call(&["bdev_get_bdevs"]);
    assert!(!worked && err.contains("is the daemon running"), "{err}");
}

#[test]
fn help_teaches() {
    let output = run(&["--help"]);
    let help = String::from_utf8_lossy(&output.stdout).into_owned();
    for part in [
        "What happens with no options",
        "Examples:",
        "--cpumask",
        "without effect",
    ] {
        assert!(help.contains(part), "{part}");
    }
    for args in [vec!["--version"], vec!["serve", "-v"]] {
        let (worked, out, _) = vtarget(&args);
        assert!(
            worked && out.contains(env!("CARGO_PKG_VERSION")),
            "{args:?}: {out}"
        );
    }
}
