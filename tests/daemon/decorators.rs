//! Disks on disks, as operators see them. Answers are those of a running SPDK target, asked the same.

use serde_json::{Value, json};

use crate::common::{Daemon, NQN, directory};

fn names(daemon: &mut Daemon) -> Vec<String> {
    let list = daemon.ok("bdev_get_bdevs", Value::Null);
    let names = list.as_array().expect("a list").iter();
    names
        .filter_map(|disk| disk["name"].as_str().map(str::to_owned))
        .collect()
}

fn disk(daemon: &mut Daemon, name: &str) -> Value {
    let list = daemon.ok("bdev_get_bdevs", json!({ "name": name }));
    list[0].clone()
}

fn passthru(daemon: &mut Daemon, name: &str, base: &str) {
    let params = json!({"name": name, "base_bdev_name": base});
    assert_eq!(daemon.ok("bdev_passthru_create", params), name);
}

fn latencies(name: &str, base: &str) -> Value {
    json!({
        "name": name, "base_bdev_name": base, "avg_read_latency": 10, "p99_read_latency": 20,
        "avg_write_latency": 5, "p99_write_latency": 50,
    })
}

/// M, a passthru on it, an error bdev on that, a delay on that, three parts of it.
fn tower(daemon: &mut Daemon) {
    let uuid = "11111111-1111-4111-8111-111111111111";
    let malloc = json!({"name": "M", "num_blocks": 20480, "block_size": 512, "uuid": uuid});
    daemon.ok("bdev_malloc_create", malloc);
    passthru(daemon, "P", "M");
    assert_eq!(
        daemon.ok("bdev_error_create", json!({"base_name": "P"})),
        true
    );
    assert_eq!(daemon.ok("bdev_delay_create", latencies("D", "EE_P")), "D");
    let split = json!({"base_bdev": "D", "split_count": 3});
    let parts = daemon.ok("bdev_split_create", split);
    assert_eq!(parts, json!(["Dp0", "Dp1", "Dp2"]));
}

#[test]
fn a_tower_is_shown_as_spdk_shows_it() {
    let place = directory();
    let mut daemon = Daemon::start(place.path(), &[]);
    tower(&mut daemon);
    assert_eq!(
        names(&mut daemon),
        ["M", "P", "EE_P", "D", "Dp0", "Dp1", "Dp2"]
    );
    // Name, product, identity, length, whether claimed, what its driver says.
    let expected = [
        (
            "M",
            "Malloc disk",
            "11111111-1111-4111-8111-111111111111",
            20480,
            true,
            json!({}),
        ),
        (
            "P",
            "passthru",
            "fb530fef-0dea-5bc1-8c9c-25610cadb721",
            20480,
            true,
            json!({"passthru": {"name": "P", "base_bdev_name": "M"}}),
        ),
        (
            "EE_P",
            "Error Injection Disk",
            "b18f8955-f1e6-5c61-a662-83043bf3817b",
            20480,
            true,
            json!({"error_disk": {"base_bdev": "P"}}),
        ),
        (
            "D",
            "delay",
            "b185b160-36e6-583a-9b35-6198d86ef93a",
            20480,
            true,
            json!({"delay": {
                "name": "D", "base_bdev_name": "EE_P", "uuid": "b185b160-36e6-583a-9b35-6198d86ef93a",
                "avg_read_latency": 10, "p99_read_latency": 20, "avg_write_latency": 5, "p99_write_latency": 50,
            }}),
        ),
        (
            "Dp1",
            "Split Disk",
            "982489fc-8623-55d8-8f51-1c14a00f0d61",
            6826,
            false,
            json!({"split": {"base_bdev": "D", "offset_blocks": 6826}}),
        ),
    ];
    for (name, product, uuid, blocks, claimed, specific) in expected {
        let shown = disk(&mut daemon, name);
        assert_eq!(shown["product_name"], product);
        assert_eq!(shown["uuid"], uuid, "{name}");
        assert_eq!(shown["aliases"], json!([uuid]));
        assert_eq!(shown["num_blocks"], blocks);
        assert_eq!(shown["claimed"], claimed, "{name}");
        let claim = if claimed {
            json!("exclusive_write")
        } else {
            Value::Null
        };
        assert_eq!(shown["claim_type"], claim, "{name}");
        assert_eq!(shown["driver_specific"], specific);
        assert_eq!(shown["numa_id"], -1);
        assert_eq!(shown["supported_io_types"]["unmap"], true);
    }
    daemon.stop();
}

