//! A guest in the same process: its memory, its admin queue, and shards that do as they are told.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use bdev::{Bdev, BdevError, BdevInfo, Channel, DriverValue, Features};
use guest_memory::{Access as MemoryAccess, DmaMap, Region, SharedMemory};
use nix::errno::Errno;
use nvme_spec::registers::{Aqa, Cc, Csts};
use nvme_spec::{AdminOpcode, Cqe, Sqe, Status};
use pci::{Access, Function};
use reactor::{Config, Cx, Event, Idle, Poll, Poller, ReactorHandle};
use uuid::Uuid;
use zerocopy::IntoBytes;

use crate::controller::Controller;
use crate::handle::ControllerHandle;
use crate::messages::{FromShard, ToShard};
use crate::shards::{ShardFactory, ShardStart};
use crate::{ControllerConfig, Namespace, NamespaceSet};

const WAIT: Duration = Duration::from_secs(20);

/// Where things lie in the guest's memory.
pub(crate) const RAM: u64 = 0x10_0000;
pub(crate) const RAM_SIZE: u64 = 16 << 20;
pub(crate) const ASQ: u64 = RAM;
pub(crate) const ACQ: u64 = RAM + 0x1_0000;
pub(crate) const BUFFER: u64 = RAM + 0x10_0000;
pub(crate) const RINGS: u64 = RAM + 0x80_0000;

/// A disk that exists in name only.
#[derive(Debug)]
pub(crate) struct NameOnly(pub(crate) BdevInfo);

impl Bdev for NameOnly {
    fn info(&self) -> BdevInfo {
        self.0.clone()
    }

    fn open(&self, _cx: &mut Cx) -> Result<Box<dyn Channel>, BdevError> {
        Err(BdevError::new(Errno::ENODEV, "it exists in name only"))
    }

    fn driver_specific(&self) -> Vec<(&'static str, DriverValue)> {
        Vec::new()
    }
}

/// A namespace of `num_blocks` blocks.
pub(crate) fn namespace(nsid: u32, num_blocks: u64, features: Features) -> Namespace {
    let info = BdevInfo {
        name: format!("disk{nsid}"),
        product_name: "name only",
        uuid: Uuid::from_u128(u128::from(nsid)),
        block_size: 512,
        physical_block_size: 4096,
        num_blocks,
        features,
    };
    Namespace {
        nsid,
        bdev: Arc::new(NameOnly(info.clone())),
        uuid: info.uuid,
        info,
        nguid: Some([0x11; 16]),
        eui64: None,
        access: crate::Access::default(),
    }
}

/// What a test asks of its shards, and what they were told.
#[derive(Debug, Default)]
pub(crate) struct Script {
    /// Orders received, as text.
    pub(crate) heard: Mutex<Vec<String>>,
    /// Keep answers back.
    pub(crate) hold: AtomicBool,
    /// Refuse to make queues.
    pub(crate) refuse: AtomicBool,
    /// Panic at the next order.
    pub(crate) die: AtomicBool,
    /// Sent as soon as possible.
    pub(crate) say: Mutex<Vec<FromShard>>,
}

impl Script {
    /// Whether an order that contains `text` came.
    pub(crate) fn has_heard(&self, text: &str) -> bool {
        self.heard
            .lock()
            .unwrap()
            .iter()
            .any(|order| order.contains(text))
    }

    /// A factory of shards that follow this script.
    pub(crate) fn factory(self: &Arc<Self>) -> ShardFactory {
        let script = Arc::clone(self);
        Arc::new(move |start| {
            Box::new(FakeShard {
                start,
                script: Arc::clone(&script),
                owed: Vec::new(),
            })
        })
    }
}

struct FakeShard {
    start: ShardStart,
    script: Arc<Script>,
    owed: Vec<FromShard>,
}

impl FakeShard {
    fn answer(&self, order: &ToShard) -> Option<FromShard> {
        let shard = self.start.index;
        let status = if self.script.refuse.load(Ordering::SeqCst) {
            Status::INVALID_FIELD
        } else {
            Status::SUCCESS
        };
        Some(match *order {
            ToShard::CreateCq { qid, .. } => FromShard::CqCreated { qid, status },
            ToShard::CreateSq { qid, .. } => FromShard::SqCreated { qid, status },
            ToShard::DeleteSq { qid } => FromShard::SqDeleted { qid },
            ToShard::DeleteCq { qid } => FromShard::CqDeleted { qid },
            ToShard::Abort { admin_cid, .. } => FromShard::Aborted {
                admin_cid,
                aborted: true,
            },
            ToShard::Stop | ToShard::Exit => FromShard::Stopped { shard },
            _ => return None,
        })
    }

