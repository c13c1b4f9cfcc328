//! CAP, VS, CC, CSTS, AQA and CRTO.

use core::fmt;

use bitfield_struct::bitfield;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::open_enum::open_enum;

/// CAP.CSS: the I/O command sets a controller supports, one bit each (Base 2.0c, 3.1.3.1).
#[bitfield(u8)]
#[derive(PartialEq, Eq)]
pub struct CssSupport {
    /// The NVM command set (CAP bit 37).
    pub nvm: bool,
    #[bits(5)]
    __: u8,
    /// One or more command sets through CC.CSS = 110b (CAP bit 43).
    pub iocs: bool,
    /// No I/O command set: admin only (CAP bit 44).
    pub admin_only: bool,
}

open_enum! {
    /// CAP.CPS: what a controller's power is shared with (Base 2.0c, 3.1.3.1).
    pub enum ControllerPowerScope: u8 {
        /// Not reported.
        NOT_REPORTED = 0,
        /// The controller.
        CONTROLLER = 1,
        /// The domain.
        DOMAIN = 2,
        /// The NVM subsystem.
        NVM_SUBSYSTEM = 3,
    }
}

/// CAP.CRMS: the controller ready modes supported (Base 2.0c, 3.1.3.1).
#[bitfield(u8)]
#[derive(PartialEq, Eq)]
pub struct Crms {
    /// Controller Ready With Media Support (CRWMS), CAP bit 59; set by every 2.0 controller.
    pub crwms: bool,
    /// Controller Ready Independent of Media Support (CRIMS), CAP bit 60.
    pub crims: bool,
    #[bits(6)]
    __: u8,
}

/// Controller Capabilities (CAP), offset 0h (Base 2.0c, 3.1.3.1).
#[bitfield(u64)]
#[derive(PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Cap {
    /// Maximum Queue Entries Supported, bits 15:0, 0's based; at least 1.
    pub mqes_z: u16,
    /// Contiguous Queues Required (CQR), bit 16.
    pub cqr: bool,
    /// Arbitration Mechanism Supported (AMS): weighted round robin, bit 17.
    pub ams_wrr: bool,
    /// Arbitration Mechanism Supported (AMS): vendor specific, bit 18.
    pub ams_vendor: bool,
    #[bits(5)]
    __: u8,
    /// Timeout (TO), bits 31:24, in units of 500 ms: the worst time for a change of CSTS.RDY.
    pub to: u8,
    /// Doorbell Stride (DSTRD), bits 35:32: 2^(2 + DSTRD) bytes.
    #[bits(4)]
    pub dstrd: u8,
    /// NVM Subsystem Reset Supported (NSSRS), bit 36.
    pub nssrs: bool,
    /// Command Sets Supported (CSS), bits 44:37.
    #[bits(8)]
    pub css: CssSupport,
    /// Boot Partition Support (BPS), bit 45.
    pub bps: bool,
    /// Controller Power Scope (CPS), bits 47:46.
    #[bits(2)]
    pub cps: ControllerPowerScope,
    /// Memory Page Size Minimum (MPSMIN), bits 51:48: 2^(12 + MPSMIN) bytes.
    #[bits(4)]
    pub mpsmin: u8,
    /// Memory Page Size Maximum (MPSMAX), bits 55:52: 2^(12 + MPSMAX) bytes.
    #[bits(4)]
    pub mpsmax: u8,
    /// Persistent Memory Region Supported (PMRS), bit 56.
    pub pmrs: bool,
    /// Controller Memory Buffer Supported (CMBS), bit 57.
    pub cmbs: bool,
    /// NVM Subsystem Shutdown Supported (NSSS), bit 58.
    pub nsss: bool,
    /// Controller Ready Modes Supported (CRMS), bits 60:59.
    #[bits(2)]
    pub crms: Crms,
    #[bits(3)]
    __: u8,
}

/// Version (VS), offset 8h, and the form of the VER field of Identify Controller (Base 2.0c,
/// 3.1.3.2).
#[bitfield(u32, debug = false)]
#[derive(PartialEq, Eq, PartialOrd, Ord, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Version {
    /// Tertiary Version (TER), bits 7:0.
    pub tertiary: u8,
    /// Minor Version (MNR), bits 15:8.
    pub minor: u8,
    /// Major Version (MJR), bits 31:16.
    pub major: u16,
}

impl Version {
    /// NVMe 1.3.
    pub const V1_3: Self = Self::of(1, 3, 0);
    /// NVMe 1.4.
    pub const V1_4: Self = Self::of(1, 4, 0);
    /// NVMe 2.0, the revision of this crate.
    pub const V2_0: Self = Self::of(2, 0, 0);

    /// From the three numbers.
    #[must_use]
    pub const fn of(major: u16, minor: u8, tertiary: u8) -> Self {
        Self::new()
            .with_major(major)
            .with_minor(minor)
            .with_tertiary(tertiary)
    }
}

impl fmt::Debug for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major(), self.minor(), self.tertiary())
    }
}

