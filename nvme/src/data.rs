//! Where a command's data lies: PRP entries and SGL descriptors into a scatter list (Base 2.0c, 4.1).
//!
//! Every entry is read from guest memory once, checked, and pushed; nothing is remembered but the resulting
//! [`Segments`]. Work is bounded by the transfer length (PRP) or by fixed limits (SGL), whatever the lists say.

pub(crate) mod prp;
pub(crate) mod sgl;

use guest_memory::{Access, Fault, MapView, Segments};
use nvme_spec::{Dptr, Psdt, Status};

/// Most ranges in one scatter list: what the kernel takes in one vectored operation (`IOV_MAX`).
pub(crate) const MAX_SEGMENTS: usize = 1024;

/// Memory page size of the guest (CC.MPS).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PageSize(u32);

impl PageSize {
    /// 4 KiB, the value before the guest chooses one.
    pub(crate) const MIN: Self = Self(12);

    /// 2^(12 + `mps`) bytes, at most 64 KiB (CAP.MPSMAX is 4).
    pub(crate) fn from_mps(mps: u8) -> Self {
        Self(12 + u32::from(mps.min(4)))
    }

    /// In bytes.
    #[inline]
    pub(crate) fn bytes(self) -> u64 {
        1 << self.0
    }

    /// Position of an address in its page.
    #[inline]
    fn offset(self, address: u64) -> u64 {
        address & (self.bytes() - 1)
    }
}

/// Why a data pointer cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum DataError {
    /// An address of the list or of the data is not mapped, or lacks the right.
    #[error(transparent)]
    Fault(#[from] Fault),
    /// The list itself is wrong; the status says how.
    #[error("{0:?}")]
    Malformed(Status),
}

impl DataError {
    /// What the command ends with. Memory that is not there may be there at the next try; a wrong list stays wrong.
    pub(crate) fn status(self) -> Status {
        match self {
            Self::Fault(_) => Status::DATA_TRANSFER_ERROR,
            Self::Malformed(status) => status.with_dnr(true),
        }
    }
}

/// Resolves a command's data pointer for `len` bytes into `segments`; answers which bytes of the transfer go nowhere (bit
/// buckets of a read). `access` is [`Access::WRITE`] where the device writes the guest's memory.
///
/// # Errors
/// [`DataError`]; nothing has been transferred, and `segments` is to be dropped.
#[inline]
pub(crate) fn push(
    view: &MapView,
    page: PageSize,
    psdt: Psdt,
    dptr: Dptr,
    len: usize,
    access: Access,
    segments: &mut Segments,
) -> Result<sgl::Buckets, DataError> {
    if psdt == Psdt::PRP {
        prp::push(view, page, dptr, len, access, segments)?;
        return Ok(sgl::Buckets::default());
    }
    // SGLs with a metadata pointer that is an SGL itself are not offered (SGLS bit 19).
    if psdt != Psdt::SGL_MPTR_CONTIGUOUS {
        return Err(DataError::Malformed(Status::INVALID_FIELD));
    }
    sgl::push(view, dptr.sgl(), len, access, segments)
}
