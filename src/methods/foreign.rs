//! Options of bdev modules that are not here, which every configuration that SPDK saved sets.
//!
//! They are checked and kept, to be saved again, and have no effect.

use rpc::{DecodeStyle, Params, RegistryError, RpcError, When};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Table;
use super::params::{BDEV, VHOST, optional};
use crate::control::{Control, done};
use crate::options::merge;

pub(super) fn register(table: &mut Table) -> Result<(), RegistryError> {
    table
        .method("bdev_nvme_set_options", When::Always, |control, params| {
            keep::<NvmeOptions>(control, params, BDEV, "bdev_nvme_set_options")
        })?
        .method("bdev_nvme_set_hotplug", When::Runtime, |control, params| {
            keep::<NvmeHotplug>(control, params, VHOST, "bdev_nvme_set_hotplug")
        })?
        .method("bdev_raid_set_options", When::Always, |control, params| {
            let style = DecodeStyle::PARSE_ERROR;
            keep::<RaidOptions>(control, params, style, "bdev_raid_set_options")
        })?
        .method("bdev_iscsi_set_options", When::Always, |control, params| {
            keep::<IscsiOptions>(control, params, BDEV, "bdev_iscsi_set_options")
        })?;
    Ok(())
}

fn keep<T: for<'de> Deserialize<'de> + Serialize>(
    control: &mut Control,
    params: Params,
    style: DecodeStyle,
    method: &'static str,
) -> Result<Value, RpcError> {
    let given: T = params.decode(style)?;
    let given = serde_json::to_value(given).map_err(RpcError::internal)?;
    let kept = &mut control.options.foreign;
    match kept.iter_mut().find(|(_, name, _)| *name == method) {
        Some((.., value)) => merge(value, &given),
        None => kept.push(("bdev", method, given)),
    }
    tracing::info!(method, "kept, without effect: there is no such module");
    done()
}

optional!(NvmeOptions {
    action_on_timeout: TimeoutAction,
    timeout_us: u64,
    timeout_admin_us: u64,
    keep_alive_timeout_ms: u32,
    arbitration_burst: u32,
    low_priority_weight: u32,
    medium_priority_weight: u32,
    high_priority_weight: u32,
    nvme_adminq_poll_period_us: u64,
    nvme_ioq_poll_period_us: u64,
    io_queue_requests: u32,
    delay_cmd_submit: bool,
    transport_retry_count: u32,
    bdev_retry_count: i32,
    transport_ack_timeout: u8,
    ctrlr_loss_timeout_sec: i32,
    reconnect_delay_sec: u32,
    fast_io_fail_timeout_sec: u32,
    disable_auto_failback: bool,
    generate_uuids: bool,
    transport_tos: u8,
    nvme_error_stat: bool,
    rdma_srq_size: u32,
    io_path_stat: bool,
    allow_accel_sequence: bool,
    rdma_max_cq_size: u32,
    rdma_cm_event_timeout_ms: u16,
    dhchap_digests: Vec<String>,
    dhchap_dhgroups: Vec<String>,
    rdma_umr_per_io: bool,
    tcp_connect_timeout_ms: u32,
    enable_flush: bool,
    multipath_opts: MultipathOptions,
});

optional!(RaidOptions {
    process_window_size_kb: u32,
    process_max_bandwidth_mb_sec: u32,
});

optional!(IscsiOptions { timeout_sec: u64 });

#[derive(Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
enum TimeoutAction {
    None,
    Reset,
    Abort,
}

#[derive(Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
enum Policy {
    ActivePassive,
    ActiveActive,
}

#[derive(Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
enum Selector {
    RoundRobin,
    QueueDepth,
}

optional!(MultipathOptions {
    policy: Policy,
    selector: Selector,
    min_io: u32,
});

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct NvmeHotplug {
    enable: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    period_us: Option<u64>,
}
