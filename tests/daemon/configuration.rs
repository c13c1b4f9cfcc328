//! Configuration files: what is saved comes back, and what is wrong is named.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::common::{Daemon, NQN, address, directory, file, refusal};

fn write(directory: &Path, config: &Value) -> PathBuf {
    let path = directory.join("config.json");
    std::fs::write(&path, config.to_string()).expect("a file");
    path
}

fn bdev(entries: Value) -> Value {
    json!({"subsystems": [{"subsystem": "bdev", "config": entries}]})
}

fn call(method: &str, params: Value) -> Value {
    json!({"method": method, "params": params})
}

/// Sets everything that a configuration can hold.
fn furnish(daemon: &mut Daemon, place: &Path) {
    daemon.ok("iobuf_set_options", json!({"small_pool_count": 4096}));
    daemon.ok("bdev_set_options", json!({"bdev_io_pool_size": 4096}));
    daemon.ok(
        "sock_impl_set_options",
        json!({"impl_name": "uring", "enable_quickack": true}),
    );
    daemon.ok("nvmf_set_max_subsystems", json!({"max_subsystems": 77}));
    daemon.ok("nvmf_set_config", json!({"dup_host_policy": "allow"}));
    daemon.ok("bdev_nvme_set_options", json!({"timeout_us": 5}));
    daemon.ok("framework_start_init", Value::Null);
    daemon.ok(
        "framework_set_scheduler",
        json!({"name": "dynamic", "period": 7}),
    );
    let malloc =
        json!({"name": "m", "block_size": 512, "num_blocks": 2048, "physical_block_size": 4096});
    daemon.ok("bdev_malloc_create", malloc);
    let null = json!({"name": "n", "block_size": 4096, "num_blocks": 256, "optimal_write_size": 8});
    daemon.ok("bdev_null_create", null);
    daemon.ok("bdev_null_resize", json!({"name": "n", "new_size": 4}));
    let (first, second) = (file(place, "a.img", 1 << 20), file(place, "b.img", 1 << 20));
    daemon.ok(
        "bdev_uring_create",
        json!({"name": "u", "filename": first, "block_size": 512}),
    );
    let aio = json!({"name": "a", "filename": second, "block_size": 4096, "readonly": true, "fallocate": true});
    daemon.ok("bdev_aio_create", aio);
    let transport = json!({
        "trtype": "VFIOUSER", "max_queue_depth": 2048, "max_io_size": 131_072, "disable_mappable_bar0": true,
        "disable_shadow_doorbells": true, "disable_adaptive_irq": true, "masked_oncs": ["nvmcpys"],
        "acceptor_poll_rate": 5,
    });
    daemon.ok("nvmf_create_transport", transport);
    let subsystem = json!({
        "nqn": NQN, "serial_number": "S1", "model_number": "M1", "admin_label": "label", "max_namespaces": 8,
        "min_cntlid": 3, "max_cntlid": 9, "enable_nssr": true, "ana_reporting": true, "allow_any_host": false,
    });
    daemon.ok("nvmf_create_subsystem", subsystem);
    daemon.ok(
        "nvmf_subsystem_add_host",
        json!({"nqn": NQN, "host": "nqn.2026-11.io.example:host"}),
    );
    let space = json!({"bdev_name": "u", "nsid": 4, "eui64": "0011223344556677", "anagrpid": 2});
    daemon.ok(
        "nvmf_subsystem_add_ns",
        json!({"nqn": NQN, "namespace": space}),
    );
    daemon.add_ns("m");
    let endpoint = place.join("vm");
    std::fs::create_dir_all(&endpoint).expect("a directory");
    let listener =
        json!({"nqn": NQN, "listen_address": address(&endpoint), "ana_state": "non_optimized"});
    daemon.ok("nvmf_subsystem_add_listener", listener);
    daemon.ok(
        "nvmf_create_subsystem",
        json!({"nqn": "nqn.2026-11.io.example:empty", "allow_any_host": true}),
    );
    furnish_virtio(daemon, place);
}

