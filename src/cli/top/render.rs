//! The picture on a screen.

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Clear, Paragraph, Wrap};
use unicode_width::UnicodeWidthStr;

use super::keys;
use super::model::{Event, Link, Mode, Model};
use super::panels::{Cell, Column, Panel, Row, Tone};
use crate::cli::table::{Align, cut, printable};
use crate::cli::units::{count, lossy, megabytes, percent, uptime};
use crate::telemetry::ControllerState;

/// Less shows nothing that makes sense.
const LEAST: (u16, u16) = (50, 14);
/// A column of numbers keeps this width, so that the picture stands still.
const NUMBER: usize = 7;
/// Narrowest name.
const NAME: usize = 8;
/// Tallest list of events.
const EVENTS: u16 = 3;

/// Which attributes to use.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Theme {
    pub(super) color: bool,
}

impl Theme {
    /// See no-color.org.
    pub(super) fn of_environment() -> Self {
        let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self { color: !plain }
    }

    fn tone(self, tone: Tone) -> Style {
        let color = match tone {
            Tone::Plain => return Style::new(),
            Tone::Good => Color::Green,
            Tone::Warn => Color::Yellow,
            Tone::Bad => Color::Red,
        };
        match (self.color, tone) {
            (true, _) => Style::new().fg(color),
            (false, Tone::Bad) => Style::new().add_modifier(Modifier::BOLD),
            (false, _) => Style::new(),
        }
    }

    fn bar(self, focus: bool) -> Style {
        match (self.color, focus) {
            (true, true) => Style::new().fg(Color::Black).bg(Color::Cyan),
            (true, false) => Style::new().fg(Color::White).bg(Color::DarkGray),
            (false, true) => Style::new().add_modifier(Modifier::REVERSED | Modifier::BOLD),
            (false, false) => Style::new().add_modifier(Modifier::REVERSED),
        }
    }
}

/// Draws everything. Scrolls back what is scrolled too far.
pub(super) fn draw(frame: &mut Frame<'_>, model: &mut Model, theme: Theme) {
    let area = frame.area();
    let (width, height) = LEAST;
    if area.width < width || area.height < height {
        let text = format!(
            "The terminal has {}x{}; {width}x{height} is the least. q ends.",
            area.width, area.height
        );
        frame.render_widget(Paragraph::new(text).wrap(Wrap { trim: true }), area);
        return;
    }
    let mut lines = Lines { area, used: 0 };
    let bold = Style::new().add_modifier(Modifier::BOLD);
    lines.put(frame, Line::styled(title(model), bold));
    lines.put(frame, status(model, theme));
    let events = EVENTS.min(area.height.saturating_sub(16) / 4 + 1);
    let below = events + 1;
    let room = area.height.saturating_sub(lines.used + below);
    for (panel, height) in heights(model, room) {
        table(frame, lines.take(height), model, panel, theme);
    }
    let mut foot = Lines {
        area,
        used: area.height.saturating_sub(below),
    };
    let newest = model.events.iter().rev().take(events.into());
    for event in newest.collect::<Vec<_>>().into_iter().rev() {
        foot.put(frame, Line::raw(happened(event, model)));
    }
    foot.used = area.height.saturating_sub(1);
    foot.put(frame, keys_line(model));
    if model.mode == Mode::Help {
        help(frame, model);
    }
}

/// Lines of the screen, from the top.
struct Lines {
    area: Rect,
    used: u16,
}

impl Lines {
    fn take(&mut self, height: u16) -> Rect {
        let area = Rect {
            y: self.area.y.saturating_add(self.used),
            height,
            ..self.area
        };
        self.used = self.used.saturating_add(height);
        area.intersection(self.area)
    }

    fn put(&mut self, frame: &mut Frame<'_>, line: Line<'_>) {
        let area = self.take(1);
        frame.render_widget(line, area);
    }
}

/// Who is shown.
pub(super) fn title(model: &Model) -> String {
    let now = &model.picture.now;
    if now.pid == 0 {
        return format!("vtarget at {}", printable(&model.socket));
    }
    let guests = now.controllers.iter();
    let guests = guests.filter(|it| it.state != ControllerState::Listening);
    format!(
        "vtarget {}, pid {}, up {}: {}, {}, {}",
        printable(&now.version),
        now.pid,
        uptime(now.uptime_ms / 1000),
        plural(now.reactors.len(), "reactor"),
        plural(now.bdevs.len(), "bdev"),
        plural(guests.count(), "guest"),
    )
}

fn plural(number: usize, what: &str) -> String {
    let end = if number == 1 { "" } else { "s" };
    format!("{number} {what}{end}")
}

