//! SPDK's own `rpc.py`, unmodified, drives the daemon. Needs a checkout of SPDK, named by `VTARGET_SPDK_DIR`.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use serde_json::Value;

use crate::common::{Daemon, NQN, directory, file};

/// The client, or why it is not tried.
pub(crate) fn client() -> Option<PathBuf> {
    let Some(directory) = std::env::var_os("VTARGET_SPDK_DIR") else {
        println!("skipped: VTARGET_SPDK_DIR names no checkout of SPDK");
        return None;
    };
    let client = PathBuf::from(directory).join("scripts/rpc.py");
    assert!(client.exists(), "{} is missing", client.display());
    Some(client)
}

/// Runs one command of the client with this input; whether it worked, and what it printed.
pub(crate) fn run(client: &Path, socket: &Path, line: &str, input: &str) -> (bool, String) {
    let mut child = Command::new("python3")
        .arg(client)
        .arg("-s")
        .arg(socket)
        .args(line.split_whitespace())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("python3 runs");
    let mut stdin = child.stdin.take().expect("its input");
    // A command that takes no input may have ended already.
    let _ = stdin.write_all(input.as_bytes());
    drop(stdin);
    let output = child.wait_with_output().expect("it ends");
    let text = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    (output.status.success(), text)
}

/// The client as a coprocess that takes one command per line, as SPDK's own tests use it: starting it anew takes a second.
pub(crate) struct Coprocess {
    child: Child,
    stdin: ChildStdin,
    out: BufReader<ChildStdout>,
    socket: PathBuf,
}

impl Coprocess {
    pub(crate) fn start(client: &Path, socket: &Path) -> Self {
        let mut child = Command::new("python3")
            .arg(client)
            .arg("--server")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("python3 runs");
        let stdin = child.stdin.take().expect("its input");
        let out = BufReader::new(child.stdout.take().expect("its output"));
        let socket = socket.to_owned();
        Self {
            child,
            stdin,
            out,
            socket,
        }
    }

    /// Runs one command; whether it worked, and what it printed.
    pub(crate) fn run(&mut self, line: &str) -> (bool, String) {
        let socket = self.socket.display();
        writeln!(self.stdin, "-s {socket} {line}").expect("it reads");
        let mut text = String::new();
        loop {
            let mut line = String::new();
            let read = self.out.read_line(&mut line).expect("its output");
            assert!(read > 0, "the client has ended: {text}");
            match line.trim_end() {
                "**STATUS=0" => return (true, text),
                "**STATUS=1" => return (false, text),
                _ => text.push_str(&line),
            }
        }
    }
}