open_enum! {
    /// CC.CSS: I/O Command Set Selected (Base 2.0c, 3.1.3.5).
    pub enum Css: u8 {
        /// The NVM command set.
        NVM = 0b000,
        /// All supported I/O command sets.
        ALL_SUPPORTED = 0b110,
        /// Admin command set only.
        ADMIN_ONLY = 0b111,
    }
}

open_enum! {
    /// CC.AMS: Arbitration Mechanism Selected (Base 2.0c, 3.1.3.5).
    pub enum Ams: u8 {
        /// Round robin.
        ROUND_ROBIN = 0b000,
        /// Weighted round robin with urgent priority class.
        WEIGHTED_ROUND_ROBIN = 0b001,
        /// Vendor specific.
        VENDOR_SPECIFIC = 0b111,
    }
}

open_enum! {
    /// CC.SHN: Shutdown Notification (Base 2.0c, 3.1.3.5).
    pub enum Shn: u8 {
        /// No notification; no effect.
        NONE = 0b00,
        /// Normal shutdown notification.
        NORMAL = 0b01,
        /// Abrupt shutdown notification.
        ABRUPT = 0b10,
        /// Reserved by the specification.
        RESERVED = 0b11,
    }
}

open_enum! {
    /// CC.CRIME: whether the controller becomes ready before its media (Base 2.0c, 3.1.3.5).
    pub enum ReadyMode: u8 {
        /// Controller Ready With Media.
        WITH_MEDIA = 0,
        /// Controller Ready Independent of Media.
        INDEPENDENT_OF_MEDIA = 1,
    }
}

/// Controller Configuration (CC), offset 14h (Base 2.0c, 3.1.3.5).
#[bitfield(u32)]
#[derive(PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Cc {
    /// Enable (EN), bit 0.
    pub en: bool,
    #[bits(3)]
    __: u8,
    /// I/O Command Set Selected (CSS), bits 6:4.
    #[bits(3)]
    pub css: Css,
    /// Memory Page Size (MPS), bits 10:7: 2^(12 + MPS) bytes.
    #[bits(4)]
    pub mps: u8,
    /// Arbitration Mechanism Selected (AMS), bits 13:11.
    #[bits(3)]
    pub ams: Ams,
    /// Shutdown Notification (SHN), bits 15:14.
    #[bits(2)]
    pub shn: Shn,
    /// I/O Submission Queue Entry Size (IOSQES), bits 19:16: 2^IOSQES bytes.
    #[bits(4)]
    pub iosqes: u8,
    /// I/O Completion Queue Entry Size (IOCQES), bits 23:20: 2^IOCQES bytes.
    #[bits(4)]
    pub iocqes: u8,
    /// Controller Ready Independent of Media Enable (CRIME), bit 24.
    #[bits(1)]
    pub crime: ReadyMode,
    #[bits(7)]
    __: u8,
}

impl Cc {
    /// The memory page size in bytes: 2^(12 + MPS), 4 KiB to 128 MiB.
    #[must_use]
    pub const fn page_size(self) -> u32 {
        1 << (12 + self.mps() as u32)
    }
}

open_enum! {
    /// CSTS.SHST: Shutdown Status (Base 2.0c, 3.1.3.6).
    pub enum Shst: u8 {
        /// Normal operation, no shutdown asked for.
        NORMAL = 0b00,
        /// Shutdown processing occurring.
        OCCURRING = 0b01,
        /// Shutdown processing complete.
        COMPLETE = 0b10,
        /// Reserved by the specification.
        RESERVED = 0b11,
    }
}

/// Controller Status (CSTS), offset 1Ch (Base 2.0c, 3.1.3.6).
#[bitfield(u32)]
#[derive(PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Csts {
    /// Ready (RDY), bit 0.
    pub rdy: bool,
    /// Controller Fatal Status (CFS), bit 1.
    pub cfs: bool,
    /// Shutdown Status (SHST), bits 3:2.
    #[bits(2)]
    pub shst: Shst,
    /// NVM Subsystem Reset Occurred (NSSRO), bit 4; written with one to clear.
    pub nssro: bool,
    /// Processing Paused (PP), bit 5.
    pub pp: bool,
    /// Shutdown Type (ST), bit 6: the shutdown reported in SHST is one of the NVM subsystem.
    pub st: bool,
    #[bits(25)]
    __: u32,
}

/// Admin Queue Attributes (AQA), offset 24h (Base 2.0c, 3.1.3.8).
#[bitfield(u32)]
#[derive(PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Aqa {
    /// Admin Submission Queue Size, bits 11:0, 0's based; at least 1.
    #[bits(12)]
    pub asqs_z: u16,
    #[bits(4)]
    __: u8,
    /// Admin Completion Queue Size, bits 27:16, 0's based; at least 1.
    #[bits(12)]
    pub acqs_z: u16,
    #[bits(4)]
    __: u8,
}

/// Controller Ready Timeouts (CRTO), offset 68h (Base 2.0c, 3.1.3.21).
#[bitfield(u32)]
#[derive(PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Crto {
    /// Controller Ready With Media Timeout (CRWMT), bits 15:0, in units of 500 ms.
    pub crwmt: u16,
    /// Controller Ready Independent of Media Timeout (CRIMT), bits 31:16, in units of 500 ms.
    pub crimt: u16,
}
