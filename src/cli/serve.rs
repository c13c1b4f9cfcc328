//! `vtarget serve`: SPDK's option letters, and a few of our own.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use crate::metrics::Address;

/// Heading of options that exist so that scripts written for SPDK run unchanged.
const COMPATIBILITY: &str =
    "Accepted for SPDK's scripts, without effect (no hugepages, no DPDK, no PCI here)";

const EXAMPLES: &str = "\
What happens with no options:
  A RAM disk of 64 MiB (Malloc0) appears behind the endpoint /run/vtarget/nvme0 (or under $XDG_RUNTIME_DIR, or /tmp, where
  /run is not writable), the RPC socket is /var/tmp/spdk.sock, one reactor thread serves everything, and the QEMU command
  line that attaches the disk is printed. With -c, -r, --state, --no-rpc-server or --wait-for-rpc nothing exists until you create it.

Examples:
  vtarget serve                                    a RAM disk to try things out
  vtarget serve --disk vm.img --endpoint /run/vm0  a file, exposed at /run/vm0/cntrl
  vtarget serve --attach vhost                     a RAM disk for QEMU's vhost-user-blk-pci or cloud-hypervisor
  vtarget serve -m 0xc -r /run/vtarget.sock        reactors on processors 2 and 3; set up by RPC
  vtarget serve -c saved.json                      what `rpc.py save_config` wrote

VTARGET_LOG=debug (or vfio_user=trace,nvme=debug, …) makes the log say more.

Then, for example:
  vtarget rpc bdev_get_bdevs
  vtarget rpc bdev_malloc_create name=disk1 block_size=512 num_blocks=131072";