#[test]
fn what_is_refused_says_who_has_the_base() {
    let place = directory();
    let mut daemon = Daemon::start(place.path(), &[]);
    tower(&mut daemon);
    let base = json!({"name": "P2", "base_bdev_name": "M"});
    daemon.refused(
        "bdev_passthru_create",
        base,
        -1,
        "the base of bdev `P` (module passthru)",
    );
    let again = json!({"name": "P", "base_bdev_name": "Nope"});
    daemon.refused("bdev_passthru_create", again, -17, "File exists");
    daemon.refused(
        "bdev_passthru_create",
        json!({"base_bdev_name": "M"}),
        -32603,
        "Invalid parameters",
    );
    for name in ["Nope", "M", "D"] {
        daemon.refused(
            "bdev_passthru_delete",
            json!({ "name": name }),
            -19,
            "No such device",
        );
    }
    daemon.refused(
        "bdev_error_create",
        json!({"base_name": "P"}),
        -17,
        "File exists",
    );
    daemon.refused(
        "bdev_error_create",
        json!({"base_name": "M"}),
        -1,
        "bdev `P`",
    );
    daemon.refused("bdev_error_create", json!({}), -32603, "Invalid parameters");
    daemon.refused(
        "bdev_error_delete",
        json!({"name": "P"}),
        -19,
        "No such device",
    );
    daemon.refused("bdev_delay_create", latencies("D2", "EE_P"), -1, "bdev `D`");
    daemon.refused(
        "bdev_delay_create",
        latencies("M", "Free"),
        -17,
        "File exists",
    );
    let mut upside_down = latencies("D4", "Nope");
    upside_down["avg_read_latency"] = 100.into();
    daemon.refused("bdev_delay_create", upside_down, -22, "p99_read_latency 20");
    for name in ["P", "Nope"] {
        let update = json!({"delay_bdev_name": name, "latency_type": "avg_read", "latency_us": 5});
        let text = "The requested bdev does not exist.";
        daemon.refused("bdev_delay_update_latency", update, -32602, text);
    }
    let update = json!({"delay_bdev_name": "D", "latency_type": "avg", "latency_us": 5});
    daemon.refused(
        "bdev_delay_update_latency",
        update,
        -32603,
        "Invalid parameters",
    );
    let split = |base: &str, count: u32| json!({"base_bdev": base, "split_count": count});
    let text = "Failed to create 3 split bdevs from 'D': File exists";
    daemon.refused("bdev_split_create", split("D", 3), -32602, text);
    daemon.refused("bdev_split_create", split("M", 3), -32602, "bdev `P`");
    let text = "Failed to create 0 split bdevs from 'X': Invalid argument";
    daemon.refused("bdev_split_create", split("X", 0), -32602, text);
    daemon.refused(
        "bdev_split_create",
        json!({"base_bdev": "X"}),
        -32602,
        "Invalid parameters",
    );
    let text = "No such file or directory";
    daemon.refused(
        "bdev_split_delete",
        json!({"base_bdev": "None"}),
        -32602,
        text,
    );

    // Guests get only what nobody else has.
    daemon.subsystem();
    let namespace = json!({"nqn": NQN, "namespace": {"bdev_name": "M"}});
    daemon.refused(
        "nvmf_subsystem_add_ns",
        namespace,
        -32602,
        "module passthru",
    );
    let controller = json!({"ctrlr": "v0", "dev_name": "M"});
    let text = "Operation not permitted";
    daemon.refused("vhost_create_blk_controller", controller, -32602, text);
    assert_eq!(daemon.add_ns("Dp0"), 1);
    let base = json!({"name": "PP", "base_bdev_name": "Dp0"});
    daemon.refused("bdev_passthru_create", base, -1, "namespace 1 of");
    let controller = json!({"ctrlr": "v0", "dev_name": "Dp1"});
    daemon.ok("vhost_create_blk_controller", controller);
    let base = json!({"name": "PP", "base_bdev_name": "Dp1"});
    daemon.refused("bdev_passthru_create", base, -1, "vhost controller `v0`");
    // What was refused is not remembered: nothing appears later.
    daemon.ok("nvmf_subsystem_remove_ns", json!({"nqn": NQN, "nsid": 1}));
    assert!(!names(&mut daemon).contains(&"PP".to_owned()));
    passthru(&mut daemon, "PP", "Dp0");
    daemon.stop();
}

