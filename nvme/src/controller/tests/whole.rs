//! The controller with real shards and a RAM disk: what the two halves of the crate make together.

use bdev::malloc::{MallocOptions, create};
use nvme_spec::{Cqe, Sqe};
use zerocopy::IntoBytes;

use super::*;
use crate::namespace::Namespace;
use crate::shards::make_shard;
use crate::testing::{BUFFER, RINGS, Script, delete_queue};

const DEPTH: u32 = 64;

pub(super) fn ram_disk(nsid: u32, num_blocks: u64) -> Namespace {
    let bdev = create(MallocOptions {
        name: format!("ram{nsid}"),
        block_size: 512,
        num_blocks,
        physical_block_size: None,
        uuid: None,
    })
    .unwrap();
    let info = bdev.info();
    Namespace {
        nsid,
        uuid: info.uuid,
        bdev,
        info,
        nguid: None,
        eui64: None,
        access: crate::Access::default(),
    }
}

pub(super) fn whole(namespaces: Vec<Namespace>) -> Guest {
    whole_on(namespaces, vec![])
}

pub(super) fn whole_on(namespaces: Vec<Namespace>, reactors: Vec<reactor::ReactorHandle>) -> Guest {
    whole_with(ControllerConfig::default(), namespaces, reactors)
}

pub(super) fn whole_with(
    config: ControllerConfig,
    namespaces: Vec<Namespace>,
    reactors: Vec<reactor::ReactorHandle>,
) -> Guest {
    let script = Arc::new(Script::default());
    let factory = Arc::new(make_shard);
    let mut guest = Guest::with_factory(config, namespaces, script, factory, reactors);
    enable_msix(&guest);
    guest.enable();
    guest
}

/// An I/O queue pair as a driver keeps it.
pub(super) struct Pair {
    qid: u16,
    cqid: u16,
    tail: u32,
    head: u32,
    phase: bool,
    next_cid: u16,
    /// Rings by writing the register.
    trapped: bool,
    /// Rings by storing here.
    shadow: Option<u64>,
}

impl Pair {
    pub(super) fn new(guest: &mut Guest, qid: u16) -> Self {
        guest.put(RINGS + u64::from(qid) * 0x1_0000, &[0; DEPTH as usize * 16]);
        guest.ok(create_cq(qid, DEPTH, qid));
        guest.ok(create_sq(qid, qid, DEPTH));
        Self {
            qid,
            cqid: qid,
            tail: 0,
            head: 0,
            phase: true,
            next_cid: 1,
            trapped: false,
            shadow: None,
        }
    }

    fn ring(&self, guest: &Guest, offset: u64, value: u32) {
        if let Some(shadow) = self.shadow {
            guest.put(shadow + offset, &value.to_le_bytes());
        } else if self.trapped {
            guest.write32(0x1000 + offset, value);
        } else {
            guest
                .page
                .store_u32(usize::try_from(offset).unwrap(), value);
        }
        guest.home.wake();
    }

    pub(super) fn submit(&mut self, guest: &Guest, sqe: Sqe) -> u16 {
        let cid = self.next_cid;
        self.next_cid += 1;
        let base = RINGS + u64::from(self.qid) * 0x1_0000 + 0x8000;
        guest.put(
            base + u64::from(self.tail) * 64,
            sqe.with_cid(cid).as_bytes(),
        );
        self.tail = (self.tail + 1) % DEPTH;
        self.ring(guest, u64::from(self.qid) * 8, self.tail);
        cid
    }

    pub(super) fn reap(&mut self, guest: &Guest) -> Option<Cqe> {
        let base = RINGS + u64::from(self.cqid) * 0x1_0000 - RAM;
        let at = usize::try_from(base).unwrap() + self.head as usize * 16;
        let cqe: Cqe = guest.ram.read(at).unwrap();
        if cqe.phase() != self.phase {
            return None;
        }
        self.head = (self.head + 1) % DEPTH;
        self.phase ^= self.head == 0;
        self.ring(guest, u64::from(self.cqid) * 8 + 4, self.head);
        Some(cqe)
    }

    pub(super) fn run(&mut self, guest: &Guest, sqe: Sqe) -> Status {
        let cid = self.submit(guest, sqe);
        let mut cqe = None;
        guest.poll_until("a completion", |guest| {
            cqe = self.reap(guest);
            cqe.is_some()
        });
        let cqe = cqe.unwrap();
        assert_eq!((cqe.cid, cqe.sqid), (cid, self.qid));
        cqe.status().code()
    }
}

