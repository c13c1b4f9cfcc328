//! trace_*: masks of trace points, which are kept and shown. There are no trace points: perf and bpftrace see what SPDK's
//! would record.

use rpc::{RegistryError, RpcError, When};
use serde::Deserialize;
use serde_json::{Value, json};

use super::Table;
use super::params::NVMF;
use crate::control::{Control, done};

/// Those of SPDK's groups that scripts for such a target name, with their bits.
const GROUPS: [(&str, u64); 6] = [
    ("bdev", 0x8),
    ("nvmf_tcp", 0x20),
    ("thread", 0x400),
    ("bdev_nvme", 0x4000),
    ("sock", 0x8000),
    ("scheduler", 0x4_0000),
];

pub(super) fn register(table: &mut Table) -> Result<(), RegistryError> {
    table
        .method("trace_get_info", When::Always, |control, params| {
            params.expect_none()?;
            Ok(masks(control, |mask, points| {
                json!({"mask": format!("{mask:#x}"), "tpoint_mask": format!("{points:#x}")})
            }))
        })?
        .method(
            "trace_get_tpoint_group_mask",
            When::Always,
            |control, params| {
                params.expect_none()?;
                Ok(masks(control, |mask, points| {
                    json!({
                        "enabled": points != 0, "mask": format!("{mask:#x}"), "tpoint_mask": format!("{points:#x}"),
                        "tpoints": [],
                    })
                }))
            },
        )?
        .method(
            "trace_enable_tpoint_group",
            When::Always,
            |control, params| {
                let Group { name } = params.decode(NVMF)?;
                change(control, &name, |_| u64::MAX)
            },
        )?
        .method(
            "trace_disable_tpoint_group",
            When::Always,
            |control, params| {
                let Group { name } = params.decode(NVMF)?;
                change(control, &name, |_| 0)
            },
        )?
        .method("trace_set_tpoint_mask", When::Always, |control, params| {
            let Points { name, tpoint_mask } = params.decode(NVMF)?;
            change(control, &name, |points| points | tpoint_mask)
        })?
        .method(
            "trace_clear_tpoint_mask",
            When::Always,
            |control, params| {
                let Points { name, tpoint_mask } = params.decode(NVMF)?;
                change(control, &name, |points| points & !tpoint_mask)
            },
        )?
        .method("trace_clear", When::Runtime, |_, params| {
            params.expect_none()?;
            done()
        })?;
    Ok(())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Group {
    name: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Points {
    name: String,
    tpoint_mask: u64,
}

fn change(
    control: &mut Control,
    name: &str,
    change: impl Fn(u64) -> u64,
) -> Result<Value, RpcError> {
    let chosen: Vec<usize> = (0..GROUPS.len())
        .filter(|at| name == "all" || GROUPS[*at].0 == name)
        .collect();
    if chosen.is_empty() {
        let known = GROUPS.map(|(name, _)| name).join(", ");
        let reason = format!("there is no group `{name}`: {known}, all");
        return Err(RpcError::invalid_params(reason));
    }
    let kept = &mut control.options.trace;
    kept.resize(GROUPS.len(), 0);
    for at in chosen {
        kept[at] = change(kept[at]);
    }
    done()
}

fn masks(control: &Control, describe: impl Fn(u64, u64) -> Value) -> Value {
    let kept = |at: usize| control.options.trace.get(at).copied().unwrap_or(0);
    let on = GROUPS.iter().enumerate().filter(|(at, _)| kept(*at) != 0);
    let mask = on.fold(0, |mask, (_, (_, bit))| mask | bit);
    let mut members = json!({"tpoint_group_mask": format!("{mask:#x}")});
    for (at, (name, bit)) in GROUPS.iter().enumerate() {
        members[*name] = describe(*bit, kept(at));
    }
    members
}
