//! Answers of the daemon as tables. A member that is missing is an empty cell, never an error: an older or newer daemon, or
//! SPDK's target, answers too.

use serde_json::Value;

use super::Kind;
use crate::cli::table::Align::{Left, Right};
use crate::cli::table::Table;
use crate::cli::units::{bytes, lossy, nanoseconds, percent};

/// The table for a kind's answer.
pub(super) fn of(kind: Kind, answer: &Value) -> Table {
    match kind {
        Kind::Bdevs => bdevs(answer),
        Kind::Limits => limits(answer),
        Kind::Stats => stats(answer),
        Kind::Subsystems => subsystems(answer),
        Kind::Namespaces => namespaces(answer),
        Kind::Transports => transports(answer),
        Kind::Endpoints => endpoints(answer),
        Kind::Controllers => controllers(answer),
        Kind::Queues => queues(answer),
        Kind::Reactors => reactors(answer),
        Kind::Pollers => pollers(answer),
        Kind::Events => events(answer),
    }
}

/// A value as a cell.
pub(super) fn text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        value => value.to_string(),
    }
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or(0)
}

/// Members of a list's members, or a dash if there are none.
fn joined(value: &Value, member: &str) -> String {
    let cells: Vec<String> = list(value).map(|it| text(&it[member])).collect();
    if cells.is_empty() {
        return "-".to_owned();
    }
    cells.join(",")
}

fn or_dash(cell: String) -> String {
    if cell.is_empty() {
        "-".to_owned()
    } else {
        cell
    }
}

fn bdevs(answer: &Value) -> Table {
    let columns = [
        ("NAME", Left),
        ("PRODUCT", Left),
        ("SIZE", Right),
        ("BLOCK", Right),
        ("CLAIMED", Left),
        ("UUID", Left),
    ];
    let mut table = Table::new("no bdevs", &columns);
    for bdev in list(answer) {
        let size = number(&bdev["block_size"]).saturating_mul(number(&bdev["num_blocks"]));
        let claimed = match bdev["claimed"].as_bool() {
            Some(true) => or_dash(text(&bdev["claim_type"])),
            _ => "no".to_owned(),
        };
        table.row([
            text(&bdev["name"]),
            text(&bdev["product_name"]),
            bytes(size),
            text(&bdev["block_size"]),
            claimed,
            text(&bdev["uuid"]),
        ]);
    }
    table
}

fn limits(answer: &Value) -> Table {
    let columns = [
        ("NAME", Left),
        ("IOPS", Right),
        ("MIB/S", Right),
        ("READ MIB/S", Right),
        ("WRITE MIB/S", Right),
    ];
    let mut table = Table::new("no bdevs", &columns);
    for bdev in list(answer) {
        let limits = &bdev["assigned_rate_limits"];
        let limit = |key: &str| match number(&limits[key]) {
            0 => "-".to_owned(),
            limit => limit.to_string(),
        };
        table.row([
            text(&bdev["name"]),
            limit("rw_ios_per_sec"),
            limit("rw_mbytes_per_sec"),
            limit("r_mbytes_per_sec"),
            limit("w_mbytes_per_sec"),
        ]);
    }
    table
}

fn stats(answer: &Value) -> Table {
    let columns = [
        ("NAME", Left),
        ("READS", Right),
        ("READ", Right),
        ("AVG", Right),
        ("MAX", Right),
        ("WRITES", Right),
        ("WRITTEN", Right),
        ("AVG", Right),
        ("MAX", Right),
        ("UNMAPS", Right),
        ("ERRORS", Right),
    ];
    let mut table = Table::new("no bdevs", &columns);
    let tick = 1e9 / lossy(number(&answer["tick_rate"]).max(1));
    for bdev in list(&answer["bdevs"]) {
        let ops = |kind: &str| number(&bdev[format!("num_{kind}_ops")]);
        let mean = |kind: &str| match ops(kind) {
            0 => "-".to_owned(),
            ops => {
                let ticks = number(&bdev[format!("{kind}_latency_ticks")]);
                nanoseconds(lossy(ticks) * tick / lossy(ops))
            }
        };
        let max = |kind: &str| match number(&bdev[format!("max_{kind}_latency_ticks")]) {
            0 => "-".to_owned(),
            ticks => nanoseconds(lossy(ticks) * tick),
        };
        let errors = bdev["io_error"].as_object().into_iter().flatten();
        let errors: u64 = errors.map(|(_, count)| number(count)).sum();
        table.row([
            text(&bdev["name"]),
            ops("read").to_string(),
            bytes(number(&bdev["bytes_read"])),
            mean("read"),
            max("read"),
            ops("write").to_string(),
            bytes(number(&bdev["bytes_written"])),
            mean("write"),
            max("write"),
            ops("unmap").to_string(),
            errors.to_string(),
        ]);
    }
    table
}

