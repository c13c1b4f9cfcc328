//! A daemon for tests: two reactors, three bdevs, three endpoints, and a second later.

use std::time::Duration;

use super::model::Model;
use crate::telemetry::{
    BdevTelemetry, ControllerState, ControllerTelemetry, NamespaceTelemetry, OpTelemetry,
    PollerTelemetry, QueueCounters, QueueTelemetry, RateLimitTelemetry, ReactorTelemetry,
    Telemetry,
};

const TICKS: u64 = 1_000_000;
pub(super) const BOUNDS: [u64; 4] = [10_000, 20_000, 100_000, 1_000_000];

fn op(ops: u64, bytes: u64, buckets: [u64; 5]) -> OpTelemetry {
    OpTelemetry {
        ops,
        bytes,
        buckets: buckets.to_vec(),
        ..OpTelemetry::default()
    }
}

fn poller(name: &str, id: u32, run_count: u64, busy_count: u64) -> PollerTelemetry {
    PollerTelemetry {
        name: name.to_owned(),
        id,
        run_count,
        busy_count,
    }
}

fn queue(qid: u16, entries: u32, lcore: u32, in_flight: u64, commands: u64) -> QueueTelemetry {
    QueueTelemetry {
        qid,
        entries,
        lcore,
        in_flight,
        counters: counters(commands),
    }
}

/// Reads and a few writes of 4 KiB.
fn counters(commands: u64) -> QueueCounters {
    QueueCounters {
        commands,
        read_ops: commands - commands / 4,
        read_bytes: (commands - commands / 4) * 4096,
        write_ops: commands / 4,
        written_bytes: commands / 4 * 4096,
        errors: 0,
        interrupts: commands / 2,
    }
}

/// The daemon so many seconds after its start.
pub(super) fn telemetry(second: u64) -> Telemetry {
    let disk0 = BdevTelemetry {
        name: "disk0".to_owned(),
        product_name: "URING bdev".to_owned(),
        read: op(
            9000 * second,
            36_864_000 * second,
            [0, 8100 * second, 810 * second, 90 * second, 0],
        ),
        write: op(
            3000 * second,
            12_288_000 * second,
            [0, 0, 3000 * second, 0, 0],
        ),
        rate_limits: RateLimitTelemetry {
            rw_ios_per_sec: 12_000,
            r_mbytes_per_sec: 100,
            ..RateLimitTelemetry::default()
        },
        in_flight: 31,
        queued: 5,
        ..BdevTelemetry::default()
    };
    let disk1 = BdevTelemetry {
        name: "disk1".to_owned(),
        product_name: "Malloc disk".to_owned(),
        read: op(
            250_000 * second,
            1_024_000_000 * second,
            [250_000 * second, 0, 0, 0, 0],
        ),
        failed: 3,
        ..BdevTelemetry::default()
    };
    let spare = BdevTelemetry {
        name: "spare".to_owned(),
        product_name: "Null disk".to_owned(),
        ..BdevTelemetry::default()
    };
    let reactor = |lcore, busy: u64| ReactorTelemetry {
        lcore,
        responding: true,
        mode: "adaptive".to_owned(),
        busy: busy * second,
        idle: (TICKS - busy) * second,
        in_flight: 31,
        enters: 1500 * second,
        pollers: vec![
            poller("nvme", 1, 1_000_000 * second, 250_000 * second),
            poller("vhost", 2, 1_000_000 * second, 0),
        ],
    };
    let vm0 = ControllerTelemetry {
        kind: "nvme".to_owned(),
        name: "/run/vtarget/vm0".to_owned(),
        state: ControllerState::Enabled,
        responding: true,
        connections: 1,
        total: counters(12_000 * second),
        queues: vec![
            queue(0, 32, 0, 1, 20),
            queue(1, 256, 1, 30, 12_000 * second),
        ],
        namespaces: vec![NamespaceTelemetry {
            nsid: 1,
            bdev: "disk0".to_owned(),
            ..NamespaceTelemetry::default()
        }],
        ..ControllerTelemetry::default()
    };
    let vm1 = ControllerTelemetry {
        kind: "vhost_blk".to_owned(),
        name: "vhost.1".to_owned(),
        state: ControllerState::Enabled,
        responding: true,
        lcore: 1,
        connections: 4,
        total: counters(250_000 * second),
        queues: vec![queue(0, 128, 0, 16, 250_000 * second)],
        namespaces: vec![NamespaceTelemetry {
            nsid: 1,
            bdev: "disk1".to_owned(),
            ..NamespaceTelemetry::default()
        }],
        ..ControllerTelemetry::default()
    };
    let vm2 = ControllerTelemetry {
        kind: "vfu_virtio_blk".to_owned(),
        name: "virtio.2".to_owned(),
        responding: true,
        ..ControllerTelemetry::default()
    };
    Telemetry {
        tick_rate: TICKS,
        ticks: TICKS * second,
        version: "1.2.3".to_owned(),
        pid: 4711,
        uptime_ms: 1000 * second,
        latency_bounds_ns: BOUNDS.to_vec(),
        reactors: vec![reactor(0, 960_000), reactor(1, 350_000)],
        bdevs: vec![disk0, disk1, spare],
        controllers: vec![vm0, vm1, vm2],
        ..Telemetry::default()
    }
}

/// What is shown of it after two looks.
pub(super) fn model() -> Model {
    let mut model = Model::new("/run/rpc.sock".to_owned(), Duration::from_secs(1));
    model.sample(telemetry(100));
    model.sample(telemetry(102));
    model.clock = Duration::from_secs(10);
    model.event("bdev_register", "spare", false);
    model.event("bdev_resize", "disk1", true);
    model.clock = Duration::from_secs(85);
    model
}
