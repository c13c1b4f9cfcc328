//! bdev_get_iostat and bdev_reset_iostat.

use std::sync::Arc;

use bdev::{IoStats, OpStats, SharedBdev, StatsReset};
use nix::errno::Errno;
use reactor::{Reactor, tick_rate, ticks};
use rpc::{Params, RegistryError, Responder, RpcError, When};
use serde::Deserialize;
use serde_json::{Value, json};

use super::Table;
use super::params::BDEV;
use crate::control::{Control, done};
use crate::disks::Disk;
use crate::tuning::Tuning;

pub(super) fn register(table: &mut Table) -> Result<(), RegistryError> {
    table
        .deferred("bdev_get_iostat", When::Runtime, get_iostat)?
        .deferred("bdev_reset_iostat", When::Runtime, reset_iostat)?;
    Ok(())
}

/// SPDK's names for what to forget.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum ResetMode {
    #[default]
    None,
    All,
    Maxmin,
    Error,
}

impl ResetMode {
    fn reset(self) -> Option<StatsReset> {
        match self {
            Self::None => None,
            Self::All => Some(StatsReset::All),
            Self::Maxmin => Some(StatsReset::MaxMin),
            Self::Error => Some(StatsReset::Errors),
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct GetIostat {
    names: Option<Vec<String>>,
    #[serde(default)]
    per_channel: bool,
    #[serde(default)]
    reset_mode: ResetMode,
}

/// Most names of one call, as in SPDK.
const MAX_NAMES: usize = 1024;

fn get_iostat(control: &mut Control, params: Params, responder: Responder) {
    let decoded = params.decode(BDEV).and_then(|wanted: GetIostat| {
        let names = wanted.names.as_deref();
        if names.is_some_and(|names| names.len() > MAX_NAMES) {
            return Err(BDEV.error(format_args!("names has more than {MAX_NAMES} members")));
        }
        if wanted.per_channel && names.is_none_or(|names| names.len() != 1) {
            let reason = "per_channel needs exactly one name in names";
            return Err(RpcError::errno(Errno::EINVAL, reason));
        }
        Ok((select(control, names)?, wanted))
    });
    let (disks, wanted) = match decoded {
        Ok(decoded) => decoded,
        Err(error) => return responder.err(error),
    };
    let (asked, reset) = (Arc::clone(&disks), wanted.reset_mode.reset());
    let ask = move |reactor: &mut Reactor| local(reactor, &asked, reset);
    control.gather(responder, ask, move |_, answers| {
        let names = disks.iter().map(|(bdev, _)| bdev.info().name);
        let mut members = json!({"tick_rate": tick_rate(), "ticks": ticks()});
        if wanted.per_channel {
            // Threads are numbered as thread_get_stats does.
            let channels = (1u64..).zip(&answers).filter_map(|(id, stats)| {
                let stats = stats.first().filter(|stats| stats.channels > 0)?;
                let mut channel = json!({ "thread_id": id });
                crate::options::merge(&mut channel, &describe(stats));
                Some(channel)
            });
            members["name"] = names.into_iter().next().into();
            members["channels"] = channels.collect();
            return Ok(members);
        }
        let bdevs = names.enumerate().map(|(index, name)| {
            let mut sum = IoStats::default();
            for stats in answers.iter().filter_map(|stats| stats.get(index)) {
                sum.add(stats);
            }
            let mut bdev = json!({ "name": name });
            crate::options::merge(&mut bdev, &describe(&sum));
            if let Some((_, tuning)) = disks.get(index)
                && let Some(sampled) = sampled(&sum, tuning)
            {
                crate::options::merge(&mut bdev, &sampled);
            }
            bdev
        });
        members["bdevs"] = bdevs.collect();
        Ok(members)
    });
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ResetIostat {
    name: Option<String>,
    #[serde(default = "all")]
    mode: ResetMode,
}

fn all() -> ResetMode {
    ResetMode::All
}

fn reset_iostat(control: &mut Control, params: Params, responder: Responder) {
    let decoded = params.decode(BDEV).and_then(|wanted: ResetIostat| {
        let names = wanted.name.as_ref().map(std::slice::from_ref);
        Ok((select(control, names)?, wanted.mode.reset()))
    });
    match decoded {
        Ok((disks, reset)) => {
            let ask = move |reactor: &mut Reactor| drop(local(reactor, &disks, reset));
            control.gather(responder, ask, |_, _| done());
        }
        Err(error) => responder.err(error),
    }
}

type Selected = Arc<[(SharedBdev, Tuning)]>;

/// The disks of these names, or all.
fn select(control: &Control, names: Option<&[String]>) -> Result<Selected, RpcError> {
    let take = |disk: &Disk| (Arc::clone(&disk.bdev), disk.tuning);
    match names {
        None => Ok(control.disks.iter().map(take).collect()),
        Some(names) => names
            .iter()
            .map(|name| Ok(take(control.disks.find(name)?)))
            .collect(),
    }
}

/// What one reactor knows of these disks.
fn local(
    reactor: &mut Reactor,
    disks: &[(SharedBdev, Tuning)],
    reset: Option<StatsReset>,
) -> Vec<IoStats> {
    let cx = reactor.cx();
    let stats = disks.iter().map(|(disk, _)| {
        let stats = bdev::local_stats(disk, cx);
        if let Some(reset) = reset {
            bdev::reset_local_stats(disk, cx, reset);
        }
        stats
    });
    stats.collect()
}

/// What is added while the queue depth is sampled. Times are in microseconds, as the period.
fn sampled(stats: &IoStats, tuning: &Tuning) -> Option<Value> {
    if tuning.qd_period() == 0 {
        return None;
    }
    let micros = |ticks: u64| u128::from(ticks) * 1_000_000 / u128::from(tick_rate());
    let micros = |ticks| u64::try_from(micros(ticks)).unwrap_or(u64::MAX);
    // Reactors may have been busy at the same time, which none of them knows.
    let most = ticks().saturating_sub(tuning.qd_since());
    Some(json!({
        "queue_depth_polling_period": tuning.qd_period(),
        "queue_depth": stats.in_flight,
        "io_time": micros(stats.busy_ticks.min(most)),
        "weighted_io_time": micros(stats.weighted_ticks),
    }))
}

fn describe(stats: &IoStats) -> Value {
    // SPDK has no counters of its own for write zeroes and compare either; their bytes pass as neither.
    let mut members = json!({});
    let kinds: [(&str, &str, &str, OpStats); 4] = [
        ("read", "bytes_read", "num_read_ops", stats.read),
        ("write", "bytes_written", "num_write_ops", stats.write),
        ("unmap", "bytes_unmapped", "num_unmap_ops", stats.unmap),
        ("copy", "bytes_copied", "num_copy_ops", OpStats::default()),
    ];
    for (_, bytes, ops, stats) in &kinds {
        members[*bytes] = stats.bytes.into();
        members[*ops] = stats.ops.into();
    }
    for (kind, _, _, stats) in &kinds {
        let least = if stats.ops == 0 {
            0
        } else {
            stats.min_latency_ticks
        };
        members[format!("{kind}_latency_ticks")] = stats.latency_ticks.into();
        members[format!("max_{kind}_latency_ticks")] = stats.max_latency_ticks.into();
        members[format!("min_{kind}_latency_ticks")] = least.into();
    }
    let failures = stats.failures.named();
    let failures = failures.iter().filter(|(_, count)| *count > 0);
    let failures = failures.map(|(name, count)| ((*name).to_owned(), (*count).into()));
    members["io_error"] = Value::Object(failures.collect());
    members
}
