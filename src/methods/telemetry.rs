//! vtarget_get_telemetry: everything that is counted, in one answer.

use rpc::{Params, RegistryError, Responder, When};

use super::Table;
use crate::control::Control;

pub(super) fn register(table: &mut Table) -> Result<(), RegistryError> {
    table.deferred("vtarget_get_telemetry", When::Runtime, get_telemetry)?;
    Ok(())
}

fn get_telemetry(control: &mut Control, params: Params, responder: Responder) {
    match params.expect_none() {
        Ok(()) => control.telemetry(move |_, telemetry| responder.serialize(&telemetry)),
        Err(error) => responder.err(error),
    }
}
