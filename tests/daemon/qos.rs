//! Limits, histograms and sampling: through the socket, under a guest, over a restart, and with SPDK's own scripts.

use std::path::PathBuf;
use std::process::Command;

use nvme_spec::command::RwCdw12;
use nvme_spec::{NvmOpcode, Sqe, Status};
use serde_json::{Value, json};
use testkit::nvme::{Driver, Options, QueuePair};

use crate::common::{Daemon, directory};
use crate::guests::start_writes;
use crate::spdk_client::{client, run};

const DECODE: i64 = -32603;
const EINVAL: i64 = -22;
const ENODEV: i64 = -19;
const ENOMEM: i64 = -12;

/// A daemon with a guest on the disk "a".
fn with_guest(place: &std::path::Path) -> (Daemon, Driver, QueuePair) {
    let mut daemon = Daemon::start(place, &["-m", "0x3"]);
    daemon.subsystem();
    daemon.malloc("a");
    daemon.add_ns("a");
    let socket = daemon.listen(&place.join("vm"));
    let mut driver = Driver::connect(&socket, &Options::default()).expect("a controller");
    let queue = driver.create_queue_pair(64, None).expect("a queue pair");
    (daemon, driver, queue)
}

/// Starts 32 writes of 128 KiB.
fn start_long_writes(driver: &Driver, queue: &mut QueuePair) {
    let ram = driver.ram();
    let len = 128 << 10;
    let buffer = ram.alloc(len, 4096).expect("guest memory");
    let (prp1, prp2) = ram.prps(buffer, len).expect("guest memory");
    for cid in 0..32 {
        let slba = u64::from(cid) * 256;
        let mut sqe = Sqe::nvm(NvmOpcode::WRITE, 1)
            .with_prps(prp1, prp2)
            .with_slba(slba);
        sqe.cdw12 = RwCdw12::new().with_nlb_z(255).into_bits();
        queue.push(&sqe.with_cid(cid));
    }
    queue.ring();
}

fn write_some(driver: &Driver, queue: &mut QueuePair) {
    start_writes(driver, queue);
    for _ in 1..32 {
        assert_eq!(
            queue.wait().expect("a completion").status(),
            Status::SUCCESS
        );
    }
}

fn limits_of(daemon: &mut Daemon, name: &str) -> Value {
    daemon.ok("bdev_get_bdevs", json!({"name": name}))[0]["assigned_rate_limits"].clone()
}

/// How many requests of the disk wait for their turn.
fn held(daemon: &mut Daemon) -> u64 {
    let picture = daemon.ok("vtarget_get_telemetry", Value::Null);
    picture["bdevs"][0]["queued"].as_u64().expect("a number")
}

#[test]
fn limits_are_set_shown_and_refused() {
    let place = directory();
    let mut daemon = Daemon::start(place.path(), &[]);
    daemon.malloc("a");
    let none = json!({
        "rw_ios_per_sec": 0, "rw_mbytes_per_sec": 0, "r_mbytes_per_sec": 0, "w_mbytes_per_sec": 0,
    });
    assert_eq!(limits_of(&mut daemon, "a"), none);
    let set = "bdev_set_qos_limit";
    let some = json!({"name": "a", "rw_ios_per_sec": 1001, "w_mbytes_per_sec": 7});
    assert_eq!(daemon.ok(set, some), true);
    let shown = json!({
        "rw_ios_per_sec": 2000, "rw_mbytes_per_sec": 0, "r_mbytes_per_sec": 0, "w_mbytes_per_sec": 7,
    });
    assert_eq!(limits_of(&mut daemon, "a"), shown);
    // What is not given stays.
    daemon.ok(
        set,
        json!({"name": "a", "w_mbytes_per_sec": 0, "r_mbytes_per_sec": 3, "burst_ms": 500}),
    );
    let shown = json!({
        "rw_ios_per_sec": 2000, "rw_mbytes_per_sec": 0, "r_mbytes_per_sec": 3, "w_mbytes_per_sec": 0, "burst_ms": 500,
    });
    assert_eq!(limits_of(&mut daemon, "a"), shown);
    daemon.refused(
        set,
        json!({"name": "a"}),
        EINVAL,
        "No rate limits specified",
    );
    daemon.refused(
        set,
        json!({"name": "x", "rw_ios_per_sec": 1000}),
        ENODEV,
        "`x`",
    );
    daemon.refused(set, json!({"rw_ios_per_sec": 1000}), DECODE, "name");
    daemon.refused(set, json!({"name": "a", "iops": 1000}), DECODE, "iops");
    daemon.refused(set, json!({"name": "a", "rw_ios_per_sec": -1}), DECODE, "");
    daemon.refused(
        set,
        json!({"name": "a", "burst_ms": 3_600_001}),
        EINVAL,
        "hour",
    );
    let huge =
        json!({"name": "a", "rw_ios_per_sec": u64::MAX - 1, "rw_mbytes_per_sec": 1u64 << 60});
    daemon.ok(set, huge);
    let shown = limits_of(&mut daemon, "a");
    assert_eq!(shown["rw_mbytes_per_sec"], (1u64 << 44) - 1);
    assert_eq!(shown["rw_ios_per_sec"], u64::MAX / 1000 * 1000);
    // The last one takes the burst along.
    let clear = json!({
        "name": "a", "rw_ios_per_sec": 0, "rw_mbytes_per_sec": 0, "r_mbytes_per_sec": 0,
    });
    daemon.ok(set, clear);
    assert_eq!(limits_of(&mut daemon, "a"), none);
    daemon.stop();
}

