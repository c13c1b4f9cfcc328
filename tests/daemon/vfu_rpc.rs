//! vfu_*: virtio-blk endpoints over vfio-user, as operators make, see, change and delete them.

use std::os::unix::net::UnixListener;
use std::path::Path;

use serde_json::{Value, json};

use crate::common::{Daemon, NQN, directory};

const CREATE: &str = "vfu_virtio_create_blk_endpoint";

/// Makes endpoints in this directory from now on.
fn base(daemon: &mut Daemon, directory: &Path) {
    let params = json!({ "path": directory });
    assert_eq!(daemon.ok("vfu_tgt_set_base_path", params), true);
}

fn endpoint(name: &str, bdev: &str) -> Value {
    json!({"name": name, "bdev_name": bdev})
}

#[test]
fn endpoints_are_made_seen_and_deleted() {
    let place = directory();
    let mut daemon = Daemon::start(place.path(), &[]);
    assert_eq!(daemon.ok("vfu_get_endpoints", Value::Null), json!([]));
    daemon.malloc("m");
    base(&mut daemon, place.path());
    assert_eq!(daemon.ok(CREATE, endpoint("e0", "m")), true);
    let wanted = json!({
        "name": "e1", "bdev_name": "m", "cpumask": "0x1", "num_queues": 256, "qsize": 32768,
        "packed_ring": true, "readonly": true,
    });
    assert_eq!(daemon.ok(CREATE, wanted), true);
    let (first, second) = (place.path().join("e0"), place.path().join("e1"));
    assert!(first.exists() && second.exists());
    assert_eq!(
        daemon.ok("vfu_get_endpoints", Value::Null),
        json!([
            {
                "name": "e0", "type": "virtio_blk", "socket": first, "bdev_name": "m", "cpumask": "0x1",
                "num_queues": 64, "qsize": 128, "packed_ring": false, "readonly": false,
                "connected": false, "features": null, "queues": [],
            },
            {
                "name": "e1", "type": "virtio_blk", "socket": second, "bdev_name": "m", "cpumask": "0x1",
                "num_queues": 256, "qsize": 32768, "packed_ring": true, "readonly": true,
                "connected": false, "features": null, "queues": [],
            },
        ])
    );
    let one = daemon.ok("vfu_get_endpoints", json!({"name": "e1"}));
    assert_eq!(one.as_array().map(Vec::len), Some(1));
    assert!(
        daemon.log().contains("several endpoints"),
        "{}",
        daemon.log()
    );
    for name in ["e0", "e1"] {
        let params = json!({ "name": name });
        assert_eq!(daemon.ok("vfu_virtio_delete_endpoint", params), true);
    }
    assert!(!first.exists() && !second.exists());
    // The name is free again.
    assert_eq!(daemon.ok(CREATE, endpoint("e0", "m")), true);
    daemon.stop();
    assert!(!first.exists(), "a socket is left");
}

#[test]
fn what_cannot_be_is_refused_with_the_reason() {
    let place = directory();
    let mut daemon = Daemon::start(place.path(), &[]);
    daemon.malloc("m");
    base(&mut daemon, place.path());
    daemon.ok(CREATE, endpoint("e", "m"));
    for (params, part) in [
        (json!({}), "Invalid argument: missing field `name`"),
        (json!({"name": "x"}), "bdev_name"),
        (json!({"name": 5, "bdev_name": "m"}), "Invalid argument"),
        (json!({"name": "x", "bdev_name": "m", "foo": 1}), "foo"),
        (
            endpoint("x", "nope"),
            "No such device: there is no bdev `nope`",
        ),
        (endpoint("e", "m"), "File exists"),
        (endpoint("", "m"), "Invalid argument"),
        (endpoint("../x", "m"), "stays below it"),
        (endpoint("/x", "m"), "stays below it"),
        (
            endpoint(&"x".repeat(120), "m"),
            "File name too long: socket path",
        ),
        (endpoint("no/x", "m"), "create it first"),
    ] {
        daemon.refused(CREATE, params, -32602, part);
    }
    for (key, value, part) in [
        ("num_queues", json!(0), "num_queues 0 is not from 1 to 256"),
        ("num_queues", json!(257), "is not from 1 to 256"),
        ("num_queues", json!(65536), "num_queues"),
        ("num_queues", json!("4"), "num_queues"),
        (
            "qsize",
            json!(0),
            "qsize 0 is no power of two from 4 to 32768",
        ),
        ("qsize", json!(2), "from 4 to 32768"),
        ("qsize", json!(100), "from 4 to 32768"),
        ("qsize", json!(32769), "from 4 to 32768"),
        ("qsize", json!(65536), "qsize"),
        ("packed_ring", json!("yes"), "packed_ring"),
        ("cpumask", json!("0x100000"), "[0] (vtarget serve -m)"),
        ("cpumask", json!("zz"), "no set of processors"),
        ("cpumask", json!("0x0"), "empty"),
    ] {
        let mut params = endpoint("x", "m");
        params[key] = value;
        daemon.refused(CREATE, params, -32602, part);
    }
    // Names that something else has.
    let taken = place.path().join("taken");
    let _listener = UnixListener::bind(&taken).expect("a socket");
    daemon.refused(
        CREATE,
        endpoint("taken", "m"),
        -32602,
        "Address already in use",
    );
    std::fs::write(place.path().join("plain"), "text").expect("a file");
    daemon.refused(CREATE, endpoint("plain", "m"), -32602, "not a socket");
    let listed = daemon.ok("vfu_get_endpoints", Value::Null);
    assert_eq!(listed.as_array().map(Vec::len), Some(1), "{listed}");

    let delete = "vfu_virtio_delete_endpoint";
    daemon.refused(
        delete,
        json!({"name": "x"}),
        -32602,
        "No such file or directory",
    );
    daemon.refused(delete, Value::Null, -32602, "Invalid argument");
    daemon.refused(
        delete,
        json!({"name": "e", "x": 1}),
        -32602,
        "Invalid argument",
    );
    let get = "vfu_get_endpoints";
    daemon.refused(
        get,
        json!({"name": "x"}),
        -32602,
        "No such file or directory",
    );
    daemon.refused(get, json!({"nam": "x"}), -32602, "Invalid argument");
    let base = "vfu_tgt_set_base_path";
    daemon.refused(base, Value::Null, -32602, "Invalid argument");
    daemon.refused(base, json!({"path": 1}), -32602, "Invalid argument");
    daemon.stop();
}

