//! nvmf_*: good calls and bad ones.

use std::os::unix::fs::FileTypeExt;

use serde_json::{Value, json};

use crate::common::{Daemon, NQN, address, directory};

const INVALID: i64 = -32602;
const INTERNAL: i64 = -32603;
const ENODEV: i64 = -19;
const DISCOVERY: &str = "nqn.2014-08.org.nvmexpress.discovery";

#[test]
fn there_is_one_transport() {
    let place = directory();
    let mut daemon = Daemon::start(place.path(), &[]);
    let (create, get) = ("nvmf_create_transport", "nvmf_get_transports");
    assert_eq!(daemon.ok(get, Value::Null), json!([]));
    daemon.refused(get, json!({"trtype": "VFIOUSER"}), ENODEV, "VFIOUSER");
    daemon.refused(create, Value::Null, INVALID, "trtype");
    daemon.refused(
        create,
        json!({"trtype": "FOO"}),
        INVALID,
        "Invalid transport type 'FOO'",
    );
    daemon.refused(
        create,
        json!({"trtype": "TCP"}),
        INVALID,
        "Invalid transport type 'TCP'",
    );
    for (key, value) in [
        ("max_queue_depth", json!(1)),
        ("max_queue_depth", json!(65536)),
        ("max_io_qpairs_per_ctrlr", json!(0)),
        ("max_io_qpairs_per_ctrlr", json!(512)),
        ("max_io_size", json!(2048)),
        ("max_io_size", json!(100_000)),
        ("masked_oncs", json!(["foo"])),
        ("masked_fuses", json!(["nvmcmps"])),
    ] {
        daemon.refused(
            create,
            json!({"trtype": "VFIOUSER", key: value}),
            INTERNAL,
            key,
        );
    }
    daemon.refused(
        create,
        json!({"trtype": "VFIOUSER", "kas": "x"}),
        INVALID,
        "kas",
    );
    let other = json!({"trtype": "VFIOUSER", "tgt_name": "x"});
    daemon.refused(create, other, INTERNAL, "Unable to find target x");
    assert_eq!(daemon.ok(get, Value::Null), json!([]));

    // Unknown members are taken here, as SPDK does.
    let wanted = json!({
        "trtype": "vfiouser", "max_queue_depth": 4096, "max_io_size": 262_144, "max_io_qpairs_per_ctrlr": 8,
        "disable_mappable_bar0": true, "num_cqe": 7,
    });
    assert_eq!(daemon.ok(create, wanted.clone()), true);
    daemon.refused(
        create,
        wanted,
        INTERNAL,
        "Transport type 'vfiouser' already exists",
    );
    let shown = daemon.ok(get, json!({"trtype": "VFIOUSER"}));
    assert_eq!(shown[0]["trtype"], "VFIOUSER");
    assert_eq!(shown[0]["max_queue_depth"], 4096);
    assert_eq!(shown[0]["max_io_size"], 262_144);
    assert_eq!(shown[0]["max_io_qpairs_per_ctrlr"], 8);
    assert_eq!(shown[0]["disable_mappable_bar0"], true);
    assert_eq!(shown[0]["kas"], 100);
    assert_eq!(shown[0]["num_cqe"], Value::Null);
    daemon.refused(get, json!({"trtype": "TCP"}), ENODEV, "TCP");
    daemon.stop();
}

