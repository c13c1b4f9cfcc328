//! Get Log Page (Base 2.0c, 5.16).

use std::collections::{BTreeSet, VecDeque};

use nvme_spec::command::{GetLogPageCdw10, GetLogPageCdw11, GetLogPageCdw14};
use nvme_spec::identify::{Csi, NamespaceList};
use nvme_spec::log::{
    ActiveFirmware, CommandEffects, CommandScope, CommandsSupportedAndEffects, ErrorInformation,
    FeatureEffects, FeatureIdEffects, FirmwareSlotInfo, LogPageEffects, LogPageId,
    ParameterErrorLocation, SupportedLogPages,
};
use nvme_spec::{AdminOpcode, NSID_ALL, NvmOpcode, Sqe, Status};
use zerocopy::{FromZeros, IntoBytes};

use super::features;
use super::identify::firmware_revision;
use crate::config::Masked;
use crate::messages::CommandError;

/// Entries of the error log (ELPE + 1).
pub(crate) const ERROR_ENTRIES: usize = 64;
/// Namespaces that the changed list can name.
const LISTED: usize = 1024;

/// Pages that exist.
const PAGES: [LogPageId; 8] = [
    LogPageId::SUPPORTED_LOG_PAGES,
    LogPageId::ERROR_INFORMATION,
    LogPageId::SMART_HEALTH,
    LogPageId::FIRMWARE_SLOT,
    LogPageId::CHANGED_NAMESPACE_LIST,
    LogPageId::COMMANDS_SUPPORTED_AND_EFFECTS,
    LogPageId::FEATURE_ID_EFFECTS,
    LogPageId::NVME_MI_EFFECTS,
];

/// The newest errors; plain data. Kept over controller resets, so that a host that resets a controller in trouble can still ask what
/// the trouble was; the count goes on over power cycles too.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ErrorLog {
    /// Newest first.
    entries: VecDeque<ErrorInformation>,
    count: u64,
}

impl ErrorLog {
    /// An empty log that goes on counting.
    pub(crate) fn after(count: u64) -> Self {
        Self {
            entries: VecDeque::new(),
            count,
        }
    }

    /// Enters an error.
    pub(crate) fn record(&mut self, error: &CommandError) {
        self.count = self.count.wrapping_add(1).max(1);
        let mut entry = ErrorInformation::new_zeroed();
        entry.error_count = self.count;
        entry.sqid = error.sqid;
        entry.cid = error.cid;
        entry.status_phase = error.status.with_phase_tag(false);
        entry.parameter_error_location =
            ParameterErrorLocation::from_bits(error.parameter_location);
        entry.lba = error.lba;
        entry.nsid = error.nsid;
        self.entries.truncate(ERROR_ENTRIES - 1);
        self.entries.push_front(entry);
    }

    /// Entries ever made.
    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    fn page(&self) -> Vec<u8> {
        let mut page: Vec<u8> = self
            .entries
            .iter()
            .flat_map(IntoBytes::as_bytes)
            .copied()
            .collect();
        page.resize(ERROR_ENTRIES * size_of::<ErrorInformation>(), 0);
        page
    }
}

/// Namespaces that changed since the host last read the list; plain data.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ChangedNamespaces(BTreeSet<u32>);

impl ChangedNamespaces {
    /// Enters namespaces. One more than the list can name is kept, to know of the overflow.
    pub(crate) fn extend(&mut self, nsids: impl Iterator<Item = u32>) {
        for nsid in nsids {
            if self.0.len() <= LISTED {
                self.0.insert(nsid);
            }
        }
    }

    /// Whether none has changed.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Forgets all.
    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }

    fn page(&self) -> NamespaceList {
        let mut list = NamespaceList::new_zeroed();
        if self.0.len() > LISTED {
            // "If more than 1,024 namespaces have changed … the first entry is FFFFFFFFh, the remainder zero."
            list.nsids[0] = NSID_ALL;
            return list;
        }
        for (entry, nsid) in list.nsids.iter_mut().zip(&self.0) {
            *entry = *nsid;
        }
        list
    }
}

/// What a Get Log Page asks for, checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LogRequest {
    /// Which page.
    pub(crate) lid: LogPageId,
    /// First byte.
    pub(crate) offset: u64,
    /// Bytes to transfer.
    pub(crate) len: usize,
    /// Whether the page's event stays.
    pub(crate) retain: bool,
    /// Log Specific Parameter.
    pub(crate) lsp: u8,
}

/// What the controller offers of what it need not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Offered {
    /// Doorbell Buffer Config.
    pub(crate) doorbell_buffers: bool,
    /// Asymmetric Namespace Access Reporting.
    pub(crate) ana: bool,
    /// Commands that are not.
    pub(crate) masked: Masked,
}

impl Offered {
    /// Pages that exist.
    fn pages(self) -> impl Iterator<Item = LogPageId> {
        let ana = self.ana.then_some(LogPageId::ANA);
        PAGES.into_iter().chain(ana)
    }
}