#[test]
fn a_guest_is_limited_until_the_limit_is_gone() {
    let place = directory();
    let (mut daemon, mut driver, mut queue) = with_guest(place.path());
    let set = "bdev_set_qos_limit";
    daemon.ok(set, json!({"name": "a", "w_mbytes_per_sec": 1}));
    // Four seconds' worth.
    start_long_writes(&driver, &mut queue);
    while held(&mut daemon) < 20 {}
    let picture = daemon.ok("vtarget_get_telemetry", Value::Null);
    assert_eq!(picture["bdevs"][0]["rate_limits"]["w_mbytes_per_sec"], 1);
    assert!(picture["bdevs"][0]["in_flight"].as_u64() >= Some(20));
    daemon.ok(set, json!({"name": "a", "w_mbytes_per_sec": 0}));
    for _ in 0..32 {
        assert_eq!(
            queue.wait().expect("a completion").status(),
            Status::SUCCESS
        );
    }
    assert_eq!(held(&mut daemon), 0);
    let stats = daemon.ok("bdev_get_iostat", json!({"names": ["a"]}));
    assert_eq!(stats["bdevs"][0]["num_write_ops"], 32);

    // A reset does not wait for turns, and what was held back is not lost.
    daemon.ok(set, json!({"name": "a", "rw_mbytes_per_sec": 1}));
    start_long_writes(&driver, &mut queue);
    while held(&mut daemon) < 20 {}
    driver.disable().expect("not ready");
    assert_eq!(held(&mut daemon), 0);
    let stats = daemon.ok("bdev_get_iostat", json!({"names": ["a"]}));
    assert_eq!(stats["bdevs"][0]["num_write_ops"], 64);
    daemon.stop();
}

/// The counters of an answer of `bdev_get_histogram`.
fn counters(answer: &Value) -> Vec<u64> {
    let text = answer["histogram"].as_str().expect("text");
    let mut bits = 0u32;
    let (mut filled, mut bytes) = (0, Vec::new());
    for letter in text.bytes().filter(|it| *it != b'=') {
        let value = match letter {
            b'A'..=b'Z' => letter - b'A',
            b'a'..=b'z' => letter - b'a' + 26,
            b'0'..=b'9' => letter - b'0' + 52,
            b'+' => 62,
            _ => 63,
        };
        bits = bits << 6 | u32::from(value);
        filled += 6;
        if filled >= 8 {
            filled -= 8;
            bytes.push((bits >> filled) as u8);
        }
    }
    let words = bytes
        .chunks_exact(8)
        .map(|word| word.try_into().expect("eight"));
    words.map(u64::from_le_bytes).collect()
}

