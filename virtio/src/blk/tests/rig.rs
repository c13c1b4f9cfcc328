//! A guest in the same process: its RAM, its driver, and a transport that does as the test says.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bdev::SharedBdev;
use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use guest_memory::{Access, DmaMap, Region};
use nix::errno::Errno;
use nix::sys::eventfd::{EfdFlags, EventFd};
use pci::{InterruptKind, Interrupts};
use reactor::{Ack, AckReceiver, Config, Cx, Event, Idle, Mode, Poll, Poller, ReactorHandle};
use testkit::ram::GuestRam;
use testkit::virtio::blk::Parts;
use testkit::virtio::{Buffer, Ring, Table, Used};
use virtio_spec::blk::{RequestHeader, T_GET_ID, T_GET_LIFETIME, T_IN, feature};
use virtio_spec::feature::{INDIRECT_DESC, RING_PACKED, VERSION_1};
use zerocopy::IntoBytes;

use crate::blk::{Blk, BlkConfig, BlkHandle};
use crate::device::{Device, DeviceEvent, Interrupt, Kick, QueueSetup, RingState};

/// Where guest RAM begins.
pub(super) const RAM: u64 = 0x1000_0000;
const RAM_LEN: usize = 64 << 20;
/// Nobody should wait so long for anything.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);
/// What a driver of today accepts.
pub(super) const USUAL: u64 = VERSION_1
    | INDIRECT_DESC
    | feature::SEG_MAX
    | feature::BLK_SIZE
    | feature::MQ
    | feature::FLUSH
    | feature::CONFIG_WCE
    | feature::DISCARD
    | feature::WRITE_ZEROES
    | feature::LIFETIME;

type Job = Box<dyn FnOnce(&mut Blk, &mut Cx) + Send>;

/// The transport: does what it is told, and passes on what the device says.
struct Home {
    blk: Blk,
    jobs: Receiver<Job>,
    events: Sender<DeviceEvent>,
}

impl Poller for Home {
    fn name(&self) -> String {
        "test transport".to_owned()
    }

    fn poll(&mut self, cx: &mut Cx) -> Poll {
        let mut busy = false;
        loop {
            match self.jobs.try_recv() {
                Ok(job) => job(&mut self.blk, cx),
                Err(crossbeam_channel::TryRecvError::Empty) => break,
                Err(crossbeam_channel::TryRecvError::Disconnected) => return Poll::Remove,
            }
            busy = true;
        }
        while let Some(event) = self.blk.poll(cx) {
            let _ = self.events.send(event);
            busy = true;
        }
        if busy { Poll::Busy } else { Poll::Idle }
    }

    fn event(&mut self, cx: &mut Cx, event: Event) {
        self.blk.event(cx, event);
    }

    fn idle(&self) -> Idle {
        self.blk.idle()
    }
}

pub(super) struct Rig {
    pub(super) ram: GuestRam,
    pub(super) map: Arc<DmaMap>,
    pub(super) handle: BlkHandle,
    pub(super) reactors: Vec<ReactorHandle>,
    jobs: Option<Sender<Job>>,
    events: Receiver<DeviceEvent>,
    threads: Vec<JoinHandle<()>>,
    pub(super) features: u64,
}

/// How a queue of the test is told of work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kicked {
    Polled,
    Trapped,
    Event,
}

/// The driver's side of a queue.
pub(super) struct Vq {
    pub(super) index: u16,
    pub(super) ring: Ring,
    pub(super) kicked: Kicked,
    pub(super) kick: EventFd,
    /// How often the driver was asked to notify.
    pub(super) kicks: u32,
    pub(super) call: EventFd,
    interrupts: Interrupts,
    features: u64,
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

/// Bytes that tell their place.
pub(super) fn pattern(seed: u8, len: usize) -> Vec<u8> {
    let byte = |n: usize| {
        let low = (n as u8).wrapping_mul(31);
        low.wrapping_add((n >> 8) as u8).wrapping_add(seed)
    };
    (0..len).map(byte).collect()
}

pub(super) fn region(ram: &GuestRam) -> Region {
    Region {
        iova: ram.base(),
        len: ram.memory().len() as u64,
        access: Access::READ | Access::WRITE,
        backing: Some(Arc::clone(ram.memory().mapping())),
    }
}

fn eventfd() -> EventFd {
    EventFd::from_flags(EfdFlags::EFD_NONBLOCK).unwrap()
}

fn duplicate(event: &EventFd) -> Arc<OwnedFd> {
    Arc::new(nix::unistd::dup(event).unwrap())
}

impl Rig {
    /// A device with one queue on one reactor, with the usual features.
    pub(super) fn new(disk: SharedBdev) -> Self {
        Self::with(BlkConfig::default(), Some(disk), 1, USUAL)
    }

