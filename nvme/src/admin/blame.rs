//! Which field of an admin command is at fault: Parameter Error Location of its entry in the error log (Base 2.0c, 5.16.1.2).
//!
//! Each command checks few things, so its status tells which one failed, together with a second look at the field where two checks
//! share a status. That keeps the checks free of it.

use nvme_spec::command::{
    GetFeaturesCdw10, GetLogPageCdw10, GetLogPageCdw14, IdentifyCdw10, SetFeaturesCdw10,
};
use nvme_spec::identify::{Cns, Csi};
use nvme_spec::log::LogPageId;
use nvme_spec::{AdminOpcode, Fuse, Psdt, Sqe, Status};

use super::features;
use crate::command::{NO_LOCATION, location as field};

/// Byte 40 and up: the command's own Dwords.
const CDW10: u16 = 40;
const CDW11: u16 = 44;
const CDW12: u16 = 48;
const CDW14: u16 = 56;

/// The field of `sqe` because of which it ended with `status`, or [`NO_LOCATION`].
pub(super) fn location(sqe: &Sqe, status: Status) -> u16 {
    match status.code() {
        Status::INVALID_OPCODE => field::OPCODE,
        Status::COMMAND_ID_CONFLICT => field::CID,
        Status::INVALID_NAMESPACE_OR_FORMAT | Status::FEATURE_NOT_NAMESPACE_SPECIFIC => field::NSID,
        Status::DATA_TRANSFER_ERROR | Status::PRP_OFFSET_INVALID => field::DPTR,
        Status::INVALID_LOG_PAGE
        | Status::INVALID_QUEUE_IDENTIFIER
        | Status::INVALID_QUEUE_DELETION => CDW10,
        Status::INVALID_QUEUE_SIZE => CDW10 + 2,
        Status::COMPLETION_QUEUE_INVALID | Status::INVALID_INTERRUPT_VECTOR => CDW11 + 2,
        // SV, bit 31.
        Status::FEATURE_NOT_SAVEABLE => (CDW10 + 3) | 7 << 8,
        Status::INVALID_FIELD if sqe.cdw0.fuse() != Fuse::NORMAL => field::FUSE,
        Status::INVALID_FIELD if sqe.cdw0.psdt() != Psdt::PRP => field::PSDT,
        Status::INVALID_FIELD => invalid_field(sqe),
        _ => NO_LOCATION,
    }
}

fn invalid_field(sqe: &Sqe) -> u16 {
    match sqe.admin_opcode() {
        AdminOpcode::IDENTIFY => {
            // The only other thing that can be wrong is CSI, bits 31:24 of Dword 11, of the structures that have one.
            let has_csi = matches!(
                IdentifyCdw10::from_bits(sqe.cdw10).cns(),
                Cns::CSI_NAMESPACE | Cns::CSI_CONTROLLER | Cns::CSI_ACTIVE_NAMESPACE_LIST
            );
            if has_csi { CDW11 + 3 } else { CDW10 }
        }
        AdminOpcode::GET_LOG_PAGE => log_page(sqe),
        AdminOpcode::GET_FEATURES => {
            let cdw10 = GetFeaturesCdw10::from_bits(sqe.cdw10);
            match cdw10.fid() {
                fid if !features::SUPPORTED.contains(&fid) => CDW10,
                // SEL, bits 10:8.
                _ if cdw10.sel().0 > 3 => CDW10 + 1,
                _ => CDW11,
            }
        }
        AdminOpcode::SET_FEATURES => {
            let fid = SetFeaturesCdw10::from_bits(sqe.cdw10).fid();
            match fid {
                fid if !features::SUPPORTED.contains(&fid) => CDW10,
                _ if features::data_len(fid, sqe.cdw11) > 0 => field::DPTR,
                _ => CDW11,
            }
        }
        // PC, bit 0.
        AdminOpcode::CREATE_IO_CQ | AdminOpcode::CREATE_IO_SQ => CDW11,
        AdminOpcode::DOORBELL_BUFFER_CONFIG => field::DPTR,
        _ => NO_LOCATION,
    }
}