#[test]
fn subsystems_come_and_go() {
    let place = directory();
    let mut daemon = Daemon::start(place.path(), &[]);
    let create = "nvmf_create_subsystem";
    let discovery = json!({
        "nqn": DISCOVERY, "subtype": "Discovery", "listen_addresses": [], "allow_any_host": true, "hosts": [],
    });
    assert_eq!(
        daemon.ok("nvmf_get_subsystems", Value::Null),
        json!([discovery])
    );
    assert_eq!(daemon.ok(create, json!({"nqn": NQN})), true);
    let listed = daemon.ok("nvmf_get_subsystems", Value::Null);
    assert_eq!(listed[0], discovery);
    assert_eq!(
        listed[1],
        json!({
            "nqn": NQN, "subtype": "NVMe", "listen_addresses": [], "allow_any_host": false, "hosts": [],
            "serial_number": "00000000000000000000", "model_number": "SPDK bdev Controller",
            "max_namespaces": 32, "passthrough": false, "min_cntlid": 1, "max_cntlid": 65519,
            "dmrsl": 2_097_152, "wzsl": 12, "namespaces": [],
        })
    );
    let other = "nqn.2026-11.io.example:other";
    let full = json!({
        "nqn": other, "allow_any_host": true, "serial_number": "SN1", "model_number": "A model",
        "admin_label": "my label", "max_namespaces": 4, "min_cntlid": 5, "max_cntlid": 6, "dmrsl": 1, "wzsl": 2,
        "ana_reporting": true, "enable_nssr": true, "tgt_name": "nvmf_tgt", "passthrough": false,
    });
    assert_eq!(daemon.ok(create, full), true);
    let shown = daemon.ok("nvmf_get_subsystems", json!({"nqn": other}));
    assert_eq!(shown[0]["serial_number"], "SN1");
    assert_eq!(shown[0]["model_number"], "A model");
    assert_eq!(shown[0]["admin_label"], "my label");
    assert_eq!(shown[0]["max_namespaces"], 4);
    assert_eq!(shown[0]["min_cntlid"], 5);
    let before = daemon.ok("nvmf_get_subsystems", Value::Null);

    let unable = "Unable to create subsystem";
    for (params, code, part) in [
        (json!({"nqn": NQN}), INTERNAL, unable),
        (json!({"nqn": DISCOVERY}), INTERNAL, unable),
        (json!({"nqn": "foo"}), INTERNAL, unable),
        (
            json!({"nqn": format!("nqn.2026-11.io.example:{}", "x".repeat(201))}),
            INTERNAL,
            "223",
        ),
        (json!({}), INVALID, "nqn"),
        (json!({"nqn": 5}), INVALID, "nqn"),
        (
            json!({"nqn": "nqn.2026-11.io.example:c", "foo": 9}),
            INVALID,
            "foo",
        ),
        (
            json!({"nqn": "nqn.2026-11.io.example:c", "serial_number": "123456789012345678901"}),
            INVALID,
            "20",
        ),
        (
            json!({"nqn": "nqn.2026-11.io.example:c", "serial_number": "a\tb"}),
            INVALID,
            "ASCII",
        ),
        (
            json!({"nqn": "nqn.2026-11.io.example:c", "model_number": "m".repeat(41)}),
            INVALID,
            "40",
        ),
        (
            json!({"nqn": "nqn.2026-11.io.example:c", "admin_label": "z"}),
            INVALID,
            "admin_label",
        ),
        (
            json!({"nqn": "nqn.2026-11.io.example:c", "min_cntlid": 0}),
            INVALID,
            "Invalid cntlid range [0-65519]",
        ),
        (
            json!({"nqn": "nqn.2026-11.io.example:c", "min_cntlid": 9, "max_cntlid": 8}),
            INVALID,
            "[9-8]",
        ),
        (
            json!({"nqn": "nqn.2026-11.io.example:c", "max_cntlid": 65520}),
            INVALID,
            "[1-65520]",
        ),
        (
            json!({"nqn": "nqn.2026-11.io.example:c", "max_namespaces": u32::MAX}),
            INVALID,
            "max_namespaces",
        ),
        (
            json!({"nqn": "nqn.2026-11.io.example:c", "passthrough": true}),
            INVALID,
            "passthrough",
        ),
        (
            json!({"nqn": "nqn.2026-11.io.example:c", "tgt_name": "zz"}),
            INTERNAL,
            "Unable to find target zz",
        ),
    ] {
        daemon.refused(create, params, code, part);
    }
    assert_eq!(daemon.ok("nvmf_get_subsystems", Value::Null), before);

    daemon.refused(
        "nvmf_get_subsystems",
        json!({"nqn": "nqn.x"}),
        ENODEV,
        "nqn.x",
    );
    daemon.refused(
        "nvmf_delete_subsystem",
        json!({"nqn": "nqn.x"}),
        INVALID,
        "nqn.x",
    );
    daemon.refused(
        "nvmf_delete_subsystem",
        json!({"nqn": DISCOVERY}),
        INVALID,
        "stays",
    );
    assert_eq!(
        daemon.ok("nvmf_delete_subsystem", json!({"nqn": other})),
        true
    );
    daemon.refused(
        "nvmf_delete_subsystem",
        json!({"nqn": other}),
        INVALID,
        other,
    );
    daemon.stop();
}

