//! Commands that are refused, disks that fail, and a guest that makes no sense at all.

use bdev::{Features, IoKind, IoStatus};
use nix::errno::Errno;
use nvme_spec::{Fuse, NSID_ALL, NvmOpcode, Psdt, SglDescriptor, SglType, Sqe, Status};
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use super::disk::TestDisk;
use super::rig::{DATA, MAX_TRANSFER, RAM, RAM_LEN, Rig, io, read, wait_for, write};
use crate::messages::{CommandError, FromShard};

fn error(rig: &Rig) -> CommandError {
    rig.answer("an error report", |answer| match answer {
        FromShard::Error(error) => Some(error),
        _ => None,
    })
}

#[test]
fn commands_are_checked_before_any_effect() {
    let disk = TestDisk::new(512, 1000, Features::all());
    let rig = Rig::new(&[disk.shared()]);
    let mut queue = rig.pair(1, 64);
    let mut fused = write(0, 1, DATA);
    fused.cdw0 = fused.cdw0.with_fuse(Fuse::FIRST);
    let mut reserved = write(0, 1, DATA);
    reserved.cdw0 = reserved.cdw0.with_psdt(Psdt::RESERVED);
    let mut metadata = write(0, 1, DATA);
    metadata.cdw0 = metadata.cdw0.with_psdt(Psdt::SGL_MPTR_SGL);
    let keyed = SglDescriptor::new(SglType::KEYED_DATA_BLOCK, DATA, 512);
    let other = |nsid| io(NvmOpcode::WRITE, nsid, 0, 1, DATA, 0);
    let too_long = MAX_TRANSFER / 512 + 1;
    let dnr = |status: Status| status.with_dnr(true);
    let cases: &[(Sqe, Status, u16)] = &[
        (Sqe::new(0x7f, 1), dnr(Status::INVALID_OPCODE), 0),
        (
            Sqe::nvm(NvmOpcode::VERIFY, 1),
            dnr(Status::INVALID_OPCODE),
            0,
        ),
        (Sqe::nvm(NvmOpcode::COPY, 1), dnr(Status::INVALID_OPCODE), 0),
        (
            Sqe::nvm(NvmOpcode::WRITE_UNCORRECTABLE, 1),
            dnr(Status::INVALID_OPCODE),
            0,
        ),
        (fused, dnr(Status::INVALID_FIELD), 1),
        (reserved, dnr(Status::INVALID_FIELD), 0x601),
        (metadata, dnr(Status::INVALID_FIELD), 0x601),
        (other(0), dnr(Status::INVALID_NAMESPACE_OR_FORMAT), 4),
        (other(2), dnr(Status::INVALID_NAMESPACE_OR_FORMAT), 4),
        (other(NSID_ALL), dnr(Status::INVALID_NAMESPACE_OR_FORMAT), 4),
        (
            Sqe::nvm(NvmOpcode::FLUSH, 7),
            dnr(Status::INVALID_NAMESPACE_OR_FORMAT),
            4,
        ),
        (write(1000, 1, DATA), dnr(Status::LBA_OUT_OF_RANGE), 40),
        (write(999, 2, DATA), dnr(Status::LBA_OUT_OF_RANGE), 40),
        (write(u64::MAX, 2, DATA), dnr(Status::LBA_OUT_OF_RANGE), 40),
        (
            io(NvmOpcode::WRITE_ZEROES, 1, 1, 1000, 0, 0),
            dnr(Status::LBA_OUT_OF_RANGE),
            40,
        ),
        (write(0, too_long, DATA), dnr(Status::INVALID_FIELD), 48),
        (write(0, 1, DATA + 2), dnr(Status::PRP_OFFSET_INVALID), 24),
        (write(0, 1, 0x1000), Status::DATA_TRANSFER_ERROR, 24),
        (
            write(0, 1, 0).with_sgl(keyed),
            dnr(Status::SGL_DESCRIPTOR_TYPE_INVALID),
            24,
        ),
    ];
    for (sqe, status, location) in cases {
        let cid = rig.send(&mut queue, *sqe);
        let cqe = rig.completion(&mut queue);
        assert_eq!((cqe.cid, cqe.status()), (cid, *status), "{sqe:?}");
        let report = error(&rig);
        assert_eq!(
            (
                report.sqid,
                report.cid,
                report.status,
                report.parameter_location
            ),
            (1, cid, status.with_more(true), *location),
            "{sqe:?}"
        );
        let first = match status.code() {
            Status::LBA_OUT_OF_RANGE => sqe.slba().max(1000),
            _ => sqe.slba(),
        };
        assert_eq!((report.nsid, report.lba), (sqe.nsid, first));
    }
    assert_eq!(disk.taken(), []);
    assert_eq!(rig.run(&mut queue, write(999, 1, DATA)), Status::SUCCESS);
}

