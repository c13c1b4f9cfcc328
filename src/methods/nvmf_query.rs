//! nvmf_get_subsystems and what looks into controllers.

use std::time::Duration;

use nvme::ControllerSnapshot;
use rpc::{Params, RegistryError, Responder, RpcError, When};
use serde::Deserialize;
use serde_json::{Value, json};

use super::Table;
use super::params::{NVMF, Nqn, check_target};
use crate::control::Control;
use crate::nvmf::{Address, DISCOVERY_NQN, TARGET};

pub(super) fn register(table: &mut Table) -> Result<(), RegistryError> {
    table
        .method("nvmf_get_subsystems", When::Runtime, get_subsystems)?
        .method("nvmf_subsystem_get_listeners", When::Runtime, get_listeners)?
        .deferred(
            "nvmf_subsystem_get_controllers",
            When::Runtime,
            get_controllers,
        )?
        .deferred("nvmf_subsystem_get_qpairs", When::Runtime, get_qpairs)?
        .method("nvmf_get_targets", When::Runtime, |_, params| {
            params.expect_none()?;
            Ok(json!([TARGET]))
        })?;
    Ok(())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct GetSubsystems {
    nqn: Option<String>,
    tgt_name: Option<String>,
}

fn get_subsystems(control: &mut Control, params: Params) -> Result<Value, RpcError> {
    let wanted: GetSubsystems = params.decode(NVMF)?;
    check_target(wanted.tgt_name.as_deref())?;
    let mut subsystems = control.nvmf.to_value();
    if let Some(nqn) = wanted.nqn {
        subsystems.retain(|subsystem| subsystem["nqn"] == nqn.as_str());
        if subsystems.is_empty() {
            let reason = format!("there is no subsystem {nqn}");
            return Err(RpcError::errno(nix::errno::Errno::ENODEV, reason));
        }
    }
    Ok(subsystems.into())
}

fn get_listeners(control: &mut Control, params: Params) -> Result<Value, RpcError> {
    let nqn = params.decode(NVMF).and_then(Nqn::checked)?;
    if nqn == DISCOVERY_NQN {
        return Ok(json!([]));
    }
    let subsystem = control.nvmf.find(&nqn)?;
    // As SPDK, all groups that there may be; but not thousands of them.
    let groups: Vec<u32> = match subsystem.options.max_namespaces {
        most @ ..=SHOWN_GROUPS => (1..=most).collect(),
        _ => subsystem.groups().into_iter().collect(),
    };
    let listeners = subsystem.listeners.iter().map(|listener| {
        let mut members = json!({ "address": listener.address });
        if subsystem.options.ana_reporting {
            let states = groups.iter().map(
                |group| json!({"ana_group": group, "ana_state": listener.view.ana.of(*group)}),
            );
            members["ana_states"] = states.collect();
        }
        members
    });
    Ok(listeners.collect())
}

/// ANA groups that are shown whether they have namespaces or not.
const SHOWN_GROUPS: u32 = 1024;

/// How long a controller may take to describe itself. A helper waits for it, not the control thread.
pub(super) const SNAPSHOT_TIMEOUT: Duration = Duration::from_secs(2);

/// Asks every controller of a subsystem to describe itself and answers with what `describe` makes of that.
fn ask_controllers(
    control: &mut Control,
    params: Params,
    responder: Responder,
    describe: fn(&Place, &ControllerSnapshot) -> Vec<Value>,
) {
    let found = params.decode(NVMF).and_then(Nqn::checked).and_then(|nqn| {
        if nqn == DISCOVERY_NQN {
            return Ok(Vec::new());
        }
        let listeners = control.nvmf.find(&nqn)?.listeners.iter();
        let connected = listeners.filter_map(|it| {
            let place = Place {
                address: it.address.clone(),
                host: it.view.host_nqn().to_owned(),
            };
            Some((place, it.controller()?.clone()))
        });
        Ok(connected.collect::<Vec<_>>())
    });
    let controllers = match found {
        Ok(controllers) => controllers,
        Err(error) => return responder.err(error),
    };
    let job = move || {
        let mut answer = Vec::new();
        for (place, controller) in controllers {
            // One that is gone meanwhile is not there.
            if let Ok(snapshot) = controller.snapshot(SNAPSHOT_TIMEOUT) {
                answer.extend(describe(&place, &snapshot));
            }
        }
        answer
    };
    control.help(job, move |_, answer| match answer {
        Some(answer) => responder.ok(answer),
        None => responder.err(RpcError::internal(
            "the look at the controllers has failed inside vtarget",
        )),
    });
}

/// What a listener says of its controllers.
struct Place {
    address: Address,
    /// Empty if nobody said who it is, as in SPDK.
    host: String,
}

/// A vfio-user client names no host ID; SPDK shows this.
const HOST_ID: &str = "00000000-0000-0000-0000-000000000000";

fn get_controllers(control: &mut Control, params: Params, responder: Responder) {
    ask_controllers(control, params, responder, |place, snapshot| {
        let io_queues = snapshot
            .queues
            .iter()
            .filter(|queue| queue.qid != 0)
            .count();
        vec![json!({
            "cntlid": snapshot.cntlid, "cntrltype": "io", "hostnqn": place.host, "hostid": HOST_ID,
            "num_io_qpairs": io_queues,
        })]
    });
}

fn get_qpairs(control: &mut Control, params: Params, responder: Responder) {
    ask_controllers(control, params, responder, |place, snapshot| {
        let queues = snapshot.queues.iter().map(|queue| {
            json!({
                "cntlid": snapshot.cntlid, "qid": queue.qid,
                "state": if snapshot.ready { "enabled" } else { "uninitialized" },
                "thread": super::thread::name_of(queue.lcore), "hostnqn": place.host,
                "listen_address": place.address,
            })
        });
        queues.collect()
    });
}
