use bdev::Features;
use guest_memory::{Access as MemoryAccess, DmaMap, Region};
use nvme_spec::registers::{Cc, Csts, Shn, Shst};
use nvme_spec::{AdminOpcode, Status};
use pci::{Access, Function, ResetKind};
use reactor::{Ack, Event, Idle};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::messages::FromShard;
use crate::testing::{
    ACQ, ASQ, Guest, RAM, RAM_SIZE, create_cq, create_sq, event_request, get_log, identify,
    namespace,
};
use crate::{ControllerConfig, NamespaceSet};

mod access;
mod chaos;
mod health;
mod interrupts;
mod memory;
mod whole;

/// An MSI-X or INTx descriptor that the VMM installs; reads how often it was signalled.
struct Line(Arc<OwnedFd>);

impl Line {
    fn new() -> Self {
        use nix::sys::eventfd::{EfdFlags, EventFd};
        let event = EventFd::from_flags(EfdFlags::EFD_NONBLOCK).unwrap();
        Self(Arc::new(event.into()))
    }

    fn count(&self) -> u64 {
        let mut count = [0; 8];
        nix::unistd::read(&self.0, &mut count).map_or(0, |_| u64::from_ne_bytes(count))
    }

    fn install(&self, guest: &Guest, kind: pci::InterruptKind, index: u32) {
        let fd = Arc::clone(&self.0);
        guest.on_home(move |controller, _| {
            controller
                .interrupts()
                .install(kind, index, vec![Some(fd)])
                .unwrap();
        });
    }
}

fn devctl(guest: &Guest) -> u64 {
    let mut at = u64::from(guest.read_region(7, 0x34, 1)[0]);
    while guest.read_region(7, at, 1)[0] != 0x10 {
        at = u64::from(guest.read_region(7, at + 1, 1)[0]);
    }
    at + 8
}

fn msix_control(guest: &Guest) -> u64 {
    let mut at = u64::from(guest.read_region(7, 0x34, 1)[0]);
    while guest.read_region(7, at, 1)[0] != 0x11 {
        at = u64::from(guest.read_region(7, at + 1, 1)[0]);
    }
    at + 2
}

fn enable_msix(guest: &Guest) {
    let at = msix_control(guest);
    guest.write_region(7, at, &0x8000u16.to_le_bytes());
}

/// Creates queue pair 1.
fn with_queues() -> Guest {
    let mut guest = Guest::simple();
    enable_msix(&guest);
    guest.enable();
    guest.ok(create_cq(1, 64, 1));
    guest.ok(create_sq(1, 1, 64));
    guest
}

#[test]
fn regions_are_what_clients_expect() {
    let guest = Guest::simple();
    guest.on_home(|controller, _| {
        let regions = controller.regions();
        assert_eq!(regions[0].size, 0x4000);
        let area = regions[0].shared.as_ref().unwrap();
        assert_eq!((area.offset, area.memory.len()), (0x1000, 4096));
        assert_eq!(
            (regions[4].size, regions[5].size, regions[7].size),
            (4096, 4096, 4096)
        );
        assert!(regions[4].shared.is_none() && regions[7].shared.is_none());
        assert_eq!((regions[6].size, regions[8].size), (0, 0));
        assert_eq!(controller.interrupts().count(pci::InterruptKind::Msix), 129);
        assert_eq!(controller.interrupts().count(pci::InterruptKind::Intx), 1);
    });
    assert_eq!(guest.read_region(7, 0, 4), [0x58, 0x4e, 0x01, 0x00]);
    assert_eq!(guest.read_region(7, 9, 3), [0x02, 0x08, 0x01]);
    guest.write_region(4, 0, &[1, 2, 3, 4]);
    assert_eq!(guest.read_region(4, 0, 4), [1, 2, 3, 4]);
    guest.write_region(5, 0, &[0xff; 8]);
    assert_eq!(guest.read_region(5, 0, 8), [0; 8]);
    guest.on_home(|controller, cx| {
        assert!(matches!(
            controller.read(cx, 6, 0, &mut [0; 4]),
            Access::Fault(_)
        ));
        assert!(matches!(
            controller.write(cx, 8, 0, &[0; 4]),
            Access::Fault(_)
        ));
    });
    let hidden = ControllerConfig {
        mappable_bar0: false,
        msix_vectors: 512,
        ..ControllerConfig::default()
    };
    let guest = Guest::new(hidden, vec![]);
    guest.on_home(|controller, _| {
        assert!(controller.regions()[0].shared.is_none());
        assert_eq!(controller.regions()[4].size, 8192);
    });
}