    pub(super) fn with(
        config: BlkConfig,
        disk: Option<SharedBdev>,
        reactors: u32,
        features: u64,
    ) -> Self {
        let ram = GuestRam::new(RAM, RAM_LEN).unwrap();
        let map = DmaMap::empty().with(region(&ram)).unwrap();
        let spawn = |lcore| {
            let config = Config {
                lcore,
                mode: Mode::Adaptive,
                ..Config::default()
            };
            reactor::spawn(config).unwrap()
        };
        let (reactors, threads): (Vec<_>, Vec<_>) = (0..reactors).map(spawn).unzip();
        let (jobs, inbox) = unbounded::<Job>();
        let (outbox, events) = unbounded();
        let others = reactors.clone();
        let home = reactors[0].call(move |reactor| {
            let (blk, handle) = Blk::new(reactor.cx(), config, disk, others);
            reactor.add_poller(Box::new(Home {
                blk,
                jobs: inbox,
                events: outbox,
            }));
            handle
        });
        let rig = Self {
            handle: home.wait(PATIENCE).unwrap(),
            ram,
            map,
            reactors,
            jobs: Some(jobs),
            events,
            threads,
            features,
        };
        let map = Arc::clone(&rig.map);
        rig.device(move |blk, cx| {
            blk.map_changed(cx, &map);
            blk.set_features(cx, features);
        });
        rig
    }

    /// Does something to the device on its home.
    pub(super) fn device<R: Send + 'static>(
        &self,
        job: impl FnOnce(&mut Blk, &mut Cx) -> R + Send + 'static,
    ) -> R {
        let (reply, answer) = bounded(1);
        let job: Job = Box::new(move |blk, cx| drop(reply.send(job(blk, cx))));
        assert!(self.jobs.as_ref().unwrap().send(job).is_ok());
        self.reactors[0].wake();
        answer.recv_timeout(PATIENCE).expect("the device answers")
    }

    /// The device goes without a word to anybody.
    pub(super) fn hang_up(&mut self) {
        self.jobs = None;
        self.reactors[0].wake();
    }

    /// The first event that `pick` takes; others before it are dropped.
    pub(super) fn event<T>(&self, what: &str, mut pick: impl FnMut(DeviceEvent) -> Option<T>) -> T {
        wait_for(what, || self.events.try_recv().ok().and_then(&mut pick))
    }

    /// All events so far, after the device has had time to say something.
    pub(super) fn events(&self) -> Vec<DeviceEvent> {
        self.settle();
        self.events.try_iter().collect()
    }

    /// Returns after every reactor has had several whole passes: what could have happened has happened.
    pub(super) fn settle(&self) {
        for _ in 0..4 {
            for reactor in &self.reactors {
                reactor.call(|_| ()).wait(PATIENCE).unwrap();
            }
        }
    }

    /// Allocations of a reactor's thread so far.
    pub(super) fn allocations(&self, reactor: usize) -> u64 {
        let count = self.reactors[reactor].call(|_| testkit::alloc::allocations());
        count.wait(PATIENCE).unwrap()
    }

    pub(super) fn alloc(&self, len: usize) -> u64 {
        self.ram.alloc(len, 4096).unwrap()
    }

    pub(super) fn queue(&self, index: u16, size: u16) -> Vq {
        self.queue_with(index, size, Kicked::Polled)
    }

    pub(super) fn queue_with(&self, index: u16, size: u16, kicked: Kicked) -> Vq {
        let interrupts = Interrupts::new(0, 1);
        let call = eventfd();
        interrupts
            .install(InterruptKind::Msix, 0, vec![Some(duplicate(&call))])
            .unwrap();
        let vq = Vq {
            index,
            ring: Ring::new(&self.ram, size, self.features).unwrap(),
            kicked,
            kick: eventfd(),
            kicks: 0,
            call,
            interrupts,
            features: self.features,
        };
        self.start(&vq, RingState::default());
        vq
    }

    pub(super) fn start(&self, vq: &Vq, state: RingState) {
        let setup = vq.setup(state);
        let index = vq.index;
        self.device(move |blk, cx| blk.start_queue(cx, index, setup));
    }

    pub(super) fn stop(&self, vq: &Vq) -> Option<RingState> {
        let index = vq.index;
        self.device(move |blk, cx| blk.stop_queue(cx, index));
        self.stopped(index)
    }

    pub(super) fn stopped(&self, index: u16) -> Option<RingState> {
        self.event("the end of a queue", |event| match event {
            DeviceEvent::QueueStopped { index: of, state } if of == index => Some(state),
            _ => None,
        })
    }

    pub(super) fn reset(&self) {
        self.device(|blk, cx| blk.reset(cx));
        self.event("the end of a reset", |event| {
            (event == DeviceEvent::Reset).then_some(())
        });
    }

    pub(super) fn set_map(&mut self, map: Arc<DmaMap>) {
        self.map = Arc::clone(&map);
        self.device(move |blk, cx| blk.map_changed(cx, &map));
    }

    /// All RAM, under a new epoch.
    pub(super) fn whole_map(&self) -> Arc<DmaMap> {
        self.map.cleared().with(region(&self.ram)).unwrap()
    }

    pub(super) fn set_disk(&self, disk: Option<SharedBdev>) -> AckReceiver {
        let (ack, done) = Ack::channel();
        self.handle.set_disk(disk, ack);
        done
    }

