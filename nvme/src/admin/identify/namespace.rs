//! Structures about one namespace.

use bdev::Features;
use nvme_spec::Le128;
use nvme_spec::identify::{
    Csi, Dlfeat, IDENTIFY_SIZE, IdentifyNamespace, IdentifyNamespaceIndependent, IndependentNsFeat,
    LbaFormat, NamespaceIdHeader, NamespaceIdType, Nmic, NsAttr, NsFeat, Nstat,
};
use zerocopy::{FromZeros, IntoBytes};

use crate::config::ControllerConfig;
use crate::namespace::Namespace;

fn attributes(ns: &Namespace) -> NsAttr {
    NsAttr::new().with_write_protected(!ns.info.features.contains(Features::WRITE))
}

/// ANAGRPID, where it is reported.
fn group(ns: &Namespace, config: &ControllerConfig) -> u32 {
    if config.ana_reporting {
        ns.access.group
    } else {
        0
    }
}

/// CNS 00h and 11h.
pub(super) fn nvm(ns: &Namespace, config: &ControllerConfig) -> IdentifyNamespace {
    let info = &ns.info;
    let mut page = IdentifyNamespace::new_zeroed();
    page.nsze = info.num_blocks;
    page.ncap = info.num_blocks;
    // What depends on the disk's state cannot be told where it cannot be reached (Base 2.0c, 8.1).
    if ns.access.is_open() || !config.ana_reporting {
        page.nuse = info.num_blocks;
    }
    page.anagrpid = group(ns, config);
    page.nsfeat = NsFeat::new().with_optperf(true);
    page.nmic = Nmic::new().with_shared(config.shared);
    let reads_zeroes = info
        .features
        .contains(Features::UNMAP | Features::UNMAP_ZEROES);
    page.dlfeat = Dlfeat::new()
        .with_read_behavior(u8::from(reads_zeroes))
        .with_write_zeroes_deallocates(reads_zeroes);
    page.nvmcap = Le128::new(u128::from(info.num_blocks) * u128::from(info.block_size));
    // 0's based: one less than the blocks in a unit that the medium writes without reading first.
    let unit = info.physical_block_size / info.block_size.max(1);
    let unit_z = u16::try_from(unit.saturating_sub(1)).unwrap_or(0);
    page.npwg_z = unit_z;
    page.npwa_z = unit_z;
    page.npdg_z = unit_z;
    page.npda_z = unit_z;
    page.nows_z = unit_z;
    page.nsattr = attributes(ns);
    page.nguid = ns.nguid.unwrap_or_default();
    page.eui64 = ns.eui64.unwrap_or_default();
    let lbads = u8::try_from(info.block_size.max(1).ilog2()).unwrap_or(0);
    page.lbaf[0] = LbaFormat::new().with_lbads(lbads);
    page
}

/// CNS 08h.
pub(super) fn independent(
    ns: &Namespace,
    config: &ControllerConfig,
) -> IdentifyNamespaceIndependent {
    let mut page = IdentifyNamespaceIndependent::new_zeroed();
    // The controller shows a cache if any disk has one; here a host learns which disks need no flush.
    let cached = ns.info.features.contains(Features::WRITE_CACHE);
    page.nsfeat = IndependentNsFeat::new().with_vwcnp(!cached);
    page.nmic = Nmic::new().with_shared(config.shared);
    page.anagrpid = group(ns, config);
    page.nsattr = attributes(ns);
    page.nstat = Nstat::new().with_nrdy(true);
    page
}

/// CNS 03h: every identifier the namespace has.
pub(super) fn descriptors(ns: &Namespace) -> Vec<u8> {
    let mut page = Vec::with_capacity(IDENTIFY_SIZE);
    let mut add = |nidt: NamespaceIdType, identifier: &[u8]| {
        if identifier.iter().any(|byte| *byte != 0) || nidt == NamespaceIdType::CSI {
            let nidl = u8::try_from(identifier.len()).unwrap_or(0);
            page.extend_from_slice(NamespaceIdHeader::new(nidt, nidl).as_bytes());
            page.extend_from_slice(identifier);
        }
    };
    add(NamespaceIdType::EUI64, &ns.eui64.unwrap_or_default());
    add(NamespaceIdType::NGUID, &ns.nguid.unwrap_or_default());
    add(NamespaceIdType::UUID, ns.uuid.as_bytes());
    add(NamespaceIdType::CSI, &[Csi::NVM.0]);
    page.resize(IDENTIFY_SIZE, 0);
    page
}
