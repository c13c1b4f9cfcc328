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
    let groups: std::collections::BTreeSet<u32> = subsystem
        .namespaces
        .iter()
        .map(|(nsid, entry)| entry.anagrpid.unwrap_or(*nsid))
        .collect();
    let listeners = subsystem.listeners.iter().map(|listener| {
        let mut members = json!({ "address": listener.address });
        if subsystem.options.ana_reporting {
            let state = listener.ana_state.as_deref().unwrap_or("optimized");
            let states = groups
                .iter()
                .map(|group| json!({"ana_group": group, "ana_state": state}));
            members["ana_states"] = states.collect();
        }
        members
    });
    Ok(listeners.collect())
}

/// How long a controller may take to describe itself. A helper waits for it, not the control thread.
const SNAPSHOT_TIMEOUT: Duration = Duration::from_secs(2);

/// Asks every controller of a subsystem to describe itself and answers with what `describe` makes of that.
fn ask_controllers(
    control: &mut Control,
    params: Params,
    responder: Responder,
    describe: fn(&Address, &ControllerSnapshot) -> Vec<Value>,
) {
    let found = params.decode(NVMF).and_then(Nqn::checked).and_then(|nqn| {
        if nqn == DISCOVERY_NQN {
            return Ok(Vec::new());
        }
        let listeners = control.nvmf.find(&nqn)?.listeners.iter();
        let connected =
            listeners.filter_map(|it| Some((it.address.clone(), it.controller()?.clone())));
        Ok(connected.collect::<Vec<_>>())
    });
    let controllers = match found {
        Ok(controllers) => controllers,
        Err(error) => return responder.err(error),
    };
    let job = move || {
        let mut answer = Vec::new();
        for (address, controller) in controllers {
            // One that is gone meanwhile is not there.
            if let Ok(snapshot) = controller.snapshot(SNAPSHOT_TIMEOUT) {
                answer.extend(describe(&address, &snapshot));
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

/// What a vfio-user client is called: it has no NQN, and SPDK makes one up too.
const HOST_NQN: &str = "nqn.2014-08.org.nvmexpress:uuid:00000000-0000-0000-0000-000000000000";
const HOST_ID: &str = "00000000-0000-0000-0000-000000000000";

fn get_controllers(control: &mut Control, params: Params, responder: Responder) {
    ask_controllers(control, params, responder, |_, snapshot| {
        let io_queues = snapshot
            .queues
            .iter()
            .filter(|queue| queue.qid != 0)
            .count();
        vec![json!({
            "cntlid": snapshot.cntlid, "cntrltype": "io", "hostnqn": HOST_NQN, "hostid": HOST_ID,
            "num_io_qpairs": io_queues,
        })]
    });
}

fn get_qpairs(control: &mut Control, params: Params, responder: Responder) {
    ask_controllers(control, params, responder, |address, snapshot| {
        let queues = snapshot.queues.iter().map(|queue| {
            json!({
                "cntlid": snapshot.cntlid, "qid": queue.qid,
                "state": if snapshot.ready { "enabled" } else { "uninitialized" },
                "thread": super::thread::name_of(queue.lcore), "hostnqn": HOST_NQN,
                "listen_address": address,
            })
        });
        queues.collect()
    });
}
