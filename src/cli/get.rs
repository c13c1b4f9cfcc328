//! `vtarget get`: what exists, as tables for people and as JSON for machines.

mod tables;

use std::ffi::OsStr;

use clap::builder::PossibleValue;
use clap::{Args, ValueEnum};
use clap_complete::{ArgValueCompleter, CompletionCandidate};
use rpc::Client;
use serde_json::{Map, Value, json};

use super::completions;
use super::connection::{Connection, call};
use super::table::Style;

const EXAMPLES: &str = "\
JSON is what the daemon's method answers, unchanged; `vtarget rpc METHOD` gives the same. Of endpoints it is one member for each
of the methods, of controllers, queues and reactors that part of vtarget_get_telemetry.

Examples:
  vtarget get bdevs
  vtarget get stats disk0
  vtarget get namespaces nqn.2026-11.io.example:vm0
  vtarget get controllers --json | jq '.[] | select(.state != \"enabled\") | .name'";

#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct GetArgs {
    #[command(flatten)]
    connection: Connection,

    /// Print JSON for machines
    #[arg(long)]
    json: bool,

    /// What to show
    #[arg(value_enum, value_name = "WHAT")]
    kind: Kind,

    /// Only the one of this name (bdev, NQN, controller, thread, transport, number of a reactor)
    #[arg(add = ArgValueCompleter::new(complete_name))]
    name: Option<String>,
}

/// What can be shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Bdevs,
    Limits,
    Stats,
    Subsystems,
    Namespaces,
    Transports,
    Endpoints,
    Controllers,
    Queues,
    Reactors,
    Pollers,
    Events,
}

/// Where a kind comes from.
struct Source {
    method: &'static str,
    /// The parameter that takes a name, and whether as a list. Without one, answers are searched here.
    param: Option<(&'static str, bool)>,
    /// Where the list is in the answer.
    list: &'static str,
    /// The member of the list's members that is their name.
    key: &'static str,
    /// Whether only the list is shown as JSON: the rest of the answer is about other things.
    part: bool,
}

const TELEMETRY: &str = "vtarget_get_telemetry";

/// The methods behind `endpoints`, what is listed in their answers, and its name.
const ENDPOINTS: [(&str, &str); 3] = [
    ("nvmf_get_subsystems", "nqn"),
    ("vfu_get_endpoints", "name"),
    ("vhost_get_controllers", "ctrlr"),
];

impl Kind {
    const ALL: [Self; 12] = [
        Self::Bdevs,
        Self::Limits,
        Self::Stats,
        Self::Subsystems,
        Self::Namespaces,
        Self::Transports,
        Self::Endpoints,
        Self::Controllers,
        Self::Queues,
        Self::Reactors,
        Self::Pollers,
        Self::Events,
    ];

    /// Name on the command line, its singular, and what it shows.
    fn words(self) -> [&'static str; 3] {
        match self {
            Self::Bdevs => ["bdevs", "bdev", "Disks: product, size, who uses them"],
            Self::Limits => ["limits", "limit", "Rate limits of disks"],
            Self::Stats => [
                "stats",
                "stat",
                "I/O of disks since they exist or were reset",
            ],
            Self::Subsystems => ["subsystems", "subsystem", "NVMe subsystems"],
            Self::Namespaces => ["namespaces", "namespace", "NVMe namespaces"],
            Self::Transports => [
                "transports",
                "transport",
                "NVMe transports and their options",
            ],
            Self::Endpoints => [
                "endpoints",
                "endpoint",
                "Sockets that VMs can be attached to",
            ],
            Self::Controllers => [
                "controllers",
                "controller",
                "Controllers and the guests that use them",
            ],
            Self::Queues => ["queues", "queue", "Queues of controllers"],
            Self::Reactors => [
                "reactors",
                "reactor",
                "Reactor threads and how busy they have been",
            ],
            Self::Pollers => ["pollers", "poller", "What reactors poll"],
            Self::Events => ["events", "event", "The last events that are kept"],
        }
    }

