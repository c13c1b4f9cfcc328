//! `vtarget save` and `vtarget load`: the whole configuration of a running daemon, in SPDK's shape.

use std::collections::HashSet;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::{Args, ValueHint};
use rpc::config::{Call, Config, Entry};
use rpc::{Client, ClientError};
use serde_json::{Value, json};

use super::connection::{Connection, call};

const SAVE_EXAMPLES: &str = "\
The file is what `rpc.py save_config` would write, and `vtarget serve -c FILE` or `vtarget load FILE` read. It replaces one that is
there only when all of it is on the disk.

Examples:
  vtarget save /etc/vtarget/config.json
  vtarget save | jq '.subsystems[].subsystem'";

const LOAD_EXAMPLES: &str = "\
What a daemon that waits before initialization (`vtarget serve --wait-for-rpc`) must know first is called first, then it is
initialized. A daemon that is past that cannot be told any more; how many calls that concerns is said, and the rest is loaded.
It stops at the first call that is refused: what was called before stays.

Examples:
  vtarget load /etc/vtarget/config.json
  ssh other vtarget save | vtarget load -";

#[derive(Args, Debug)]
#[command(after_help = SAVE_EXAMPLES)]
pub(crate) struct SaveArgs {
    #[command(flatten)]
    connection: Connection,

    /// Where to; standard output unless given
    #[arg(value_hint = ValueHint::FilePath)]
    file: Option<PathBuf>,
}

#[derive(Args, Debug)]
#[command(after_help = LOAD_EXAMPLES)]
pub(crate) struct LoadArgs {
    #[command(flatten)]
    connection: Connection,

    /// Where from; `-` is standard input
    #[arg(value_hint = ValueHint::FilePath)]
    file: PathBuf,
}

/// Asks each subsystem for the calls that make it again.
///
/// # Errors
/// The daemon does not answer, or the file cannot be written.
pub(super) fn save(args: &SaveArgs) -> anyhow::Result<()> {
    let mut client = args.connection.open()?;
    let known = call(&mut client, "framework_get_subsystems", Value::Null)?;
    let mut subsystems = Vec::new();
    for subsystem in known.as_array().into_iter().flatten() {
        let name = &subsystem["subsystem"];
        let config = call(&mut client, "framework_get_config", json!({ "name": name }))?;
        subsystems.push(json!({"subsystem": name, "config": config}));
    }
    let text = serde_json::to_string_pretty(&json!({ "subsystems": subsystems }))?;
    match &args.file {
        None => super::say(&text),
        Some(path) => {
            replace(path, &text).with_context(|| format!("cannot write {}", path.display()))?
        }
    }
    Ok(())
}

/// Writes a file so that there is always the former one or the whole new one.
fn replace(path: &Path, text: &str) -> std::io::Result<()> {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".new-{}", std::process::id()));
    let new = PathBuf::from(name);
    let written = || {
        let mut file = File::create_new(&new)?;
        file.write_all(text.as_bytes())?;
        file.write_all(b"\n")?;
        file.sync_all()?;
        std::fs::rename(&new, path)?;
        let directory = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        File::open(directory)?.sync_all()
    };
    written().inspect_err(|_| {
        let _ = std::fs::remove_file(&new);
    })
}

/// Calls what a file says, as `rpc.py load_config` does.
///
/// # Errors
/// The file makes no sense, the daemon does not answer, or refuses a call.
pub(super) fn load(args: &LoadArgs) -> anyhow::Result<()> {
    let config = if args.file.as_os_str() == "-" {
        let text = std::io::read_to_string(std::io::stdin()).context("standard input")?;
        Config::parse(text.as_bytes())?
    } else {
        Config::read(&args.file)?
    };
    let mut client = args.connection.open()?;
    let mut left: Vec<Call> = calls(config);
    let mut done = 0;
    let known = methods(&mut client, false)?;
    if let Some(call) = left.iter().find(|call| !known.contains(&call.method)) {
        bail!(
            "{}, {}: there is no method {}",
            args.file.display(),
            call.place,
            call.method
        );
    }
    loop {
        let allowed = methods(&mut client, true)?;
        let (now, later): (Vec<Call>, Vec<Call>) = left
            .into_iter()
            .partition(|call| allowed.contains(&call.method));
        for Call {
            method,
            params,
            place,
        } in now
        {
            let refused = || format!("{}, {place}, {method}", args.file.display());
            match client.call(&method, params.value().cloned().unwrap_or_default()) {
                Ok(_) => done += 1,
                Err(error @ ClientError::Rpc(_)) => {
                    let place = format!("{}; {done} calls before it were made", refused());
                    return Err(anyhow::Error::new(error).context(place));
                }
                Err(error) => return Err(error).with_context(refused),
            }
        }
        left = later;
        if !allowed.contains("framework_start_init") {
            break;
        }
        call(&mut client, "framework_start_init", Value::Null)?;
    }
    super::say(&format!("{done} calls made"));
    if !left.is_empty() {
        let mut names: Vec<&str> = left.iter().map(|call| call.method.as_str()).collect();
        names.dedup();
        let (count, names) = (left.len(), names.join(", "));
        super::say(&format!(
            "{count} left out, as they are possible before initialization only: {names}"
        ));
    }
    Ok(())
}

/// The calls in the file's order, but for the one that is made between the two passes.
fn calls(config: Config) -> Vec<Call> {
    let entries = config.subsystems.into_iter().flat_map(|it| it.entries);
    let calls = entries.flat_map(|entry| match entry {
        Entry::Call(call) => vec![call],
        Entry::Batch(calls) => calls,
    });
    calls
        .filter(|call| call.method != "framework_start_init")
        .collect()
}

/// All methods, or those that may be called in the daemon's present state.
fn methods(client: &mut Client, current: bool) -> anyhow::Result<HashSet<String>> {
    let answer = call(client, "rpc_get_methods", json!({ "current": current }))?;
    let names = answer.as_array().into_iter().flatten();
    Ok(names
        .filter_map(|name| Some(name.as_str()?.to_owned()))
        .collect())
}