#[test]
fn hosts_are_kept() {
    let place = directory();
    let mut daemon = Daemon::start(place.path(), &[]);
    daemon.subsystem();
    let host = "nqn.2026-11.io.example:host";
    let allow = "nvmf_subsystem_allow_any_host";
    assert_eq!(
        daemon.ok(allow, json!({"nqn": NQN, "allow_any_host": false})),
        true
    );
    daemon.refused(allow, json!({"nqn": NQN}), INVALID, "allow_any_host");
    daemon.refused(
        allow,
        json!({"nqn": "nqn.x", "allow_any_host": true}),
        INVALID,
        "nqn.x",
    );
    let add = "nvmf_subsystem_add_host";
    assert_eq!(daemon.ok(add, json!({"nqn": NQN, "host": host})), true);
    daemon.refused(add, json!({"nqn": NQN, "host": host}), INTERNAL, "already");
    daemon.refused(add, json!({"nqn": NQN, "host": "foo"}), INVALID, "foo");
    let shown = daemon.ok("nvmf_get_subsystems", json!({"nqn": NQN}));
    assert_eq!(shown[0]["hosts"], json!([{"nqn": host}]));
    assert_eq!(shown[0]["allow_any_host"], false);
    let remove = "nvmf_subsystem_remove_host";
    daemon.refused(
        remove,
        json!({"nqn": NQN, "host": "nqn.x"}),
        INTERNAL,
        "nqn.x",
    );
    assert_eq!(daemon.ok(remove, json!({"nqn": NQN, "host": host})), true);
    daemon.stop();
}