/// virtio-blk endpoints, in several places and with several disks, one of which has gone.
fn furnish_virtio(daemon: &mut Daemon, place: &Path) {
    let base = |daemon: &mut Daemon, name: &str| {
        let path = place.join(name);
        std::fs::create_dir_all(&path).expect("a directory");
        daemon.ok("vfu_tgt_set_base_path", json!({ "path": path }));
    };
    let create = "vfu_virtio_create_blk_endpoint";
    base(daemon, "first");
    daemon.ok(create, json!({"name": "e0", "bdev_name": "n"}));
    daemon.malloc("going");
    daemon.ok(create, json!({"name": "e1", "bdev_name": "going"}));
    base(daemon, "second");
    let endpoint = json!({
        "name": "e2", "bdev_name": "a", "cpumask": "0x1", "num_queues": 3, "qsize": 256, "packed_ring": true,
        "readonly": true,
    });
    daemon.ok(create, endpoint);
    base(daemon, "last");
    let create = "vhost_create_blk_controller";
    daemon.ok(create, json!({"ctrlr": "c0", "dev_name": "n"}));
    let controller = json!({
        "ctrlr": "c1", "dev_name": "a", "cpumask": "[0]", "packed_ring": true, "readonly": true,
        "transport": "vhost_user_blk",
    });
    daemon.ok(create, controller);
    let coalescing = json!({"ctrlr": "c1", "delay_base_us": 50, "iops_threshold": 30_000});
    daemon.ok("vhost_controller_set_coalescing", coalescing);
    daemon.ok(create, json!({"ctrlr": "c2", "dev_name": "going"}));
    daemon.ok("bdev_malloc_delete", json!({"name": "going"}));
}

#[test]
fn what_is_saved_comes_back() {
    let place = directory();
    let sockets = place.path().to_str().expect("a path");
    let mut daemon = Daemon::start(place.path(), &["--wait-for-rpc", "-S", sockets]);
    furnish(&mut daemon, place.path());
    let saved = daemon.save_config();
    let text = saved.to_string();
    for part in [
        "disable_mappable_bar0",
        "acceptor_poll_rate",
        "non_optimized",
        "admin_label",
        "fallocate",
        "packed_ring",
        "delay_base_us",
        "vfu_tgt_set_base_path",
    ] {
        assert!(text.contains(part), "{part} is not saved");
    }
    let disks = daemon.ok("bdev_get_bdevs", Value::Null);
    let subsystems = daemon.ok("nvmf_get_subsystems", Value::Null);
    let endpoints = daemon.ok("vfu_get_endpoints", Value::Null);
    let controllers = daemon.ok("vhost_get_controllers", Value::Null);
    assert_eq!(endpoints[1]["bdev_name"], Value::Null);
    daemon.stop();

    let path = write(place.path(), &saved);
    let path = path.to_str().expect("a path");
    for args in [vec!["-c", path], vec!["--json", path, "-m", "0x1"]] {
        let args: Vec<&str> = args.into_iter().chain(["-S", sockets]).collect();
        let mut daemon = Daemon::start(place.path(), &args);
        let again = daemon.save_config();
        assert!(
            again == saved,
            "saved {saved:#}\nbut came back as {again:#}"
        );
        assert_eq!(daemon.ok("bdev_get_bdevs", Value::Null), disks);
        assert_eq!(daemon.ok("nvmf_get_subsystems", Value::Null), subsystems);
        assert_eq!(daemon.ok("vfu_get_endpoints", Value::Null), endpoints);
        assert_eq!(daemon.ok("vhost_get_controllers", Value::Null), controllers);
        daemon.stop();
    }

    // Startup calls are replayed before the wait, the others after it.
    let mut daemon = Daemon::start(place.path(), &["-c", path, "--wait-for-rpc", "-S", sockets]);
    daemon.refused("bdev_get_bdevs", Value::Null, -1, "framework_start_init");
    daemon.ok("framework_start_init", Value::Null);
    assert_eq!(daemon.save_config(), saved);
    daemon.stop();
}

