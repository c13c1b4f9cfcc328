//! Interrupts, doorbells, shadow doorbells, counters.

use std::sync::Arc;

use bdev::{Features, Tally};
use nix::sys::eventfd::EventFd;
use nvme_spec::{Cqe, Status};
use pci::InterruptKind;
use reactor::Mode;

use super::disk::TestDisk;
use super::rig::{DATA, Queue, Rig, read, wait_for, write};
use crate::messages::{FromShard, ShadowDoorbells, ShardCounters, ToShard};

const SHADOW: u64 = DATA + 0x40_0000;
const EVENTS: u64 = SHADOW + 0x1000;

fn rig() -> (Rig, Arc<TestDisk>) {
    let disk = TestDisk::new(512, 1000, Features::all());
    let rig = Rig::new(&[disk.shared()]);
    (rig, disk)
}

/// How often the vector was raised since the last call.
fn raised(event: &EventFd) -> u64 {
    event.read().unwrap_or(0)
}

#[test]
fn each_completion_is_followed_by_an_interrupt() {
    let (rig, _disk) = rig();
    let event = rig.event(3);
    rig.cq(1, 32, Some(3));
    let mut queue = rig.sq(1, 1, 32, 32);
    for _ in 0..10 {
        rig.run(&mut queue, read(0, 1, DATA));
        wait_for("an interrupt", || (raised(&event) > 0).then_some(()));
    }
}

#[test]
fn many_completions_of_a_pass_are_one_interrupt() {
    let (rig, disk) = rig();
    let event = rig.event(3);
    rig.cq(1, 128, Some(3));
    let mut queue = rig.sq(1, 1, 128, 128);
    disk.script(|script| script.gated = true);
    for n in 0..100 {
        rig.put(&mut queue, read(n, 1, DATA));
    }
    rig.ring(&queue);
    wait_for("requests in the ring", || {
        (rig.in_flight() >= 100).then_some(())
    });
    disk.release(100);
    for _ in 0..100 {
        rig.completion(&mut queue);
    }
    rig.settle();
    let count = raised(&event);
    assert!((1..=100).contains(&count), "{count}");
    disk.script(|script| script.gated = false);
    // 64 commands in one doorbell: two turns of 32, so two passes, so at most two interrupts (one more if the reactor
    // looked between the doorbell's bytes, which it cannot).
    for n in 0..64 {
        rig.put(&mut queue, read(n, 1, DATA));
    }
    rig.ring(&queue);
    for _ in 0..64 {
        rig.completion(&mut queue);
    }
    rig.settle();
    assert!((1..=2).contains(&raised(&event)));
}

#[test]
fn a_queue_without_interrupts_is_silent() {
    let (rig, _disk) = rig();
    let events: Vec<_> = (0..8).map(|index| rig.event(index)).collect();
    let mut queue = rig.pair(1, 8);
    rig.run(&mut queue, read(0, 1, DATA));
    rig.settle();
    assert!(events.iter().all(|event| raised(event) == 0));
}

#[test]
fn another_vector_can_take_over() {
    let (rig, _disk) = rig();
    let (first, second) = (rig.event(1), rig.event(2));
    rig.cq(1, 8, Some(1));
    let mut queue = rig.sq(1, 1, 8, 8);
    rig.tell(ToShard::Vector {
        qid: 1,
        vector: rig.binding(2),
    });
    rig.run(&mut queue, read(0, 1, DATA));
    wait_for("the new one", || (raised(&second) > 0).then_some(()));
    assert_eq!(raised(&first), 0);
}

#[test]
fn masked_interrupts_come_when_the_mask_goes() {
    let (rig, _disk) = rig();
    let event = rig.event(0);
    rig.cq(1, 8, Some(0));
    let mut queue = rig.sq(1, 1, 8, 8);
    rig.tell(ToShard::InterruptMask(1));
    rig.run(&mut queue, read(0, 1, DATA));
    rig.settle();
    assert_eq!(raised(&event), 0);
    rig.tell(ToShard::InterruptMask(2));
    wait_for("the interrupt", || (raised(&event) > 0).then_some(()));
}

