//! The daemon at one moment: the one picture that `vtarget_get_telemetry`, the metrics and `vtarget top` are made from.
//!
//! ```text
//!  Control::telemetry(then) ──► every reactor: its own counters, and its share of every disk's        ─┐
//!                           ──► every connected controller, on its home reactor: its queues            ├─► then(Telemetry)
//!                           ◄── answers, each with a clone of one token; the last one, or the deadline ─┘
//! ```
//! Nothing is locked and nobody waits: counters belong to the threads that count, which copy them when they are asked. A
//! reactor or controller that does not answer in time is shown with what it said last and marked; it is not asked again until
//! it has answered, so one that never does costs one message.
//!
//! Rounds do not overlap: who asks during one is answered by the next, so that every answer was gathered after it was asked for.

mod carry;
mod gather;
mod picture;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub(crate) use gather::Gathering;

/// The daemon at one moment. Counters only grow, but for those that `bdev_reset_iostat` sets back and those of queues and
/// controllers, which begin anew with each.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Telemetry {
    /// Ticks per second, for all times in ticks.
    pub(crate) tick_rate: u64,
    /// The clock when the answers were put together.
    pub(crate) ticks: u64,
    pub(crate) version: String,
    pub(crate) pid: u32,
    pub(crate) uptime_ms: u64,
    /// Bounds of the latency buckets in nanoseconds, ascending: a bucket has what took less than its bound; a last bucket has the
    /// rest.
    pub(crate) latency_bounds_ns: Vec<u64>,
    pub(crate) reactors: Vec<ReactorTelemetry>,
    pub(crate) bdevs: Vec<BdevTelemetry>,
    pub(crate) controllers: Vec<ControllerTelemetry>,
    pub(crate) rpc: RpcTelemetry,
    /// How often what has happened, by the names of `notify_get_types`.
    pub(crate) events: BTreeMap<String, u64>,
}

/// One reactor.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct ReactorTelemetry {
    pub(crate) lcore: u32,
    /// It answered in time; otherwise the rest is what it said last.
    pub(crate) responding: bool,
    /// `poll`, `adaptive` or `interrupt`.
    pub(crate) mode: String,
    /// Ticks.
    pub(crate) busy: u64,
    pub(crate) idle: u64,
    /// Operations in its ring.
    pub(crate) in_flight: u64,
    /// System calls on its ring.
    pub(crate) enters: u64,
    pub(crate) pollers: Vec<PollerTelemetry>,
}

/// Something a reactor polls.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct PollerTelemetry {
    pub(crate) name: String,
    pub(crate) id: u32,
    pub(crate) run_count: u64,
    pub(crate) busy_count: u64,
}

/// One disk, over all reactors.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct BdevTelemetry {
    pub(crate) name: String,
    pub(crate) product_name: String,
    pub(crate) block_size: u32,
    pub(crate) num_blocks: u64,
    pub(crate) claimed: bool,
    pub(crate) rate_limits: RateLimitTelemetry,
    pub(crate) read: OpTelemetry,
    pub(crate) write: OpTelemetry,
    pub(crate) unmap: OpTelemetry,
    pub(crate) flush: OpTelemetry,
    pub(crate) write_zeroes: OpTelemetry,
    pub(crate) compare: OpTelemetry,
    /// Requests that failed.
    pub(crate) failed: u64,
    /// The same by SPDK's names for the causes, as far as they are known.
    pub(crate) errors: BTreeMap<String, u64>,
    /// Requests that the disk works on.
    pub(crate) in_flight: u64,
    /// Requests that rate limits hold back.
    pub(crate) queued: u64,
}

impl BdevTelemetry {
    /// All kinds of requests, by name.
    pub(crate) fn kinds(&self) -> [(&'static str, &OpTelemetry); 6] {
        [
            ("read", &self.read),
            ("write", &self.write),
            ("unmap", &self.unmap),
            ("flush", &self.flush),
            ("write_zeroes", &self.write_zeroes),
            ("compare", &self.compare),
        ]
    }
}

/// What a disk may do per second, as `bdev_set_qos_limit` names it; 0 is no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct RateLimitTelemetry {
    pub(crate) rw_ios_per_sec: u64,
    pub(crate) rw_mbytes_per_sec: u64,
    pub(crate) r_mbytes_per_sec: u64,
    pub(crate) w_mbytes_per_sec: u64,
}

