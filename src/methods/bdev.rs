//! bdev_get_bdevs, bdev_examine and the like.

use std::time::Duration;

use bdev::{DriverValue, Features};
use nix::errno::Errno;
use rpc::{DecodeStyle, Params, RegistryError, Responder, RpcError, When};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::Table;
use super::params::{BDEV, NVMF, Name};
use crate::control::{Control, done};
use crate::disks::{Disk, Kind, is_called};

const EXAMINE: DecodeStyle = DecodeStyle {
    code: rpc::code::INVALID_PARAMS,
    text: "spdk_json_decode_object failed",
};

pub(super) fn register(table: &mut Table) -> Result<(), RegistryError> {
    table
        .deferred("bdev_get_bdevs", When::Runtime, get_bdevs)?
        .deferred("bdev_wait_for_examine", When::Runtime, wait_for_examine)?
        .method("bdev_examine", When::Runtime, examine)?
        .method("bdev_set_options", When::Startup, set_options)?;
    Ok(())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct GetBdevs {
    name: Option<String>,
    /// Milliseconds to wait for the name.
    #[serde(default)]
    timeout: u64,
}

fn get_bdevs(control: &mut Control, params: Params, responder: Responder) {
    let GetBdevs { name, timeout } = match params.decode(BDEV) {
        Ok(wanted) => wanted,
        Err(error) => return responder.err(error),
    };
    let Some(name) = name else {
        return responder.ok(control
            .disks
            .iter()
            .map(|disk| describe(control, disk))
            .collect::<Vec<_>>());
    };
    match control.disks.find(&name) {
        Ok(disk) => responder.ok(vec![describe(control, disk)]),
        Err(error) if timeout == 0 => responder.err(error),
        Err(_) => {
            let reason = format!("no bdev `{name}` has appeared within {timeout} ms");
            let id = control.disks.wait_for(name, responder);
            control.after(Duration::from_millis(timeout), move |control| {
                if let Some(responder) = control.disks.give_up(id) {
                    responder.err(RpcError::errno(Errno::ETIMEDOUT, reason));
                }
            });
        }
    }
}

/// Tells everybody about a new disk.
pub(crate) fn registered(control: &mut Control, name: &str) {
    control.events.push(crate::events::Kind::BdevRegister, name);
    let Ok(disk) = control.disks.find(name) else {
        return;
    };
    let (info, description) = (disk.bdev.info(), describe(control, disk));
    for responder in control.disks.take_waiting(&info) {
        responder.ok(vec![description.clone()]);
    }
    let is_asked_for = |it: &String| is_called(&info, it);
    if control.options.bdev["bdev_auto_examine"] == true
        || control.disks.to_examine.iter().any(is_asked_for)
    {
        control.examine(name);
    }
}

/// A disk as `bdev_get_bdevs` shows it.
fn describe(control: &Control, disk: &Disk) -> Value {
    let info = disk.bdev.info();
    let uuid = info.uuid.hyphenated().to_string();
    let hints = disk.hints;
    let mut members = json!({
        "name": info.name,
        "aliases": [uuid],
        "product_name": info.product_name,
        "block_size": info.block_size,
        "num_blocks": info.num_blocks,
        "preferred_write_alignment": hints.preferred_write_alignment,
        "preferred_write_granularity": hints.preferred_write_granularity,
        "optimal_write_size": hints.optimal_write_size,
        "preferred_unmap_alignment": hints.preferred_unmap_alignment,
        "preferred_unmap_granularity": hints.preferred_unmap_granularity,
        "uuid": uuid,
        "assigned_rate_limits": disk.tuning.assigned_limits(),
        "claimed": disk.claim.is_some(),
    });
    if control.disks.root(disk).kind == Kind::Malloc {
        members["numa_id"] = (-1).into();
    }
    if disk.claim.is_some() {
        members["claim_type"] = "exclusive_write".into();
    }
    members["zoned"] = false.into();
    members["supported_io_types"] = io_types(info.features);
    members["driver_specific"] = driver_specific(disk);
    members
}

fn io_types(features: Features) -> Value {
    let write = features.contains(Features::WRITE);
    json!({
        "read": true,
        "write": write,
        "unmap": features.contains(Features::UNMAP),
        "flush": true,
        "reset": false,
        "nvme_admin": false,
        "nvme_io": false,
        "nvme_io_md": false,
        "write_zeroes": write,
        "zcopy": false,
        "get_zone_info": false,
        "zone_management": false,
        "zone_append": false,
        "compare": true,
        "compare_and_write": false,
        "abort": false,
        "seek_hole": false,
        "seek_data": false,
        "copy": false,
        "nvme_iov_md": false,
        "nvme_nssr": false,
        "write_uncorrectable": false,
    })
}

fn driver_specific(disk: &Disk) -> Value {
    let values = disk.bdev.driver_specific().into_iter().map(|(key, value)| {
        let value = match value {
            DriverValue::Text(text) => text.into(),
            DriverValue::Bool(flag) => flag.into(),
            DriverValue::Number(number) => number.into(),
        };
        (key.to_owned(), value)
    });
    let values: Map<String, Value> = values.collect();
    match disk.kind {
        Kind::Malloc | Kind::Null => json!({}),
        Kind::Uring => json!({ "uring": values }),
        Kind::Aio => json!({ "aio": values }),
        Kind::Passthru => json!({ "passthru": values }),
        Kind::Error => json!({ "error_disk": values }),
        Kind::Delay => json!({ "delay": values }),
        Kind::Split => json!({ "split": values }),
        Kind::Gpt => json!({ "gpt": values }),
    }
}

fn wait_for_examine(control: &mut Control, params: Params, responder: Responder) {
    match params.expect_none() {
        Ok(()) => control.examination.when_done(responder),
        Err(error) => responder.err(error),
    }
}

/// Where disks are not examined by themselves, those named here are: now, or when they appear.
fn examine(control: &mut Control, params: Params) -> Result<Value, RpcError> {
    let Name { name } = params.decode(EXAMINE)?;
    if control.options.bdev["bdev_auto_examine"] != false {
        let reason =
            "every bdev is examined by itself; bdev_set_options bdev_auto_examine=false ends that";
        return Err(RpcError::errno(Errno::EINVAL, reason));
    }
    if !control.disks.to_examine.contains(&name) {
        control.disks.to_examine.push(name.clone());
    }
    if let Ok(disk) = control.disks.find(&name) {
        let name = disk.name.clone();
        control.examine(&name);
    }
    done()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SetOptions {
    #[serde(default = "io_pool_size")]
    bdev_io_pool_size: u32,
    #[serde(default = "io_cache_size")]
    bdev_io_cache_size: u32,
    #[serde(default = "yes")]
    bdev_auto_examine: bool,
    #[serde(default = "small_cache_size")]
    iobuf_small_cache_size: u32,
    #[serde(default = "large_cache_size")]
    iobuf_large_cache_size: u32,
    /// Ours: look for partitions. Where guests may write tables that are for us to read, an operator may not want that.
    #[serde(default = "yes")]
    vtarget_examine_gpt: bool,
}

fn io_pool_size() -> u32 {
    65535
}

fn io_cache_size() -> u32 {
    256
}

fn yes() -> bool {
    true
}

fn small_cache_size() -> u32 {
    128
}

fn large_cache_size() -> u32 {
    16
}

fn set_options(control: &mut Control, params: Params) -> Result<Value, RpcError> {
    let options: SetOptions = params.decode(NVMF)?;
    let threads = u32::try_from(control.reactors.len()).unwrap_or(u32::MAX);
    let least = options
        .bdev_io_cache_size
        .saturating_mul(threads.saturating_add(1));
    if options.bdev_io_pool_size < least {
        let reason = format!(
            "bdev_io_pool_size is {}, less than bdev_io_cache_size × (threads + 1) = {least}",
            options.bdev_io_pool_size
        );
        return Err(RpcError::invalid_params(reason));
    }
    control.options.bdev = json!({
        "bdev_io_pool_size": options.bdev_io_pool_size,
        "bdev_io_cache_size": options.bdev_io_cache_size,
        "bdev_auto_examine": options.bdev_auto_examine,
        "iobuf_small_cache_size": options.iobuf_small_cache_size,
        "iobuf_large_cache_size": options.iobuf_large_cache_size,
    });
    if !options.vtarget_examine_gpt {
        control.options.bdev["vtarget_examine_gpt"] = false.into();
    }
    done()
}
