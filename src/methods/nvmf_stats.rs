//! nvmf_get_stats: what SPDK's poll groups count, which reactors are here.

use nvme::ControllerSnapshot;
use rpc::{Params, RegistryError, Responder, RpcError, When};
use serde::Deserialize;
use serde_json::{Value, json};

use super::Table;
use super::nvmf_query::SNAPSHOT_TIMEOUT;
use super::params::{NVMF, check_target};
use crate::control::Control;
use crate::nvmf::TRANSPORT;

pub(super) fn register(table: &mut Table) -> Result<(), RegistryError> {
    table.deferred("nvmf_get_stats", When::Runtime, get)?;
    Ok(())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Get {
    tgt_name: Option<String>,
}

fn get(control: &mut Control, params: Params, responder: Responder) {
    let decoded = params.decode(NVMF);
    if let Err(error) = decoded.and_then(|get: Get| check_target(get.tgt_name.as_deref())) {
        return responder.err(error);
    }
    let listeners = control.nvmf.subsystems.iter().flat_map(|it| &it.listeners);
    let clients: Vec<_> = listeners
        .clone()
        .map(|it| (it.lcore(), it.connections()))
        .collect();
    let controllers: Vec<_> = listeners
        .filter_map(|it| it.controller().cloned())
        .collect();
    let has_transport = control.nvmf.transport.is_some();
    let lcores: Vec<u32> = control
        .reactors
        .iter()
        .map(reactor::ReactorHandle::lcore)
        .collect();
    let job = move || {
        let snapshots = controllers.iter();
        let snapshots =
            snapshots.filter_map(|controller| controller.snapshot(SNAPSHOT_TIMEOUT).ok());
        let snapshots: Vec<_> = snapshots.collect();
        let groups = lcores.iter().map(|lcore| {
            let clients = clients.iter().filter(|(home, _)| home == lcore);
            group(
                *lcore,
                clients.map(|(_, count)| count).sum(),
                &snapshots,
                has_transport,
            )
        });
        let groups: Vec<_> = groups.collect();
        json!({"tick_rate": reactor::tick_rate(), "poll_groups": groups})
    };
    control.help(job, move |_, answer| match answer {
        Some(answer) => responder.ok(answer),
        None => responder.err(RpcError::internal(
            "the look at the controllers has failed inside vtarget",
        )),
    });
}

/// One reactor. `clients` are those that it was home to, gone or not. Queues that are gone are not counted, and what has no counterpart
/// here is zero: a reactor is not woken for doorbells that others rang (`kicks`), nor does it race for their events (`won`, `lost`).
fn group(lcore: u32, clients: u64, snapshots: &[ControllerSnapshot], has_transport: bool) -> Value {
    let queues = snapshots.iter().flat_map(|it| &it.queues);
    let queues = queues.filter(|queue| queue.lcore == lcore);
    let (mut admin, mut io, mut commands, mut in_flight) = (0u64, 0u64, 0u64, 0u64);
    let (mut interrupts, mut polled) = (0u64, 0u64);
    for queue in queues {
        *(if queue.qid == 0 { &mut admin } else { &mut io }) += 1;
        commands = commands.saturating_add(queue.traffic.commands());
        interrupts = interrupts.saturating_add(queue.interrupts);
        in_flight += u64::from(queue.in_flight);
        if queue.qid != 0 {
            polled = polled.saturating_add(queue.traffic.commands());
        }
    }
    let transport = json!({
        "trtype": TRANSPORT, "ctrlr_intr": interrupts, "ctrlr_kicks": 0, "pg_kicks": 0, "won": 0, "lost": 0,
        "lost_count": 0, "rearms": 0, "cq_full": 0, "pg_process_count": 0, "intr": interrupts, "polls": 0,
        "polls_spurious": 0, "poll_reqs": polled, "cqh_admin_writes": 0, "cqh_io_writes": 0, "numa_id": -1,
    });
    let transports = if has_transport {
        vec![transport]
    } else {
        Vec::new()
    };
    json!({
        "name": super::thread::name_of(lcore), "admin_qpairs": clients.max(admin), "io_qpairs": io,
        "current_admin_qpairs": admin, "current_io_qpairs": io, "current_unassociated_qpairs": 0,
        "pending_bdev_io": in_flight, "completed_nvme_io": commands, "transports": transports,
    })
}
