//! The methods that change something, with parameters from small sets, so that calls meet each other.

use serde_json::json;

use super::dice::{Dice, Make};

/// A method and how its parameters are made.
pub(super) struct Family {
    pub(super) method: &'static str,
    /// How often it is called, relative to the others.
    pub(super) weight: usize,
    pub(super) params: Make,
}

pub(super) const FILES: &[&str] = &["f0.img", "f1.img", "f2.img"];
pub(super) const DIRECTORIES: &[&str] = &["e0", "e1", "e2", "e3"];

const DISKS: &[&str] = &["d0", "d1", "d2", "d3", "d4", "d5"];
const NQNS: &[&str] = &["nqn.2026-11.io.example:s0", "nqn.2026-11.io.example:s1"];
const HOSTS: &[&str] = &["nqn.2026-11.io.example:h0", "nqn.2026-11.io.example:h1"];
const UUIDS: &[&str] = &[
    "6b0a9f7c-7d3c-4ad5-9b9c-8a0b4d8b2a01",
    "6b0a9f7c-7d3c-4ad5-9b9c-8a0b4d8b2a02",
];
const LEVELS: &[&str] = &["ERROR", "WARNING", "NOTICE", "INFO", "LOUD"];
const FLAGS: &[&str] = &["vhost_rpc", "vfu", "nvmf", "all", "nosuch"];

const fn family(weight: usize, method: &'static str, params: Make) -> Family {
    Family {
        method,
        weight,
        params,
    }
}

fn disk(dice: &mut Dice<'_>) -> serde_json::Value {
    dice.text(DISKS)
}

/// Also one of those that others are made into.
fn any_disk(dice: &mut Dice<'_>) -> serde_json::Value {
    dice.text(&["d0", "d1", "d2", "d3", "d4", "EE_d0", "d0p0", "d1p1"])
}

fn nqn(dice: &mut Dice<'_>) -> serde_json::Value {
    dice.text(NQNS)
}

fn uuid(dice: &mut Dice<'_>) -> serde_json::Value {
    dice.text(UUIDS)
}

fn flag(dice: &mut Dice<'_>) -> serde_json::Value {
    dice.flag()
}

fn small(dice: &mut Dice<'_>) -> serde_json::Value {
    dice.number(&[0, 1, 2, 8, 64, 1000])
}

fn named(dice: &mut Dice<'_>) -> serde_json::Value {
    dice.params(&[("name", disk)], &[])
}

fn endpoint(dice: &mut Dice<'_>) -> serde_json::Value {
    dice.text(&["v0", "v1", "v2"])
}

fn cpumask(dice: &mut Dice<'_>) -> serde_json::Value {
    dice.text(&["0x1", "[0]", "0x2"])
}

fn address(dice: &mut Dice<'_>) -> serde_json::Value {
    json!({"trtype": "VFIOUSER", "traddr": dice.path(DIRECTORIES), "trsvcid": "0"})
}

fn level(dice: &mut Dice<'_>) -> serde_json::Value {
    dice.params(&[("level", |dice| dice.text(LEVELS))], &[])
}

fn log_flag(dice: &mut Dice<'_>) -> serde_json::Value {
    dice.params(&[("flag", |dice| dice.text(FLAGS))], &[])
}

/// Methods that leave nothing behind that a configuration could hold, besides those whose names have `_get_`.
pub(super) const TRANSIENT: &[&str] = &[
    "accel_set_driver",
    "bdev_error_inject_error",
    "bdev_error_resume_pending",
    "bdev_examine",
    "bdev_reset_iostat",
    "bdev_wait_for_examine",
    "framework_disable_cpumask_locks",
    "framework_enable_cpumask_locks",
    "framework_monitor_context_switch",
    "framework_start_init",
    "framework_wait_init",
    "log_enable_timestamps",
    "nvmf_create_target",
    "nvmf_delete_target",
    "spdk_kill_instance",
    "thread_set_cpumask",
    "trace_clear",
    "virtio_blk_create_transport",
    "vtarget_subscribe",
];