impl LogRequest {
    /// Checks a command; `max_transfer` is MDTS in bytes.
    pub(crate) fn new(sqe: &Sqe, max_transfer: u32, offered: Offered) -> Result<Self, Status> {
        let invalid_field = Status::INVALID_FIELD.with_dnr(true);
        let cdw10 = GetLogPageCdw10::from_bits(sqe.cdw10);
        let cdw11 = GetLogPageCdw11::from_bits(sqe.cdw11);
        let cdw14 = GetLogPageCdw14::from_bits(sqe.cdw14);
        let lid = cdw10.lid();
        if !offered.pages().any(|page| page == lid) {
            return Err(Status::INVALID_LOG_PAGE.with_dnr(true));
        }
        let dwords_z = u64::from(cdw10.numdl()) | u64::from(cdw11.numdu()) << 16;
        let len = (dwords_z + 1) * 4;
        if len > u64::from(max_transfer) {
            return Err(invalid_field);
        }
        let offset = u64::from(sqe.cdw12) | u64::from(sqe.cdw13) << 32;
        // No page has an index of entries (OT), and a byte offset counts whole dwords.
        if cdw14.ot() || !offset.is_multiple_of(4) || cdw14.uuid_index() != 0 {
            return Err(invalid_field);
        }
        let csi_matters = lid == LogPageId::COMMANDS_SUPPORTED_AND_EFFECTS;
        if csi_matters && cdw14.csi() != Csi::NVM {
            return Err(invalid_field);
        }
        // LPA bit 0 is clear: health is the controller's, not a namespace's.
        if lid == LogPageId::SMART_HEALTH && sqe.nsid != 0 && sqe.nsid != NSID_ALL {
            return Err(invalid_field);
        }
        Ok(Self {
            lid,
            offset,
            len: usize::try_from(len).map_err(|_| invalid_field)?,
            retain: cdw10.rae(),
            lsp: cdw10.lsp(),
        })
    }

    /// The part of `page` that was asked for; beyond its end zeroes. Only an offset greater than the page's size is an error.
    pub(crate) fn cut(&self, page: &[u8]) -> Result<Vec<u8>, Status> {
        let offset = usize::try_from(self.offset).unwrap_or(usize::MAX);
        let Some(rest) = page.get(offset..) else {
            return Err(Status::INVALID_FIELD.with_dnr(true));
        };
        let mut part = rest.get(..self.len).unwrap_or(rest).to_vec();
        part.resize(self.len, 0);
        Ok(part)
    }
}

/// Pages that never change, and those of these logs; `None` for a page that needs more than that.
pub(crate) fn page(
    lid: LogPageId,
    errors: &ErrorLog,
    changed: &ChangedNamespaces,
    offered: Offered,
) -> Option<Vec<u8>> {
    let page = match lid {
        LogPageId::SUPPORTED_LOG_PAGES => {
            let mut page = SupportedLogPages::new_zeroed();
            for lid in offered.pages() {
                page.lids[usize::from(lid.0)] = LogPageEffects::new().with_lsupp(true);
            }
            page.as_bytes().to_vec()
        }
        LogPageId::ERROR_INFORMATION => errors.page(),
        LogPageId::FIRMWARE_SLOT => {
            let mut page = FirmwareSlotInfo::new_zeroed();
            page.afi = ActiveFirmware::new().with_active_slot(1);
            page.frs[0] = firmware_revision();
            page.as_bytes().to_vec()
        }
        LogPageId::CHANGED_NAMESPACE_LIST => changed.page().as_bytes().to_vec(),
        LogPageId::COMMANDS_SUPPORTED_AND_EFFECTS => command_effects(offered).as_bytes().to_vec(),
        LogPageId::FEATURE_ID_EFFECTS => feature_effects().as_bytes().to_vec(),
        // There is no management endpoint: none is supported.
        LogPageId::NVME_MI_EFFECTS => vec![0; 1024],
        _ => return None,
    };
    Some(page)
}

fn command_effects(offered: Offered) -> CommandsSupportedAndEffects {
    let mut page = CommandsSupportedAndEffects::new_zeroed();
    let supported = CommandEffects::new().with_csupp(true);
    for opcode in super::SUPPORTED {
        if opcode != AdminOpcode::DOORBELL_BUFFER_CONFIG || offered.doorbell_buffers {
            page.acs[usize::from(opcode.0)] = supported;
        }
    }
    let (reads, writes) = (supported, supported.with_lbcc(true));
    let masked = offered.masked;
    for (opcode, effects, offered) in [
        (NvmOpcode::FLUSH, reads, true),
        (NvmOpcode::READ, reads, true),
        (NvmOpcode::COMPARE, reads, !masked.compare),
        (NvmOpcode::WRITE, writes, true),
        (NvmOpcode::WRITE_ZEROES, writes, !masked.write_zeroes),
        (
            NvmOpcode::DATASET_MANAGEMENT,
            writes,
            !masked.dataset_management,
        ),
    ] {
        if offered {
            page.iocs[usize::from(opcode.0)] = effects;
        }
    }
    page
}

fn feature_effects() -> FeatureIdEffects {
    let mut page = FeatureIdEffects::new_zeroed();
    for fid in features::SUPPORTED {
        let scope = match fid {
            nvme_spec::feature::FeatureId::ERROR_RECOVERY => {
                CommandScope::new().with_namespace(true)
            }
            _ => CommandScope::new().with_controller(true),
        };
        page.fids[usize::from(fid.0)] = FeatureEffects::new().with_fsupp(true).with_fsp(scope);
    }
    page
}

#[cfg(test)]
mod tests;
