//! The substance of the fuzz targets, as ordinary code with ordinary tests.
//!
//! A target in `fuzz/targets` hands its input to the module here that bears its name. Each module has
//!
//! * `run(data)`, which turns any bytes into something a peer might do, does it, and panics where the code under test
//!   answers differently from the module's oracle;
//! * `seeds()`, inputs to start from, made rather than stored: the repository holds no corpus.
//!
//! | target | under test | oracle |
//! | --- | --- | --- |
//! | [`vfio_user`] | framing with descriptors, request decoding, replies | a second framer over the whole stream; the requests' documented guarantees |
//! | [`rpc_frame`] | cutting JSON out of a stream | a recursive parser, `serde_json`, other splits of the same stream |
//! | [`rpc_server`] | the RPC server with its socket | the same streams sent at once and alone; the shape of answers |
//! | [`rpc_config`] | the configuration file's parser | what moving and blanking text may change; `serde_json` |
//! | [`pci`] | configuration space, MSI-X table, interrupts | invariants of the specification; byte-wise writes; a model of eventfds |
//! | [`guest_memory`] | maps, views, windows, scatter lists, leases | a byte array per file and a list of who holds what |
//! | [`vhost_user`] | a vhost-user session over its socket | the contract of `virtio::Device`, held by a device that checks it; the shape and order of answers |
//! | [`virtio_blk`] | the block device on PCI, with its workers | what a guest that keeps to the rules wrote it reads; every reset ends; all memory comes back |
//! | [`virtqueue`] | the device side of the rings | the text's rules read again over a copy of the memory, to the byte |
//!
//! An empty input is a valid one everywhere, and short inputs do something sensible: what is missing reads as zero, and
//! zero is the ordinary choice.
#![forbid(unsafe_code)]

pub mod guest_memory;
pub mod noise;
mod panics;
pub mod pci;
pub mod rpc_config;
pub mod rpc_frame;
pub mod rpc_server;
pub mod vfio_user;
pub mod vhost_user;
pub mod virtio_blk;
pub mod virtqueue;

/// One input to start from, with the name of its file.
pub type Seed = (String, Vec<u8>);

/// One fuzz target.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Name of its binary and of its module.
    pub name: &'static str,
    /// Runs one input; panics on a finding.
    pub run: fn(&[u8]),
    /// Makes the inputs to start from.
    pub seeds: fn() -> Vec<Seed>,
}

macro_rules! targets {
    ($($name:ident),* $(,)?) => {
        &[$(Target {
            name: stringify!($name),
            run: $name::run,
            seeds: $name::seeds,
        }),*]
    };
}

/// All of them.
pub const TARGETS: &[Target] = targets![
    vfio_user,
    rpc_frame,
    rpc_server,
    rpc_config,
    pci,
    guest_memory,
    virtqueue,
    vhost_user,
    virtio_blk,
];

#[cfg(test)]
mod tests;
