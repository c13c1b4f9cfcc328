//! bdev_*: good calls and bad ones.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use serde_json::{Value, json};

use crate::common::{Daemon, NQN, directory, file};

const ENOENT: i64 = -2;
const EACCES: i64 = -13;
const EEXIST: i64 = -17;
const ENODEV: i64 = -19;
const EINVAL: i64 = -22;
const DECODE: i64 = -32603;
const UUID: &str = "6b0a9f7c-7d3c-4ad5-9b9c-8a0b4d8b2a01";

#[test]
fn ram_disks_come_and_go() {
    let place = directory();
    let mut daemon = Daemon::start(place.path(), &[]);
    let create = "bdev_malloc_create";
    let plain = json!({"block_size": 512, "num_blocks": 16384});
    assert_eq!(daemon.ok(create, plain.clone()), "Malloc0");
    assert_eq!(daemon.ok(create, plain), "Malloc1");
    let named = json!({"name": "disk", "block_size": 4096, "num_blocks": 100, "uuid": UUID});
    assert_eq!(daemon.ok(create, named.clone()), "disk");

    let found = daemon.ok("bdev_get_bdevs", json!({"name": "disk"}));
    let disk = &found[0];
    assert_eq!(disk["name"], "disk");
    assert_eq!(disk["aliases"], json!([UUID]));
    assert_eq!(disk["uuid"], UUID);
    assert_eq!(disk["product_name"], "Malloc disk");
    assert_eq!(disk["block_size"], 4096);
    assert_eq!(disk["num_blocks"], 100);
    assert_eq!(disk["claimed"], false);
    assert_eq!(disk["driver_specific"], json!({}));
    assert_eq!(disk["numa_id"], -1);
    for kind in ["read", "write", "unmap", "flush", "write_zeroes", "compare"] {
        assert_eq!(disk["supported_io_types"][kind], true, "{kind}");
    }
    for kind in [
        "reset",
        "nvme_admin",
        "nvme_io",
        "nvme_io_md",
        "zcopy",
        "get_zone_info",
        "zone_management",
        "zone_append",
        "compare_and_write",
        "abort",
        "seek_hole",
        "seek_data",
        "copy",
        "nvme_iov_md",
        "nvme_nssr",
        "write_uncorrectable",
    ] {
        assert_eq!(disk["supported_io_types"][kind], false, "{kind}");
    }
    assert_eq!(daemon.ok("bdev_get_bdevs", json!({"name": UUID})), found);
    let names = |list: Value| -> Vec<String> {
        let list = list.as_array().expect("a list").clone();
        list.iter()
            .map(|disk| disk["name"].as_str().expect("a name").to_owned())
            .collect()
    };
    assert_eq!(
        names(daemon.ok("bdev_get_bdevs", Value::Null)),
        ["Malloc0", "Malloc1", "disk"]
    );

    daemon.refused(create, named, EEXIST, "File exists");
    let same_uuid = json!({"name": "other", "block_size": 512, "num_blocks": 1, "uuid": UUID});
    daemon.refused(create, same_uuid, EEXIST, UUID);
    assert_eq!(daemon.ok("bdev_malloc_delete", json!({"name": UUID})), true);
    assert_eq!(
        daemon.ok("bdev_malloc_delete", json!({"name": "Malloc0"})),
        true
    );
    daemon.refused(
        "bdev_malloc_delete",
        json!({"name": "Malloc0"}),
        ENODEV,
        "No such device",
    );
    daemon.refused("bdev_get_bdevs", json!({"name": "disk"}), ENODEV, "`disk`");
    assert_eq!(names(daemon.ok("bdev_get_bdevs", Value::Null)), ["Malloc1"]);
    daemon.stop();
}

