//! The tables of `top`: which columns there are, and what stands in them. Text and screen show the same ones.

use super::rates::{Flow, Picture};
use crate::cli::table::{Align, printable};
use crate::cli::units::{count, lossy, megabytes, nanoseconds, percent};
use crate::telemetry::{BdevTelemetry, ControllerState, ControllerTelemetry, RateLimitTelemetry};

/// Which table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Panel {
    Reactors,
    #[default]
    Bdevs,
    Controllers,
}

/// One column.
#[derive(Clone, Copy, Debug)]
pub(super) struct Column {
    pub(super) title: &'static str,
    pub(super) align: Align,
    /// Where there is no room for all, those with the highest number go first; those with 0 stay.
    pub(super) expendable: u8,
    /// What it shows, for the help.
    pub(super) about: &'static str,
}

/// What a cell should make a reader feel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Tone {
    #[default]
    Plain,
    Good,
    /// Worth a look.
    Warn,
    Bad,
}

/// One cell.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Cell {
    pub(super) text: String,
    /// For sorting; names sort by their text.
    pub(super) value: Option<f64>,
    pub(super) tone: Tone,
}

/// One row, with the rows that explain it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Row {
    pub(super) cells: Vec<Cell>,
    pub(super) details: Vec<Vec<Cell>>,
}

const fn left(title: &'static str, expendable: u8, about: &'static str) -> Column {
    Column {
        title,
        align: Align::Left,
        expendable,
        about,
    }
}

const fn right(title: &'static str, expendable: u8, about: &'static str) -> Column {
    Column {
        title,
        align: Align::Right,
        expendable,
        about,
    }
}

const REACTORS: &[Column] = &[
    left("REACTOR", 0, "processor, and what is polled there"),
    left("MODE", 1, "when it sleeps"),
    right("BUSY %", 0, "share of the time with work found"),
    right("IN FLIGHT", 2, "operations in its ring"),
    right("ENTERS/S", 3, "system calls on its ring"),
    right("POLLERS", 4, "how many; of a poller, its runs per second"),
];

const BDEVS: &[Column] = &[
    left("BDEV", 0, "name"),
    right("IOPS", 0, "requests of all kinds per second"),
    right("READ/S", 6, "reads per second"),
    right("WRITE/S", 6, "writes per second"),
    right("R MB/S", 0, "megabytes (10^6) read per second"),
    right("W MB/S", 0, "megabytes (10^6) written per second"),
    right(
        "P50",
        0,
        "half of the reads and writes of the interval ended within this time",
    ),
    right("P99", 0, "99 % of them"),
    right("R P99", 8, "99 % of the reads"),
    right("W P99", 8, "99 % of the writes"),
    right("QD", 0, "requests that the disk works on"),
    right("HELD", 2, "requests that limits hold back"),
    left(
        "LIMITS",
        4,
        "I/O per second; MiB/s, of reads (r), of writes (w)",
    ),
    right(
        "ERRORS",
        1,
        "requests that failed, since the bdev exists or was reset",
    ),
    left("PRODUCT", 9, "what it is"),
];

const CONTROLLERS: &[Column] = &[
    left("CONTROLLER", 0, "name, and its queues"),
    left("KIND", 3, "nvme, vfu_virtio_blk or vhost_blk"),
    left(
        "STATE",
        0,
        "listening (no guest), connected, enabled (its driver runs), failed",
    ),
    right("IOPS", 0, "commands per second"),
    right("R MB/S", 0, "megabytes (10^6) read per second"),
    right("W MB/S", 0, "megabytes (10^6) written per second"),
    right("QD", 0, "commands in flight"),
    right("QUEUES", 4, "queues; of a queue, its entries"),
    right("IRQ/S", 5, "interrupts per second"),
    right("ERRORS", 1, "commands that ended with an error"),
    right("REACTOR", 6, "where it is served"),
    left("DISKS", 2, "bdevs behind it"),
];

impl Panel {
    /// In the order of the screen.
    pub(super) const ALL: [Self; 3] = [Self::Reactors, Self::Bdevs, Self::Controllers];