impl Drop for Coprocess {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn spdks_client_drives_the_daemon() {
    let Some(client) = client() else {
        return;
    };
    let place = directory();
    let sockets = place.path().to_str().expect("a path");
    let daemon = Daemon::start(place.path(), &["-S", sockets]);
    let socket = daemon.socket().to_owned();
    let endpoint = place.path().join("vm");
    std::fs::create_dir(&endpoint).expect("a directory");
    let (first, second) = (
        file(place.path(), "a.img", 1 << 20),
        file(place.path(), "b.img", 1 << 20),
    );
    let (endpoint, first, second) = (endpoint.display(), first.display(), second.display());
    let mut coprocess = Coprocess::start(&client, &socket);
    for (line, expected) in [
        ("bdev_malloc_create 64 512", "Malloc0"),
        (
            "bdev_malloc_create 8 4096 -b M1 -u 6b0a9f7c-7d3c-4ad5-9b9c-8a0b4d8b2a01",
            "M1",
        ),
        ("bdev_null_create N0 8 4096", "N0"),
        ("bdev_null_resize N0 16", ""),
        (&format!("bdev_uring_create {first} U0 512"), "U0"),
        (&format!("bdev_aio_create {second} A0 512"), "A0"),
        ("bdev_uring_rescan U0", ""),
        ("bdev_aio_rescan A0", ""),
        ("bdev_get_bdevs", "\"name\": \"A0\""),
        ("bdev_get_bdevs -b Malloc0", "131072"),
        ("bdev_wait_for_examine", ""),
        ("nvmf_create_transport -t VFIOUSER", ""),
        ("nvmf_get_transports", "VFIOUSER"),
        (&format!("nvmf_create_subsystem {NQN} -a -s SN"), ""),
        (&format!("nvmf_subsystem_add_ns {NQN} Malloc0"), ""),
        (&format!("nvmf_subsystem_add_ns {NQN} U0 -n 5"), ""),
        (
            &format!("nvmf_subsystem_add_listener {NQN} -t VFIOUSER -a {endpoint} -s 0"),
            "",
        ),
        ("nvmf_get_subsystems", NQN),
        (&format!("nvmf_subsystem_get_listeners {NQN}"), "VFIOUSER"),
        (&format!("nvmf_subsystem_get_controllers {NQN}"), "[]"),
        (&format!("nvmf_subsystem_get_qpairs {NQN}"), "[]"),
        (&format!("nvmf_subsystem_remove_ns {NQN} 5"), ""),
        (&format!("vfu_tgt_set_base_path {sockets}"), ""),
        ("vfu_virtio_create_blk_endpoint e0 --bdev-name M1", ""),
        (
            "vfu_virtio_create_blk_endpoint e1 --bdev-name N0 --cpumask 0x1 --num-queues 4 --qsize 256 --packed-ring",
            "",
        ),
        ("vfu_virtio_delete_endpoint e0", ""),
        ("vhost_create_blk_controller c0 M1", ""),
        (
            "vhost_create_blk_controller c1 A0 --cpumask 0x1 -r -p --transport vhost_user_blk",
            "",
        ),
        ("vhost_create_blk_controller c2 A0", ""),
        ("vhost_get_controllers", "\"ctrlr\": \"c2\""),
        ("vhost_get_controllers -n c1", "\"readonly\": true"),
        ("vhost_controller_set_coalescing c0 100 30000", ""),
        ("vhost_delete_controller c2", ""),
        ("virtio_blk_get_transports", "vhost_user_blk"),
        (
            "virtio_blk_get_transports --name vhost_user_blk",
            "vhost_user_blk",
        ),
        ("framework_get_subsystems", "vfio_user_target"),
        ("framework_get_reactors", "reactors"),
        ("framework_wait_init", ""),
        ("thread_get_stats", "threads"),
        ("thread_get_pollers", "active_pollers"),
        ("spdk_get_version", "vtarget"),
        ("rpc_get_methods", "bdev_uring_create"),
        ("log_set_level ERROR", ""),
        ("log_get_level", "ERROR"),
        ("log_set_print_level WARNING", ""),
        ("bdev_get_iostat", "num_read_ops"),
        ("notify_get_notifications", "bdev_register"),
    ] {
        let (worked, text) = coprocess.run(line);
        assert!(worked && text.contains(expected), "{line}: {text}");
    }
    drop(coprocess);
    let rpc = |line: &str| run(&client, &socket, line, "");
    for (line, code) in [
        ("bdev_malloc_delete X", "-19"),
        ("bdev_malloc_create 8 512 -b M1", "-17"),
        ("nvmf_create_transport -t VFIOUSER", "-32603"),
        ("nvmf_delete_subsystem nqn.x", "-32602"),
        ("framework_start_init", "-1"),
        ("vfu_virtio_create_blk_endpoint e1 --bdev-name N0", "-32602"),
        ("vfu_virtio_create_blk_endpoint e2 --bdev-name X", "-32602"),
        (
            "vfu_virtio_create_blk_endpoint e2 --bdev-name N0 --num-queues 0",
            "-32602",
        ),
        ("vfu_virtio_delete_endpoint e0", "-32602"),
        ("vhost_create_blk_controller c0 M1", "-32602"),
        ("vhost_create_blk_controller c2 X", "-32602"),
        ("vhost_get_controllers -n c2", "-32603"),
        ("vhost_delete_controller c2", "-32602"),
        ("vhost_controller_set_coalescing c0 100 1", "-32602"),
        ("virtio_blk_create_transport vhost_user_blk", "-17"),
        ("virtio_blk_get_transports --name X", "-19"),
    ] {
        let (worked, text) = rpc(line);
        assert!(!worked && text.contains(code), "{line}: {text}");
    }