#[test]
fn namespaces_have_numbers_and_identities() {
    let place = directory();
    let mut daemon = Daemon::start(place.path(), &[]);
    daemon.subsystem();
    for name in ["a", "b", "c", "d"] {
        daemon.malloc(name);
    }
    let add = "nvmf_subsystem_add_ns";
    let ns = |namespace: Value| json!({"nqn": NQN, "namespace": namespace});
    assert_eq!(daemon.add_ns("a"), 1);
    let identified = json!({
        "bdev_name": "b", "nsid": 3, "nguid": "00112233445566778899aabbccddeeff", "eui64": "0011223344556677",
        "uuid": "6b0a9f7c-7d3c-4ad5-9b9c-8a0b4d8b2a01", "anagrpid": 2,
    });
    assert_eq!(daemon.ok(add, ns(identified)), 3);
    assert_eq!(daemon.add_ns("c"), 2);
    for (params, part) in [
        (ns(json!({"bdev_name": "x"})), "`x`"),
        (
            json!({"nqn": "nqn.x", "namespace": {"bdev_name": "d"}}),
            "nqn.x",
        ),
        (json!({"nqn": NQN}), "namespace"),
        (ns(json!({})), "bdev_name"),
        (ns(json!({"bdev_name": "d", "foo": 1})), "foo"),
        (ns(json!({"bdev_name": "a"})), "namespace 1 of"),
        (ns(json!({"bdev_name": "d", "nsid": 1})), "in use"),
        (ns(json!({"bdev_name": "d", "nsid": 33})), "max_namespaces"),
        (
            ns(json!({"bdev_name": "d", "nsid": u32::MAX})),
            "max_namespaces",
        ),
        (
            ns(json!({"bdev_name": "d", "nguid": "zz"})),
            "32 hexadecimal",
        ),
        (
            ns(json!({"bdev_name": "d", "eui64": "00"})),
            "16 hexadecimal",
        ),
        (
            ns(json!({"bdev_name": "d", "eui64": "0000000000000000"})),
            "zero",
        ),
        (ns(json!({"bdev_name": "d", "uuid": "zz"})), "zz"),
        (ns(json!({"bdev_name": "d", "anagrpid": 33})), "anagrpid"),
    ] {
        daemon.refused(add, params, INVALID, part);
    }
    assert_eq!(
        daemon.ok("bdev_get_bdevs", json!({"name": "d"}))[0]["claimed"],
        false
    );
    let shown = daemon.ok("nvmf_get_subsystems", json!({"nqn": NQN}));
    let spaces = &shown[0]["namespaces"];
    let numbers: Vec<u64> = spaces
        .as_array()
        .expect("a list")
        .iter()
        .filter_map(|n| n["nsid"].as_u64())
        .collect();
    assert_eq!(numbers, [1, 2, 3]);
    let uuid = daemon.ok("bdev_get_bdevs", json!({"name": "a"}))[0]["uuid"].clone();
    let digits = uuid
        .as_str()
        .expect("a UUID")
        .replace('-', "")
        .to_uppercase();
    assert_eq!(
        spaces[0],
        json!({"nsid": 1, "bdev_name": "a", "name": "a", "nguid": digits, "uuid": uuid})
    );
    assert_eq!(spaces[2]["nguid"], "00112233445566778899AABBCCDDEEFF");
    assert_eq!(spaces[2]["eui64"], "0011223344556677");
    assert_eq!(spaces[2]["uuid"], "6b0a9f7c-7d3c-4ad5-9b9c-8a0b4d8b2a01");

    let remove = "nvmf_subsystem_remove_ns";
    daemon.refused(
        remove,
        json!({"nqn": NQN, "nsid": 9}),
        INVALID,
        "no namespace 9",
    );
    daemon.refused(remove, json!({"nqn": "nqn.x", "nsid": 1}), INVALID, "nqn.x");
    daemon.refused(remove, json!({"nqn": NQN}), INVALID, "nsid");
    assert_eq!(daemon.ok(remove, json!({"nqn": NQN, "nsid": 2})), true);
    assert_eq!(
        daemon.ok("bdev_get_bdevs", json!({"name": "c"}))[0]["claimed"],
        false
    );
    assert_eq!(daemon.add_ns("c"), 2);
    daemon.stop();
}

