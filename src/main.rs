//! vtarget: NVMe controllers and virtio-blk devices for virtual machines, from one daemon, managed with SPDK's JSON-RPC.
//!
//! This crate is the daemon and its command line: it wires the other crates together, owns what exists (disks, subsystems,
//! endpoints) and holds the bodies of the RPC methods. It is the only crate that sees all others, and the only user of `rpc`.
//!
//! ```text
//!  rpc thread ──Call──►┐                                   ┌──► reactor threads: Endpoint ─ session ─► nvme::Controller, virtio::Blk
//!  config thread ─────►│  control thread (main)            │        (bdev::open, queues, I/O: nothing here is on that path)
//!  signal thread ─────►│  Control: bdevs, subsystems,  ────┤
//!  reactors ──────────►│  endpoints; one owner, no locks   └──► helper threads: whatever may block (opening files)
//!  helpers ───────────►┘  RPC method bodies (methods/)              answers come back as messages
//! ```
//!
//! Start reading at [`control`]; [`daemon`] shows the order in which things start and stop.
#![forbid(unsafe_code)]

mod cli;
mod configuration;
mod control;
mod cpumask;
mod daemon;
mod disks;
mod events;
mod examine;
mod logging;
mod methods;
mod metrics;
mod notify;
mod nvmf;
mod options;
mod replay;
mod stacking;
mod state;
mod telemetry;
mod tuning;
mod virtio_blk;

fn main() -> std::process::ExitCode {
    cli::main()
}
