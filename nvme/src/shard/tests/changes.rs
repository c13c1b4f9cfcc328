//! Changes while the guest runs: its memory, its namespaces.

use std::sync::Arc;

use bdev::Features;
use guest_memory::{Access, DmaMap, Region};
use nix::unistd::ftruncate;
use nvme_spec::{NSID_ALL, NvmOpcode, Sqe, Status};

use super::disk::TestDisk;
use super::rig::{DATA, Queue, RAM, Rig, io, namespace, read, wait_for, write};
use crate::messages::FromShard;

fn rig() -> (Rig, Arc<TestDisk>, Queue) {
    let disk = TestDisk::new(512, 1000, Features::all());
    let rig = Rig::new(&[disk.shared()]);
    let queue = rig.pair(1, 32);
    (rig, disk, queue)
}

fn in_ring(disk: &TestDisk, count: usize) {
    wait_for("requests in the ring", || {
        (disk.script(|script| script.log.len()) == count).then_some(())
    });
}

/// The map of all RAM but the upper half, where the data lies.
fn without_data(rig: &Rig) -> Arc<DmaMap> {
    let lower = Region {
        iova: RAM,
        len: DATA - RAM,
        access: Access::READ | Access::WRITE,
        backing: Some(Arc::clone(rig.ram.mapping())),
    };
    rig.map.cleared().with(lower).unwrap()
}

#[test]
fn a_change_of_the_map_disturbs_nobody() {
    let (mut rig, _disk, mut queue) = rig();
    for _ in 0..20 {
        let map = rig.whole_map();
        rig.send(&mut queue, write(1, 8, DATA));
        rig.set_map(map);
        assert_eq!(rig.completion(&mut queue).status(), Status::SUCCESS);
        assert_eq!(rig.run(&mut queue, read(1, 8, DATA)), Status::SUCCESS);
    }
}

#[test]
fn commands_in_flight_keep_the_old_map_and_only_they() {
    let (mut rig, disk, mut queue) = rig();
    disk.script(|script| script.gated = true);
    rig.send(&mut queue, write(1, 8, DATA));
    in_ring(&disk, 1);
    let old = Arc::clone(&rig.map);
    let map = without_data(&rig);
    rig.set_map(map);
    rig.settle();
    assert!(
        Arc::strong_count(&old) > 1,
        "the request in the ring holds it"
    );
    disk.release(1);
    assert_eq!(rig.completion(&mut queue).status(), Status::SUCCESS);
    wait_for("the lease's end", || {
        (Arc::strong_count(&old) == 1).then_some(())
    });
    // The rings are still there; the data is not.
    disk.script(|script| script.gated = false);
    let status = rig.run(&mut queue, write(1, 8, DATA));
    assert_eq!(status, Status::DATA_TRANSFER_ERROR);
    assert_eq!(
        rig.run(&mut queue, Sqe::nvm(NvmOpcode::FLUSH, 1)),
        Status::SUCCESS
    );
}

#[test]
fn rings_that_are_unmapped_wait() {
    let (mut rig, disk, mut queue) = rig();
    disk.script(|script| script.gated = true);
    rig.send(&mut queue, write(1, 8, DATA));
    in_ring(&disk, 1);
    // Decoded, but without room: these hold the old map too, and must not wait for the ring to be mapped again.
    disk.script(|script| script.full = u32::MAX);
    rig.send(&mut queue, write(2, 8, DATA));
    rig.send(&mut queue, write(3, 8, DATA));
    rig.settle();
    let old = Arc::clone(&rig.map);
    rig.set_map(DmaMap::empty());
    rig.settle();
    disk.script(|script| script.full = 0);
    rig.send(&mut queue, write(4, 8, DATA));
    in_ring(&disk, 3);
    disk.release(3);
    wait_for("the lease's end", || {
        (Arc::strong_count(&old) == 1).then_some(())
    });
    rig.settle();
    assert!(rig.look(&mut queue).is_none());
    disk.script(|script| script.gated = false);
    let map = rig.whole_map();
    rig.set_map(map);
    let mut ended: Vec<u16> = (0..4).map(|_| rig.completion(&mut queue).cid).collect();
    ended.sort_unstable();
    assert_eq!(ended, [0, 1, 2, 3]);
    assert_eq!(rig.run(&mut queue, read(1, 8, DATA)), Status::SUCCESS);
}