    fn send(&self, message: FromShard) {
        let _ = self.start.outbox.send(message);
        self.start.home.wake();
    }
}

impl Poller for FakeShard {
    fn name(&self) -> String {
        "fake shard".to_owned()
    }

    fn poll(&mut self, _cx: &mut Cx) -> Poll {
        for message in std::mem::take(&mut *self.script.say.lock().unwrap()) {
            self.send(message);
        }
        let mut exit = false;
        while let Ok(order) = self.start.inbox.try_recv() {
            assert!(
                !self.script.die.load(Ordering::SeqCst),
                "as the script says"
            );
            self.script.heard.lock().unwrap().push(format!("{order:?}"));
            exit |= matches!(order, ToShard::Exit);
            self.owed.extend(self.answer(&order));
        }
        if self.script.hold.load(Ordering::SeqCst) {
            return Poll::Idle;
        }
        for message in std::mem::take(&mut self.owed) {
            exit |= matches!(message, FromShard::Stopped { .. }) && self.script.has_heard("Exit");
            self.send(message);
        }
        if exit { Poll::Remove } else { Poll::Idle }
    }

    fn event(&mut self, _cx: &mut Cx, _event: Event) {}

    fn idle(&self) -> Idle {
        Idle::Bounded
    }
}

#[derive(Default)]
struct Slot(Option<Controller>);

/// The guest, its VMM, and the controller on a reactor of its own.
pub(crate) struct Guest {
    pub(crate) home: ReactorHandle,
    thread: Option<JoinHandle<()>>,
    pub(crate) handle: ControllerHandle,
    pub(crate) ram: SharedMemory,
    pub(crate) map: Arc<DmaMap>,
    pub(crate) page: SharedMemory,
    pub(crate) script: Arc<Script>,
    depth: u32,
    tail: u32,
    head: u32,
    phase: bool,
    next_cid: u16,
}

