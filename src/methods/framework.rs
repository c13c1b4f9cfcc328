//! framework_*, spdk_*: the daemon as a whole.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rpc::{DecodeStyle, Params, RegistryError, Responder, RpcError, When};
use serde::Deserialize;
use serde_json::{Value, json};

use super::Table;
use super::params::NVMF;
use crate::control::{Control, done};

/// Subsystems in the order of initialization, and what each needs.
const SUBSYSTEMS: &[(&str, &[&str])] = &[
    ("scheduler", &[]),
    ("sock", &[]),
    ("iobuf", &[]),
    ("accel", &["iobuf"]),
    ("bdev", &["accel", "sock", "iobuf"]),
    ("nvmf", &["bdev", "sock", "accel", "iobuf"]),
    ("vhost_blk", &["bdev"]),
    ("vfio_user_target", &["bdev"]),
];

pub(super) fn register(table: &mut Table) -> Result<(), RegistryError> {
    table
        .method("spdk_get_version", When::Always, get_version)?
        .deferred("framework_start_init", When::Startup, start_init)?
        .deferred("framework_wait_init", When::Always, wait_init)?
        .method("framework_get_subsystems", When::Runtime, get_subsystems)?
        .method("framework_get_config", When::Runtime, get_config)?
        .method("spdk_kill_instance", When::Runtime, kill_instance)?;
    Ok(())
}

/// Whether a configuration's subsystem is one of ours.
pub(crate) fn is_subsystem(name: &str) -> bool {
    SUBSYSTEMS.iter().any(|(known, _)| *known == name)
}

/// The fields say which SPDK's methods these are, which is what callers look for; the text says who answers.
fn get_version(_: &mut Control, params: Params) -> Result<Value, RpcError> {
    params.expect_none()?;
    Ok(json!({
        "version": concat!("vtarget v", env!("CARGO_PKG_VERSION"), ", with the RPC of SPDK v26.05"),
        "fields": {"major": 26, "minor": 5, "patch": 0, "suffix": "-vtarget"},
    }))
}

fn start_init(control: &mut Control, params: Params, responder: Responder) {
    match params.expect_none() {
        Ok(()) => control.initialize(Some(responder)),
        Err(error) => responder.err(error),
    }
}

fn wait_init(control: &mut Control, params: Params, responder: Responder) {
    match params.expect_none() {
        Ok(()) => control.when_initialized(responder),
        Err(error) => responder.err(error),
    }
}

fn get_subsystems(_: &mut Control, params: Params) -> Result<Value, RpcError> {
    params.expect_none()?;
    let subsystems = SUBSYSTEMS
        .iter()
        .map(|(name, depends_on)| json!({"subsystem": name, "depends_on": depends_on}));
    Ok(subsystems.collect())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct GetConfig {
    name: String,
    #[serde(default)]
    #[expect(dead_code, reason = "batches are only a shorter form of the same list")]
    with_batches: bool,
}

fn get_config(control: &mut Control, params: Params) -> Result<Value, RpcError> {
    const STYLE: DecodeStyle = DecodeStyle {
        code: rpc::code::INVALID_PARAMS,
        text: "Invalid arguments",
    };
    let GetConfig { name, .. } = params.decode(STYLE)?;
    let options = &control.options;
    let call = |method: &str, params: &Value| json!({"method": method, "params": params});
    let mut calls = match name.as_str() {
        "scheduler" => vec![call("framework_set_scheduler", &options.scheduler)],
        "sock" => {
            let default = json!({"impl_name": options.sock_default});
            let impls = options.sock.iter().map(|(name, settings)| {
                let mut params = json!({"impl_name": name});
                crate::options::merge(&mut params, settings);
                call("sock_impl_set_options", &params)
            });
            std::iter::once(call("sock_set_default_impl", &default))
                .chain(impls)
                .collect()
        }
        "iobuf" => vec![call("iobuf_set_options", &options.iobuf)],
        "accel" => vec![call("accel_set_options", &options.accel)],
        "bdev" => {
            let mut calls = vec![call("bdev_set_options", &options.bdev)];
            calls.extend(control.disks.calls());
            calls
        }
        "nvmf" => {
            let [crdt1, crdt2, crdt3] = options.nvmf_crdt;
            let most = json!({"max_subsystems": options.nvmf_max_subsystems});
            let crdt = json!({"crdt1": crdt1, "crdt2": crdt2, "crdt3": crdt3});
            let mut calls = vec![
                call("nvmf_set_config", &options.nvmf_config),
                call("nvmf_set_max_subsystems", &most),
                call("nvmf_set_crdt", &crdt),
            ];
            calls.extend(control.nvmf.calls());
            calls
        }
        "vhost_blk" => control.blk.vhost_calls(),
        "vfio_user_target" => control.blk.vfu_calls(),
        _ => {
            let text = format!("Subsystem '{name}' not found");
            return Err(RpcError::new(rpc::code::INVALID_PARAMS, text));
        }
    };
    let foreign = options.foreign.iter().filter(|(owner, ..)| *owner == name);
    calls.extend(foreign.map(|(_, method, params)| call(method, params)));
    if name == "bdev" {
        calls.push(json!({"method": "bdev_wait_for_examine"}));
    }
    Ok(calls.into())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct KillInstance {
    sig_name: SignalName,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum SignalName {
    Name(String),
    Number(i32),
}

fn kill_instance(_: &mut Control, params: Params) -> Result<Value, RpcError> {
    let KillInstance { sig_name } = params.decode(NVMF)?;
    let known = [
        Signal::SIGINT,
        Signal::SIGTERM,
        Signal::SIGQUIT,
        Signal::SIGHUP,
        Signal::SIGKILL,
        Signal::SIGUSR1,
    ];
    let number = match &sig_name {
        SignalName::Name(name) => name.parse().ok(),
        SignalName::Number(number) => Some(*number),
    };
    let found = known.into_iter().find(|signal| match &sig_name {
        SignalName::Name(name) if number.is_none() => {
            name == signal.as_str() || signal.as_str().strip_prefix("SIG") == Some(name)
        }
        _ => number == Some(*signal as i32),
    });
    let Some(signal) = found else {
        let names = known.map(Signal::as_str).join(", ");
        return Err(RpcError::invalid_params(format!(
            "sig_name is none of {names}"
        )));
    };
    kill(Pid::this(), signal)
        .map_err(|errno| RpcError::errno(errno, "the signal cannot be sent"))?;
    done()
}
