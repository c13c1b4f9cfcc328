use std::sync::Arc;

use guest_memory::{DmaMap, Region, SharedMemory};
use nvme_spec::NvmOpcode;

use super::*;
use crate::messages::ShadowDoorbells;

const SQ: u64 = 0x10_0000;
const CQ: u64 = 0x10_8000;
const SHADOW: u64 = 0x11_0000;
const EVENTS: u64 = 0x11_1000;

struct Rig {
    ram: SharedMemory,
    page: SharedMemory,
    view: MapView,
    doorbells: Doorbells,
}

impl Rig {
    fn new() -> Self {
        let ram = SharedMemory::new(c"ram", 0x2_0000).unwrap();
        let page = SharedMemory::new(c"doorbells", 4096).unwrap();
        let region = Region {
            iova: SQ,
            len: 0x2_0000,
            access: Access::READ | Access::WRITE,
            backing: Some(Arc::clone(ram.mapping())),
        };
        let view = MapView::new(DmaMap::empty().with(region).unwrap());
        let doorbells = Doorbells::new(page.clone());
        Self {
            ram,
            page,
            view,
            doorbells,
        }
    }

    fn put(&self, slot: usize, cid: u16) {
        self.ram
            .write(slot * 64, &Sqe::nvm(NvmOpcode::READ, 1).with_cid(cid));
    }

    fn cqe(&self, slot: usize) -> Cqe {
        self.ram.read((CQ - SQ) as usize + slot * 16).unwrap()
    }

    fn ring_tail(&self, qid: u16, tail: u32) {
        self.page.store_u32(usize::from(qid) * 8, tail);
    }

    fn ring_head(&self, qid: u16, head: u32) {
        self.page.store_u32(usize::from(qid) * 8 + 4, head);
    }

    fn shadow(&mut self) {
        let place = ShadowDoorbells {
            doorbells: SHADOW,
            event_indexes: EVENTS,
        };
        self.doorbells.set_shadow(&self.view, Some(place));
    }

    fn at(&self, iova: u64) -> u32 {
        self.ram.load_u32((iova - SQ) as usize)
    }
}

#[test]
fn entries_come_in_order_and_wrap() {
    let rig = Rig::new();
    let mut sq = SubmissionQueue::new(&rig.view, 3, SQ, 4).unwrap();
    assert_eq!(sq.look(&rig.doorbells), Ok(0));
    assert_eq!(sq.pop(), None);
    let mut slot = 0;
    for cid in 0..11u16 {
        rig.put(slot, cid);
        slot = (slot + 1) % 4;
        rig.ring_tail(3, slot as u32);
        assert_eq!(sq.look(&rig.doorbells), Ok(1));
        assert_eq!(sq.peek(0).map(|sqe| sqe.cid()), Some(cid));
        assert_eq!(sq.pop().map(|sqe| sqe.cid()), Some(cid));
        assert_eq!(usize::from(sq.head()), slot);
    }
}

#[test]
fn a_tail_outside_the_queue_is_reported_once_per_value() {
    let rig = Rig::new();
    let mut sq = SubmissionQueue::new(&rig.view, 1, SQ, 8).unwrap();
    rig.put(0, 7);
    rig.ring_tail(1, 1);
    assert_eq!(sq.look(&rig.doorbells), Ok(1));
    rig.ring_tail(1, 8);
    assert_eq!(
        sq.look(&rig.doorbells),
        Err(InvalidDoorbell { qid: 1, value: 8 })
    );
    // What was submitted before still counts.
    assert_eq!(sq.look(&rig.doorbells), Ok(1));
    assert_eq!(sq.pop().map(|sqe| sqe.cid()), Some(7));
    rig.ring_tail(1, 500);
    assert_eq!(
        sq.look(&rig.doorbells),
        Err(InvalidDoorbell { qid: 1, value: 500 })
    );
    rig.ring_tail(1, 2);
    assert_eq!(sq.look(&rig.doorbells), Ok(1));
    rig.ring_tail(1, 500);
    assert!(sq.look(&rig.doorbells).is_err());
}