#[derive(Clone, Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct ServeArgs {
    /// Processors to run reactors on: a hexadecimal mask (0x6) or a list (`[1,2]` or 1-2). A given mask pins each reactor to its
    /// processor; without one, a single reactor goes where the system puts it
    #[arg(short = 'm', long, visible_alias = "lcores", value_name = "MASK")]
    pub(crate) cpumask: Option<String>,

    /// The processor whose reactor comes first, for endpoints
    #[arg(short = 'p', long, value_name = "CPU")]
    pub(crate) main_core: Option<u32>,

    /// When reactors sleep: `poll` never, `adaptive` shortly after the last work, `interrupt` at once
    #[arg(long, value_name = "MODE", value_enum, default_value_t = ReactorMode::Adaptive)]
    pub(crate) reactor_mode: ReactorMode,

    /// SPDK's name for --reactor-mode interrupt
    #[arg(long)]
    pub(crate) interrupt_mode: bool,

    /// RPC socket
    #[arg(short = 'r', long, value_name = "PATH")]
    pub(crate) rpc_socket: Option<PathBuf>,

    /// Permission bits of the RPC socket, octal. Whoever may write to it may do everything
    #[arg(long, value_name = "MODE", value_parser = parse_mode, default_value = "0600")]
    pub(crate) rpc_socket_mode: u32,

    /// Group of the RPC socket, a name or a number (the daemon's own unless given)
    #[arg(long, value_name = "GROUP")]
    pub(crate) rpc_socket_group: Option<String>,

    /// A second RPC socket, for monitoring: it offers only methods that change nothing
    #[arg(long, value_name = "PATH")]
    pub(crate) rpc_socket_readonly: Option<PathBuf>,

    /// Permission bits of the socket for monitoring
    #[arg(long, value_name = "MODE", value_parser = parse_mode, default_value = "0660", requires = "rpc_socket_readonly")]
    pub(crate) rpc_socket_readonly_mode: u32,

    /// Group of the socket for monitoring
    #[arg(long, value_name = "GROUP", requires = "rpc_socket_readonly")]
    pub(crate) rpc_socket_readonly_group: Option<String>,

    /// Clients that each RPC socket serves at a time. Further ones are told so and disconnected; root and the daemon's own user
    /// have 16 places more
    #[arg(long, value_name = "N", default_value_t = 2048, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) rpc_clients: u32,

    /// Seconds that a request may take from its first byte to its last, before its client is disconnected
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) rpc_request_time: u32,

    /// Offer no RPC socket
    #[arg(long, conflicts_with = "rpc_socket_readonly")]
    pub(crate) no_rpc_server: bool,

    /// Only these methods may be called over the sockets; all others answer as if they did not exist. The configuration that is
    /// loaded at the start may use every method
    #[arg(long, value_name = "METHOD,…", value_delimiter = ',')]
    pub(crate) rpcs_allowed: Option<Vec<String>>,

    /// Stay before initialization until `framework_start_init` is called
    #[arg(long)]
    pub(crate) wait_for_rpc: bool,

    /// Configuration to load: SPDK's shape, as `rpc.py save_config` writes it
    #[arg(
        short = 'c',
        long = "json",
        visible_alias = "config",
        value_name = "FILE"
    )]
    pub(crate) config: Option<PathBuf>,

    /// Keep the configuration in this directory (made if it is missing): every change over RPC is on the disk before it is
    /// answered, and comes back at the next start. With -c, the file fills a directory that has no configuration yet
    #[arg(long, value_name = "DIR", conflicts_with_all = ["disk", "ram", "attach", "endpoint"])]
    pub(crate) state: Option<PathBuf>,

    /// Go on when an entry of the configuration fails
    #[arg(long)]
    pub(crate) json_ignore_init_errors: bool,

    /// Expose this file or block device (repeatable; becomes one namespace of the NVMe endpoint, or one virtio-blk device)
    #[arg(long, value_name = "PATH")]
    pub(crate) disk: Vec<PathBuf>,

    /// Expose a RAM disk of this size, such as 64M or 2G (repeatable)
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    pub(crate) ram: Vec<u64>,

    /// What guests see of --disk, --ram and the RAM disk: `nvme`, an NVMe controller over vfio-user; `virtio`, a virtio-blk
    /// device over vfio-user for each disk; `vhost`, one over vhost-user for each (nvme unless given)
    #[arg(long, value_name = "HOW", value_enum)]
    pub(crate) attach: Option<Attach>,

    /// Directory of the sockets for --disk and --ram; made if it is missing. The socket is DIR/cntrl for nvme, else DIR/ and the
    /// bdev's name (Malloc0, Disk0, …)
    #[arg(long, value_name = "DIR")]
    pub(crate) endpoint: Option<PathBuf>,

    /// Directory for the sockets of vhost-user and, until `vfu_tgt_set_base_path` is called, of virtio over vfio-user (the present
    /// directory unless given)
    #[arg(short = 'S', long = "vhost-dir", value_name = "DIR")]
    pub(crate) vhost_dir: Option<PathBuf>,

    /// Serve metrics for Prometheus over HTTP at /metrics: on this port of the loopback interface (9797 unless given), on an address
    /// and port, or on unix:PATH
    #[arg(long, value_name = "ADDR", num_args = 0..=1, default_missing_value = "")]
    pub(crate) metrics: Option<Address>,

    /// Write the process id to this file
    #[arg(short = 'f', long, value_name = "PATH")]
    pub(crate) pidfile: Option<PathBuf>,

    /// Log everything of this component (repeatable; `all` for all, see `vtarget rpc log_get_flags`)
    #[arg(short = 'L', long, value_name = "FLAG")]
    pub(crate) logflag: Vec<String>,

    /// Log warnings and errors only
    #[arg(long)]
    pub(crate) silence_noticelog: bool,

    #[command(flatten)]
    pub(crate) _compatibility: Compatibility,
}

