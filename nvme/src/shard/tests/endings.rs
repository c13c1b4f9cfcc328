//! Deletion, abort, reset and removal, in every order.

use std::sync::Arc;

use bdev::{Features, IoStatus};
use guest_memory::DmaMap;
use nix::errno::Errno;
use nvme_spec::command::DsmRange;
use nvme_spec::{NvmOpcode, Sqe, Status};

use super::disk::TestDisk;
use super::rig::{DATA, Queue, RAM, Rig, read, wait_for, write};
use crate::messages::{FromShard, ToShard};

fn gated() -> (Rig, Arc<TestDisk>, Queue) {
    let disk = TestDisk::new(512, 1000, Features::all());
    disk.script(|script| script.gated = true);
    let rig = Rig::new(&[disk.shared()]);
    let queue = rig.pair(1, 32);
    (rig, disk, queue)
}

impl Rig {
    fn sq_deleted(&self, qid: u16) {
        self.answer("a deleted submission queue", |answer| match answer {
            FromShard::SqDeleted { qid: of } if of == qid => Some(()),
            _ => None,
        });
    }

    fn cq_deleted(&self, qid: u16) {
        self.answer("a deleted completion queue", |answer| match answer {
            FromShard::CqDeleted { qid: of } if of == qid => Some(()),
            _ => None,
        });
    }

    fn abort(&self, sqid: u16, cid: u16) -> bool {
        self.tell(ToShard::Abort {
            sqid,
            cid,
            admin_cid: cid ^ 0x55,
        });
        self.answer("the answer to an abort", |answer| match answer {
            FromShard::Aborted { admin_cid, aborted } => {
                assert_eq!(admin_cid, cid ^ 0x55);
                Some(aborted)
            }
            _ => None,
        })
    }

    fn in_ring(&self, disk: &TestDisk, count: usize) {
        wait_for("requests in the ring", || {
            (disk.script(|script| script.log.len()) == count).then_some(())
        });
    }
}

#[test]
fn deleting_a_submission_queue_waits_for_its_commands() {
    let (rig, disk, mut queue) = gated();
    for n in 0..5 {
        rig.send(&mut queue, read(n, 1, DATA));
    }
    rig.in_ring(&disk, 5);
    rig.tell(ToShard::DeleteSq { qid: 1 });
    rig.settle();
    // Commands sent from here on are nobody's.
    rig.send(&mut queue, read(9, 1, DATA));
    rig.settle();
    assert!(
        !rig.answers()
            .iter()
            .any(|answer| matches!(answer, FromShard::SqDeleted { .. }))
    );
    disk.release(5);
    rig.sq_deleted(1);
    for _ in 0..5 {
        assert_eq!(rig.completion(&mut queue).status(), Status::SUCCESS);
    }
    assert_eq!(disk.taken().len(), 5);
    rig.tell(ToShard::DeleteCq { qid: 1 });
    rig.cq_deleted(1);
    // Both can be made again, and start afresh.
    disk.script(|script| script.gated = false);
    let zeroes = vec![0; 32 * 16];
    assert!(rig.ram.write_slice(Rig::at(Rig::ring_of(1, true)), &zeroes));
    let mut queue = rig.pair(1, 32);
    rig.settle();
    assert!(rig.look(&mut queue).is_none());
    assert_eq!(rig.run(&mut queue, read(0, 1, DATA)), Status::SUCCESS);
}

#[test]
fn deletions_are_answered_in_any_order_and_again() {
    let (rig, disk, mut queue) = gated();
    rig.tell(ToShard::DeleteSq { qid: 9 });
    rig.sq_deleted(9);
    rig.tell(ToShard::DeleteCq { qid: 9 });
    rig.cq_deleted(9);
    rig.send(&mut queue, read(0, 1, DATA));
    rig.in_ring(&disk, 1);
    rig.tell(ToShard::DeleteSq { qid: 1 });
    rig.tell(ToShard::DeleteCq { qid: 1 });
    rig.tell(ToShard::DeleteSq { qid: 1 });
    rig.sq_deleted(1);
    disk.release(1);
    rig.sq_deleted(1);
    rig.cq_deleted(1);
}

#[test]
fn what_found_no_room_is_aborted_with_its_queue() {
    let (rig, disk, mut queue) = gated();
    disk.script(|script| script.full = u32::MAX);
    for n in 0..5 {
        rig.put(&mut queue, read(n, 1, DATA));
    }
    rig.ring(&queue);
    rig.settle();
    rig.tell(ToShard::DeleteSq { qid: 1 });
    rig.sq_deleted(1);
    // The two that were taken from the ring; the others were never ours.
    for cid in 0..2 {
        let cqe = rig.completion(&mut queue);
        assert_eq!((cqe.cid, cqe.status()), (cid, Status::ABORTED_SQ_DELETION));
    }
    rig.settle();
    assert!(rig.look(&mut queue).is_none());
}

