//! What operators set on a disk after it was made: limits, histogram, sampling.

use bdev::{HistogramOptions, IoKind, RateLimits};
use reactor::ticks;
use serde_json::{Map, Value, json};

/// What is set on a disk. Goes with it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Tuning {
    pub(crate) limits: RateLimits,
    /// As the last `bdev_enable_histogram` said it.
    pub(crate) histogram: Option<HistogramOptions>,
    pub(crate) histogram_enabled: bool,
    /// Microseconds; zero is none.
    qd_period: u64,
    /// Since when.
    qd_since: u64,
}

impl Tuning {
    pub(crate) fn qd_period(&self) -> u64 {
        self.qd_period
    }

    /// Since when the queue depth is watched, in ticks.
    pub(crate) fn qd_since(&self) -> u64 {
        self.qd_since
    }

    pub(crate) fn set_qd_period(&mut self, micros: u64) {
        if self.qd_period == 0 {
            self.qd_since = ticks();
        }
        self.qd_period = micros;
    }

    /// `assigned_rate_limits`: SPDK's members, and the burst if there is one.
    pub(crate) fn assigned_limits(&self) -> Value {
        let limits = self.limits;
        let mut members = json!({
            "rw_ios_per_sec": limits.rw_ios_per_sec, "rw_mbytes_per_sec": limits.rw_mbytes_per_sec,
            "r_mbytes_per_sec": limits.r_mbytes_per_sec, "w_mbytes_per_sec": limits.w_mbytes_per_sec,
        });
        if !limits.burst.is_zero() {
            members["burst_ms"] = burst_ms(&limits).into();
        }
        members
    }

    /// The calls that set it again, as SPDK saves them, with what it forgets.
    pub(crate) fn calls(&self, name: &str) -> Vec<Value> {
        let mut calls = Vec::new();
        let mut call = |method: &str, mut params: Map<String, Value>| {
            params.insert("name".to_owned(), name.into());
            calls.push(json!({"method": method, "params": params}));
        };
        if self.limits.is_set()
            && let Value::Object(limits) = self.assigned_limits()
        {
            let set = limits.into_iter().filter(|(_, limit)| *limit != 0);
            call("bdev_set_qos_limit", set.collect());
        }
        if let (true, Some(options)) = (self.histogram_enabled, &self.histogram) {
            let mut params = Map::new();
            params.insert("enable".to_owned(), true.into());
            if let Some(kind) = options.kind {
                params.insert("opc".to_owned(), name_of(kind).into());
            }
            for (key, value, default) in [
                (
                    "granularity",
                    u64::from(options.granularity),
                    u64::from(GRANULARITY),
                ),
                ("min_nsec", options.min_ns, MIN_NSEC),
                ("max_nsec", options.max_ns, MAX_NSEC),
            ] {
                if value != default {
                    params.insert(key.to_owned(), value.into());
                }
            }
            call("bdev_enable_histogram", params);
        }
        if self.qd_period > 0 {
            let mut params = Map::new();
            params.insert("period".to_owned(), self.qd_period.into());
            call("bdev_set_qd_sampling_period", params);
        }
        calls
    }
}

/// SPDK's defaults of `bdev_enable_histogram`.
pub(crate) const GRANULARITY: u8 = 7;
pub(crate) const MIN_NSEC: u64 = 1000;
pub(crate) const MAX_NSEC: u64 = 120_000_000_000;

const KINDS: [(&str, IoKind); 6] = [
    ("read", IoKind::Read),
    ("write", IoKind::Write),
    ("unmap", IoKind::Unmap),
    ("flush", IoKind::Flush),
    ("write_zeroes", IoKind::WriteZeroes),
    ("compare", IoKind::Compare),
];

/// The kind of request that SPDK calls so, if disks here get any.
pub(crate) fn kind_called(name: &str) -> Option<IoKind> {
    let found = KINDS.iter().find(|(known, _)| *known == name);
    found.map(|(_, kind)| *kind)
}

fn name_of(kind: IoKind) -> &'static str {
    let found = KINDS.iter().find(|(_, known)| *known == kind);
    found.map_or("", |(name, _)| name)
}

/// The burst of limits, in milliseconds.
fn burst_ms(limits: &RateLimits) -> u64 {
    u64::try_from(limits.burst.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