/// Requests of one kind.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct OpTelemetry {
    pub(crate) ops: u64,
    pub(crate) bytes: u64,
    /// The sum of their times.
    pub(crate) latency_ticks: u64,
    pub(crate) max_latency_ticks: u64,
    /// 0 if there was none.
    pub(crate) min_latency_ticks: u64,
    /// How many took how long, by [`Telemetry::latency_bounds_ns`]; empty where that is not counted.
    pub(crate) buckets: Vec<u64>,
}

/// What stands behind an endpoint's socket.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct ControllerTelemetry {
    /// `nvme`, `vfu_virtio_blk` or `vhost_blk`.
    pub(crate) kind: String,
    /// What the operator calls it: the endpoint's name, or the directory of an NVMe endpoint.
    pub(crate) name: String,
    /// The socket, or its directory.
    pub(crate) address: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) subsystem: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) cntlid: Option<u16>,
    pub(crate) state: ControllerState,
    /// It answered in time, or there was nobody to ask; otherwise the rest is what it said last.
    pub(crate) responding: bool,
    /// The reactor of its socket and admin queue.
    pub(crate) lcore: u32,
    /// Guests that have connected so far.
    pub(crate) connections: u64,
    /// Over all queues and all guests so far.
    pub(crate) total: QueueCounters,
    pub(crate) queues: Vec<QueueTelemetry>,
    pub(crate) namespaces: Vec<NamespaceTelemetry>,
}

/// How far a guest has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum ControllerState {
    /// No guest.
    #[default]
    Listening,
    /// A guest, whose driver does not run (yet).
    Connected,
    /// A guest's driver runs.
    Enabled,
    /// The guest's driver must reset it.
    Failed,
}

impl ControllerState {
    /// All, with their names.
    pub(crate) const ALL: [(Self, &'static str); 4] = [
        (Self::Listening, "listening"),
        (Self::Connected, "connected"),
        (Self::Enabled, "enabled"),
        (Self::Failed, "failed"),
    ];
}

/// What went through a queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct QueueCounters {
    /// Commands that ended.
    pub(crate) commands: u64,
    pub(crate) read_ops: u64,
    pub(crate) read_bytes: u64,
    pub(crate) write_ops: u64,
    pub(crate) written_bytes: u64,
    /// Commands that ended with an error.
    pub(crate) errors: u64,
    pub(crate) interrupts: u64,
}

impl QueueCounters {
    fn pairs(&mut self, other: &Self) -> [(&mut u64, u64); 7] {
        [
            (&mut self.commands, other.commands),
            (&mut self.read_ops, other.read_ops),
            (&mut self.read_bytes, other.read_bytes),
            (&mut self.write_ops, other.write_ops),
            (&mut self.written_bytes, other.written_bytes),
            (&mut self.errors, other.errors),
            (&mut self.interrupts, other.interrupts),
        ]
    }

    /// Whether anything counts less than in `other`.
    fn is_behind(mut self, other: &Self) -> bool {
        self.pairs(other)
            .iter()
            .any(|(mine, other)| **mine < *other)
    }

    /// Adds another queue's.
    pub(crate) fn add(&mut self, other: &Self) {
        for (sum, more) in self.pairs(other) {
            *sum = sum.saturating_add(more);
        }
    }
}

/// A queue of a guest.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct QueueTelemetry {
    /// NVMe: the submission queue's ID, 0 for the admin queue. virtio: the queue's index.
    pub(crate) qid: u16,
    pub(crate) entries: u32,
    /// The reactor that serves it.
    pub(crate) lcore: u32,
    pub(crate) in_flight: u64,
    #[serde(flatten)]
    pub(crate) counters: QueueCounters,
}

/// A disk as a guest sees it. A virtio-blk device has one, with NSID 1.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct NamespaceTelemetry {
    pub(crate) nsid: u32,
    pub(crate) bdev: String,
    /// Without interrupts, which are a queue's.
    #[serde(flatten)]
    pub(crate) counters: QueueCounters,
    /// Over all guests so far.
    pub(crate) total: QueueCounters,
}

/// The RPC socket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct RpcTelemetry {
    /// Connected now.
    pub(crate) clients: u64,
    /// Calls so far.
    pub(crate) requests: u64,
}

#[cfg(test)]
mod tests;