pub(super) fn transfer(opcode: u8, nsid: u32, slba: u64, blocks: u32, buffer: u64) -> Sqe {
    let mut sqe = Sqe::new(opcode, nsid)
        .with_slba(slba)
        .with_prps(buffer, buffer + 4096);
    sqe.cdw12 = blocks - 1;
    sqe
}

/// What the operator sees: asked from another thread, while the controller's own goes on.
pub(super) fn snapshot(guest: &Guest) -> crate::ControllerSnapshot {
    let handle = guest.handle.clone();
    let asked = std::thread::spawn(move || handle.snapshot(Duration::from_secs(20)));
    guest.poll_until("the snapshot", |_| asked.is_finished());
    asked.join().unwrap().unwrap()
}

pub(super) const WRITE: u8 = 1;
pub(super) const READ: u8 = 2;

fn pattern(seed: u64, len: usize) -> Vec<u8> {
    (0..len as u64)
        .map(|at| (at.wrapping_mul(seed | 1) >> 3) as u8)
        .collect()
}

#[test]
fn data_written_on_one_queue_is_read_on_another() {
    let mut guest = whole(vec![ram_disk(1, 4096)]);
    let mut pairs: Vec<Pair> = (1..=4).map(|qid| Pair::new(&mut guest, qid)).collect();
    for round in 0..200u64 {
        let data = pattern(round * 977, 4096);
        let slba = round * 13 % 4000;
        let (writer, reader) = ((round % 4) as usize, (round * 7 % 4) as usize);
        guest.put(BUFFER, &data);
        let write = transfer(WRITE, 1, slba, 8, BUFFER);
        assert_eq!(pairs[writer].run(&guest, write), Status::SUCCESS);
        let read = transfer(READ, 1, slba, 8, BUFFER + 0x2000);
        assert_eq!(pairs[reader].run(&guest, read), Status::SUCCESS);
        assert_eq!(guest.get(BUFFER + 0x2000, 4096), data, "round {round}");
    }
    let beyond = transfer(READ, 1, 4090, 8, BUFFER);
    assert_eq!(pairs[0].run(&guest, beyond), Status::LBA_OUT_OF_RANGE);
    let status = pairs[0].run(&guest, transfer(READ, 2, 0, 8, BUFFER));
    assert_eq!(status, Status::INVALID_NAMESPACE_OR_FORMAT);
    let health = guest.fetch(get_log(2, 512), 512);
    assert_eq!(
        (health[64], health[80]),
        (200, 200),
        "host reads and writes"
    );
    let errors = guest.fetch(get_log(1, 64), 64);
    assert_eq!(
        (errors[8], errors[24]),
        (1, 2),
        "the newest error: queue 1, namespace 2"
    );
}

