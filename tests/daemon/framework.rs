//! framework_*, log_*, thread_* and what belongs to no disk.

use serde_json::{Value, json};

use crate::common::{Daemon, directory};

const INVALID: i64 = -32602;
const DECODE: i64 = -32603;
const WRONG_STATE: i64 = -1;

#[test]
fn methods_are_listed() {
    let place = directory();
    let mut daemon = Daemon::start(place.path(), &[]);
    let methods = daemon.ok("rpc_get_methods", Value::Null);
    let methods: Vec<&str> = methods
        .as_array()
        .expect("a list")
        .iter()
        .filter_map(Value::as_str)
        .collect();
    for method in [
        "rpc_get_methods",
        "spdk_get_version",
        "framework_wait_init",
        "framework_start_init",
        "framework_get_subsystems",
        "framework_get_config",
        "framework_get_reactors",
        "bdev_malloc_create",
        "bdev_malloc_delete",
        "bdev_null_create",
        "bdev_null_delete",
        "bdev_null_resize",
        "bdev_uring_create",
        "bdev_uring_delete",
        "bdev_uring_rescan",
        "bdev_aio_create",
        "bdev_aio_delete",
        "bdev_aio_rescan",
        "bdev_get_bdevs",
        "bdev_get_iostat",
        "bdev_examine",
        "bdev_wait_for_examine",
        "nvmf_create_transport",
        "nvmf_get_transports",
        "nvmf_create_subsystem",
        "nvmf_delete_subsystem",
        "nvmf_get_subsystems",
        "nvmf_subsystem_add_ns",
        "nvmf_subsystem_remove_ns",
        "nvmf_subsystem_add_listener",
        "nvmf_subsystem_remove_listener",
        "nvmf_subsystem_allow_any_host",
        "nvmf_subsystem_get_controllers",
        "nvmf_subsystem_get_qpairs",
        "nvmf_subsystem_get_listeners",
        "vfu_tgt_set_base_path",
        "vfu_virtio_create_blk_endpoint",
        "vfu_virtio_delete_endpoint",
        "vfu_get_endpoints",
        "vfu_virtio_blk_set_bdev",
        "vhost_create_blk_controller",
        "vhost_get_controllers",
        "vhost_delete_controller",
        "vhost_controller_set_coalescing",
        "vhost_blk_controller_set_bdev",
        "virtio_blk_create_transport",
        "virtio_blk_get_transports",
        "thread_get_stats",
        "thread_get_pollers",
        "log_set_level",
        "log_get_level",
        "log_set_print_level",
        "log_get_print_level",
        "spdk_kill_instance",
    ] {
        assert!(methods.contains(&method), "{method} is missing");
    }
    let current = daemon.ok("rpc_get_methods", json!({"current": true}));
    assert!(!current.to_string().contains("framework_start_init"));
    // A configuration is loaded in this order: what shows disks comes after them.
    let subsystems = daemon.ok("framework_get_subsystems", Value::Null);
    let subsystems = subsystems.as_array().expect("a list");
    let names: Vec<&Value> = subsystems.iter().map(|it| &it["subsystem"]).collect();
    assert_eq!(
        names[names.len() - 4..],
        ["bdev", "nvmf", "vhost_blk", "vfio_user_target"]
    );
    daemon.refused("rpc_get_methods", json!({"foo": 1}), INVALID, "foo");
    daemon.refused("nosuch", Value::Null, -32601, "Method not found");
    daemon.stop();
}

#[test]
fn the_version_names_the_contract() {
    let place = directory();
    let mut daemon = Daemon::start(place.path(), &[]);
    let version = daemon.ok("spdk_get_version", Value::Null);
    assert!(
        version["version"]
            .as_str()
            .is_some_and(|text| text.contains("vtarget"))
    );
    for field in ["major", "minor", "patch"] {
        assert!(version["fields"][field].is_u64(), "{field}");
    }
    assert!(version["fields"]["suffix"].is_string());
    daemon.refused("spdk_get_version", json!({"a": 1}), INVALID, "takes none");
    daemon.stop();
}