/// Before initialization.
pub(super) const STARTUP: &[Family] = &[
    family(1, "iobuf_set_options", |dice| {
        dice.params(
            &[],
            &[
                ("small_pool_count", |dice| dice.number(&[64, 8192])),
                ("large_pool_count", |dice| dice.number(&[8, 1024])),
                ("enable_numa", flag),
            ],
        )
    }),
    family(1, "accel_set_options", |dice| {
        dice.params(&[], &[("task_count", small), ("buf_count", small)])
    }),
    family(1, "sock_set_default_impl", |dice| {
        dice.params(
            &[("impl_name", |dice| {
                dice.text(&["uring", "posix", "ssl", "no"])
            })],
            &[],
        )
    }),
    family(1, "sock_impl_set_options", |dice| {
        dice.params(
            &[("impl_name", |dice| dice.text(&["uring", "posix", "ssl"]))],
            &[
                ("recv_buf_size", small),
                ("enable_quickack", flag),
                ("tls_version", small),
            ],
        )
    }),
    family(1, "bdev_set_options", |dice| {
        dice.params(
            &[],
            &[
                ("bdev_io_pool_size", |dice| dice.number(&[4096, 65536])),
                ("bdev_auto_examine", flag),
            ],
        )
    }),
    family(1, "nvmf_set_config", |dice| {
        dice.params(
            &[],
            &[
                ("poll_groups_mask", cpumask),
                ("dup_host_policy", |dice| dice.text(&["allow", "reject"])),
                ("discovery_filter", |dice| {
                    dice.text(&["match_any", "transport"])
                }),
            ],
        )
    }),
    family(1, "nvmf_set_max_subsystems", |dice| {
        dice.params(&[("max_subsystems", small)], &[])
    }),
    family(1, "nvmf_set_crdt", |dice| {
        dice.params(&[], &[("crdt1", small), ("crdt2", small), ("crdt3", small)])
    }),
    family(1, "bdev_raid_set_options", |dice| {
        dice.params(&[], &[("process_window_size_kb", small)])
    }),
    family(1, "log_set_print_level", level),
    family(1, "framework_set_scheduler", scheduler),
    family(1, "scheduler_set_options", |dice| {
        dice.params(&[], &[("scheduling_core", |dice| dice.number(&[0, 9]))])
    }),
    family(1, "accel_assign_opc", |dice| {
        dice.params(
            &[
                ("opname", |dice| dice.text(&["copy", "crc32c", "no"])),
                ("module", |dice| dice.text(&["software", "no"])),
            ],
            &[],
        )
    }),
    family(1, "trace_enable_tpoint_group", trace_group),
    family(1, "trace_disable_tpoint_group", trace_group),
    family(1, "trace_set_tpoint_mask", trace_mask),
    family(1, "trace_clear_tpoint_mask", trace_mask),
];

fn trace_group(dice: &mut Dice<'_>) -> serde_json::Value {
    dice.params(&[("name", |dice| dice.text(&["bdev", "all", "no"]))], &[])
}

fn trace_mask(dice: &mut Dice<'_>) -> serde_json::Value {
    dice.params(
        &[
            ("name", |dice| dice.text(&["bdev", "nvmf_tcp", "no"])),
            ("tpoint_mask", small),
        ],
        &[],
    )
}

fn scheduler(dice: &mut Dice<'_>) -> serde_json::Value {
    dice.params(
        &[("name", |dice| {
            dice.text(&["static", "dynamic", "gscheduler", "no"])
        })],
        &[("period", small), ("load_limit", small)],
    )
}