#[test]
fn histograms_count_what_they_are_told_to() {
    let place = directory();
    let (mut daemon, driver, mut queue) = with_guest(place.path());
    let (enable, get, borders) = (
        "bdev_enable_histogram",
        "bdev_get_histogram",
        "bdev_get_histogram_borders",
    );
    daemon.refused(
        get,
        json!({"name": "a"}),
        ENOMEM,
        "bdev_enable_histogram first",
    );
    daemon.refused(get, json!({"name": "x"}), ENODEV, "`x`");
    let opc = json!({"name": "a", "enable": true, "opc": "jump"});
    daemon.refused(enable, opc, DECODE, "Invalid Io type");
    let fine = json!({"name": "a", "enable": true, "granularity": 13});
    daemon.refused(enable, fine, EINVAL, "12");
    let empty = json!({"name": "a", "enable": true, "min_nsec": 9, "max_nsec": 9});
    daemon.refused(enable, empty, EINVAL, "max_nsec");
    daemon.refused(enable, json!({"name": "a"}), DECODE, "enable");

    assert_eq!(
        daemon.ok(enable, json!({"name": "a", "enable": true})),
        true
    );
    write_some(&driver, &mut queue);
    let found = daemon.ok(get, json!({"name": "a"}));
    assert_eq!(found["granularity"], 7);
    assert!(found["tsc_rate"].as_u64() > Some(0));
    let ranges = found["max_range"].as_u64().expect("a number")
        - found["min_range"].as_u64().expect("a number")
        + 1;
    let counted = counters(&found);
    assert_eq!(counted.len() as u64, ranges << 7);
    assert_eq!(counted.iter().sum::<u64>(), 32);
    let found = daemon.ok(
        borders,
        json!({"name": "a", "borders": [0, 1_000_000_000u64]}),
    );
    let found = found["borders_count"].as_array().expect("a list");
    assert_eq!((&found[1], &found[2]), (&json!(32), &json!(32)));
    let many = json!({"name": "a", "borders": vec![1; 257]});
    daemon.refused(borders, many, DECODE, "256");

    // The same again goes on; another kind starts anew.
    daemon.ok(enable, json!({"name": "a", "enable": true}));
    write_some(&driver, &mut queue);
    let found = daemon.ok(get, json!({"name": "a"}));
    assert_eq!(counters(&found).iter().sum::<u64>(), 64);
    daemon.ok(enable, json!({"name": "a", "enable": true, "opc": "read"}));
    write_some(&driver, &mut queue);
    let found = daemon.ok(get, json!({"name": "a"}));
    assert_eq!(counters(&found).iter().sum::<u64>(), 0);
    daemon.ok(enable, json!({"name": "a", "enable": false}));
    daemon.refused(get, json!({"name": "a"}), DECODE, "Bad address");
    daemon.stop();
}

#[test]
fn sampling_adds_members_to_the_statistics() {
    let place = directory();
    let (mut daemon, driver, mut queue) = with_guest(place.path());
    let sampled = |daemon: &mut Daemon| {
        let stats = daemon.ok("bdev_get_iostat", json!({"names": ["a"]}));
        stats["bdevs"][0].clone()
    };
    assert!(sampled(&mut daemon).get("queue_depth").is_none());
    let set = "bdev_set_qd_sampling_period";
    daemon.refused(set, json!({"name": "x", "period": 5}), ENODEV, "`x`");
    daemon.refused(set, json!({"name": "a"}), DECODE, "period");
    assert_eq!(daemon.ok(set, json!({"name": "a", "period": 1000})), true);
    // Requests that are held back are in flight.
    daemon.ok(
        "bdev_set_qos_limit",
        json!({"name": "a", "rw_mbytes_per_sec": 1}),
    );
    start_long_writes(&driver, &mut queue);
    while held(&mut daemon) < 20 {}
    let first = sampled(&mut daemon);
    assert_eq!(first["queue_depth_polling_period"], 1000);
    assert!(first["queue_depth"].as_u64() >= Some(1));
    let second = loop {
        let second = sampled(&mut daemon);
        if second["io_time"].as_u64() > first["io_time"].as_u64() {
            break second;
        }
    };
    let grown = |key: &str| second[key].as_u64().unwrap_or(0) - first[key].as_u64().unwrap_or(0);
    assert!(grown("weighted_io_time") >= grown("io_time"));
    daemon.ok(set, json!({"name": "a", "period": 0}));
    assert!(sampled(&mut daemon).get("io_time").is_none());

    // One reactor of the two has a channel.
    let per_channel = json!({"names": ["a"], "per_channel": true});
    let channels = daemon.ok("bdev_get_iostat", per_channel)["channels"].clone();
    assert_eq!(channels.as_array().map(Vec::len), Some(1));
    assert!(channels[0]["thread_id"].as_u64() >= Some(1));
    assert!(channels[0].get("num_write_ops").is_some());
    daemon.stop();
}

