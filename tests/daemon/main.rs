//! The daemon over its real sockets: its RPC methods, its life, and guests that see what operators change.
#![allow(clippy::panic, reason = "a test's way to fail")]

mod access;
mod bdevs;
mod cli;
mod common;
mod configuration;
mod contract;
mod decorated_guests;
mod decorators;
mod events;
mod examples;
mod framework;
mod guests;
mod hostile;
mod life;
mod metrics;
mod nvmf;
mod nvmf_access;
mod qos;
mod roundtrip;
mod shells;
mod spdk_cli;
mod spdk_client;
mod spdk_rpc;
mod spdk_top;
mod state;
mod telemetry;
mod top;
mod vfu_rpc;
mod vhost_rpc;
mod vhost_user;
mod virtio;
mod virtio_guests;
mod virtio_hostile;
mod virtio_vfio;
