//! `vtarget limit`: `bdev_set_qos_limit` with units.

use clap::{ArgGroup, Args};
use clap_complete::ArgValueCompleter;
use serde_json::{Map, Value, json};

use super::connection::Connection;
use super::units::parse_count;
use super::{completions, get};

const EXAMPLES: &str = "\
Limits that are not named stay as they are. They hold for all guests of the bdev together; a request waits, it does not fail.

Examples:
  vtarget limit disk0                                 what holds
  vtarget limit disk0 --iops 10k --read-mb 100        at most 10,000 I/O per second, 100 MiB/s of reads
  vtarget limit disk0 --read-mb none                  no limit for reads alone
  vtarget limit disk0 --off                           no limit at all";

#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
#[command(group = ArgGroup::new("limits").multiple(true).conflicts_with("off"))]
pub(crate) struct LimitArgs {
    #[command(flatten)]
    connection: Connection,

    /// The bdev
    #[arg(add = ArgValueCompleter::new(completions::bdevs))]
    bdev: String,

    /// Reads and writes per second, such as 500 or 10k; `none` for no limit
    #[arg(long, value_name = "N", value_parser = parse_count, group = "limits")]
    iops: Option<u64>,

    /// Mebibytes per second, read and written
    #[arg(long, value_name = "MIB", value_parser = parse_count, group = "limits")]
    mb: Option<u64>,

    /// Mebibytes per second, read
    #[arg(long, value_name = "MIB", value_parser = parse_count, group = "limits")]
    read_mb: Option<u64>,

    /// Mebibytes per second, written
    #[arg(long, value_name = "MIB", value_parser = parse_count, group = "limits")]
    write_mb: Option<u64>,

    /// Take all limits away
    #[arg(long)]
    off: bool,
}

impl LimitArgs {
    /// What `bdev_set_qos_limit` is to change.
    fn params(&self) -> Map<String, Value> {
        let off = self.off.then_some(0);
        let limits = [
            ("rw_ios_per_sec", self.iops),
            ("rw_mbytes_per_sec", self.mb),
            ("r_mbytes_per_sec", self.read_mb),
            ("w_mbytes_per_sec", self.write_mb),
        ];
        let given = limits.into_iter();
        given
            .filter_map(|(key, value)| Some((key.to_owned(), value.or(off)?.into())))
            .collect()
    }
}

/// Sets what is given and shows what holds then.
///
/// # Errors
/// The daemon does not answer or refuses.
pub(super) fn run(args: &LimitArgs) -> anyhow::Result<()> {
    let mut params = args.params();
    if !params.is_empty() {
        params.insert("name".to_owned(), json!(args.bdev));
        args.connection.call("bdev_set_qos_limit", params.into())?;
    }
    get::show(&args.connection, get::Kind::Limits, &args.bdev)
}
