//! Where pictures come from: one connection, made anew when it breaks.

use std::time::Duration;

use anyhow::Context;
use rpc::{Client, ClientError, code};
use serde_json::{Value, json};

use crate::cli::connection::Connection;
use crate::telemetry::Telemetry;

/// Longer than this a viewer is not left without a word.
const PATIENCE: Duration = Duration::from_secs(5);
const METHOD: &str = "vtarget_get_telemetry";
/// Events of one look. More are shown at the next ones.
const EVENTS: u64 = 100;

/// What has been notified: kind, about what.
pub(super) type Notified = (String, String);

/// One look at the daemon.
#[derive(Debug)]
pub(super) struct Update {
    pub(super) telemetry: Telemetry,
    pub(super) events: Vec<Notified>,
    /// Whether the events happened since the last look.
    pub(super) new: bool,
}

/// A daemon to look at.
pub(super) struct Source {
    connection: Connection,
    client: Option<Client>,
    /// The first event that has not been seen, and of which process.
    next_event: Option<(u32, u64)>,
}

impl Source {
    /// Connects for the first time.
    ///
    /// # Errors
    /// Nobody is there, or it is something that cannot be watched.
    pub(super) fn connect(connection: &Connection) -> anyhow::Result<Self> {
        let mut source = Self {
            connection: Connection {
                timeout: connection.timeout.min(PATIENCE),
                ..connection.clone()
            },
            client: None,
            next_event: None,
        };
        match source.ask(METHOD, Value::Null) {
            Ok(_) => Ok(source),
            Err(ClientError::Rpc(error)) if error.code == code::METHOD_NOT_FOUND => {
                let reason =
                    "this daemon cannot be watched: it is an older vtarget, or another target";
                Err(ClientError::Rpc(error)).context(reason)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Looks.
    ///
    /// # Errors
    /// Why there is nothing to see. The next look tries again.
    pub(super) fn look(&mut self) -> Result<Update, ClientError> {
        let answer = self.ask(METHOD, Value::Null)?;
        let telemetry: Telemetry = serde_json::from_value(answer).map_err(|error| {
            // The connection is as good as before; what is wrong is its other end.
            ClientError::Protocol {
                path: self.connection.socket.clone(),
                reason: format!("{METHOD}: {error}"),
            }
        })?;
        let (events, new) = self.events(telemetry.pid)?;
        Ok(Update {
            telemetry,
            events,
            new,
        })
    }

    fn events(&mut self, pid: u32) -> Result<(Vec<Notified>, bool), ClientError> {
        let seen = self.next_event.filter(|(process, _)| *process == pid);
        let from = seen.map_or(0, |(_, next)| next);
        let max = if seen.is_some() {
            EVENTS
        } else {
            u64::from(u16::MAX)
        };
        let params = json!({"id": from, "max": max});
        let answer = match self.ask("notify_get_notifications", params) {
            Ok(answer) => answer,
            // A socket may allow less than all methods.
            Err(ClientError::Rpc(_)) => return Ok((Vec::new(), false)),
            Err(error) => return Err(error),
        };
        let list = answer.as_array().map(Vec::as_slice).unwrap_or_default();
        let last = list.iter().filter_map(|event| event["id"].as_u64()).max();
        let next = last.map_or(from, |last| last.saturating_add(1));
        self.next_event = Some((pid, next));
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let events = list
            .iter()
            .map(|event| (text(&event["type"]), text(&event["ctx"])));
        Ok((events.collect(), seen.is_some()))
    }

    fn ask(&mut self, method: &str, params: Value) -> Result<Value, ClientError> {
        let client = match &mut self.client {
            Some(client) => client,
            None => self.client.insert(self.connection.open()?),
        };
        let answer = client.call(method, params);
        if matches!(&answer, Err(error) if !matches!(error, ClientError::Rpc(_))) {
            self.client = None;
        }
        answer
    }
}