#[test]
fn each_queue_and_namespace_has_its_counters() {
    let (second, thread) = reactor::spawn(reactor::Config::default()).unwrap();
    let disks = vec![ram_disk(1, 4096), ram_disk(7, 4096)];
    // Queues are spread: counters come from two reactors.
    let mut guest = whole_on(disks, vec![second.clone()]);
    let mut pairs: Vec<Pair> = (1..=3).map(|qid| Pair::new(&mut guest, qid)).collect();
    let run = |guest: &Guest, pair: &mut Pair, opcode, nsid, slba| {
        pair.run(guest, transfer(opcode, nsid, slba, 8, BUFFER))
    };
    for round in 0..5 {
        run(&guest, &mut pairs[0], WRITE, 1, round);
        run(&guest, &mut pairs[1], READ, 7, round);
        run(&guest, &mut pairs[1], WRITE, 7, round);
    }
    let status = run(&guest, &mut pairs[2], READ, 1, 4095);
    assert_eq!(status, Status::LBA_OUT_OF_RANGE);
    assert_eq!(pairs[2].run(&guest, Sqe::new(0, 1)), Status::SUCCESS);
    let snapshot = snapshot(&guest);
    let counts = |traffic: &bdev::Traffic| {
        let (read, written) = (traffic.read(), traffic.written());
        let commands = (read.commands, written.commands, traffic.other().commands);
        (commands, read.bytes, written.bytes, traffic.errors)
    };
    let queues: Vec<_> = snapshot
        .queues
        .iter()
        .map(|it| counts(&it.traffic))
        .collect();
    assert_eq!(queues[0].0, (0, 0, 6), "the admin queue: three pairs made");
    assert_eq!(queues[1], ((0, 5, 0), 0, 5 * 4096, 0));
    assert_eq!(queues[2], ((5, 5, 0), 5 * 4096, 5 * 4096, 0));
    assert_eq!(queues[3], ((0, 0, 1), 0, 0, 1));
    assert!(snapshot.queues.iter().all(|queue| queue.in_flight == 0));
    let namespaces = snapshot.namespaces.iter();
    let namespaces: Vec<_> = namespaces
        .map(|it| (it.nsid, it.bdev.as_str(), counts(&it.traffic)))
        .collect();
    let first = (1, "ram1", ((0, 5, 1), 0, 5 * 4096, 1));
    let other = (7, "ram7", ((5, 5, 0), 5 * 4096, 5 * 4096, 0));
    assert_eq!(namespaces, [first, other]);
    // A deleted queue takes nothing from the controller's health page.
    guest.ok(delete_queue(AdminOpcode::DELETE_IO_SQ, 2));
    guest.ok(delete_queue(AdminOpcode::DELETE_IO_CQ, 2));
    let health = guest.fetch(get_log(2, 512), 512);
    assert_eq!((health[64], health[80]), (5, 10));
    drop(guest);
    second.stop();
    thread.join().unwrap();
}

#[test]
fn queues_are_deleted_and_made_again_while_others_work() {
    let mut guest = whole(vec![ram_disk(1, 4096)]);
    let mut stays = Pair::new(&mut guest, 1);
    for _ in 0..5 {
        let mut goes = Pair::new(&mut guest, 2);
        assert_eq!(
            goes.run(&guest, transfer(READ, 1, 0, 8, BUFFER)),
            Status::SUCCESS
        );
        let cid = stays.submit(&guest, transfer(READ, 1, 0, 8, BUFFER));
        guest.ok(delete_queue(AdminOpcode::DELETE_IO_SQ, 2));
        guest.ok(delete_queue(AdminOpcode::DELETE_IO_CQ, 2));
        guest.poll_until("the other queue", |guest| {
            stays.reap(guest).is_some_and(|cqe| cqe.cid == cid)
        });
    }
}

#[test]
fn every_reset_leads_back_to_working_queues() {
    let mut guest = whole(vec![ram_disk(1, 4096)]);
    for round in 0..6 {
        let mut pair = Pair::new(&mut guest, 1);
        assert_eq!(
            pair.run(&guest, transfer(READ, 1, 0, 8, BUFFER)),
            Status::SUCCESS
        );
        (0..20).for_each(|at| {
            pair.submit(&guest, transfer(WRITE, 1, at * 8, 8, BUFFER));
        });
        match round % 3 {
            0 => guest.write32(0x14, 0),
            1 => {
                let at = devctl(&guest);
                guest.write_region(7, at, &0x8000u16.to_le_bytes());
            }
            _ => {
                let reset = guest.on_home(|c, cx| c.reset(cx, ResetKind::Device));
                assert_ne!(reset, Access::Fault(nix::errno::Errno::EINVAL));
            }
        }
        guest.poll_until("RDY clear", |guest| !guest.csts().rdy());
        // Nothing is written to the guest's memory from here on.
        guest.put(RINGS + 0x1_0000, &[0; DEPTH as usize * 16]);
        (0..3).for_each(|_| guest.poll());
        assert_eq!(guest.get(RINGS + 0x1_0000, 1024), [0; 1024]);
        enable_msix(&guest);
        guest.enable();
    }
}

#[test]
fn a_removed_namespace_is_gone_for_the_next_command() {
    let mut guest = whole(vec![ram_disk(1, 4096), ram_disk(2, 4096)]);
    let mut pair = Pair::new(&mut guest, 1);
    assert_eq!(
        pair.run(&guest, transfer(READ, 2, 0, 8, BUFFER)),
        Status::SUCCESS
    );
    let first = guest.on_home(|c, _| c.namespaces.get(1).unwrap().clone());
    let (ack, done) = Ack::channel();
    guest
        .handle
        .set_namespaces(NamespaceSet::new(vec![first]), ack);
    guest.poll();
    assert!(done.wait(Duration::from_secs(20)), "its channel is closed");
    let status = pair.run(&guest, transfer(READ, 2, 0, 8, BUFFER));
    assert_eq!(status, Status::INVALID_NAMESPACE_OR_FORMAT);
    assert_eq!(
        pair.run(&guest, transfer(READ, 1, 0, 8, BUFFER)),
        Status::SUCCESS
    );
}

