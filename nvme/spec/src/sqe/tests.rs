use core::mem::offset_of;

use super::*;
use crate::sgl::SglType;

#[test]
fn offsets_are_those_of_the_common_command_format() {
    assert_eq!(offset_of!(Sqe, cdw0), 0);
    assert_eq!(offset_of!(Sqe, nsid), 4);
    assert_eq!(offset_of!(Sqe, cdw2), 8);
    assert_eq!(offset_of!(Sqe, cdw3), 12);
    assert_eq!(offset_of!(Sqe, mptr), 16);
    assert_eq!(offset_of!(Sqe, dptr), 24);
    assert_eq!(offset_of!(Dptr, prp2), 8);
    assert_eq!(offset_of!(Sqe, cdw10), 40);
    assert_eq!(offset_of!(Sqe, cdw11), 44);
    assert_eq!(offset_of!(Sqe, cdw12), 48);
    assert_eq!(offset_of!(Sqe, cdw13), 52);
    assert_eq!(offset_of!(Sqe, cdw14), 56);
    assert_eq!(offset_of!(Sqe, cdw15), 60);
}

#[test]
fn cdw0_bits() {
    assert_eq!(Cdw0::new().with_opcode(0xFF).into_bits(), 0x0000_00FF);
    assert_eq!(Cdw0::new().with_fuse(Fuse(3)).into_bits(), 0x0000_0300);
    assert_eq!(Cdw0::new().with_psdt(Psdt(3)).into_bits(), 0x0000_C000);
    assert_eq!(Cdw0::new().with_cid(0xFFFF).into_bits(), 0xFFFF_0000);
}

#[test]
fn a_command_built_is_the_command_read() {
    let sqe = Sqe::nvm(NvmOpcode::READ, 7)
        .with_cid(0xBEEF)
        .with_prps(0x1000, 0x2000)
        .with_slba(0x0123_4567_89AB_CDEF);
    let read = Sqe::read_from_bytes(sqe.as_bytes()).unwrap();
    assert_eq!(read.nvm_opcode(), NvmOpcode::READ);
    assert_eq!(read.cid(), 0xBEEF);
    assert_eq!(read.nsid, 7);
    assert_eq!(read.cdw0.psdt(), Psdt::PRP);
    assert_eq!((read.dptr.prp1, read.dptr.prp2), (0x1000, 0x2000));
    assert_eq!(read.cdw10, 0x89AB_CDEF);
    assert_eq!(read.cdw11, 0x0123_4567);
    assert_eq!(read.slba(), 0x0123_4567_89AB_CDEF);
}

#[test]
fn the_data_pointer_is_an_sgl_descriptor_too() {
    let sgl = SglDescriptor::new(SglType::SEGMENT, 0xABC0, 48);
    let sqe = Sqe::admin(AdminOpcode::IDENTIFY, 0).with_sgl(sgl);
    assert_eq!(sqe.as_bytes()[39], 0x20);
    assert_eq!(sqe.dptr.sgl(), sgl);
    assert_eq!(sqe.cdw0.psdt(), Psdt::SGL_MPTR_CONTIGUOUS);
}