#[test]
fn injections_are_checked() {
    let place = directory();
    let mut daemon = Daemon::start(place.path(), &[]);
    tower(&mut daemon);
    let method = "bdev_error_inject_error";
    let inject = |more: Value| {
        let mut params = json!({"name": "EE_P", "io_type": "read", "error_type": "failure"});
        for (key, value) in more.as_object().expect("members") {
            params[key] = value.clone();
        }
        params
    };
    assert_eq!(daemon.ok(method, inject(json!({}))), true);
    assert_eq!(daemon.ok(method, inject(json!({"io_type": "clear"}))), true);
    assert_eq!(daemon.ok(method, inject(json!({"num": 0}))), true);
    let refused = [
        (json!({"io_type": "reads"}), -32603, "Invalid parameters"),
        (
            json!({"error_type": "failur"}),
            -32603,
            "Invalid parameters",
        ),
        (json!({"zzz": 1}), -32603, "Invalid parameters"),
        (json!({"name": "P"}), -19, "No such device"),
        (json!({"name": "Nope"}), -19, "No such device"),
        (json!({"error_type": "corrupt_data"}), -22, "corrupt_value"),
        (
            json!({"error_type": "corrupt_data", "corrupt_value": 300}),
            -32603,
            "Invalid parameters",
        ),
        (
            json!({"error_type": "nvme_failure"}),
            -22,
            "nvme_sct or nvme_sc should be specified",
        ),
        (
            json!({"nvme_sct": 1}),
            -22,
            "nvme_sct or nvme_sc should be specified",
        ),
        (
            json!({"error_type": "nvme_failure", "nvme_sct": 9}),
            -22,
            "nvme_sct 9",
        ),
        (
            json!({"error_type": "nvme_failure", "nvme_sc": 256}),
            -22,
            "nvme_sc 256",
        ),
    ];
    for (more, code, text) in refused {
        daemon.refused(method, inject(more), code, text);
    }
    let method = "bdev_error_resume_pending";
    assert_eq!(daemon.ok(method, json!({"name": "EE_P"})), true);
    daemon.refused(method, json!({"name": "P"}), -19, "No such device");
    daemon.stop();
}

#[test]
fn what_stands_on_a_disk_goes_with_it() {
    let place = directory();
    let mut daemon = Daemon::start(place.path(), &[]);
    tower(&mut daemon);
    daemon.malloc("other");
    assert_eq!(daemon.ok("bdev_malloc_delete", json!({"name": "M"})), true);
    assert_eq!(names(&mut daemon), ["other"]);
    let events = daemon.ok("notify_get_notifications", json!({"id": 0, "max": 100}));
    let gone = events.as_array().expect("a list").iter();
    let gone: Vec<_> = gone
        .filter(|event| event["type"] == "bdev_unregister")
        .filter_map(|event| event["ctx"].as_str())
        .collect();
    let (parts, rest) = gone.split_at(3);
    assert!(parts.iter().all(|name| name.starts_with("Dp")));
    assert_eq!(rest, ["D", "EE_P", "P", "M"], "those above first");
    // A passthru and a delay are still wanted; errors and splits are not. As SPDK.
    daemon.malloc("M");
    assert_eq!(names(&mut daemon), ["other", "M", "P"]);
    daemon.ok("bdev_error_create", json!({"base_name": "P"}));
    assert_eq!(names(&mut daemon), ["other", "M", "P", "EE_P", "D"]);
    // From the middle: what is below is free again.
    assert_eq!(
        daemon.ok("bdev_error_delete", json!({"name": "EE_P"})),
        true
    );
    assert_eq!(names(&mut daemon), ["other", "M", "P"]);
    assert_eq!(disk(&mut daemon, "P")["claimed"], false);
    assert_eq!(disk(&mut daemon, "M")["claimed"], true);
    assert_eq!(
        daemon.ok("bdev_passthru_delete", json!({"name": "P"})),
        true
    );
    assert_eq!(disk(&mut daemon, "M")["claimed"], false);
    // The delay waits on, until it is deleted too.
    assert_eq!(daemon.ok("bdev_delay_delete", json!({"name": "D"})), true);
    daemon.refused(
        "bdev_delay_delete",
        json!({"name": "D"}),
        -19,
        "No such device",
    );
    daemon.stop();
}

