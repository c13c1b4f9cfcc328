use super::*;
use crate::cli::table::Style;

fn print(kind: Kind, answer: &Value) -> String {
    tables::of(kind, answer).print(Style::default())
}

#[test]
fn bdevs_show_size_and_use() {
    let answer = json!([
        {"name": "disk0", "product_name": "URING bdev", "block_size": 512, "num_blocks": 20_971_520, "claimed": true,
         "claim_type": "exclusive_write", "uuid": "0fd1a5f0-7e4f-4b5a-8d23-5f6f9d3c9a11"},
        {"name": "Malloc0", "product_name": "Malloc disk", "block_size": 4096, "num_blocks": 16384, "claimed": false,
         "uuid": "8c6f2a52-6b0c-4a58-9a87-3e8f6f1d2b3c"},
    ]);
    let lines = [
        "NAME     PRODUCT        SIZE  BLOCK  CLAIMED          UUID",
        "disk0    URING bdev   10 GiB    512  exclusive_write  0fd1a5f0-7e4f-4b5a-8d23-5f6f9d3c9a11",
        "Malloc0  Malloc disk  64 MiB   4096  no               8c6f2a52-6b0c-4a58-9a87-3e8f6f1d2b3c",
    ];
    assert_eq!(print(Kind::Bdevs, &answer), lines.join("\n"));
}

#[test]
fn times_are_means_per_request() {
    let answer = json!({"tick_rate": 1_000_000_000, "bdevs": [
        {"name": "disk0", "num_read_ops": 4, "bytes_read": 16384, "read_latency_ticks": 400_000,
         "max_read_latency_ticks": 250_000, "num_write_ops": 0, "bytes_written": 0, "num_unmap_ops": 1,
         "io_error": {"failed": 2, "aborted": 1}},
    ]});
    let lines = [
        "NAME   READS    READ     AVG     MAX  WRITES  WRITTEN  AVG  MAX  UNMAPS  ERRORS",
        "disk0      4  16 KiB  100 µs  250 µs       0      0 B    -    -       1       3",
    ];
    assert_eq!(print(Kind::Stats, &answer), lines.join("\n"));
}

#[test]
fn endpoints_of_all_kinds_are_in_one_table() {
    let answer = json!({
        "nvmf_get_subsystems": [
            {"nqn": "nqn.2014-08.org.nvmexpress.discovery", "listen_addresses": []},
            {"nqn": "nqn.2026-11.io.example:vm0", "listen_addresses": [{"traddr": "/run/vm0"}],
             "namespaces": [{"bdev_name": "disk0"}, {"bdev_name": "disk1"}]},
        ],
        "vfu_get_endpoints": [{"name": "virtio.0", "socket": "/run/virtio.0", "bdev_name": null}],
        "vhost_get_controllers": [
            {"ctrlr": "vhost.0", "socket": "/run/vhost.0", "backend_specific": {"block": {"bdev": "disk2"}}},
        ],
    });
    let lines = [
        "KIND            NAME                        SOCKET          DISKS",
        "nvme            nqn.2026-11.io.example:vm0  /run/vm0/cntrl  disk0,disk1",
        "vfu_virtio_blk  virtio.0                    /run/virtio.0   -",
        "vhost_blk       vhost.0                     /run/vhost.0    disk2",
    ];
    assert_eq!(print(Kind::Endpoints, &answer), lines.join("\n"));
}

#[test]
fn what_does_not_answer_is_marked() {
    let answer = json!([{
        "kind": "nvme", "name": "/run/vm0", "state": "enabled", "responding": false, "lcore": 2, "queues": [{}, {}],
        "total": {"commands": 9, "read_bytes": 4096, "written_bytes": 0, "errors": 1},
        "namespaces": [{"bdev": "disk0"}],
    }]);
    let lines = [
        "KIND  NAME      STATE             REACTOR  QUEUES  COMMANDS   READ  WRITTEN  ERRORS  DISKS",
        "nvme  /run/vm0  enabled (silent)        2       2         9  4 KiB      0 B       1  disk0",
    ];
    assert_eq!(print(Kind::Controllers, &answer), lines.join("\n"));
}

#[test]
fn any_answer_makes_a_table() {
    let odd = [
        Value::Null,
        json!([]),
        json!({}),
        json!([null, 1, "x", [], {}]),
        json!({"bdevs": [{"name": {}, "num_read_ops": -1}], "threads": [{"active_pollers": [3]}]}),
        json!([{"block_size": u64::MAX, "num_blocks": u64::MAX, "claimed": 3, "namespaces": [1], "queues": "x"}]),
    ];
    for kind in Kind::ALL {
        for answer in &odd {
            assert!(!print(kind, answer).is_empty());
        }
    }
}

#[test]
fn a_name_that_is_not_there_is_answered_with_those_that_are() {
    let mut list = json!([{"name": "a"}, {"name": "b"}]);
    let there = keep(&mut list, "name", "c");
    assert_eq!(list, json!([]));
    let text = missing(Kind::Controllers, "c", &there).to_string();
    assert_eq!(text, "there is no controller `c`; there are a, b");
    let text = missing(Kind::Controllers, "c", &[]).to_string();
    assert_eq!(text, "there is no controller `c`, and no other");
}
