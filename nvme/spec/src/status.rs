//! The status field of a completion (Base 2.0c, section 3.3.3.2.1).

mod codes;

use core::fmt;

use bitfield_struct::bitfield;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::open_enum::open_enum;

open_enum! {
    /// Status Code Type (SCT), bits 27:25 of Dword 3 (Base 2.0c, 3.3.3.2.1, figure "Status Code -
    /// Status Code Type Values").
    pub enum StatusCodeType: u8 {
        /// Generic Command Status.
        GENERIC = 0x0,
        /// Command Specific Status.
        COMMAND_SPECIFIC = 0x1,
        /// Media and Data Integrity Errors.
        MEDIA = 0x2,
        /// Path Related Status.
        PATH = 0x3,
        /// Vendor Specific.
        VENDOR_SPECIFIC = 0x7,
    }
}

/// The 15 status bits of a completion: bits 31:17 of Dword 3, moved down to bit 0.
///
/// The constants (`INVALID_FIELD`, `LBA_OUT_OF_RANGE`, …) carry only SCT and SC; whether a retry is
/// pointless is the caller's knowledge and added with [`with_dnr`](Self::with_dnr). To ask which
/// error it is whatever its flags, compare [`code`](Self::code).
#[bitfield(u16, debug = false)]
#[derive(PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Status {
    /// Status Code (SC), Dword 3 bits 24:17.
    pub sc: u8,
    /// Status Code Type (SCT), Dword 3 bits 27:25.
    #[bits(3)]
    pub sct: StatusCodeType,
    /// Command Retry Delay (CRD), Dword 3 bits 29:28: which of CRDT1 to CRDT3 to wait.
    #[bits(2)]
    pub crd: u8,
    /// More (M), Dword 3 bit 30: the error log has more about it.
    pub more: bool,
    /// Do Not Retry (DNR), Dword 3 bit 31.
    pub dnr: bool,
    #[bits(1)]
    __: u8,
}

impl Status {
    /// From a status code type and a status code.
    #[must_use]
    pub const fn of(sct: StatusCodeType, sc: u8) -> Self {
        Self::new().with_sct(sct).with_sc(sc)
    }

    /// A Generic Command Status.
    #[must_use]
    pub const fn generic(sc: u8) -> Self {
        Self::of(StatusCodeType::GENERIC, sc)
    }

    /// A Command Specific Status.
    #[must_use]
    pub const fn command_specific(sc: u8) -> Self {
        Self::of(StatusCodeType::COMMAND_SPECIFIC, sc)
    }

    /// A Media and Data Integrity Error.
    #[must_use]
    pub const fn media(sc: u8) -> Self {
        Self::of(StatusCodeType::MEDIA, sc)
    }

    /// A Path Related Status.
    #[must_use]
    pub const fn path(sc: u8) -> Self {
        Self::of(StatusCodeType::PATH, sc)
    }

    /// Status code type and code alone: retry delay, More and Do Not Retry cleared.
    #[must_use]
    pub const fn code(self) -> Self {
        Self::of(self.sct(), self.sc())
    }

    /// Whether the command succeeded.
    #[must_use]
    pub const fn is_success(self) -> bool {
        self.sc() == 0 && self.sct().0 == 0
    }

    /// The upper half of Dword 3 (bits 31:16): this status above the phase tag.
    #[must_use]
    pub const fn with_phase_tag(self, phase: bool) -> u16 {
        (self.into_bits() << 1) | phase as u16
    }
}

impl fmt::Debug for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name)?,
            None => write!(f, "Status(sct {:#x}, sc {:#04x})", self.sct().0, self.sc())?,
        }
        if self.crd() != 0 {
            write!(f, "+CRD{}", self.crd())?;
        }
        if self.more() {
            f.write_str("+MORE")?;
        }
        if self.dnr() {
            f.write_str("+DNR")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