#[test]
fn a_base_may_come_later() {
    let place = directory();
    let mut daemon = Daemon::start(place.path(), &[]);
    assert_eq!(
        daemon.ok("bdev_delay_create", latencies("Top", "Xp1")),
        "Top"
    );
    let split = json!({"base_bdev": "X", "split_count": 2, "split_size_mb": 4});
    assert_eq!(daemon.ok("bdev_split_create", split.clone()), json!([]));
    daemon.refused("bdev_split_create", split, -32602, "File exists");
    passthru(&mut daemon, "X", "Below");
    assert_eq!(
        daemon.ok("bdev_error_create", json!({"base_name": "Top"})),
        true
    );
    assert_eq!(names(&mut daemon), [] as [&str; 0]);
    let saved = daemon.save_config();
    daemon.malloc("Below");
    assert_eq!(
        names(&mut daemon),
        ["Below", "X", "Xp0", "Xp1", "Top", "EE_Top"]
    );
    // Deleting what waits.
    passthru(&mut daemon, "Q", "Never");
    assert_eq!(
        daemon.ok("bdev_passthru_delete", json!({"name": "Q"})),
        true
    );
    daemon.ok("bdev_error_create", json!({"base_name": "Never"}));
    assert_eq!(
        daemon.ok("bdev_error_delete", json!({"name": "EE_Never"})),
        true
    );
    daemon.ok(
        "bdev_split_create",
        json!({"base_bdev": "Never", "split_count": 2}),
    );
    assert_eq!(
        daemon.ok("bdev_split_delete", json!({"base_bdev": "Never"})),
        true
    );
    assert_eq!(
        daemon.ok("bdev_split_delete", json!({"base_bdev": "X"})),
        true
    );
    assert_eq!(names(&mut daemon), ["Below", "X"]);
    daemon.stop();

    // What waits is saved, and waits again.
    let path = place.path().join("saved.json");
    std::fs::write(&path, saved.to_string()).expect("a file");
    let mut daemon = Daemon::start(place.path(), &["-c", path.to_str().expect("text")]);
    assert_eq!(daemon.save_config(), saved);
    daemon.malloc("Below");
    assert_eq!(
        names(&mut daemon),
        ["Below", "X", "Xp0", "Xp1", "Top", "EE_Top"]
    );
    daemon.stop();
}

#[test]
fn parts_stay_where_they_are_when_their_base_has_grown() {
    let place = directory();
    let mut daemon = Daemon::start(place.path(), &[]);
    let base = json!({"name": "N", "block_size": 512, "num_blocks": 40_000});
    daemon.ok("bdev_null_create", base);
    let split = json!({"base_bdev": "N", "split_count": 3});
    daemon.ok("bdev_split_create", split);
    daemon.ok("bdev_null_resize", json!({"name": "N", "new_size": 40}));
    let shown = daemon.ok("bdev_get_bdevs", Value::Null);
    let saved = daemon.save_config();
    daemon.stop();
    let path = place.path().join("saved.json");
    std::fs::write(&path, saved.to_string()).expect("a file");
    let mut daemon = Daemon::start(place.path(), &["-c", path.to_str().expect("text")]);
    assert_eq!(daemon.ok("bdev_get_bdevs", Value::Null), shown);
    assert_eq!(daemon.save_config(), saved);
    daemon.stop();
}

#[test]
fn towers_come_back() {
    let place = directory();
    let mut daemon = Daemon::start(place.path(), &[]);
    tower(&mut daemon);
    passthru(&mut daemon, "PP", "Dp1");
    daemon.subsystem();
    daemon.add_ns("PP");
    daemon.add_ns("Dp2");
    // More than SPDK can load again: an average above its p99.
    let update = json!({"delay_bdev_name": "D", "latency_type": "avg_read", "latency_us": 500});
    assert_eq!(daemon.ok("bdev_delay_update_latency", update), true);
    let shown = daemon.ok("bdev_get_bdevs", Value::Null);
    let saved = daemon.save_config();
    daemon.stop();
    let path = place.path().join("saved.json");
    std::fs::write(&path, saved.to_string()).expect("a file");
    let mut daemon = Daemon::start(place.path(), &["-c", path.to_str().expect("text")]);
    assert_eq!(daemon.ok("bdev_get_bdevs", Value::Null), shown);
    assert_eq!(daemon.save_config(), saved);
    daemon.stop();
}

