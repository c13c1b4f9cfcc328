use core::mem::offset_of;

use super::*;
use crate::feature::FeatureId;
use crate::identify::{Cns, Csi};
use crate::log::LogPageId;

#[test]
fn queue_commands() {
    assert_eq!(
        CreateQueueCdw10::new()
            .with_qid(1)
            .with_qsize_z(255)
            .into_bits(),
        0x00FF_0001
    );
    let cdw11 = CreateCqCdw11::new().with_pc(true).with_ien(true).with_iv(5);
    assert_eq!(cdw11.into_bits(), 0x0005_0003);
    let cdw11 = CreateSqCdw11::new()
        .with_pc(true)
        .with_qprio(QueuePriority::LOW)
        .with_cqid(9);
    assert_eq!(cdw11.into_bits(), 0x0009_0007);
    assert_eq!(DeleteQueueCdw10::from_bits(0xFFFF_0004).qid(), 4);
    assert_eq!(AbortCdw10::from_bits(0x0007_0002).cid(), 7);
    assert_eq!(AbortCdw10::from_bits(0x0007_0002).sqid(), 2);
}

#[test]
fn identify_and_log_page() {
    let cdw10 = IdentifyCdw10::new().with_cns(Cns::CONTROLLER).with_cntid(3);
    assert_eq!(cdw10.into_bits(), 0x0003_0001);
    assert_eq!(
        IdentifyCdw11::new().with_csi(Csi::ZNS).into_bits(),
        0x0200_0000
    );
    // `nvme smart-log`: 512 bytes of page 2.
    let cdw10 = GetLogPageCdw10::new()
        .with_lid(LogPageId::SMART_HEALTH)
        .with_numdl(127);
    assert_eq!(cdw10.into_bits(), 0x007F_0002);
    assert_eq!(GetLogPageCdw10::new().with_lsp(0x7F).into_bits(), 0x7F00);
    assert_eq!(GetLogPageCdw10::new().with_rae(true).into_bits(), 0x8000);
    assert_eq!(
        GetLogPageCdw11::new().with_numdu(1).with_lsi(2).into_bits(),
        0x0002_0001
    );
    assert_eq!(GetLogPageCdw14::new().with_ot(true).into_bits(), 1 << 23);
    assert_eq!(GetLogPageCdw14::new().with_csi(Csi(1)).into_bits(), 1 << 24);
}

#[test]
fn features() {
    let cdw10 = GetFeaturesCdw10::from_bits(0x0307);
    assert_eq!(cdw10.fid(), FeatureId::NUMBER_OF_QUEUES);
    assert_eq!(cdw10.sel(), FeatureSelect::SUPPORTED_CAPABILITIES);
    assert!(SetFeaturesCdw10::from_bits(1 << 31).sv());
}

#[test]
fn read_and_write() {
    assert_eq!(RwCdw12::new().with_nlb_z(7).into_bits(), 7);
    assert_eq!(RwCdw12::from_bits(0xFFFF).blocks(), 65_536);
    assert_eq!(
        RwCdw12::new().with_dtype(DirectiveType(0xF)).into_bits(),
        0xF << 20
    );
    assert_eq!(RwCdw12::new().with_stc(true).into_bits(), 1 << 24);
    assert_eq!(RwCdw12::new().with_deac(true).into_bits(), 1 << 25);
    let guard = PrInfo::new().with_check_guard(true);
    assert_eq!(RwCdw12::new().with_prinfo(guard).into_bits(), 1 << 28);
    let pract = PrInfo::new().with_pract(true);
    assert_eq!(RwCdw12::new().with_prinfo(pract).into_bits(), 1 << 29);
    assert_eq!(RwCdw12::new().with_fua(true).into_bits(), 1 << 30);
    assert_eq!(RwCdw12::new().with_lr(true).into_bits(), 1 << 31);
    assert_eq!(RwCdw13::new().with_incompressible(true).into_bits(), 1 << 7);
    assert_eq!(RwCdw13::new().with_dspec(1).into_bits(), 1 << 16);
}

#[test]
fn dataset_management() {
    assert_eq!(DsmCdw10::from_bits(0xFFFF_FF05).nr_z(), 5);
    assert_eq!(DsmCdw11::new().with_ad(true).into_bits(), 4);
    assert_eq!(offset_of!(DsmRange, nlb), 4);
    assert_eq!(offset_of!(DsmRange, slba), 8);
    assert_eq!(ContextAttributes::new().with_wp(true).into_bits(), 1 << 10);
    assert_eq!(
        ContextAttributes::new()
            .with_command_access_size(1)
            .into_bits(),
        1 << 24
    );
}

#[test]
fn copy() {
    assert_eq!(
        CopyCdw12::new()
            .with_format(CopyFormat::FORMAT_1)
            .into_bits(),
        1 << 8
    );
    assert_eq!(CopyCdw12::new().with_stcr(true).into_bits(), 1 << 25);
    assert_eq!(offset_of!(CopyRange0, nlb_z), 16);
    assert_eq!(offset_of!(CopyRange0, eilbrt), 24);
    assert_eq!(offset_of!(CopyRange1, elbt), 26);
    assert_eq!(offset_of!(CopyRange1, elbatm), 38);
}
