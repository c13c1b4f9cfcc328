//! log_*: what goes to standard error.

use rpc::{Params, RegistryError, RpcError, When};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::Table;
use super::params::BDEV;
use crate::control::{Control, done};
use crate::logging::Level;

pub(super) fn register(table: &mut Table) -> Result<(), RegistryError> {
    table
        .method("log_set_level", When::Always, |control, params| {
            control
                .logging
                .ask_level(params.decode::<SetLevel>(BDEV)?.level);
            done()
        })?
        .method("log_get_level", When::Always, |control, params| {
            params.expect_none()?;
            level(control.logging.level())
        })?
        .method("log_set_print_level", When::Always, |control, params| {
            let SetLevel { level } = params.decode(BDEV)?;
            control.logging.ask_print_level(level);
            done()
        })?
        .method("log_get_print_level", When::Always, |control, params| {
            params.expect_none()?;
            level(control.logging.print_level())
        })?
        .method("log_set_flag", When::Always, |control, params| {
            set_flag(control, params, true)
        })?
        .method("log_clear_flag", When::Always, |control, params| {
            set_flag(control, params, false)
        })?
        .method("log_get_flags", When::Always, get_flags)?;
    Ok(())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SetLevel {
    level: Level,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Flag {
    flag: String,
}

fn level(level: Level) -> Result<Value, RpcError> {
    serde_json::to_value(level).map_err(RpcError::internal)
}

fn set_flag(control: &mut Control, params: Params, on: bool) -> Result<Value, RpcError> {
    let Flag { flag } = params.decode(BDEV)?;
    if control.logging.ask_flag(&flag, on) {
        return done();
    }
    let text = format!("invalid log flag: `{flag}` is none of those that log_get_flags lists");
    Err(RpcError::new(rpc::code::INVALID_PARAMS, text))
}

fn get_flags(control: &mut Control, params: Params) -> Result<Value, RpcError> {
    params.expect_none()?;
    let flags = control.logging.flags();
    let flags: Map<String, Value> = flags
        .map(|(name, on)| (name.to_owned(), on.into()))
        .collect();
    Ok(flags.into())
}
