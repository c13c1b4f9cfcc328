//! notify_* and vtarget_subscribe: what has happened, for those who ask and those who listen.

use std::collections::BTreeSet;

use rpc::{Params, RegistryError, Responder, RpcError, When};
use serde::Deserialize;
use serde_json::{Value, json};

use super::Table;
use super::params::VHOST;
use crate::control::Control;
use crate::events::Kind;

pub(super) fn register(table: &mut Table) -> Result<(), RegistryError> {
    table
        .method("notify_get_types", When::Runtime, |_, params| {
            params.expect_none()?;
            Ok(Kind::ALL.iter().map(|kind| kind.name()).collect())
        })?
        .method("notify_get_notifications", When::Runtime, get_notifications)?
        .deferred("vtarget_subscribe", When::Runtime, subscribe)?;
    Ok(())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct GetNotifications {
    #[serde(default)]
    id: u64,
    max: Option<u64>,
}

fn get_notifications(control: &mut Control, params: Params) -> Result<Value, RpcError> {
    let GetNotifications { id, max } = params.decode(VHOST)?;
    let max = max.map_or(usize::MAX, |max| usize::try_from(max).unwrap_or(usize::MAX));
    Ok(control.events.since(id, max).into())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Subscribe {
    types: Option<Vec<String>>,
    /// Answer with the events from this number on that are kept.
    since: Option<u64>,
}

impl Subscribe {
    fn kinds(&self) -> Result<Option<BTreeSet<Kind>>, RpcError> {
        let kind = |name: &String| {
            Kind::named(name).ok_or_else(|| {
                let names: Vec<_> = Kind::ALL.iter().map(|kind| kind.name()).collect();
                let names = names.join(", ");
                RpcError::invalid_params(format!("there is no type `{name}`: there are {names}"))
            })
        };
        let types = self.types.as_ref();
        let kinds = types.map(|names| names.iter().map(kind).collect());
        kinds.transpose()
    }
}

/// Answers with the number of the next event, and with those before it from `since` on, so that a client can miss none.
fn subscribe(control: &mut Control, params: Params, responder: Responder) {
    let decoded = params
        .decode(VHOST)
        .and_then(|wanted: Subscribe| Ok((wanted.kinds()?, wanted.since)));
    let (kinds, since) = match decoded {
        Ok(decoded) => decoded,
        Err(error) => return responder.err(error),
    };
    let Some(notifier) = responder.notifier() else {
        let reason =
            "only a client of the RPC socket can subscribe: a configuration has nobody to tell";
        return responder.err(RpcError::invalid_params(reason));
    };
    let mut answer = json!({ "next_id": control.events.next_id() });
    if let Some(since) = since {
        answer["events"] = control.events.history(since, kinds.as_ref()).into();
    }
    responder.ok(answer);
    control.events.subscribe(notifier, kinds);
}