#[test]
fn ram_and_null_disks_refuse_what_cannot_be() {
    let place = directory();
    let mut daemon = Daemon::start(place.path(), &[]);
    let create = "bdev_malloc_create";
    for (params, code, part) in [
        (json!({"num_blocks": 8}), DECODE, "block_size"),
        (json!({"block_size": 512}), DECODE, "num_blocks"),
        (
            json!({"block_size": "512", "num_blocks": 8}),
            DECODE,
            "block_size",
        ),
        (
            json!({"block_size": 512, "num_blocks": -8}),
            DECODE,
            "num_blocks",
        ),
        (
            json!({"block_size": 512.5, "num_blocks": 8}),
            DECODE,
            "block_size",
        ),
        (
            json!({"block_size": 512, "num_blocks": 8, "foo": 1}),
            DECODE,
            "foo",
        ),
        (
            json!({"block_size": 512, "num_blocks": 8, "name": 7}),
            DECODE,
            "name",
        ),
        (
            json!({"block_size": 512, "num_blocks": 8, "uuid": "zz"}),
            DECODE,
            "zz",
        ),
        (json!([512, 8]), DECODE, "array"),
        (json!({"block_size": 500, "num_blocks": 8}), EINVAL, "500"),
        (
            json!({"block_size": 512, "num_blocks": 0}),
            EINVAL,
            "num_blocks",
        ),
        (
            json!({"block_size": 512, "num_blocks": 8, "physical_block_size": 1000}),
            EINVAL,
            "1000",
        ),
        (
            json!({"block_size": 512, "num_blocks": 8, "md_size": 8}),
            EINVAL,
            "metadata",
        ),
        (
            json!({"block_size": 512, "num_blocks": 8, "dif_type": 1}),
            EINVAL,
            "protection",
        ),
        (
            json!({"block_size": 512, "num_blocks": 8, "name": ""}),
            EINVAL,
            "name",
        ),
        (
            json!({"block_size": 512, "num_blocks": u64::MAX}),
            EINVAL,
            "2^63",
        ),
    ] {
        daemon.refused(create, params, code, part);
    }
    let huge = json!({"block_size": 512, "num_blocks": (1u64 << 46)});
    daemon.refused(create, huge, -12, "no memory");
    let null = "bdev_null_create";
    daemon.refused(
        null,
        json!({"block_size": 512, "num_blocks": 8}),
        DECODE,
        "name",
    );
    daemon.refused(
        null,
        json!({"name": "n", "block_size": 100, "num_blocks": 8}),
        EINVAL,
        "100",
    );
    assert_eq!(daemon.ok("bdev_get_bdevs", Value::Null), json!([]));
    daemon.stop();
}

#[test]
fn null_disks_grow_and_show_their_hints() {
    let place = directory();
    let mut daemon = Daemon::start(place.path(), &[]);
    let create = json!({
        "name": "n", "block_size": 4096, "num_blocks": 2048, "preferred_write_granularity": 8,
        "optimal_write_size": 16,
    });
    assert_eq!(daemon.ok("bdev_null_create", create), "n");
    let shown = daemon.ok("bdev_get_bdevs", json!({"name": "n"}));
    assert_eq!(shown[0]["preferred_write_granularity"], 8);
    assert_eq!(shown[0]["optimal_write_size"], 16);
    let resize = "bdev_null_resize";
    assert_eq!(daemon.ok(resize, json!({"name": "n", "new_size": 8})), true);
    assert_eq!(
        daemon.ok(resize, json!({"name": "n", "new_size": 16})),
        true
    );
    assert_eq!(
        daemon.ok("bdev_get_bdevs", json!({"name": "n"}))[0]["num_blocks"],
        4096
    );
    daemon.refused(
        resize,
        json!({"name": "n", "new_size": 8}),
        EINVAL,
        "only grow",
    );
    daemon.refused(
        resize,
        json!({"name": "n", "new_size": u64::MAX}),
        EINVAL,
        "",
    );
    daemon.refused(resize, json!({"name": "x", "new_size": 8}), ENODEV, "`x`");
    daemon.refused(resize, json!({"name": "n"}), DECODE, "new_size");
    daemon.malloc("m");
    daemon.refused(
        resize,
        json!({"name": "m", "new_size": 80}),
        EINVAL,
        "no null bdev",
    );
    daemon.refused(
        "bdev_null_delete",
        json!({"name": "m"}),
        ENODEV,
        "Malloc disk",
    );
    assert_eq!(daemon.ok("bdev_null_delete", json!({"name": "n"})), true);
    daemon.stop();
}

fn uring(name: &str, path: &Path) -> Value {
    json!({"name": name, "filename": path, "block_size": 512})
}

