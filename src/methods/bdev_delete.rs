//! bdev_*_delete, _resize and _rescan: changes that guests see.

use std::collections::btree_map::Entry;
use std::sync::Arc;

use nix::errno::Errno;
use rpc::{Params, RegistryError, Responder, RpcError, When};
use serde::Deserialize;

use super::Table;
use super::bdev_create::refused;
use super::params::{BDEV, Name};
use crate::control::{Control, reply_done, still_draining};
use crate::disks::{Disk, Kind};

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

/// A disk goes: out of its namespace or its virtio-blk devices first, then, when no guest's I/O is left, for good.
fn delete(control: &mut Control, params: Params, responder: Responder, kind: Kind) {
    let taken = params.decode(BDEV).and_then(|Name { name }| {
        control.disks.find_kind(&name, kind)?;
        control.disks.take(&name)
    });
    let mut disk = match taken {
        Ok(disk) => disk,
        Err(error) => return responder.err(error),
    };
    let name = disk.name.clone();
    control.notifications.push("bdev_unregister", name.as_str());
    let late = still_draining(&format!("bdev {name}"));
    let Some(claim) = disk.claim.take() else {
        let bdev = Arc::clone(&disk.bdev);
        return control.withdraw_disk(&bdev, Some(responder), late, move |control, responder| {
            close(control, disk, responder);
        });
    };
    if let Ok(subsystem) = control.nvmf.find_mut(&claim.nqn)
        && let Entry::Occupied(entry) = subsystem.namespaces.entry(claim.nsid)
        && Arc::ptr_eq(&entry.get().bdev, &disk.bdev)
    {
        entry.remove();
    }
    tracing::info!(
        name,
        nqn = claim.nqn,
        nsid = claim.nsid,
        "a namespace goes with its bdev"
    );
    control.publish_namespaces(&claim.nqn, responder, late, move |control, responder| {
        close(control, disk, responder);
    });
}

/// Closes a disk. Giving much memory back, or closing a file, may take its time: a helper does it.
fn close(control: &mut Control, disk: Disk, responder: Option<Responder>) {
    let (name, uuid) = (disk.name.clone(), disk.uuid);
    control.help(
        move || drop(disk),
        move |control, _| {
            control.disks.release(&name);
            control.disks.release(&uuid.hyphenated().to_string());
            if let Some(responder) = responder {
                responder.ok(true);
            }
        },
    );
}

/// Tells guests and listeners of a disk's new size; then answers.
fn resized(control: &mut Control, name: &str, responder: Responder) {
    control.notifications.push("bdev_resize", name);
    let disk = control.disks.find(name).ok();
    if let Some(disk) = disk {
        control.blk.resized(&disk.bdev);
    }
    let Some(claim) = disk.and_then(|disk| disk.claim.clone()) else {
        return responder.ok(true);
    };
    let late = RpcError::errno(
        Errno::ETIMEDOUT,
        "a controller has not taken the new size over yet",
    );
    control.publish_namespaces(&claim.nqn, responder, late, reply_done);
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
