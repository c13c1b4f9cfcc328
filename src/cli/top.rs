//! `vtarget top`: what the daemon is doing now, over the RPC socket alone.
//!
//! ```text
//!  sampler thread ── picture, or why there is none ─┐
//!  input thread ──── keys, resize ──────────────────┼──► main: Model ──► render ──► terminal
//!  signal thread ─── terminate ─────────────────────┘      ▲
//!                                                        keys
//! ```
//! A daemon that does not answer must not hold up the keyboard, so asking has a thread of its own. [`model`], [`keys`], [`panels`]
//! and [`render`] know neither sockets nor terminals.

mod batch;
mod keys;
mod model;
mod panels;
mod rates;
mod render;
mod screen;
mod source;

#[cfg(test)]
mod samples;

use std::io::IsTerminal;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;

use super::connection::{Connection, Usage};
use model::Model;
use panels::Panel;

const EXAMPLES: &str = "\
Rates and percentiles are those of the last interval, counters of errors those since the thing exists. A bdev that stands on
another is counted beside it. Reads and writes are the daemon's; nothing runs in guests.

Keys: ? shows all of them. Tab goes to the next table, Enter gives it the whole screen with its details, arrows choose the column
to sort by, / filters names, space holds the picture, + and - change the interval, q ends it.

Examples:
  vtarget top
  vtarget top -i 0.5 --filter vm0 --sort P99
  vtarget top --once                                  one interval, as text
  vtarget top --batch -n 60 -i 10 > ten-minutes.txt";

#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct TopArgs {
    #[command(flatten)]
    connection: Connection,

    /// Seconds between two looks, from 0.1 to 3600
    #[arg(short, long, value_name = "SECONDS", default_value = "1", value_parser = parse_interval)]
    interval: Duration,

    /// Print text instead of taking the screen; also done where standard output is no terminal
    #[arg(short, long)]
    batch: bool,

    /// Print this many intervals as text, then end
    #[arg(short = 'n', long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    iterations: Option<u64>,

    /// The same as -n 1
    #[arg(long, conflicts_with = "iterations")]
    once: bool,

    /// Show only bdevs and controllers that this text is in the name, state or disks of
    #[arg(
        long,
        value_name = "TEXT",
        default_value = "",
        hide_default_value = true
    )]
    filter: String,

    /// Column to sort by, such as IOPS, P99 or ERRORS, in the tables that have it
    #[arg(long, value_name = "COLUMN")]
    sort: Option<String>,
}

fn parse_interval(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().unwrap_or(f64::NAN);
    if !(0.1..=3600.0).contains(&seconds) {
        return Err("give seconds from 0.1 to 3600".to_owned());
    }
    Ok(Duration::from_secs_f64(seconds))
}

/// Shows the daemon until the user has seen enough.
///
/// # Errors
/// There is no daemon to begin with, it cannot be watched, or the terminal is gone.
pub(super) fn run(args: &TopArgs) -> anyhow::Result<ExitCode> {
    let socket = args.connection.socket.display().to_string();
    let mut model = Model::new(socket, args.interval);
    model.filter.clone_from(&args.filter);
    if let Some(column) = &args.sort {
        sort(&mut model, column)?;
    }
    let source = source::Source::connect(&args.connection)?;
    let iterations = if args.once { Some(1) } else { args.iterations };
    if args.batch || iterations.is_some() || !std::io::stdout().is_terminal() {
        batch::run(model, source, iterations)?;
        return Ok(ExitCode::SUCCESS);
    }
    screen::run(model, source)
}

/// Sorts every table that has this column, and begins with one of them.
fn sort(model: &mut Model, column: &str) -> Result<(), Usage> {
    let has = |panel: Panel| {
        let mut columns = panel.columns().iter();
        columns.any(|it| it.title.eq_ignore_ascii_case(column))
    };
    let tables = [Panel::Reactors, Panel::Controllers, Panel::Bdevs];
    let found = tables.into_iter().filter(|panel| has(*panel));
    let found: Vec<Panel> = found.collect();
    for panel in &found {
        model.focus = *panel;
        model.sort_by(column);
    }
    if !found.is_empty() {
        return Ok(());
    }
    let columns = tables.iter().flat_map(|panel| panel.columns());
    let mut titles: Vec<&str> = columns.map(|column| column.title).collect();
    titles.sort_unstable();
    titles.dedup();
    let titles = titles.join(", ");
    Err(Usage(format!(
        "there is no column {column}; there are {titles}"
    )))
}