#[test]
fn a_command_that_ends_at_once_waits_for_its_completion_queue_too() {
    let (mut rig, disk, mut queue) = rig();
    disk.script(|script| script.full = u32::MAX);
    rig.send(&mut queue, write(2, 8, DATA));
    rig.settle();
    rig.set_map(DmaMap::empty());
    rig.settle();
    disk.script(|script| script.full = 0);
    in_ring(&disk, 1);
    rig.settle();
    let map = rig.whole_map();
    rig.set_map(map);
    assert_eq!(rig.completion(&mut queue).status(), Status::SUCCESS);
}

#[test]
fn a_client_that_truncates_its_memory_fails_its_controller() {
    let (rig, _disk, mut queue) = rig();
    assert_eq!(rig.run(&mut queue, read(0, 1, DATA)), Status::SUCCESS);
    ftruncate(rig.ram.fd(), 4 << 20).unwrap();
    // The read touches what is no more. Nobody answers it: the rings are gone for us as well.
    rig.put(&mut queue, read(0, 1, DATA));
    rig.ring(&queue);
    let cause = rig.answer("the end of the controller", |answer| match answer {
        FromShard::Fatal { cause } => Some(cause),
        _ => None,
    });
    assert!(cause.contains("truncated"), "{cause}");
    rig.settle();
    assert!(rig.answers().is_empty(), "said once");
    rig.stop();
}

#[test]
fn another_clients_truncated_memory_is_no_concern() {
    let (rig, _disk, mut queue) = rig();
    let other = Rig::new(&[]);
    let mut theirs = other.pair(1, 8);
    ftruncate(other.ram.fd(), 4 << 20).unwrap();
    other.send(&mut theirs, Sqe::nvm(NvmOpcode::FLUSH, NSID_ALL));
    // Their rings lie below the new end; their first touch beyond it is a data list.
    let mut beyond = Sqe::nvm(NvmOpcode::READ, 1).with_prps(DATA, DATA);
    beyond.cdw12 = 31;
    other.send(&mut theirs, beyond);
    for _ in 0..100 {
        assert_eq!(rig.run(&mut queue, read(0, 1, DATA)), Status::SUCCESS);
    }
}

#[test]
fn a_removed_namespace_ends_its_commands_before_the_ack() {
    let (rig, disk, mut queue) = rig();
    disk.script(|script| script.gated = true);
    rig.send(&mut queue, write(1, 8, DATA));
    in_ring(&disk, 1);
    let done = rig.namespaces(vec![]);
    rig.settle();
    assert!(!done.is_done());
    let status = rig.run(&mut queue, write(1, 8, DATA));
    assert_eq!(status, Status::INVALID_NAMESPACE_OR_FORMAT.with_dnr(true));
    disk.release(1);
    assert_eq!(rig.completion(&mut queue).status(), Status::SUCCESS);
    wait_for("the ack", || done.is_done().then_some(()));
    assert_eq!(disk.script(|script| script.open), 0);
}

#[test]
fn an_unused_namespace_goes_at_once() {
    let (rig, disk, mut queue) = rig();
    assert_eq!(rig.run(&mut queue, read(0, 1, DATA)), Status::SUCCESS);
    let done = rig.namespaces(vec![]);
    wait_for("the ack", || done.is_done().then_some(()));
    assert_eq!(disk.script(|script| script.open), 0);
    let done = rig.namespaces(vec![namespace(1, disk.shared())]);
    wait_for("the ack", || done.is_done().then_some(()));
    assert_eq!(rig.run(&mut queue, read(0, 1, DATA)), Status::SUCCESS);
}

