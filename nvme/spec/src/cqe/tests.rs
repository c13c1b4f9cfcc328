use core::mem::offset_of;

use zerocopy::{FromBytes, IntoBytes};

use super::*;

#[test]
fn offsets_are_those_of_the_completion_queue_entry() {
    assert_eq!(offset_of!(Cqe, dw0), 0);
    assert_eq!(offset_of!(Cqe, dw1), 4);
    assert_eq!(offset_of!(Cqe, sqhd), 8);
    assert_eq!(offset_of!(Cqe, sqid), 10);
    assert_eq!(offset_of!(Cqe, cid), 12);
    assert_eq!(offset_of!(Cqe, status_phase), 14);
}

#[test]
fn status_and_phase_sit_in_dword_3() {
    let cqe = Cqe::new(1, 2, 3, Status::INVALID_NAMESPACE_OR_FORMAT, true);
    assert_eq!(cqe.dw3(), (0x0B << 17) | (1 << 16) | 3);
    assert!(cqe.phase());
    assert_eq!(cqe.status(), Status::INVALID_NAMESPACE_OR_FORMAT);

    let cqe = Cqe::new(1, 2, 3, Status::INVALID_FIELD.with_dnr(true), false);
    assert_eq!(cqe.dw3(), (1 << 31) | (0x02 << 17) | 3);
    assert!(!cqe.phase());
    assert!(cqe.status().dnr());
}

#[test]
fn words_are_the_bytes_of_the_entry() {
    let cqe = Cqe {
        dw0: 0x0302_0100,
        dw1: 0x0706_0504,
        sqhd: 0x0908,
        sqid: 0x0B0A,
        cid: 0x0D0C,
        status_phase: 0x0F0E,
    };
    let words = cqe.words();
    assert_eq!(words.as_bytes(), cqe.as_bytes());
    assert_eq!(Cqe::read_from_bytes(words.as_bytes()).unwrap(), cqe);
}