fn subsystems(answer: &Value) -> Table {
    let columns = [
        ("NQN", Left),
        ("SUBTYPE", Left),
        ("SERIAL", Left),
        ("MODEL", Left),
        ("NAMESPACES", Right),
        ("LISTENERS", Left),
        ("HOSTS", Left),
    ];
    let mut table = Table::new("no subsystems", &columns);
    for subsystem in list(answer) {
        let hosts = match subsystem["allow_any_host"].as_bool() {
            Some(true) => "any".to_owned(),
            _ => joined(&subsystem["hosts"], "nqn"),
        };
        table.row([
            text(&subsystem["nqn"]),
            text(&subsystem["subtype"]),
            or_dash(text(&subsystem["serial_number"])),
            or_dash(text(&subsystem["model_number"])),
            list(&subsystem["namespaces"]).count().to_string(),
            joined(&subsystem["listen_addresses"], "traddr"),
            hosts,
        ]);
    }
    table
}

fn namespaces(answer: &Value) -> Table {
    let columns = [
        ("NQN", Left),
        ("NSID", Right),
        ("BDEV", Left),
        ("UUID", Left),
        ("ANA GROUP", Right),
    ];
    let mut table = Table::new("no namespaces", &columns);
    for subsystem in list(answer) {
        for namespace in list(&subsystem["namespaces"]) {
            table.row([
                text(&subsystem["nqn"]),
                text(&namespace["nsid"]),
                text(&namespace["bdev_name"]),
                text(&namespace["uuid"]),
                or_dash(text(&namespace["anagrpid"])),
            ]);
        }
    }
    table
}

fn transports(answer: &Value) -> Table {
    let columns = [
        ("TYPE", Left),
        ("QUEUE DEPTH", Right),
        ("QUEUES", Right),
        ("MAX I/O", Right),
        ("ADMIN DEPTH", Right),
    ];
    let mut table = Table::new("no transports", &columns);
    for transport in list(answer) {
        table.row([
            text(&transport["trtype"]),
            text(&transport["max_queue_depth"]),
            text(&transport["max_io_qpairs_per_ctrlr"]),
            bytes(number(&transport["max_io_size"])),
            text(&transport["max_aq_depth"]),
        ]);
    }
    table
}

fn endpoints(answer: &Value) -> Table {
    let columns = [
        ("KIND", Left),
        ("NAME", Left),
        ("SOCKET", Left),
        ("DISKS", Left),
    ];
    let mut table = Table::new("no endpoints", &columns);
    for subsystem in list(&answer["nvmf_get_subsystems"]) {
        for address in list(&subsystem["listen_addresses"]) {
            table.row([
                "nvme".to_owned(),
                text(&subsystem["nqn"]),
                format!("{}/cntrl", text(&address["traddr"])),
                joined(&subsystem["namespaces"], "bdev_name"),
            ]);
        }
    }
    for endpoint in list(&answer["vfu_get_endpoints"]) {
        table.row([
            "vfu_virtio_blk".to_owned(),
            text(&endpoint["name"]),
            text(&endpoint["socket"]),
            or_dash(text(&endpoint["bdev_name"])),
        ]);
    }
    for controller in list(&answer["vhost_get_controllers"]) {
        table.row([
            "vhost_blk".to_owned(),
            text(&controller["ctrlr"]),
            text(&controller["socket"]),
            or_dash(text(&controller["backend_specific"]["block"]["bdev"])),
        ]);
    }
    table
}

