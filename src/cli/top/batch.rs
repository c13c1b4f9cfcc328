//! `top` as text.

use std::io::{ErrorKind, Write};
use std::thread;

use anyhow::Context;

use super::model::Model;
use super::panels::Panel;
use super::render;
use super::source::Source;
use crate::cli::table::{Style, Table};

/// Prints so many intervals, or intervals until nobody reads.
///
/// # Errors
/// The daemon has gone: a script must not take silence for idleness.
pub(super) fn run(
    mut model: Model,
    mut source: Source,
    iterations: Option<u64>,
) -> anyhow::Result<()> {
    model.sample(source.look()?.telemetry);
    let mut done = 0;
    while iterations.is_none_or(|iterations| done < iterations) {
        thread::sleep(model.interval);
        model.sample(source.look()?.telemetry);
        let gap = if done > 0 { "\n" } else { "" };
        let text = format!("{gap}{}\n", text(&model, Style::of_stdout()));
        let mut out = std::io::stdout().lock();
        match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
            Err(error) if error.kind() == ErrorKind::BrokenPipe => break,
            outcome => outcome.context("standard output")?,
        }
        done += 1;
    }
    Ok(())
}

/// The picture, with all columns.
fn text(model: &Model, style: Style) -> String {
    let mut parts = vec![format!(
        "{}\n{}",
        render::title(model),
        render::totals(model)
    )];
    for panel in Panel::ALL {
        let columns = panel.columns().iter();
        let columns: Vec<_> = columns.map(|column| (column.title, column.align)).collect();
        let empty = match panel {
            Panel::Reactors => "no reactors",
            Panel::Bdevs => "no bdevs",
            Panel::Controllers => "no controllers",
        };
        let mut table = Table::new(empty, &columns);
        for row in model.rows(panel).0 {
            table.row(row.cells.into_iter().map(|cell| cell.text));
        }
        // Cut names are of no use to a reader who cannot ask for more.
        let style = Style {
            width: None,
            ..style
        };
        parts.push(table.print(style));
    }
    parts.join("\n\n")
}

#[cfg(test)]
mod tests;