/// See [`COMPATIBILITY`].
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = COMPATIBILITY)]
pub(crate) struct Compatibility {
    #[arg(short = 's', long, value_name = "MB")]
    mem_size: Option<String>,
    #[arg(short = 'g', long)]
    single_file_segments: bool,
    #[arg(short = 'i', long, value_name = "ID")]
    shm_id: Option<i64>,
    #[arg(short = 'R', long)]
    huge_unlink: bool,
    #[arg(short = 'u', long)]
    no_pci: bool,
    #[arg(short = 'd', long)]
    limit_coredump: bool,
    #[arg(short = 'n', long, value_name = "N")]
    mem_channels: Option<u32>,
    #[arg(short = 'e', long, value_name = "GROUP")]
    tpoint_group: Vec<String>,
    #[arg(short = 'A', long, value_name = "BDF")]
    pci_allowed: Vec<String>,
    #[arg(short = 'B', long, value_name = "BDF")]
    pci_blocked: Vec<String>,
    #[arg(long)]
    no_huge: bool,
    #[arg(long, value_name = "DIR")]
    huge_dir: Option<String>,
    #[arg(long, value_name = "MODE")]
    iova_mode: Option<String>,
    #[arg(long, value_name = "ADDRESS")]
    base_virtaddr: Option<String>,
    #[arg(long, value_name = "N")]
    num_trace_entries: Option<String>,
    #[arg(long, value_name = "OPTIONS")]
    env_context: Option<String>,
    #[arg(long)]
    disable_cpumask_locks: bool,
    #[arg(long)]
    enforce_numa: bool,
    #[arg(long, value_name = "N")]
    msg_mempool_size: Option<String>,
}

/// How guests get at disks of the command line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Attach {
    #[default]
    Nvme,
    Virtio,
    Vhost,
}

/// See [`reactor::Mode`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ReactorMode {
    Poll,
    Adaptive,
    Interrupt,
}

impl From<ReactorMode> for reactor::Mode {
    fn from(mode: ReactorMode) -> Self {
        match mode {
            ReactorMode::Poll => Self::Poll,
            ReactorMode::Adaptive => Self::Adaptive,
            ReactorMode::Interrupt => Self::Interrupt,
        }
    }
}

impl ServeArgs {
    /// Whether to bring up the RAM disk for people who try things out: nothing was said about what to serve or who will say it.
    pub(crate) fn wants_demo(&self) -> bool {
        !self.wants_disks()
            && self.config.is_none()
            && self.state.is_none()
            && self.rpc_socket.is_none()
            && !self.no_rpc_server
            && !self.wait_for_rpc
            && self.vhost_dir.is_none()
            || ((self.endpoint.is_some() || self.attach.is_some()) && !self.wants_disks())
    }

    /// Whether the command line names disks.
    pub(crate) fn wants_disks(&self) -> bool {
        !self.disk.is_empty() || !self.ram.is_empty()
    }
}

/// Permission bits of "0660" and the like.
fn parse_mode(text: &str) -> Result<u32, String> {
    u32::from_str_radix(text.strip_prefix("0o").unwrap_or(text), 8)
        .ok()
        .filter(|mode| *mode <= 0o777)
        .ok_or_else(|| "give permission bits in octal, such as 0660".to_owned())
}

/// Bytes of "64M" and the like; binary units, as SPDK's.
pub(crate) fn parse_size(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = text[digits.len()..].to_ascii_uppercase();
    let shift = match unit.trim_end_matches('B').trim_end_matches('I') {
        "" => 0,
        "K" => 10,
        "M" => 20,
        "G" => 30,
        "T" => 40,
        _ => return Err(format!("unknown unit {unit}: give K, M, G or T")),
    };
    let number: u64 = digits
        .parse()
        .map_err(|_| "give a number and a unit, such as 64M".to_owned())?;
    number
        .checked_mul(1 << shift)
        .filter(|bytes| *bytes >= 512)
        .ok_or_else(|| "give a size from 512 bytes to 16 EiB".to_owned())
}

#[cfg(test)]
mod tests;