#[test]
fn fewer_parts_where_the_base_is_small() {
    let place = directory();
    let mut daemon = Daemon::start(place.path(), &[]);
    let malloc = json!({"name": "B", "num_blocks": 1024, "block_size": 4096});
    daemon.ok("bdev_malloc_create", malloc);
    let split = json!({"base_bdev": "B", "split_count": 9, "split_size_mb": 1});
    let parts = daemon.ok("bdev_split_create", split);
    assert_eq!(parts, json!(["Bp0", "Bp1", "Bp2", "Bp3"]));
    assert_eq!(
        daemon.ok("bdev_split_delete", json!({"base_bdev": "B"})),
        true
    );
    let split = json!({"base_bdev": "B", "split_count": 2, "split_size_mb": 100});
    assert_eq!(daemon.ok("bdev_split_create", split), json!([]));
    assert_eq!(disk(&mut daemon, "B")["claimed"], false);
    assert_eq!(
        daemon.ok("bdev_split_delete", json!({"base_bdev": "B"})),
        true
    );
    // All parts or none: a name that is taken takes nothing along.
    daemon.malloc("Bp1");
    let split = json!({"base_bdev": "B", "split_count": 2});
    daemon.refused("bdev_split_create", split, -32602, "Bp1");
    assert_eq!(names(&mut daemon), ["B", "Bp1"]);
    assert_eq!(disk(&mut daemon, "B")["claimed"], false);
    daemon.stop();
}

#[test]
fn nothing_is_examined_where_that_is_off() {
    let place = directory();
    let mut daemon = Daemon::start(place.path(), &["--wait-for-rpc"]);
    daemon.ok("bdev_set_options", json!({"bdev_auto_examine": false}));
    daemon.ok("framework_start_init", Value::Null);
    passthru(&mut daemon, "P", "M");
    passthru(&mut daemon, "Q", "N");
    daemon.malloc("M");
    assert_eq!(names(&mut daemon), ["M"]);
    assert_eq!(daemon.ok("bdev_examine", json!({"name": "M"})), true);
    assert_eq!(daemon.ok("bdev_examine", json!({"name": "N"})), true);
    assert_eq!(names(&mut daemon), ["M", "P"]);
    daemon.malloc("N");
    assert_eq!(names(&mut daemon), ["M", "P", "N", "Q"]);
    let saved = daemon.save_config().to_string();
    assert!(saved.contains("bdev_examine"));
    daemon.stop();
    let mut daemon = Daemon::start(place.path(), &[]);
    daemon.refused(
        "bdev_examine",
        json!({"name": "M"}),
        -22,
        "Invalid argument",
    );
    daemon.refused(
        "bdev_examine",
        json!({}),
        -32602,
        "spdk_json_decode_object failed",
    );
    assert_eq!(daemon.ok("bdev_wait_for_examine", Value::Null), true);
    daemon.stop();
}

/// CRC-32 as partition tables have it.
fn crc(data: &[u8]) -> [u8; 4] {
    let sum = data.iter().fold(u32::MAX, |sum, byte| {
        (0..8).fold(sum ^ u32::from(*byte), |sum, _| {
            (sum >> 1) ^ (0xedb8_8320 * (sum & 1))
        })
    });
    (!sum).to_le_bytes()
}

/// An image of 8 MiB with one partition of SPDK's type, blocks 2048 to 4095; its first table copy may be damaged.
fn partitioned(place: &std::path::Path, name: &str, damaged: bool) -> std::path::PathBuf {
    let last = (8 << 20) / 512 - 1_u64;
    let mut array = [0; 128 * 128];
    // 6527994e-2c5a-4eec-9613-8f5944074e8b: the first three fields in little-endian order.
    let kind = [
        0x4e, 0x99, 0x27, 0x65, 0x5a, 0x2c, 0xec, 0x4e, 0x96, 0x13, 0x8f, 0x59, 0x44, 0x07, 0x4e,
        0x8b,
    ];
    array[..16].copy_from_slice(&kind);
    array[16..32].fill(0x11);
    array[32..40].copy_from_slice(&2048u64.to_le_bytes());
    array[40..48].copy_from_slice(&4095u64.to_le_bytes());
    array[56] = b'x';
    let header = |here: u64, entries: u64| {
        let mut header = [0; 512];
        header[..8].copy_from_slice(b"EFI PART");
        header[12] = 92;
        header[24..32].copy_from_slice(&here.to_le_bytes());
        header[40..48].copy_from_slice(&34u64.to_le_bytes());
        header[48..56].copy_from_slice(&(last - 33).to_le_bytes());
        header[72..80].copy_from_slice(&entries.to_le_bytes());
        header[80] = 128;
        header[84] = 128;
        header[88..92].copy_from_slice(&crc(&array));
        let sum = crc(&header[..92]);
        header[16..20].copy_from_slice(&sum);
        header
    };
    let mut image = vec![0; 8 << 20];
    image[446 + 4] = 0xee;
    image[446 + 8] = 1;
    image[510..512].copy_from_slice(&[0x55, 0xaa]);
    image[512..1024].copy_from_slice(&header(1, 2));
    image[1024..][..array.len()].copy_from_slice(&array);
    let at = last as usize * 512;
    image[at..].copy_from_slice(&header(last, last - 32));
    image[at - array.len()..at].copy_from_slice(&array);
    if damaged {
        image[1024] ^= 1;
    }
    let path = place.join(name);
    std::fs::write(&path, image).expect("an image");
    path
}

