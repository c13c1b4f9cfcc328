//! Identify (Base 2.0c, 5.17; NVM Command Set 1.0, 4.1.5).

mod controller;
mod namespace;

pub(crate) use controller::{ACL_Z, firmware_revision, has_write_cache};
use nvme_spec::command::{IdentifyCdw10, IdentifyCdw11};
use nvme_spec::identify::{
    Cns, ControllerList, Csi, IDENTIFY_SIZE, IdentifyControllerNvm, IoCommandSetCombination,
    IoCommandSetCombinations, NamespaceList,
};
use nvme_spec::{NSID_ALL, Sqe, Status};
use zerocopy::{FromZeros, IntoBytes};

use crate::config::ControllerConfig;
use crate::namespace::{Namespace, NamespaceSet};

/// Write Zeroes Size Limit as a power of two of 4 KiB: 32 MiB, which is what NLB can say of 512-byte blocks. A host takes an
/// absent limit for MDTS, and Linux does not mind the 16 bits of NLB if the limit is larger.
const WZSL: u8 = 13;

/// What the host is to see that neither settings nor disks say alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Shown {
    /// A volatile write cache.
    pub(crate) write_cache: bool,
    /// Doorbell Buffer Config.
    pub(crate) doorbell_buffers: bool,
}

/// One of the 4096-byte structures, or why not.
pub(crate) fn identify(
    sqe: &Sqe,
    config: &ControllerConfig,
    namespaces: &NamespaceSet,
    shown: Shown,
) -> Result<Vec<u8>, Status> {
    let cdw10 = IdentifyCdw10::from_bits(sqe.cdw10);
    let csi = IdentifyCdw11::from_bits(sqe.cdw11).csi();
    let invalid_field = Status::INVALID_FIELD.with_dnr(true);
    let nvm_only = || (csi == Csi::NVM).then_some(()).ok_or(invalid_field);
    let active = |nsid| active(namespaces, config, nsid);
    let page = match cdw10.cns() {
        // All namespaces are attached to this controller: allocated ones are the active ones.
        Cns::NAMESPACE | Cns::ALLOCATED_NAMESPACE => active(sqe.nsid)?
            .map_or_else(zeroes, |ns| namespace::nvm(ns, config).as_bytes().to_vec()),
        Cns::CONTROLLER => controller::identify(config, shown).as_bytes().to_vec(),
        Cns::ACTIVE_NAMESPACE_LIST | Cns::ALLOCATED_NAMESPACE_LIST => list(namespaces, sqe.nsid)?,
        Cns::CSI_ACTIVE_NAMESPACE_LIST => {
            nvm_only()?;
            list(namespaces, sqe.nsid)?
        }
        Cns::NAMESPACE_ID_DESCRIPTORS => {
            let ns = active(sqe.nsid)?.ok_or(invalid_namespace())?;
            namespace::descriptors(ns)
        }
        Cns::CSI_NAMESPACE => {
            nvm_only()?;
            // No protection information: no storage tags, every extended format is zero.
            active(sqe.nsid)?;
            zeroes()
        }
        Cns::CSI_CONTROLLER => {
            nvm_only()?;
            let mut page = IdentifyControllerNvm::new_zeroed();
            page.wzsl = WZSL;
            page.as_bytes().to_vec()
        }
        Cns::INDEPENDENT_NAMESPACE => active(sqe.nsid)?.map_or_else(zeroes, |ns| {
            namespace::independent(ns, config).as_bytes().to_vec()
        }),
        Cns::NAMESPACE_CONTROLLER_LIST => {
            active(sqe.nsid)?.ok_or(invalid_namespace())?;
            controllers(config.cntlid, cdw10.cntid())
        }
        Cns::CONTROLLER_LIST => controllers(config.cntlid, cdw10.cntid()),
        Cns::IO_COMMAND_SETS => {
            let mut page = IoCommandSetCombinations::new_zeroed();
            page.combinations[0] = IoCommandSetCombination::new().with_nvm(true);
            page.as_bytes().to_vec()
        }
        _ => return Err(invalid_field),
    };
    Ok(page)
}

fn zeroes() -> Vec<u8> {
    vec![0; IDENTIFY_SIZE]
}

fn invalid_namespace() -> Status {
    Status::INVALID_NAMESPACE_OR_FORMAT.with_dnr(true)
}

/// The namespace with a valid NSID, if it is active. FFFFFFFFh is not valid here: without Namespace Management there is
/// nothing common to all namespaces to tell.
fn active<'a>(
    namespaces: &'a NamespaceSet,
    config: &ControllerConfig,
    nsid: u32,
) -> Result<Option<&'a Namespace>, Status> {
    match namespaces.get(nsid) {
        Some(ns) => Ok(Some(ns)),
        None if nsid == 0 || nsid > config.max_namespaces => Err(invalid_namespace()),
        None => Ok(None),
    }
}

/// Active namespaces above `nsid`.
fn list(namespaces: &NamespaceSet, nsid: u32) -> Result<Vec<u8>, Status> {
    if nsid >= NSID_ALL - 1 {
        return Err(invalid_namespace());
    }
    let mut page = NamespaceList::new_zeroed();
    let above = namespaces.iter().filter(|ns| ns.nsid > nsid);
    for (entry, ns) in page.nsids.iter_mut().zip(above) {
        *entry = ns.nsid;
    }
    Ok(page.as_bytes().to_vec())
}

/// Controllers from `first` on. A controller knows only itself: other endpoints of the subsystem are other functions.
fn controllers(cntlid: u16, first: u16) -> Vec<u8> {
    let mut page = ControllerList::new_zeroed();
    if cntlid >= first {
        page.count = 1;
        page.cntlids[0] = cntlid;
    }
    page.as_bytes().to_vec()
}

#[cfg(test)]
mod tests;