#[test]
fn queues_follow_the_map() {
    let mut guest = whole(vec![ram_disk(1, 4096)]);
    let mut pair = Pair::new(&mut guest, 1);
    for _ in 0..5 {
        guest.unmap_all();
        let cid = pair.submit(&guest, transfer(READ, 1, 0, 8, BUFFER));
        (0..3).for_each(|_| guest.poll());
        assert_eq!(pair.reap(&guest), None);
        guest.map_ram();
        guest.poll_until("the parked command", |guest| {
            pair.reap(guest).is_some_and(|cqe| cqe.cid == cid)
        });
    }
    assert!(guest.csts().rdy() && !guest.csts().cfs());
}

#[test]
fn a_client_that_leaves_in_the_middle_is_forgotten() {
    let mut guest = whole(vec![ram_disk(1, 4096)]);
    let mut pair = Pair::new(&mut guest, 1);
    (0..40).for_each(|at| {
        pair.submit(&guest, transfer(WRITE, 1, at * 8, 8, BUFFER));
    });
    let weak = Arc::downgrade(&guest.map);
    guest.map = DmaMap::empty();
    guest.on_home(|c, cx| c.reset(cx, ResetKind::ClientGone));
    guest.poll_until("quiescence", |guest| guest.on_home(|c, _| c.is_quiescent()));
    assert!(weak.upgrade().is_none(), "nobody holds the client's map");
}

#[test]
fn trapped_doorbells_and_shadow_doorbells_drive_queues() {
    let config = ControllerConfig {
        mappable_bar0: false,
        ..ControllerConfig::default()
    };
    let script = Arc::new(Script::default());
    let disks = vec![ram_disk(1, 4096)];
    let mut guest = Guest::with_factory(config, disks, script, Arc::new(make_shard), vec![]);
    enable_msix(&guest);
    guest.enable();
    let mut pair = Pair::new(&mut guest, 1);
    pair.trapped = true;
    for _ in 0..3 {
        assert_eq!(
            pair.run(&guest, transfer(READ, 1, 0, 8, BUFFER)),
            Status::SUCCESS
        );
    }
    let (shadow, indexes) = (BUFFER + 0x4000, BUFFER + 0x5000);
    guest.put(shadow, &[0; 0x2000]);
    guest.ok(Sqe::admin(AdminOpcode::DOORBELL_BUFFER_CONFIG, 0).with_prps(shadow, indexes));
    pair.shadow = Some(shadow);
    for _ in 0..3 {
        assert_eq!(
            pair.run(&guest, transfer(READ, 1, 0, 8, BUFFER)),
            Status::SUCCESS
        );
    }
}

#[test]
fn queues_are_spread_over_reactors() {
    let spawn = |lcore| {
        let config = reactor::Config {
            lcore,
            max_in_flight: 64,
            ..reactor::Config::default()
        };
        reactor::spawn(config).unwrap()
    };
    // Numbers that no other test's reactors have: the load of a reactor is counted by them.
    let reactors: Vec<_> = [901, 902].into_iter().map(spawn).collect();
    let handles: Vec<_> = reactors.iter().map(|(handle, _)| handle.clone()).collect();
    let mut guest = whole_on(vec![ram_disk(1, 4096)], handles);
    for qid in 1..=4 {
        let mut pair = Pair::new(&mut guest, qid);
        assert_eq!(
            pair.run(&guest, transfer(READ, 1, 0, 8, BUFFER)),
            Status::SUCCESS
        );
    }
    let mut lcores: Vec<u32> = guest.on_home(|c, _| {
        let queues = c.snapshot().queues;
        queues
            .iter()
            .filter(|q| q.qid > 0)
            .map(|q| q.lcore)
            .collect()
    });
    lcores.sort_unstable();
    assert_eq!(lcores, [901, 901, 902, 902]);
    drop(guest);
    for (handle, thread) in reactors {
        handle.stop();
        thread.join().unwrap();
    }
}
