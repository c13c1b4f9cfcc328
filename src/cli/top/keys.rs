//! What keys do.

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use super::model::{Mode, Model};
use super::panels::Panel;

/// What is to be done beyond the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    None,
    Quit,
    /// Stop like any program that the terminal's user stops.
    Suspend,
    /// Draw everything anew: something else has written to the terminal.
    Repaint,
    /// The interval is another one.
    Interval,
}

/// All keys, for the help.
pub(super) const HELP: &[(&str, &str)] = &[
    ("Tab, 1 2 3", "next table; reactors, bdevs, controllers"),
    (
        "Enter, z",
        "table on the whole screen with details, and back",
    ),
    ("Left, Right", "sort by another column"),
    ("n i l e", "sort by name, IOPS, latency (P99), errors"),
    ("r", "reverse the order"),
    ("Up, Down, PgUp, PgDn, Home, End", "scroll"),
    ("/", "filter by text; Enter keeps it, Esc takes it back"),
    ("Esc", "take away filter, then the whole screen"),
    ("Space, p", "hold the picture, and go on"),
    ("+ -", "longer, shorter interval"),
    ("Ctrl-L", "draw anew"),
    ("?, h", "this help"),
    ("q, Ctrl-C", "end"),
];

/// Rows of one key press.
const PAGE: usize = 10;
/// A longer filter finds nothing anyway.
const FILTER: usize = 64;

pub(super) fn handle(model: &mut Model, key: KeyEvent) -> Action {
    if key.kind == KeyEventKind::Release {
        return Action::None;
    }
    if key.modifiers.contains(KeyModifiers::CONTROL) {
        return match key.code {
            KeyCode::Char('c') => Action::Quit,
            KeyCode::Char('z') => Action::Suspend,
            KeyCode::Char('l') => Action::Repaint,
            _ => Action::None,
        };
    }
    match std::mem::take(&mut model.mode) {
        Mode::Normal => normal(model, key.code),
        // Any key leaves the help, as in every program.
        Mode::Help => Action::None,
        Mode::Filter { before } => filter(model, key.code, before),
    }
}

fn filter(model: &mut Model, key: KeyCode, before: String) -> Action {
    match key {
        KeyCode::Enter => return Action::None,
        KeyCode::Esc => {
            model.filter = before;
            return Action::None;
        }
        KeyCode::Backspace => drop(model.filter.pop()),
        KeyCode::Char(c) if model.filter.chars().count() < FILTER => model.filter.push(c),
        _ => {}
    }
    model.mode = Mode::Filter { before };
    Action::None
}

fn normal(model: &mut Model, key: KeyCode) -> Action {
    let focus = model.focus;
    match key {
        KeyCode::Char('q') => return Action::Quit,
        KeyCode::Char('?' | 'h') | KeyCode::F(1) => model.mode = Mode::Help,
        KeyCode::Tab => model.next_panel(true),
        KeyCode::BackTab => model.next_panel(false),
        KeyCode::Char('1') => model.focus = Panel::Reactors,
        KeyCode::Char('2') => model.focus = Panel::Bdevs,
        KeyCode::Char('3') => model.focus = Panel::Controllers,
        KeyCode::Enter | KeyCode::Char('z') => model.zoomed = !model.zoomed,
        KeyCode::Right | KeyCode::Char('>') => model.next_sort(true),
        KeyCode::Left | KeyCode::Char('<') => model.next_sort(false),
        KeyCode::Char('r') => {
            let view = model.view_mut(focus);
            view.reversed = !view.reversed;
        }
        KeyCode::Char('n') => model.sort_by(focus.columns().first().map_or("", |it| it.title)),
        KeyCode::Char('i') => model.sort_by("IOPS"),
        KeyCode::Char('l') => model.sort_by("P99"),
        KeyCode::Char('e') => model.sort_by("ERRORS"),
        KeyCode::Up | KeyCode::Char('k') => scroll(model, |at| at.saturating_sub(1)),
        KeyCode::Down | KeyCode::Char('j') => scroll(model, |at| at.saturating_add(1)),
        KeyCode::PageUp => scroll(model, |at| at.saturating_sub(PAGE)),
        KeyCode::PageDown => scroll(model, |at| at.saturating_add(PAGE)),
        KeyCode::Home | KeyCode::Char('g') => scroll(model, |_| 0),
        // Drawing brings it back to the last page.
        KeyCode::End | KeyCode::Char('G') => scroll(model, |_| usize::MAX),
        KeyCode::Char('/') => {
            let before = model.filter.clone();
            model.mode = Mode::Filter { before };
        }
        KeyCode::Esc if !model.filter.is_empty() => model.filter.clear(),
        KeyCode::Esc => model.zoomed = false,
        KeyCode::Char(' ' | 'p') => model.toggle_pause(),
        KeyCode::Char('+' | '=') => {
            model.change_interval(true);
            return Action::Interval;
        }
        KeyCode::Char('-') => {
            model.change_interval(false);
            return Action::Interval;
        }
        _ => {}
    }
    Action::None
}

fn scroll(model: &mut Model, to: impl FnOnce(usize) -> usize) {
    let view = model.view_mut(model.focus);
    view.scroll = to(view.scroll);
}
