//! framework_*, spdk_*: the daemon as a whole.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rpc::{DecodeStyle, Params, RegistryError, Responder, RpcError, When};
use serde::Deserialize;
use serde_json::{Value, json};

use super::Table;
use super::params::NVMF;
use crate::configuration::SUBSYSTEMS;
use crate::control::{Control, done};

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
    match control.subsystem_calls(&name) {
        Some(calls) => Ok(calls.into()),
        None => {
            let text = format!("Subsystem '{name}' not found");
            Err(RpcError::new(rpc::code::INVALID_PARAMS, text))
        }
    }
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
