//! `vtarget bench`: a guest's load without a guest.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::{Args, ValueEnum};
use serde_json::json;
use testkit::load::{Load, Report, Target, run};

use super::say;

/// What each command does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Pattern {
    /// Sequential reads.
    Read,
    /// Sequential writes.
    Write,
    /// Random reads.
    Randread,
    /// Random writes.
    Randwrite,
    /// Random reads and writes, see --read-percent.
    Randrw,
}

/// What kind of device the endpoint is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Device {
    /// NVMe over vfio-user.
    Nvme,
    /// virtio-blk over vfio-user.
    VirtioVfioUser,
    /// virtio-blk over vhost-user.
    VirtioVhostUser,
}

/// Drives an endpoint as a guest's driver would, polled from user space, and reports rate and latency.
///
/// Takes the endpoint's one place for a client: no VM can be attached meanwhile. Writing patterns destroy what is on the disk.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  vtarget bench /run/vtarget/nvme0 --pattern randread --depth 32
  vtarget bench /run/vtarget/disk0 --device virtio-vhost-user --packed --queues 2
  vtarget bench /run/vm0/cntrl --pattern randrw --read-percent 70 --queues 4 --destroy-data --json")]
pub(crate) struct BenchArgs {
    /// The endpoint's socket; of NVMe also its directory, with the `cntrl` socket in it.
    endpoint: PathBuf,
    /// What kind of device it is.
    #[arg(long, value_enum, default_value_t = Device::Nvme)]
    device: Device,
    /// Packed rings in place of split ones (virtio).
    #[arg(long)]
    packed: bool,
    /// What each command does.
    #[arg(short, long, value_enum, default_value_t = Pattern::Randread)]
    pattern: Pattern,
    /// Percentage of reads in randrw.
    #[arg(long, default_value_t = 70, value_parser = clap::value_parser!(u8).range(0..=100))]
    read_percent: u8,
    /// Bytes per command.
    #[arg(short, long, default_value_t = 4096)]
    block_size: u32,
    /// Commands in flight per queue.
    #[arg(short, long, default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..=16383))]
    depth: u32,
    /// Queues, each driven by its own thread.
    #[arg(short, long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    queues: u16,
    /// Namespace (NVMe).
    #[arg(short, long, default_value_t = 1)]
    nsid: u32,
    /// Seconds to measure, after a tenth of it to warm up.
    #[arg(short, long, default_value_t = 3.0)]
    time: f64,
    /// Processors to pin the driving threads to, such as 0 or 2,3.
    #[arg(long, value_delimiter = ',')]
    pin: Vec<usize>,
    /// Yes, overwrite the disk (writing patterns refuse to run without it).
    #[arg(long)]
    destroy_data: bool,
    /// Print JSON for machines.
    #[arg(long)]
    json: bool,
}

/// Runs the load and prints what came of it.
///
/// # Errors
/// If the arguments make no sense, the endpoint cannot be reached, or a command ends with an error.
pub(crate) fn bench(args: &BenchArgs) -> anyhow::Result<()> {
    let (read_percent, random) = match args.pattern {
        Pattern::Read => (100, false),
        Pattern::Write => (0, false),
        Pattern::Randread => (100, true),
        Pattern::Randwrite => (0, true),
        Pattern::Randrw => (args.read_percent, true),
    };
    if read_percent < 100 && !args.destroy_data {
        bail!("this pattern overwrites the disk; say --destroy-data if that is meant");
    }
    if !(args.time > 0.0 && args.time <= 86_400.0) {
        bail!("--time must be more than 0 and at most 86400 seconds");
    }
    let socket = match args.endpoint.is_dir() {
        true => args.endpoint.join("cntrl"),
        false => args.endpoint.clone(),
    };
    let packed = args.packed;
    let target = match args.device {
        Device::Nvme if packed => bail!("--packed is for virtio devices"),
        Device::Nvme => Target::Nvme,
        Device::VirtioVfioUser => Target::VirtioVfioUser { packed },
        Device::VirtioVhostUser => Target::VirtioVhostUser { packed },
    };
    let load = Load {
        target,
        nsid: args.nsid,
        block_size: args.block_size,
        depth: args.depth,
        queues: args.queues,
        read_percent,
        random,
        time: Duration::from_secs_f64(args.time),
        pin: args.pin.clone(),
    };
    let report =
        run(&socket, &load).with_context(|| format!("the load on {} failed", socket.display()))?;
    if args.json {
        say(&format!("{:#}", as_json(&report)));
    } else {
        say(&table(&report));
    }
    Ok(())
}

fn micros(report: &Report, percent: f64) -> f64 {
    report.latency.percentile(percent).as_secs_f64() * 1e6
}

fn as_json(report: &Report) -> serde_json::Value {
    json!({
        "commands": report.commands,
        "seconds": report.elapsed.as_secs_f64(),
        "iops": report.iops().round(),
        "bytes_per_second": report.bandwidth().round(),
        "latency_us": {
            "p50": micros(report, 50.0),
            "p99": micros(report, 99.0),
            "p99.9": micros(report, 99.9),
            "max": micros(report, 100.0),
        },
    })
}

fn table(report: &Report) -> String {
    format!(
        "{:>12} {:>10} {:>9} {:>9} {:>9} {:>9}\n{:>12.0} {:>10.1} {:>9.1} {:>9.1} {:>9.1} {:>9.1}",
        "IOPS",
        "MiB/s",
        "p50 µs",
        "p99 µs",
        "p99.9 µs",
        "max µs",
        report.iops(),
        report.bandwidth() / f64::from(1 << 20),
        micros(report, 50.0),
        micros(report, 99.0),
        micros(report, 99.9),
        micros(report, 100.0),
    )
}
