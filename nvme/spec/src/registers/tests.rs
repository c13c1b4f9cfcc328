use super::*;

#[test]
fn cap_bits() {
    assert_eq!(Cap::new().with_mqes_z(0xFFFF).into_bits(), 0xFFFF);
    assert_eq!(Cap::new().with_cqr(true).into_bits(), 1 << 16);
    assert_eq!(Cap::new().with_ams_wrr(true).into_bits(), 1 << 17);
    assert_eq!(Cap::new().with_to(0xFF).into_bits(), 0xFF << 24);
    assert_eq!(Cap::new().with_dstrd(0xF).into_bits(), 0xF << 32);
    assert_eq!(Cap::new().with_nssrs(true).into_bits(), 1 << 36);
    assert_eq!(
        Cap::new()
            .with_css(CssSupport::new().with_nvm(true))
            .into_bits(),
        1 << 37
    );
    assert_eq!(
        Cap::new()
            .with_css(CssSupport::new().with_iocs(true))
            .into_bits(),
        1 << 43
    );
    assert_eq!(
        Cap::new()
            .with_css(CssSupport::new().with_admin_only(true))
            .into_bits(),
        1 << 44
    );
    assert_eq!(Cap::new().with_bps(true).into_bits(), 1 << 45);
    assert_eq!(
        Cap::new().with_cps(ControllerPowerScope(3)).into_bits(),
        3 << 46
    );
    assert_eq!(Cap::new().with_mpsmin(0xF).into_bits(), 0xF << 48);
    assert_eq!(Cap::new().with_mpsmax(0xF).into_bits(), 0xF << 52);
    assert_eq!(Cap::new().with_pmrs(true).into_bits(), 1 << 56);
    assert_eq!(Cap::new().with_cmbs(true).into_bits(), 1 << 57);
    assert_eq!(Cap::new().with_nsss(true).into_bits(), 1 << 58);
    assert_eq!(
        Cap::new()
            .with_crms(Crms::new().with_crwms(true))
            .into_bits(),
        1 << 59
    );
    assert_eq!(
        Cap::new()
            .with_crms(Crms::new().with_crims(true))
            .into_bits(),
        1 << 60
    );
}

#[test]
fn cc_bits() {
    // What Linux writes to enable a controller with 4 KiB pages.
    let cc = Cc::new().with_en(true).with_iosqes(6).with_iocqes(4);
    assert_eq!(cc.into_bits(), 0x0046_0001);
    assert_eq!(Cc::new().with_css(Css::ALL_SUPPORTED).into_bits(), 0x60);
    assert_eq!(Cc::new().with_mps(0xF).into_bits(), 0x780);
    assert_eq!(Cc::new().with_ams(Ams(7)).into_bits(), 0x3800);
    assert_eq!(Cc::new().with_shn(Shn::NORMAL).into_bits(), 0x4000);
    assert_eq!(Cc::new().with_shn(Shn::ABRUPT).into_bits(), 0x8000);
    assert_eq!(Cc::new().with_crime(ReadyMode(1)).into_bits(), 1 << 24);
    assert_eq!(cc.page_size(), 4096);
    assert_eq!(Cc::from_bits(u32::MAX).page_size(), 128 << 20);
}

#[test]
fn reserved_bits_survive_a_round_trip() {
    let bits = 0xFE00_000E;
    assert_eq!(Cc::from_bits(bits).into_bits(), bits);
    assert_eq!(Cc::from_bits(bits).with_en(true).into_bits(), bits | 1);
}

#[test]
fn csts_bits() {
    assert_eq!(Csts::new().with_rdy(true).into_bits(), 0x01);
    assert_eq!(Csts::new().with_cfs(true).into_bits(), 0x02);
    assert_eq!(Csts::new().with_shst(Shst::OCCURRING).into_bits(), 0x04);
    assert_eq!(Csts::new().with_shst(Shst::COMPLETE).into_bits(), 0x08);
    assert_eq!(Csts::new().with_nssro(true).into_bits(), 0x10);
    assert_eq!(Csts::new().with_pp(true).into_bits(), 0x20);
    assert_eq!(Csts::new().with_st(true).into_bits(), 0x40);
}

#[test]
fn small_registers() {
    assert_eq!(Aqa::new().with_asqs_z(0xFFF).into_bits(), 0x0000_0FFF);
    assert_eq!(Aqa::new().with_acqs_z(0xFFF).into_bits(), 0x0FFF_0000);
    assert_eq!(Version::V2_0.into_bits(), 0x0002_0000);
    assert_eq!(Version::V1_4.into_bits(), 0x0001_0400);
    assert!(Version::V1_4 < Version::V2_0);
    assert_eq!(format!("{:?}", Version::of(1, 2, 1)), "1.2.1");
    assert_eq!(
        Crto::new().with_crwmt(1).with_crimt(2).into_bits(),
        0x0002_0001
    );
    assert_eq!(NSSR_RESET.to_be_bytes(), *b"NVMe");
    assert_eq!(NSSD_NORMAL.to_be_bytes(), *b"Nrml");
    assert_eq!(NSSD_ABRUPT.to_be_bytes(), *b"Abpt");
    assert_eq!(CmbSz::new().with_szu(0xF).into_bits(), 0xF00);
    assert_eq!(CmbLoc::new().with_ofst(1).into_bits(), 0x1000);
    assert_eq!(CmbMsc::new().with_cba(1).into_bits(), 0x1000);
    assert_eq!(
        BpInfo::new().with_brs(BootReadStatus::ERROR).into_bits(),
        3 << 24
    );
    assert_eq!(BpInfo::new().with_abpid(true).into_bits(), 1 << 31);
    assert_eq!(BpRsel::new().with_bprof(1).into_bits(), 1 << 10);
    assert_eq!(PmrCap::new().with_pmrto(1).into_bits(), 1 << 16);
    assert_eq!(PmrCap::new().with_cmss(true).into_bits(), 1 << 24);
    assert_eq!(PmrSts::new().with_cbai(true).into_bits(), 1 << 12);
}

#[test]
fn doorbells() {
    assert_eq!(sq_tail_doorbell(0, 0), 0x1000);
    assert_eq!(cq_head_doorbell(0, 0), 0x1004);
    assert_eq!(sq_tail_doorbell(3, 0), 0x1018);
    assert_eq!(cq_head_doorbell(3, 0), 0x101C);
    assert_eq!(sq_tail_doorbell(1, 2), 0x1020);
    // The furthest a register can say still fits.
    assert_eq!(cq_head_doorbell(u16::MAX, 15), 0x1000 + (131_071 << 17));
}