/// What all do together.
pub(super) fn totals(model: &Model) -> String {
    let picture = &model.picture;
    if !picture.has_rates() {
        return "measuring".to_owned();
    }
    let flow = picture.all_bdevs();
    let times = picture.now.reactors.iter();
    let times = times.map(|reactor| picture.reactor_time(reactor));
    let (busy, all) = times.fold((0.0, 0.0), |(busy, all), (more, of)| {
        (busy + lossy(more), all + lossy(of))
    });
    format!(
        "{} IOPS, {} MB/s read, {} MB/s written, reactors {} % busy, over {:.1} s",
        count(flow.requests),
        megabytes(flow.read_bytes),
        megabytes(flow.written_bytes),
        percent(busy, all),
        picture.seconds(),
    )
}

fn status(model: &Model, theme: Theme) -> Line<'static> {
    match &model.link {
        Link::Connecting => Line::raw("connecting"),
        Link::Down { reason, since } => {
            let seconds = model.clock.saturating_sub(*since).as_secs();
            let text = format!("NO ANSWER for {}: {}", uptime(seconds), printable(reason));
            Line::styled(text, theme.tone(Tone::Bad).add_modifier(Modifier::BOLD))
        }
        Link::Up if model.paused => {
            let text = format!("HELD (space goes on): {}", totals(model));
            Line::styled(text, theme.tone(Tone::Warn).add_modifier(Modifier::BOLD))
        }
        Link::Up => Line::raw(totals(model)),
    }
}

fn happened(event: &Event, model: &Model) -> String {
    let age = match event.at {
        Some(at) => format!("{} ago", uptime(model.clock.saturating_sub(at).as_secs())),
        None => "before".to_owned(),
    };
    format!(
        "{age:>9}  {}  {}",
        printable(&event.kind),
        printable(&event.context)
    )
}

fn keys_line(model: &Model) -> Line<'static> {
    match &model.mode {
        Mode::Filter { .. } => Line::raw(format!("filter: {}_", printable(&model.filter))),
        _ => {
            let mut text = String::new();
            if !model.filter.is_empty() {
                text = format!("filter {} (Esc)  ", printable(&model.filter));
            }
            let millis = model.interval.as_millis();
            let seconds = match millis % 1000 {
                0 => format!("{}", millis / 1000),
                _ => format!("{}", model.interval.as_secs_f64()),
            };
            text.push_str(&format!(
                "every {seconds} s (+ -)  ? help  Tab table  Enter zoom  / filter  space hold  q quit"
            ));
            Line::styled(text, Style::new().add_modifier(Modifier::DIM))
        }
    }
}

/// A panel's bar and head.
const HEAD: u16 = 2;

/// Who gets how many of these lines: reactors a quarter at most, the others half of the rest each, and what one does not need.
fn heights(model: &Model, room: u16) -> Vec<(Panel, u16)> {
    if model.zoomed {
        return vec![(model.focus, room)];
    }
    let needs = |panel| {
        let rows = model.rows(panel).0.len().max(1);
        u16::try_from(rows).unwrap_or(u16::MAX)
    };
    let rows = room.saturating_sub(3 * HEAD);
    let reactors = needs(Panel::Reactors).min((rows / 4).max(1));
    let rest = rows.saturating_sub(reactors);
    let (bdevs, controllers) = (needs(Panel::Bdevs), needs(Panel::Controllers));
    let least = |needs: u16| needs.min(rest / 2);
    let bdevs = bdevs.min(rest.saturating_sub(least(controllers)));
    let controllers = controllers.min(rest.saturating_sub(bdevs));
    vec![
        (Panel::Reactors, reactors + HEAD),
        (Panel::Bdevs, bdevs + HEAD),
        (Panel::Controllers, controllers + HEAD),
    ]
}