#[test]
fn the_base_path_is_where_sockets_are_made() {
    let place = directory();
    let mut daemon = Daemon::start(
        place.path(),
        &["-S", place.path().to_str().expect("a path")],
    );
    daemon.malloc("m");
    daemon.ok(CREATE, endpoint("a", "m"));
    assert!(place.path().join("a").exists());
    // One that does not exist may be made later, as in SPDK.
    let later = place.path().join("later");
    base(&mut daemon, &later);
    daemon.refused(CREATE, endpoint("b", "m"), -32602, "create it first");
    std::fs::create_dir(&later).expect("a directory");
    daemon.ok(CREATE, endpoint("b", "m"));
    assert!(later.join("b").exists());
    // An empty one changes nothing.
    assert_eq!(
        daemon.ok("vfu_tgt_set_base_path", json!({"path": ""})),
        true
    );
    std::fs::create_dir(later.join("vm")).expect("a directory");
    daemon.ok(CREATE, endpoint("vm/c", "m"));
    assert!(later.join("vm/c").exists());
    daemon.stop();
}

#[test]
fn a_namespace_has_its_disk_for_itself() {
    let place = directory();
    let mut daemon = Daemon::start(place.path(), &[]);
    daemon.subsystem();
    daemon.malloc("n");
    daemon.malloc("m");
    daemon.add_ns("n");
    base(&mut daemon, place.path());
    let claimed = "Operation not permitted: bdev `n` is namespace 1 of";
    daemon.refused(CREATE, endpoint("e", "n"), -32602, claimed);
    daemon.ok(CREATE, endpoint("e", "m"));
    let swap = json!({"name": "e", "bdev_name": "n"});
    daemon.refused("vfu_virtio_blk_set_bdev", swap, -32602, claimed);
    assert_eq!(
        daemon.ok("bdev_get_bdevs", json!({"name": "m"}))[0]["claimed"],
        false
    );
    let namespace = json!({"nqn": NQN, "namespace": {"bdev_name": "m"}});
    let part = "is the disk of the vfio-user endpoint `e`";
    daemon.refused("nvmf_subsystem_add_ns", namespace, -32602, part);
    daemon.stop();
}

#[test]
fn disks_come_and_go_under_an_endpoint() {
    let place = directory();
    let mut daemon = Daemon::start(place.path(), &[]);
    daemon.malloc("a");
    daemon.malloc("b");
    base(&mut daemon, place.path());
    daemon.ok(CREATE, endpoint("e", "a"));
    let shown =
        |daemon: &mut Daemon| daemon.ok("vfu_get_endpoints", Value::Null)[0]["bdev_name"].clone();
    assert_eq!(shown(&mut daemon), "a");
    let set = "vfu_virtio_blk_set_bdev";
    assert_eq!(daemon.ok(set, endpoint("e", "b")), true);
    assert_eq!(shown(&mut daemon), "b");
    // One that is not shown goes without a trace; one that is leaves the endpoint without a disk.
    assert_eq!(daemon.ok("bdev_malloc_delete", json!({"name": "a"})), true);
    assert_eq!(shown(&mut daemon), "b");
    assert_eq!(daemon.ok("bdev_malloc_delete", json!({"name": "b"})), true);
    assert_eq!(shown(&mut daemon), Value::Null);
    daemon.malloc("c");
    assert_eq!(daemon.ok(set, endpoint("e", "c")), true);
    assert_eq!(shown(&mut daemon), "c");
    assert_eq!(
        daemon.ok(set, json!({"name": "e", "bdev_name": null})),
        true
    );
    assert_eq!(shown(&mut daemon), Value::Null);
    daemon.refused(
        set,
        json!({"name": "e"}),
        -32602,
        "missing field `bdev_name`",
    );
    daemon.refused(set, endpoint("x", "c"), -32602, "No such file or directory");
    daemon.refused(set, endpoint("e", "x"), -32602, "No such device");
    daemon.stop();
}
