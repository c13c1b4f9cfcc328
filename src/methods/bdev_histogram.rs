//! bdev_enable_histogram, bdev_get_histogram and bdev_get_histogram_borders.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bdev::{Histogram, HistogramOptions, SharedBdev};
use nix::errno::Errno;
use reactor::{Reactor, tick_rate};
use rpc::{Params, RegistryError, Responder, RpcError, When};
use serde::Deserialize;
use serde_json::{Value, json};

use super::Table;
use super::params::{BDEV, Name};
use crate::control::{Control, done, internal};
use crate::tuning::{GRANULARITY, MAX_NSEC, MIN_NSEC, kind_called};

pub(super) fn register(table: &mut Table) -> Result<(), RegistryError> {
    table
        .deferred("bdev_enable_histogram", When::Runtime, enable)?
        .deferred("bdev_get_histogram", When::Runtime, get)?
        .deferred("bdev_get_histogram_borders", When::Runtime, get_borders)?;
    Ok(())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Enable {
    name: String,
    enable: bool,
    opc: Option<String>,
    #[serde(default = "granularity")]
    granularity: u8,
    #[serde(default = "min_nsec")]
    min_nsec: u64,
    #[serde(default = "max_nsec")]
    max_nsec: u64,
}

fn granularity() -> u8 {
    GRANULARITY
}

fn min_nsec() -> u64 {
    MIN_NSEC
}

fn max_nsec() -> u64 {
    MAX_NSEC
}

impl Enable {
    fn options(&self) -> Result<HistogramOptions, RpcError> {
        let kind = match self.opc.as_deref() {
            None => None,
            Some(opc) => Some(kind_called(opc).ok_or_else(|| {
                internal(
                    "Invalid Io type",
                    format_args!(
                        "opc `{opc}` is none of read, write, unmap, flush, write_zeroes, compare"
                    ),
                )
            })?),
        };
        let options = HistogramOptions {
            kind,
            granularity: self.granularity,
            min_ns: self.min_nsec,
            max_ns: self.max_nsec,
        };
        options
            .check()
            .map_err(|error| RpcError::errno(Errno::EINVAL, error))?;
        Ok(options)
    }
}

fn enable(control: &mut Control, params: Params, responder: Responder) {
    let outcome = params.decode(BDEV).and_then(|wanted: Enable| {
        let disk = control.disks.find_mut(&wanted.name)?;
        let options = wanted.options()?;
        disk.tuning.histogram = Some(options);
        disk.tuning.histogram_enabled = wanted.enable;
        Ok((Arc::clone(&disk.bdev), wanted.enable.then_some(options)))
    });
    match outcome {
        Ok((bdev, options)) => {
            let ask = move |reactor: &mut Reactor| {
                bdev::set_local_histogram(&bdev, reactor.cx(), options.as_ref());
            };
            control.gather(responder, ask, |_, _| done());
        }
        Err(error) => responder.err(error),
    }
}

/// The disk's histogram, if it has one.
fn enabled(control: &Control, name: &str) -> Result<(SharedBdev, HistogramOptions), RpcError> {
    let disk = control.disks.find(name)?;
    let reason = format!("bdev `{name}` has no histogram: call bdev_enable_histogram first");
    match disk.tuning.histogram {
        // What SPDK stumbles over in these cases.
        None => Err(RpcError::errno(Errno::ENOMEM, reason)),
        Some(_) if !disk.tuning.histogram_enabled => Err(internal("Bad address", reason)),
        Some(options) => Ok((Arc::clone(&disk.bdev), options)),
    }
}

/// Adds up what all reactors have counted and answers with what `then` makes of it.
fn gather(
    control: &mut Control,
    found: Result<(SharedBdev, HistogramOptions), RpcError>,
    responder: Responder,
    then: impl FnOnce(&Histogram) -> Value + 'static,
) {
    let (bdev, options) = match found {
        Ok(found) => found,
        Err(error) => return responder.err(error),
    };
    let ask = move |reactor: &mut Reactor| bdev::local_histogram(&bdev, reactor.cx());
    control.gather(responder, ask, move |_, answers| {
        let mut sum = Histogram::new(&options);
        answers.iter().flatten().for_each(|part| sum.add(part));
        Ok(then(&sum))
    });
}

fn get(control: &mut Control, params: Params, responder: Responder) {
    let found = params
        .decode(BDEV)
        .and_then(|Name { name }| enabled(control, &name));
    gather(control, found, responder, |histogram| {
        // As SPDK: the counters as they lie in memory.
        let bytes: Vec<u8> = histogram
            .counts()
            .iter()
            .flat_map(|count| count.to_le_bytes())
            .collect();
        json!({
            "histogram": STANDARD.encode(bytes),
            "granularity": histogram.options().granularity,
            "min_range": histogram.min_range(),
            "max_range": histogram.max_range(),
            "tsc_rate": tick_rate(),
        })
    });
}

/// Most borders of one call, as in SPDK.
const MAX_BORDERS: usize = 256;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct GetBorders {
    name: String,
    /// Microseconds.
    borders: Vec<u64>,
}

fn get_borders(control: &mut Control, params: Params, responder: Responder) {
    let decoded = params.decode(BDEV).and_then(|wanted: GetBorders| {
        if wanted.borders.len() > MAX_BORDERS {
            return Err(BDEV.error(format_args!("borders has more than {MAX_BORDERS} members")));
        }
        Ok((enabled(control, &wanted.name)?, wanted.borders))
    });
    let (found, borders) = match decoded {
        Ok((found, borders)) => (Ok(found), borders),
        Err(error) => (Err(error), Vec::new()),
    };
    gather(control, found, responder, move |histogram| {
        let borders: Vec<u64> = borders.iter().map(|micros| ticks_of(*micros)).collect();
        json!({ "borders_count": histogram.cumulative(&borders) })
    });
}

fn ticks_of(micros: u64) -> u64 {
    let ticks = u128::from(micros) * u128::from(tick_rate()) / 1_000_000;
    u64::try_from(ticks).unwrap_or(u64::MAX)
}