#[test]
fn what_was_set_is_there_after_a_restart() {
    let place = directory();
    let mut daemon = Daemon::start(place.path(), &[]);
    daemon.malloc("a");
    daemon.malloc("b");
    let limits =
        json!({"name": "a", "rw_ios_per_sec": 5000, "r_mbytes_per_sec": 9, "burst_ms": 100});
    daemon.ok("bdev_set_qos_limit", limits);
    let histogram = json!({"name": "b", "enable": true, "opc": "write", "granularity": 5});
    daemon.ok("bdev_enable_histogram", histogram);
    daemon.ok(
        "bdev_set_qd_sampling_period",
        json!({"name": "b", "period": 250}),
    );
    let saved = daemon.save_config();
    let shown = limits_of(&mut daemon, "a");
    daemon.stop();
    let path = place.path().join("config.json");
    std::fs::write(&path, saved.to_string()).expect("written");
    let mut daemon = Daemon::start(place.path(), &["-c", path.to_str().expect("a path")]);
    assert_eq!(daemon.save_config(), saved);
    assert_eq!(limits_of(&mut daemon, "a"), shown);
    let histogram = daemon.ok("bdev_get_histogram", json!({"name": "b"}));
    assert_eq!(histogram["granularity"], 5);
    let stats = daemon.ok("bdev_get_iostat", json!({"names": ["b"]}));
    assert_eq!(stats["bdevs"][0]["queue_depth_polling_period"], 250);
    daemon.stop();
}

/// Another script of SPDK's checkout.
fn script(client: &std::path::Path, name: &str) -> PathBuf {
    client.with_file_name(name)
}

#[test]
fn spdks_scripts_limit_count_and_watch() {
    let Some(client) = client() else { return };
    let place = directory();
    let (daemon, driver, mut queue) = with_guest(place.path());
    let socket = daemon.socket().to_owned();
    let rpc = |line: &str| {
        let (worked, text) = run(&client, &socket, line, "");
        assert!(worked, "{line}: {text}");
        text
    };
    rpc("bdev_set_qos_limit a --rw-ios-per-sec 20000 --r-mbytes-per-sec 100");
    let shown = rpc("bdev_get_bdevs -b a");
    assert!(shown.contains("\"rw_ios_per_sec\": 20000"), "{shown}");
    rpc("bdev_enable_histogram a --histogram");
    rpc("bdev_set_qd_sampling_period a 1000");
    write_some(&driver, &mut queue);

    let histogram = rpc("bdev_get_histogram a");
    let (worked, table) = run(&script(&client, "histogram.py"), &socket, "", &histogram);
    assert!(worked, "{table}");
    let counted = table.lines().filter_map(|line| {
        let (_, count) = line.rsplit_once('(')?;
        count.trim_end_matches(')').trim().parse::<u64>().ok()
    });
    assert_eq!(counted.sum::<u64>(), 32, "{table}");
    let borders = rpc("bdev_get_histogram_borders a --borders 10,1000000");
    assert!(borders.contains("32"), "{borders}");

    let output = Command::new("python3")
        .arg(script(&client, "iostat.py"))
        .args(["-d", "-x", "-b", "a", "-s"])
        .arg(&socket)
        .output()
        .expect("python3 runs");
    let table = String::from_utf8_lossy(&output.stdout);
    let line = table.lines().find(|line| line.starts_with("a "));
    let columns = line.map(|line| line.split_whitespace().count());
    assert!(
        output.status.success() && columns == Some(15) && !table.contains("N/A"),
        "{table}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    rpc("bdev_get_iostat --names a --per-channel");
    rpc("bdev_get_iostat --names a --reset-mode maxmin");
    rpc("bdev_reset_iostat -b a -m all");
    rpc("bdev_enable_histogram a --no-histogram");
    rpc("bdev_set_qos_limit a --rw-ios-per-sec 0 --r-mbytes-per-sec 0");
    daemon.stop();
}
