//! Namespaces: disks shown to guests under a number.

use std::collections::BTreeSet;
use std::sync::Arc;

use nix::errno::Errno;
use rpc::{Params, RegistryError, Responder, RpcError, When};
use serde::Deserialize;
use uuid::Uuid;

use super::Table;
use super::params::{NVMF, check_target, uuid};
use crate::control::{Control, reply_done, still_draining};
use crate::disks::Claim;
use crate::nvmf::{NamespaceEntry, hex};

pub(super) fn register(table: &mut Table) -> Result<(), RegistryError> {
    table
        .deferred("nvmf_subsystem_add_ns", When::Runtime, add)?
        .deferred("nvmf_subsystem_remove_ns", When::Runtime, remove)?;
    Ok(())
}

/// Unknown members beside the namespace are taken, as SPDK does here; inside it they are not.
#[derive(Deserialize)]
struct Add {
    nqn: String,
    tgt_name: Option<String>,
    namespace: Namespace,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Namespace {
    bdev_name: String,
    nsid: Option<u32>,
    nguid: Option<String>,
    eui64: Option<String>,
    #[serde(default, deserialize_with = "uuid")]
    uuid: Option<Uuid>,
    ptpl_file: Option<String>,
    anagrpid: Option<u32>,
    #[serde(default)]
    no_auto_visible: bool,
    #[serde(default)]
    #[expect(dead_code, reason = "there is no metadata to hide")]
    hide_metadata: bool,
}

fn add(control: &mut Control, params: Params, responder: Responder) {
    let wanted = match params.decode::<Add>(NVMF) {
        Ok(wanted) => wanted,
        Err(error) => return responder.err(error),
    };
    let nqn = wanted.nqn.clone();
    let nsid = match enter(control, wanted) {
        Ok(nsid) => nsid,
        Err(error) => return responder.err(error),
    };
    let late = RpcError::errno(
        Errno::ETIMEDOUT,
        format!("namespace {nsid} exists, but a controller has not shown it yet"),
    );
    control.publish_namespaces(&nqn, responder, late, move |_, responder| {
        if let Some(responder) = responder {
            responder.ok(nsid);
        }
    });
}

/// Enters a namespace and claims its disk; gives its number.
fn enter(control: &mut Control, wanted: Add) -> Result<u32, RpcError> {
    check_target(wanted.tgt_name.as_deref())?;
    let Add { nqn, namespace, .. } = wanted;
    control.nvmf.find_mut(&nqn)?;
    let missing =
        |_| RpcError::invalid_params(format!("there is no bdev `{}`", namespace.bdev_name));
    let disk = control.disks.find(&namespace.bdev_name).map_err(missing)?;
    if let Some(holder) = control.holder_of(disk) {
        return Err(RpcError::invalid_params(format!(
            "bdev `{}` is {holder} already: a namespace needs one for itself",
            namespace.bdev_name
        )));
    }
    let subsystem = control.nvmf.find_mut(&nqn)?;
    let disk = control
        .disks
        .find_mut(&namespace.bdev_name)
        .map_err(missing)?;
    let most = subsystem.options.max_namespaces;
    let nsid = match namespace.nsid {
        None | Some(0) => (1..=most)
            .find(|nsid| !subsystem.namespaces.contains_key(nsid))
            .ok_or_else(|| {
                RpcError::invalid_params(format!("all {most} namespace IDs are in use"))
            })?,
        Some(nsid) if nsid > most => {
            return Err(RpcError::invalid_params(format!(
                "nsid {nsid} is higher than the subsystem's max_namespaces {most}"
            )));
        }
        Some(nsid) if subsystem.namespaces.contains_key(&nsid) => {
            return Err(RpcError::invalid_params(format!("nsid {nsid} is in use")));
        }
        Some(nsid) => nsid,
    };
    if namespace
        .anagrpid
        .is_some_and(|group| group == 0 || group > most)
    {
        return Err(RpcError::invalid_params(format!(
            "anagrpid is not from 1 to {most}"
        )));
    }
    let info = disk.bdev.info();
    let uuid = namespace.uuid.unwrap_or(info.uuid);
    let nguid = match &namespace.nguid {
        // As SPDK: the disk's identity serves both.
        None => Some(*uuid.as_bytes()),
        Some(text) => Some(identifier::<16>("nguid", text)?),
    };
    let eui64 = match &namespace.eui64 {
        None => None,
        Some(text) => Some(identifier::<8>("eui64", text)?),
    };
    disk.claim = Some(Claim::Namespace { nqn, nsid });
    let entry = NamespaceEntry {
        bdev: Arc::clone(&disk.bdev),
        bdev_name: info.name,
        uuid,
        nguid,
        eui64,
        anagrpid: namespace.anagrpid,
        ptpl_file: namespace.ptpl_file,
        no_auto_visible: namespace.no_auto_visible,
        hosts: BTreeSet::new(),
    };
    subsystem.namespaces.insert(nsid, entry);
    Ok(nsid)
}

fn identifier<const N: usize>(what: &str, text: &str) -> Result<[u8; N], RpcError> {
    let bytes = hex::parse::<N>(text).ok_or_else(|| {
        RpcError::invalid_params(format!(
            "{what} `{text}` is not {} hexadecimal digits",
            N * 2
        ))
    })?;
    if bytes.iter().all(|byte| *byte == 0) {
        return Err(RpcError::invalid_params(format!("{what} must not be zero")));
    }
    Ok(bytes)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Remove {
    nqn: String,
    tgt_name: Option<String>,
    nsid: u32,
}

fn remove(control: &mut Control, params: Params, responder: Responder) {
    let removed = params.decode(NVMF).and_then(|wanted: Remove| {
        check_target(wanted.tgt_name.as_deref())?;
        let subsystem = control.nvmf.find_mut(&wanted.nqn)?;
        let entry = subsystem.namespaces.remove(&wanted.nsid).ok_or_else(|| {
            RpcError::invalid_params(format!("{} has no namespace {}", wanted.nqn, wanted.nsid))
        })?;
        Ok((wanted.nqn, wanted.nsid, Arc::downgrade(&entry.bdev)))
    });
    let (nqn, nsid, bdev) = match removed {
        Ok(removed) => removed,
        Err(error) => return responder.err(error),
    };
    let late = still_draining(&format!("namespace {nsid}"));
    let claim = Claim::Namespace {
        nqn: nqn.clone(),
        nsid,
    };
    control.publish_namespaces(&nqn, responder, late, move |control, responder| {
        control.disks.release_claim(&bdev, &claim);
        reply_done(control, responder);
    });
}
