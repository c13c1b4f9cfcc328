//! Memory that is not there, comes and goes, or breaks.

use super::*;

#[test]
fn memory_that_is_not_shared_fails_the_controller() {
    let mut guest = Guest::simple();
    guest.unmap_all();
    let region = Region {
        backing: None,
        ..guest.ram_region()
    };
    let map = guest.map.with(region).unwrap();
    guest.set_map(map);
    guest.set_admin_queue(16);
    guest.write32(0x14, Guest::cc().into_bits());
    assert_eq!(guest.csts(), Csts::new().with_cfs(true));
}

#[test]
fn an_admin_queue_that_is_unmapped_waits_until_it_is_back() {
    let mut guest = Guest::simple();
    guest.enable();
    guest.ok(identify(1, 0));
    for _ in 0..3 {
        let cid = guest.submit(identify(1, 0));
        guest.unmap_all();
        (0..5).for_each(|_| guest.poll());
        assert_eq!(guest.reap(), None);
        assert_eq!(guest.csts(), Csts::new().with_rdy(true));
        // Half of it is not enough: the completion queue is missing.
        let half = guest
            .map
            .with(Region {
                len: 0x8000,
                ..guest.ram_region()
            })
            .unwrap();
        guest.set_map(half);
        guest.poll();
        assert_eq!(guest.reap(), None);
        guest.unmap_all();
        guest.map_ram();
        assert_eq!(guest.wait().cid, cid);
    }
}

#[test]
fn a_completion_that_finds_its_ring_unmapped_is_posted_later() {
    let mut guest = Guest::simple();
    guest.enable();
    guest.script.hold.store(true, Ordering::SeqCst);
    let cid = guest.submit(create_cq(1, 64, 0));
    guest.poll_until("CreateCq", |guest| guest.script.has_heard("CreateCq"));
    guest.unmap_all();
    guest.script.hold.store(false, Ordering::SeqCst);
    guest.poll_until("the answer", |guest| {
        guest.on_home(|controller, _| {
            let cqs = &controller.model.cqs;
            cqs.get(&1)
                .is_some_and(|cq| cq.stage == crate::model::Stage::Live)
        })
    });
    guest.map_ram();
    let cqe = guest.wait();
    assert_eq!((cqe.cid, cqe.status()), (cid, Status::SUCCESS));
    guest.poll_until("Map", |guest| guest.script.has_heard("Map("));
}

#[test]
fn truncated_memory_fails_this_controller() {
    let mut guest = Guest::simple();
    guest.enable();
    guest.ok(identify(1, 0));
    nix::unistd::ftruncate(guest.ram.fd(), 0).unwrap();
    // The next look at the ring touches the missing memory.
    guest.page.store_u32(0, 9);
    guest.poll_until("CFS", |guest| guest.csts().cfs());
    guest.write32(0x14, 0);
    assert_eq!(guest.csts(), Csts::new());
    guest.write32(0x14, Guest::cc().into_bits());
    assert!(
        guest.csts().cfs(),
        "it stays unusable while that memory is mapped"
    );
}

#[test]
fn write_only_memory_cannot_hold_the_submission_queue() {
    let mut guest = Guest::simple();
    guest.unmap_all();
    let region = Region {
        access: MemoryAccess::WRITE,
        ..guest.ram_region()
    };
    let map: Arc<DmaMap> = guest.map.with(region).unwrap();
    guest.set_map(map);
    guest.set_admin_queue(16);
    guest.write32(0x14, Guest::cc().into_bits());
    assert!(guest.csts().cfs());
}
