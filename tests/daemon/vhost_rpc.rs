//! vhost_* and virtio_blk_*: virtio-blk controllers over vhost-user, as operators make, see, change and delete them.

use std::os::unix::net::UnixListener;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::common::{Daemon, directory};

const CREATE: &str = "vhost_create_blk_controller";

fn start(place: &TempDir) -> Daemon {
    let mut daemon = Daemon::start(
        place.path(),
        &["-S", place.path().to_str().expect("a path")],
    );
    daemon.malloc("m");
    daemon
}

fn controller(name: &str, bdev: &str) -> Value {
    json!({"ctrlr": name, "dev_name": bdev})
}

#[test]
fn controllers_are_made_seen_and_deleted() {
    let place = directory();
    let mut daemon = start(&place);
    assert_eq!(daemon.ok("vhost_get_controllers", Value::Null), json!([]));
    assert_eq!(daemon.ok(CREATE, controller("c0", "m")), true);
    let wanted = json!({
        "ctrlr": "c1", "dev_name": "m", "cpumask": "0x1", "readonly": true, "packed_ring": true,
        "transport": "VHOST_USER_BLK", "something_else": 1,
    });
    assert_eq!(daemon.ok(CREATE, wanted), true);
    let (first, second) = (place.path().join("c0"), place.path().join("c1"));
    assert!(first.exists() && second.exists());
    let shown = |ctrlr: &str, socket, readonly: bool| {
        let block = json!({"readonly": readonly, "bdev": "m", "transport": "vhost_user_blk"});
        json!({
            "ctrlr": ctrlr, "cpumask": "0x1", "delay_base_us": 0, "iops_threshold": 60000,
            "socket": socket, "sessions": [], "backend_specific": {"block": block},
        })
    };
    let (first_shown, second_shown) = (shown("c0", &first, false), shown("c1", &second, true));
    assert_eq!(
        daemon.ok("vhost_get_controllers", Value::Null),
        json!([first_shown, second_shown])
    );
    assert_eq!(
        daemon.ok("vhost_get_controllers", json!({"name": "c1"})),
        json!([second_shown])
    );
    for params in [
        json!({"ctrlr": "c0"}),
        json!({"ctrlr": "c1", "grace_ms": 0}),
    ] {
        assert_eq!(daemon.ok("vhost_delete_controller", params), true);
    }
    assert!(!first.exists() && !second.exists());
    assert_eq!(daemon.ok(CREATE, controller("c0", "m")), true);
    daemon.stop();
    assert!(!first.exists(), "a socket is left");
}

#[test]
fn what_cannot_be_is_refused_with_the_reason() {
    let place = directory();
    let mut daemon = start(&place);
    daemon.ok(CREATE, controller("c", "m"));
    for (params, part) in [
        (json!({}), "Invalid argument: missing field `ctrlr`"),
        (json!({"ctrlr": "x"}), "dev_name"),
        (json!({"ctrlr": 5, "dev_name": "m"}), "Invalid argument"),
        (
            json!({"ctrlr": "x", "dev_name": "m", "readonly": 1}),
            "readonly",
        ),
        (
            json!({"ctrlr": "x", "dev_name": "m", "cpumask": "0x100000"}),
            "vtarget serve -m",
        ),
        (
            json!({"ctrlr": "x", "dev_name": "m", "transport": "y"}),
            "only vhost_user_blk",
        ),
        (
            controller("x", "nope"),
            "No such device: there is no bdev `nope`",
        ),
        (controller("c", "m"), "File exists"),
        (controller("", "m"), "Invalid argument"),
        (controller("..", "m"), "stays below it"),
        (controller(&"x".repeat(120), "m"), "File name too long"),
        (controller("no/x", "m"), "create it first"),
    ] {
        daemon.refused(CREATE, params, -32602, part);
    }
    let taken = place.path().join("taken");
    let _listener = UnixListener::bind(&taken).expect("a socket");
    daemon.refused(
        CREATE,
        controller("taken", "m"),
        -32602,
        "Address already in use",
    );
    std::fs::write(place.path().join("plain"), "text").expect("a file");
    daemon.refused(CREATE, controller("plain", "m"), -32602, "not a socket");
    // A vfio-user endpoint of the same name would have the same socket.
    daemon.refused(
        "vfu_virtio_create_blk_endpoint",
        json!({"name": "c", "bdev_name": "m"}),
        -32602,
        "Address already in use",
    );

    let delete = "vhost_delete_controller";
    daemon.refused(delete, json!({"ctrlr": "x"}), -32602, "No such device");
    daemon.refused(delete, json!({}), -32602, "Invalid argument");
    daemon.refused(
        delete,
        json!({"ctrlr": "c", "force": true}),
        -32602,
        "Invalid argument",
    );
    daemon.refused(
        delete,
        json!({"ctrlr": "c", "grace_ms": 3_600_001}),
        -32602,
        "3600000",
    );
    let get = "vhost_get_controllers";
    daemon.refused(get, json!({"name": "x"}), -32603, "No such device");
    daemon.refused(get, json!({"ctrlr": "c"}), -32603, "Invalid argument");
    let listed = daemon.ok(get, Value::Null);
    assert_eq!(listed.as_array().map(Vec::len), Some(1), "{listed}");
    daemon.stop();
}

