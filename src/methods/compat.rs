//! Methods that deployment scripts call and that have little or nothing to do here.
//!
//! They check and keep what they are told, show it and save it, and change nothing else: there are no buffer pools, no
//! sockets of a network, no accelerators and no scheduler to set up. What they cannot keep they refuse.

use nix::errno::Errno;
use rpc::{DecodeStyle, Params, RegistryError, RpcError, When};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::Table;
use super::params::{NVMF, optional};
use crate::control::{Control, done};
use crate::cpumask::{CpuMask, mask_of};
use crate::options::merge;

pub(super) fn register(table: &mut Table) -> Result<(), RegistryError> {
    table
        .method("iobuf_set_options", When::Startup, |control, params| {
            keep::<Iobuf>(params, NVMF, |control| &mut control.options.iobuf, control)
        })?
        .method("iobuf_get_stats", When::Runtime, iobuf_get_stats)?
        .method("accel_set_options", When::Startup, |control, params| {
            keep::<Accel>(
                params,
                DecodeStyle::PARSE_ERROR,
                |control| &mut control.options.accel,
                control,
            )
        })?
        .method(
            "sock_set_default_impl",
            When::Startup,
            sock_set_default_impl,
        )?
        .method("sock_get_default_impl", When::Always, sock_get_default_impl)?
        .method(
            "sock_impl_set_options",
            When::Startup,
            sock_impl_set_options,
        )?
        .method("sock_impl_get_options", When::Always, sock_impl_get_options)?
        .method("framework_set_scheduler", When::Always, set_scheduler)?
        .method("framework_get_scheduler", When::Always, get_scheduler)?
        .method(
            "scheduler_set_options",
            When::Startup,
            set_scheduler_options,
        )?
        .method("framework_get_governor", When::Runtime, |_, params| {
            params.expect_none()?;
            Ok(json!({}))
        })?
        .method(
            "framework_monitor_context_switch",
            When::Runtime,
            |_, params| {
                params.decode::<Enabled>(NVMF)?.refuse()?;
                Ok(json!({"enabled": false}))
            },
        )?
        .method("log_enable_timestamps", When::Runtime, log_timestamps)?
        .method("framework_get_pci_devices", When::Runtime, |_, params| {
            params.expect_none()?;
            Ok(json!([]))
        })?
        .method("framework_enable_cpumask_locks", When::Always, no_params)?
        .method("framework_disable_cpumask_locks", When::Always, no_params)?
        .method("nvmf_set_config", When::Startup, nvmf_set_config)?
        .method(
            "nvmf_set_max_subsystems",
            When::Startup,
            nvmf_set_max_subsystems,
        )?
        .method("nvmf_set_crdt", When::Startup, nvmf_set_crdt)?;
    Ok(())
}

fn no_params(_: &mut Control, params: Params) -> Result<Value, RpcError> {
    params.expect_none()?;
    done()
}

/// Decodes options, all of them optional, and keeps those that are given.
fn keep<T: for<'de> Deserialize<'de> + Serialize>(
    params: Params,
    style: DecodeStyle,
    kept: fn(&mut Control) -> &mut Value,
    control: &mut Control,
) -> Result<Value, RpcError> {
    let given: T = params.decode(style)?;
    let given = serde_json::to_value(given).map_err(RpcError::internal)?;
    merge(kept(control), &given);
    done()
}

optional!(Iobuf {
    small_pool_count: u64,
    large_pool_count: u64,
    small_bufsize: u32,
    large_bufsize: u32,
    enable_numa: bool,
});

optional!(Accel {
    small_cache_size: u32,
    large_cache_size: u32,
    task_count: u32,
    sequence_count: u32,
    buf_count: u32,
});

optional!(SockOptions {
    recv_buf_size: u32,
    send_buf_size: u32,
    enable_recv_pipe: bool,
    enable_quickack: bool,
    enable_placement_id: u32,
    enable_zerocopy_send_server: bool,
    enable_zerocopy_send_client: bool,
    zerocopy_threshold: u32,
    tls_version: u32,
    enable_ktls: bool,
    psk_key: String,
    psk_identity: String,
});