#[test]
fn threads_are_described() {
    let place = directory();
    let mut daemon = Daemon::start(place.path(), &["-m", "0x1"]);
    let reactors = daemon.ok("framework_get_reactors", Value::Null);
    assert_eq!(reactors["pid"], daemon.pid());
    let reactor = &reactors["reactors"][0];
    assert_eq!(reactor["lcore"], 0);
    assert_eq!(reactor["in_interrupt"], false);
    assert_eq!(reactor["lw_threads"][0]["cpumask"], "1");
    for key in ["numa_id", "tid", "busy", "idle", "irq", "sys", "usr"] {
        assert!(reactor[key].is_u64(), "{key}");
    }
    let stats = daemon.ok("thread_get_stats", Value::Null);
    assert_eq!(
        stats["threads"][0]["name"],
        reactor["lw_threads"][0]["name"]
    );
    assert_eq!(stats["threads"][0]["active_pollers_count"], 0);
    daemon.subsystem();
    daemon.listen(&place.path().join("vm"));
    let pollers = daemon.ok("thread_get_pollers", Value::Null);
    let poller = &pollers["threads"][0]["active_pollers"][0];
    assert!(
        poller["name"]
            .as_str()
            .is_some_and(|name| name.contains("vm/cntrl")),
        "{pollers}"
    );
    assert!(poller["run_count"].is_u64());
    daemon.refused("thread_get_stats", json!({"a": 1}), INVALID, "takes none");
    daemon.stop();
}

#[test]
fn every_processor_of_the_mask_gets_a_reactor() {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    if processors < 2 {
        println!("skipped: this machine has one processor");
        return;
    }
    let place = directory();
    let mut daemon = Daemon::start(
        place.path(),
        &["-m", "[0,1]", "-p", "1", "--interrupt-mode"],
    );
    let reactors = daemon.ok("framework_get_reactors", Value::Null);
    assert_eq!(reactors["reactors"][0]["lcore"], 1);
    assert_eq!(reactors["reactors"][1]["lcore"], 0);
    assert_eq!(reactors["reactors"][0]["in_interrupt"], true);
    let stats = daemon.ok("thread_get_stats", Value::Null);
    assert_eq!(stats["threads"].as_array().map(Vec::len), Some(2));
    daemon.stop();
}

#[test]
fn log_levels_can_be_changed() {
    let place = directory();
    let mut daemon = Daemon::start(place.path(), &[]);
    assert_eq!(daemon.ok("log_get_level", Value::Null), "NOTICE");
    for level in ["ERROR", "WARNING", "NOTICE", "INFO", "DEBUG"] {
        assert_eq!(daemon.ok("log_set_level", json!({ "level": level })), true);
        assert_eq!(daemon.ok("log_get_level", Value::Null), level);
        assert_eq!(
            daemon.ok("log_set_print_level", json!({ "level": level })),
            true
        );
        assert_eq!(daemon.ok("log_get_print_level", Value::Null), level);
    }
    daemon.refused("log_set_level", json!({"level": "FOO"}), DECODE, "FOO");
    daemon.refused(
        "log_set_print_level",
        json!({"level": "notice"}),
        DECODE,
        "notice",
    );
    daemon.refused("log_set_level", Value::Null, DECODE, "level");
    let timestamps = "log_enable_timestamps";
    assert_eq!(daemon.ok(timestamps, json!({"enabled": true})), true);
    daemon.refused(timestamps, json!({"enabled": false}), -95, "always");
    assert_eq!(daemon.ok("log_set_flag", json!({"flag": "nvmf"})), true);
    let flags = daemon.ok("log_get_flags", Value::Null);
    assert_eq!(flags["nvmf"], true);
    assert_eq!(flags["bdev"], false);
    assert_eq!(daemon.ok("log_clear_flag", json!({"flag": "all"})), true);
    assert_eq!(daemon.ok("log_get_flags", Value::Null)["nvmf"], false);
    daemon.refused(
        "log_set_flag",
        json!({"flag": "zzz"}),
        INVALID,
        "invalid log flag",
    );
    daemon.stop();
}

