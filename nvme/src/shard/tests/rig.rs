//! A guest in the same process: RAM, a doorbell page, a driver, and a reactor with one shard on it.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bdev::SharedBdev;
use crossbeam_channel::{Receiver, Sender, unbounded};
use guest_memory::{Access, DmaMap, Region, SharedMemory};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nvme_spec::{Cqe, NvmOpcode, Sqe, Status};
use pci::{InterruptKind, Interrupts};
use reactor::{Ack, AckReceiver, Config, Mode, ReactorHandle};
use uuid::Uuid;

use crate::messages::{FromShard, ToShard, VectorBinding};
use crate::namespace::{Namespace, NamespaceSet};
use crate::shard::{Shard, ShardSetup};

/// Where guest RAM begins.
pub(super) const RAM: u64 = 0x1000_0000;
pub(super) const RAM_LEN: usize = 16 << 20;
/// Rings: a quarter of a MiB for each queue ID.
const RINGS: u64 = RAM;
/// Free for data.
pub(super) const DATA: u64 = RAM + (8 << 20);
/// Nobody should wait so long for anything.
const PATIENCE: Duration = Duration::from_secs(30);
pub(super) const MAX_TRANSFER: u32 = 1 << 20;

pub(super) struct Rig {
    pub(super) ram: SharedMemory,
    pub(super) page: SharedMemory,
    pub(super) map: Arc<DmaMap>,
    pub(super) reactor: ReactorHandle,
    pub(super) interrupts: Interrupts,
    to: Option<Sender<ToShard>>,
    from: Receiver<FromShard>,
    thread: Option<JoinHandle<()>>,
}

/// The guest's side of a submission queue and its completion queue.
#[derive(Debug)]
pub(super) struct Queue {
    pub(super) qid: u16,
    cqid: u16,
    sq_entries: u32,
    cq_entries: u32,
    pub(super) tail: u32,
    pub(super) head: u32,
    phase: bool,
    cid: u16,
}

/// Calls `look` until it finds something.
pub(super) fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(start.elapsed() < PATIENCE, "waited in vain for {what}");
        std::thread::yield_now();
    }
}

pub(super) fn namespace(nsid: u32, bdev: SharedBdev) -> Namespace {
    let info = bdev.info();
    Namespace {
        nsid,
        bdev,
        info,
        uuid: Uuid::nil(),
        nguid: None,
        eui64: None,
        access: crate::Access::default(),
    }
}

fn region(iova: u64, memory: &SharedMemory) -> Region {
    Region {
        iova,
        len: memory.len() as u64,
        access: Access::READ | Access::WRITE,
        backing: Some(Arc::clone(memory.mapping())),
    }
}

impl Rig {
    pub(super) fn new(disks: &[SharedBdev]) -> Self {
        let namespaces = (1..)
            .zip(disks)
            .map(|(nsid, disk)| namespace(nsid, Arc::clone(disk)));
        Self::with_set(NamespaceSet::new(namespaces.collect()))
    }

    pub(super) fn with_set(namespaces: Arc<NamespaceSet>) -> Self {
        let ram = SharedMemory::new_unsealed(c"guest ram", RAM_LEN).unwrap();
        let page = SharedMemory::new(c"doorbells", 4096).unwrap();
        let map = DmaMap::empty().with(region(RAM, &ram)).unwrap();
        let config = Config {
            mode: Mode::Adaptive,
            ..Config::default()
        };
        let (reactor, thread) = reactor::spawn(config).unwrap();
        let (to, inbox) = unbounded();
        let (outbox, from) = unbounded();
        let setup = ShardSetup {
            index: 7,
            label: "test".to_owned(),
            page: page.clone(),
            max_transfer: MAX_TRANSFER,
            masked: crate::Masked::default(),
            map: Arc::clone(&map),
            namespaces,
            inbox,
            outbox,
            home: reactor.clone(),
        };
        reactor.send(move |reactor| {
            reactor.add_poller(Box::new(Shard::new(setup)));
        });
        Self {
            ram,
            page,
            map,
            reactor,
            interrupts: Interrupts::new(1, 8),
            to: Some(to),
            from,
            thread: Some(thread),
        }
    }

    pub(super) fn tell(&self, message: ToShard) {
        self.to.as_ref().unwrap().send(message).unwrap();
        self.reactor.wake();
    }