impl Drop for Guest {
    fn drop(&mut self) {
        let _ = self
            .home
            .call(|reactor| drop(reactor.cx().local::<Slot>().0.take()))
            .wait(WAIT);
        self.home.stop();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Guest {
    /// A controller with these settings and disks, its client connected and its memory mapped.
    pub(crate) fn new(config: ControllerConfig, namespaces: Vec<Namespace>) -> Self {
        let script = Arc::new(Script::default());
        let factory = script.factory();
        Self::with_factory(config, namespaces, script, factory, vec![])
    }

    pub(crate) fn with_factory(
        config: ControllerConfig,
        namespaces: Vec<Namespace>,
        script: Arc<Script>,
        factory: ShardFactory,
        reactors: Vec<ReactorHandle>,
    ) -> Self {
        let (home, thread) = reactor::spawn(Config {
            max_in_flight: 256,
            ..Config::default()
        })
        .unwrap();
        let ram = SharedMemory::new_unsealed(c"test-guest", RAM_SIZE as usize).unwrap();
        let set = NamespaceSet::new(namespaces);
        let (handle, page) = home
            .call(move |reactor| {
                let home = reactor.cx().handle().clone();
                let (controller, handle) =
                    Controller::with_factory(&home, config, set, reactors, factory).unwrap();
                let page = controller.doorbell_page();
                reactor.cx().local::<Slot>().0 = Some(controller);
                (handle, page)
            })
            .wait(WAIT)
            .unwrap();
        let mut guest = Self {
            home,
            thread: Some(thread),
            handle,
            map: DmaMap::empty(),
            ram,
            page,
            script,
            depth: 32,
            tail: 0,
            head: 0,
            phase: true,
            next_cid: 1,
        };
        guest.map_ram();
        guest
    }

    /// Default settings and one disk.
    pub(crate) fn simple() -> Self {
        Self::new(
            ControllerConfig::default(),
            vec![namespace(1, 2048, Features::WRITE)],
        )
    }

    /// Runs something on the home reactor with the controller.
    pub(crate) fn on_home<R: Send + 'static>(
        &self,
        run: impl FnOnce(&mut Controller, &mut Cx) -> R + Send + 'static,
    ) -> R {
        let run = move |reactor: &mut reactor::Reactor| {
            let mut controller = reactor.cx().local::<Slot>().0.take().unwrap();
            let result = run(&mut controller, reactor.cx());
            reactor.cx().local::<Slot>().0 = Some(controller);
            result
        };
        self.home.call(run).wait(WAIT).unwrap()
    }

    /// One look of the controller for work.
    pub(crate) fn poll(&self) {
        self.on_home(|controller, cx| {
            controller.poll(cx);
        });
    }

    /// Polls until `done`.
    pub(crate) fn poll_until(&self, what: &str, mut done: impl FnMut(&Self) -> bool) {
        let start = std::time::Instant::now();
        while !done(self) {
            assert!(start.elapsed() < WAIT, "{what} did not happen");
            self.poll();
        }
    }

    /// The guest's RAM, or a part of it, as the VMM maps it.
    pub(crate) fn ram_region(&self) -> Region {
        Region {
            iova: RAM,
            len: RAM_SIZE,
            access: MemoryAccess::READ | MemoryAccess::WRITE,
            backing: Some(Arc::clone(self.ram.mapping())),
        }
    }

    pub(crate) fn set_map(&mut self, map: Arc<DmaMap>) {
        self.map = Arc::clone(&map);
        self.on_home(move |controller, cx| controller.map_changed(cx, &map));
    }

    pub(crate) fn map_ram(&mut self) {
        let map = self.map.with(self.ram_region()).unwrap();
        self.set_map(map);
    }

    pub(crate) fn unmap_all(&mut self) {
        self.set_map(self.map.cleared());
    }

    pub(crate) fn write_region(&self, region: u32, offset: u64, data: &[u8]) -> Access {
        let data = data.to_vec();
        self.on_home(move |controller, cx| controller.write(cx, region, offset, &data))
    }

    pub(crate) fn read_region(&self, region: u32, offset: u64, len: usize) -> Vec<u8> {
        self.on_home(move |controller, cx| {
            let mut data = vec![0xaa; len];
            assert_eq!(controller.read(cx, region, offset, &mut data), Access::Done);
            data
        })
    }

    pub(crate) fn write32(&self, offset: u64, value: u32) {
        assert_eq!(
            self.write_region(0, offset, &value.to_le_bytes()),
            Access::Done
        );
    }

    pub(crate) fn write64(&self, offset: u64, value: u64) {
        assert_eq!(
            self.write_region(0, offset, &value.to_le_bytes()),
            Access::Done
        );
    }

    pub(crate) fn read32(&self, offset: u64) -> u32 {
        u32::from_le_bytes(self.read_region(0, offset, 4).try_into().unwrap())
    }

    pub(crate) fn read64(&self, offset: u64) -> u64 {
        u64::from_le_bytes(self.read_region(0, offset, 8).try_into().unwrap())
    }

    pub(crate) fn csts(&self) -> Csts {
        Csts::from_bits(self.read32(0x1c))
    }

    /// CC as Linux writes it.
    pub(crate) fn cc() -> Cc {
        Cc::new().with_en(true).with_iosqes(6).with_iocqes(4)
    }

    /// Sets the admin queues up.
    pub(crate) fn set_admin_queue(&mut self, depth: u32) {
        self.depth = depth;
        (self.tail, self.head, self.phase) = (0, 0, true);
        let depth_z = u16::try_from(depth - 1).unwrap();
        let aqa = Aqa::new().with_asqs_z(depth_z).with_acqs_z(depth_z);
        self.write32(0x24, aqa.into_bits());
        self.write64(0x28, ASQ);
        self.write64(0x30, ACQ);
        let zeroes = vec![0; 0x1_0000];
        self.put(ACQ, &zeroes);
    }

    /// Enables the controller with admin queues of 32 entries.
    pub(crate) fn enable(&mut self) {
        self.set_admin_queue(32);
        self.write32(0x14, Self::cc().into_bits());
        assert!(self.csts().rdy(), "{:?}", self.csts());
    }

    pub(crate) fn put(&self, iova: u64, data: &[u8]) {
        assert!(self.ram.write_slice((iova - RAM) as usize, data));
    }

    pub(crate) fn get(&self, iova: u64, len: usize) -> Vec<u8> {
        let mut data = vec![0; len];
        assert!(self.ram.read_slice((iova - RAM) as usize, &mut data));
        data
    }

    /// Puts a command into the admin queue and rings; its identifier.
    pub(crate) fn submit(&mut self, sqe: Sqe) -> u16 {
        let cid = self.next_cid;
        self.next_cid += 1;
        self.submit_as(sqe.with_cid(cid));
        cid
    }

    pub(crate) fn submit_as(&mut self, sqe: Sqe) {
        self.put(ASQ + u64::from(self.tail) * 64, sqe.as_bytes());
        self.tail = (self.tail + 1) % self.depth;
        self.page.store_u32(0, self.tail);
    }

    /// The next completion, if it is there.
    pub(crate) fn reap(&mut self) -> Option<Cqe> {
        let at = (ACQ - RAM) as usize + self.head as usize * 16;
        let cqe: Cqe = self.ram.read(at).unwrap();
        if cqe.phase() != self.phase {
            return None;
        }
        self.head = (self.head + 1) % self.depth;
        self.phase ^= self.head == 0;
        self.page.store_u32(4, self.head);
        Some(cqe)
    }

    /// Waits for the next completion.
    pub(crate) fn wait(&mut self) -> Cqe {
        let start = std::time::Instant::now();
        loop {
            if let Some(cqe) = self.reap() {
                return cqe;
            }
            assert!(start.elapsed() < WAIT, "no completion");
            self.poll();
        }
    }

    /// Executes a command; its completion.
    pub(crate) fn run(&mut self, sqe: Sqe) -> Cqe {
        let cid = self.submit(sqe);
        let cqe = self.wait();
        assert_eq!(cqe.cid, cid);
        assert_eq!(cqe.sqid, 0);
        cqe
    }

    /// Executes a command that must succeed; Dword 0.
    pub(crate) fn ok(&mut self, sqe: Sqe) -> u32 {
        let cqe = self.run(sqe);
        assert_eq!(cqe.status(), Status::SUCCESS, "{sqe:?}");
        cqe.dw0
    }

    /// Executes a command that must fail; its status without flags.
    pub(crate) fn refused(&mut self, sqe: Sqe) -> Status {
        let status = self.run(sqe).status();
        assert!(!status.is_success(), "{sqe:?}");
        status.code()
    }

    /// Executes a command that brings `len` bytes to the buffer.
    pub(crate) fn fetch(&mut self, sqe: Sqe, len: usize) -> Vec<u8> {
        self.put(BUFFER, &vec![0xee; len]);
        self.ok(sqe.with_prps(BUFFER, BUFFER + 4096));
        self.get(BUFFER, len)
    }
}

/// Commands.
pub(crate) fn identify(cns: u8, nsid: u32) -> Sqe {
    let mut sqe = Sqe::admin(AdminOpcode::IDENTIFY, nsid).with_prps(BUFFER, 0);
    sqe.cdw10 = u32::from(cns);
    sqe
}

pub(crate) fn get_log(lid: u8, len: u32) -> Sqe {
    let dwords_z = len / 4 - 1;
    let mut sqe =
        Sqe::admin(AdminOpcode::GET_LOG_PAGE, 0xffff_ffff).with_prps(BUFFER, BUFFER + 4096);
    sqe.cdw10 = u32::from(lid) | (dwords_z & 0xffff) << 16;
    sqe.cdw11 = dwords_z >> 16;
    sqe
}

pub(crate) fn get_feature(fid: u8, cdw11: u32) -> Sqe {
    let mut sqe = Sqe::admin(AdminOpcode::GET_FEATURES, 0).with_prps(BUFFER, 0);
    sqe.cdw10 = u32::from(fid);
    sqe.cdw11 = cdw11;
    sqe
}

pub(crate) fn set_feature(fid: u8, cdw11: u32) -> Sqe {
    let mut sqe = Sqe::admin(AdminOpcode::SET_FEATURES, 0).with_prps(BUFFER, 0);
    sqe.cdw10 = u32::from(fid);
    sqe.cdw11 = cdw11;
    sqe
}

pub(crate) fn create_cq(qid: u16, entries: u32, vector: u16) -> Sqe {
    let base = RINGS + u64::from(qid) * 0x1_0000;
    let mut sqe = Sqe::admin(AdminOpcode::CREATE_IO_CQ, 0).with_prps(base, 0);
    sqe.cdw10 = u32::from(qid) | (entries - 1) << 16;
    sqe.cdw11 = 0b11 | u32::from(vector) << 16;
    sqe
}

pub(crate) fn create_sq(qid: u16, cqid: u16, entries: u32) -> Sqe {
    let base = RINGS + u64::from(qid) * 0x1_0000 + 0x8000;
    let mut sqe = Sqe::admin(AdminOpcode::CREATE_IO_SQ, 0).with_prps(base, 0);
    sqe.cdw10 = u32::from(qid) | (entries - 1) << 16;
    sqe.cdw11 = 1 | u32::from(cqid) << 16;
    sqe
}

pub(crate) fn delete_queue(opcode: AdminOpcode, qid: u16) -> Sqe {
    let mut sqe = Sqe::admin(opcode, 0);
    sqe.cdw10 = u32::from(qid);
    sqe
}

pub(crate) fn event_request() -> Sqe {
    Sqe::admin(AdminOpcode::ASYNC_EVENT_REQUEST, 0)
}
