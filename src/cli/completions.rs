//! `vtarget completions`: what makes a shell's TAB key know this program.
//!
//! The script that a shell loads asks the program itself at every TAB, through an environment variable, so that it cannot drift
//! from the command line and names what exists in the running daemon. A daemon that is not there completes nothing, at once.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, CommandFactory, ValueEnum};
use clap_complete::CompletionCandidate;
use clap_complete::env::{Bash, CompleteEnv, EnvCompleter, Fish, Zsh};
use rpc::{Client, ClientOptions};
use serde_json::Value;

/// Set by the scripts, to the shell's name, when the program shall complete instead of run.
const VARIABLE: &str = "VTARGET_COMPLETE";
const PROGRAM: &str = "vtarget";
/// A TAB must not hang longer than people wait for it.
const PATIENCE: Duration = Duration::from_millis(500);

const EXAMPLES: &str = "\
Examples:
  source <(vtarget completions bash)                          in ~/.bashrc
  source <(vtarget completions zsh)                           in ~/.zshrc, after compinit
  vtarget completions fish | source                           in ~/.config/fish/config.fish

Packages install what it prints where shells look by themselves, such as /usr/share/bash-completion/completions/vtarget.
Names of bdevs, controllers and methods come from the daemon that the command line names (-s, VTARGET_RPC_SOCKET).";

/// The shells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Shell {
    Bash,
    Zsh,
    Fish,
}

#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct CompletionsArgs {
    /// Which shell's
    #[arg(value_enum)]
    shell: Shell,
}

/// Prints the script for a shell.
pub(super) fn run(args: &CompletionsArgs) -> anyhow::Result<()> {
    let shell: &dyn EnvCompleter = match args.shell {
        Shell::Bash => &Bash,
        Shell::Zsh => &Zsh,
        Shell::Fish => &Fish,
    };
    let mut script = Vec::new();
    shell.write_registration(VARIABLE, PROGRAM, PROGRAM, PROGRAM, &mut script)?;
    super::say(String::from_utf8_lossy(&script).trim());
    Ok(())
}

/// Answers a shell if it is one that asks, and ends the program then.
pub(super) fn answer() {
    CompleteEnv::with_factory(super::Cli::command)
        .var(VARIABLE)
        .complete();
}

/// The names of the list that a method answers with, or whose place in the answer `pointer` says; of members that are not
/// objects, themselves.
pub(super) fn names(
    method: &str,
    pointer: &str,
    key: &str,
    current: &OsStr,
) -> Vec<CompletionCandidate> {
    let start = current.to_string_lossy();
    let found = ask(method).unwrap_or_default();
    let list = found.pointer(pointer).and_then(Value::as_array);
    let members = list.into_iter().flatten().filter_map(|member| {
        let name = member.get(key).unwrap_or(member);
        match name {
            Value::String(name) => Some(name.clone()),
            Value::Number(number) => Some(number.to_string()),
            _ => None,
        }
    });
    let mut members: Vec<String> = members.filter(|name| name.starts_with(&*start)).collect();
    members.sort_unstable();
    members.dedup();
    members.into_iter().map(CompletionCandidate::new).collect()
}

/// Of `vtarget limit` and others.
pub(super) fn bdevs(current: &OsStr) -> Vec<CompletionCandidate> {
    names("bdev_get_bdevs", "", "name", current)
}

/// Of `vtarget rpc`.
pub(super) fn methods(current: &OsStr) -> Vec<CompletionCandidate> {
    names("rpc_get_methods", "", "", current)
}

fn ask(method: &str) -> Option<Value> {
    let options = ClientOptions {
        timeout: PATIENCE,
        ..ClientOptions::default()
    };
    let mut client = Client::connect(socket(&words()), options).ok()?;
    client.call(method, Value::Null).ok()
}

/// The words of the command line that is being completed.
pub(super) fn words() -> Vec<OsString> {
    let words = std::env::args_os().skip_while(|word| word != "--");
    words.skip(1).collect()
}

/// The socket that the command line names: clap gives completers the word at hand only.
fn socket(words: &[OsString]) -> PathBuf {
    let mut words = words.iter();
    let mut found = None;
    while let Some(word) = words.next() {
        let text = word.to_string_lossy();
        if ["-s", "-r", "--socket"].contains(&&*text) {
            found = words.next().map(PathBuf::from);
        } else if let Some(path) = text.strip_prefix("--socket=") {
            found = Some(path.into());
        }
    }
    found
        .filter(|path| !path.as_os_str().is_empty())
        .or_else(|| std::env::var_os("VTARGET_RPC_SOCKET").map(PathBuf::from))
        .unwrap_or_else(|| super::DEFAULT_RPC_SOCKET.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_socket_of_the_command_line_is_asked() {
        let of = |words: &[&str]| {
            let words: Vec<OsString> = words.iter().map(OsString::from).collect();
            socket(&words)
        };
        let line = ["vtarget", "get", "-s", "/a", "bdevs", ""];
        assert_eq!(of(&line), PathBuf::from("/a"));
        assert_eq!(of(&["vtarget", "get", "--socket=/b"]), PathBuf::from("/b"));
    }
}
