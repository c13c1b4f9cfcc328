//! Identify Controller: CNS 01h.

use super::controller_bits::{
    AnaCap, Avscc, Cmic, ControllerType, Ctratt, Dsto, Frmw, Hctma, Lpa, Mec, Nvmsr, Oacs, Oaes,
    Rpmbs, Sanicap,
};
use super::controller_io_bits::{
    CqEntrySizes, Fna, Fuses, IocsVendorCommands, NwpCap, Oncs, SglSupport, SqEntrySizes, Vwc,
};
use super::power::PowerStateDescriptor;
use crate::le128::Le128;
use crate::open_enum::wire_struct;
use crate::registers::Version;

wire_struct! {
    /// Identify Controller, CNS 01h (Base 2.0c, 5.17.2.1, figure "Identify – Identify Controller
    /// Data Structure, I/O Command Set Independent").
    pub struct IdentifyController[4096] {
        /// Bytes 1:0: PCI Vendor ID.
        pub vid: u16,
        /// Bytes 3:2: PCI Subsystem Vendor ID.
        pub ssvid: u16,
        /// Bytes 23:4: Serial Number, ASCII padded with spaces.
        pub sn: [u8; 20],
        /// Bytes 63:24: Model Number, ASCII padded with spaces.
        pub mn: [u8; 40],
        /// Bytes 71:64: Firmware Revision, ASCII padded with spaces.
        pub fr: [u8; 8],
        /// Byte 72: Recommended Arbitration Burst, 2^n commands.
        pub rab: u8,
        /// Bytes 75:73: IEEE OUI Identifier, least significant byte first.
        pub ieee: [u8; 3],
        /// Byte 76: Controller Multi-Path I/O and Namespace Sharing Capabilities.
        pub cmic: Cmic,
        /// Byte 77: Maximum Data Transfer Size, 2^n minimum memory pages; zero for no limit.
        pub mdts: u8,
        /// Bytes 79:78: Controller ID.
        pub cntlid: u16,
        /// Bytes 83:80: Version, as in VS.
        pub ver: Version,
        /// Bytes 87:84: RTD3 Resume Latency, microseconds.
        pub rtd3r: u32,
        /// Bytes 91:88: RTD3 Entry Latency, microseconds.
        pub rtd3e: u32,
        /// Bytes 95:92: Optional Asynchronous Events Supported.
        pub oaes: Oaes,
        /// Bytes 99:96: Controller Attributes.
        pub ctratt: Ctratt,
        /// Bytes 101:100: Read Recovery Levels Supported, one bit per level.
        pub rrls: u16,
        _rsvd102: [u8; 9],
        /// Byte 111: Controller Type.
        pub cntrltype: ControllerType,
        /// Bytes 127:112: FRU Globally Unique Identifier, big endian.
        pub fguid: [u8; 16],
        /// Bytes 129:128: Command Retry Delay Time 1, in units of 100 ms.
        pub crdt1: u16,
        /// Bytes 131:130: Command Retry Delay Time 2, in units of 100 ms.
        pub crdt2: u16,
        /// Bytes 133:132: Command Retry Delay Time 3, in units of 100 ms.
        pub crdt3: u16,
        _rsvd134: [u8; 119],
        /// Byte 253: NVM Subsystem Report (NVMe-MI).
        pub nvmsr: Nvmsr,
        /// Byte 254: VPD Write Cycle Information (NVMe-MI): cycles in bits 6:0, valid in bit 7.
        pub vwci: u8,
        /// Byte 255: Management Endpoint Capabilities (NVMe-MI).
        pub mec: Mec,
        /// Bytes 257:256: Optional Admin Command Support.
        pub oacs: Oacs,
        /// Byte 258: Abort Command Limit, 0's based.
        pub acl_z: u8,
        /// Byte 259: Asynchronous Event Request Limit, 0's based.
        pub aerl_z: u8,
        /// Byte 260: Firmware Updates.
        pub frmw: Frmw,
        /// Byte 261: Log Page Attributes.
        pub lpa: Lpa,
        /// Byte 262: Error Log Page Entries, 0's based.
        pub elpe_z: u8,
        /// Byte 263: Number of Power States Support, 0's based.
        pub npss_z: u8,
        /// Byte 264: Admin Vendor Specific Command Configuration.
        pub avscc: Avscc,
        /// Byte 265: Autonomous Power State Transition Attributes; 0 or 1.
        pub apsta: u8,
        /// Bytes 267:266: Warning Composite Temperature Threshold, kelvins.
        pub wctemp: u16,
        /// Bytes 269:268: Critical Composite Temperature Threshold, kelvins.
        pub cctemp: u16,
        /// Bytes 271:270: Maximum Time for Firmware Activation, in units of 100 ms.
        pub mtfa: u16,
        /// Bytes 275:272: Host Memory Buffer Preferred Size, in units of 4 KiB.
        pub hmpre: u32,
        /// Bytes 279:276: Host Memory Buffer Minimum Size, in units of 4 KiB.
        pub hmmin: u32,
        /// Bytes 295:280: Total NVM Capacity, bytes.
        pub tnvmcap: Le128,
        /// Bytes 311:296: Unallocated NVM Capacity, bytes.
        pub unvmcap: Le128,
        /// Bytes 315:312: Replay Protected Memory Block Support.
        pub rpmbs: Rpmbs,
        /// Bytes 317:316: Extended Device Self-test Time, minutes.
        pub edstt: u16,
        /// Byte 318: Device Self-test Options.
        pub dsto: Dsto,
        /// Byte 319: Firmware Update Granularity, in units of 4 KiB; zero for not reported, FFh for
        /// none.
        pub fwug: u8,
        /// Bytes 321:320: Keep Alive Support: granularity in units of 100 ms; zero for none.
        pub kas: u16,
        /// Bytes 323:322: Host Controlled Thermal Management Attributes.
        pub hctma: Hctma,
        /// Bytes 325:324: Minimum Thermal Management Temperature, kelvins.
        pub mntmt: u16,
        /// Bytes 327:326: Maximum Thermal Management Temperature, kelvins.
        pub mxtmt: u16,
        /// Bytes 331:328: Sanitize Capabilities.
        pub sanicap: Sanicap,
        /// Bytes 335:332: Host Memory Buffer Minimum Descriptor Entry Size, in units of 4 KiB.
        pub hmminds: u32,
        /// Bytes 337:336: Host Memory Maximum Descriptors Entries.
        pub hmmaxd: u16,
        /// Bytes 339:338: NVM Set Identifier Maximum.
        pub nsetidmax: u16,
        /// Bytes 341:340: Endurance Group Identifier Maximum.
        pub endgidmax: u16,
        /// Byte 342: ANA Transition Time, seconds.
        pub anatt: u8,
        /// Byte 343: Asymmetric Namespace Access Capabilities.
        pub anacap: AnaCap,
        /// Bytes 347:344: ANA Group Identifier Maximum.
        pub anagrpmax: u32,
        /// Bytes 351:348: Number of ANA Group Identifiers.
        pub nanagrpid: u32,
        /// Bytes 355:352: Persistent Event Log Size, in units of 64 KiB.
        pub pels: u32,
        /// Bytes 357:356: Domain Identifier.
        pub domainid: u16,
        _rsvd358: [u8; 10],
        /// Bytes 383:368: Max Endurance Group Capacity, bytes.
        pub megcap: Le128,
        _rsvd384: [u8; 128],
        /// Byte 512: Submission Queue Entry Size.
        pub sqes: SqEntrySizes,
        /// Byte 513: Completion Queue Entry Size.
        pub cqes: CqEntrySizes,
        /// Bytes 515:514: Maximum Outstanding Commands of one queue; zero for not reported.
        pub maxcmd: u16,
        /// Bytes 519:516: Number of Namespaces: the largest valid namespace identifier.
        pub nn: u32,
        /// Bytes 521:520: Optional NVM Command Support.
        pub oncs: Oncs,
        /// Bytes 523:522: Fused Operation Support.
        pub fuses: Fuses,
        /// Byte 524: Format NVM Attributes.
        pub fna: Fna,
        /// Byte 525: Volatile Write Cache.
        pub vwc: Vwc,
        /// Bytes 527:526: Atomic Write Unit Normal, logical blocks, 0's based.
        pub awun_z: u16,
        /// Bytes 529:528: Atomic Write Unit Power Fail, logical blocks, 0's based.
        pub awupf_z: u16,
        /// Byte 530: I/O Command Set Vendor Specific Command Configuration.
        pub icsvscc: IocsVendorCommands,
        /// Byte 531: Namespace Write Protection Capabilities.
        pub nwpc: NwpCap,
        /// Bytes 533:532: Atomic Compare & Write Unit, logical blocks, 0's based.
        pub acwu_z: u16,
        /// Bytes 535:534: Optional Copy Formats Supported, one bit per descriptor format.
        pub ocfs: u16,
        /// Bytes 539:536: SGL Support.
        pub sgls: SglSupport,
        /// Bytes 543:540: Maximum Number of Allowed Namespaces; zero for NN.
        pub mnan: u32,
        /// Bytes 559:544: Maximum Domain Namespace Attachments; zero for no limit reported.
        pub maxdna: Le128,
        /// Bytes 563:560: Maximum I/O Controller Namespace Attachments; zero for no limit.
        pub maxcna: u32,
        _rsvd564: [u8; 204],
        /// Bytes 1023:768: NVM Subsystem NVMe Qualified Name, UTF-8, ended by a zero byte.
        pub subnqn: [u8; 256],
        _rsvd1024: [u8; 768],
        /// Bytes 1795:1792: I/O Queue Command Capsule Supported Size (fabrics).
        pub ioccsz: u32,
        /// Bytes 1799:1796: I/O Queue Response Capsule Supported Size (fabrics).
        pub iorcsz: u32,
        /// Bytes 1801:1800: In Capsule Data Offset (fabrics).
        pub icdoff: u16,
        /// Byte 1802: Fabrics Controller Attributes (fabrics).
        pub fcatt: u8,
        /// Byte 1803: Maximum SGL Data Block Descriptors (fabrics).
        pub msdbd: u8,
        /// Bytes 1805:1804: Optional Fabric Commands Support (fabrics).
        pub ofcs: u16,
        _rsvd1806: [u8; 242],
        /// Bytes 3071:2048: Power State Descriptor 0 to 31.
        pub psd: [PowerStateDescriptor; 32],
        /// Bytes 4095:3072: vendor specific.
        pub vendor: [u8; 1024],
    }
}
