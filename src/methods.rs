//! The RPC methods: names, when they may be called, and bodies.
//!
//! Names, parameters, defaults, results and codes are SPDK's. A body validates everything before it changes anything, and
//! says why it refuses after the text that SPDK would give.

mod accel;
mod bdev;
mod bdev_create;
mod bdev_delay;
mod bdev_delete;
mod bdev_error;
mod bdev_histogram;
mod bdev_passthru;
mod bdev_qos;
mod bdev_split;
mod bdev_stats;
mod blk;
mod compat;
mod discovery;
mod events;
mod foreign;
mod framework;
mod keyring;
mod log;
mod namespace;
mod nvmf_access;
mod nvmf_query;
mod nvmf_stats;
mod params;
mod read_only;
mod subsystem;
mod telemetry;
mod thread;
mod trace;
mod transport;
mod vfu;
mod vhost;

use rpc::{Registry, RegistryError};

use crate::control::Control;

pub(crate) use bdev::registered;

type Table = Registry<Control>;

/// All methods.
///
/// # Errors
/// A name given twice: a mistake of the program.
pub(crate) fn table() -> Result<Table, RegistryError> {
    let mut table = Registry::new();
    framework::register(&mut table)?;
    thread::register(&mut table)?;
    log::register(&mut table)?;
    bdev::register(&mut table)?;
    bdev_create::register(&mut table)?;
    bdev_delete::register(&mut table)?;
    bdev_passthru::register(&mut table)?;
    bdev_error::register(&mut table)?;
    bdev_delay::register(&mut table)?;
    bdev_split::register(&mut table)?;
    bdev_stats::register(&mut table)?;
    bdev_qos::register(&mut table)?;
    bdev_histogram::register(&mut table)?;
    transport::register(&mut table)?;
    subsystem::register(&mut table)?;
    namespace::register(&mut table)?;
    nvmf_access::register(&mut table)?;
    nvmf_query::register(&mut table)?;
    nvmf_stats::register(&mut table)?;
    vhost::register(&mut table)?;
    vfu::register(&mut table)?;
    compat::register(&mut table)?;
    telemetry::register(&mut table)?;
    foreign::register(&mut table)?;
    accel::register(&mut table)?;
    keyring::register(&mut table)?;
    trace::register(&mut table)?;
    discovery::register(&mut table)?;
    events::register(&mut table)?;
    // After all of them.
    read_only::mark(&mut table)?;
    Ok(table)
}
