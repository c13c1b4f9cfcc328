//! Identify Controller.

use bdev::Features;
use nvme_spec::identify::{
    AnaCap, Cmic, ControllerType, CqEntrySizes, Ctratt, FlushBroadcast, Frmw, IdentifyController,
    Lpa, Oacs, Oaes, Oncs, SglAlignment, SglSupport, SqEntrySizes, Vwc,
};
use nvme_spec::registers::Version;
use zerocopy::FromZeros;

use super::Shown;
use crate::admin::events::AERL_Z;
use crate::admin::health::{CRITICAL_TEMPERATURE, WARNING_TEMPERATURE};
use crate::admin::log::ERROR_ENTRIES;
use crate::config::ControllerConfig;
use crate::controller::ids;
use crate::namespace::NamespaceSet;

/// Abort Command Limit, 0's based.
pub(crate) const ACL_Z: u8 = 3;
/// ANA Transition Time (ANATT) in seconds, as SPDK's: a group is never in the state ANA Change here, but the field must not be zero.
const ANA_TRANSITION_TIME: u8 = 10;
/// RTD3 Entry Latency in microseconds: how long a host lets a shutdown take that has to wait for slow disks.
const SHUTDOWN_TIME: u32 = 15_000_000;
/// Power state 0 in units of 0.01 W: a number that tools can show.
const POWER: u16 = 2_500;

/// `text` in ASCII, padded with spaces or cut.
fn padded<const N: usize>(text: &str) -> [u8; N] {
    let mut field = [b' '; N];
    let ascii = text.bytes().map(|byte| match byte {
        0x20..=0x7e => byte,
        _ => b'?',
    });
    for (byte, value) in field.iter_mut().zip(ascii) {
        *byte = value;
    }
    field
}

/// Firmware Revision (FR): the version of this program.
pub(crate) fn firmware_revision() -> [u8; 8] {
    padded(env!("CARGO_PKG_VERSION"))
}

/// MDTS: `max_transfer` as a power of two of 4 KiB.
fn mdts(max_transfer: u32) -> u8 {
    let pages = (max_transfer / 4096).max(1);
    u8::try_from(pages.ilog2()).unwrap_or(0)
}

/// Whether any disk has a cache that a flush empties.
pub(crate) fn has_write_cache(namespaces: &NamespaceSet) -> bool {
    namespaces
        .iter()
        .any(|ns| ns.info.features.contains(Features::WRITE_CACHE))
}

pub(super) fn identify(config: &ControllerConfig, shown: Shown) -> IdentifyController {
    let mut page = IdentifyController::new_zeroed();
    page.vid = ids::VENDOR;
    page.ssvid = ids::VENDOR;
    page.sn = padded(&config.serial_number);
    page.mn = padded(&config.model_number);
    page.fr = firmware_revision();
    page.rab = 6;
    page.ieee = ids::OUI;
    // Two endpoints of one subsystem may meet in one guest; Linux refuses the second unless both say so.
    page.cmic = Cmic::new()
        .with_ports(config.shared)
        .with_controllers(config.shared)
        .with_ana(config.ana_reporting);
    page.mdts = mdts(config.max_transfer);
    page.cntlid = config.cntlid;
    page.ver = Version::V2_0;
    page.rtd3e = SHUTDOWN_TIME;
    page.oaes = Oaes::new()
        .with_namespace_attribute(true)
        .with_ana_change(config.ana_reporting);
    page.ctratt = Ctratt::new().with_host_id_128(true);
    page.cntrltype = ControllerType::IO;
    page.oacs = Oacs::new().with_doorbell_buffer_config(shown.doorbell_buffers);
    page.acl_z = ACL_Z;
    page.aerl_z = AERL_Z;
    page.frmw = Frmw::new().with_slot1_read_only(true).with_slots(1);
    page.lpa = Lpa::new()
        .with_commands_effects(true)
        .with_extended_data(true)
        .with_effects_pages(true);
    page.elpe_z = u8::try_from(ERROR_ENTRIES - 1).unwrap_or(u8::MAX);
    page.wctemp = WARNING_TEMPERATURE;
    page.cctemp = CRITICAL_TEMPERATURE;
    page.kas = config.kas;
    page.sqes = SqEntrySizes::new().with_required(6).with_maximum(6);
    page.cqes = CqEntrySizes::new().with_required(4).with_maximum(4);
    page.maxcmd = u16::try_from(config.max_queue_depth).unwrap_or(u16::MAX);
    page.nn = config.max_namespaces;
    page.oncs = Oncs::new()
        .with_compare(!config.masked.compare)
        .with_dataset_management(!config.masked.dataset_management)
        .with_write_zeroes(!config.masked.write_zeroes)
        .with_save_select(true)
        .with_timestamp(true);
    page.vwc = Vwc::new()
        .with_present(shown.write_cache)
        .with_flush_broadcast(FlushBroadcast::SUPPORTED);
    page.sgls = SglSupport::new()
        .with_support(SglAlignment::ANY)
        .with_bit_bucket(true)
        .with_longer_than_data(true);
    if config.ana_reporting {
        page.anatt = ANA_TRANSITION_TIME;
        // The operator may move a namespace to another group while it is attached (bit 6 clear).
        page.anacap = AnaCap::new()
            .with_optimized(true)
            .with_non_optimized(true)
            .with_inaccessible(true)
            .with_persistent_loss(true)
            .with_change(true);
        page.anagrpmax = config.max_namespaces;
        page.nanagrpid = config.max_namespaces;
    }
    let nqn = config.subnqn.as_bytes();
    for (byte, value) in page.subnqn.iter_mut().take(255).zip(nqn) {
        *byte = *value;
    }
    page.psd[0].mp = POWER;
    page
}
