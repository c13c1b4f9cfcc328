use super::*;

#[test]
fn bits_are_those_of_dword_3_from_bit_17() {
    assert_eq!(
        Status::new().with_sc(0xFF).into_bits() as u32,
        (0x01FE_0000u32) >> 17
    );
    assert_eq!(
        Status::new().with_sct(StatusCodeType(7)).into_bits() as u32,
        0x0E00_0000u32 >> 17
    );
    assert_eq!(
        Status::new().with_crd(3).into_bits() as u32,
        0x3000_0000u32 >> 17
    );
    assert_eq!(
        Status::new().with_more(true).into_bits() as u32,
        0x4000_0000u32 >> 17
    );
    assert_eq!(
        Status::new().with_dnr(true).into_bits() as u32,
        0x8000_0000u32 >> 17
    );
}

#[test]
fn known_codes() {
    let cases = [
        (Status::SUCCESS, 0x0000),
        (Status::INVALID_OPCODE, 0x0001),
        (Status::INVALID_FIELD, 0x0002),
        (Status::INTERNAL_ERROR, 0x0006),
        (Status::ABORTED_SQ_DELETION, 0x0008),
        (Status::INVALID_NAMESPACE_OR_FORMAT, 0x000B),
        (Status::PRP_OFFSET_INVALID, 0x0013),
        (Status::NAMESPACE_WRITE_PROTECTED, 0x0020),
        (Status::LBA_OUT_OF_RANGE, 0x0080),
        (Status::INVALID_QUEUE_IDENTIFIER, 0x0101),
        (Status::INVALID_LOG_PAGE, 0x0109),
        (Status::FEATURE_NOT_SAVEABLE, 0x010D),
        (Status::INVALID_IO_COMMAND_SET, 0x012C),
        (Status::WRITE_TO_READ_ONLY_RANGE, 0x0182),
        (Status::WRITE_FAULT, 0x0280),
        (Status::COMPARE_FAILURE, 0x0285),
        (Status::ANA_TRANSITION, 0x0303),
    ];
    for (status, bits) in cases {
        assert_eq!(status.into_bits(), bits, "{status:?}");
    }
}

#[test]
fn the_table_has_no_code_twice_and_names_each() {
    for (i, a) in Status::NAMED.iter().enumerate() {
        assert!(a.name().is_some());
        assert!(Status::NAMED[i + 1..].iter().all(|b| a != b), "{a:?} twice");
    }
}

#[test]
fn flags_do_not_hide_the_code() {
    let status = Status::COMPARE_FAILURE
        .with_dnr(true)
        .with_more(true)
        .with_crd(2);
    assert_eq!(status.code(), Status::COMPARE_FAILURE);
    assert_eq!(format!("{status:?}"), "COMPARE_FAILURE+CRD2+MORE+DNR");
    assert!(!status.is_success());
    assert!(Status::SUCCESS.with_more(true).is_success());
}

#[test]
fn an_unnamed_code_survives() {
    let status = Status::from_bits(0x07AB);
    assert_eq!(status.sct(), StatusCodeType::VENDOR_SPECIFIC);
    assert_eq!(status.sc(), 0xAB);
    assert_eq!(status.name(), None);
    assert_eq!(format!("{status:?}"), "Status(sct 0x7, sc 0xab)");
}