#[test]
fn listeners_need_a_directory_of_their_own() {
    let place = directory();
    let mut daemon = Daemon::start(place.path(), &[]);
    let add = "nvmf_subsystem_add_listener";
    let first = place.path().join("vm0");
    std::fs::create_dir(&first).expect("a directory");
    let at =
        |directory: &std::path::Path| json!({"nqn": NQN, "listen_address": address(directory)});
    daemon.ok("nvmf_create_subsystem", json!({"nqn": NQN}));
    daemon.refused(add, at(&first), INVALID, "nvmf_create_transport");
    daemon.ok("nvmf_create_transport", json!({"trtype": "VFIOUSER"}));
    let long = place.path().join("x".repeat(120));
    std::fs::create_dir(&long).expect("a directory");
    let occupied = place.path().join("occupied");
    std::fs::create_dir(&occupied).expect("a directory");
    std::fs::write(occupied.join("cntrl"), "not a socket").expect("a file");
    for (params, part) in [
        (at(&place.path().join("missing")), "create it first"),
        (at(&long), "at most 107"),
        (at(&occupied), "not a socket"),
        (
            json!({"nqn": NQN, "listen_address": {"trtype": "VFIOUSER"}}),
            "traddr",
        ),
        (
            json!({"nqn": NQN, "listen_address": {"traddr": first}}),
            "trtype",
        ),
        (
            json!({"nqn": NQN, "listen_address": {"trtype": "TCP", "traddr": "1.2.3.4"}}),
            "TCP",
        ),
        (
            json!({"nqn": NQN, "listen_address": {"trtype": "VFIOUSER", "traddr": ""}}),
            "empty",
        ),
        (
            json!({"nqn": NQN, "listen_address": address(&first), "ana_state": "foo"}),
            "ana_state",
        ),
        (
            json!({"nqn": "nqn.x", "listen_address": address(&first)}),
            "nqn.x",
        ),
        (
            json!({"nqn": DISCOVERY, "listen_address": address(&first)}),
            "discovery",
        ),
    ] {
        daemon.refused(add, params, INVALID, part);
    }
    assert!(!first.join("cntrl").exists());
    assert_eq!(
        daemon.ok("nvmf_get_subsystems", Value::Null)[1]["listen_addresses"],
        json!([])
    );

    // Unknown members are taken here, as SPDK does; a number is as good as text for the service.
    let params = json!({
        "nqn": NQN, "listen_address": {"trtype": "vfiouser", "traddr": first, "trsvcid": 0}, "bar": 1,
    });
    assert_eq!(daemon.ok(add, params), true);
    let socket = first.join("cntrl");
    assert!(
        std::fs::metadata(&socket)
            .expect("a socket")
            .file_type()
            .is_socket()
    );
    daemon.refused(add, at(&first), INVALID, "already");
    let second_place = directory();
    let mut second = Daemon::start(second_place.path(), &[]);
    second.subsystem();
    second.refused(add, at(&first), INVALID, "in use by a running server");
    second.stop();
    assert!(socket.exists(), "the other daemon's socket stays");
    let shown = json!({"trtype": "VFIOUSER", "adrfam": "unknown", "traddr": first, "trsvcid": "0"});
    assert_eq!(
        daemon.ok("nvmf_get_subsystems", Value::Null)[1]["listen_addresses"],
        json!([shown])
    );
    let listeners = daemon.ok("nvmf_subsystem_get_listeners", json!({"nqn": NQN}));
    assert_eq!(listeners, json!([{ "address": shown }]));
    for method in [
        "nvmf_subsystem_get_controllers",
        "nvmf_subsystem_get_qpairs",
    ] {
        assert_eq!(daemon.ok(method, json!({"nqn": NQN})), json!([]));
        daemon.refused(method, json!({"nqn": "nqn.x"}), INVALID, "nqn.x");
        daemon.refused(method, json!({"nqn": NQN, "foo": 1}), INVALID, "foo");
    }
    daemon.refused(
        "nvmf_subsystem_get_listeners",
        json!({"nqn": "nqn.x"}),
        INVALID,
        "nqn.x",
    );

    let remove = "nvmf_subsystem_remove_listener";
    daemon.refused(remove, at(&occupied), INVALID, "does not listen");
    daemon.refused(
        remove,
        json!({"nqn": "nqn.x", "listen_address": address(&first)}),
        INVALID,
        "nqn.x",
    );
    assert_eq!(daemon.ok(remove, at(&first)), true);
    assert!(!socket.exists());
    assert_eq!(daemon.ok(add, at(&first)), true);
    // What is not a socket of ours stays.
    assert_eq!(
        std::fs::read(occupied.join("cntrl")).expect("a file"),
        b"not a socket"
    );
    daemon.stop();
    assert!(!socket.exists(), "the endpoint's socket is left");
}

#[test]
fn endpoints_need_controller_ids() {
    let place = directory();
    let mut daemon = Daemon::start(place.path(), &[]);
    daemon.ok("nvmf_create_transport", json!({"trtype": "VFIOUSER"}));
    daemon.ok(
        "nvmf_create_subsystem",
        json!({"nqn": NQN, "min_cntlid": 7, "max_cntlid": 8}),
    );
    daemon.listen(&place.path().join("0"));
    daemon.listen(&place.path().join("1"));
    let third = place.path().join("2");
    std::fs::create_dir(&third).expect("a directory");
    let params = json!({"nqn": NQN, "listen_address": address(&third)});
    daemon.refused("nvmf_subsystem_add_listener", params, INVALID, "7-8");
    daemon.stop();
}
