//! A disk's errors in the guest's language.

use bdev::{Count, IoStatus};
use nix::errno::Errno;
use nvme_spec::{Status, StatusCodeType};

/// The status for a request that counts as `count` and ended with `status`. Do Not Retry is set where the same command cannot
/// succeed a moment later.
pub(crate) fn status_of(status: IoStatus, count: Count) -> Status {
    match status {
        IoStatus::Ok => Status::SUCCESS,
        IoStatus::Miscompare => Status::COMPARE_FAILURE.with_dnr(true),
        IoStatus::OutOfRange => Status::LBA_OUT_OF_RANGE.with_dnr(true),
        IoStatus::ReadOnly => Status::NAMESPACE_WRITE_PROTECTED.with_dnr(true),
        IoStatus::NoSpace => Status::CAPACITY_EXCEEDED.with_dnr(true),
        IoStatus::Unsupported => Status::INVALID_OPCODE.with_dnr(true),
        IoStatus::BadMemory => Status::DATA_TRANSFER_ERROR,
        IoStatus::Aborted => Status::ABORT_REQUESTED,
        IoStatus::Nvme { sct, sc } => Status::of(StatusCodeType(sct & 7), sc),
        IoStatus::Failed(errno) if is_medium(errno) => match count {
            Count::Read => Status::UNRECOVERED_READ_ERROR,
            Count::Write | Count::Other => Status::WRITE_FAULT,
        },
        IoStatus::Failed(_) => Status::INTERNAL_ERROR,
    }
}

/// Whether an errno speaks of the medium (the block layer's BLK_STS_MEDIUM, _IOERR, _PROTECTION and their relatives)
/// rather than of us.
fn is_medium(errno: Errno) -> bool {
    matches!(
        errno,
        Errno::EIO
            | Errno::ENODATA
            | Errno::EREMOTEIO
            | Errno::EILSEQ
            | Errno::EBADMSG
            | Errno::EUCLEAN
    )
}

/// Whether the operator should hear of it: the disk or the host is at fault, not the guest.
pub(crate) fn is_cause_ours(status: IoStatus) -> bool {
    matches!(
        status,
        IoStatus::Failed(_) | IoStatus::NoSpace | IoStatus::BadMemory
    )
}