#[test]
fn what_found_no_room_ends_with_its_namespace() {
    let (rig, disk, mut queue) = rig();
    let other = TestDisk::new(512, 1000, Features::all());
    disk.script(|script| script.full = u32::MAX);
    for n in 0..4 {
        rig.put(&mut queue, read(n, 1, DATA));
    }
    rig.ring(&queue);
    rig.settle();
    // Another disk takes the number: none of the old commands may reach it.
    let done = rig.namespaces(vec![namespace(2, other.shared())]);
    wait_for("the ack", || done.is_done().then_some(()));
    for _ in 0..4 {
        let status = rig.completion(&mut queue).status();
        assert_eq!(status, Status::INVALID_NAMESPACE_OR_FORMAT.with_dnr(true));
    }
    assert_eq!(other.taken(), []);
    let second = io(NvmOpcode::READ, 2, 0, 1, DATA, 0);
    assert_eq!(rig.run(&mut queue, second), Status::SUCCESS);
}

#[test]
fn a_number_can_mean_another_disk_while_the_old_one_drains() {
    let (rig, disk, mut queue) = rig();
    disk.script(|script| script.gated = true);
    rig.send(&mut queue, write(1, 1, DATA));
    in_ring(&disk, 1);
    let other = TestDisk::new(512, 10, Features::all());
    let done = rig.namespaces(vec![namespace(1, other.shared())]);
    assert_eq!(rig.run(&mut queue, write(2, 1, DATA)), Status::SUCCESS);
    assert_eq!(other.taken().len(), 1);
    assert!(!done.is_done());
    disk.release(1);
    assert_eq!(rig.completion(&mut queue).status(), Status::SUCCESS);
    wait_for("the ack", || done.is_done().then_some(()));
    assert_eq!(disk.taken().len(), 1);
}

#[test]
fn a_flush_of_all_survives_the_removal_of_one() {
    let disks: Vec<_> = (0..3)
        .map(|_| TestDisk::new(512, 64, Features::all()))
        .collect();
    let rig = Rig::new(&[disks[0].shared(), disks[1].shared(), disks[2].shared()]);
    let mut queue = rig.pair(1, 8);
    disks[0].script(|script| script.gated = true);
    rig.send(&mut queue, Sqe::nvm(NvmOpcode::FLUSH, NSID_ALL));
    in_ring(&disks[0], 1);
    let keep = vec![
        namespace(1, disks[0].shared()),
        namespace(3, disks[2].shared()),
    ];
    let done = rig.namespaces(keep);
    wait_for("the ack", || done.is_done().then_some(()));
    disks[0].release(1);
    assert_eq!(rig.completion(&mut queue).status(), Status::SUCCESS);
    assert_eq!((disks[1].taken().len(), disks[2].taken().len()), (0, 1));
}

#[test]
fn a_resize_moves_the_limit_and_keeps_the_channel() {
    let (rig, disk, mut queue) = rig();
    assert_eq!(rig.run(&mut queue, read(999, 1, DATA)), Status::SUCCESS);
    disk.set_blocks(2000);
    assert_eq!(
        rig.run(&mut queue, read(1000, 1, DATA)).code(),
        Status::LBA_OUT_OF_RANGE
    );
    disk.script(|script| script.fail = None);
    let done = rig.namespaces(vec![namespace(1, disk.shared())]);
    wait_for("the ack", || done.is_done().then_some(()));
    let status = rig.run(&mut queue, Sqe::nvm(NvmOpcode::FLUSH, 1));
    assert_eq!(
        (status, disk.script(|script| script.open)),
        (Status::SUCCESS, 1)
    );
    disk.taken();
    rig.run(&mut queue, read(1999, 1, DATA));
    assert_eq!(
        disk.taken().len(),
        1,
        "within the new size it reaches the disk"
    );
    disk.set_blocks(10);
    let done = rig.namespaces(vec![namespace(1, disk.shared())]);
    wait_for("the ack", || done.is_done().then_some(()));
    assert_eq!(
        rig.run(&mut queue, read(10, 1, DATA)).code(),
        Status::LBA_OUT_OF_RANGE
    );
}
