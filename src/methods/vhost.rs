//! vhost_* and virtio_blk_*: virtio-blk devices over vhost-user.
//!
//! Beyond SPDK's methods: `vhost_delete_controller` never waits for a VM that stays, and `vhost_blk_controller_set_bdev`
//! puts another disk under a controller.

use std::time::{Duration, Instant};

use nix::errno::Errno;
use reactor::Ack;
use rpc::{DecodeStyle, Params, RegistryError, Responder, RpcError, When};
use serde::Deserialize;
use serde_json::{Value, json};
use virtio::{Coalescing, MAX_QUEUES};

use super::Table;
use super::blk::{self, nullable};
use super::params::{NVMF, VHOST};
use crate::control::{Control, done, reply_done};
use crate::nvmf::DRAIN_TIMEOUT;
use crate::virtio_blk::{
    BlkEndpoint, EndpointId, NewEndpoint, Settings, Transport, VHOST_TRANSPORT, refused,
};

pub(super) fn register(table: &mut Table) -> Result<(), RegistryError> {
    table
        .method("vhost_create_blk_controller", When::Runtime, create)?
        .deferred("vhost_get_controllers", When::Runtime, get_controllers)?
        .deferred("vhost_delete_controller", When::Runtime, delete)?
        .method(
            "vhost_controller_set_coalescing",
            When::Runtime,
            set_coalescing,
        )?
        .deferred("vhost_blk_controller_set_bdev", When::Runtime, set_bdev)?
        .method(
            "virtio_blk_create_transport",
            When::Runtime,
            create_transport,
        )?
        .method("virtio_blk_get_transports", When::Runtime, get_transports)?;
    Ok(())
}

/// Unknown members are taken, as SPDK does here.
#[derive(Deserialize)]
struct Create {
    ctrlr: String,
    /// `null` (a controller without a disk, which a configuration may hold) goes beyond SPDK.
    #[serde(deserialize_with = "nullable")]
    dev_name: Option<String>,
    cpumask: Option<String>,
    #[serde(default)]
    readonly: bool,
    #[serde(default)]
    packed_ring: bool,
    transport: Option<String>,
}