#[test]
fn reserved_bits_of_a_doorbell_are_ignored() {
    let rig = Rig::new();
    let mut sq = SubmissionQueue::new(&rig.view, 1, SQ, 8).unwrap();
    rig.ring_tail(1, 0xdead_0002);
    assert_eq!(sq.look(&rig.doorbells), Ok(2));
}

#[test]
fn completions_carry_the_phase_of_their_pass() {
    let rig = Rig::new();
    let mut cq = CompletionQueue::new(&rig.view, 1, CQ, 4).unwrap();
    for n in 0..13u16 {
        assert!(cq.reserve());
        assert!(cq.post(9, n + 100, n, Status::LBA_OUT_OF_RANGE.with_dnr(true), 77));
        let cqe = rig.cqe(usize::from(n) % 4);
        assert_eq!(cqe.phase(), (n / 4) % 2 == 0, "completion {n}");
        assert_eq!(
            (cqe.cid, cqe.sqid, cqe.sqhd, cqe.dw0, cqe.status()),
            (n, 9, n + 100, 77, Status::LBA_OUT_OF_RANGE.with_dnr(true))
        );
        rig.ring_head(1, (u32::from(n) + 1) % 4);
        assert_eq!(cq.look(&rig.doorbells), Ok(()));
        assert!(!cq.is_occupied());
    }
}

#[test]
fn one_place_stays_empty_and_reservations_count() {
    let rig = Rig::new();
    let mut cq = CompletionQueue::new(&rig.view, 1, CQ, 4).unwrap();
    assert!((0..3).all(|_| cq.reserve()));
    assert!(!cq.reserve());
    cq.release();
    assert!(cq.reserve());
    for _ in 0..3 {
        assert!(cq.post(1, 0, 0, Status::SUCCESS, 0));
    }
    assert!(!cq.reserve());
    rig.ring_head(1, 2);
    assert_eq!(cq.look(&rig.doorbells), Ok(()));
    assert_eq!(cq.room(), 2);
}

#[test]
fn a_head_cannot_consume_what_was_not_posted() {
    let rig = Rig::new();
    let mut cq = CompletionQueue::new(&rig.view, 1, CQ, 8).unwrap();
    assert!(cq.reserve() && cq.reserve());
    assert!(cq.post(1, 0, 0, Status::SUCCESS, 0));
    rig.ring_head(1, 2);
    assert_eq!(
        cq.look(&rig.doorbells),
        Err(InvalidDoorbell { qid: 1, value: 2 })
    );
    assert_eq!(cq.look(&rig.doorbells), Ok(()));
    assert_eq!(cq.room(), 5);
    rig.ring_head(1, 9);
    assert!(cq.look(&rig.doorbells).is_err());
    rig.ring_head(1, 1);
    assert_eq!(cq.look(&rig.doorbells), Ok(()));
    assert_eq!(cq.room(), 6);
}

#[test]
fn sizes_and_places_are_checked() {
    let rig = Rig::new();
    let size = |entries| SubmissionQueue::new(&rig.view, 1, SQ, entries).map(drop);
    assert_eq!(size(1), Err(QueueError::Size));
    assert_eq!(size(65_537), Err(QueueError::Size));
    assert_eq!(size(2), Ok(()));
    assert!(matches!(size(65_536), Err(QueueError::Unreachable(_))));
    let nowhere = CompletionQueue::new(&rig.view, 1, 0x5000, 2).map(drop);
    assert!(matches!(nowhere, Err(QueueError::Unreachable(_))));
    assert_eq!(QueueError::Size.status().code(), Status::INVALID_QUEUE_SIZE);
    // An address at the end of the address space must not wrap.
    assert!(SubmissionQueue::new(&rig.view, 1, !0xfff, 256).is_err());
}

