//! bdev_set_qos_limit and bdev_set_qd_sampling_period.

use std::sync::Arc;
use std::time::Duration;

use bdev::{Limiter, RateLimits};
use nix::errno::Errno;
use reactor::Reactor;
use rpc::{Params, RegistryError, Responder, RpcError, When};
use serde::Deserialize;

use super::Table;
use super::params::BDEV;
use crate::control::{Control, done};

pub(super) fn register(table: &mut Table) -> Result<(), RegistryError> {
    table
        .deferred("bdev_set_qos_limit", When::Runtime, set_qos_limit)?
        .deferred("bdev_set_qd_sampling_period", When::Runtime, set_qd_period)?;
    Ok(())
}

/// SPDK's granularity: limits on requests are rounded up to a multiple of this.
const IOS_STEP: u64 = 1000;
/// More MiB per second than this do not fit 64 bits as bytes; SPDK takes this instead.
const MOST_MBYTES: u64 = u64::MAX >> 20;
/// The longest burst, in milliseconds: an hour.
const MOST_BURST: u64 = 3_600_000;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SetQosLimit {
    name: String,
    rw_ios_per_sec: Option<u64>,
    rw_mbytes_per_sec: Option<u64>,
    r_mbytes_per_sec: Option<u64>,
    w_mbytes_per_sec: Option<u64>,
    /// Ours: what was not used is kept for so many milliseconds, and may then be used at once.
    burst_ms: Option<u64>,
}

impl SetQosLimit {
    /// What is to be set over `present`. Members that are not given stay as they are.
    fn over(&self, present: RateLimits) -> Result<RateLimits, RpcError> {
        // SPDK's own value for "not given" is not given here either.
        let given = |limit: Option<u64>| limit.filter(|limit| *limit != u64::MAX);
        let ios = given(self.rw_ios_per_sec).map(|limit| {
            let rounded = limit.checked_next_multiple_of(IOS_STEP);
            rounded.unwrap_or(u64::MAX - u64::MAX % IOS_STEP)
        });
        let mbytes = |limit| given(limit).map(|limit| limit.min(MOST_MBYTES));
        let (both, reads, writes) = (
            mbytes(self.rw_mbytes_per_sec),
            mbytes(self.r_mbytes_per_sec),
            mbytes(self.w_mbytes_per_sec),
        );
        if [ios, both, reads, writes].iter().all(Option::is_none) && self.burst_ms.is_none() {
            let reason = "No rate limits specified: give rw_ios_per_sec, rw_mbytes_per_sec, r_mbytes_per_sec or \
                          w_mbytes_per_sec, 0 for no limit";
            return Err(RpcError::new(-(Errno::EINVAL as i64), reason));
        }
        if let Some(burst) = self.burst_ms.filter(|burst| *burst > MOST_BURST) {
            let reason = format!("burst_ms {burst} is more than an hour ({MOST_BURST})");
            return Err(RpcError::errno(Errno::EINVAL, reason));
        }
        let mut limits = RateLimits {
            rw_ios_per_sec: ios.unwrap_or(present.rw_ios_per_sec),
            rw_mbytes_per_sec: both.unwrap_or(present.rw_mbytes_per_sec),
            r_mbytes_per_sec: reads.unwrap_or(present.r_mbytes_per_sec),
            w_mbytes_per_sec: writes.unwrap_or(present.w_mbytes_per_sec),
            burst: self.burst_ms.map_or(present.burst, Duration::from_millis),
        };
        if !limits.is_set() {
            limits = RateLimits::default();
        }
        Ok(limits)
    }
}

fn set_qos_limit(control: &mut Control, params: Params, responder: Responder) {
    let outcome = params.decode(BDEV).and_then(|wanted: SetQosLimit| {
        let disk = control.disks.find_mut(&wanted.name)?;
        disk.tuning.limits = wanted.over(disk.tuning.limits)?;
        let limits = disk.tuning.limits;
        let asked = wanted.rw_ios_per_sec.unwrap_or(0);
        if !asked.is_multiple_of(IOS_STEP) && asked != u64::MAX {
            let limit = limits.rw_ios_per_sec;
            tracing::warn!(
                bdev = disk.name,
                "rw_ios_per_sec {asked} is rounded up to {limit}"
            );
        }
        Ok((Arc::clone(&disk.bdev), Limiter::new(&limits)))
    });
    match outcome {
        Ok((bdev, limiter)) => {
            let ask = move |reactor: &mut Reactor| {
                bdev::set_local_limits(&bdev, reactor.cx(), limiter.clone());
            };
            control.gather(responder, ask, |_, _| done());
        }
        Err(error) => responder.err(error),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SetQdPeriod {
    name: String,
    /// Microseconds.
    period: u64,
}

/// SPDK looks at the queues once in a period. Here every change is counted, so the period only says that somebody wants to
/// know, and in what unit its tools count.
fn set_qd_period(control: &mut Control, params: Params, responder: Responder) {
    let outcome = params.decode(BDEV).and_then(|wanted: SetQdPeriod| {
        let disk = control.disks.find_mut(&wanted.name)?;
        disk.tuning.set_qd_period(wanted.period);
        Ok((Arc::clone(&disk.bdev), wanted.period > 0))
    });
    match outcome {
        Ok((bdev, on)) => {
            let ask = move |reactor: &mut Reactor| bdev::watch_local_depth(&bdev, reactor.cx(), on);
            control.gather(responder, ask, |_, _| done());
        }
        Err(error) => responder.err(error),
    }
}
