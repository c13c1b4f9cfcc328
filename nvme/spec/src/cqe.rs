//! The completion queue entry (Base 2.0c, section 3.3.3.2).

use crate::open_enum::wire_struct;
use crate::status::Status;

wire_struct! {
    /// Completion queue entry (Base 2.0c, 3.3.3.2).
    #[derive(Copy)]
    pub struct Cqe[16] {
        /// Bytes 3:0: Dword 0, command specific.
        pub dw0: u32,
        /// Bytes 7:4: Dword 1, command specific.
        pub dw1: u32,
        /// Bytes 9:8: Submission Queue Head Pointer (SQHD).
        pub sqhd: u16,
        /// Bytes 11:10: Submission Queue Identifier (SQID).
        pub sqid: u16,
        /// Bytes 13:12: Command Identifier (CID).
        pub cid: u16,
        /// Bytes 15:14: the phase tag in bit 0 and the status in bits 15:1. These are bits 31:16 of
        /// Dword 3.
        pub status_phase: u16,
    }
}

impl Cqe {
    /// A completion of command `cid` of queue `sqid`.
    #[must_use]
    pub const fn new(sqid: u16, sqhd: u16, cid: u16, status: Status, phase: bool) -> Self {
        Self {
            dw0: 0,
            dw1: 0,
            sqhd,
            sqid,
            cid,
            status_phase: status.with_phase_tag(phase),
        }
    }

    /// The same completion with `dw0` in Dword 0.
    #[must_use]
    pub const fn with_dw0(mut self, dw0: u32) -> Self {
        self.dw0 = dw0;
        self
    }

    /// The status, without the phase tag.
    #[must_use]
    pub const fn status(&self) -> Status {
        Status::from_bits(self.status_phase >> 1)
    }

    /// The phase tag (P): inverted on each pass of the controller through the queue (Base 2.0c,
    /// 3.3.3.2).
    #[must_use]
    pub const fn phase(&self) -> bool {
        self.status_phase & 1 != 0
    }

    /// Dword 3: status, phase tag and command identifier.
    #[must_use]
    pub const fn dw3(&self) -> u32 {
        ((self.status_phase as u32) << 16) | self.cid as u32
    }

    /// The entry as two 64-bit words in memory order, so that the word with the phase tag can be
    /// stored last.
    #[must_use]
    pub const fn words(&self) -> [u64; 2] {
        [
            (self.dw1 as u64) << 32 | self.dw0 as u64,
            (self.dw3() as u64) << 32 | (self.sqid as u64) << 16 | self.sqhd as u64,
        ]
    }
}

#[cfg(test)]
mod tests;