fn controllers(answer: &Value) -> Table {
    let columns = [
        ("KIND", Left),
        ("NAME", Left),
        ("STATE", Left),
        ("REACTOR", Right),
        ("QUEUES", Right),
        ("COMMANDS", Right),
        ("READ", Right),
        ("WRITTEN", Right),
        ("ERRORS", Right),
        ("DISKS", Left),
    ];
    let mut table = Table::new("no controllers", &columns);
    for controller in list(answer) {
        let total = &controller["total"];
        let mut state = text(&controller["state"]);
        if controller["responding"] == false {
            state.push_str(" (silent)");
        }
        table.row([
            text(&controller["kind"]),
            text(&controller["name"]),
            state,
            text(&controller["lcore"]),
            list(&controller["queues"]).count().to_string(),
            text(&total["commands"]),
            bytes(number(&total["read_bytes"])),
            bytes(number(&total["written_bytes"])),
            text(&total["errors"]),
            joined(&controller["namespaces"], "bdev"),
        ]);
    }
    table
}

fn queues(answer: &Value) -> Table {
    let columns = [
        ("CONTROLLER", Left),
        ("QUEUE", Right),
        ("ENTRIES", Right),
        ("REACTOR", Right),
        ("IN FLIGHT", Right),
        ("COMMANDS", Right),
        ("READ", Right),
        ("WRITTEN", Right),
        ("ERRORS", Right),
        ("INTERRUPTS", Right),
    ];
    let mut table = Table::new("no queues: no guest is connected", &columns);
    for controller in list(answer) {
        for queue in list(&controller["queues"]) {
            table.row([
                text(&controller["name"]),
                text(&queue["qid"]),
                text(&queue["entries"]),
                text(&queue["lcore"]),
                text(&queue["in_flight"]),
                text(&queue["commands"]),
                bytes(number(&queue["read_bytes"])),
                bytes(number(&queue["written_bytes"])),
                text(&queue["errors"]),
                text(&queue["interrupts"]),
            ]);
        }
    }
    table
}

fn reactors(answer: &Value) -> Table {
    let columns = [
        ("REACTOR", Right),
        ("MODE", Left),
        ("BUSY %", Right),
        ("IN FLIGHT", Right),
        ("POLLERS", Right),
    ];
    let mut table = Table::new("no reactors", &columns);
    for reactor in list(answer) {
        let (busy, idle) = (number(&reactor["busy"]), number(&reactor["idle"]));
        let mut mode = text(&reactor["mode"]);
        if reactor["responding"] == false {
            mode.push_str(" (silent)");
        }
        table.row([
            text(&reactor["lcore"]),
            mode,
            percent(lossy(busy), lossy(busy) + lossy(idle)),
            text(&reactor["in_flight"]),
            list(&reactor["pollers"]).count().to_string(),
        ]);
    }
    table
}

fn pollers(answer: &Value) -> Table {
    let columns = [
        ("THREAD", Left),
        ("POLLER", Left),
        ("STATE", Left),
        ("RUNS", Right),
        ("BUSY", Right),
        ("PERIOD", Right),
    ];
    let mut table = Table::new("no pollers", &columns);
    let tick = 1e9 / lossy(number(&answer["tick_rate"]).max(1));
    for thread in list(&answer["threads"]) {
        for kind in ["active_pollers", "timed_pollers", "paused_pollers"] {
            for poller in list(&thread[kind]) {
                let period = match number(&poller["period_ticks"]) {
                    0 => "-".to_owned(),
                    ticks => nanoseconds(lossy(ticks) * tick),
                };
                table.row([
                    text(&thread["name"]),
                    text(&poller["name"]),
                    text(&poller["state"]),
                    text(&poller["run_count"]),
                    text(&poller["busy_count"]),
                    period,
                ]);
            }
        }
    }
    table
}

fn events(answer: &Value) -> Table {
    let columns = [("ID", Right), ("EVENT", Left), ("ABOUT", Left)];
    let mut table = Table::new("no events", &columns);
    for event in list(answer) {
        table.row([
            text(&event["id"]),
            text(&event["type"]),
            text(&event["ctx"]),
        ]);
    }
    table
}