#[test]
fn files_become_disks() {
    let place = directory();
    let mut daemon = Daemon::start(place.path(), &[]);
    let path = file(place.path(), "disk.img", 8 << 20);
    assert_eq!(daemon.ok("bdev_uring_create", uring("u", &path)), "u");
    let shown = daemon.ok("bdev_get_bdevs", json!({"name": "u"}));
    assert_eq!(shown[0]["product_name"], "URING bdev");
    assert_eq!(shown[0]["num_blocks"], 16384);
    assert_eq!(
        shown[0]["driver_specific"],
        json!({"uring": {"filename": path}})
    );

    // Twice for writing: by another bdev, and by another daemon.
    let unable = "Unable to create URING bdev";
    daemon.refused("bdev_uring_create", uring("v", &path), DECODE, unable);
    let aio = json!({"name": "v", "filename": path, "block_size": 512});
    assert!(daemon.call("bdev_aio_create", aio.clone()).is_err());
    let second_place = directory();
    let mut second = Daemon::start(second_place.path(), &[]);
    second.refused(
        "bdev_uring_create",
        uring("u", &path),
        DECODE,
        "open in another",
    );
    second.stop();

    // The end of the file moves.
    let grown = std::fs::OpenOptions::new()
        .write(true)
        .open(&path)
        .expect("the file");
    grown.set_len(16 << 20).expect("room");
    assert_eq!(daemon.ok("bdev_uring_rescan", json!({"name": "u"})), true);
    assert_eq!(
        daemon.ok("bdev_get_bdevs", json!({"name": "u"}))[0]["num_blocks"],
        32768
    );
    assert_eq!(daemon.ok("bdev_uring_rescan", json!({"name": "u"})), true);
    daemon.refused(
        "bdev_aio_rescan",
        json!({"name": "u"}),
        ENODEV,
        "URING bdev",
    );
    daemon.refused("bdev_uring_rescan", json!({"name": "x"}), ENODEV, "`x`");

    // Closed at once: another may have it.
    daemon.refused(
        "bdev_aio_delete",
        json!({"name": "u"}),
        ENODEV,
        "URING bdev",
    );
    assert_eq!(daemon.ok("bdev_uring_delete", json!({"name": "u"})), true);
    assert_eq!(daemon.ok("bdev_aio_create", aio), "v");
    let shown = daemon.ok("bdev_get_bdevs", json!({"name": "v"}));
    assert_eq!(shown[0]["product_name"], "AIO disk");
    let specific = json!({
        "filename": path, "block_size_override": true, "readonly": false, "fallocate": false, "nowait": false,
    });
    assert_eq!(shown[0]["driver_specific"]["aio"], specific);
    assert_eq!(daemon.ok("bdev_aio_rescan", json!({"name": "v"})), true);
    assert_eq!(daemon.ok("bdev_aio_delete", json!({"name": "v"})), true);
    daemon.stop();
}

#[test]
fn files_that_cannot_be_disks_are_refused_with_the_reason() {
    let place = directory();
    let mut daemon = Daemon::start(place.path(), &[]);
    let missing = place.path().join("missing.img");
    let short = file(place.path(), "short.img", 511);
    let good = file(place.path(), "good.img", 1 << 20);
    let aio = |path: &Path| json!({"name": "a", "filename": path, "block_size": 512});
    daemon.refused(
        "bdev_uring_create",
        uring("u", &missing),
        DECODE,
        "does not exist",
    );
    daemon.refused("bdev_aio_create", aio(&missing), ENOENT, "does not exist");
    daemon.refused(
        "bdev_uring_create",
        uring("u", &short),
        DECODE,
        "less than one block",
    );
    daemon.refused(
        "bdev_aio_create",
        aio(&short),
        EINVAL,
        "less than one block",
    );
    daemon.refused("bdev_aio_create", aio(place.path()), EINVAL, "a directory");
    daemon.refused(
        "bdev_aio_create",
        aio(Path::new("/dev/null")),
        EINVAL,
        "character device",
    );
    daemon.refused(
        "bdev_aio_create",
        json!({"name": "a", "filename": good}),
        EINVAL,
        "block_size",
    );
    let odd = json!({"name": "a", "filename": good, "block_size": 500});
    daemon.refused("bdev_aio_create", odd, EINVAL, "500");
    daemon.refused("bdev_aio_create", json!({"name": "a"}), DECODE, "filename");
    let unknown = json!({"name": "u", "filename": good, "block_size": 512, "readonly": true});
    daemon.refused("bdev_uring_create", unknown, DECODE, "readonly");
    daemon.malloc("a");
    daemon.refused("bdev_aio_create", aio(&good), EEXIST, "File exists");
    daemon.refused(
        "bdev_uring_create",
        uring("a", &good),
        DECODE,
        "File exists",
    );
    assert_eq!(daemon.ok("bdev_malloc_delete", json!({"name": "a"})), true);
    // Nothing is left behind by what was refused.
    assert_eq!(daemon.ok("bdev_get_bdevs", Value::Null), json!([]));
    assert_eq!(daemon.ok("bdev_aio_create", aio(&good)), "a");
    daemon.stop();
}

