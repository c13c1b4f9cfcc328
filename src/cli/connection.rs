//! How commands reach the daemon, and what the program's exit code says when they cannot.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, ValueHint};
use rpc::{Client, ClientError, ClientOptions};
use serde_json::Value;

/// The daemon refused, or the command failed by itself.
const REFUSED: u8 = 1;
/// The command line makes no sense; clap's own code.
const USAGE: u8 = 2;
/// No daemon answers: none is there, it may not be asked, or it went away.
const NO_DAEMON: u8 = 3;

/// What the codes mean, for manual pages.
pub(super) const EXIT_STATUS: &[(&str, &str)] = &[
    ("0", "The command did what it was asked for."),
    ("1", "The daemon refused, or the command failed by itself."),
    ("2", "The command line makes no sense."),
    (
        "3",
        "No daemon answers: the socket is not there, nobody listens on it, permission is missing, or no answer came in time.",
    ),
];

/// Which daemon, and how patiently.
#[derive(Args, Clone, Debug)]
pub(crate) struct Connection {
    /// RPC socket of the daemon
    #[arg(
        short = 's',
        long,
        visible_short_alias = 'r',
        value_name = "PATH",
        env = "VTARGET_RPC_SOCKET",
        default_value = super::DEFAULT_RPC_SOCKET,
        value_hint = ValueHint::FilePath
    )]
    pub(super) socket: PathBuf,

    /// Seconds to wait for an answer
    #[arg(short = 't', long, value_name = "SECONDS", default_value = "60", value_parser = parse_timeout)]
    pub(super) timeout: Duration,
}

fn parse_timeout(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text
        .parse()
        .map_err(|_| "give a number of seconds, such as 5 or 0.5".to_owned())?;
    Duration::try_from_secs_f64(seconds)
        .ok()
        .filter(|timeout| !timeout.is_zero())
        .ok_or_else(|| "give a number of seconds greater than 0".to_owned())
}

impl Connection {
    pub(super) fn open(&self) -> Result<Client, ClientError> {
        let options = ClientOptions {
            timeout: self.timeout,
            ..ClientOptions::default()
        };
        Client::connect(&self.socket, options)
    }

    /// Connects for one call.
    pub(super) fn call(&self, method: &str, params: Value) -> anyhow::Result<Value> {
        call(&mut self.open()?, method, params)
    }
}

/// One call, with the method's name in front of a refusal.
pub(super) fn call(client: &mut Client, method: &str, params: Value) -> anyhow::Result<Value> {
    client.call(method, params).map_err(|error| match error {
        ClientError::Rpc(_) => anyhow::Error::new(error).context(method.to_owned()),
        error => error.into(),
    })
}

/// What is wrong with the command line, where clap cannot know it.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Usage(pub(super) String);

/// The program's exit code for an error.
pub(super) fn exit_code(error: &anyhow::Error) -> ExitCode {
    let code = if error.downcast_ref::<Usage>().is_some() {
        USAGE
    } else {
        match error.downcast_ref::<ClientError>() {
            None | Some(ClientError::Rpc(_)) => REFUSED,
            Some(_) => NO_DAEMON,
        }
    };
    code.into()
}