    pub(super) fn columns(self) -> &'static [Column] {
        match self {
            Self::Reactors => REACTORS,
            Self::Bdevs => BDEVS,
            Self::Controllers => CONTROLLERS,
        }
    }

    pub(super) fn title(self) -> &'static str {
        match self {
            Self::Reactors => "Reactors",
            Self::Bdevs => "Bdevs",
            Self::Controllers => "Controllers",
        }
    }

    /// The column it is sorted by at first: what is there comes in its order, who works most comes first.
    pub(super) fn first_sort(self) -> usize {
        match self {
            Self::Reactors => 0,
            Self::Bdevs => 1,
            Self::Controllers => 3,
        }
    }

    pub(super) fn rows(self, picture: &Picture) -> Vec<Row> {
        match self {
            Self::Reactors => reactors(picture),
            Self::Bdevs => bdevs(picture),
            Self::Controllers => controllers(picture),
        }
    }
}

impl Cell {
    fn name(text: &str) -> Self {
        Self {
            text: printable(text),
            value: None,
            tone: Tone::Plain,
        }
    }

    fn number(text: String, value: f64) -> Self {
        Self {
            text,
            value: Some(value),
            tone: Tone::Plain,
        }
    }

    fn total(value: u64) -> Self {
        Self::number(count(lossy(value)), lossy(value))
    }

    fn errors(value: u64) -> Self {
        Self {
            tone: if value > 0 { Tone::Bad } else { Tone::Plain },
            ..Self::total(value)
        }
    }

    fn toned(self, tone: Tone) -> Self {
        Self { tone, ..self }
    }

    fn empty() -> Self {
        Self::name("")
    }
}

/// A rate, or a dash as long as there is nothing to compare with.
fn rate(picture: &Picture, value: f64, show: fn(f64) -> String) -> Cell {
    if !picture.has_rates() {
        return Cell::number("-".to_owned(), 0.0);
    }
    Cell::number(show(value), value)
}

fn time(value: Option<f64>) -> Cell {
    let text = value.map_or_else(|| "-".to_owned(), nanoseconds);
    Cell::number(text, value.unwrap_or(0.0))
}

fn reactors(picture: &Picture) -> Vec<Row> {
    let reactors = picture.now.reactors.iter().map(|reactor| {
        let (busy, all) = picture.reactor_time(reactor);
        let share = lossy(busy) / lossy(all.max(1));
        let tone = match share {
            share if share >= 0.95 => Tone::Bad,
            share if share >= 0.8 => Tone::Warn,
            _ => Tone::Plain,
        };
        let lcore = Cell::number(reactor.lcore.to_string(), reactor.lcore.into());
        let lcore = match reactor.responding {
            true => lcore,
            false => Cell {
                text: format!("{} silent", reactor.lcore),
                tone: Tone::Bad,
                ..lcore
            },
        };
        let pollers = reactor.pollers.iter().enumerate().map(|(index, poller)| {
            let (runs, busy) = picture.poller(reactor, index);
            vec![
                Cell::name(&format!("  {}", poller.name)),
                Cell::empty(),
                rate(picture, 100.0 * busy / runs.max(1.0), |share| {
                    percent(share, 100.0)
                }),
                Cell::empty(),
                Cell::empty(),
                rate(picture, runs, count),
            ]
        });
        Row {
            cells: vec![
                lcore,
                Cell::name(&reactor.mode),
                Cell::number(percent(lossy(busy), lossy(all)), share).toned(tone),
                Cell::total(reactor.in_flight),
                rate(picture, picture.enters(reactor), count),
                Cell::total(reactor.pollers.len().try_into().unwrap_or(u64::MAX)),
            ],
            details: pollers.collect(),
        }
    });
    reactors.collect()
}

fn bdevs(picture: &Picture) -> Vec<Row> {
    let bounds = &picture.now.latency_bounds_ns;
    let row = |bdev: &BdevTelemetry| {
        let flow = picture.bdev(bdev);
        let latency = picture.latency(bdev);
        let held = Cell::total(bdev.queued);
        let cells = vec![
            Cell::name(&bdev.name),
            rate(picture, flow.requests, count),
            rate(picture, flow.reads, count),
            rate(picture, flow.writes, count),
            rate(picture, flow.read_bytes, megabytes),
            rate(picture, flow.written_bytes, megabytes),
            time(latency.quantile(0.5, bounds)),
            time(latency.quantile(0.99, bounds)),
            time(picture.read_latency(bdev).quantile(0.99, bounds)),
            time(picture.write_latency(bdev).quantile(0.99, bounds)),
            Cell::total(bdev.in_flight),
            held.toned(if bdev.queued > 0 {
                Tone::Warn
            } else {
                Tone::Plain
            }),
            limits(bdev.rate_limits),
            Cell::errors(bdev.failed),
            Cell::name(&bdev.product_name),
        ];
        Row {
            cells,
            details: Vec::new(),
        }
    };
    picture.now.bdevs.iter().map(row).collect()
}

