//! `vtarget limit`: `bdev_set_qos_limit` with units.

use clap::{ArgGroup, Args};
use clap_complete::ArgValueCompleter;
use serde_json::{Map, Value, json};

use super::connection::Connection;
use super::units::{parse_count, parse_milliseconds};
use super::{completions, get};

const EXAMPLES: &str = "\
Limits that are not named stay as they are. They hold for all guests of the bdev together; a request waits, it does not fail.

Examples:
  vtarget limit disk0                                 what holds
  vtarget limit disk0 --iops 10k --read-mb 100        at most 10,000 I/O per second, 100 MiB/s of reads
  vtarget limit disk0 --read-mb none                  no limit for reads alone
  vtarget limit disk0 --burst 2s                      after a pause, twice a second's worth at once
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

    /// Reads and writes per second, such as 5k or 1.5M, rounded up to thousands; `none` for no limit
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

    /// Keep what was not used for so long, such as 500ms or 2s, to be used at once when it is needed
    #[arg(long, value_name = "TIME", value_parser = parse_milliseconds, group = "limits")]
    burst: Option<u64>,

    /// Take all limits away
    #[arg(long)]
    off: bool,
}

impl LimitArgs {
    /// What `bdev_set_qos_limit` is to change.
    fn params(&self) -> Map<String, Value> {
        let off = self.off.then_some(0);
        let burst = self.burst.map(|burst| ("burst_ms", Some(burst)));
        let limits = [
            ("rw_ios_per_sec", self.iops),
            ("rw_mbytes_per_sec", self.mb),
            ("r_mbytes_per_sec", self.read_mb),
            ("w_mbytes_per_sec", self.write_mb),
        ];
        let given = limits.into_iter().chain(burst);
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

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: LimitArgs,
    }

    fn params(words: &str) -> Value {
        let words = std::iter::once("limit").chain(words.split(' '));
        let line = Line::try_parse_from(words).expect("a command line");
        line.args.params().into()
    }

    #[test]
    fn what_is_given_is_changed_and_nothing_else() {
        assert_eq!(params("disk0"), json!({}));
        let expected = json!({"rw_ios_per_sec": 10_000, "r_mbytes_per_sec": 100});
        assert_eq!(params("disk0 --iops 10k --read-mb 100"), expected);
        let expected = json!({"w_mbytes_per_sec": 0, "burst_ms": 1500});
        assert_eq!(params("disk0 --write-mb none --burst 1.5s"), expected);
        let all = json!({
            "rw_ios_per_sec": 0, "rw_mbytes_per_sec": 0, "r_mbytes_per_sec": 0, "w_mbytes_per_sec": 0,
        });
        assert_eq!(params("disk0 --off"), all);
    }
}