fn table(frame: &mut Frame<'_>, area: Rect, model: &mut Model, panel: Panel, theme: Theme) {
    let (rows, all) = model.rows(panel);
    let view = model.view(panel);
    let shown = rows.len();
    let details = model.zoomed;
    let body: Vec<(bool, &[Cell])> = rows
        .iter()
        .flat_map(|row: &Row| {
            let own = std::iter::once((true, row.cells.as_slice()));
            let more = row.details.iter().map(|cells| (false, cells.as_slice()));
            own.chain(more.filter(move |_| details))
        })
        .collect();
    let visible = usize::from(area.height.saturating_sub(HEAD));
    let scroll = view.scroll.min(body.len().saturating_sub(visible));
    model.view_mut(panel).scroll = scroll;
    let columns = panel.columns();
    let layout = layout(columns, &body, area.width.into());

    let mut lines = Lines { area, used: 0 };
    let mut bar = format!(" {} {shown}", panel.title());
    if shown != all {
        bar.push_str(&format!(" of {all}"));
    }
    if let Some(column) = columns.get(view.sort) {
        let order = if view.reversed { ", reversed" } else { "" };
        bar.push_str(&format!(" by {}{order}", column.title));
    }
    if body.len() > visible {
        let last = scroll.saturating_add(visible);
        bar.push_str(&format!(", lines {}-{last} of {}", scroll + 1, body.len()));
    }
    let width = usize::from(area.width);
    let bar = format!("{:<width$}", cut(&bar, width));
    lines.put(frame, Line::styled(bar, theme.bar(panel == model.focus)));

    let head = layout.iter().map(|(index, width)| {
        let column = columns.get(*index);
        let text = column.map_or("", |column| column.title);
        let style = match *index == view.sort {
            true => Style::new().add_modifier(Modifier::BOLD | Modifier::UNDERLINED),
            false => Style::new().add_modifier(Modifier::BOLD),
        };
        (padded(text, *width, column), style)
    });
    lines.put(frame, spans(head));
    for (own, cells) in body.into_iter().skip(scroll).take(visible) {
        let cells = layout.iter().map(|(index, width)| {
            let cell = cells.get(*index);
            let text = cell.map_or("", |cell| &cell.text);
            let style = cell.map_or(Style::new(), |cell| theme.tone(cell.tone));
            let style = if own {
                style
            } else {
                style.add_modifier(Modifier::DIM)
            };
            (padded(text, *width, columns.get(*index)), style)
        });
        lines.put(frame, spans(cells));
    }
}

fn spans(cells: impl Iterator<Item = (String, Style)>) -> Line<'static> {
    let mut line: Vec<Span<'static>> = Vec::new();
    for (text, style) in cells {
        if !line.is_empty() {
            line.push(Span::raw(" "));
        }
        line.push(Span::styled(text, style));
    }
    Line::from(line)
}

fn padded(text: &str, width: usize, column: Option<&Column>) -> String {
    let text = cut(text, width);
    let pad = width.saturating_sub(text.width());
    match column.map(|column| column.align) {
        Some(Align::Right) => format!("{:pad$}{text}", ""),
        _ => format!("{text}{:pad$}", ""),
    }
}

/// The columns that fit, by index, and their widths.
fn layout(columns: &[Column], body: &[(bool, &[Cell])], width: usize) -> Vec<(usize, usize)> {
    let mut layout: Vec<(usize, usize)> = columns
        .iter()
        .enumerate()
        .map(|(index, column)| {
            let least = match column.align {
                Align::Left => column.title.width(),
                Align::Right => column.title.width().max(NUMBER),
            };
            let cells = body.iter().filter_map(|(_, cells)| cells.get(index));
            (
                index,
                cells.map(|cell| cell.text.width()).fold(least, usize::max),
            )
        })
        .collect();
    let excess = |layout: &[(usize, usize)]| {
        let sum: usize = layout.iter().map(|(_, width)| width + 1).sum();
        sum.saturating_sub(1).saturating_sub(width)
    };
    // Names give way first, but for so many characters; then columns, then the rest of the name.
    const LONG: usize = 24;
    for least in [LONG, NAME] {
        let over = excess(&layout);
        if let Some((_, name)) = layout.first_mut() {
            let give = name.saturating_sub(least).min(over);
            *name -= give;
        }
        if least == NAME {
            break;
        }
        while excess(&layout) > 0 {
            let expendable = |(index, _): &(usize, usize)| {
                columns.get(*index).map_or(0, |column| column.expendable)
            };
            let next = layout
                .iter()
                .enumerate()
                .max_by_key(|(_, it)| expendable(it));
            match next.filter(|(_, it)| expendable(it) > 0).map(|(at, _)| at) {
                Some(at) => drop(layout.remove(at)),
                None => break,
            }
        }
    }
    layout
}

fn help(frame: &mut Frame<'_>, model: &Model) {
    let bold = Style::new().add_modifier(Modifier::BOLD);
    let entry = |term: &str, text: &str, width: usize| {
        let term = format!("{term:<width$}  ");
        Line::from(vec![Span::styled(term, bold), Span::raw(text.to_owned())])
    };
    let keys = keys::HELP.iter().map(|(keys, text)| entry(keys, text, 31));
    let columns = model.focus.columns().iter();
    let columns = columns.map(|column| entry(column.title, column.about, 10));
    let mut lines: Vec<Line<'_>> = keys.collect();
    lines.push(Line::default());
    lines.extend(columns);
    let screen = frame.area();
    let height = u16::try_from(lines.len() + 2).unwrap_or(u16::MAX);
    let area = Rect {
        x: 2,
        y: 1,
        width: screen.width.saturating_sub(4).min(100),
        height: height.min(screen.height.saturating_sub(2)),
    };
    frame.render_widget(Clear, area);
    let title = format!(
        " Keys, and columns of {} (any key goes back) ",
        model.focus.title()
    );
    let block = Block::bordered().title(title);
    frame.render_widget(Paragraph::new(lines).block(block), area);
}

#[cfg(test)]
mod tests;
