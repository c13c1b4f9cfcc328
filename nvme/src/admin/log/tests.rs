use super::*;

fn error(cid: u16) -> CommandError {
    CommandError {
        sqid: 3,
        cid,
        status: Status::LBA_OUT_OF_RANGE,
        nsid: 7,
        lba: 0x1234,
        parameter_location: 0x010a,
    }
}

fn command(lid: u8, dwords_z: u32, offset: u64) -> Sqe {
    let mut sqe = Sqe::admin(AdminOpcode::GET_LOG_PAGE, NSID_ALL);
    sqe.cdw10 = u32::from(lid) | (dwords_z & 0xffff) << 16;
    sqe.cdw11 = dwords_z >> 16;
    sqe.cdw12 = (offset & 0xffff_ffff) as u32;
    sqe.cdw13 = (offset >> 32) as u32;
    sqe
}

fn request(sqe: &Sqe) -> Result<LogRequest, Status> {
    LogRequest::new(sqe, 1 << 20, Offered::default()).map_err(Status::code)
}

#[test]
fn the_error_log_keeps_the_newest() {
    let mut log = ErrorLog::default();
    for cid in 0..100 {
        log.record(&error(cid));
    }
    let page = log.page();
    assert_eq!(page.len(), 64 * 64);
    let entry = |at: usize| -> (u64, u16) {
        let bytes = &page[at * 64..];
        let count = u64::from_le_bytes(bytes[..8].try_into().unwrap());
        (count, u16::from_le_bytes(bytes[10..12].try_into().unwrap()))
    };
    assert_eq!((entry(0), entry(63)), ((100, 99), (37, 36)));
    assert_eq!(
        page[12..16],
        [0, 1, 0x0a, 0x01],
        "status above the phase bit, then the location"
    );
    assert_eq!(log.count(), 100);
}

#[test]
fn the_changed_list_overflows_to_one_entry() {
    let mut changed = ChangedNamespaces::default();
    changed.extend([5, 3, 5].into_iter());
    assert_eq!(changed.page().nsids[..3], [3, 5, 0]);
    changed.extend(1..=1024);
    assert_eq!(changed.page().nsids[1023], 1024);
    changed.extend(2000..9000);
    assert_eq!(changed.page().nsids[..2], [NSID_ALL, 0]);
    assert_eq!(changed.0.len(), LISTED + 1, "bounded");
}

#[test]
fn requests_are_checked() {
    let ok = request(&command(1, 15, 64)).unwrap();
    assert_eq!((ok.len, ok.offset, ok.retain), (64, 64, false));
    let mut retained = command(2, 0, 0);
    retained.cdw10 |= 1 << 15;
    assert!(request(&retained).unwrap().retain);
    for lid in [0x06, 0x0c, 0x0d, 0x70, 0x80, 0xc0] {
        assert_eq!(
            request(&command(lid, 0, 0)),
            Err(Status::INVALID_LOG_PAGE),
            "{lid:#x}"
        );
    }
    assert_eq!(
        request(&command(1, 0, 2)),
        Err(Status::INVALID_FIELD),
        "offset not in dwords"
    );
    assert!(request(&command(1, (1 << 18) - 1, 0)).is_ok());
    assert_eq!(
        request(&command(1, 1 << 18, 0)),
        Err(Status::INVALID_FIELD),
        "beyond MDTS"
    );
    assert_eq!(
        request(&command(1, u32::MAX, 0)),
        Err(Status::INVALID_FIELD)
    );
    let mut sqe = command(5, 0, 0);
    sqe.cdw14 = 2 << 24;
    assert_eq!(
        request(&sqe),
        Err(Status::INVALID_FIELD),
        "a command set that is not there"
    );
    sqe.cdw14 = 1 << 23;
    assert_eq!(request(&sqe), Err(Status::INVALID_FIELD), "an index offset");
    let mut sqe = command(2, 0, 0);
    sqe.nsid = 1;
    assert_eq!(
        request(&sqe),
        Err(Status::INVALID_FIELD),
        "health is not a namespace's"
    );
}

#[test]
fn parts_end_with_the_page() {
    let page: Vec<u8> = (0..64).collect();
    let cut = |offset, dwords_z| request(&command(1, dwords_z, offset)).unwrap().cut(&page);
    assert_eq!(cut(60, 0).unwrap(), [60, 61, 62, 63]);
    assert_eq!(cut(60, 1).unwrap(), [60, 61, 62, 63, 0, 0, 0, 0]);
    assert_eq!(cut(64, 0).unwrap(), [0; 4]);
    assert!(cut(68, 0).is_err());
    assert!(cut(!3, 0).is_err());
}

#[test]
fn every_page_that_is_listed_exists() {
    let (errors, changed) = (ErrorLog::default(), ChangedNamespaces::default());
    let listed = page(
        LogPageId::SUPPORTED_LOG_PAGES,
        &errors,
        &changed,
        Offered::default(),
    )
    .unwrap();
    for lid in 0..=255u8 {
        let supported = listed[usize::from(lid) * 4] & 1 != 0;
        assert_eq!(request(&command(lid, 0, 0)).is_ok(), supported, "{lid:#x}");
        if supported && lid != 2 {
            assert!(
                page(LogPageId(lid), &errors, &changed, Offered::default()).is_some(),
                "{lid:#x}"
            );
        }
    }
}

#[test]
fn effects_name_what_is_executed() {
    let effects = command_effects(Offered::default());
    for opcode in 0..=255u8 {
        let expected = super::super::SUPPORTED.contains(&AdminOpcode(opcode)) && opcode != 0x7c;
        assert_eq!(
            effects.acs[usize::from(opcode)].csupp(),
            expected,
            "{opcode:#x}"
        );
    }
    let offered = Offered {
        doorbell_buffers: true,
        masked: crate::Masked {
            compare: true,
            ..crate::Masked::default()
        },
        ..Offered::default()
    };
    let effects = command_effects(offered);
    assert!(effects.acs[0x7c].csupp());
    assert!(!effects.iocs[5].csupp() && effects.iocs[8].csupp());
    assert!(effects.iocs[1].lbcc() && !effects.iocs[2].lbcc() && effects.iocs[2].csupp());
    let features = feature_effects();
    assert!(features.fids[7].fsupp() && !features.fids[3].fsupp());
}