#[test]
fn a_configuration_of_spdks_is_understood() {
    let place = directory();
    let path = place.path().join("config.json");
    let text = r#"{
      // Comments are allowed in files.
      "subsystems": [
        {"subsystem": "vmd", "config": []},
        {"subsystem": "iscsi", "config": [{"method": "iscsi_set_options", "params": {"max_sessions": 1}}]},
        {"subsystem": "scsi", "config": null},
        {"subsystem": "bdev", "config": [
          {"method": "bdev_set_options", "params": {"bdev_io_pool_size": 65535, "bdev_auto_examine": true}},
          {"method": "bdev_raid_set_options", "params": {"process_window_size_kb": 1024}},
          {"method": "bdev_nvme_set_options", "params": {"timeout_us": 0, "multipath_opts": {"policy": "active_passive"}}},
          {"method": "bdev_nvme_set_hotplug", "params": {"period_us": 100000, "enable": false}},
          [{"method": "bdev_malloc_create", "params": {"name": "M0", "num_blocks": 16384, "block_size": 512,
            "physical_block_size": 512, "uuid": "7d964988-318e-4364-9dbe-6e654e82ef85",
            "optimal_io_boundary": 0, "md_size": 0, "dif_type": 0, "dif_is_head_of_md": false,
            "dif_pi_format": 0, "numa_id": -1}}],
          {"method": "bdev_wait_for_examine"}]},
        {"subsystem": "nvmf", "config": [
          {"method": "nvmf_set_config", "params": {"discovery_filter": "match_any",
            "admin_cmd_passthru": {"identify_ctrlr": false}, "dhchap_digests": ["sha256"],
            "dhchap_dhgroups": ["null"], "dup_host_policy": "allow"}},
          {"method": "nvmf_set_max_subsystems", "params": {"max_subsystems": 1024}},
          {"method": "nvmf_set_crdt", "params": {"crdt1": 0, "crdt2": 0, "crdt3": 0}},
          {"method": "nvmf_create_transport", "params": {"trtype": "VFIOUSER", "max_queue_depth": 256,
            "max_io_qpairs_per_ctrlr": 127, "in_capsule_data_size": 0, "max_io_size": 131072,
            "max_aq_depth": 32, "kas": 100, "min_kato": 10000}}]}
      ]}"#;
    std::fs::write(&path, text).expect("a file");
    let mut daemon = Daemon::start(place.path(), &["-c", path.to_str().expect("a path")]);
    assert_eq!(
        daemon.ok("bdev_get_bdevs", json!({"name": "M0"}))[0]["num_blocks"],
        16384
    );
    assert_eq!(
        daemon.ok("nvmf_get_transports", Value::Null)[0]["max_queue_depth"],
        256
    );
    daemon.stop();
}

#[test]
fn a_configuration_that_fails_keeps_the_daemon_from_starting() {
    let place = directory();
    let socket = place.path().join("rpc.sock");
    let socket = socket.to_str().expect("a path");
    let good = call(
        "bdev_malloc_create",
        json!({"name": "m", "block_size": 512, "num_blocks": 8}),
    );
    for (config, part) in [
        (bdev(json!([good, good])), "File exists"),
        // Who has to put it right is told where it is and what else can be done.
        (
            bdev(json!([good, [good]])),
            "line 1, column 133: call 2 of subsystem bdev, bdev_malloc_create: File exists",
        ),
        (
            bdev(json!([good, good])),
            "correct or remove it, or start with --json-ignore-init-errors",
        ),
        (
            bdev(json!([call("bdev_nosuch_create", json!({}))])),
            "call 1 of subsystem bdev: there is no method bdev_nosuch_create",
        ),
        (
            bdev(json!([call("bdev_malloc_create", json!({"foo": 1}))])),
            "bdev_malloc_create",
        ),
        (
            bdev(json!([call("bdev_set_options", json!({"foo": 1}))])),
            "foo",
        ),
        (json!({"subsystems": 5}), "line 1"),
    ] {
        let path = write(place.path(), &config);
        let refused = refusal(&["-r", socket, "-c", path.to_str().expect("a path")]);
        assert!(refused.contains(part), "{config}: {refused}");
        assert!(!Path::new(socket).exists());
    }
    let unknown = call("bdev_nosuch", json!({}));
    let path = write(
        place.path(),
        &bdev(json!([good, [], good, unknown, [unknown, good]])),
    );
    let args = [
        "-c",
        path.to_str().expect("a path"),
        "--json-ignore-init-errors",
    ];
    let mut daemon = Daemon::start(place.path(), &args);
    assert_eq!(daemon.ok("bdev_get_bdevs", Value::Null)[0]["name"], "m");
    assert!(daemon.log().contains("File exists"));
    daemon.stop();
}

#[test]
fn a_configuration_may_be_empty() {
    let place = directory();
    for config in [json!({}), json!({"subsystems": []}), bdev(json!([[]]))] {
        let path = write(place.path(), &config);
        let mut daemon = Daemon::start(place.path(), &["-c", path.to_str().expect("a path")]);
        assert_eq!(daemon.ok("bdev_get_bdevs", Value::Null), json!([]));
        daemon.stop();
    }
}
