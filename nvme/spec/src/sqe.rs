//! The submission queue entry (Base 2.0c, section 3.3.3.1).

use bitfield_struct::bitfield;
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout, transmute};

use crate::opcode::{AdminOpcode, NvmOpcode};
use crate::open_enum::{open_enum, wire_struct};
use crate::sgl::SglDescriptor;

open_enum! {
    /// Fused Operation, CDW0 bits 9:8 (Base 2.0c, 3.3.3.1, figure "Command Dword 0").
    pub enum Fuse: u8 {
        /// A normal command.
        NORMAL = 0,
        /// The first command of a fused pair.
        FIRST = 1,
        /// The second command of a fused pair.
        SECOND = 2,
        /// Reserved by the specification.
        RESERVED = 3,
    }
}

open_enum! {
    /// PRP or SGL for Data Transfer, CDW0 bits 15:14 (Base 2.0c, 3.3.3.1).
    pub enum Psdt: u8 {
        /// PRPs for data; the metadata pointer is a contiguous buffer.
        PRP = 0,
        /// SGLs for data; the metadata pointer is the address of a contiguous buffer.
        SGL_MPTR_CONTIGUOUS = 1,
        /// SGLs for data; the metadata pointer is the address of an SGL segment.
        SGL_MPTR_SGL = 2,
        /// Reserved by the specification.
        RESERVED = 3,
    }
}

/// Command Dword 0 (Base 2.0c, 3.3.3.1, figure "Command Dword 0").
#[bitfield(u32)]
#[derive(PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Cdw0 {
    /// Opcode (OPC), bits 7:0.
    pub opcode: u8,
    /// Fused Operation (FUSE), bits 9:8.
    #[bits(2)]
    pub fuse: Fuse,
    #[bits(4)]
    __: u8,
    /// PRP or SGL for Data Transfer (PSDT), bits 15:14.
    #[bits(2)]
    pub psdt: Psdt,
    /// Command Identifier (CID), bits 31:16.
    pub cid: u16,
}

wire_struct! {
    /// Data Pointer (DPTR): two PRP entries, or one SGL descriptor, as PSDT says (Base 2.0c,
    /// 3.3.3.1).
    #[derive(Copy)]
    pub struct Dptr[16] {
        /// PRP Entry 1.
        pub prp1: u64,
        /// PRP Entry 2: reserved, a second page, or the address of a PRP list.
        pub prp2: u64,
    }
}

impl Dptr {
    /// From two PRP entries.
    #[must_use]
    pub const fn from_prps(prp1: u64, prp2: u64) -> Self {
        Self { prp1, prp2 }
    }

    /// From SGL descriptor 1.
    #[must_use]
    pub fn from_sgl(sgl: SglDescriptor) -> Self {
        transmute!(sgl)
    }

    /// The same 16 bytes read as SGL descriptor 1.
    #[must_use]
    pub fn sgl(self) -> SglDescriptor {
        transmute!(self)
    }
}

wire_struct! {
    /// Submission queue entry, common command format (Base 2.0c, 3.3.3.1).
    ///
    /// Copied out of the ring by value, once; every accessor works on the private copy.
    #[derive(Copy)]
    pub struct Sqe[64] {
        /// Bytes 3:0: opcode, fuse, PSDT and command identifier.
        pub cdw0: Cdw0,
        /// Bytes 7:4: Namespace Identifier (NSID).
        pub nsid: u32,
        /// Bytes 11:8: Command Dword 2.
        pub cdw2: u32,
        /// Bytes 15:12: Command Dword 3.
        pub cdw3: u32,
        /// Bytes 23:16: Metadata Pointer (MPTR).
        pub mptr: u64,
        /// Bytes 39:24: Data Pointer (DPTR).
        pub dptr: Dptr,
        /// Bytes 43:40: Command Dword 10.
        pub cdw10: u32,
        /// Bytes 47:44: Command Dword 11.
        pub cdw11: u32,
        /// Bytes 51:48: Command Dword 12.
        pub cdw12: u32,
        /// Bytes 55:52: Command Dword 13.
        pub cdw13: u32,
        /// Bytes 59:56: Command Dword 14.
        pub cdw14: u32,
        /// Bytes 63:60: Command Dword 15.
        pub cdw15: u32,
    }
}

impl Sqe {
    /// A command with `opcode` for namespace `nsid`, everything else zero.
    #[must_use]
    pub fn new(opcode: u8, nsid: u32) -> Self {
        let mut sqe = Self::new_zeroed();
        sqe.cdw0 = Cdw0::new().with_opcode(opcode);
        sqe.nsid = nsid;
        sqe
    }

    /// An admin command, everything but opcode and nsid zero.
    #[must_use]
    pub fn admin(opcode: AdminOpcode, nsid: u32) -> Self {
        Self::new(opcode.0, nsid)
    }

    /// A command of the NVM command set, everything but opcode and nsid zero.
    #[must_use]
    pub fn nvm(opcode: NvmOpcode, nsid: u32) -> Self {
        Self::new(opcode.0, nsid)
    }

    /// The opcode, read on an admin queue.
    #[must_use]
    pub const fn admin_opcode(&self) -> AdminOpcode {
        AdminOpcode(self.cdw0.opcode())
    }

    /// The opcode, read on an I/O queue bound to the NVM command set.
    #[must_use]
    pub const fn nvm_opcode(&self) -> NvmOpcode {
        NvmOpcode(self.cdw0.opcode())
    }

    /// Command Identifier.
    #[must_use]
    pub const fn cid(&self) -> u16 {
        self.cdw0.cid()
    }

    /// The same command under command identifier `cid`.
    #[must_use]
    pub const fn with_cid(mut self, cid: u16) -> Self {
        self.cdw0 = self.cdw0.with_cid(cid);
        self
    }

    /// The same command with two PRP entries for its data.
    #[must_use]
    pub const fn with_prps(mut self, prp1: u64, prp2: u64) -> Self {
        self.cdw0 = self.cdw0.with_psdt(Psdt::PRP);
        self.dptr = Dptr::from_prps(prp1, prp2);
        self
    }

    /// The same command with an SGL for its data and a contiguous metadata buffer.
    #[must_use]
    pub fn with_sgl(mut self, sgl: SglDescriptor) -> Self {
        self.cdw0 = self.cdw0.with_psdt(Psdt::SGL_MPTR_CONTIGUOUS);
        self.dptr = Dptr::from_sgl(sgl);
        self
    }

    /// Command Dwords 10 (low) and 11 (high) as one number: the starting LBA (SLBA) of Read,
    /// Write, Compare, Verify, Write Zeroes and Write Uncorrectable, the destination of Copy (NVM
    /// Command Set 1.0, 3.2).
    #[must_use]
    pub const fn slba(&self) -> u64 {
        self.cdw10 as u64 | ((self.cdw11 as u64) << 32)
    }

    /// Puts `slba` into Command Dwords 10 and 11.
    #[must_use]
    pub const fn with_slba(mut self, slba: u64) -> Self {
        self.cdw10 = slba as u32;
        self.cdw11 = (slba >> 32) as u32;
        self
    }
}

#[cfg(test)]
mod tests;
