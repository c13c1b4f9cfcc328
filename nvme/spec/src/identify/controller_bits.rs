//! Bit fields of the admin half of Identify Controller: bytes 511:0 (Base 2.0c, section 5.17.2.1).

use bitfield_struct::bitfield;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::open_enum::open_enum;

open_enum! {
    /// Controller Type (CNTRLTYPE) (Base 2.0c, 5.17.2.1).
    pub enum ControllerType: u8 {
        /// Not reported.
        NOT_REPORTED = 0,
        /// I/O controller.
        IO = 1,
        /// Discovery controller.
        DISCOVERY = 2,
        /// Administrative controller.
        ADMINISTRATIVE = 3,
    }
}

/// Controller Multi-Path I/O and Namespace Sharing Capabilities (CMIC) (Base 2.0c, 5.17.2.1).
#[bitfield(u8)]
#[derive(PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Cmic {
    /// The NVM subsystem may have more than one port, bit 0.
    pub ports: bool,
    /// The NVM subsystem may have more than one controller, bit 1.
    pub controllers: bool,
    /// The controller is a virtual function, bit 2.
    pub sriov: bool,
    /// Asymmetric namespace access reporting, bit 3.
    pub ana: bool,
    #[bits(4)]
    __: u8,
}

/// Optional Asynchronous Events Supported (OAES) (Base 2.0c, 5.17.2.1).
#[bitfield(u32)]
#[derive(PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Oaes {
    #[bits(8)]
    __: u8,
    /// Namespace Attribute Notices, bit 8.
    pub namespace_attribute: bool,
    /// Firmware Activation Notices, bit 9.
    pub firmware_activation: bool,
    #[bits(1)]
    __: u8,
    /// Asymmetric Namespace Access Change Notices, bit 11.
    pub ana_change: bool,
    /// Predictable Latency Event Aggregate Log Change Notices, bit 12.
    pub predictable_latency_aggregate: bool,
    /// LBA Status Information Notices, bit 13.
    pub lba_status: bool,
    /// Endurance Group Event Aggregate Log Page Change Notices, bit 14.
    pub endurance_group_aggregate: bool,
    /// Normal NVM Subsystem Shutdown, bit 15.
    pub normal_subsystem_shutdown: bool,
    #[bits(11)]
    __: u16,
    /// Zone Descriptor Changed Notices, bit 27.
    pub zone_descriptor_changed: bool,
    #[bits(3)]
    __: u8,
    /// Discovery Log Page Change Notifications, bit 31.
    pub discovery_log_change: bool,
}

/// Controller Attributes (CTRATT) (Base 2.0c, 5.17.2.1).
#[bitfield(u32)]
#[derive(PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Ctratt {
    /// 128-bit Host Identifier, bit 0.
    pub host_id_128: bool,
    /// Non-Operational Power State Permissive Mode, bit 1.
    pub non_operational_power_state: bool,
    /// NVM Sets, bit 2.
    pub nvm_sets: bool,
    /// Read Recovery Levels, bit 3.
    pub read_recovery_levels: bool,
    /// Endurance Groups, bit 4.
    pub endurance_groups: bool,
    /// Predictable Latency Mode, bit 5.
    pub predictable_latency: bool,
    /// Traffic Based Keep Alive Support (TBKAS), bit 6.
    pub tbkas: bool,
    /// Namespace Granularity, bit 7.
    pub namespace_granularity: bool,
    /// SQ Associations, bit 8.
    pub sq_associations: bool,
    /// UUID List, bit 9.
    pub uuid_list: bool,
    /// Multi-Domain Subsystem (MDS), bit 10.
    pub multi_domain: bool,
    /// Fixed Capacity Management, bit 11.
    pub fixed_capacity: bool,
    /// Variable Capacity Management, bit 12.
    pub variable_capacity: bool,
    /// Delete Endurance Group, bit 13.
    pub delete_endurance_group: bool,
    /// Delete NVM Set, bit 14.
    pub delete_nvm_set: bool,
    /// Extended LBA Formats Supported (ELBAS), bit 15.
    pub elbas: bool,
    #[bits(16)]
    __: u16,
}

/// NVM Subsystem Report (NVMSR) (Base 2.0c, 5.17.2.1).
#[bitfield(u8)]
#[derive(PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Nvmsr {
    /// Part of an NVMe storage device (NVMESD), bit 0.
    pub storage_device: bool,
    /// Part of an NVMe enclosure (NVMEE), bit 1.
    pub enclosure: bool,
    #[bits(6)]
    __: u8,
}

/// Management Endpoint Capabilities (MEC) (Base 2.0c, 5.17.2.1).
#[bitfield(u8)]
#[derive(PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Mec {
    /// A management endpoint on SMBus or I2C (SMBUSME), bit 0.
    pub smbus: bool,
    /// A management endpoint on PCIe (PCIEME), bit 1.
    pub pcie: bool,
    #[bits(6)]
    __: u8,
}