#[test]
fn linux_brings_the_controller_up() {
    let mut guest = Guest::simple();
    let line = Line::new();
    line.install(&guest, pci::InterruptKind::Msix, 0);
    enable_msix(&guest);
    assert_eq!(guest.read32(0x1c), 0);
    guest.enable();
    let id = guest.fetch(identify(1, 0), 4096);
    assert_eq!(&id[0..2], [0x58, 0x4e]);
    assert_eq!(line.count(), 1);
    guest.submit(event_request());
    let queues = guest.ok(crate::testing::set_feature(7, 0x0003_0003));
    assert_eq!(queues, 127 | 127 << 16);
    guest.ok(create_cq(1, 1024, 1));
    guest.ok(create_sq(1, 1, 1024));
    assert_eq!(
        line.count(),
        3,
        "one interrupt per completion when each is waited for"
    );
    let list = guest.fetch(identify(2, 0), 4096);
    assert_eq!(&list[..8], [1, 0, 0, 0, 0, 0, 0, 0]);
    let snapshot = {
        let handle = guest.handle.clone();
        let asker = std::thread::spawn(move || handle.snapshot(Duration::from_secs(20)).unwrap());
        while !asker.is_finished() {
            guest.poll();
        }
        asker.join().unwrap()
    };
    assert!(snapshot.ready && !snapshot.failed);
    assert_eq!(
        snapshot.queues.iter().map(|q| q.qid).collect::<Vec<_>>(),
        [0, 1]
    );
}

#[test]
fn a_disable_waits_for_the_shards_and_forgets_the_queues() {
    let mut guest = with_queues();
    guest.script.hold.store(true, Ordering::SeqCst);
    guest.write32(0x14, 0);
    assert_eq!(guest.read32(0x14), 0);
    guest.poll_until("Stop", |guest| guest.script.has_heard("Stop"));
    guest.poll();
    assert!(guest.csts().rdy(), "commands are in flight");
    guest.script.hold.store(false, Ordering::SeqCst);
    guest.poll_until("RDY clear", |guest| !guest.csts().rdy());
    assert_eq!(guest.read64(0x28), ASQ, "a controller reset keeps ASQ");
    guest.enable();
    guest.ok(create_cq(1, 64, 1));
    guest.ok(create_sq(1, 1, 64));
}

#[test]
fn enable_may_follow_a_disable_at_once() {
    let mut guest = with_queues();
    guest.script.hold.store(true, Ordering::SeqCst);
    guest.write32(0x14, 0);
    guest.set_admin_queue(16);
    guest.write32(0x14, Guest::cc().into_bits());
    assert!(!guest.csts().rdy(), "not yet");
    guest.script.hold.store(false, Ordering::SeqCst);
    guest.poll_until("RDY set", |guest| guest.csts().rdy());
    guest.ok(identify(1, 0));
}

#[test]
fn shutdown_completes_when_drained() {
    for shn in [Shn::NORMAL, Shn::ABRUPT] {
        let guest = with_queues();
        guest.script.hold.store(true, Ordering::SeqCst);
        guest.write32(0x14, Guest::cc().with_shn(shn).into_bits());
        guest.poll();
        assert_eq!(guest.csts().shst(), Shst::OCCURRING);
        guest.script.hold.store(false, Ordering::SeqCst);
        guest.poll_until("shutdown", |guest| guest.csts().shst() == Shst::COMPLETE);
        assert!(guest.csts().rdy());
    }
}