#[test]
fn a_disks_errors_have_their_status() {
    let disk = TestDisk::new(512, 1000, Features::all());
    let rig = Rig::new(&[disk.shared()]);
    let mut queue = rig.pair(1, 8);
    let dnr = |status: Status| status.with_dnr(true);
    let cases = [
        (
            IoStatus::OutOfRange,
            dnr(Status::LBA_OUT_OF_RANGE),
            dnr(Status::LBA_OUT_OF_RANGE),
        ),
        (
            IoStatus::ReadOnly,
            dnr(Status::NAMESPACE_WRITE_PROTECTED),
            dnr(Status::NAMESPACE_WRITE_PROTECTED),
        ),
        (
            IoStatus::NoSpace,
            dnr(Status::CAPACITY_EXCEEDED),
            dnr(Status::CAPACITY_EXCEEDED),
        ),
        (
            IoStatus::BadMemory,
            Status::DATA_TRANSFER_ERROR,
            Status::DATA_TRANSFER_ERROR,
        ),
        (
            IoStatus::Unsupported,
            dnr(Status::INVALID_OPCODE),
            dnr(Status::INVALID_OPCODE),
        ),
        (
            IoStatus::Failed(Errno::EIO),
            Status::UNRECOVERED_READ_ERROR,
            Status::WRITE_FAULT,
        ),
        (
            IoStatus::Failed(Errno::EILSEQ),
            Status::UNRECOVERED_READ_ERROR,
            Status::WRITE_FAULT,
        ),
        (
            IoStatus::Failed(Errno::ENOMEM),
            Status::INTERNAL_ERROR,
            Status::INTERNAL_ERROR,
        ),
    ];
    for gated in [false, true] {
        for (cause, reading, writing) in cases {
            disk.script(|script| (script.fail, script.gated) = (Some(cause), gated));
            if gated {
                disk.release(2);
            }
            assert_eq!(rig.run(&mut queue, read(3, 1, DATA)), reading, "{cause:?}");
            assert_eq!(rig.run(&mut queue, write(3, 1, DATA)), writing, "{cause:?}");
        }
    }
}

#[test]
fn a_disk_that_cannot_be_opened_may_be_asked_again() {
    let disk = TestDisk::new(512, 1000, Features::all());
    disk.script(|script| script.locked = true);
    let rig = Rig::new(&[disk.shared()]);
    let mut queue = rig.pair(1, 8);
    assert_eq!(
        rig.run(&mut queue, read(0, 1, DATA)),
        Status::NAMESPACE_NOT_READY
    );
    let flush = Sqe::nvm(NvmOpcode::FLUSH, NSID_ALL);
    assert_eq!(rig.run(&mut queue, flush), Status::NAMESPACE_NOT_READY);
    disk.script(|script| script.locked = false);
    assert_eq!(rig.run(&mut queue, read(0, 1, DATA)), Status::SUCCESS);
    assert_eq!(rig.run(&mut queue, flush), Status::SUCCESS);
}

#[test]
fn errors_that_nobody_reads_do_not_pile_up() {
    let rig = Rig::new(&[]);
    let mut queue = rig.pair(1, 64);
    for _ in 0..500 {
        assert!(!rig.run(&mut queue, read(0, 1, DATA)).is_success());
    }
    let errors = rig
        .answers()
        .iter()
        .filter(|answer| matches!(answer, FromShard::Error(_)))
        .count();
    assert!(errors <= 64, "{errors}");
}