#[test]
fn coalescing_waits_for_the_threshold() {
    let (rig, _disk) = rig();
    let (event, exempt) = (rig.event(1), rig.event(2));
    // So long that only the threshold can end it (6.5 s at most in this feature; the test is done before).
    rig.tell(ToShard::Coalescing {
        threshold: 4,
        time_100us: u16::MAX,
    });
    rig.tell(ToShard::CoalescingDisable {
        vector: 2,
        disabled: true,
    });
    rig.cq(1, 64, Some(1));
    rig.cq(2, 64, Some(2));
    let mut queue = rig.sq(1, 1, 64, 64);
    let mut other = rig.sq(2, 2, 64, 64);
    for _ in 0..3 {
        rig.run(&mut queue, read(0, 1, DATA));
    }
    rig.settle();
    assert_eq!(raised(&event), 0);
    rig.run(&mut queue, read(0, 1, DATA));
    wait_for("the fourth", || (raised(&event) == 1).then_some(()));
    rig.run(&mut other, read(0, 1, DATA));
    wait_for("the exempt one", || (raised(&exempt) == 1).then_some(()));
    // Switched off, what was held back comes at once.
    rig.run(&mut queue, read(0, 1, DATA));
    rig.tell(ToShard::Coalescing {
        threshold: 0,
        time_100us: 0,
    });
    wait_for("the rest", || (raised(&event) == 1).then_some(()));
}

#[test]
fn coalescing_ends_with_its_time() {
    let (rig, _disk) = rig();
    let event = rig.event(1);
    rig.tell(ToShard::Coalescing {
        threshold: 200,
        time_100us: 20,
    });
    rig.cq(1, 8, Some(1));
    let mut queue = rig.sq(1, 1, 8, 8);
    rig.run(&mut queue, read(0, 1, DATA));
    wait_for("the time's end", || (raised(&event) == 1).then_some(()));
}

#[test]
fn a_wrong_doorbell_is_told_once_and_harms_nobody() {
    let (rig, _disk) = rig();
    let mut queue = rig.pair(1, 8);
    let mut other = rig.pair(2, 8);
    let told = |rig: &Rig| {
        rig.answer("the wrong doorbell", |answer| match answer {
            FromShard::InvalidDoorbell { qid } => Some(qid),
            _ => None,
        })
    };
    rig.page.store_u32(8, 8);
    assert_eq!(told(&rig), 1);
    rig.settle();
    assert!(rig.answers().is_empty());
    rig.page.store_u32(8, 500);
    assert_eq!(told(&rig), 1);
    assert_eq!(rig.run(&mut other, read(0, 1, DATA)), Status::SUCCESS);
    assert_eq!(rig.run(&mut queue, read(0, 1, DATA)), Status::SUCCESS);
    // A head that consumes what was never posted.
    rig.page.store_u32(20, 5);
    rig.put(&mut other, read(0, 1, DATA));
    rig.ring(&other);
    assert_eq!(told(&rig), 2);
    let cqe: Cqe = wait_for("a completion", || rig.look(&mut other));
    assert_eq!(cqe.status(), Status::SUCCESS);
}

#[test]
fn queues_of_the_same_number_start_with_clean_doorbells() {
    let (rig, disk) = rig();
    rig.page.store_u32(8, 5);
    rig.page.store_u32(12, 3);
    let mut queue = rig.pair(1, 8);
    rig.settle();
    assert_eq!(disk.taken(), []);
    assert_eq!(rig.run(&mut queue, read(0, 1, DATA)), Status::SUCCESS);
}

#[test]
fn counters_are_told_when_they_change() {
    let (rig, disk) = rig();
    rig.event(1);
    rig.cq(1, 8, Some(1));
    let mut queue = rig.sq(1, 1, 8, 8);
    for _ in 0..5 {
        rig.run(&mut queue, read(0, 8, DATA));
    }
    rig.run(&mut queue, write(0, 2, DATA));
    disk.script(|script| script.fail = Some(bdev::IoStatus::NoSpace));
    rig.run(&mut queue, write(0, 2, DATA));
    let expected = |counters: &ShardCounters| {
        let traffic = &counters.traffic;
        let tally = |commands, bytes| Tally { commands, bytes };
        (1..=7).contains(&counters.interrupts)
            && (traffic.read(), traffic.written()) == (tally(5, 5 * 4096), tally(1, 1024))
            && (traffic.other(), traffic.errors) == (tally(0, 0), 1)
    };
    rig.answer("all counters", |answer| match answer {
        FromShard::Counters { shard: 7, counters } if expected(&counters) => Some(()),
        _ => None,
    });
}