#[test]
fn a_bad_configuration_fails_and_a_disable_repairs() {
    let mut guest = Guest::simple();
    for cc in [
        Guest::cc().with_mps(5),
        Cc::from_bits(Guest::cc().into_bits() | 0b110 << 4),
    ] {
        guest.set_admin_queue(16);
        guest.write32(0x14, cc.into_bits());
        assert_eq!(guest.csts(), Csts::new().with_cfs(true));
        guest.write32(0x14, 0);
        assert_eq!(guest.csts(), Csts::new());
    }
    guest.enable();
    guest.ok(identify(1, 0));
}

#[test]
fn bad_admin_queues_fail_the_controller() {
    let mut guest = Guest::simple();
    let bad: [(u32, u64, u64); 5] = [
        (0x001f_0000, ASQ, ACQ),
        (0x0000_001f, ASQ, ACQ),
        (0x001f_001f, 0, ACQ),
        (0x001f_001f, ASQ, RAM + RAM_SIZE),
        (0x0fff_0fff, ASQ, !0xfff),
    ];
    for (aqa, asq, acq) in bad {
        guest.write32(0x24, aqa);
        guest.write64(0x28, asq);
        guest.write64(0x30, acq);
        guest.write32(0x14, Guest::cc().into_bits());
        assert_eq!(
            guest.csts(),
            Csts::new().with_cfs(true),
            "{aqa:#x} {asq:#x} {acq:#x}"
        );
        guest.write32(0x14, 0);
    }
    // A 64 KiB page size asks for addresses aligned to it.
    guest.set_admin_queue(16);
    guest.write64(0x28, ASQ + 0x1000);
    guest.write32(0x14, Guest::cc().with_mps(4).into_bits());
    assert!(guest.csts().cfs());
    guest.write32(0x14, 0);
    guest.enable();
}

#[test]
fn function_level_reset_takes_everything_back() {
    let mut guest = with_queues();
    let at = devctl(&guest);
    guest.write_region(7, 4, &0x0406u16.to_le_bytes());
    guest.write_region(7, at, &0x8000u16.to_le_bytes());
    assert_eq!(
        (guest.read32(0x14), guest.read64(0x28), guest.read64(0x30)),
        (0, 0, 0)
    );
    assert_eq!(guest.read_region(7, 4, 2), [0, 0]);
    guest.poll_until("RDY clear", |guest| !guest.csts().rdy());
    assert_eq!(guest.csts(), Csts::new());
    guest.enable();
    guest.ok(identify(1, 0));
}

#[test]
fn a_subsystem_reset_is_remembered_until_acknowledged() {
    let mut guest = with_queues();
    guest.write32(0x20, 0x4e56_4d65);
    guest.poll_until("RDY clear", |guest| !guest.csts().rdy());
    assert_eq!(guest.csts(), Csts::new().with_nssro(true));
    guest.enable();
    assert!(guest.csts().nssro());
    guest.write32(0x1c, Csts::new().with_nssro(true).into_bits());
    assert_eq!(guest.csts(), Csts::new().with_rdy(true));
}

#[test]
fn a_device_reset_answers_when_drained() {
    let guest = with_queues();
    guest.script.hold.store(true, Ordering::SeqCst);
    let reset = |guest: &Guest| guest.on_home(|c, cx| c.reset(cx, ResetKind::Device));
    let deferred = |guest: &Guest| guest.on_home(|c, _| c.deferred());
    assert_eq!(reset(&guest), Access::Defer);
    guest.poll();
    assert_eq!(deferred(&guest), None);
    guest.script.hold.store(false, Ordering::SeqCst);
    guest.poll_until("the reset's end", |guest| !guest.csts().rdy());
    assert_eq!(deferred(&guest), Some(Access::Done));
    assert_eq!(deferred(&guest), None, "taken once");
    assert_eq!(reset(&guest), Access::Done, "nothing to wait for");
    assert_eq!(deferred(&guest), None);
}