    /// The controller dies without a word.
    pub(super) fn hang_up(&mut self) {
        self.to = None;
    }

    /// The first answer that `pick` takes; others before it are dropped.
    pub(super) fn answer<T>(&self, what: &str, mut pick: impl FnMut(FromShard) -> Option<T>) -> T {
        wait_for(what, || self.from.try_recv().ok().and_then(&mut pick))
    }

    /// All answers so far.
    pub(super) fn answers(&self) -> Vec<FromShard> {
        self.from.try_iter().collect()
    }

    /// Returns after the shard has had several whole passes: what could have happened has happened.
    pub(super) fn settle(&self) {
        for _ in 0..4 {
            self.reactor.call(|_| ()).wait(PATIENCE).unwrap();
        }
    }

    /// Asks the reactor something about the pollers on it.
    pub(super) fn pollers(&self) -> usize {
        self.reactor
            .call(|reactor| reactor.stats().pollers.len())
            .wait(PATIENCE)
            .unwrap()
    }

    /// Allocations of the reactor's thread so far.
    pub(super) fn allocations(&self) -> u64 {
        self.reactor
            .call(|_| testkit::alloc::allocations())
            .wait(PATIENCE)
            .unwrap()
    }

    pub(super) fn in_flight(&self) -> u32 {
        self.reactor
            .call(|reactor| reactor.stats().in_flight)
            .wait(PATIENCE)
            .unwrap()
    }

    pub(super) fn ring_of(qid: u16, completion: bool) -> u64 {
        RINGS + u64::from(qid) * 0x4_0000 + if completion { 0x2_0000 } else { 0 }
    }

    pub(super) fn try_cq(&self, qid: u16, base: u64, entries: u32, vector: Option<u16>) -> Status {
        let vector = vector.map(|index| self.binding(index));
        self.tell(ToShard::CreateCq {
            qid,
            base,
            entries,
            vector,
        });
        self.answer("a completion queue", |answer| match answer {
            FromShard::CqCreated { qid: of, status } if of == qid => Some(status),
            _ => None,
        })
    }

    pub(super) fn try_sq(&self, qid: u16, cqid: u16, base: u64, entries: u32) -> Status {
        self.tell(ToShard::CreateSq {
            qid,
            cqid,
            base,
            entries,
        });
        self.answer("a submission queue", |answer| match answer {
            FromShard::SqCreated { qid: of, status } if of == qid => Some(status),
            _ => None,
        })
    }

    pub(super) fn binding(&self, index: u16) -> VectorBinding {
        let vector = self
            .interrupts
            .vector(InterruptKind::Msix, u32::from(index))
            .unwrap();
        VectorBinding { index, vector }
    }

    /// An event descriptor behind a vector; reading it answers how often it was raised since.
    pub(super) fn event(&self, index: u16) -> EventFd {
        let event = EventFd::from_flags(EfdFlags::EFD_NONBLOCK).unwrap();
        let fd: OwnedFd = nix::unistd::dup(&event).unwrap();
        let install = vec![Some(Arc::new(fd))];
        self.interrupts
            .install(InterruptKind::Msix, u32::from(index), install)
            .unwrap();
        event
    }

    pub(super) fn cq(&self, qid: u16, entries: u32, vector: Option<u16>) {
        let status = self.try_cq(qid, Self::ring_of(qid, true), entries, vector);
        assert_eq!(status, Status::SUCCESS);
    }

    pub(super) fn sq(&self, qid: u16, cqid: u16, entries: u32, cq_entries: u32) -> Queue {
        let status = self.try_sq(qid, cqid, Self::ring_of(qid, false), entries);
        assert_eq!(status, Status::SUCCESS);
        Queue {
            qid,
            cqid,
            sq_entries: entries,
            cq_entries,
            tail: 0,
            head: 0,
            phase: true,
            cid: 0,
        }
    }

    /// A pair of queues, without interrupts.
    pub(super) fn pair(&self, qid: u16, entries: u32) -> Queue {
        self.cq(qid, entries, None);
        self.sq(qid, qid, entries, entries)
    }

    /// Offset of a guest-physical address in RAM.
    pub(super) fn at(iova: u64) -> usize {
        usize::try_from(iova - RAM).unwrap()
    }