    fn source(self) -> Source {
        let of = |method, param, list, key| Source {
            method,
            param,
            list,
            key,
            part: method == TELEMETRY,
        };
        match self {
            Self::Bdevs | Self::Limits => of("bdev_get_bdevs", Some(("name", false)), "", "name"),
            Self::Stats => of("bdev_get_iostat", Some(("names", true)), "/bdevs", "name"),
            Self::Subsystems | Self::Namespaces => {
                of("nvmf_get_subsystems", Some(("nqn", false)), "", "nqn")
            }
            Self::Transports => of("nvmf_get_transports", Some(("trtype", false)), "", "trtype"),
            Self::Endpoints => of("nvmf_get_subsystems", None, "", "nqn"),
            Self::Controllers | Self::Queues => of(TELEMETRY, None, "/controllers", "name"),
            Self::Reactors => of(TELEMETRY, None, "/reactors", "lcore"),
            Self::Pollers => of("thread_get_pollers", None, "/threads", "name"),
            Self::Events => of("notify_get_notifications", None, "", "type"),
        }
    }
}

impl ValueEnum for Kind {
    fn value_variants<'a>() -> &'a [Self] {
        &Self::ALL
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        let [name, singular, help] = self.words();
        Some(PossibleValue::new(name).alias(singular).help(help))
    }
}

/// Asks and prints.
///
/// # Errors
/// The daemon does not answer, or has nothing of that name.
pub(super) fn run(args: &GetArgs) -> anyhow::Result<()> {
    let mut client = args.connection.open()?;
    let answer = fetch(&mut client, args.kind, args.name.as_deref())?;
    if args.json {
        super::say(&serde_json::to_string_pretty(&answer)?);
    } else {
        super::say(&tables::of(args.kind, &answer).print(Style::of_stdout()));
    }
    Ok(())
}

/// Prints a table about one thing, for commands that have changed it.
pub(super) fn show(connection: &Connection, kind: Kind, name: &str) -> anyhow::Result<()> {
    let answer = fetch(&mut connection.open()?, kind, Some(name))?;
    super::say(&tables::of(kind, &answer).print(Style::of_stdout()));
    Ok(())
}

/// What `--json` prints.
fn fetch(client: &mut Client, kind: Kind, name: Option<&str>) -> anyhow::Result<Value> {
    if kind == Kind::Endpoints {
        return endpoints(client, name);
    }
    let source = kind.source();
    let params = match (source.param, name) {
        (Some((key, true)), Some(name)) => json!({ key: [name] }),
        (Some((key, false)), Some(name)) => json!({ key: name }),
        _ => Value::Null,
    };
    let mut answer = call(client, source.method, params)?;
    if source.part
        && let Some(list) = answer.pointer_mut(source.list)
    {
        answer = list.take();
    }
    if source.param.is_none()
        && let Some(name) = name
    {
        let list = if source.part { "" } else { source.list };
        if let Some(list) = answer.pointer_mut(list) {
            let there = keep(list, source.key, name);
            if list.as_array().is_none_or(Vec::is_empty) {
                return Err(missing(kind, name, &there));
            }
        }
    }
    Ok(answer)
}

/// Keeps the members of this name; the names that there were.
fn keep(list: &mut Value, key: &str, name: &str) -> Vec<String> {
    let mut there = Vec::new();
    if let Value::Array(members) = list {
        members.retain(|member| {
            let found = tables::text(&member[key]);
            let keep = found == name;
            there.push(found);
            keep
        });
    }
    there
}

fn missing(kind: Kind, name: &str, there: &[String]) -> anyhow::Error {
    /// More names than this help nobody.
    const MOST: usize = 10;
    let [_, singular, _] = kind.words();
    let mut names: Vec<&str> = there.iter().map(String::as_str).collect();
    names.dedup();
    let more = match names.len().checked_sub(MOST) {
        Some(1..) => ", …",
        _ => "",
    };
    names.truncate(MOST);
    match names.as_slice() {
        [] => anyhow::anyhow!("there is no {singular} `{name}`, and no other"),
        names => anyhow::anyhow!(
            "there is no {singular} `{name}`; there are {}{more}",
            names.join(", ")
        ),
    }
}

/// The answers of all methods that know sockets, by method.
fn endpoints(client: &mut Client, name: Option<&str>) -> anyhow::Result<Value> {
    let mut answers = Map::new();
    let mut there = Vec::new();
    let mut found = false;
    for (method, key) in ENDPOINTS {
        let mut answer = call(client, method, Value::Null)?;
        if let Some(name) = name {
            there.extend(keep(&mut answer, key, name));
            found |= answer.as_array().is_some_and(|list| !list.is_empty());
        }
        answers.insert(method.to_owned(), answer);
    }
    match name {
        Some(name) if !found => Err(missing(Kind::Endpoints, name, &there)),
        _ => Ok(answers.into()),
    }
}

/// Names of the kind that the command line asks for.
fn complete_name(current: &OsStr) -> Vec<CompletionCandidate> {
    let words = completions::words();
    let kinds = words.iter().filter_map(|word| word.to_str());
    let kind = kinds
        .skip(2)
        .find_map(|word| Kind::from_str(word, false).ok());
    match kind {
        Some(Kind::Endpoints) => {
            let all = ENDPOINTS.iter();
            all.flat_map(|(method, key)| completions::names(method, "", key, current))
                .collect()
        }
        Some(kind) => {
            let source = kind.source();
            completions::names(source.method, source.list, source.key, current)
        }
        None => Vec::new(),
    }
}

#[cfg(test)]
mod tests;
