//! The methods that the socket for monitoring offers: those that change nothing, neither what guests see nor what a later call
//! answers. A method is none of them until it is named here.

use nix::errno::Errno;
use rpc::{Params, RegistryError, RpcError};
use serde_json::Value;

use super::Table;

const METHODS: &[&str] = &[
    "accel_get_module_info",
    "accel_get_opc_assignments",
    "accel_get_stats",
    "bdev_get_bdevs",
    "bdev_get_histogram",
    "bdev_get_histogram_borders",
    "bdev_wait_for_examine",
    "framework_get_config",
    "framework_get_governor",
    "framework_get_pci_devices",
    "framework_get_reactors",
    "framework_get_scheduler",
    "framework_get_subsystems",
    "framework_wait_init",
    "iobuf_get_stats",
    "keyring_get_keys",
    "log_get_flags",
    "log_get_level",
    "log_get_print_level",
    "notify_get_notifications",
    "notify_get_types",
    "nvmf_get_stats",
    "nvmf_discovery_get_referrals",
    "nvmf_get_subsystems",
    "nvmf_get_targets",
    "nvmf_get_transports",
    "nvmf_subsystem_get_controllers",
    "nvmf_subsystem_get_listeners",
    "nvmf_subsystem_get_qpairs",
    "sock_get_default_impl",
    "sock_impl_get_options",
    "spdk_get_version",
    "thread_get_io_channels",
    "thread_get_pollers",
    "thread_get_stats",
    "trace_get_info",
    "trace_get_tpoint_group_mask",
    "vfu_get_endpoints",
    "vhost_get_controllers",
    "virtio_blk_get_transports",
    "vtarget_get_telemetry",
    "vtarget_subscribe",
];

pub(super) fn mark(table: &mut Table) -> Result<(), RegistryError> {
    table.read_only(METHODS.iter().copied())?;
    table.read_only_if("bdev_get_iostat", forgets_nothing)?;
    Ok(())
}

/// `reset_mode` makes `bdev_get_iostat` set the counters back.
fn forgets_nothing(params: &Params) -> Result<(), RpcError> {
    let mode = params.value().and_then(|params| params.get("reset_mode"));
    match mode {
        None => Ok(()),
        Some(Value::String(mode)) if mode == "none" => Ok(()),
        Some(_) => Err(RpcError::errno(
            Errno::EACCES,
            "bdev_get_iostat with a reset_mode sets counters back, and this socket is read-only: leave it out, or use the \
             target's other RPC socket",
        )),
    }
}

#[cfg(test)]
mod tests;