    pub(super) fn read_config(&self) -> virtio_spec::blk::Config {
        self.device(|blk, _| {
            let mut config = virtio_spec::blk::Config::default();
            blk.read_config(0, config.as_mut_bytes());
            config
        })
    }

    pub(super) fn write_cache(&self, on: bool) {
        self.device(move |blk, cx| {
            let at = std::mem::offset_of!(virtio_spec::blk::Config, wce);
            blk.write_config(cx, at, &[u8::from(on)]);
        });
    }

    /// A header in memory.
    pub(super) fn header(&self, kind: u32, sector: u64) -> u64 {
        let at = self.ram.alloc(16, 16).unwrap();
        self.set_header(at, kind, sector);
        at
    }

    pub(super) fn set_header(&self, at: u64, kind: u32, sector: u64) {
        let header = RequestHeader {
            kind,
            reserved: 0,
            sector,
        };
        self.ram.write(at, header.as_bytes());
    }

    /// A status byte in memory that no device writes.
    pub(super) fn status(&self) -> u64 {
        let at = self.ram.alloc(1, 1).unwrap();
        self.ram.write(at, &[0xee]);
        at
    }

    /// A request in the layout that Linux uses.
    pub(super) fn parts(&self, kind: u32, sector: u64, data: &[Buffer]) -> Parts {
        Parts::plain(kind, self.header(kind, sector), data, self.status())
    }

    /// One request and its end: status and bytes written.
    pub(super) fn run(&self, vq: &mut Vq, kind: u32, sector: u64, data: &[Buffer]) -> (u8, u32) {
        let parts = self.parts(kind, sector, data);
        self.run_parts(vq, &parts)
    }

    /// As [`Rig::run`]; the status is the last byte that the device may write.
    pub(super) fn run_parts(&self, vq: &mut Vq, parts: &Parts) -> (u8, u32) {
        let table = Table::Indirect(self.ram.alloc(parts.count() * 16, 16).unwrap());
        let id = self.send(vq, parts, table);
        let used = vq.used();
        assert_eq!(used.id, id);
        (self.status_of(parts), used.written.unwrap())
    }

    /// What a request that fails answers: the status, and as written what lies before the first byte that was not. Behind data for
    /// the driver the status does not count (2.7.8.2).
    pub(super) fn failure(status: u8, kind: u32) -> (u8, u32) {
        let data_first = matches!(kind, T_IN | T_GET_ID | T_GET_LIFETIME);
        (status, u32::from(!data_first))
    }

    pub(super) fn status_of(&self, parts: &Parts) -> u8 {
        let last = parts.writable.last().unwrap();
        self.ram.read(last.addr + u64::from(last.len) - 1, 1)[0]
    }

    /// Makes a request available, and notifies if asked to.
    pub(super) fn send(&self, vq: &mut Vq, parts: &Parts, table: Table) -> u16 {
        let id = vq.ring.add(&parts.readable, &parts.writable, table);
        let id = id.expect("room in the ring");
        self.publish(vq);
        id
    }

    pub(super) fn publish(&self, vq: &mut Vq) {
        if !vq.ring.publish() {
            return;
        }
        vq.kicks += 1;
        match vq.kicked {
            Kicked::Polled => {}
            Kicked::Trapped => {
                let index = vq.index;
                self.device(move |blk, _| blk.notify(index));
            }
            Kicked::Event => {
                vq.kick.write(1).unwrap();
            }
        }
    }
}

impl Vq {
    pub(super) fn setup(&self, state: RingState) -> QueueSetup {
        let areas = self.ring.areas();
        let vector = self.interrupts.vector(InterruptKind::Msix, 0).unwrap();
        QueueSetup {
            size: self.ring.size(),
            features: self.features,
            desc: areas.desc,
            driver: areas.driver,
            device: areas.device,
            state,
            kick: match self.kicked {
                Kicked::Polled => Kick::Polled,
                Kicked::Trapped => Kick::Trapped,
                Kicked::Event => Kick::Event(duplicate(&self.kick)),
            },
            interrupt: Some(Interrupt::message(vector)),
            inflight: None,
            log: None,
        }
    }

    pub(super) fn is_packed(&self) -> bool {
        self.features & RING_PACKED != 0
    }

    /// The next used chain.
    pub(super) fn used(&mut self) -> Used {
        let ring = &mut self.ring;
        wait_for("a used buffer", || ring.poll().unwrap())
    }

    /// How often the queue has interrupted since this was last asked.
    pub(super) fn calls(&self) -> u64 {
        match self.call.read() {
            Ok(count) => count,
            Err(Errno::EAGAIN) => 0,
            Err(errno) => panic!("{errno}"),
        }
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.jobs = None;
        for reactor in &self.reactors {
            reactor.stop();
        }
        for thread in self.threads.drain(..) {
            if thread.join().is_err() && !std::thread::panicking() {
                panic!("a reactor's thread panicked");
            }
        }
    }
}

pub(super) fn buffer(addr: u64, len: usize) -> Buffer {
    let len = u32::try_from(len).unwrap();
    Buffer { addr, len }
}