/// `10k 100M 50Mr 20Mw`; a dash without limits. Sorted by the first.
fn limits(limits: RateLimitTelemetry) -> Cell {
    let parts = [
        (limits.rw_ios_per_sec, ""),
        (limits.rw_mbytes_per_sec, "M"),
        (limits.r_mbytes_per_sec, "Mr"),
        (limits.w_mbytes_per_sec, "Mw"),
    ];
    let given = parts.into_iter().filter(|(limit, _)| *limit > 0);
    let words: Vec<String> = given
        .map(|(limit, unit)| match unit {
            "" => short(limit),
            unit => format!("{limit}{unit}"),
        })
        .collect();
    let text = match words.is_empty() {
        true => "-".to_owned(),
        false => words.join(" "),
    };
    Cell::number(text, lossy(limits.rw_ios_per_sec))
}

/// A round number with its unit, any other in full.
fn short(value: u64) -> String {
    match value {
        value if value % 1_000_000 == 0 => format!("{}M", value / 1_000_000),
        value if value % 1000 == 0 => format!("{}k", value / 1000),
        value => value.to_string(),
    }
}

fn controllers(picture: &Picture) -> Vec<Row> {
    let row = |controller: &ControllerTelemetry| {
        let flow = picture.controller(controller);
        let in_flight = controller.queues.iter().map(|queue| queue.in_flight);
        let queues = controller.queues.len().try_into().unwrap_or(u64::MAX);
        let disks: Vec<&str> = controller
            .namespaces
            .iter()
            .map(|it| it.bdev.as_str())
            .collect();
        let mut cells = vec![
            Cell::name(&controller.name),
            Cell::name(&controller.kind),
            state(controller),
        ];
        cells.extend(flow_cells(picture, &flow));
        cells.extend([
            Cell::total(in_flight.fold(0, u64::saturating_add)),
            Cell::total(queues),
            rate(picture, picture.interrupts(controller), count),
            Cell::errors(controller.total.errors),
            Cell::number(controller.lcore.to_string(), controller.lcore.into()),
            Cell::name(&disks.join(",")),
        ]);
        let details = controller.queues.iter().map(|queue| {
            let (flow, interrupts) = picture.queue(controller, queue);
            let mut cells = vec![
                Cell::name(&format!("  queue {}", queue.qid)),
                Cell::empty(),
                Cell::empty(),
            ];
            cells.extend(flow_cells(picture, &flow));
            cells.extend([
                Cell::total(queue.in_flight),
                Cell::number(queue.entries.to_string(), queue.entries.into()),
                rate(picture, interrupts, count),
                Cell::errors(queue.counters.errors),
                Cell::number(queue.lcore.to_string(), queue.lcore.into()),
                Cell::empty(),
            ]);
            cells
        });
        Row {
            cells,
            details: details.collect(),
        }
    };
    picture.now.controllers.iter().map(row).collect()
}

fn state(controller: &ControllerTelemetry) -> Cell {
    let mut states = ControllerState::ALL.into_iter();
    let name = states.find(|(state, _)| *state == controller.state);
    let name = name.map_or("", |(_, name)| name);
    if !controller.responding {
        return Cell::name(&format!("{name}, silent")).toned(Tone::Bad);
    }
    let tone = match controller.state {
        ControllerState::Listening => Tone::Plain,
        ControllerState::Connected => Tone::Warn,
        ControllerState::Enabled => Tone::Good,
        ControllerState::Failed => Tone::Bad,
    };
    Cell::name(name).toned(tone)
}

fn flow_cells(picture: &Picture, flow: &Flow) -> [Cell; 3] {
    [
        rate(picture, flow.requests, count),
        rate(picture, flow.read_bytes, megabytes),
        rate(picture, flow.written_bytes, megabytes),
    ]
}
