//! `vtarget rpc`: one call, for people without `rpc.py`.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use rpc::{Client, ClientError, ClientOptions};
use serde_json::{Map, Value};

const EXAMPLES: &str = "\
Parameters are key=value pairs, or one JSON object. A value that is JSON (a number, true, [1,2], {…}, \"text\") is taken as
such, anything else as text. A dotted key makes an object: listen_address.trtype=VFIOUSER.

Examples:
  vtarget rpc rpc_get_methods
  vtarget rpc bdev_malloc_create name=disk0 block_size=512 num_blocks=131072
  vtarget rpc nvmf_subsystem_add_ns nqn=nqn.2026-11.io.example:vm0 namespace.bdev_name=disk0
  vtarget rpc bdev_get_bdevs '{\"name\": \"disk0\"}'

The result is printed as JSON. A refused call prints code and reason to standard error and exits with 1.";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct RpcArgs {
    /// RPC socket of the daemon
    #[arg(short = 's', long, visible_short_alias = 'r', value_name = "PATH", default_value = super::DEFAULT_RPC_SOCKET)]
    socket: PathBuf,

    /// Seconds to wait for the answer
    #[arg(short = 't', long, value_name = "SECONDS", default_value_t = 60.0)]
    timeout: f64,

    /// The method
    #[arg(value_name = "METHOD")]
    method: String,

    /// Its parameters
    #[arg(value_name = "KEY=VALUE | JSON")]
    params: Vec<String>,
}

pub(crate) fn run(args: RpcArgs) -> anyhow::Result<ExitCode> {
    let params = parse_params(&args.params)?;
    let options = ClientOptions {
        timeout: Duration::try_from_secs_f64(args.timeout).context("--timeout")?,
        ..ClientOptions::default()
    };
    let mut client = Client::connect(&args.socket, options)?;
    match client.call(&args.method, params) {
        Ok(Value::String(text)) => super::say(&text),
        Ok(result) => super::say(&serde_json::to_string_pretty(&result)?),
        Err(ClientError::Rpc(error)) => {
            super::complain(&format!("{}: {error}", args.method));
            return Ok(ExitCode::FAILURE);
        }
        Err(error) => return Err(error.into()),
    }
    Ok(ExitCode::SUCCESS)
}

/// The parameters of a call from words of the command line; `null` if there are none.
fn parse_params(words: &[String]) -> anyhow::Result<Value> {
    if let [json] = words
        && json.trim_start().starts_with(['{', '['])
    {
        return serde_json::from_str(json).context("the parameters are not valid JSON");
    }
    let mut params = Map::new();
    for word in words {
        let Some((key, text)) = word.split_once('=') else {
            bail!("`{word}` is no parameter: give key=value, or one JSON object");
        };
        let value = serde_json::from_str(text).unwrap_or_else(|_| Value::String(text.to_owned()));
        insert(&mut params, key, value)?;
    }
    Ok(if params.is_empty() {
        Value::Null
    } else {
        Value::Object(params)
    })
}

/// Puts a value under a dotted key.
fn insert(params: &mut Map<String, Value>, key: &str, value: Value) -> anyhow::Result<()> {
    if key.split('.').any(str::is_empty) {
        bail!("`{key}` is no key");
    }
    match key.split_once('.') {
        None => {
            if params.insert(key.to_owned(), value).is_some() {
                bail!("`{key}` is given twice");
            }
        }
        Some((first, rest)) => {
            let inner = params
                .entry(first)
                .or_insert_with(|| Value::Object(Map::new()));
            let Value::Object(inner) = inner else {
                bail!("`{first}` is given both as a value and as an object");
            };
            insert(inner, rest, value)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