fn create(control: &mut Control, params: Params) -> Result<Value, RpcError> {
    let wanted: Create = params.decode(VHOST)?;
    if let Some(transport) = &wanted.transport
        && !transport.eq_ignore_ascii_case(VHOST_TRANSPORT)
    {
        let reason = format!("there is no transport `{transport}`, only {VHOST_TRANSPORT}");
        return Err(refused(Errno::EINVAL, reason));
    }
    control.add_blk_endpoint(NewEndpoint {
        transport: Transport::VhostUser,
        settings: Settings {
            name: wanted.ctrlr,
            cpumask: blk::cpumask(wanted.cpumask.as_deref())?,
            // The VMM decides how many there are.
            num_queues: MAX_QUEUES,
            queue_size: blk::MAX_QSIZE,
            packed_ring: wanted.packed_ring,
            readonly: wanted.readonly,
        },
        bdev_name: wanted.dev_name,
    })?;
    done()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct GetControllers {
    name: Option<String>,
}

fn get_controllers(control: &mut Control, params: Params, responder: Responder) {
    const STYLE: DecodeStyle = DecodeStyle {
        code: rpc::code::INTERNAL,
        text: "Invalid argument",
    };
    let GetControllers { name } = match params.decode(STYLE) {
        Ok(wanted) => wanted,
        Err(error) => return responder.err(error),
    };
    let controllers = control.blk.iter(Transport::VhostUser);
    let found: Vec<_> = controllers
        .filter(|it| name.as_ref().is_none_or(|name| *name == it.settings.name))
        .collect();
    if let Some(name) = name
        && found.is_empty()
    {
        let reason = format!("there is no vhost controller `{name}`");
        // The one method of the family that has another code in SPDK.
        return responder.err(RpcError {
            code: rpc::code::INTERNAL,
            ..RpcError::errno(Errno::ENODEV, reason)
        });
    }
    let members = found.iter().map(|it| (describe(it), it.client()));
    let asked = blk::ask(members, |members, client| {
        let Some((client, snapshot)) = client else {
            return;
        };
        let queues = &snapshot.queues;
        let max_queues = queues.iter().map(|queue| u32::from(queue.index) + 1).max();
        let in_flight: u32 = queues.iter().map(|queue| u32::from(queue.in_flight)).sum();
        let ctrlr = members["ctrlr"].as_str().unwrap_or_default();
        members["sessions"] = json!([{
            "vid": client.vid, "id": client.session, "name": format!("{ctrlr}s{}", client.vid),
            "started": !queues.is_empty(), "max_queues": max_queues.unwrap_or(0),
            "inflight_task_cnt": in_flight,
        }]);
    });
    blk::answer(control, responder, asked);
}

fn describe(endpoint: &BlkEndpoint) -> Value {
    let settings = &endpoint.settings;
    let block = json!({
        "readonly": settings.readonly, "bdev": endpoint.disk().map(|disk| &disk.name),
        "transport": VHOST_TRANSPORT,
    });
    json!({
        "ctrlr": settings.name, "cpumask": format!("0x{}", endpoint.cpumask()),
        "delay_base_us": endpoint.coalescing.delay_us,
        "iops_threshold": endpoint.coalescing.iops_threshold, "socket": endpoint.path(),
        "sessions": [], "backend_specific": {"block": block},
    })
}

/// How long a connected VM may take to leave by itself unless told otherwise, in milliseconds. With the end of its I/O this
/// stays below the patience of `rpc.py` (60 s).
const DEFAULT_GRACE: u64 = 5000;
/// Most; longer waits belong to the caller.
const MAX_GRACE: u64 = 3_600_000;
/// How often to look whether it has left.
const LOOK: Duration = Duration::from_millis(20);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Delete {
    ctrlr: String,
    /// Beyond SPDK, where the call waits until the VM leaves.
    grace_ms: Option<u64>,
}

fn delete(control: &mut Control, params: Params, responder: Responder) {
    let found = params.decode(VHOST).and_then(|wanted: Delete| {
        let grace = wanted.grace_ms.unwrap_or(DEFAULT_GRACE);
        if grace > MAX_GRACE {
            let reason = format!("grace_ms {grace} is not from 0 to {MAX_GRACE}");
            return Err(refused(Errno::EINVAL, reason));
        }
        let endpoint = control.blk.find_mut(Transport::VhostUser, &wanted.ctrlr)?;
        Ok((
            endpoint.delete(),
            wanted.ctrlr,
            Duration::from_millis(grace),
        ))
    });
    let (id, name, grace) = match found {
        Ok(found) => found,
        Err(error) => return responder.err(error),
    };
    let ack = control.wait(
        Some(responder),
        grace + DRAIN_TIMEOUT,
        blk::late(&name),
        move |control, responder| {
            control.blk.forget(id);
            reply_done(control, responder);
        },
    );
    let until = Instant::now() + grace;
    remove_when_left(control, id, name, until, ack);
}

/// Removes a controller when its VM has left, at the latest at `until`.
fn remove_when_left(control: &mut Control, id: EndpointId, name: String, until: Instant, ack: Ack) {
    let is_connected = control.blk.is_connected(id);
    if is_connected && Instant::now() < until {
        control.after(LOOK, move |control| {
            remove_when_left(control, id, name, until, ack);
        });
        return;
    }
    if is_connected {
        tracing::warn!(
            ctrlr = name,
            "a VM is disconnected: its controller is deleted"
        );
    }
    control.blk.remove(id, ack);
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SetCoalescing {
    ctrlr: String,
    delay_base_us: u32,
    iops_threshold: u32,
}

/// Longest delay: more is no coalescing but a hang to the guest.
const MAX_DELAY_US: u32 = 1_000_000;
/// Lowest threshold, as in SPDK: it counts in windows of 10 ms.
const MIN_IOPS: u32 = 100;

fn set_coalescing(control: &mut Control, params: Params) -> Result<Value, RpcError> {
    let wanted: SetCoalescing = params.decode(VHOST)?;
    let endpoint = control.blk.find_mut(Transport::VhostUser, &wanted.ctrlr)?;
    let (delay_us, iops_threshold) = (wanted.delay_base_us, wanted.iops_threshold);
    if delay_us > MAX_DELAY_US {
        let reason = format!("delay_base_us {delay_us} is not from 0 to {MAX_DELAY_US}");
        return Err(refused(Errno::EINVAL, reason));
    }
    if iops_threshold < MIN_IOPS {
        let reason = format!("iops_threshold {iops_threshold} is less than {MIN_IOPS}");
        return Err(refused(Errno::EINVAL, reason));
    }
    endpoint.set_coalescing(Coalescing {
        delay_us,
        iops_threshold,
    });
    done()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SetBdev {
    ctrlr: String,
    #[serde(deserialize_with = "nullable")]
    dev_name: Option<String>,
}

fn set_bdev(control: &mut Control, params: Params, responder: Responder) {
    match params.decode(VHOST) {
        Ok(SetBdev { ctrlr, dev_name }) => {
            control.set_blk_disk(Transport::VhostUser, &ctrlr, dev_name.as_deref(), responder);
        }
        Err(error) => responder.err(error),
    }
}

/// Unknown members are taken, as SPDK does here: they are a transport's own.
#[derive(Deserialize)]
struct CreateTransport {
    name: String,
}

/// The only one is built in.
fn create_transport(_: &mut Control, params: Params) -> Result<Value, RpcError> {
    let CreateTransport { name } = params.decode(VHOST_RAW)?;
    if name.eq_ignore_ascii_case(VHOST_TRANSPORT) {
        let reason = format!("the transport {VHOST_TRANSPORT} is always there");
        return Err(RpcError::errno(Errno::EEXIST, reason));
    }
    let reason = format!("there is no transport `{name}`, only {VHOST_TRANSPORT}");
    Err(RpcError::errno(Errno::ENOENT, reason))
}

/// Raw errno, as SPDK answers `virtio_blk_create_transport`.
const VHOST_RAW: DecodeStyle = DecodeStyle {
    code: -(Errno::EINVAL as i64),
    text: "Invalid argument",
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct GetTransports {
    name: Option<String>,
}

fn get_transports(_: &mut Control, params: Params) -> Result<Value, RpcError> {
    let GetTransports { name } = params.decode(NVMF)?;
    if let Some(name) = name
        && !name.eq_ignore_ascii_case(VHOST_TRANSPORT)
    {
        let reason = format!("there is no transport `{name}`, only {VHOST_TRANSPORT}");
        return Err(RpcError::errno(Errno::ENODEV, reason));
    }
    Ok(json!([{ "name": VHOST_TRANSPORT }]))
}
