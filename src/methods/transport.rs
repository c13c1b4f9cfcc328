//! nvmf_create_transport and nvmf_get_transports.

use rpc::{Params, RegistryError, RpcError, When};
use serde::Deserialize;
use serde_json::{Value, json};

use super::Table;
use super::params::{NVMF, check_target, check_trtype};
use crate::control::{Control, done, internal};
use crate::nvmf::{TRANSPORT, Transport};

pub(super) fn register(table: &mut Table) -> Result<(), RegistryError> {
    table
        .method("nvmf_create_transport", When::Runtime, create)?
        .method("nvmf_get_transports", When::Runtime, get)?;
    Ok(())
}

/// Deepest queue that SPDK's u16 can say; CAP.MQES could one entry more.
const MAX_DEPTH: u32 = 65535;
/// I/O queue pairs: what 512 MSI-X vectors allow beside the admin queue's.
const MAX_QPAIRS: u16 = 511;
/// Smallest transfer that must work: a page.
const MIN_IO: u32 = 4096;
/// Largest: what a namespace's channels take in one request.
const MAX_IO: u32 = 2 << 20;

const MASKABLE_ONCS: &[&str] = &[
    "all", "nvmcmps", "nvmdsmsv", "nvmwzsv", "reservs", "nvmcpys",
];
const MASKABLE_FUSES: &[&str] = &["all", "fcws"];

#[derive(Deserialize)]
struct Create {
    trtype: String,
    tgt_name: Option<String>,
    #[expect(
        dead_code,
        reason = "only their types are checked: there are no buffers to size"
    )]
    #[serde(flatten)]
    buffers: Buffers,
    #[serde(flatten)]
    options: serde_json::Map<String, Value>,
}

/// What SPDK has deprecated.
#[derive(Deserialize)]
#[expect(dead_code, reason = "there are no buffers to size")]
struct Buffers {
    io_unit_size: Option<u32>,
    num_shared_buffers: Option<u32>,
    buf_cache_size: Option<u32>,
}

fn create(control: &mut Control, params: Params) -> Result<Value, RpcError> {
    let wanted: Create = params.decode(NVMF)?;
    check_target(wanted.tgt_name.as_deref())?;
    check_trtype(&wanted.trtype)?;
    let transport: Transport = Params::from(Value::Object(wanted.options)).decode(NVMF)?;
    check(&transport).map_err(|reason| internal("Failed to create transport", reason))?;
    if control.nvmf.transport.is_some() && !control.nvmf.transport_is_default {
        let text = format!("Transport type '{}' already exists", wanted.trtype);
        return Err(RpcError::new(rpc::code::INTERNAL, text));
    }
    control.nvmf.transport = Some(transport);
    control.nvmf.transport_is_default = false;
    done()
}

fn check(transport: &Transport) -> Result<(), String> {
    let depth = transport.max_queue_depth;
    if !(2..=MAX_DEPTH).contains(&depth) {
        return Err(format!(
            "max_queue_depth {depth} is not from 2 to {MAX_DEPTH}"
        ));
    }
    let qpairs = transport.max_io_qpairs_per_ctrlr;
    if !(1..=MAX_QPAIRS).contains(&qpairs) {
        return Err(format!(
            "max_io_qpairs_per_ctrlr {qpairs} is not from 1 to {MAX_QPAIRS}"
        ));
    }
    let size = transport.max_io_size;
    if !size.is_power_of_two() || !(MIN_IO..=MAX_IO).contains(&size) {
        return Err(format!(
            "max_io_size {size} is no power of two from {MIN_IO} to {MAX_IO}"
        ));
    }
    for (what, given, known) in [
        ("masked_oncs", &transport.masked_oncs, MASKABLE_ONCS),
        ("masked_fuses", &transport.masked_fuses, MASKABLE_FUSES),
    ] {
        if let Some(name) = given.iter().find(|name| !known.contains(&name.as_str())) {
            return Err(format!(
                "{what} knows no `{name}`, only {}",
                known.join(", ")
            ));
        }
    }
    Ok(())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Get {
    tgt_name: Option<String>,
    trtype: Option<String>,
}

fn get(control: &mut Control, params: Params) -> Result<Value, RpcError> {
    let wanted: Get = params.decode(NVMF)?;
    check_target(wanted.tgt_name.as_deref())?;
    let transport = control.nvmf.transport.as_ref();
    if let Some(trtype) = wanted.trtype {
        let is_there = transport.is_some() && trtype.eq_ignore_ascii_case(TRANSPORT);
        if !is_there {
            let reason = format!("there is no transport `{trtype}`");
            return Err(RpcError::errno(nix::errno::Errno::ENODEV, reason));
        }
    }
    Ok(json!(
        transport
            .map(Transport::to_value)
            .into_iter()
            .collect::<Vec<_>>()
    ))
}
