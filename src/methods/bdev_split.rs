//! bdev_split_*: a disk in parts of equal size.

use nix::errno::Errno;
use rpc::{Params, RegistryError, Responder, RpcError, When, code};
use serde::Deserialize;
use serde_json::Value;

use super::Table;
use super::params::NVMF;
use crate::control::Control;
use crate::disks::Recipe;

pub(super) fn register(table: &mut Table) -> Result<(), RegistryError> {
    table
        .method("bdev_split_create", When::Runtime, create)?
        .deferred("bdev_split_delete", When::Runtime, delete)?;
    Ok(())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Create {
    base_bdev: String,
    split_count: u32,
    /// MiB; 0 for equal shares of the whole.
    #[serde(default)]
    split_size_mb: u64,
    /// Blocks of each, instead: what no number of MiB says.
    num_blocks: Option<u64>,
}

fn create(control: &mut Control, params: Params) -> Result<Value, RpcError> {
    let wanted: Create = params.decode(NVMF)?;
    let (base, count) = (&wanted.base_bdev, wanted.split_count);
    let recipe = Recipe::Split {
        count,
        size_mb: wanted.split_size_mb,
        num_blocks: wanted.num_blocks,
    };
    let names = control.add_layer(base, recipe).map_err(|error| {
        let text = format!(
            "Failed to create {count} split bdevs from '{base}': {}",
            error.message
        );
        RpcError::new(code::INVALID_PARAMS, text)
    })?;
    Ok(names.into())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Delete {
    base_bdev: String,
}

fn delete(control: &mut Control, params: Params, responder: Responder) {
    let Delete { base_bdev } = match params.decode(NVMF) {
        Ok(wanted) => wanted,
        Err(error) => return responder.err(error),
    };
    match control.disks.split_of(&base_bdev) {
        None => {
            let reason = format!("`{base_bdev}` is not split");
            let code = code::INVALID_PARAMS;
            responder.err(RpcError {
                code,
                ..RpcError::errno(Errno::ENOENT, reason)
            });
        }
        Some((id, parts)) if parts.is_empty() => {
            control.disks.forget_layer(id);
            responder.ok(true);
        }
        Some((_, parts)) => control.remove_disks(&parts, responder),
    }
}
