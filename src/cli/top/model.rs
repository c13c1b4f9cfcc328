//! What `top` shows and how: everything that a key or a sample changes, and nothing of terminals and sockets.

use std::cmp::Ordering;
use std::collections::VecDeque;
use std::time::Duration;

use super::panels::{Panel, Row};
use super::rates::Picture;
use crate::telemetry::Telemetry;

/// Intervals that `+` and `-` go through, in milliseconds.
const INTERVALS: [u64; 9] = [100, 250, 500, 1000, 2000, 5000, 10_000, 30_000, 60_000];
/// Events that are kept to be shown.
const EVENTS: usize = 100;

/// How a panel is sorted and where it is scrolled to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct View {
    pub(super) sort: usize,
    pub(super) reversed: bool,
    pub(super) scroll: usize,
}

/// Something that happened, as the daemon notified it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Event {
    pub(super) kind: String,
    pub(super) context: String,
    /// On the model's clock; `None` for what happened before anybody looked.
    pub(super) at: Option<Duration>,
}

/// Whether the daemon answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Link {
    /// Nothing has come yet.
    Connecting,
    Up,
    /// It does not, why, and since when on the model's clock.
    Down {
        reason: String,
        since: Duration,
    },
}

/// What the keyboard is about.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Mode {
    #[default]
    Normal,
    Help,
    /// The filter is being written; what it was before.
    Filter {
        before: String,
    },
}

/// Everything that is shown.
#[derive(Debug)]
pub(super) struct Model {
    pub(super) picture: Picture,
    pub(super) link: Link,
    pub(super) socket: String,
    pub(super) interval: Duration,
    pub(super) paused: bool,
    pub(super) mode: Mode,
    pub(super) filter: String,
    pub(super) focus: Panel,
    /// Whether the panel in focus has the whole screen, with details.
    pub(super) zoomed: bool,
    views: [View; 3],
    pub(super) events: VecDeque<Event>,
    /// Time since `top` has started.
    pub(super) clock: Duration,
    /// The sample that came while nothing may move.
    held: Option<Telemetry>,
}

impl Model {
    pub(super) fn new(socket: String, interval: Duration) -> Self {
        let view = |panel: Panel| View {
            sort: panel.first_sort(),
            reversed: false,
            scroll: 0,
        };
        Self {
            picture: Picture::default(),
            link: Link::Connecting,
            socket,
            interval,
            paused: false,
            mode: Mode::Normal,
            filter: String::new(),
            focus: Panel::default(),
            zoomed: false,
            views: Panel::ALL.map(view),
            events: VecDeque::new(),
            clock: Duration::ZERO,
            held: None,
        }
    }

    /// Takes in a picture of the daemon.
    pub(super) fn sample(&mut self, telemetry: Telemetry) {
        let restarted = self.picture.now.pid != 0 && self.picture.now.pid != telemetry.pid;
        if restarted {
            self.event(
                "daemon",
                &format!("another process, pid {}", telemetry.pid),
                true,
            );
        }
        self.link = Link::Up;
        if self.paused {
            self.held = Some(telemetry);
        } else {
            self.picture.update(telemetry);
        }
    }

    /// The daemon does not answer.
    pub(super) fn lost(&mut self, reason: String) {
        let since = match &self.link {
            Link::Down { since, .. } => *since,
            _ => self.clock,
        };
        self.link = Link::Down { reason, since };
    }

    /// Something has happened; `new` if while somebody looked.
    pub(super) fn event(&mut self, kind: &str, context: &str, new: bool) {
        if self.events.len() == EVENTS {
            self.events.pop_front();
        }
        self.events.push_back(Event {
            kind: kind.to_owned(),
            context: context.to_owned(),
            at: new.then_some(self.clock),
        });
    }

    pub(super) fn toggle_pause(&mut self) {
        self.paused = !self.paused;
        if !self.paused
            && let Some(held) = self.held.take()
        {
            self.picture.update(held);
        }
    }

