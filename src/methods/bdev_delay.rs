//! bdev_delay_*: disks that take their time.

use bdev::delay::{Latencies, Latency};
use rpc::{Params, RegistryError, Responder, RpcError, When, code};
use serde::Deserialize;
use serde_json::Value;
use uuid::Uuid;

use super::Table;
use super::bdev_delete::delete_layer;
use super::params::{BDEV, uuid};
use crate::control::{Control, done};
use crate::disks::{Kind, Knob, Recipe};

pub(super) fn register(table: &mut Table) -> Result<(), RegistryError> {
    table
        .method("bdev_delay_create", When::Runtime, create)?
        .deferred("bdev_delay_delete", When::Runtime, delete)?
        .method("bdev_delay_update_latency", When::Runtime, update)?;
    Ok(())
}

/// Latencies in microseconds.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Create {
    name: String,
    base_bdev_name: String,
    avg_read_latency: u64,
    p99_read_latency: u64,
    avg_write_latency: u64,
    p99_write_latency: u64,
    #[serde(default, deserialize_with = "uuid")]
    uuid: Option<Uuid>,
}

fn create(control: &mut Control, params: Params) -> Result<Value, RpcError> {
    let wanted: Create = params.decode(BDEV)?;
    let answer = wanted.name.clone().into();
    let recipe = Recipe::Delay {
        name: wanted.name,
        uuid: wanted.uuid,
        latencies: Latencies {
            avg_read: wanted.avg_read_latency,
            p99_read: wanted.p99_read_latency,
            avg_write: wanted.avg_write_latency,
            p99_write: wanted.p99_write_latency,
        },
    };
    control.add_layer(&wanted.base_bdev_name, recipe)?;
    Ok(answer)
}

fn delete(control: &mut Control, params: Params, responder: Responder) {
    delete_layer(control, params, responder, Kind::Delay);
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum LatencyType {
    AvgRead,
    P99Read,
    AvgWrite,
    P99Write,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Update {
    delay_bdev_name: String,
    latency_type: LatencyType,
    latency_us: u64,
}

fn update(control: &mut Control, params: Params) -> Result<Value, RpcError> {
    let wanted: Update = params.decode(BDEV)?;
    let found = control
        .disks
        .find_kind(&wanted.delay_bdev_name, Kind::Delay);
    let disk = found.map_err(|error| {
        let text = format!("The requested bdev does not exist.: {}", error.message);
        RpcError::new(code::INVALID_PARAMS, text)
    })?;
    let which = match wanted.latency_type {
        LatencyType::AvgRead => Latency::AvgRead,
        LatencyType::P99Read => Latency::P99Read,
        LatencyType::AvgWrite => Latency::AvgWrite,
        LatencyType::P99Write => Latency::P99Write,
    };
    if let Knob::Delay(delay) = &disk.knob {
        delay.set_latency(which, wanted.latency_us);
        let (layer, latencies) = (disk.layer, delay.latencies());
        if let Some(id) = layer {
            control.disks.set_latencies(id, latencies);
        }
    }
    done()
}
