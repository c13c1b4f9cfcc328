//! The command line.

mod bench;
mod completions;
mod connection;
mod events;
mod get;
mod limit;
mod man;
mod rpc;
mod saved;
mod serve;
mod table;
mod top;
mod units;

use std::io::Write;
use std::process::ExitCode;

use clap::{ArgAction, Parser, Subcommand};

pub(crate) use serve::{Attach, ServeArgs};

/// Where the RPC socket is unless `-r` says otherwise: SPDK's place, so that its tools find it.
pub(crate) const DEFAULT_RPC_SOCKET: &str = "/var/tmp/spdk.sock";

const EXAMPLES: &str = "\
Each command tells more with --help.

Examples:
  vtarget serve          comes up with a RAM disk and prints the QEMU command that attaches it
  vtarget top            what it does
  vtarget get endpoints  what it offers";

#[derive(Debug, Parser)]
#[command(
    name = "vtarget",
    version,
    disable_version_flag = true,
    propagate_version = true,
    about = "Gives virtual machines disks: NVMe and virtio-blk over vfio-user, virtio-blk over vhost-user",
    after_help = EXAMPLES
)]
struct Cli {
    /// Print the version
    #[arg(short = 'v', long, action = ArgAction::Version, global = true)]
    version: (),

    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the daemon (in the foreground)
    Serve(Box<ServeArgs>),
    /// Watch a running daemon: reactors, bdevs, guests, rates and latencies
    Top(top::TopArgs),
    /// Show what a running daemon has, as a table or JSON
    Get(get::GetArgs),
    /// Show what has happened, and what happens
    Events(events::EventsArgs),
    /// Show or set the rate limits of a bdev
    Limit(limit::LimitArgs),
    /// Write down the configuration of a running daemon
    Save(saved::SaveArgs),
    /// Load a configuration into a running daemon
    Load(saved::LoadArgs),
    /// Call a method of a running daemon
    Rpc(rpc::RpcArgs),
    /// Measure an endpoint with a guest's load, without a guest
    Bench(bench::BenchArgs),
    /// Print a script that completes commands in a shell
    Completions(completions::CompletionsArgs),
    /// Write the manual pages
    Man(man::ManArgs),
}

/// Parses the command line and does what it says.
pub(crate) fn main() -> ExitCode {
    completions::answer();
    let result = match Cli::parse().command {
        Command::Serve(args) => {
            return crate::daemon::run(&args).unwrap_or_else(|error| fail(&error));
        }
        Command::Top(args) => return top::run(&args).unwrap_or_else(|error| fail(&error)),
        Command::Get(args) => get::run(&args),
        Command::Events(args) => events::run(&args),
        Command::Limit(args) => limit::run(&args),
        Command::Save(args) => saved::save(&args),
        Command::Load(args) => saved::load(&args),
        Command::Rpc(args) => rpc::run(args),
        Command::Bench(args) => bench::bench(&args),
        Command::Completions(args) => completions::run(&args),
        Command::Man(args) => man::run(&args),
    };
    result.map_or_else(|error| fail(&error), |()| ExitCode::SUCCESS)
}

fn fail(error: &anyhow::Error) -> ExitCode {
    complain(&format!("vtarget: {error:#}"));
    connection::exit_code(error)
}

/// Prints an answer to standard output. A reader that has gone (`| head`) is no error.
pub(crate) fn say(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{text}").and_then(|()| out.flush());
}

/// Prints why a command failed.
pub(crate) fn complain(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn options_do_not_contradict_each_other() {
        super::Cli::command().debug_assert();
    }
}
