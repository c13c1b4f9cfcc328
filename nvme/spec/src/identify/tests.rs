use core::mem::offset_of;

use zerocopy::{FromBytes, FromZeros, IntoBytes};

use super::*;
use crate::Le128;
use crate::registers::Version;

macro_rules! offsets {
    ($Struct:ty { $( $field:ident: $offset:literal ),* $(,)? }) => {
        $( assert_eq!(offset_of!($Struct, $field), $offset, stringify!($field)); )*
    };
}

#[test]
fn identify_controller_offsets() {
    offsets!(IdentifyController {
        vid: 0,
        ssvid: 2,
        sn: 4,
        mn: 24,
        fr: 64,
        rab: 72,
        ieee: 73,
        cmic: 76,
        mdts: 77,
        cntlid: 78,
        ver: 80,
        rtd3r: 84,
        rtd3e: 88,
        oaes: 92,
        ctratt: 96,
        rrls: 100,
        cntrltype: 111,
        fguid: 112,
        crdt1: 128,
        crdt2: 130,
        crdt3: 132,
        nvmsr: 253,
        vwci: 254,
        mec: 255,
        oacs: 256,
        acl_z: 258,
        aerl_z: 259,
        frmw: 260,
        lpa: 261,
        elpe_z: 262,
        npss_z: 263,
        avscc: 264,
        apsta: 265,
        wctemp: 266,
        cctemp: 268,
        mtfa: 270,
        hmpre: 272,
        hmmin: 276,
        tnvmcap: 280,
        unvmcap: 296,
        rpmbs: 312,
        edstt: 316,
        dsto: 318,
        fwug: 319,
        kas: 320,
        hctma: 322,
        mntmt: 324,
        mxtmt: 326,
        sanicap: 328,
        hmminds: 332,
        hmmaxd: 336,
        nsetidmax: 338,
        endgidmax: 340,
        anatt: 342,
        anacap: 343,
        anagrpmax: 344,
        nanagrpid: 348,
        pels: 352,
        domainid: 356,
        megcap: 368,
        sqes: 512,
        cqes: 513,
        maxcmd: 514,
        nn: 516,
        oncs: 520,
        fuses: 522,
        fna: 524,
        vwc: 525,
        awun_z: 526,
        awupf_z: 528,
        icsvscc: 530,
        nwpc: 531,
        acwu_z: 532,
        ocfs: 534,
        sgls: 536,
        mnan: 540,
        maxdna: 544,
        maxcna: 560,
        subnqn: 768,
        ioccsz: 1792,
        iorcsz: 1796,
        icdoff: 1800,
        fcatt: 1802,
        msdbd: 1803,
        ofcs: 1804,
        psd: 2048,
        vendor: 3072,
    });
}

#[test]
fn identify_namespace_offsets() {
    offsets!(IdentifyNamespace {
        nsze: 0,
        ncap: 8,
        nuse: 16,
        nsfeat: 24,
        nlbaf_z: 25,
        flbas: 26,
        mc: 27,
        dpc: 28,
        dps: 29,
        nmic: 30,
        rescap: 31,
        fpi: 32,
        dlfeat: 33,
        nawun_z: 34,
        nawupf_z: 36,
        nacwu_z: 38,
        nabsn_z: 40,
        nabo: 42,
        nabspf_z: 44,
        noiob: 46,
        nvmcap: 48,
        npwg_z: 64,
        npwa_z: 66,
        npdg_z: 68,
        npda_z: 70,
        nows_z: 72,
        mssrl: 74,
        mcl: 76,
        msrc_z: 80,
        anagrpid: 92,
        nsattr: 99,
        nvmsetid: 100,
        endgid: 102,
        nguid: 104,
        eui64: 120,
        lbaf: 128,
        vendor: 384,
    });
}

#[test]
fn smaller_structures_offsets() {
    offsets!(IdentifyNamespaceNvm {
        lbstm: 0,
        pic: 8,
        elbaf: 12,
    });
    offsets!(IdentifyControllerNvm {
        vsl: 0,
        wzsl: 1,
        wusl: 2,
        dmrl: 3,
        dmrsl: 4,
        dmsl: 8,
    });
    offsets!(IdentifyNamespaceIndependent {
        nsfeat: 0,
        nmic: 1,
        rescap: 2,
        fpi: 3,
        anagrpid: 4,
        nsattr: 8,
        nvmsetid: 10,
        endgid: 12,
        nstat: 14,
    });
    offsets!(PowerStateDescriptor {
        mp: 0,
        flags: 3,
        enlat: 4,
        exlat: 8,
        rrt: 12,
        rrl: 13,
        rwt: 14,
        rwl: 15,
        idlp: 16,
        ips: 18,
        actp: 20,
        apws: 22,
    });
    offsets!(ControllerList {
        count: 0,
        cntlids: 2,
    });
    offsets!(NamespaceIdHeader { nidt: 0, nidl: 1 });
    offsets!(UuidList { entries: 32 });
    offsets!(UuidEntry {
        header: 0,
        uuid: 16,
    });
}