#[test]
fn a_client_that_leaves_leaves_nothing() {
    let guest = with_queues();
    let line = Line::new();
    line.install(&guest, pci::InterruptKind::Msix, 0);
    guest.script.hold.store(true, Ordering::SeqCst);
    let gone = |guest: &Guest| guest.on_home(|c, cx| c.reset(cx, ResetKind::ClientGone));
    let quiescent = |guest: &Guest| guest.on_home(|c, _| c.is_quiescent());
    assert_eq!(
        guest.on_home(|c, cx| c.reset(cx, ResetKind::Device)),
        Access::Defer
    );
    assert_eq!(gone(&guest), Access::Defer);
    assert_eq!(
        guest.on_home(|c, cx| c.reset(cx, ResetKind::Removed)),
        Access::Defer
    );
    guest.poll();
    assert!(!quiescent(&guest));
    guest.write32(0x14, Guest::cc().into_bits());
    guest.script.hold.store(false, Ordering::SeqCst);
    guest.poll_until("quiescence", quiescent);
    assert_eq!(
        Arc::strong_count(&line.0),
        1,
        "no descriptor of the client is held"
    );
    let epoch = guest.on_home(|c, _| c.view.map().len());
    assert_eq!(epoch, 0);
    assert_eq!(guest.on_home(|c, _| c.deferred()), Some(Access::Done));
    assert_eq!(gone(&guest), Access::Done);
}

#[test]
fn a_shard_that_dies_fails_the_controller_and_owes_nothing() {
    let mut guest = Guest::simple();
    guest.enable();
    guest.ok(create_cq(1, 64, 0));
    guest.script.die.store(true, Ordering::SeqCst);
    guest.submit(create_sq(1, 1, 64));
    guest.poll_until("CFS", |guest| guest.csts().cfs());
    guest.script.die.store(false, Ordering::SeqCst);
    guest.write32(0x14, 0);
    guest.poll_until("RDY clear", |guest| !guest.csts().rdy());
    guest.enable();
    guest.ok(create_cq(1, 64, 0));
    guest.ok(create_sq(1, 1, 64));
}

#[test]
fn a_fatal_shard_fails_the_controller() {
    let guest = with_queues();
    let fatal = FromShard::Fatal {
        cause: "for the test",
    };
    guest.script.say.lock().unwrap().push(fatal);
    guest.poll_until("CFS", |guest| guest.csts().cfs());
}

#[test]
fn trapped_doorbells_reach_the_page_and_others_are_reported() {
    let mut guest = with_queues();
    guest.write32(0x1000 + 8, 3);
    assert_eq!(guest.page.load_u32(8), 3);
    guest.write_region(0, 0x1008, &[5, 0, 0, 0, 6, 0, 0, 0]);
    assert_eq!((guest.page.load_u32(8), guest.page.load_u32(12)), (5, 6));
    assert_eq!(guest.read32(0x1008), 5);
    guest.submit(event_request());
    guest.write32(0x1000 + 16, 3);
    assert_eq!(guest.page.load_u32(16), 0, "no such queue");
    let cqe = guest.wait();
    assert_eq!(cqe.dw0, 0x0001_0000, "Write to Invalid Doorbell Register");
    let log = guest.fetch(get_log(1, 64), 64);
    assert_eq!(
        (&log[8..10], &log[10..12]),
        (&[0xff, 0xff][..], &[0xff, 0xff][..]),
        "of no command"
    );
    guest.write_region(0, 0x1008, &[7, 7]);
    guest.write_region(0, 0x2000, &[7; 8]);
    assert_eq!(guest.read_region(0, 0x2000, 8), [0; 8]);
    assert_eq!(guest.page.load_u32(8), 5);
}

#[test]
fn an_invalid_admin_doorbell_is_an_event_and_not_the_end() {
    let mut guest = Guest::simple();
    guest.enable();
    guest.submit(event_request());
    guest.poll();
    guest.page.store_u32(0, 32);
    let cqe = guest.wait();
    assert_eq!(cqe.dw0, 0x0001_0100, "Invalid Doorbell Write Value");
    guest.ok(identify(1, 0));
}