#[test]
fn partitions_appear_and_go_with_their_disk() {
    let place = directory();
    for damaged in [false, true] {
        let path = partitioned(place.path(), "disk.img", damaged);
        let mut daemon = Daemon::start(place.path(), &[]);
        let uring = json!({"name": "u", "filename": path, "block_size": 512});
        daemon.ok("bdev_uring_create", uring.clone());
        assert_eq!(daemon.ok("bdev_wait_for_examine", Value::Null), true);
        assert_eq!(names(&mut daemon), ["u", "up1"]);
        let shown = disk(&mut daemon, "up1");
        assert_eq!(shown["product_name"], "GPT Disk");
        assert_eq!(shown["num_blocks"], 2048);
        assert_eq!(shown["uuid"], "11111111-1111-1111-1111-111111111111");
        let gpt = json!({
            "base_bdev": "u", "offset_blocks": 2048,
            "partition_table_guid": "00000000-0000-0000-0000-000000000000",
            "partition_type_guid": "6527994e-2c5a-4eec-9613-8f5944074e8b",
            "unique_partition_guid": "11111111-1111-1111-1111-111111111111",
            "partition_name": "x",
        });
        assert_eq!(shown["driver_specific"], json!({ "gpt": gpt }));
        assert_eq!(disk(&mut daemon, "u")["claim_type"], "exclusive_write");
        let base = json!({"name": "P", "base_bdev_name": "u"});
        daemon.refused("bdev_passthru_create", base, -1, "bdev `up1` (module gpt)");
        passthru(&mut daemon, "P", "up1");
        // A copy of the image is another disk.
        let copy = partitioned(place.path(), "copy.img", false);
        let second = json!({"name": "v", "filename": copy, "block_size": 512});
        daemon.ok("bdev_uring_create", second);
        daemon.ok("bdev_wait_for_examine", Value::Null);
        assert_eq!(names(&mut daemon), ["u", "up1", "P", "v", "vp1"]);
        assert_eq!(daemon.ok("bdev_uring_delete", json!({"name": "u"})), true);
        assert_eq!(names(&mut daemon), ["v", "vp1"]);
        // Partitions are found again, so nothing of them is saved; what stands on one waits for it.
        daemon.ok("bdev_uring_create", uring);
        daemon.ok("bdev_wait_for_examine", Value::Null);
        assert_eq!(names(&mut daemon), ["v", "vp1", "u", "up1", "P"]);
        let saved = daemon.save_config();
        daemon.stop();
        let config = place.path().join("saved.json");
        std::fs::write(&config, saved.to_string()).expect("a file");
        let mut daemon = Daemon::start(place.path(), &["-c", config.to_str().expect("text")]);
        let mut found = names(&mut daemon);
        found.sort();
        assert_eq!(found, ["P", "u", "up1", "v", "vp1"]);
        daemon.stop();
    }
    let path = partitioned(place.path(), "disk.img", false);
    let mut daemon = Daemon::start(place.path(), &["--wait-for-rpc"]);
    daemon.ok("bdev_set_options", json!({"vtarget_examine_gpt": false}));
    daemon.ok("framework_start_init", Value::Null);
    let uring = json!({"name": "u", "filename": path, "block_size": 512});
    daemon.ok("bdev_uring_create", uring);
    daemon.ok("bdev_wait_for_examine", Value::Null);
    assert_eq!(names(&mut daemon), ["u"]);
    daemon.stop();
}