#[test]
fn queues_that_cannot_be_are_refused() {
    let (rig, _disk, _queue) = gated();
    let dnr = |status: Status| status.with_dnr(true);
    let cq = Rig::ring_of(2, true);
    assert_eq!(
        rig.try_cq(1, cq, 8, None),
        dnr(Status::INVALID_QUEUE_IDENTIFIER)
    );
    assert_eq!(rig.try_cq(2, 0x1000, 8, None), dnr(Status::INVALID_FIELD));
    assert_eq!(rig.try_cq(2, cq, 1, None), dnr(Status::INVALID_QUEUE_SIZE));
    let sq = Rig::ring_of(2, false);
    assert_eq!(
        rig.try_sq(1, 1, sq, 8),
        dnr(Status::INVALID_QUEUE_IDENTIFIER)
    );
    assert_eq!(
        rig.try_sq(2, 5, sq, 8),
        dnr(Status::COMPLETION_QUEUE_INVALID)
    );
    assert_eq!(
        rig.try_sq(2, 1, RAM - 4096, 128),
        dnr(Status::INVALID_FIELD)
    );
    assert_eq!(rig.try_sq(2, 1, sq, 8), Status::SUCCESS);
}

#[test]
fn reset_ends_commands_in_flight_without_completions() {
    let (mut rig, disk, mut queue) = gated();
    for n in 0..6 {
        rig.send(&mut queue, write(n, 1, DATA));
    }
    rig.in_ring(&disk, 6);
    rig.tell(ToShard::Stop);
    rig.send(&mut queue, write(7, 1, DATA));
    rig.settle();
    assert!(
        !rig.answers()
            .iter()
            .any(|answer| matches!(answer, FromShard::Stopped { .. }))
    );
    disk.release(6);
    rig.stopped();
    assert!(rig.look(&mut queue).is_none());
    assert_eq!(disk.taken().len(), 6);
    // With the map gone too nobody holds the guest's memory any more.
    let old = std::mem::replace(&mut rig.map, DmaMap::empty());
    rig.set_map(DmaMap::empty());
    wait_for("the old map's end", || {
        (Arc::strong_count(&old) == 1).then_some(())
    });
    // And the controller can be enabled again.
    let map = old
        .cleared()
        .with(old.regions().next().unwrap().clone())
        .unwrap();
    rig.set_map(map);
    disk.script(|script| script.gated = false);
    assert!(
        rig.ram
            .write_slice(Rig::at(Rig::ring_of(1, true)), &[0; 512])
    );
    let mut queue = rig.pair(1, 32);
    assert_eq!(rig.run(&mut queue, read(0, 1, DATA)), Status::SUCCESS);
}

#[test]
fn everything_owed_is_answered_before_the_drain_ends() {
    let (rig, disk, mut queue) = gated();
    rig.send(&mut queue, write(0, 1, DATA));
    rig.in_ring(&disk, 1);
    rig.tell(ToShard::DeleteSq { qid: 1 });
    rig.tell(ToShard::DeleteCq { qid: 1 });
    rig.tell(ToShard::Stop);
    rig.tell(ToShard::Stop);
    assert_eq!(
        rig.try_cq(2, Rig::ring_of(2, true), 8, None).code(),
        Status::INVALID_QUEUE_IDENTIFIER,
        "no queue is made during a drain"
    );
    disk.release(1);
    rig.sq_deleted(1);
    rig.cq_deleted(1);
    rig.stopped();
    rig.stopped();
    rig.stop();
}

#[test]
fn stalled_and_stuck_commands_end_with_the_reset() {
    let (rig, disk, mut queue) = gated();
    disk.script(|script| script.stall = u32::MAX);
    for n in 0..3 {
        rig.send(&mut queue, write(n, 1, DATA));
    }
    rig.in_ring(&disk, 3);
    disk.release(3);
    rig.settle();
    disk.script(|script| script.full = u32::MAX);
    for n in 0..3 {
        rig.send(&mut queue, write(n, 1, DATA));
    }
    rig.settle();
    // A command of several steps whose next one has no room.
    rig.stop();
    assert!(rig.look(&mut queue).is_none());
    assert_eq!(rig.in_flight(), 0);
}

#[test]
fn exit_removes_the_poller_and_closes_the_disks() {
    let (rig, disk, mut queue) = gated();
    rig.send(&mut queue, write(0, 1, DATA));
    rig.in_ring(&disk, 1);
    rig.tell(ToShard::Stop);
    rig.tell(ToShard::Exit);
    rig.settle();
    assert_eq!(rig.pollers(), 1);
    disk.release(1);
    rig.stopped();
    rig.stopped();
    wait_for("the poller's end", || (rig.pollers() == 0).then_some(()));
    assert_eq!(disk.script(|script| script.open), 0);
}