#[test]
fn what_has_no_counterpart_is_kept_or_refused() {
    let place = directory();
    let mut daemon = Daemon::start(place.path(), &["--wait-for-rpc"]);
    let iobuf = json!({"small_pool_count": 4096, "large_pool_count": 512});
    assert_eq!(daemon.ok("iobuf_set_options", iobuf), true);
    daemon.refused("iobuf_set_options", json!({"foo": 1}), INVALID, "foo");
    assert_eq!(
        daemon.ok("bdev_set_options", json!({"bdev_auto_examine": false})),
        true
    );
    daemon.refused(
        "bdev_set_options",
        json!({"bdev_io_pool_size": 1}),
        INVALID,
        "bdev_io_pool_size",
    );
    assert_eq!(
        daemon.ok("sock_set_default_impl", json!({"impl_name": "uring"})),
        true
    );
    daemon.refused(
        "sock_set_default_impl",
        json!({"impl_name": "foo"}),
        INVALID,
        "foo",
    );
    let sock = json!({"impl_name": "posix", "recv_buf_size": 4096});
    assert_eq!(daemon.ok("sock_impl_set_options", sock), true);
    assert_eq!(
        daemon.ok("sock_impl_get_options", json!({"impl_name": "posix"}))["recv_buf_size"],
        4096
    );
    assert_eq!(
        daemon.ok("nvmf_set_max_subsystems", json!({"max_subsystems": 1})),
        true
    );
    assert_eq!(daemon.ok("nvmf_set_crdt", json!({"crdt1": 3})), true);
    let passthru = json!({"admin_cmd_passthru": {"identify_ctrlr": true}});
    daemon.refused("nvmf_set_config", passthru, INVALID, "identify_ctrlr");
    assert_eq!(
        daemon.ok("accel_set_options", json!({"task_count": 7})),
        true
    );
    assert_eq!(daemon.ok("framework_start_init", Value::Null), true);

    assert_eq!(daemon.ok("bdev_examine", json!({"name": "x"})), true);
    daemon.ok(
        "nvmf_create_subsystem",
        json!({"nqn": "nqn.2026-11.io.example:a"}),
    );
    let second = json!({"nqn": "nqn.2026-11.io.example:b"});
    daemon.refused(
        "nvmf_create_subsystem",
        second,
        DECODE,
        "nvmf_set_max_subsystems",
    );
    let get = |daemon: &mut Daemon, name: &str| {
        daemon.ok("framework_get_config", json!({ "name": name }))
    };
    let kept = get(&mut daemon, "iobuf");
    assert_eq!(kept[0]["params"]["small_pool_count"], 4096);
    assert_eq!(kept[0]["params"]["small_bufsize"], 8192);
    assert_eq!(get(&mut daemon, "sock")[0]["params"]["impl_name"], "uring");
    assert_eq!(get(&mut daemon, "accel")[0]["params"]["task_count"], 7);
    assert_eq!(
        get(&mut daemon, "bdev")[0]["params"]["bdev_auto_examine"],
        false
    );

    assert_eq!(
        daemon.ok("framework_get_scheduler", Value::Null)["scheduler_name"],
        "static"
    );
    assert_eq!(
        daemon.ok("framework_set_scheduler", json!({"name": "dynamic"})),
        true
    );
    daemon.refused(
        "framework_set_scheduler",
        json!({"name": "foo"}),
        DECODE,
        "foo",
    );
    daemon.refused(
        "framework_set_scheduler",
        json!({"name": "static"}),
        -1,
        "static",
    );
    let scheduler = daemon.ok("framework_get_scheduler", Value::Null);
    assert_eq!(scheduler["scheduler_name"], "dynamic");
    assert_eq!(scheduler["scheduler_period"], 1_000_000);
    assert_eq!(scheduler["core_busy"], 95);
    daemon.stop();
}

#[test]
fn methods_know_their_state() {
    let place = directory();
    let mut daemon = Daemon::start(place.path(), &["--wait-for-rpc"]);
    for method in [
        "bdev_get_bdevs",
        "nvmf_get_subsystems",
        "framework_get_config",
        "thread_get_stats",
    ] {
        daemon.refused(method, Value::Null, WRONG_STATE, "framework_start_init");
    }
    let current = daemon
        .ok("rpc_get_methods", json!({"current": true}))
        .to_string();
    assert!(current.contains("framework_start_init") && current.contains("bdev_set_options"));
    assert!(!current.contains("bdev_malloc_create"));
    assert_eq!(daemon.ok("log_set_level", json!({"level": "INFO"})), true);
    let mut waiting = daemon.connect();
    let waiter = std::thread::spawn(move || waiting.call("framework_wait_init", Value::Null));
    assert_eq!(daemon.ok("framework_start_init", Value::Null), true);
    assert_eq!(waiter.join().expect("no panic").expect("an answer"), true);
    assert_eq!(daemon.ok("framework_wait_init", Value::Null), true);
    daemon.refused(
        "framework_start_init",
        Value::Null,
        WRONG_STATE,
        "--wait-for-rpc",
    );
    daemon.refused("bdev_set_options", json!({}), WRONG_STATE, "--wait-for-rpc");
    assert_eq!(daemon.ok("bdev_get_bdevs", Value::Null), json!([]));
    daemon.stop();
}

#[test]
fn only_allowed_methods_can_be_called() {
    let place = directory();
    let args = ["--rpcs-allowed", "rpc_get_methods,bdev_get_bdevs,nosuch"];
    let mut daemon = Daemon::start(place.path(), &args);
    assert_eq!(daemon.ok("bdev_get_bdevs", Value::Null), json!([]));
    daemon.refused("spdk_get_version", Value::Null, -32601, "Method not found");
    let names = daemon.ok("rpc_get_methods", Value::Null);
    assert_eq!(names, json!(["bdev_get_bdevs", "rpc_get_methods"]));
    assert!(daemon.log().contains("nosuch"));
    daemon.stop();
}
