//! How namespaces are reached (ANA), and which hosts see them.

use rpc::{Params, RegistryError, Responder, RpcError, When};
use serde::Deserialize;

use super::Table;
use super::params::{ListenAddress, NVMF, check_host, check_target};
use crate::control::{Control, internal, reply_done, still_draining};
use crate::nvmf::{AnaState, NamespaceEntry, Subsystem};

pub(super) fn register(table: &mut Table) -> Result<(), RegistryError> {
    table
        .deferred(
            "nvmf_subsystem_listener_set_ana_state",
            When::Runtime,
            set_ana_state,
        )?
        .deferred(
            "nvmf_subsystem_set_ns_ana_group",
            When::Runtime,
            set_ana_group,
        )?
        .deferred(
            "nvmf_ns_add_host",
            When::Runtime,
            |control, params, responder| {
                change_host(control, params, responder, true);
            },
        )?
        .deferred(
            "nvmf_ns_remove_host",
            When::Runtime,
            |control, params, responder| {
                change_host(control, params, responder, false);
            },
        )?;
    Ok(())
}

/// Shows the change to guests, and answers when no I/O to what they lost is left.
fn publish(control: &mut Control, responder: Responder, changed: Result<String, RpcError>) {
    match changed {
        Ok(nqn) => {
            let late = still_draining(&format!("the former state of {nqn}"));
            control.publish_namespaces(&nqn, responder, late, reply_done);
        }
        Err(error) => responder.err(error),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SetAnaState {
    nqn: String,
    tgt_name: Option<String>,
    listen_address: ListenAddress,
    ana_state: AnaState,
    /// None or 0: all groups.
    anagrpid: Option<u32>,
}

fn set_ana_state(control: &mut Control, params: Params, responder: Responder) {
    let changed = params.decode(NVMF).and_then(|wanted: SetAnaState| {
        check_target(wanted.tgt_name.as_deref())?;
        let address = wanted.listen_address.checked()?;
        let subsystem = control.nvmf.find_mut(&wanted.nqn)?;
        // SPDK names -EINVAL for each of these.
        let refused = |reason: String| internal("error setting ANA state: -22", reason);
        if !subsystem.options.ana_reporting {
            let reason = "the subsystem was created without ana_reporting, so no host would know";
            return Err(refused(reason.to_owned()));
        }
        let most = subsystem.options.max_namespaces;
        let group = wanted.anagrpid.filter(|group| *group != 0);
        if group.is_some_and(|group| group > most) {
            return Err(refused(format!("anagrpid is not from 1 to {most}")));
        }
        let at = subsystem.listener_at(&address);
        let Some(listener) = at.and_then(|at| subsystem.listeners.get_mut(at)) else {
            let (nqn, traddr) = (&wanted.nqn, &address.traddr);
            return Err(refused(format!("{nqn} does not listen at {traddr}")));
        };
        listener.view.ana.set(group, wanted.ana_state);
        Ok(wanted.nqn)
    });
    publish(control, responder, changed);
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SetAnaGroup {
    nqn: String,
    tgt_name: Option<String>,
    nsid: u32,
    anagrpid: u32,
}

fn set_ana_group(control: &mut Control, params: Params, responder: Responder) {
    let changed = params.decode(NVMF).and_then(|wanted: SetAnaGroup| {
        check_target(wanted.tgt_name.as_deref())?;
        let subsystem = control.nvmf.find_mut(&wanted.nqn)?;
        let most = subsystem.options.max_namespaces;
        if wanted.anagrpid == 0 || wanted.anagrpid > most {
            let reason = format!("anagrpid is not from 1 to {most}");
            return Err(RpcError::invalid_params(reason));
        }
        namespace(subsystem, wanted.nsid)?.anagrpid = Some(wanted.anagrpid);
        Ok(wanted.nqn)
    });
    publish(control, responder, changed);
}

fn namespace(subsystem: &mut Subsystem, nsid: u32) -> Result<&mut NamespaceEntry, RpcError> {
    let nqn = &subsystem.options.nqn;
    subsystem
        .namespaces
        .get_mut(&nsid)
        .ok_or_else(|| RpcError::invalid_params(format!("{nqn} has no namespace {nsid}")))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NamespaceHost {
    nqn: String,
    tgt_name: Option<String>,
    nsid: u32,
    host: String,
}

fn change_host(control: &mut Control, params: Params, responder: Responder, visible: bool) {
    let changed = params.decode(NVMF).and_then(|wanted: NamespaceHost| {
        check_target(wanted.tgt_name.as_deref())?;
        check_host(&wanted.host)?;
        let subsystem = control.nvmf.find_mut(&wanted.nqn)?;
        let entry = namespace(subsystem, wanted.nsid)?;
        if !entry.no_auto_visible {
            return Err(RpcError::invalid_params(format!(
                "namespace {} is visible to all hosts: add it with no_auto_visible to choose some",
                wanted.nsid
            )));
        }
        // As SPDK: to say it twice is no error.
        if visible {
            entry.hosts.insert(wanted.host);
        } else {
            entry.hosts.remove(&wanted.host);
        }
        Ok(wanted.nqn)
    });
    publish(control, responder, changed);
}