    /// The next longer or shorter interval.
    pub(super) fn change_interval(&mut self, longer: bool) {
        let now = u64::try_from(self.interval.as_millis()).unwrap_or(u64::MAX);
        let next = if longer {
            INTERVALS.into_iter().find(|it| *it > now)
        } else {
            INTERVALS.into_iter().rev().find(|it| *it < now)
        };
        if let Some(next) = next {
            self.interval = Duration::from_millis(next);
        }
    }

    pub(super) fn view(&self, panel: Panel) -> View {
        let [reactors, bdevs, controllers] = self.views;
        match panel {
            Panel::Reactors => reactors,
            Panel::Bdevs => bdevs,
            Panel::Controllers => controllers,
        }
    }

    pub(super) fn view_mut(&mut self, panel: Panel) -> &mut View {
        let [reactors, bdevs, controllers] = &mut self.views;
        match panel {
            Panel::Reactors => reactors,
            Panel::Bdevs => bdevs,
            Panel::Controllers => controllers,
        }
    }

    /// Moves the focus to the next panel, or the one before.
    pub(super) fn next_panel(&mut self, forward: bool) {
        self.focus = match (self.focus, forward) {
            (Panel::Reactors, true) | (Panel::Controllers, false) => Panel::Bdevs,
            (Panel::Bdevs, true) | (Panel::Reactors, false) => Panel::Controllers,
            (Panel::Controllers, true) | (Panel::Bdevs, false) => Panel::Reactors,
        };
    }

    /// Sorts the panel in focus by the next column, or the one before.
    pub(super) fn next_sort(&mut self, forward: bool) {
        let columns = self.focus.columns().len();
        let view = self.view_mut(self.focus);
        let step = if forward { 1 } else { columns - 1 };
        *view = View {
            sort: (view.sort + step) % columns,
            reversed: false,
            scroll: 0,
        };
    }

    /// Sorts the panel in focus by the column of this title, if it has one.
    pub(super) fn sort_by(&mut self, title: &str) {
        let mut titles = self.focus.columns().iter().map(|column| column.title);
        if let Some(sort) = titles.position(|it| it.eq_ignore_ascii_case(title)) {
            *self.view_mut(self.focus) = View {
                sort,
                reversed: false,
                scroll: 0,
            };
        }
    }

    /// The panel's rows that pass the filter, in order, and how many there are without it.
    pub(super) fn rows(&self, panel: Panel) -> (Vec<Row>, usize) {
        let mut rows = panel.rows(&self.picture);
        let all = rows.len();
        // Reactors have no names to look for.
        if !self.filter.is_empty() && panel != Panel::Reactors {
            let wanted = self.filter.to_lowercase();
            rows.retain(|row| {
                let mut names = row.cells.iter().filter(|cell| cell.value.is_none());
                names.any(|cell| cell.text.to_lowercase().contains(&wanted))
            });
        }
        let view = self.view(panel);
        rows.sort_by(|a, b| {
            let order = compare(a, b, view.sort);
            if view.reversed {
                order.reverse()
            } else {
                order
            }
        });
        (rows, all)
    }
}

/// Numbers from the largest, names from A, reactors from the first; rows that are equal there by name.
fn compare(a: &Row, b: &Row, column: usize) -> Ordering {
    let (Some(x), Some(y)) = (a.cells.get(column), b.cells.get(column)) else {
        return Ordering::Equal;
    };
    let names = || match (a.cells.first(), b.cells.first()) {
        (Some(a), Some(b)) => match (a.value, b.value) {
            (Some(a), Some(b)) => a.total_cmp(&b),
            _ => a.text.cmp(&b.text),
        },
        _ => Ordering::Equal,
    };
    let order = match (x.value, y.value) {
        _ if column == 0 => Ordering::Equal,
        (Some(x), Some(y)) => y.total_cmp(&x),
        _ => x.text.cmp(&y.text),
    };
    order.then_with(names)
}

#[cfg(test)]
mod tests;