#[test]
fn controller_bits() {
    assert_eq!(
        Oacs::new().with_doorbell_buffer_config(true).into_bits(),
        1 << 8
    );
    assert_eq!(
        Oacs::new().with_namespace_management(true).into_bits(),
        1 << 3
    );
    let oncs = Oncs::new()
        .with_compare(true)
        .with_dataset_management(true)
        .with_write_zeroes(true);
    assert_eq!(oncs.into_bits(), 0x000D);
    assert_eq!(Oncs::new().with_copy(true).into_bits(), 1 << 8);
    assert_eq!(
        Oaes::new().with_namespace_attribute(true).into_bits(),
        1 << 8
    );
    assert_eq!(Ctratt::new().with_tbkas(true).into_bits(), 1 << 6);
    assert_eq!(Ctratt::new().with_elbas(true).into_bits(), 1 << 15);
    assert_eq!(Lpa::new().with_extended_data(true).into_bits(), 4);
    assert_eq!(Frmw::new().with_slots(7).into_bits(), 0x0E);
    assert_eq!(
        SqEntrySizes::new()
            .with_required(6)
            .with_maximum(6)
            .into_bits(),
        0x66
    );
    assert_eq!(
        CqEntrySizes::new()
            .with_required(4)
            .with_maximum(4)
            .into_bits(),
        0x44
    );
    let vwc = Vwc::new()
        .with_present(true)
        .with_flush_broadcast(FlushBroadcast::SUPPORTED);
    assert_eq!(vwc.into_bits(), 7);
    assert_eq!(
        SglSupport::new()
            .with_support(SglAlignment::ANY)
            .into_bits(),
        1
    );
    assert_eq!(SglSupport::new().with_bit_bucket(true).into_bits(), 1 << 16);
    assert_eq!(SglSupport::new().with_mptr_sgl(true).into_bits(), 1 << 19);
    assert_eq!(AnaCap::new().with_fixed_group(true).into_bits(), 1 << 6);
    assert_eq!(Sanicap::new().with_nodmmas(3).into_bits(), 3 << 30);
}

#[test]
fn namespace_bits() {
    assert_eq!(LbaFormat::new().with_lbads(12).into_bits(), 0x000C_0000);
    assert_eq!(
        LbaFormat::new()
            .with_rp(RelativePerformance::DEGRADED)
            .into_bits(),
        3 << 24
    );
    assert_eq!(NsFeat::new().with_optperf(true).into_bits(), 1 << 4);
    assert_eq!(
        Flbas::new()
            .with_index_low(5)
            .with_index_high(1)
            .into_bits(),
        0x25
    );
    assert_eq!(Flbas::new().with_extended(true).into_bits(), 0x10);
    assert_eq!(
        Dlfeat::new()
            .with_read_behavior(1)
            .with_write_zeroes_deallocates(true)
            .into_bits(),
        9
    );
    assert_eq!(Fpi::new().with_supported(true).into_bits(), 0x80);
    assert_eq!(
        ExtendedLbaFormat::new()
            .with_pif(ProtectionFormat::GUARD_64)
            .into_bits(),
        2 << 7
    );
}

#[test]
fn round_trip_through_bytes() {
    let mut id = IdentifyController::new_zeroed();
    id.vid = 0x4E58;
    id.sn = *b"SN00000000000000001 ";
    id.ver = Version::V2_0;
    id.tnvmcap = Le128::new(u128::MAX - 1);
    id.psd[31].mp = 2500;
    let bytes = id.as_bytes();
    assert_eq!(bytes[80..84], [0, 0, 2, 0]);
    assert_eq!(bytes[280], 0xFE);
    assert_eq!(bytes[3040..3042], 2500u16.to_le_bytes());
    assert_eq!(IdentifyController::read_from_bytes(bytes).unwrap(), id);
}

#[test]
fn identifier_lengths_follow_the_type() {
    assert_eq!(NamespaceIdType::EUI64.nidl(), Some(8));
    assert_eq!(NamespaceIdType::NGUID.nidl(), Some(16));
    assert_eq!(NamespaceIdType::UUID.nidl(), Some(16));
    assert_eq!(NamespaceIdType::CSI.nidl(), Some(1));
    assert_eq!(NamespaceIdType(9).nidl(), None);
}
