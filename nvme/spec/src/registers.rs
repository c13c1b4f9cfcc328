//! Controller properties as memory mapped registers (Base 2.0c, section 3.1.3; PCIe transport 1.0,
//! section 3.1).

mod cmb;
mod controller;
mod pmr;

pub use cmb::{
    BootReadStatus, BpInfo, BpMbl, BpRsel, CmbEbs, CmbLoc, CmbMsc, CmbSts, CmbSwtp, CmbSz,
};
pub use controller::{
    Ams, Aqa, Cap, Cc, ControllerPowerScope, Crms, Crto, Css, CssSupport, Csts, ReadyMode, Shn,
    Shst, Version,
};
pub use pmr::{PmrCap, PmrCtl, PmrEbs, PmrMscl, PmrSts, PmrSwtp};

use crate::open_enum::open_enum;

open_enum! {
    /// Offset of a register from the start of BAR0 (Base 2.0c, 3.1.3, figure "Property
    /// Definition").
    pub enum Register: u32 {
        /// Controller Capabilities, 8 bytes ([`Cap`]).
        CAP = 0x00,
        /// Version, 4 bytes ([`Version`]).
        VS = 0x08,
        /// Interrupt Mask Set, 4 bytes: one bit per vector (pin based and MSI only).
        INTMS = 0x0C,
        /// Interrupt Mask Clear, 4 bytes: one bit per vector (pin based and MSI only).
        INTMC = 0x10,
        /// Controller Configuration, 4 bytes ([`Cc`]).
        CC = 0x14,
        /// Controller Status, 4 bytes ([`Csts`]).
        CSTS = 0x1C,
        /// NVM Subsystem Reset, 4 bytes ([`NSSR_RESET`]).
        NSSR = 0x20,
        /// Admin Queue Attributes, 4 bytes ([`Aqa`]).
        AQA = 0x24,
        /// Admin Submission Queue Base Address, 8 bytes.
        ASQ = 0x28,
        /// Admin Completion Queue Base Address, 8 bytes.
        ACQ = 0x30,
        /// Controller Memory Buffer Location, 4 bytes ([`CmbLoc`]).
        CMBLOC = 0x38,
        /// Controller Memory Buffer Size, 4 bytes ([`CmbSz`]).
        CMBSZ = 0x3C,
        /// Boot Partition Information, 4 bytes ([`BpInfo`]).
        BPINFO = 0x40,
        /// Boot Partition Read Select, 4 bytes ([`BpRsel`]).
        BPRSEL = 0x44,
        /// Boot Partition Memory Buffer Location, 8 bytes ([`BpMbl`]).
        BPMBL = 0x48,
        /// Controller Memory Buffer Memory Space Control, 8 bytes ([`CmbMsc`]).
        CMBMSC = 0x50,
        /// Controller Memory Buffer Status, 4 bytes ([`CmbSts`]).
        CMBSTS = 0x58,
        /// Controller Memory Buffer Elasticity Buffer Size, 4 bytes ([`CmbEbs`]).
        CMBEBS = 0x5C,
        /// Controller Memory Buffer Sustained Write Throughput, 4 bytes ([`CmbSwtp`]).
        CMBSWTP = 0x60,
        /// NVM Subsystem Shutdown, 4 bytes ([`NSSD_NORMAL`], [`NSSD_ABRUPT`]).
        NSSD = 0x64,
        /// Controller Ready Timeouts, 4 bytes ([`Crto`]).
        CRTO = 0x68,
        /// Persistent Memory Region Capabilities, 4 bytes ([`PmrCap`]).
        PMRCAP = 0xE00,
        /// Persistent Memory Region Control, 4 bytes ([`PmrCtl`]).
        PMRCTL = 0xE04,
        /// Persistent Memory Region Status, 4 bytes ([`PmrSts`]).
        PMRSTS = 0xE08,
        /// Persistent Memory Region Elasticity Buffer Size, 4 bytes ([`PmrEbs`]).
        PMREBS = 0xE0C,
        /// Persistent Memory Region Sustained Write Throughput, 4 bytes ([`PmrSwtp`]).
        PMRSWTP = 0xE10,
        /// Persistent Memory Region Memory Space Control Lower, 4 bytes ([`PmrMscl`]).
        PMRMSCL = 0xE14,
        /// Persistent Memory Region Memory Space Control Upper, 4 bytes: bits 63:32 of the base
        /// address.
        PMRMSCU = 0xE18,
    }
}

/// The value that resets the NVM subsystem when written to NSSR: "NVMe" (Base 2.0c, 3.1.3.7).
pub const NSSR_RESET: u32 = 0x4E56_4D65;

/// The value that asks for a normal NVM subsystem shutdown when written to NSSD: "Nrml" (Base 2.0c,
/// 3.1.3.20).
pub const NSSD_NORMAL: u32 = 0x4E72_6D6C;

/// The value that asks for an abrupt NVM subsystem shutdown when written to NSSD: "Abpt" (Base
/// 2.0c, 3.1.3.20).
pub const NSSD_ABRUPT: u32 = 0x4162_7074;

/// Offset of the first doorbell from the start of BAR0 (PCIe transport 1.0, 3.1.2).
pub const DOORBELL_BASE: u32 = 0x1000;

/// Offset of the Submission Queue y Tail Doorbell (SQyTDBL), `dstrd` being CAP.DSTRD (PCIe
/// transport 1.0, 3.1.2.1).
#[must_use]
pub const fn sq_tail_doorbell(qid: u16, dstrd: u8) -> u64 {
    DOORBELL_BASE as u64 + 2 * qid as u64 * doorbell_stride(dstrd)
}

/// Offset of the Completion Queue y Head Doorbell (CQyHDBL), `dstrd` being CAP.DSTRD (PCIe
/// transport 1.0, 3.1.2.2).
#[must_use]
pub const fn cq_head_doorbell(qid: u16, dstrd: u8) -> u64 {
    DOORBELL_BASE as u64 + (2 * qid as u64 + 1) * doorbell_stride(dstrd)
}

/// Bytes from one doorbell to the next: 2^(2 + DSTRD), `dstrd` being CAP.DSTRD (4 bits wide; more
/// are ignored) (Base 2.0c, 3.1.3.1).
#[must_use]
pub const fn doorbell_stride(dstrd: u8) -> u64 {
    4 << (dstrd & 0xF)
}

#[cfg(test)]
mod tests;