#[test]
fn a_file_that_may_only_be_read_needs_a_read_only_disk() {
    let place = directory();
    let mut daemon = Daemon::start(place.path(), &[]);
    let path = file(place.path(), "ro.img", 1 << 20);
    let mode = std::fs::Permissions::from_mode(0o444);
    std::fs::set_permissions(&path, mode).expect("the mode changes");
    let aio = |name: &str, readonly| json!({"name": name, "filename": path, "block_size": 512, "readonly": readonly});
    if nix::unistd::geteuid().is_root() {
        println!("the mode of a file keeps root from nothing: only the read-only disk is tried");
    } else {
        daemon.refused("bdev_aio_create", aio("w", false), EACCES, "permission");
    }
    assert_eq!(daemon.ok("bdev_aio_create", aio("r", true)), "r");
    let shown = daemon.ok("bdev_get_bdevs", json!({"name": "r"}));
    assert_eq!(shown[0]["supported_io_types"]["write"], false);
    assert_eq!(shown[0]["supported_io_types"]["read"], true);
    assert_eq!(shown[0]["driver_specific"]["aio"]["readonly"], true);
    // Readers share.
    assert_eq!(daemon.ok("bdev_aio_create", aio("s", true)), "s");
    daemon.stop();
}

#[test]
fn names_can_be_waited_for() {
    let place = directory();
    let mut daemon = Daemon::start(place.path(), &[]);
    daemon.refused(
        "bdev_get_bdevs",
        json!({"name": "late", "timeout": 20}),
        -110,
        "late",
    );
    let mut waiting = daemon.connect();
    let waiter = std::thread::spawn(move || {
        waiting.call("bdev_get_bdevs", json!({"name": "late", "timeout": 40_000}))
    });
    // Whichever of the two calls comes first, the answer is the same.
    daemon.malloc("late");
    let found = waiter.join().expect("no panic").expect("it has appeared");
    assert_eq!(found[0]["name"], "late");
    daemon.refused(
        "bdev_get_bdevs",
        json!({"name": "x", "foo": 1}),
        DECODE,
        "foo",
    );
    daemon.stop();
}