#[test]
fn namespace_changes_reach_shards_host_and_operator() {
    let mut guest = with_queues();
    guest.submit(event_request());
    guest.ok(crate::testing::set_feature(0x0b, 1 << 8));
    let set = NamespaceSet::new(vec![
        namespace(1, 4096, Features::WRITE),
        namespace(3, 100, Features::WRITE),
    ]);
    let (ack, done) = Ack::channel();
    guest.handle.set_namespaces(set, ack);
    let cqe = guest.wait();
    assert_eq!(cqe.dw0, 0x0004_0002);
    assert!(
        guest.script.has_heard("Namespaces("),
        "the queues knew it before the host"
    );
    guest.poll_until("Namespaces", |guest| guest.script.has_heard("Namespaces("));
    assert!(done.wait(Duration::from_secs(20)), "released by everybody");
    let log = guest.fetch(get_log(4, 4096), 4096);
    assert_eq!(&log[..12], [1, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0]);
    let log = guest.fetch(get_log(4, 4096), 4096);
    assert_eq!(&log[..4], [0; 4], "read means cleared");
    let id = guest.fetch(identify(0, 1), 4096);
    assert_eq!(u64::from_le_bytes(id[..8].try_into().unwrap()), 4096);
    // The same set again is no change.
    guest.submit(event_request());
    let set = guest.on_home(|c, _| Arc::clone(&c.namespaces));
    let (ack, done) = Ack::channel();
    guest.handle.set_namespaces(set, ack);
    assert!({
        guest.poll();
        done.wait(Duration::from_secs(20))
    });
    guest.poll();
    assert_eq!(guest.reap(), None);
}

#[test]
fn a_controller_without_shards_releases_the_ack_at_once() {
    let guest = Guest::simple();
    let (ack, done) = Ack::channel();
    guest.handle.set_namespaces(NamespaceSet::new(vec![]), ack);
    guest.poll();
    assert!(done.is_done());
}

#[test]
fn a_cache_that_comes_after_the_host_was_told_of_none_is_written_through() {
    let mut guest = with_queues();
    let id = guest.fetch(identify(1, 0), 4096);
    assert_eq!(id[525] & 1, 0);
    let cached = namespace(2, 100, Features::WRITE | Features::WRITE_CACHE);
    let (ack, done) = Ack::channel();
    guest
        .handle
        .set_namespaces(NamespaceSet::new(vec![cached]), ack);
    guest.poll();
    assert!(done.wait(Duration::from_secs(20)));
    assert!(guest.script.has_heard("WriteCache { enabled: false }"));
    let id = guest.fetch(identify(1, 0), 4096);
    assert_eq!(id[525] & 1, 0, "what a tool hears is what the driver heard");
    guest.write32(0x14, 0);
    guest.poll_until("RDY clear", |guest| !guest.csts().rdy());
    guest.script.heard.lock().unwrap().clear();
    guest.enable();
    let id = guest.fetch(identify(1, 0), 4096);
    assert_eq!(id[525], 0b111, "present, and flush for all namespaces");
    guest.ok(create_cq(1, 64, 0));
    assert!(guest.script.has_heard("WriteCache { enabled: true }"));
}

#[test]
fn a_keep_alive_that_does_not_come_fails_the_controller() {
    let mut guest = Guest::simple();
    guest.enable();
    let expire = |guest: &Guest| {
        guest.on_home(|c, cx| {
            c.event(
                cx,
                Event::Timer {
                    tag: super::KEEP_ALIVE_TIMER,
                },
            )
        });
    };
    expire(&guest);
    assert!(!guest.csts().cfs(), "no timer is set");
    guest.ok(crate::testing::set_feature(0x0f, 60_000));
    guest.ok(nvme_spec::Sqe::admin(AdminOpcode::KEEP_ALIVE, 0));
    assert!(guest.on_home(|c, _| c.keep_alive.is_some()));
    expire(&guest);
    assert!(guest.csts().cfs());
    guest.write32(0x14, 0);
    assert!(guest.on_home(|c, _| c.keep_alive.is_none()));
}

#[test]
fn idle_is_bounded_only_where_doorbells_are_memory() {
    let mut guest = Guest::simple();
    let idle = |guest: &Guest| guest.on_home(|c, _| c.idle());
    assert_eq!(idle(&guest), Idle::UntilEvent);
    guest.enable();
    assert_eq!(idle(&guest), Idle::Bounded);
    let hidden = ControllerConfig {
        mappable_bar0: false,
        ..ControllerConfig::default()
    };
    let mut guest = Guest::new(hidden, vec![]);
    guest.enable();
    assert_eq!(idle(&guest), Idle::UntilEvent);
}