#[test]
fn a_ring_that_is_unmapped_parks_its_queue() {
    let rig = Rig::new();
    let mut sq = SubmissionQueue::new(&rig.view, 1, SQ, 8).unwrap();
    let mut cq = CompletionQueue::new(&rig.view, 1, CQ, 8).unwrap();
    rig.put(0, 5);
    rig.ring_tail(1, 1);
    assert_eq!(sq.look(&rig.doorbells), Ok(1));
    assert!(cq.reserve());
    let nothing = MapView::new(DmaMap::empty());
    assert!(!sq.remap(&nothing) && sq.is_parked());
    assert!(!cq.remap(&nothing) && cq.is_parked());
    assert!(rig.view.is_unleased());
    assert_eq!(sq.pop(), None);
    assert!(!cq.post(1, 1, 5, Status::SUCCESS, 0));
    assert!(sq.remap(&rig.view) && cq.remap(&rig.view));
    assert_eq!(sq.pop().map(|sqe| sqe.cid()), Some(5));
    assert!(cq.post(1, 1, 5, Status::SUCCESS, 0));
    assert_eq!(cq.room(), 6);
    assert_eq!(rig.cqe(0).cid, 5);
}

#[test]
fn a_new_queue_starts_with_a_clean_doorbell() {
    let rig = Rig::new();
    rig.ring_tail(2, 5);
    rig.ring_head(2, 3);
    rig.doorbells.clear_tail(2);
    rig.doorbells.clear_head(2);
    assert_eq!(
        (rig.doorbells.tail(2), rig.doorbells.head(2)),
        (Some(0), Some(0))
    );
}

#[test]
fn shadow_doorbells_serve_all_queues_but_the_admin_queue() {
    let mut rig = Rig::new();
    rig.ring_tail(0, 1);
    rig.ring_tail(1, 2);
    rig.shadow();
    rig.doorbells.adopt_tail(1, 2);
    rig.doorbells.adopt_head(1, 0);
    assert_eq!(rig.at(SHADOW + 8), 2);
    assert_eq!(rig.at(EVENTS + 8), 1);
    assert_eq!(rig.at(EVENTS + 12), 0xffff);
    rig.ram.store_u32((SHADOW - SQ) as usize + 8, 3);
    assert_eq!(
        (rig.doorbells.tail(0), rig.doorbells.tail(1)),
        (Some(1), Some(3))
    );
    rig.doorbells.adopt_tail(0, 9);
    assert_eq!(rig.at(SHADOW), 0);
    rig.doorbells.set_shadow(&rig.view, None);
    assert_eq!(rig.doorbells.tail(1), Some(2));
}

/// What a guest computes before it rings (`need_event` of the Linux driver; Base 2.0c, 5.8).
fn guest_rings(event_index: u32, new: u32, old: u32) -> bool {
    let (event, new, old) = (event_index as u16, new as u16, old as u16);
    new.wrapping_sub(event).wrapping_sub(1) < new.wrapping_sub(old)
}

#[test]
fn event_index_decides_who_must_ring() {
    let mut rig = Rig::new();
    rig.shadow();
    for tail in [0u32, 1, 500, 1022, 1023] {
        rig.doorbells.hush(1, tail);
        let event = rig.at(EVENTS + 8);
        let after = (tail + 1) % 1024;
        assert!(!guest_rings(event, after, tail), "hushed at {tail}");
        if after != 0 {
            assert!(
                !guest_rings(event, after + 1, after),
                "hushed, one further than {tail}"
            );
        }
        rig.doorbells.arm(1, tail);
        rig.doorbells.settle();
        let event = rig.at(EVENTS + 8);
        assert!(
            guest_rings(event, (tail + 1) % 1024, tail),
            "armed at {tail}"
        );
        assert!(
            guest_rings(event, (tail + 9) % 1024, tail),
            "armed at {tail}, nine at once"
        );
    }
}

#[test]
fn unmapped_shadow_doorbells_park_the_doorbells() {
    let mut rig = Rig::new();
    rig.shadow();
    let mut sq = SubmissionQueue::new(&rig.view, 1, SQ, 8).unwrap();
    rig.doorbells.remap(&MapView::new(DmaMap::empty()));
    assert!(rig.doorbells.is_parked());
    assert_eq!(rig.doorbells.tail(1), None);
    assert_eq!(sq.look(&rig.doorbells), Ok(0));
    rig.doorbells.remap(&rig.view);
    assert!(!rig.doorbells.is_parked());
    assert_eq!(rig.doorbells.tail(1), Some(0));
}
