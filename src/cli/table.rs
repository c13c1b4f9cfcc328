//! Tables for people: aligned, as wide as the terminal, with a bold head where the reader is one.
//!
//! Piped output is never cut and never coloured, so that `vtarget get … | grep` finds whole names.

use std::fmt::Write as _;
use std::io::IsTerminal;

use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// On which side of a column its values stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Align {
    /// Names.
    Left,
    /// Numbers.
    Right,
}

/// Rows under a head.
#[derive(Clone, Debug)]
pub(super) struct Table {
    columns: Vec<(&'static str, Align)>,
    rows: Vec<Vec<String>>,
    /// What to say in place of a head without rows.
    empty: &'static str,
}

/// How to print.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Style {
    /// Longest line, in columns of the terminal.
    pub(super) width: Option<usize>,
    /// Whether escape sequences are understood and wanted.
    pub(super) bold: bool,
}

impl Style {
    /// What standard output is good for (NO_COLOR: no-color.org).
    pub(super) fn of_stdout() -> Self {
        if !std::io::stdout().is_terminal() {
            return Self::default();
        }
        let size = ratatui::crossterm::terminal::size();
        let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
            || std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        Self {
            width: size.ok().map(|(width, _)| usize::from(width)),
            bold: !plain,
        }
    }
}

/// Between two columns.
const GAP: usize = 2;
/// A cut column keeps at least this much.
const LEAST: usize = 8;

impl Table {
    pub(super) fn new(empty: &'static str, columns: &[(&'static str, Align)]) -> Self {
        Self {
            columns: columns.to_vec(),
            rows: Vec::new(),
            empty,
        }
    }

    /// Adds a row. What could move a cursor is replaced: names come from elsewhere.
    pub(super) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        let cells = cells.into_iter().map(|cell| printable(&cell));
        self.rows.push(cells.collect());
    }

    pub(super) fn print(&self, style: Style) -> String {
        if self.rows.is_empty() {
            return self.empty.to_owned();
        }
        let widths = self.widths(style.width);
        let head = self.columns.iter().map(|(name, _)| *name);
        let mut text = self.line(head, &widths);
        if style.bold {
            text = format!("\x1b[1m{text}\x1b[0m");
        }
        for row in &self.rows {
            text.push('\n');
            text.push_str(&self.line(row.iter().map(String::as_str), &widths));
        }
        text
    }

    fn line<'a>(&self, cells: impl Iterator<Item = &'a str>, widths: &[usize]) -> String {
        let mut line = String::new();
        for ((cell, (_, align)), width) in cells.zip(&self.columns).zip(widths) {
            let cell = cut(cell, *width);
            let pad = width.saturating_sub(cell.width());
            let (before, after) = match align {
                Align::Left => (0, pad),
                Align::Right => (pad, 0),
            };
            let _ = write!(line, "{:before$}{cell}{:after$}{:GAP$}", "", "", "");
        }
        line.truncate(line.trim_end().len());
        line
    }

    /// The widths that values need, less what the longest names give up so that a line fits.
    fn widths(&self, most: Option<usize>) -> Vec<usize> {
        let mut widths: Vec<usize> = self
            .columns
            .iter()
            .enumerate()
            .map(|(index, (name, _))| {
                let cells = self.rows.iter().filter_map(|row| row.get(index));
                cells
                    .map(|cell| cell.width())
                    .fold(name.width(), usize::max)
            })
            .collect();
        let Some(most) = most else {
            return widths;
        };
        let gaps = GAP * widths.len().saturating_sub(1);
        let mut excess = (widths.iter().sum::<usize>() + gaps).saturating_sub(most);
        while excess > 0 {
            let widest = widths
                .iter_mut()
                .zip(&self.columns)
                .filter(|(width, (name, align))| {
                    *align == Align::Left && **width > LEAST.max(name.width())
                })
                .map(|(width, _)| width)
                .max_by_key(|width| **width);
            // Numbers are worth more than a line's end: a terminal wraps it.
            let Some(widest) = widest else {
                break;
            };
            *widest -= 1;
            excess -= 1;
        }
        widths
    }
}

/// The text without control characters.
pub(super) fn printable(text: &str) -> String {
    let shown = |c: char| if c.is_control() { '\u{fffd}' } else { c };
    text.chars().map(shown).collect()
}

/// The text, or its beginning and an ellipsis.
pub(super) fn cut(text: &str, width: usize) -> String {
    if text.width() <= width {
        return text.to_owned();
    }
    let mut left = width.saturating_sub(1);
    let kept = text.chars().take_while(|c| {
        let needs = c.width().unwrap_or(0);
        let fits = needs <= left;
        left = left.saturating_sub(needs);
        fits
    });
    let mut kept: String = kept.collect();
    if width > 0 {
        kept.push('…');
    }
    kept
}

#[cfg(test)]
mod tests;