#[test]
fn interrupts_are_held_back_as_told() {
    let place = directory();
    let mut daemon = start(&place);
    daemon.ok(CREATE, controller("c", "m"));
    let set = "vhost_controller_set_coalescing";
    let params = |delay: u64, threshold: u64| json!({"ctrlr": "c", "delay_base_us": delay, "iops_threshold": threshold});
    assert_eq!(daemon.ok(set, params(100, 40_000)), true);
    let shown = daemon.ok("vhost_get_controllers", Value::Null)[0].clone();
    assert_eq!(
        (&shown["delay_base_us"], &shown["iops_threshold"]),
        (&json!(100), &json!(40_000))
    );
    daemon.refused(set, params(1_000_001, 1000), -32602, "from 0 to 1000000");
    daemon.refused(set, params(0, 99), -32602, "less than 100");
    daemon.refused(set, params(1 << 32, 1000), -32602, "Invalid argument");
    daemon.refused(set, json!({"ctrlr": "c"}), -32602, "Invalid argument");
    let missing = json!({"ctrlr": "x", "delay_base_us": 1, "iops_threshold": 1000});
    daemon.refused(set, missing, -32602, "No such device");
    assert_eq!(daemon.ok("vhost_get_controllers", Value::Null)[0], shown);
    daemon.stop();
}

#[test]
fn the_only_transport_is_there_from_the_start() {
    let place = directory();
    let mut daemon = start(&place);
    let only = json!([{"name": "vhost_user_blk"}]);
    let get = "virtio_blk_get_transports";
    assert_eq!(daemon.ok(get, Value::Null), only);
    assert_eq!(daemon.ok(get, json!({"name": "vhost_user_blk"})), only);
    daemon.refused(get, json!({"name": "x"}), -19, "No such device");
    daemon.refused(get, json!({"nam": "x"}), -32602, "Invalid parameters");
    let create = "virtio_blk_create_transport";
    daemon.refused(
        create,
        json!({"name": "vhost_user_blk"}),
        -17,
        "File exists",
    );
    daemon.refused(
        create,
        json!({"name": "x"}),
        -2,
        "No such file or directory",
    );
    daemon.refused(create, json!({}), -22, "Invalid argument");
    daemon.stop();
}

#[test]
fn disks_come_and_go_under_a_controller() {
    let place = directory();
    let mut daemon = start(&place);
    daemon.malloc("b");
    daemon.ok(CREATE, controller("c", "m"));
    let shown = |daemon: &mut Daemon| {
        let controllers = daemon.ok("vhost_get_controllers", Value::Null);
        controllers[0]["backend_specific"]["block"]["bdev"].clone()
    };
    let set = "vhost_blk_controller_set_bdev";
    assert_eq!(daemon.ok(set, controller("c", "b")), true);
    assert_eq!(shown(&mut daemon), "b");
    assert_eq!(daemon.ok("bdev_malloc_delete", json!({"name": "b"})), true);
    assert_eq!(shown(&mut daemon), Value::Null);
    assert_eq!(daemon.ok(set, controller("c", "m")), true);
    assert_eq!(shown(&mut daemon), "m");
    daemon.refused(
        set,
        controller("x", "m"),
        -32602,
        "No such device: there is no vhost controller",
    );
    daemon.refused(
        set,
        controller("c", "x"),
        -32602,
        "No such device: there is no bdev",
    );
    daemon.refused(
        set,
        json!({"ctrlr": "c"}),
        -32602,
        "missing field `dev_name`",
    );
    daemon.stop();
}
