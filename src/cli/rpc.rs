//! `vtarget rpc`: one call, for people without `rpc.py`.

use clap::Args;
use clap_complete::ArgValueCompleter;
use serde_json::{Map, Value};

use super::completions;
use super::connection::{Connection, Usage};

const EXAMPLES: &str = "\
Parameters are key=value pairs, or one JSON object. A value that is JSON (a number, true, [1,2], {…}, \"text\") is taken as
such, anything else as text. A dotted key makes an object: listen_address.trtype=VFIOUSER.

Examples:
  vtarget rpc rpc_get_methods
  vtarget rpc bdev_malloc_create name=disk0 block_size=512 num_blocks=131072
  vtarget rpc nvmf_subsystem_add_ns nqn=nqn.2026-11.io.example:vm0 namespace.bdev_name=disk0
  vtarget rpc bdev_get_bdevs '{\"name\": \"disk0\"}'

The result is printed as JSON. A refused call prints code and reason to standard error and exits with 1; 3 says that no daemon
answers.";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct RpcArgs {
    #[command(flatten)]
    connection: Connection,

    /// The method
    #[arg(value_name = "METHOD", add = ArgValueCompleter::new(completions::methods))]
    method: String,

    /// Its parameters
    #[arg(value_name = "KEY=VALUE | JSON")]
    params: Vec<String>,
}

/// Calls and prints the result.
///
/// # Errors
/// The parameters make no sense, the daemon does not answer, or it refuses.
pub(super) fn run(args: RpcArgs) -> anyhow::Result<()> {
    let params = parse_params(&args.params)?;
    match args.connection.call(&args.method, params)? {
        Value::String(text) => super::say(&text),
        result => super::say(&serde_json::to_string_pretty(&result)?),
    }
    Ok(())
}

/// The parameters of a call from words of the command line; `null` if there are none.
fn parse_params(words: &[String]) -> Result<Value, Usage> {
    if let [json] = words
        && json.trim_start().starts_with(['{', '['])
    {
        return serde_json::from_str(json)
            .map_err(|error| Usage(format!("the parameters are not valid JSON: {error}")));
    }
    let mut params = Map::new();
    for word in words {
        let Some((key, text)) = word.split_once('=') else {
            return Err(Usage(format!(
                "`{word}` is no parameter: give key=value, or one JSON object"
            )));
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
fn insert(params: &mut Map<String, Value>, key: &str, value: Value) -> Result<(), Usage> {
    if key.split('.').any(str::is_empty) {
        return Err(Usage(format!("`{key}` is no key")));
    }
    match key.split_once('.') {
        None => {
            if params.insert(key.to_owned(), value).is_some() {
                return Err(Usage(format!("`{key}` is given twice")));
            }
        }
        Some((first, rest)) => {
            let inner = params
                .entry(first)
                .or_insert_with(|| Value::Object(Map::new()));
            let Value::Object(inner) = inner else {
                return Err(Usage(format!(
                    "`{first}` is given both as a value and as an object"
                )));
            };
            insert(inner, rest, value)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