/// Optional Admin Command Support (OACS) (Base 2.0c, 5.17.2.1).
#[bitfield(u16)]
#[derive(PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Oacs {
    /// Security Send and Receive, bit 0.
    pub security: bool,
    /// Format NVM, bit 1.
    pub format_nvm: bool,
    /// Firmware Commit and Image Download, bit 2.
    pub firmware: bool,
    /// Namespace Management and Attachment, bit 3.
    pub namespace_management: bool,
    /// Device Self-test, bit 4.
    pub device_self_test: bool,
    /// Directives, bit 5.
    pub directives: bool,
    /// NVMe-MI Send and Receive, bit 6.
    pub nvme_mi: bool,
    /// Virtualization Management, bit 7.
    pub virtualization_management: bool,
    /// Doorbell Buffer Config, bit 8.
    pub doorbell_buffer_config: bool,
    /// Get LBA Status, bit 9.
    pub get_lba_status: bool,
    /// Command and Feature Lockdown, bit 10.
    pub lockdown: bool,
    #[bits(5)]
    __: u8,
}

/// Firmware Updates (FRMW) (Base 2.0c, 5.17.2.1).
#[bitfield(u8)]
#[derive(PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Frmw {
    /// The first slot is read only, bit 0.
    pub slot1_read_only: bool,
    /// Number of slots, bits 3:1; 1 to 7.
    #[bits(3)]
    pub slots: u8,
    /// Activation without a reset, bit 4.
    pub activate_without_reset: bool,
    /// Support Multiple Update Detection (SMUD), bit 5.
    pub smud: bool,
    #[bits(2)]
    __: u8,
}

/// Log Page Attributes (LPA) (Base 2.0c, 5.17.2.1).
#[bitfield(u8)]
#[derive(PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Lpa {
    /// SMART / Health Information per namespace, bit 0.
    pub smart_per_namespace: bool,
    /// Commands Supported and Effects, bit 1.
    pub commands_effects: bool,
    /// Extended data of Get Log Page: 32-bit length and offset, bit 2.
    pub extended_data: bool,
    /// Telemetry, bit 3.
    pub telemetry: bool,
    /// Persistent Event Log, bit 4.
    pub persistent_event: bool,
    /// Supported Log Pages, Feature Identifiers and NVMe-MI Commands Supported and Effects, bit 5.
    pub effects_pages: bool,
    /// Telemetry Data Area 4, bit 6.
    pub telemetry_area_4: bool,
    #[bits(1)]
    __: u8,
}

/// Admin Vendor Specific Command Configuration (AVSCC) (Base 2.0c, 5.17.2.1).
#[bitfield(u8)]
#[derive(PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Avscc {
    /// All such commands use the common format, bit 0.
    pub common_format: bool,
    #[bits(7)]
    __: u8,
}

/// Replay Protected Memory Block Support (RPMBS) (Base 2.0c, 5.17.2.1).
#[bitfield(u32)]
#[derive(PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Rpmbs {
    /// Number of RPMB units, bits 2:0.
    #[bits(3)]
    pub units: u8,
    /// Authentication method, bits 5:3.
    #[bits(3)]
    pub authentication: u8,
    #[bits(10)]
    __: u16,
    /// Total size, bits 23:16, in units of 128 KiB, 0's based.
    pub total_size_z: u8,
    /// Access size, bits 31:24, in units of 512 bytes, 0's based.
    pub access_size_z: u8,
}

/// Device Self-test Options (DSTO) (Base 2.0c, 5.17.2.1).
#[bitfield(u8)]
#[derive(PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Dsto {
    /// One self-test in the NVM subsystem at a time, bit 0.
    pub one_at_a_time: bool,
    #[bits(7)]
    __: u8,
}

/// Host Controlled Thermal Management Attributes (HCTMA) (Base 2.0c, 5.17.2.1).
#[bitfield(u16)]
#[derive(PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Hctma {
    /// Supported, bit 0.
    pub supported: bool,
    #[bits(15)]
    __: u16,
}

/// Sanitize Capabilities (SANICAP) (Base 2.0c, 5.17.2.1).
#[bitfield(u32)]
#[derive(PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Sanicap {
    /// Crypto Erase (CES), bit 0.
    pub crypto_erase: bool,
    /// Block Erase (BES), bit 1.
    pub block_erase: bool,
    /// Overwrite (OWS), bit 2.
    pub overwrite: bool,
    #[bits(26)]
    __: u32,
    /// No-Deallocate Inhibited (NDI), bit 29.
    pub ndi: bool,
    /// No-Deallocate Modifies Media After Sanitize (NODMMAS), bits 31:30.
    #[bits(2)]
    pub nodmmas: u8,
}

/// Asymmetric Namespace Access Capabilities (ANACAP) (Base 2.0c, 5.17.2.1).
#[bitfield(u8)]
#[derive(PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct AnaCap {
    /// Reports ANA Optimized, bit 0.
    pub optimized: bool,
    /// Reports ANA Non-Optimized, bit 1.
    pub non_optimized: bool,
    /// Reports ANA Inaccessible, bit 2.
    pub inaccessible: bool,
    /// Reports ANA Persistent Loss, bit 3.
    pub persistent_loss: bool,
    /// Reports ANA Change, bit 4.
    pub change: bool,
    #[bits(1)]
    __: u8,
    /// ANAGRPID of an attached namespace does not change, bit 6.
    pub fixed_group: bool,
    /// A non-zero ANAGRPID may be given to Namespace Management, bit 7.
    pub nonzero_group: bool,
}
