//! thread_* and framework_get_reactors: what the threads are doing. A reactor is one SPDK thread here.

use reactor::{Mode, Reactor, ReactorStats, tick_rate, ticks};
use rpc::{Params, RegistryError, Responder, RpcError, When};
use serde::Deserialize;
use serde_json::{Value, json};

use super::Table;
use super::params::NVMF;
use crate::control::{Control, done, internal};
use crate::cpumask::{CpuMask, mask_of};

pub(super) fn register(table: &mut Table) -> Result<(), RegistryError> {
    table
        .deferred(
            "framework_get_reactors",
            When::Runtime,
            |control, params, responder| {
                ask(control, params, responder, reactors);
            },
        )?
        .deferred(
            "thread_get_stats",
            When::Runtime,
            |control, params, responder| {
                ask(control, params, responder, stats);
            },
        )?
        .deferred(
            "thread_get_pollers",
            When::Runtime,
            |control, params, responder| {
                ask(control, params, responder, pollers);
            },
        )?
        .method("thread_get_io_channels", When::Runtime, io_channels)?
        .method("thread_set_cpumask", When::Runtime, set_cpumask)?;
    Ok(())
}

/// The name of a reactor's thread.
pub(super) fn name_of(lcore: u32) -> String {
    format!("reactor_{lcore}")
}

/// SPDK numbers threads from 1.
fn numbered(stats: &[ReactorStats]) -> impl Iterator<Item = (u64, &ReactorStats)> {
    (1..).zip(stats)
}

fn ask(
    control: &mut Control,
    params: Params,
    responder: Responder,
    describe: fn(&[ReactorStats]) -> Value,
) {
    match params.expect_none() {
        Ok(()) => {
            let ask = |reactor: &mut Reactor| reactor.stats();
            control.gather(responder, ask, move |_, stats| Ok(describe(&stats)));
        }
        Err(error) => responder.err(error),
    }
}

fn reactors(stats: &[ReactorStats]) -> Value {
    let reactors = numbered(stats).map(|(id, stats)| {
        let (usr, sys) = cpu_time(stats.tid);
        let thread = json!({
            "name": name_of(stats.lcore), "id": id, "cpumask": mask_of(&[stats.lcore]), "elapsed": ticks(),
        });
        json!({
            "lcore": stats.lcore, "numa_id": numa_node(stats.lcore), "tid": stats.tid, "busy": stats.busy,
            "idle": stats.idle, "in_interrupt": stats.mode == Mode::Interrupt, "irq": 0, "sys": sys, "usr": usr,
            "lw_threads": [thread],
        })
    });
    json!({
        "tick_rate": tick_rate(), "pid": std::process::id(), "reactors": reactors.collect::<Vec<_>>(),
    })
}

fn stats(stats: &[ReactorStats]) -> Value {
    let threads = numbered(stats).map(|(id, stats)| {
        json!({
            "name": name_of(stats.lcore), "id": id, "cpumask": mask_of(&[stats.lcore]), "busy": stats.busy,
            "idle": stats.idle, "active_pollers_count": stats.pollers.len(), "timed_pollers_count": 0,
            "paused_pollers_count": 0,
        })
    });
    json!({"tick_rate": tick_rate(), "threads": threads.collect::<Vec<_>>()})
}

fn pollers(stats: &[ReactorStats]) -> Value {
    let threads = numbered(stats).map(|(id, stats)| {
        let pollers = stats.pollers.iter().map(|poller| {
            json!({
                "name": poller.name, "id": u64::from(poller.id) + 1, "state": "waiting",
                "run_count": poller.run_count, "busy_count": poller.busy_count,
            })
        });
        json!({
            "name": name_of(stats.lcore), "id": id, "active_pollers": pollers.collect::<Vec<_>>(),
            "timed_pollers": [], "paused_pollers": [],
        })
    });
    json!({"tick_rate": tick_rate(), "threads": threads.collect::<Vec<_>>()})
}

fn io_channels(control: &mut Control, params: Params) -> Result<Value, RpcError> {
    params.expect_none()?;
    let threads = control.reactors.iter();
    let threads =
        threads.map(|reactor| json!({"name": name_of(reactor.lcore()), "io_channels": []}));
    Ok(json!({"tick_rate": tick_rate(), "threads": threads.collect::<Vec<_>>()}))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SetCpumask {
    id: u64,
    cpumask: String,
}

/// A reactor stays where it was started: a mask with its processor is right already, others are refused.
fn set_cpumask(control: &mut Control, params: Params) -> Result<Value, RpcError> {
    let SetCpumask { id, cpumask } = params.decode(NVMF)?;
    let at = id.checked_sub(1).and_then(|at| usize::try_from(at).ok());
    let Some(reactor) = at.and_then(|at| control.reactors.get(at)) else {
        let most = control.reactors.len();
        let text = format!("Thread {id} does not exist: they are numbered from 1 to {most}");
        return Err(RpcError::new(rpc::code::INVALID_PARAMS, text));
    };
    let mask = CpuMask::parse(&cpumask)
        .map_err(|reason| internal(&format!("Invalid cpumask {cpumask}"), reason))?;
    let core = reactor.lcore();
    if mask.cpus().contains(&core) {
        return done();
    }
    let reason = format!(
        "thread {id} is the reactor on processor {core} and stays there; choose processors with -m, and reactors for a \
         device with its own cpumask"
    );
    Err(internal(&format!("Thread {id} cannot move"), reason))
}

/// Ticks of the scheduler's clock in user and system mode (proc_pid_stat(5), fields 14 and 15).
fn cpu_time(tid: i32) -> (u64, u64) {
    let path = format!("/proc/self/task/{tid}/stat");
    let text = std::fs::read_to_string(path).unwrap_or_default();
    // The second field is the name, in parentheses, and may hold anything.
    let rest = text.rsplit_once(')').map_or("", |(_, rest)| rest);
    let mut fields = rest
        .split_whitespace()
        .skip(11)
        .map(|field| field.parse().unwrap_or(0));
    (fields.next().unwrap_or(0), fields.next().unwrap_or(0))
}

/// The NUMA node of a processor, 0 where the system does not say.
fn numa_node(cpu: u32) -> u32 {
    let path = format!("/sys/devices/system/cpu/cpu{cpu}");
    let Ok(entries) = std::fs::read_dir(path) else {
        return 0;
    };
    let names = entries.flatten().map(|entry| entry.file_name());
    names
        .filter_map(|name| name.to_str()?.strip_prefix("node")?.parse().ok())
        .next()
        .unwrap_or(0)
}
