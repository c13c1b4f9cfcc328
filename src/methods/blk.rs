//! What `vfu_*` and `vhost_*` have in common.

use std::time::Duration;

use nix::errno::Errno;
use rpc::{Responder, RpcError};
use serde::Deserialize;
use serde::de::Deserializer;
use serde_json::Value;
use virtio::{BlkHandle, BlkSnapshot};

use crate::control::Control;
use crate::cpumask::CpuMask;
use crate::virtio_blk::{Client, refused};

/// Fewest entries of a queue: a request has a header, data and a status, each at least one descriptor, unless the driver uses
/// indirect ones, which firmware does not (VIRTIO 1.3, section 5.2.6).
const MIN_QSIZE: u16 = 4;
/// Most (VIRTIO 1.3, sections 2.7 and 2.8).
pub(super) const MAX_QSIZE: u16 = 32768;

/// Refuses a queue size that a split ring cannot have, because the driver chooses the ring's format.
pub(super) fn check_queue_size(size: u16) -> Result<(), RpcError> {
    if size.is_power_of_two() && (MIN_QSIZE..=MAX_QSIZE).contains(&size) {
        return Ok(());
    }
    let reason = format!("qsize {size} is no power of two from {MIN_QSIZE} to {MAX_QSIZE}");
    Err(refused(Errno::EINVAL, reason))
}

/// A mask of processors, if one is given.
pub(super) fn cpumask(text: Option<&str>) -> Result<Option<CpuMask>, RpcError> {
    let mask = text.map(CpuMask::parse).transpose();
    mask.map_err(|reason| refused(Errno::EINVAL, format!("cpumask {reason}")))
}

/// A member that must be there but may be `null`.
pub(super) fn nullable<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<String>, D::Error> {
    Option::deserialize(deserializer)
}

/// The error of a deletion that has not ended in time.
pub(super) fn late(name: &str) -> RpcError {
    let reason = format!("the socket of `{name}` is closed, but its guest's I/O has not ended yet");
    refused(Errno::EBUSY, reason)
}

/// How long a device may take to describe itself. A helper waits for it, not the control thread.
const SNAPSHOT_TIMEOUT: Duration = Duration::from_secs(2);

/// What must be known of a client to describe it.
pub(super) struct Asked {
    handle: BlkHandle,
    pub(super) vid: u32,
    pub(super) session: u32,
}

/// Endpoints' members, to be completed with what their clients' devices say.
pub(super) struct Ask {
    endpoints: Vec<(Value, Option<Asked>)>,
    complete: fn(&mut Value, Option<(&Asked, &BlkSnapshot)>),
}

/// Prepares an answer about endpoints: the members that are known, and the clients to ask.
pub(super) fn ask<'a>(
    endpoints: impl Iterator<Item = (Value, Option<&'a Client>)>,
    complete: fn(&mut Value, Option<(&Asked, &BlkSnapshot)>),
) -> Ask {
    let endpoints = endpoints.map(|(members, client)| {
        let asked = client.map(|client| Asked {
            handle: client.handle.clone(),
            vid: client.vid,
            session: client.session,
        });
        (members, asked)
    });
    Ask {
        endpoints: endpoints.collect(),
        complete,
    }
}

/// Asks the clients' devices, which takes a moment, and answers.
pub(super) fn answer(control: &mut Control, responder: Responder, ask: Ask) {
    let job = move || {
        let endpoints = ask.endpoints.into_iter().map(|(mut members, client)| {
            // One that is gone meanwhile is not there.
            let snapshot = client
                .as_ref()
                .and_then(|client| client.handle.snapshot(SNAPSHOT_TIMEOUT).ok());
            (ask.complete)(&mut members, client.as_ref().zip(snapshot.as_ref()));
            members
        });
        endpoints.collect::<Vec<_>>()
    };
    control.help(job, move |_, answer| match answer {
        Some(answer) => responder.ok(answer),
        None => responder.err(RpcError::internal(
            "the look at the devices has failed inside vtarget",
        )),
    });
}