/// After it.
pub(super) const RUNTIME: &[Family] = &[
    family(1, "framework_set_scheduler", scheduler),
    family(1, "log_set_level", level),
    family(1, "log_set_print_level", level),
    family(1, "log_set_flag", log_flag),
    family(1, "log_clear_flag", log_flag),
    family(1, "bdev_nvme_set_options", |dice| {
        dice.params(&[], &[("timeout_us", small), ("io_queue_requests", small)])
    }),
    family(1, "bdev_nvme_set_hotplug", |dice| {
        dice.params(&[("enable", flag)], &[("period_us", small)])
    }),
    family(1, "bdev_iscsi_set_options", |dice| {
        dice.params(&[], &[("timeout_sec", small)])
    }),
    family(6, "bdev_malloc_create", |dice| {
        dice.params(
            &[
                ("block_size", |dice| dice.number(&[512, 4096, 100])),
                ("num_blocks", |dice| dice.number(&[256, 2048, 0])),
            ],
            &[
                ("name", disk),
                ("uuid", uuid),
                ("physical_block_size", |dice| dice.number(&[4096, 512])),
                ("optimal_io_boundary", small),
                ("numa_id", |_| (-1).into()),
                ("md_size", |dice| dice.number(&[0, 8])),
            ],
        )
    }),
    family(2, "bdev_malloc_delete", named),
    family(6, "bdev_null_create", |dice| {
        dice.params(
            &[
                ("name", disk),
                ("block_size", |dice| dice.number(&[512, 4096])),
                ("num_blocks", |dice| dice.number(&[256, 2048])),
            ],
            &[
                ("uuid", uuid),
                ("physical_block_size", |dice| dice.number(&[4096])),
                ("preferred_write_granularity", small),
                ("preferred_write_alignment", small),
                ("optimal_write_size", small),
                ("preferred_unmap_granularity", small),
                ("preferred_unmap_alignment", small),
            ],
        )
    }),
    family(2, "bdev_null_delete", named),
    family(2, "bdev_null_resize", |dice| {
        dice.params(
            &[
                ("name", disk),
                ("new_size", |dice| dice.number(&[1, 16, 64])),
            ],
            &[],
        )
    }),
    family(4, "bdev_aio_create", |dice| {
        dice.params(
            &[
                ("name", disk),
                ("filename", |dice| {
                    dice.path(&["f0.img", "f1.img", "f2.img", "none"])
                }),
                ("block_size", |dice| dice.number(&[512, 4096])),
            ],
            &[
                ("uuid", uuid),
                ("readonly", flag),
                ("fallocate", flag),
                ("nowait", flag),
            ],
        )
    }),
    family(1, "bdev_aio_delete", named),
    family(1, "bdev_aio_rescan", named),
    family(4, "bdev_uring_create", |dice| {
        dice.params(
            &[
                ("name", disk),
                ("filename", |dice| dice.path(FILES)),
                ("block_size", |dice| dice.number(&[512, 4096])),
            ],
            &[("uuid", uuid)],
        )
    }),
    family(1, "bdev_uring_delete", named),
    family(1, "bdev_uring_rescan", named),
    family(4, "bdev_passthru_create", |dice| {
        dice.params(
            &[("name", disk), ("base_bdev_name", disk)],
            &[("uuid", uuid)],
        )
    }),
    family(1, "bdev_passthru_delete", named),
    family(3, "bdev_delay_create", |dice| {
        dice.params(
            &[
                ("name", disk),
                ("base_bdev_name", disk),
                ("avg_read_latency", small),
                ("p99_read_latency", small),
                ("avg_write_latency", small),
                ("p99_write_latency", small),
            ],
            &[("uuid", uuid)],
        )
    }),
    family(1, "bdev_delay_delete", named),
    family(2, "bdev_delay_update_latency", |dice| {
        dice.params(
            &[
                ("delay_bdev_name", disk),
                ("latency_type", |dice| {
                    dice.text(&["avg_read", "p99_write", "no"])
                }),
                ("latency_us", small),
            ],
            &[],
        )
    }),
    family(3, "bdev_error_create", |dice| {
        dice.params(&[("base_name", disk)], &[("uuid", uuid)])
    }),
    family(1, "bdev_error_delete", |dice| {
        dice.params(&[("name", |dice| dice.text(&["EE_d0", "EE_d1"]))], &[])
    }),
    family(3, "bdev_split_create", |dice| {
        dice.params(
            &[
                ("base_bdev", disk),
                ("split_count", |dice| dice.number(&[2, 1, 0])),
            ],
            &[("split_size_mb", |dice| dice.number(&[0, 1]))],
        )
    }),
    family(1, "bdev_split_delete", |dice| {
        dice.params(&[("base_bdev", disk)], &[])
    }),
    family(4, "bdev_set_qos_limit", |dice| {
        dice.params(
            &[("name", any_disk)],
            &[
                ("rw_ios_per_sec", |dice| dice.number(&[0, 1500, 20_000])),
                ("rw_mbytes_per_sec", small),
                ("r_mbytes_per_sec", small),
                ("w_mbytes_per_sec", small),
                ("burst_ms", small),
            ],
        )
    }),
    family(2, "bdev_set_qd_sampling_period", |dice| {
        dice.params(&[("name", any_disk), ("period", small)], &[])
    }),
    family(3, "bdev_enable_histogram", |dice| {
        dice.params(
            &[("name", any_disk), ("enable", flag)],
            &[
                ("opc", |dice| dice.text(&["read", "write", "no"])),
                ("granularity", |dice| dice.number(&[7, 4])),
                ("min_nsec", |dice| dice.number(&[0, 1000])),
            ],
        )
    }),
    family(3, "nvmf_create_transport", |dice| {
        dice.params(
            &[("trtype", |dice| dice.text(&["VFIOUSER", "vfiouser", "TCP"]))],
            &[
                ("max_queue_depth", |dice| dice.number(&[128, 2048, 1])),
                ("max_io_qpairs_per_ctrlr", |dice| dice.number(&[4, 64])),
                ("max_io_size", |dice| dice.number(&[131_072, 65_536])),
                ("in_capsule_data_size", small),
                ("disable_mappable_bar0", flag),
                ("disable_adaptive_irq", flag),
                ("disable_shadow_doorbells", flag),
                ("enable_intr_mode_sq_spreading", flag),
                ("acceptor_poll_rate", small),
                ("masked_oncs", |dice| {
                    json!([dice.text(&["nvmcpys", "all"])])
                }),
                ("abort_timeout_sec", small),
                ("kas", small),
            ],
        )
    }),
    family(6, "nvmf_create_subsystem", |dice| {
        dice.params(
            &[("nqn", nqn)],
            &[
                ("serial_number", |dice| {
                    dice.text(&["S1", "no more than twenty!"])
                }),
                ("model_number", |dice| dice.text(&["M1"])),
                ("admin_label", |dice| dice.text(&["label", "no"])),
                ("max_namespaces", |dice| dice.number(&[0, 2, 8])),
                ("allow_any_host", flag),
                ("ana_reporting", flag),
                ("min_cntlid", |dice| dice.number(&[1, 5])),
                ("max_cntlid", |dice| dice.number(&[5, 9])),
                ("dmrsl", small),
                ("wzsl", small),
                ("enable_nssr", flag),
            ],
        )
    }),
    family(1, "nvmf_delete_subsystem", |dice| {
        dice.params(&[("nqn", nqn)], &[])
    }),
    family(1, "nvmf_subsystem_allow_any_host", |dice| {
        dice.params(&[("nqn", nqn), ("allow_any_host", flag)], &[])
    }),
    family(3, "nvmf_subsystem_add_host", |dice| {
        dice.params(&[("nqn", nqn), ("host", |dice| dice.text(HOSTS))], &[])
    }),
    family(1, "nvmf_subsystem_remove_host", |dice| {
        dice.params(&[("nqn", nqn), ("host", |dice| dice.text(HOSTS))], &[])
    }),
    family(8, "nvmf_subsystem_add_ns", |dice| {
        dice.params(
            &[
                ("nqn", nqn),
                ("namespace", |dice| {
                    dice.params(
                        &[("bdev_name", disk)],
                        &[
                            ("nsid", |dice| dice.number(&[0, 1, 2, 7])),
                            ("uuid", uuid),
                            ("nguid", |_| "00112233445566778899aabbccddeeff".into()),
                            ("eui64", |_| "0011223344556677".into()),
                            ("anagrpid", |dice| dice.number(&[1, 2, 0])),
                            ("no_auto_visible", flag),
                        ],
                    )
                }),
            ],
            &[],
        )
    }),
    family(1, "nvmf_subsystem_remove_ns", |dice| {
        dice.params(
            &[("nqn", nqn), ("nsid", |dice| dice.number(&[1, 2, 7]))],
            &[],
        )
    }),
    family(5, "nvmf_subsystem_add_listener", |dice| {
        dice.params(
            &[("nqn", nqn), ("listen_address", address)],
            &[
                ("ana_state", |dice| {
                    dice.text(&["optimized", "non_optimized", "inaccessible"])
                }),
                ("secure_channel", flag),
            ],
        )
    }),
    family(1, "nvmf_subsystem_remove_listener", |dice| {
        dice.params(&[("nqn", nqn), ("listen_address", address)], &[])
    }),
    family(3, "nvmf_subsystem_listener_set_ana_state", |dice| {
        dice.params(
            &[
                ("nqn", nqn),
                ("listen_address", address),
                ("ana_state", |dice| {
                    dice.text(&["optimized", "non_optimized", "inaccessible"])
                }),
            ],
            &[("anagrpid", |dice| dice.number(&[0, 1, 2]))],
        )
    }),
    family(1, "nvmf_subsystem_set_ns_ana_group", |dice| {
        dice.params(
            &[
                ("nqn", nqn),
                ("nsid", |dice| dice.number(&[1, 2, 7])),
                ("anagrpid", |dice| dice.number(&[1, 2, 0])),
            ],
            &[],
        )
    }),
    family(2, "nvmf_ns_add_host", namespace_host),
    family(1, "nvmf_ns_remove_host", namespace_host),
    family(1, "nvmf_discovery_add_referral", referral),
    family(1, "nvmf_discovery_remove_referral", referral),
    family(1, "keyring_file_add_key", |dice| {
        dice.params(
            &[
                ("name", |dice| dice.text(&["k0", "k1"])),
                ("path", |dice| dice.path(FILES)),
            ],
            &[],
        )
    }),
    family(1, "keyring_file_remove_key", |dice| {
        dice.params(&[("name", |dice| dice.text(&["k0", "k1"]))], &[])
    }),
    family(1, "vfu_tgt_set_base_path", |dice| {
        dice.params(&[("path", |dice| dice.path(DIRECTORIES))], &[])
    }),
    family(4, "vfu_virtio_create_blk_endpoint", |dice| {
        dice.params(
            &[("name", endpoint), ("bdev_name", disk)],
            &[
                ("cpumask", cpumask),
                ("num_queues", |dice| dice.number(&[1, 3, 0])),
                ("qsize", |dice| dice.number(&[64, 100])),
                ("packed_ring", flag),
                ("readonly", flag),
            ],
        )
    }),
    family(1, "vfu_virtio_delete_endpoint", |dice| {
        dice.params(&[("name", endpoint)], &[])
    }),
    family(1, "vfu_virtio_blk_set_bdev", |dice| {
        dice.params(
            &[
                ("name", endpoint),
                ("bdev_name", |dice| {
                    dice.pick(&[json!("d0"), json!("d1"), json!(null)])
                }),
            ],
            &[],
        )
    }),
    family(4, "vhost_create_blk_controller", |dice| {
        dice.params(
            &[("ctrlr", endpoint), ("dev_name", disk)],
            &[
                ("cpumask", cpumask),
                ("readonly", flag),
                ("packed_ring", flag),
            ],
        )
    }),
    family(1, "vhost_delete_controller", |dice| {
        dice.params(&[("ctrlr", endpoint)], &[])
    }),
    family(2, "vhost_controller_set_coalescing", |dice| {
        dice.params(
            &[
                ("ctrlr", endpoint),
                ("delay_base_us", small),
                ("iops_threshold", |dice| dice.number(&[100, 50_000, 1])),
            ],
            &[],
        )
    }),
    family(1, "vhost_blk_controller_set_bdev", |dice| {
        dice.params(
            &[
                ("ctrlr", endpoint),
                ("dev_name", |dice| {
                    dice.pick(&[json!("d0"), json!("d1"), json!(null)])
                }),
            ],
            &[],
        )
    }),
];

fn namespace_host(dice: &mut Dice<'_>) -> serde_json::Value {
    dice.params(
        &[
            ("nqn", nqn),
            ("nsid", |dice| dice.number(&[1, 2, 7])),
            ("host", |dice| dice.text(HOSTS)),
        ],
        &[],
    )
}

fn referral(dice: &mut Dice<'_>) -> serde_json::Value {
    let address = json!({
        "trtype": "TCP", "adrfam": "ipv4", "traddr": dice.pick(&["10.0.0.1", "10.0.0.2"]), "trsvcid": "4420",
    });
    json!({ "address": address })
}