    /// Puts a command into the ring; its identifier. Not yet told by doorbell.
    pub(super) fn put(&self, queue: &mut Queue, sqe: Sqe) -> u16 {
        let cid = queue.cid;
        queue.cid = queue.cid.wrapping_add(1);
        let slot = Self::at(Self::ring_of(queue.qid, false)) + queue.tail as usize * 64;
        assert!(self.ram.write(slot, &sqe.with_cid(cid)));
        queue.tail = (queue.tail + 1) % queue.sq_entries;
        cid
    }

    pub(super) fn ring(&self, queue: &Queue) {
        self.page.store_u32(usize::from(queue.qid) * 8, queue.tail);
    }

    pub(super) fn send(&self, queue: &mut Queue, sqe: Sqe) -> u16 {
        let cid = self.put(queue, sqe);
        self.ring(queue);
        cid
    }

    /// Takes the next completion if it is there; the head doorbell stays.
    pub(super) fn look(&self, queue: &mut Queue) -> Option<Cqe> {
        let slot = Self::at(Self::ring_of(queue.cqid, true)) + queue.head as usize * 16;
        let phase = self.ram.load_u32(slot + 12) >> 16 & 1 != 0;
        if phase != queue.phase {
            return None;
        }
        queue.head = (queue.head + 1) % queue.cq_entries;
        queue.phase ^= queue.head == 0;
        let mut cqe: Cqe = self.ram.read(slot)?;
        // Whether an error has its entry in the log (More) is the controller's tests' to look at.
        cqe.status_phase &= !Status::new().with_more(true).with_phase_tag(false);
        Some(cqe)
    }

    pub(super) fn ack(&self, queue: &Queue) {
        self.page
            .store_u32(usize::from(queue.cqid) * 8 + 4, queue.head);
    }

    pub(super) fn completion(&self, queue: &mut Queue) -> Cqe {
        let cqe = wait_for("a completion", || self.look(queue));
        self.ack(queue);
        cqe
    }

    /// Sends one command and waits for its status.
    pub(super) fn run(&self, queue: &mut Queue, sqe: Sqe) -> Status {
        let cid = self.send(queue, sqe);
        let cqe = self.completion(queue);
        assert_eq!((cqe.cid, cqe.sqid), (cid, queue.qid));
        cqe.status()
    }

    pub(super) fn set_map(&mut self, map: Arc<DmaMap>) {
        self.map = Arc::clone(&map);
        self.tell(ToShard::Map(map));
    }

    /// All RAM, under a new epoch.
    pub(super) fn whole_map(&self) -> Arc<DmaMap> {
        self.map.cleared().with(region(RAM, &self.ram)).unwrap()
    }

    pub(super) fn namespaces(&self, namespaces: Vec<Namespace>) -> AckReceiver {
        let (ack, done) = Ack::channel();
        self.tell(ToShard::Namespaces(NamespaceSet::new(namespaces), ack));
        done
    }

    pub(super) fn stop(&self) {
        self.tell(ToShard::Stop);
        self.stopped();
    }

    pub(super) fn stopped(&self) {
        self.answer("the end of a drain", |answer| match answer {
            FromShard::Stopped { shard: 7 } => Some(()),
            _ => None,
        });
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.to = None;
        self.reactor.stop();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
            && !std::thread::panicking()
        {
            panic!("the reactor's thread panicked");
        }
    }
}

/// A read or write of `blocks` blocks from `lba` on, with two PRP entries.
pub(super) fn io(opcode: NvmOpcode, nsid: u32, lba: u64, blocks: u32, prp1: u64, prp2: u64) -> Sqe {
    let mut sqe = Sqe::nvm(opcode, nsid).with_slba(lba).with_prps(prp1, prp2);
    sqe.cdw12 = blocks - 1;
    sqe
}

pub(super) fn read(lba: u64, blocks: u32, prp1: u64) -> Sqe {
    io(
        NvmOpcode::READ,
        1,
        lba,
        blocks,
        prp1,
        (prp1 & !0xfff) + 4096,
    )
}

pub(super) fn write(lba: u64, blocks: u32, prp1: u64) -> Sqe {
    io(
        NvmOpcode::WRITE,
        1,
        lba,
        blocks,
        prp1,
        (prp1 & !0xfff) + 4096,
    )
}
