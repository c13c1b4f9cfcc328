//! accel_*: who computes what. There are no accelerators: the processor does everything, which SPDK calls `software`.

use std::collections::BTreeMap;

use nix::errno::Errno;
use rpc::{DecodeStyle, Params, RegistryError, RpcError, When};
use serde::Deserialize;
use serde_json::{Value, json};

use super::Table;
use super::params::NVMF;
use crate::control::{Control, done};

/// SPDK's operations.
const OPERATIONS: [&str; 17] = [
    "copy",
    "fill",
    "dualcast",
    "compare",
    "crc32c",
    "copy_crc32c",
    "compress",
    "decompress",
    "encrypt",
    "decrypt",
    "xor",
    "dif_verify",
    "dif_verify_copy",
    "dif_generate",
    "dif_generate_copy",
    "dix_generate",
    "dix_verify",
];
/// The only module.
const MODULE: &str = "software";

pub(super) fn register(table: &mut Table) -> Result<(), RegistryError> {
    table
        .method("accel_get_module_info", When::Runtime, |_, params| {
            params.expect_none()?;
            Ok(json!([{"module": MODULE, "supported ops": OPERATIONS}]))
        })?
        .method("accel_get_opc_assignments", When::Runtime, |_, params| {
            params.expect_none()?;
            let all: BTreeMap<_, _> = OPERATIONS.iter().map(|it| (it, MODULE)).collect();
            Ok(json!(all))
        })?
        .method("accel_assign_opc", When::Startup, assign_opc)?
        .method("accel_set_driver", When::Startup, set_driver)?
        .method("accel_get_stats", When::Runtime, |_, _| {
            Ok(json!({
                "sequence_executed": 0, "sequence_failed": 0, "sequence_outstanding": 0, "task_outstanding": 0,
                "operations": [], "retry_task": 0, "retry_sequence": 0, "retry_iobuf": 0, "retry_bufdesc": 0,
            }))
        })?;
    Ok(())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AssignOpc {
    opname: String,
    module: String,
}

/// SPDK takes any module here and then does not start.
fn assign_opc(control: &mut Control, params: Params) -> Result<Value, RpcError> {
    let AssignOpc { opname, module } = params.decode(NVMF)?;
    if !OPERATIONS.contains(&opname.as_str()) {
        let reason = format!(
            "there is no operation `{opname}`: {}",
            OPERATIONS.join(", ")
        );
        return Err(RpcError::invalid_params(reason));
    }
    if module != MODULE {
        let reason = format!("there is no module `{module}`, only {MODULE}");
        return Err(RpcError::invalid_params(reason));
    }
    let assigned = &mut control.options.accel_operations;
    if !assigned.contains(&opname) {
        assigned.push(opname);
    }
    done()
}

impl crate::options::Options {
    /// Parameters of the calls that assign operations again.
    pub(crate) fn accel_assignments(&self) -> impl Iterator<Item = Value> {
        let assigned = self.accel_operations.iter();
        assigned.map(|opname| json!({"opname": opname, "module": MODULE}))
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SetDriver {
    /// None is chosen without it.
    name: Option<String>,
}

fn set_driver(_: &mut Control, params: Params) -> Result<Value, RpcError> {
    let SetDriver { name: Some(name) } = params.decode(DecodeStyle::PARSE_ERROR)? else {
        return done();
    };
    let reason = format!("there is no driver `{name}` for chains of operations");
    Err(RpcError::errno(Errno::ENODEV, reason))
}