impl Rig {
    fn shadow(&self) {
        let place = ShadowDoorbells {
            doorbells: SHADOW,
            event_indexes: EVENTS,
        };
        self.tell(ToShard::ShadowDoorbells(Some(place)));
        self.settle();
    }

    /// As the Linux driver: the shadow first, then the real doorbell if the controller asks for it. Whether it did.
    fn ring_shadow(&self, queue: &Queue, old: u32) -> bool {
        let at = usize::from(queue.qid) * 8;
        self.ram.store_u32(Self::at(SHADOW) + at, queue.tail);
        std::sync::atomic::fence(std::sync::atomic::Ordering::SeqCst);
        let event = self.ram.load_u32(Self::at(EVENTS) + at) as u16;
        let (new, old) = (queue.tail as u16, old as u16);
        let rings = new.wrapping_sub(event).wrapping_sub(1) < new.wrapping_sub(old);
        if rings {
            self.ring(queue);
            self.reactor.wake();
        }
        rings
    }

    fn run_shadow(&self, queue: &mut Queue) -> bool {
        let old = queue.tail;
        self.put(queue, read(0, 1, DATA));
        let rang = self.ring_shadow(queue, old);
        let cqe = wait_for("a completion", || self.look(queue));
        assert_eq!(cqe.status(), Status::SUCCESS);
        let at = usize::from(queue.qid) * 8 + 4;
        self.ram.store_u32(Self::at(SHADOW) + at, queue.head);
        rang
    }
}

#[test]
fn shadow_doorbells_need_no_ring_while_the_reactor_looks() {
    let (rig, _disk) = rig();
    let mut queue = rig.pair(1, 16);
    // Used a little before the shadow comes: it takes over where the queue is.
    for _ in 0..5 {
        assert_eq!(rig.run(&mut queue, read(0, 1, DATA)), Status::SUCCESS);
    }
    rig.shadow();
    assert_eq!(rig.ram.load_u32(Rig::at(SHADOW) + 8), 5);
    let rings = (0..2000).filter(|_| rig.run_shadow(&mut queue)).count();
    // The reactor asks only after it has been idle for a while, which may happen to a test on a busy machine.
    assert!(rings < 1000, "{rings}");
    // Other queues made now use it from the start.
    rig.ram.store_u32(Rig::at(SHADOW) + 16, 77);
    let mut second = rig.pair(2, 16);
    for _ in 0..40 {
        rig.run_shadow(&mut second);
    }
    // And after they are switched off the page counts again.
    rig.tell(ToShard::ShadowDoorbells(None));
    rig.settle();
    assert_eq!(
        (rig.page.load_u32(8), rig.page.load_u32(12)),
        (queue.tail, queue.head)
    );
    assert_eq!(rig.run(&mut queue, read(0, 1, DATA)), Status::SUCCESS);
}

#[test]
fn a_sleeping_reactor_is_woken_by_the_ring_it_asked_for() {
    let (rig, _disk) = rig();
    let mut queue = rig.pair(1, 16);
    rig.shadow();
    rig.reactor
        .send(|reactor| reactor.set_mode(Mode::Interrupt));
    for _ in 0..5 {
        // Armed: EventIdx is the tail, so the next entry rings.
        wait_for("the request to ring", || {
            (rig.ram.load_u32(Rig::at(EVENTS) + 8) == queue.tail).then_some(())
        });
        assert!(rig.run_shadow(&mut queue));
    }
}

#[test]
fn shadow_doorbells_follow_the_map() {
    let (mut rig, _disk) = rig();
    let mut queue = rig.pair(1, 16);
    rig.shadow();
    rig.run_shadow(&mut queue);
    rig.set_map(guest_memory::DmaMap::empty());
    let old = queue.tail;
    rig.put(&mut queue, read(0, 1, DATA));
    rig.ring_shadow(&queue, old);
    rig.settle();
    let map = rig.whole_map();
    rig.set_map(map);
    wait_for("a completion", || rig.look(&mut queue));
}

#[test]
fn pending_interrupts_reach_a_descriptor_installed_later() {
    let (rig, _disk) = rig();
    rig.cq(1, 8, Some(5));
    let mut queue = rig.sq(1, 1, 8, 8);
    rig.run(&mut queue, read(0, 1, DATA));
    wait_for("the signal", || {
        let vector = rig.interrupts.vector(InterruptKind::Msix, 5).unwrap();
        vector.is_pending().then_some(())
    });
    let event = rig.event(5);
    assert_eq!(raised(&event), 1);
}