#[test]
fn a_shard_whose_controller_died_drains_and_leaves() {
    let (mut rig, disk, mut queue) = gated();
    rig.send(&mut queue, write(0, 1, DATA));
    rig.in_ring(&disk, 1);
    rig.hang_up();
    disk.release(1);
    wait_for("the poller's end", || (rig.pollers() == 0).then_some(()));
    assert_eq!(disk.script(|script| script.open), 0);
}

#[test]
fn abort_reaches_what_has_not_reached_a_disk() {
    let (rig, disk, mut queue) = gated();
    let in_ring = rig.send(&mut queue, read(0, 1, DATA));
    rig.in_ring(&disk, 1);
    assert!(!rig.abort(1, in_ring));
    assert!(!rig.abort(1, 999));
    assert!(!rig.abort(8, in_ring));
    disk.script(|script| script.full = u32::MAX);
    let stuck = rig.put(&mut queue, read(1, 1, DATA));
    let ahead = rig.put(&mut queue, read(2, 1, DATA));
    let unfetched = rig.put(&mut queue, read(3, 1, DATA));
    let last = rig.put(&mut queue, read(4, 1, DATA));
    rig.ring(&queue);
    rig.settle();
    assert!(rig.abort(1, unfetched));
    assert!(rig.abort(1, ahead));
    assert!(rig.abort(1, stuck));
    let mut aborted: Vec<_> = (0..3).map(|_| rig.completion(&mut queue)).collect();
    aborted.sort_by_key(|cqe| cqe.cid);
    for (cqe, cid) in aborted.iter().zip([stuck, ahead, unfetched]) {
        assert_eq!((cqe.cid, cqe.status()), (cid, Status::ABORT_REQUESTED));
    }
    disk.script(|script| script.full = 0);
    rig.in_ring(&disk, 2);
    disk.release(2);
    let mut ended = [rig.completion(&mut queue), rig.completion(&mut queue)];
    ended.sort_by_key(|cqe| cqe.cid);
    assert!(ended.iter().all(|cqe| cqe.status().is_success()));
    assert_eq!(ended.map(|cqe| cqe.cid), [in_ring, last]);
}

#[test]
fn abort_of_unfetched_entries_has_its_limit() {
    let (rig, disk, mut queue) = gated();
    disk.script(|script| script.full = u32::MAX);
    let cids: Vec<_> = (0..12)
        .map(|n| rig.put(&mut queue, read(n, 1, DATA)))
        .collect();
    rig.ring(&queue);
    rig.settle();
    // Two are held, four can be marked.
    let aborted: Vec<_> = cids[2..].iter().map(|cid| rig.abort(1, *cid)).collect();
    assert_eq!(
        aborted,
        [
            true, true, true, true, false, false, false, false, false, false
        ]
    );
    disk.script(|script| (script.full, script.gated) = (0, false));
    let mut ended: Vec<_> = cids.iter().map(|_| rig.completion(&mut queue)).collect();
    ended.sort_by_key(|cqe| cqe.cid);
    for (cqe, cid) in ended.iter().zip(&cids) {
        let expected = if (2..6).contains(cid) {
            Status::ABORT_REQUESTED
        } else {
            Status::SUCCESS
        };
        assert_eq!((cqe.cid, cqe.status()), (*cid, expected));
    }
}

#[test]
fn abort_ends_a_command_between_its_steps() {
    let (rig, disk, mut queue) = gated();
    for n in 0..3 {
        assert!(
            rig.ram
                .write(Rig::at(DATA) + n * 16, &DsmRange::new(n as u64 * 2, 1))
        );
    }
    let mut command = Sqe::nvm(NvmOpcode::DATASET_MANAGEMENT, 1).with_prps(DATA, 0);
    (command.cdw10, command.cdw11) = (2, 4);
    let cid = rig.send(&mut queue, command);
    rig.in_ring(&disk, 1);
    disk.script(|script| script.full = u32::MAX);
    disk.release(1);
    wait_for("the first step's end", || rig.abort(1, cid).then_some(()));
    assert_eq!(rig.completion(&mut queue).status(), Status::ABORT_REQUESTED);
    assert_eq!(disk.taken().len(), 1);
}

#[test]
fn a_failing_step_ends_the_command() {
    let (rig, disk, mut queue) = gated();
    for n in 0..3 {
        assert!(
            rig.ram
                .write(Rig::at(DATA) + n * 16, &DsmRange::new(n as u64 * 2, 1))
        );
    }
    let mut command = Sqe::nvm(NvmOpcode::DATASET_MANAGEMENT, 1).with_prps(DATA, 0);
    (command.cdw10, command.cdw11) = (2, 4);
    rig.send(&mut queue, command);
    disk.release(1);
    rig.in_ring(&disk, 2);
    disk.script(|script| script.fail = Some(IoStatus::Failed(Errno::EIO)));
    disk.release(1);
    assert_eq!(rig.completion(&mut queue).status(), Status::WRITE_FAULT);
    assert_eq!(disk.taken().len(), 2);
}
