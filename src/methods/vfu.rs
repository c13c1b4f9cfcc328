//! vfu_*: virtio-blk devices over vfio-user.
//!
//! Beyond SPDK's methods: `vfu_get_endpoints` lists what there is, `vfu_virtio_blk_set_bdev` puts another disk under an
//! endpoint, and what is out of range is refused, not replaced by a default.

use std::path::Path;

use nix::errno::Errno;
use rpc::{Params, RegistryError, Responder, RpcError, When};
use serde::Deserialize;
use serde_json::{Value, json};
use virtio::{BlkSnapshot, MAX_QUEUES};

use super::Table;
use super::blk::{self, nullable};
use super::params::{Name, VHOST};
use crate::control::{Control, done, reply_done};
use crate::nvmf::DRAIN_TIMEOUT;
use crate::virtio_blk::{BasePath, BlkEndpoint, NewEndpoint, Settings, Transport, refused};

pub(super) fn register(table: &mut Table) -> Result<(), RegistryError> {
    table
        .method("vfu_tgt_set_base_path", When::Runtime, set_base_path)?
        .method("vfu_virtio_create_blk_endpoint", When::Runtime, create)?
        .deferred("vfu_virtio_delete_endpoint", When::Runtime, delete)?
        .deferred("vfu_virtio_blk_set_bdev", When::Runtime, set_bdev)?
        .deferred("vfu_get_endpoints", When::Runtime, get_endpoints)?;
    Ok(())
}

/// Queues unless told otherwise, as in SPDK. A driver uses no more than it has processors.
const DEFAULT_QUEUES: u16 = 64;
/// Entries of a queue unless told otherwise, as in SPDK.
const DEFAULT_QSIZE: u16 = 128;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SetBasePath {
    path: String,
}

/// For endpoints made from now on. An empty path changes nothing, as in SPDK.
fn set_base_path(control: &mut Control, params: Params) -> Result<Value, RpcError> {
    let SetBasePath { path } = params.decode(VHOST)?;
    if !path.is_empty() {
        control.blk.vfu_base = BasePath::new(Some(Path::new(&path)))
            .map_err(|error| refused(Errno::EINVAL, format!("{path}: {error}")))?;
    }
    done()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Create {
    name: String,
    /// `null` (an endpoint without a disk, which a configuration may hold) goes beyond SPDK.
    #[serde(deserialize_with = "nullable")]
    bdev_name: Option<String>,
    cpumask: Option<String>,
    num_queues: Option<u16>,
    qsize: Option<u16>,
    #[serde(default)]
    packed_ring: bool,
    /// Beyond SPDK.
    #[serde(default)]
    readonly: bool,
}

fn create(control: &mut Control, params: Params) -> Result<Value, RpcError> {
    let wanted: Create = params.decode(VHOST)?;
    let num_queues = wanted.num_queues.unwrap_or(DEFAULT_QUEUES);
    let queue_size = wanted.qsize.unwrap_or(DEFAULT_QSIZE);
    if !(1..=MAX_QUEUES).contains(&num_queues) {
        let reason = format!("num_queues {num_queues} is not from 1 to {MAX_QUEUES}");
        return Err(refused(Errno::EINVAL, reason));
    }
    blk::check_queue_size(queue_size)?;
    control.add_blk_endpoint(NewEndpoint {
        transport: Transport::VfioUser,
        settings: Settings {
            name: wanted.name,
            cpumask: blk::cpumask(wanted.cpumask.as_deref())?,
            num_queues,
            queue_size,
            packed_ring: wanted.packed_ring,
            readonly: wanted.readonly,
        },
        bdev_name: wanted.bdev_name,
    })?;
    done()
}

/// The guest is disconnected at once; answered when its I/O has ended.
fn delete(control: &mut Control, params: Params, responder: Responder) {
    let found = params.decode(VHOST).and_then(|Name { name }| {
        let endpoint = control.blk.find_mut(Transport::VfioUser, &name)?;
        Ok((endpoint.delete(), name))
    });
    let (id, name) = match found {
        Ok(found) => found,
        Err(error) => return responder.err(error),
    };
    let ack = control.wait(
        Some(responder),
        DRAIN_TIMEOUT,
        blk::late(&name),
        move |control, responder| {
            control.blk.forget(id);
            reply_done(control, responder);
        },
    );
    control.blk.remove(id, ack);
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SetBdev {
    name: String,
    #[serde(deserialize_with = "nullable")]
    bdev_name: Option<String>,
}

fn set_bdev(control: &mut Control, params: Params, responder: Responder) {
    match params.decode(VHOST) {
        Ok(SetBdev { name, bdev_name }) => {
            control.set_blk_disk(Transport::VfioUser, &name, bdev_name.as_deref(), responder);
        }
        Err(error) => responder.err(error),
    }
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct GetEndpoints {
    name: Option<String>,
}

fn get_endpoints(control: &mut Control, params: Params, responder: Responder) {
    let GetEndpoints { name } = match params.decode(VHOST) {
        Ok(wanted) => wanted,
        Err(error) => return responder.err(error),
    };
    let endpoints = control.blk.iter(Transport::VfioUser);
    let found: Vec<_> = endpoints
        .filter(|it| name.as_ref().is_none_or(|name| *name == it.settings.name))
        .collect();
    if let Some(name) = name
        && found.is_empty()
    {
        let reason = format!("there is no vfio-user endpoint `{name}`");
        return responder.err(refused(Errno::ENOENT, reason));
    }
    let members = found.iter().map(|it| (describe(it), it.client()));
    let asked = blk::ask(members, |members, client| {
        let snapshot = client.map(|(_, snapshot)| snapshot);
        members["connected"] = snapshot.is_some().into();
        members["features"] =
            snapshot.map_or(Value::Null, |it| format!("{:#x}", it.features).into());
        members["queues"] = snapshot.map_or_else(|| json!([]), queues);
    });
    blk::answer(control, responder, asked);
}

fn describe(endpoint: &BlkEndpoint) -> Value {
    let settings = &endpoint.settings;
    json!({
        "name": settings.name, "type": "virtio_blk", "socket": endpoint.path(),
        "bdev_name": endpoint.disk().map(|disk| &disk.name),
        "cpumask": format!("0x{}", endpoint.cpumask()), "num_queues": settings.num_queues,
        "qsize": settings.queue_size, "packed_ring": settings.packed_ring, "readonly": settings.readonly,
    })
}

fn queues(snapshot: &BlkSnapshot) -> Value {
    let queues = snapshot.queues.iter().map(|queue| {
        json!({
            "index": queue.index, "size": queue.size, "packed": queue.packed, "lcore": queue.lcore,
            "in_flight": queue.in_flight,
        })
    });
    queues.collect()
}
