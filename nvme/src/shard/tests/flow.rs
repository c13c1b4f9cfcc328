//! Order, fairness and back-pressure.

use bdev::Features;
use nvme_spec::command::DsmRange;
use nvme_spec::{NvmOpcode, Sqe, Status};

use super::disk::TestDisk;
use super::rig::{DATA, Rig, read, wait_for, write};

const ALL: Features = Features::all();

#[test]
fn the_smallest_queue_goes_around_many_times() {
    let disk = TestDisk::new(512, 1000, ALL);
    let rig = Rig::new(&[disk.shared()]);
    let mut queue = rig.pair(3, 2);
    for n in 0..500u64 {
        assert_eq!(rig.run(&mut queue, write(n, 1, DATA)), Status::SUCCESS);
    }
    assert_eq!(disk.taken().len(), 500);
}

#[test]
fn a_full_ring_of_commands_is_taken_in_order_and_announced() {
    let disk = TestDisk::new(512, 1000, ALL);
    let rig = Rig::new(&[disk.shared()]);
    let mut queue = rig.pair(1, 256);
    for n in 0..255 {
        rig.put(&mut queue, read(n, 1, DATA));
    }
    rig.ring(&queue);
    for n in 0..255 {
        let cqe = rig.completion(&mut queue);
        assert_eq!((cqe.cid, cqe.status()), (n, Status::SUCCESS));
    }
    let order: Vec<u64> = disk.taken().iter().map(|(_, lba, ..)| *lba).collect();
    assert_eq!(order, (0..255).collect::<Vec<_>>());
    // Each but the first of a pass was announced to the disk before the one in front was submitted.
    let announced = disk.script(|script| script.announced.clone());
    assert!(
        announced.len() >= 255 - 2 * 255usize.div_ceil(32),
        "{}",
        announced.len()
    );
}

#[test]
fn the_completion_queue_never_overflows() {
    let disk = TestDisk::new(512, 1000, ALL);
    let rig = Rig::new(&[disk.shared()]);
    rig.cq(1, 4, None);
    let mut queue = rig.sq(1, 1, 64, 4);
    for n in 0..63 {
        rig.put(&mut queue, read(n, 1, DATA));
    }
    rig.ring(&queue);
    let mut expected = 0;
    while expected < 63 {
        // Three places; the guest acknowledges none of them for a while.
        for _ in 0..3 {
            let cqe = wait_for("a completion", || rig.look(&mut queue));
            assert_eq!(cqe.cid, expected);
            expected += 1;
        }
        rig.settle();
        assert!(rig.look(&mut queue).is_none());
        let taken = disk.script(|script| script.log.len());
        assert_eq!(
            taken,
            usize::from(expected),
            "nothing is taken without a place"
        );
        rig.ack(&queue);
    }
}

#[test]
fn in_flight_commands_hold_their_places() {
    let disk = TestDisk::new(512, 1000, ALL);
    disk.script(|script| script.gated = true);
    let rig = Rig::new(&[disk.shared()]);
    rig.cq(1, 8, None);
    let mut queue = rig.sq(1, 1, 32, 8);
    for n in 0..30 {
        rig.put(&mut queue, read(n, 1, DATA));
    }
    rig.ring(&queue);
    wait_for("seven in the ring", || {
        (disk.script(|script| script.log.len()) == 7).then_some(())
    });
    rig.settle();
    assert_eq!(disk.script(|script| script.log.len()), 7);
    disk.release(30);
    for _ in 0..30 {
        assert_eq!(rig.completion(&mut queue).status(), Status::SUCCESS);
    }
}

#[test]
fn submission_queues_share_a_completion_queue_fairly() {
    let disk = TestDisk::new(512, 1000, ALL);
    let rig = Rig::new(&[disk.shared()]);
    rig.cq(1, 8, None);
    let mut queues: Vec<_> = (1..5).map(|qid| rig.sq(qid, 1, 64, 8)).collect();
    for queue in &mut queues {
        for n in 0..63 {
            rig.put(queue, read(n, 1, DATA));
        }
        rig.ring(queue);
    }
    let reader = &mut queues[0];
    let mut counts = [0u32; 5];
    for taken in 1..=4 * 63 {
        let cqe = rig.completion(reader);
        counts[usize::from(cqe.sqid)] += 1;
        assert_eq!(cqe.status(), Status::SUCCESS);
        if taken == 4 * 32 {
            // Half of all has ended: none can have been left behind.
            assert!(counts[1..].iter().all(|count| *count > 0), "{counts:?}");
        }
    }
    assert_eq!(counts, [0, 63, 63, 63, 63]);
}

#[test]
fn a_disk_without_room_loses_nothing_and_keeps_the_order() {
    let disk = TestDisk::new(512, 1000, ALL);
    let rig = Rig::new(&[disk.shared()]);
    let mut queue = rig.pair(1, 64);
    for round in 0..20 {
        disk.script(|script| script.full = round);
        for n in 0..60 {
            rig.put(&mut queue, write(n, 1, DATA));
        }
        rig.ring(&queue);
        for _ in 0..60 {
            assert_eq!(rig.completion(&mut queue).status(), Status::SUCCESS);
        }
        let order: Vec<u64> = disk.taken().iter().map(|(_, lba, ..)| *lba).collect();
        assert_eq!(order, (0..60).collect::<Vec<_>>());
        assert_eq!(disk.script(|script| script.full), 0);
    }
}

#[test]
fn parts_and_stalls_come_to_an_end() {
    let disk = TestDisk::new(512, 1000, ALL);
    disk.script(|script| (script.gated, script.short, script.stall) = (true, 5, 7));
    let rig = Rig::new(&[disk.shared()]);
    let mut queue = rig.pair(1, 64);
    for n in 0..20 {
        rig.put(&mut queue, write(n, 1, DATA));
    }
    rig.ring(&queue);
    disk.release(20 + 5 + 7);
    for _ in 0..20 {
        assert_eq!(rig.completion(&mut queue).status(), Status::SUCCESS);
    }
}

#[test]
fn several_steps_go_on_after_finding_no_room() {
    let disk = TestDisk::new(512, 1000, ALL);
    let rig = Rig::new(&[disk.shared()]);
    let mut queue = rig.pair(1, 8);
    for n in 0..100 {
        assert!(
            rig.ram
                .write(Rig::at(DATA) + n * 16, &DsmRange::new(n as u64 * 2, 1))
        );
    }
    let mut command = Sqe::nvm(NvmOpcode::DATASET_MANAGEMENT, 1).with_prps(DATA, 0);
    (command.cdw10, command.cdw11) = (99, 4);
    for gated in [false, true] {
        disk.script(|script| script.gated = gated);
        rig.send(&mut queue, command);
        for _ in 0..10 {
            disk.script(|script| script.full += 3);
            if gated {
                disk.release(10);
            }
        }
        assert_eq!(rig.completion(&mut queue).status(), Status::SUCCESS);
        assert_eq!(disk.taken().len(), 100);
        disk.script(|script| script.full = 0);
    }
}

#[test]
fn many_queues_on_one_shard() {
    let disk = TestDisk::new(512, 1000, ALL);
    let rig = Rig::new(&[disk.shared()]);
    let mut queues: Vec<_> = (1..17).map(|qid| rig.pair(qid, 16)).collect();
    for round in 0..50 {
        for queue in &mut queues {
            for n in 0..=round % 15 {
                rig.put(queue, read(n, 1, DATA));
            }
            rig.ring(queue);
        }
        for queue in &mut queues {
            for _ in 0..=round % 15 {
                assert_eq!(rig.completion(queue).status(), Status::SUCCESS);
            }
        }
    }
}