#[test]
fn statistics_are_told_and_forgotten() {
    let place = directory();
    let mut daemon = Daemon::start(place.path(), &[]);
    daemon.malloc("a");
    daemon.malloc("b");
    let stats = daemon.ok("bdev_get_iostat", Value::Null);
    assert!(stats["tick_rate"].as_u64() > Some(0));
    assert!(stats["ticks"].as_u64() > Some(0));
    let names: Vec<&Value> = stats["bdevs"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|b| &b["name"])
        .collect();
    assert_eq!(names, ["a", "b"]);
    for key in [
        "bytes_read",
        "num_read_ops",
        "bytes_written",
        "num_write_ops",
        "bytes_unmapped",
        "num_unmap_ops",
        "bytes_copied",
        "num_copy_ops",
        "read_latency_ticks",
        "max_read_latency_ticks",
        "min_read_latency_ticks",
        "write_latency_ticks",
        "max_write_latency_ticks",
        "min_write_latency_ticks",
        "unmap_latency_ticks",
        "max_unmap_latency_ticks",
        "min_unmap_latency_ticks",
        "copy_latency_ticks",
        "max_copy_latency_ticks",
        "min_copy_latency_ticks",
    ] {
        assert_eq!(stats["bdevs"][0][key], 0, "{key}");
    }
    let one = daemon.ok(
        "bdev_get_iostat",
        json!({"names": ["b"], "per_channel": true}),
    );
    assert_eq!(one["name"], "b");
    assert!(one["channels"].is_array());
    let get = "bdev_get_iostat";
    daemon.refused(get, json!({"names": ["x"]}), ENODEV, "`x`");
    daemon.refused(get, json!({"per_channel": true}), EINVAL, "one name");
    daemon.refused(get, json!({"reset_mode": "foo"}), DECODE, "foo");
    daemon.refused(get, json!({"name": "a"}), DECODE, "name");
    assert_eq!(
        daemon.ok("bdev_reset_iostat", json!({"name": "a", "mode": "maxmin"})),
        true
    );
    assert_eq!(daemon.ok("bdev_reset_iostat", Value::Null), true);
    daemon.refused("bdev_reset_iostat", json!({"name": "x"}), ENODEV, "`x`");
    daemon.stop();
}

#[test]
fn events_are_kept_for_whoever_polls() {
    let place = directory();
    let mut daemon = Daemon::start(place.path(), &[]);
    assert_eq!(
        daemon.ok("notify_get_notifications", Value::Null),
        json!([])
    );
    daemon.malloc("a");
    let null = json!({"name": "n", "block_size": 512, "num_blocks": 2048});
    daemon.ok("bdev_null_create", null);
    daemon.ok("bdev_null_resize", json!({"name": "n", "new_size": 2}));
    daemon.ok("bdev_malloc_delete", json!({"name": "a"}));
    let events = json!([
        {"type": "bdev_register", "ctx": "a", "id": 0},
        {"type": "bdev_register", "ctx": "n", "id": 1},
        {"type": "bdev_resize", "ctx": "n", "id": 2},
        {"type": "bdev_unregister", "ctx": "a", "id": 3},
    ]);
    assert_eq!(daemon.ok("notify_get_notifications", Value::Null), events);
    let part = daemon.ok("notify_get_notifications", json!({"id": 1, "max": 2}));
    assert_eq!(part, json!([events[1], events[2]]));
    assert_eq!(
        daemon.ok("notify_get_notifications", json!({"id": 100})),
        json!([])
    );
    // SPDK's first.
    let types = daemon.ok("notify_get_types", Value::Null);
    let first = types.as_array().and_then(|types| types.get(..3));
    let expected = [
        json!("bdev_register"),
        json!("bdev_unregister"),
        json!("bdev_resize"),
    ];
    assert_eq!(first, Some(expected.as_slice()));
    daemon.stop();
}

#[test]
fn a_disk_belongs_to_one_namespace() {
    let place = directory();
    let mut daemon = Daemon::start(place.path(), &[]);
    daemon.subsystem();
    daemon.malloc("a");
    assert_eq!(daemon.add_ns("a"), 1);
    let shown = daemon.ok("bdev_get_bdevs", json!({"name": "a"}));
    assert_eq!(shown[0]["claimed"], true);
    assert_eq!(shown[0]["claim_type"], "exclusive_write");
    let again = json!({"nqn": NQN, "namespace": {"bdev_name": "a"}});
    daemon.refused("nvmf_subsystem_add_ns", again, -32602, "namespace 1 of");
    // Deleting it takes the namespace along.
    assert_eq!(daemon.ok("bdev_malloc_delete", json!({"name": "a"})), true);
    let subsystem = daemon.ok("nvmf_get_subsystems", json!({"nqn": NQN}));
    assert_eq!(subsystem[0]["namespaces"], json!([]));
    daemon.malloc("a");
    assert_eq!(daemon.add_ns("a"), 1);
    daemon.ok("nvmf_delete_subsystem", json!({"nqn": NQN}));
    assert_eq!(
        daemon.ok("bdev_get_bdevs", json!({"name": "a"}))[0]["claimed"],
        false
    );
    daemon.stop();
}