fn iobuf_get_stats(_: &mut Control, params: Params) -> Result<Value, RpcError> {
    params.expect_none()?;
    let pool = json!({"cache": 0, "main": 0, "retry": 0, "cache_size": 0});
    let modules = ["accel", "bdev", "nvmf"];
    let modules =
        modules.map(|module| json!({"module": module, "small_pool": pool, "large_pool": pool}));
    Ok(json!(modules))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Impl {
    impl_name: String,
}

fn check_impl(control: &Control, name: &str) -> Result<(), RpcError> {
    if control.options.sock.contains_key(name) {
        return Ok(());
    }
    let known: Vec<&str> = control.options.sock.keys().map(String::as_str).collect();
    let reason = format!("impl_name `{name}` is none of {}", known.join(", "));
    Err(RpcError::invalid_params(reason))
}

fn sock_set_default_impl(control: &mut Control, params: Params) -> Result<Value, RpcError> {
    let Impl { impl_name } = params.decode(NVMF)?;
    check_impl(control, &impl_name)?;
    control.options.sock_default = impl_name;
    done()
}

fn sock_get_default_impl(control: &mut Control, params: Params) -> Result<Value, RpcError> {
    params.expect_none()?;
    Ok(json!({"impl_name": control.options.sock_default}))
}

fn sock_impl_set_options(control: &mut Control, params: Params) -> Result<Value, RpcError> {
    let mut members = match params.value() {
        Some(Value::Object(members)) => members.clone(),
        _ => return Err(RpcError::invalid_params("impl_name is missing")),
    };
    let name = members.remove("impl_name");
    let Some(name) = name.as_ref().and_then(Value::as_str) else {
        return Err(RpcError::invalid_params(
            "impl_name is missing or no string",
        ));
    };
    check_impl(control, name)?;
    let options: SockOptions = Params::from(Value::Object(members)).decode(NVMF)?;
    let options = serde_json::to_value(options).map_err(RpcError::internal)?;
    if let Some(kept) = control.options.sock.get_mut(name) {
        merge(kept, &options);
    }
    done()
}

fn sock_impl_get_options(control: &mut Control, params: Params) -> Result<Value, RpcError> {
    let Impl { impl_name } = params.decode(NVMF)?;
    check_impl(control, &impl_name)?;
    Ok(control.options.sock[&impl_name].clone())
}

/// Unknown members are taken, as SPDK does here.
#[derive(Deserialize)]
struct SetScheduler {
    name: String,
    period: Option<u64>,
    load_limit: Option<u8>,
    core_limit: Option<u8>,
    core_busy: Option<u8>,
    #[expect(dead_code, reason = "there is nothing to map")]
    mappings: Option<String>,
}

/// Pollers stay where they were added; whichever scheduler is chosen has nothing to move.
fn set_scheduler(control: &mut Control, params: Params) -> Result<Value, RpcError> {
    let wanted: SetScheduler = params.decode(NVMF)?;
    let name = wanted.name.as_str();
    if !["static", "dynamic", "gscheduler"].contains(&name) {
        let reason = format!("there is no scheduler `{name}`: static, dynamic or gscheduler");
        return Err(RpcError::internal(reason));
    }
    if name == "static" && control.options.scheduler["name"] == "dynamic" {
        let reason = "the dynamic scheduler cannot be changed back to static";
        return Err(RpcError::errno(Errno::EPERM, reason));
    }
    let mut kept = json!({ "name": name });
    if name != "static" || wanted.period.is_some() {
        kept["period"] = wanted.period.unwrap_or(1_000_000).into();
    }
    if name == "dynamic" {
        kept["load_limit"] = wanted.load_limit.unwrap_or(20).into();
        kept["core_limit"] = wanted.core_limit.unwrap_or(80).into();
        kept["core_busy"] = wanted.core_busy.unwrap_or(95).into();
    }
    control.options.scheduler = kept;
    done()
}

fn get_scheduler(control: &mut Control, params: Params) -> Result<Value, RpcError> {
    params.expect_none()?;
    let mut kept = control.options.scheduler.clone();
    let mut members = json!({
        "scheduler_name": kept["name"].take(), "scheduler_period": kept["period"].as_u64().unwrap_or(0),
        "isolated_core_mask": "0",
        "scheduling_core": control.reactors.first().map_or(0, |reactor| reactor.lcore()),
    });
    crate::options::merge(&mut members, &control.options.scheduler_options);
    for limit in ["load_limit", "core_limit", "core_busy"] {
        if !kept[limit].is_null() {
            members[limit] = kept[limit].take();
        }
    }
    Ok(members)
}

optional!(SchedulerOptions {
    scheduling_core: u32,
    isolated_core_mask: String,
});

/// Kept and shown: no scheduler moves anything.
fn set_scheduler_options(control: &mut Control, params: Params) -> Result<Value, RpcError> {
    let invalid = |text: &str, reason: String| {
        RpcError::new(rpc::code::INVALID_PARAMS, format!("{text}: {reason}"))
    };
    let wanted: SchedulerOptions = params.decode(NVMF)?;
    let cores: Vec<u32> = control.reactors.iter().map(|it| it.lcore()).collect();
    if let Some(core) = wanted.scheduling_core
        && !cores.contains(&core)
    {
        let reason = format!("no reactor runs on processor {core}");
        return Err(invalid("Invalid scheduling core.", reason));
    }
    let core = wanted.scheduling_core.or(cores.first().copied());
    let mut kept = json!({ "scheduling_core": core });
    if let Some(text) = &wanted.isolated_core_mask {
        let mask = CpuMask::parse(text)
            .map_err(|reason| RpcError::invalid_params(format!("isolated_core_mask {reason}")))?;
        if core.is_some_and(|core| mask.cpus().contains(&core)) {
            let text = "Scheduling core cannot be included in isolated core mask.";
            return Err(invalid(text, format!("processor {} is", core.unwrap_or(0))));
        }
        kept["isolated_core_mask"] = mask_of(mask.cpus()).into();
    }
    control.options.scheduler_options = kept;
    done()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Enabled {
    enabled: Option<bool>,
}

impl Enabled {
    fn refuse(&self) -> Result<(), RpcError> {
        if self.enabled != Some(true) {
            return Ok(());
        }
        let reason = "context switches are not watched here: perf stat and pidstat -w do it";
        Err(RpcError::errno(Errno::EOPNOTSUPP, reason))
    }
}

/// Every line has its time here.
fn log_timestamps(_: &mut Control, params: Params) -> Result<Value, RpcError> {
    match params.decode::<Enabled>(NVMF)?.enabled {
        Some(true) => done(),
        Some(false) => {
            let reason = "log lines always have their time here";
            Err(RpcError::errno(Errno::EOPNOTSUPP, reason))
        }
        None => Err(RpcError::invalid_params("missing field `enabled`")),
    }
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct NvmfConfig {
    #[serde(skip_serializing_if = "Option::is_none")]
    admin_cmd_passthru: Option<serde_json::Map<String, Value>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    poll_groups_mask: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    discovery_filter: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    discovery_filters: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    dhchap_digests: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    dhchap_dhgroups: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    dup_host_policy: Option<String>,
}

fn nvmf_set_config(control: &mut Control, params: Params) -> Result<Value, RpcError> {
    let config: NvmfConfig = params.decode(NVMF)?;
    let flags = config.admin_cmd_passthru.iter().flatten();
    if let Some((flag, _)) = flags.into_iter().find(|(_, value)| **value != false) {
        let reason = format!(
            "admin_cmd_passthru.{flag} needs a bdev that is an NVMe controller, and there is no such bdev here"
        );
        return Err(RpcError::invalid_params(reason));
    }
    control.options.nvmf_config = serde_json::to_value(config).map_err(RpcError::internal)?;
    done()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct MaxSubsystems {
    max_subsystems: u32,
}

fn nvmf_set_max_subsystems(control: &mut Control, params: Params) -> Result<Value, RpcError> {
    let MaxSubsystems { max_subsystems } = params.decode(NVMF)?;
    if max_subsystems == 0 {
        return Err(RpcError::invalid_params("max_subsystems is 0"));
    }
    control.options.nvmf_max_subsystems = max_subsystems;
    done()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Crdt {
    #[serde(default)]
    crdt1: u16,
    #[serde(default)]
    crdt2: u16,
    #[serde(default)]
    crdt3: u16,
}

fn nvmf_set_crdt(control: &mut Control, params: Params) -> Result<Value, RpcError> {
    let Crdt {
        crdt1,
        crdt2,
        crdt3,
    } = params.decode(NVMF)?;
    control.options.nvmf_crdt = [crdt1, crdt2, crdt3];
    done()
}
