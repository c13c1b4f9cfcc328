//! bdev_*_delete, _resize and _rescan: changes that guests see.

use std::collections::BTreeSet;
use std::sync::Arc;

use nix::errno::Errno;
use rpc::{Params, RegistryError, Responder, RpcError, When};
use serde::Deserialize;

use super::Table;
use super::bdev_create::refused;
use super::params::{BDEV, Name};
use crate::control::{Control, reply_done};
use crate::disks::{Claim, Kind};
use crate::nvmf::DRAIN_TIMEOUT;

pub(super) fn register(table: &mut Table) -> Result<(), RegistryError> {
    table
        .deferred(
            "bdev_malloc_delete",
            When::Runtime,
            |control, params, responder| {
                delete(control, params, responder, Kind::Malloc);
            },
        )?
        .deferred(
            "bdev_null_delete",
            When::Runtime,
            |control, params, responder| {
                delete(control, params, responder, Kind::Null);
            },
        )?
        .deferred(
            "bdev_uring_delete",
            When::Runtime,
            |control, params, responder| {
                delete(control, params, responder, Kind::Uring);
            },
        )?
        .deferred(
            "bdev_aio_delete",
            When::Runtime,
            |control, params, responder| {
                delete(control, params, responder, Kind::Aio);
            },
        )?
        .deferred("bdev_null_resize", When::Runtime, resize)?
        .deferred(
            "bdev_uring_rescan",
            When::Runtime,
            |control, params, responder| {
                rescan(control, params, responder, Kind::Uring);
            },
        )?
        .deferred(
            "bdev_aio_rescan",
            When::Runtime,
            |control, params, responder| {
                rescan(control, params, responder, Kind::Aio);
            },
        )?;
    Ok(())
}

/// A disk goes, with what stands on it.
pub(super) fn delete(control: &mut Control, params: Params, responder: Responder, kind: Kind) {
    let found = params.decode(BDEV).and_then(|Name { name }| {
        let disk = control.disks.find_kind(&name, kind)?;
        Ok(disk.name.clone())
    });
    match found {
        Ok(name) => control.remove_disks(&[name], responder),
        Err(error) => responder.err(error),
    }
}

/// As [`delete`], and also for a decorator that only waits for its base. (SPDK says that there is no such bdev, and never forgets
/// it.)
pub(super) fn delete_layer(
    control: &mut Control,
    params: Params,
    responder: Responder,
    kind: Kind,
) {
    let found = params.decode(BDEV).and_then(|Name { name }| {
        if let Some(id) = control.disks.absent_layer(kind, &name) {
            control.disks.forget_layer(id);
            return Ok(None);
        }
        let disk = control.disks.find_kind(&name, kind)?;
        Ok(Some(disk.name.clone()))
    });
    match found {
        Ok(Some(name)) => control.remove_disks(&[name], responder),
        Ok(None) => responder.ok(true),
        Err(error) => responder.err(error),
    }
}

/// Tells guests and listeners of the new size of a disk, and of those above that have grown with it; then answers.
fn resized(control: &mut Control, name: &str, responder: Responder) {
    let late = RpcError::errno(
        Errno::ETIMEDOUT,
        "a controller has not taken the new size over yet",
    );
    let mut nqns = BTreeSet::new();
    for name in control.following(name) {
        control
            .events
            .push(crate::events::Kind::BdevResize, name.as_str());
        if let Ok(disk) = control.disks.find(&name) {
            control.blk.resized(&disk.bdev);
            nqns.extend(disk.claim.as_ref().and_then(Claim::nqn).map(str::to_owned));
        }
    }
    let ack = control.wait(Some(responder), DRAIN_TIMEOUT, late, reply_done);
    for nqn in nqns {
        control.publish_namespaces_until(&nqn, ack.clone());
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Resize {
    name: String,
    /// MiB.
    new_size: u64,
}

fn resize(control: &mut Control, params: Params, responder: Responder) {
    let outcome = params.decode(BDEV).and_then(|Resize { name, new_size }| {
        let disk = control.disks.find(&name)?;
        if disk.kind != Kind::Null {
            let reason = format!("`{name}` is no null bdev");
            return Err(RpcError::errno(Errno::EINVAL, reason));
        }
        let info = disk.bdev.info();
        let blocks = new_size
            .checked_mul(1 << 20)
            .map(|bytes| bytes / u64::from(info.block_size))
            .filter(|blocks| *blocks >= info.num_blocks);
        let Some(blocks) = blocks else {
            let present = info.len_bytes() >> 20;
            let reason = format!(
                "new_size {new_size} MiB is less than the present {present} MiB: it can only grow"
            );
            return Err(RpcError::errno(Errno::EINVAL, reason));
        };
        disk.bdev.resize(blocks).map_err(refused)?;
        Ok(info.name)
    });
    match outcome {
        Ok(name) => resized(control, &name, responder),
        Err(error) => responder.err(error),
    }
}

fn rescan(control: &mut Control, params: Params, responder: Responder, kind: Kind) {
    let found = params.decode(BDEV).and_then(|Name { name }| {
        let disk = control.disks.find_kind(&name, kind)?;
        Ok((disk.bdev.info(), Arc::clone(&disk.bdev)))
    });
    let (before, bdev) = match found {
        Ok(found) => found,
        Err(error) => return responder.err(error),
    };
    control.help(
        move || bdev.rescan(),
        move |control, result| match result {
            Some(Ok(blocks)) if blocks == before.num_blocks => responder.ok(true),
            Some(Ok(_)) => resized(control, &before.name, responder),
            Some(Err(error)) => responder.err(refused(error)),
            None => responder.err(RpcError::internal(
                "the look at the file has failed inside vtarget",
            )),
        },
    );
}
