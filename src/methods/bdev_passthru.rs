//! bdev_passthru_*: another name for a disk.

use rpc::{Params, RegistryError, Responder, RpcError, When};
use serde::Deserialize;
use serde_json::Value;
use uuid::Uuid;

use super::Table;
use super::bdev_delete::delete_layer;
use super::params::{BDEV, uuid};
use crate::control::Control;
use crate::disks::{Kind, Recipe};

pub(super) fn register(table: &mut Table) -> Result<(), RegistryError> {
    table
        .method("bdev_passthru_create", When::Runtime, create)?
        .deferred("bdev_passthru_delete", When::Runtime, delete)?;
    Ok(())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Create {
    name: String,
    base_bdev_name: String,
    #[serde(default, deserialize_with = "uuid")]
    uuid: Option<Uuid>,
}

fn create(control: &mut Control, params: Params) -> Result<Value, RpcError> {
    let Create {
        name,
        base_bdev_name,
        uuid,
    } = params.decode(BDEV)?;
    let answer = name.clone().into();
    control.add_layer(&base_bdev_name, Recipe::Passthru { name, uuid })?;
    Ok(answer)
}

fn delete(control: &mut Control, params: Params, responder: Responder) {
    delete_layer(control, params, responder, Kind::Passthru);
}