fn log_page(sqe: &Sqe) -> u16 {
    let cdw14 = GetLogPageCdw14::from_bits(sqe.cdw14);
    let lid = GetLogPageCdw10::from_bits(sqe.cdw10).lid();
    if !sqe.cdw12.is_multiple_of(4) {
        CDW12
    } else if cdw14.ot() {
        (CDW14 + 2) | 7 << 8
    } else if cdw14.uuid_index() != 0 {
        CDW14
    } else if lid == LogPageId::COMMANDS_SUPPORTED_AND_EFFECTS && cdw14.csi() != Csi::NVM {
        CDW14 + 3
    } else if lid == LogPageId::SMART_HEALTH && sqe.nsid != 0 && sqe.nsid != nvme_spec::NSID_ALL {
        field::NSID
    } else if sqe.cdw12 != 0 || sqe.cdw13 != 0 {
        // Beyond the page's end.
        CDW12
    } else {
        // NUMDL: more than MDTS.
        CDW10 + 2
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INVALID_FIELD: Status = Status::INVALID_FIELD.with_dnr(true);

    fn command(opcode: AdminOpcode, change: impl FnOnce(&mut Sqe)) -> Sqe {
        let mut sqe = Sqe::admin(opcode, 0);
        change(&mut sqe);
        sqe
    }

    #[test]
    fn a_field_shared_by_all_commands_is_named() {
        let sqe = Sqe::admin(AdminOpcode::IDENTIFY, 7);
        for (status, expected) in [
            (Status::INVALID_OPCODE, 0),
            (Status::COMMAND_ID_CONFLICT, 2),
            (Status::INVALID_NAMESPACE_OR_FORMAT, 4),
            (Status::DATA_TRANSFER_ERROR, 24),
            (Status::INTERNAL_ERROR, 0xffff),
        ] {
            assert_eq!(location(&sqe, status), expected, "{status:?}");
        }
        let fused = command(AdminOpcode::IDENTIFY, |sqe| {
            sqe.cdw0 = sqe.cdw0.with_fuse(Fuse::FIRST);
        });
        assert_eq!(location(&fused, INVALID_FIELD), 1);
        let sgl = command(AdminOpcode::IDENTIFY, |sqe| {
            sqe.cdw0 = sqe.cdw0.with_psdt(Psdt::SGL_MPTR_SGL);
        });
        assert_eq!(location(&sgl, INVALID_FIELD), 1 | 6 << 8);
    }

    #[test]
    fn each_commands_own_fields_are_named() {
        let cases = [
            (AdminOpcode::IDENTIFY, [0xff, 0, 0, 0], 40),
            (AdminOpcode::IDENTIFY, [5, 1 << 24, 0, 0], 47),
            (AdminOpcode::GET_LOG_PAGE, [2, 0, 2, 0], 48),
            (AdminOpcode::GET_LOG_PAGE, [2, 0, 4096, 0], 48),
            (AdminOpcode::GET_LOG_PAGE, [2, 0, 0, 1 << 23], 58 | 7 << 8),
            (AdminOpcode::GET_LOG_PAGE, [2, 0, 0, 1], 56),
            (AdminOpcode::GET_LOG_PAGE, [5, 0, 0, 1 << 24], 59),
            (
                AdminOpcode::GET_LOG_PAGE,
                [2 | 0xffff << 16, 0xffff, 0, 0],
                42,
            ),
            (AdminOpcode::GET_FEATURES, [0x7f, 0, 0, 0], 40),
            (AdminOpcode::GET_FEATURES, [1 | 5 << 8, 0, 0, 0], 41),
            (AdminOpcode::GET_FEATURES, [9, 0xffff, 0, 0], 44),
            (AdminOpcode::SET_FEATURES, [0x7f, 0, 0, 0], 40),
            (AdminOpcode::SET_FEATURES, [2, 1, 0, 0], 44),
            (AdminOpcode::CREATE_IO_SQ, [1, 0, 0, 0], 44),
        ];
        for (opcode, [cdw10, cdw11, cdw12, cdw14], expected) in cases {
            let sqe = command(opcode, |sqe| {
                (sqe.cdw10, sqe.cdw11, sqe.cdw12, sqe.cdw14) = (cdw10, cdw11, cdw12, cdw14);
            });
            let found = location(&sqe, INVALID_FIELD);
            assert_eq!(found, expected, "{opcode:?} {cdw10:#x} {cdw11:#x}");
        }
        let create = Sqe::admin(AdminOpcode::CREATE_IO_CQ, 0);
        assert_eq!(location(&create, Status::INVALID_QUEUE_SIZE), 42);
        assert_eq!(location(&create, Status::INVALID_INTERRUPT_VECTOR), 46);
        let set = Sqe::admin(AdminOpcode::SET_FEATURES, 0);
        assert_eq!(location(&set, Status::FEATURE_NOT_SAVEABLE), 43 | 7 << 8);
    }
}