/// Commands as a guest that has lost its mind might send them, most of them nearly right.
fn nonsense() -> impl Strategy<Value = Sqe> {
    let opcode = prop_oneof![
        8 => prop::sample::select(vec![0u8, 1, 2, 5, 8, 9]),
        1 => any::<u8>(),
    ];
    let nsid = prop_oneof![8 => Just(1u32), 1 => Just(NSID_ALL), 1 => any::<u32>()];
    let lba = prop_oneof![4 => 0u64..1100, 1 => any::<u64>()];
    let address = || {
        prop_oneof![
            4 => (0..RAM_LEN as u64 / 4096).prop_map(|page| RAM + page * 4096),
            2 => DATA..DATA + 0x10_0000,
            1 => any::<u64>(),
        ]
    };
    let blocks = prop_oneof![4 => 0u32..64, 1 => any::<u32>()];
    let top = prop_oneof![6 => Just(0u8), 1 => any::<u8>(), 2 => Just(0x40u8)];
    (
        opcode,
        top,
        nsid,
        lba,
        (address(), address()),
        blocks,
        any::<[u32; 4]>(),
    )
        .prop_map(|(opcode, top, nsid, lba, (prp1, prp2), cdw12, rest)| {
            let mut sqe = Sqe::new(opcode, nsid).with_slba(lba);
            sqe.cdw0 = sqe.cdw0.with_fuse(Fuse(top & 3)).with_psdt(Psdt(top >> 6));
            (sqe.dptr.prp1, sqe.dptr.prp2, sqe.cdw12) = (prp1, prp2, cdw12);
            [sqe.cdw2, sqe.cdw13, sqe.cdw14, sqe.cdw15] = rest;
            if opcode == 9 {
                (sqe.cdw10, sqe.cdw11) = (cdw12, 4);
            }
            sqe
        })
}

/// Every command gets exactly one completion, whatever it says, and the disk sees only what lies inside it.
#[test]
fn every_command_gets_one_completion_whatever_it_says() {
    let disk = TestDisk::new(512, 1000, Features::all());
    let rig = Rig::new(&[disk.shared()]);
    // Data goes to DATA and above; below lie the rings, and a guest may of course destroy them: keep those commands out.
    let outside_rings = |sqe: &Sqe| {
        let reads_disk = sqe.cdw0.opcode() == 2;
        let hits = |at: u64| (RAM..RAM + 0x20_0000).contains(&at);
        !(reads_disk && (hits(sqe.dptr.prp1) || hits(sqe.dptr.prp2)))
    };
    let mut queue = rig.pair(1, 128);
    // The same commands in each run: what a read leaves in memory may be a list of later ones.
    let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let mut runner = TestRunner::new_with_rng(Config::with_cases(64), rng);
    let batches = proptest::collection::vec(nonsense().prop_filter("rings", outside_rings), 1..100);
    let queue = std::cell::RefCell::new(&mut queue);
    runner
        .run(&batches, |batch| {
            let queue = &mut *queue.borrow_mut();
            let mut sent: Vec<u16> = batch.iter().map(|sqe| rig.put(queue, *sqe)).collect();
            rig.ring(queue);
            while !sent.is_empty() {
                let cqe = wait_for("one completion each", || rig.look(queue));
                rig.ack(queue);
                let at = sent.iter().position(|cid| *cid == cqe.cid);
                prop_assert!(at.is_some(), "two completions, or one never sent");
                sent.swap_remove(at.unwrap_or(0));
            }
            rig.settle();
            prop_assert!(rig.look(queue).is_none());
            for (kind, lba, blocks, _) in disk.taken() {
                let inside = lba.checked_add(blocks).is_some_and(|end| end <= 1000);
                prop_assert!(inside || kind == IoKind::Flush, "{kind:?} {lba} {blocks}");
            }
            let _ = rig.answers();
            Ok(())
        })
        .unwrap();
}