    // Saved by the client, loaded by the client into a daemon that waits for it.
    let (worked, saved) = rpc("save_config");
    assert!(worked, "{saved}");
    let (worked, text) = rpc("spdk_kill_instance SIGTERM");
    assert!(worked, "{text}");
    let mut daemon = daemon;
    assert_eq!(daemon.wait(), Some(0));
    drop(daemon);
    let daemon = Daemon::start(place.path(), &["--wait-for-rpc", "-S", sockets]);
    let (worked, text) = run(&client, &socket, "load_config", &saved);
    assert!(worked, "{text}");
    let (worked, again) = rpc("save_config");
    assert!(worked, "{again}");
    let (saved, again): (Value, Value) = (
        serde_json::from_str(&saved).expect("JSON"),
        serde_json::from_str(&again).expect("JSON"),
    );
    assert_eq!(saved, again);
    daemon.stop();
}

/// SPDK's initiator needs no hugepages for this; it is only there if the checkout has been built.
#[test]
fn spdks_initiator_uses_a_disk() {
    let Some(tool) = client().and_then(|script| {
        let built = script.parent()?.parent()?.join("build/bin/spdk_nvme_perf");
        built.exists().then_some(built)
    }) else {
        println!("skipped: no built checkout of SPDK");
        return;
    };
    let place = directory();
    let mut daemon = Daemon::start(place.path(), &[]);
    daemon.subsystem();
    daemon.malloc("disk");
    daemon.add_ns("disk");
    let home = place.path().join("vm");
    daemon.listen(&home);
    let target = format!(
        "trtype:VFIOUSER traddr:{} subnqn:{}",
        home.display(),
        crate::common::NQN
    );
    let load = "-q 16 -o 8192 -w randrw -M 50 -t 1 -c 0x1 -s 64 --no-huge -r";
    let output = Command::new(tool)
        .args(load.split(' '))
        .arg(target)
        .output()
        .expect("SPDK's initiator starts");
    let text = String::from_utf8_lossy(&output.stdout);
    let total = text.lines().find_map(|line| line.strip_prefix("Total"));
    let rate = total.and_then(|line| line.split_whitespace().nth(1)?.parse::<f64>().ok());
    assert!(
        output.status.success() && rate.is_some_and(|rate| rate > 0.0),
        "{text}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    daemon.stop();
}

/// SPDK's virtio initiator needs hugepages: where its memory lies.
fn has_hugepages() -> bool {
    let mounts = std::fs::read_to_string("/proc/mounts").unwrap_or_default();
    let memory = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let free = memory
        .lines()
        .find_map(|line| line.strip_prefix("HugePages_Free:"))
        .and_then(|free| free.trim().parse::<u32>().ok());
    mounts.contains(" hugetlbfs ") && free.is_some_and(|free| free >= 128)
}

/// Its bdevperf writes, reads back and compares, over a transport of virtio. Takes a checkout that was built with virtio.
fn spdk_verifies(daemon: &Daemon, place: &Path, attach: &Value) {
    let Some(tool) = client().and_then(|script| {
        let built = script.parent()?.parent()?.join("build/examples/bdevperf");
        built.exists().then_some(built)
    }) else {
        println!("skipped: no built checkout of SPDK");
        return;
    };
    if !has_hugepages() {
        println!("skipped: SPDK's virtio initiator needs 128 hugepages and hugetlbfs mounted");
        return;
    }
    let config = serde_json::json!({"subsystems": [{"subsystem": "bdev", "config": [
        {"method": "bdev_virtio_attach_controller", "params": attach},
    ]}]});
    let path = place.join("bdevperf.json");
    std::fs::write(&path, config.to_string()).expect("written");
    // Several may run at once.
    let output = Command::new(tool)
        .args("-m 0x1 --disable-cpumask-locks -g -s 64 -q 32 -o 4096 -w verify -t 1".split(' '))
        .arg("-r")
        .arg(place.join("spdk.sock"))
        .arg("--json")
        .arg(path)
        .output()
        .expect("SPDK's initiator starts");
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    if text.contains("Method not found") || text.contains("not found: bdev_virtio") {
        println!("skipped: this SPDK was built without virtio");
        return;
    }
    // After the colon: IOPS, MiB/s, failures per second.
    let total = text.lines().find(|line| line.trim().starts_with("Total"));
    let numbers: Vec<f64> = total
        .and_then(|line| line.split_once(':'))
        .map(|(_, rest)| rest.split_whitespace().flat_map(str::parse).collect())
        .unwrap_or_default();
    let verified = matches!(numbers[..], [iops, _, failures, ..] if iops > 0.0 && failures == 0.0);
    assert!(
        output.status.success() && verified,
        "{text}\nthe log:\n{}",
        daemon.log()
    );
}

#[test]
fn spdks_virtio_initiator_verifies_a_disk_over_vfio_user() {
    for packed in [false, true] {
        let place = directory();
        let mut daemon = Daemon::start(place.path(), &[]);
        daemon.malloc("disk");
        let base = serde_json::json!({"path": place.path()});
        daemon.ok("vfu_tgt_set_base_path", base);
        let endpoint =
            serde_json::json!({"name": "ep", "bdev_name": "disk", "packed_ring": packed});
        daemon.ok("vfu_virtio_create_blk_endpoint", endpoint);
        let attach = serde_json::json!({
            "name": "V0", "trtype": "vfio-user", "traddr": place.path().join("ep"), "dev_type": "blk",
        });
        spdk_verifies(&daemon, place.path(), &attach);
        daemon.stop();
    }
}

#[test]
fn spdks_virtio_initiator_verifies_a_disk_over_vhost_user() {
    for packed in [false, true] {
        let place = directory();
        let sockets = place.path().to_str().expect("a path").to_owned();
        let mut daemon = Daemon::start(place.path(), &["-S", &sockets]);
        daemon.malloc("disk");
        let controller =
            serde_json::json!({"ctrlr": "ep", "dev_name": "disk", "packed_ring": packed});
        daemon.ok("vhost_create_blk_controller", controller);
        let attach = serde_json::json!({
            "name": "V0", "trtype": "user", "traddr": place.path().join("ep"), "dev_type": "blk",
            "vq_count": 2, "vq_size": 256,
        });
        spdk_verifies(&daemon, place.path(), &attach);
        daemon.stop();
    }
}
