//! `vtarget events`: what has happened, and what happens.

use std::fmt::Write as _;

use clap::Args;
use rpc::Notification;
use serde_json::{Value, json};

use super::connection::{Connection, call};

const EXAMPLES: &str = "\
The last events are shown (the daemon keeps 1024 of its disks, and as many of its guests); with --follow those to come as well, until
the daemon ends. Types are listed by `vtarget rpc notify_get_types`.

Examples:
  vtarget events
  vtarget events --follow --type controller_failed --type disk_error
  vtarget events --follow --json | jq -r 'select(.type == \"bdev_resize\") | .ctx'";

#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct EventsArgs {
    #[command(flatten)]
    connection: Connection,

    /// Go on with what happens from now on
    #[arg(short, long)]
    follow: bool,

    /// Only events of this type (repeatable)
    #[arg(long = "type", value_name = "TYPE")]
    types: Vec<String>,

    /// Print JSON for machines, one event in a line
    #[arg(long)]
    json: bool,
}

/// Prints them.
///
/// # Errors
/// The daemon refuses, or is gone.
pub(super) fn run(args: &EventsArgs) -> anyhow::Result<()> {
    let mut client = args.connection.open()?;
    let mut params = json!({ "since": 0 });
    if !args.types.is_empty() {
        params["types"] = args.types.clone().into();
    }
    let mut answer = call(&mut client, "vtarget_subscribe", params)?;
    let kept = match answer.get_mut("events").map(Value::take) {
        Some(Value::Array(events)) => events,
        _ => Vec::new(),
    };
    for event in &kept {
        args.print(event);
    }
    if !args.follow {
        return Ok(());
    }
    loop {
        let Notification { method, params } = client.notification(None)?;
        match method.as_str() {
            "vtarget_event" => args.print(&params),
            rpc::LOST => {
                let count = params["count"].as_u64().unwrap_or(0);
                super::complain(&format!(
                    "vtarget: {count} events are missing here: they came faster than they were read"
                ));
            }
            _ => {}
        }
    }
}

impl EventsArgs {
    fn print(&self, event: &Value) {
        if self.json {
            super::say(&event.to_string());
        } else {
            super::say(&describe(event));
        }
    }
}

/// An event for people.
fn describe(event: &Value) -> String {
    let text = |key: &str| event[key].as_str().unwrap_or_default();
    let time = time(event["time_ms"].as_u64().unwrap_or(0));
    let mut line = format!("{time}  {:<20} {}", text("type"), text("ctx"));
    if let Some(details) = event["details"].as_object() {
        for (key, value) in details {
            // Writing to a String does not fail.
            let _ = match value {
                Value::String(value) => write!(line, "  {key}={value}"),
                value => write!(line, "  {key}={value}"),
            };
        }
    }
    line
}

/// Milliseconds since 1970 in UTC: 2026-11-21T09:30:04.123Z.
fn time(millis: u64) -> String {
    let (seconds, millis) = (millis / 1000, millis % 1000);
    let (mut days, time) = (seconds / 86_400, seconds % 86_400);
    // Whole cycles of 400 years first, so that what is left is short to count.
    let mut year = 1970 + 400 * (days / 146_097);
    days %= 146_097;
    let is_leap = |year: u64| {
        year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
    };
    let length = |year: u64| if is_leap(year) { 366 } else { 365 };
    while days >= length(year) {
        days -= length(year);
        year += 1;
    }
    let february = if is_leap(year) { 29 } else { 28 };
    let months = [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let mut month = 1;
    for length in months {
        if days < length {
            break;
        }
        days -= length;
        month += 1;
    }
    format!(
        "{year:04}-{month:02}-{:02}T{:02}:{:02}:{:02}.{millis:03}Z",
        days + 1,
        time / 3600,
        time / 60 % 60,
        time % 60
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_what_date_says() {
        for (millis, expected) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_399_999, "2000-02-28T23:59:59.999Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (1_735_689_599_000, "2024-12-31T23:59:59.000Z"),
            (1_795_253_404_123, "2026-11-21T09:30:04.123Z"),
            (4_107_542_400_000, "2100-03-01T00:00:00.000Z"),
        ] {
            assert_eq!(time(millis), expected);
        }
    }

    #[test]
    fn an_event_is_one_line() {
        let event = json!({
            "id": 7, "type": "controller_failed", "ctx": "/run/vm0", "time_ms": 0,
            "details": {"controller": "nvme", "cause": "no memory"},
        });
        assert_eq!(
            describe(&event),
            "1970-01-01T00:00:00.000Z  controller_failed    /run/vm0  controller=nvme  cause=no memory"
        );
    }
}
