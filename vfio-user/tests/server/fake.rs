//! A device that does what a test tells it to.

use std::collections::VecDeque;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use guest_memory::{DmaMap, MapView, SharedMemory};
use nix::errno::Errno;
use pci::{Access, Function, Interrupts, REGION_COUNT, Region, ResetKind, SharedArea};
use reactor::{Cx, Event, Idle, Poll, ReactorHandle};

/// Length of BAR 0, whose page 1 and 2 can be mapped.
pub(crate) const BAR0_SIZE: u64 = 0x4000;
/// The part of BAR 0 that can be mapped.
pub(crate) const SHARED: std::ops::Range<u64> = 0x1000..0x3000;
/// Length of BAR 1.
pub(crate) const BAR1_SIZE: u64 = 0x1000;
/// Offset in BAR 1 where every access is refused with EPERM.
pub(crate) const FORBIDDEN: u64 = 0xf00;
/// Length of BAR 2, which reads as ones.
pub(crate) const BAR2_SIZE: u64 = 8 << 30;
/// Interrupt vectors.
pub(crate) const VECTORS: u16 = 2048;

/// What the device was asked to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Call {
    Read(u32, u64, usize),
    Write(u32, u64, Vec<u8>),
    MapChanged(usize),
    Reset(ResetKind),
    PinUnmasked,
    Dropped,
}

/// The device; tests reach it through [`Remote::run`].
pub(crate) struct Fake {
    regions: [Region; REGION_COUNT],
    interrupts: Interrupts,
    pub(crate) memory: SharedMemory,
    pub(crate) bar0: Vec<u8>,
    pub(crate) bar1: Vec<u8>,
    pub(crate) config: Vec<u8>,
    pub(crate) view: MapView,
    /// Views that "operations in flight" hold.
    pub(crate) in_flight: Vec<MapView>,
    /// Keep a view at every change of the map.
    pub(crate) hold_on: bool,
    /// Defer the next access or reset.
    pub(crate) defer: bool,
    /// How the deferred one ends.
    pub(crate) finished: Option<Access>,
    closed: bool,
    shared: Arc<Shared>,
}

type Job = Box<dyn FnOnce(&mut Fake) + Send>;

#[derive(Default)]
struct Shared {
    calls: Mutex<Vec<Call>>,
    jobs: Mutex<VecDeque<Job>>,
}

/// The device, seen from the test.
#[derive(Clone)]
pub(crate) struct Remote {
    shared: Arc<Shared>,
    reactor: ReactorHandle,
}

impl Remote {
    pub(crate) fn new(reactor: ReactorHandle) -> Self {
        Self {
            shared: Arc::default(),
            reactor,
        }
    }

    /// Makes a device.
    pub(crate) fn make(&self) -> Box<dyn Function> {
        Box::new(Fake::new(Arc::clone(&self.shared)))
    }

    /// Runs `job` on the device of the current client, or of the next if there is none.
    pub(crate) fn run<R: Send + 'static>(
        &self,
        job: impl FnOnce(&mut Fake) -> R + Send + 'static,
    ) -> R {
        let (sender, receiver): (Sender<R>, Receiver<R>) = channel();
        let job: Job = Box::new(move |fake| sender.send(job(fake)).unwrap());
        self.shared.jobs.lock().unwrap().push_back(job);
        self.reactor.wake();
        receiver.recv_timeout(Duration::from_secs(20)).unwrap()
    }

    /// What the device was asked to do so far; forgotten then.
    pub(crate) fn calls(&self) -> Vec<Call> {
        std::mem::take(&mut *self.shared.calls.lock().unwrap())
    }

    /// Waits for a call that `wanted` accepts, and returns all until then.
    pub(crate) fn wait_for(&self, wanted: impl Fn(&Call) -> bool) -> Vec<Call> {
        let deadline = std::time::Instant::now() + Duration::from_secs(20);
        let mut seen = Vec::new();
        loop {
            seen.extend(self.calls());
            if seen.iter().any(&wanted) {
                return seen;
            }
            assert!(std::time::Instant::now() < deadline, "{seen:?}");
            std::thread::yield_now();
        }
    }
}

fn region(size: u64) -> Region {
    Region {
        size,
        readable: true,
        writable: true,
        shared: None,
    }
}

impl Fake {
    fn new(shared: Arc<Shared>) -> Self {
        let length = usize::try_from(SHARED.end - SHARED.start).unwrap();
        let memory = SharedMemory::new_at(c"fake doorbells", SHARED.start, length).unwrap();
        let mut regions: [Region; REGION_COUNT] = Default::default();
        regions[0] = region(BAR0_SIZE);
        regions[0].shared = Some(SharedArea {
            offset: SHARED.start,
            memory: memory.clone(),
        });
        regions[1] = region(BAR1_SIZE);
        regions[2] = Region {
            writable: false,
            ..region(BAR2_SIZE)
        };
        regions[7] = region(4096);
        let mut config = vec![0; 4096];
        config[..4].copy_from_slice(&0x5845_1b36_u32.to_le_bytes());
        Self {
            regions,
            interrupts: Interrupts::new(1, VECTORS),
            memory,
            bar0: vec![0; BAR0_SIZE as usize],
            bar1: vec![0; BAR1_SIZE as usize],
            config,
            view: MapView::new(DmaMap::empty()),
            in_flight: Vec::new(),
            hold_on: false,
            defer: false,
            finished: None,
            closed: false,
            shared,
        }
    }

    fn log(&self, call: Call) {
        self.shared.calls.lock().unwrap().push(call);
    }

    fn bytes(&mut self, region: u32) -> &mut [u8] {
        match region {
            0 => &mut self.bar0,
            1 => &mut self.bar1,
            7 => &mut self.config,
            _ => &mut [],
        }
    }

    /// The transport promises that every access lies inside its region; this panics where it does not.
    fn check(&mut self, region: u32, offset: u64, length: usize) -> Access {
        let end = offset.checked_add(length as u64).unwrap();
        assert!(end <= self.regions[region as usize].size && length > 0);
        if region == 1 && offset >= FORBIDDEN {
            return Access::Fault(Errno::EPERM);
        }
        if std::mem::take(&mut self.defer) {
            return Access::Defer;
        }
        Access::Done
    }
}

impl Function for Fake {
    fn regions(&self) -> &[Region; REGION_COUNT] {
        &self.regions
    }

    fn interrupts(&self) -> &Interrupts {
        &self.interrupts
    }

    fn read(&mut self, _cx: &mut Cx, region: u32, offset: u64, data: &mut [u8]) -> Access {
        self.log(Call::Read(region, offset, data.len()));
        let access = self.check(region, offset, data.len());
        if access == Access::Done {
            if region == 2 {
                data.fill(0xff);
            } else {
                let at = offset as usize;
                data.copy_from_slice(&self.bytes(region)[at..at + data.len()]);
            }
        }
        access
    }

    fn write(&mut self, _cx: &mut Cx, region: u32, offset: u64, data: &[u8]) -> Access {
        self.log(Call::Write(region, offset, data.to_vec()));
        let access = self.check(region, offset, data.len());
        if !matches!(access, Access::Fault(_)) {
            let at = offset as usize;
            self.bytes(region)[at..at + data.len()].copy_from_slice(data);
        }
        access
    }

    fn map_changed(&mut self, _cx: &mut Cx, map: &Arc<DmaMap>) {
        self.log(Call::MapChanged(map.len()));
        let old = std::mem::replace(&mut self.view, MapView::new(Arc::clone(map)));
        if self.hold_on {
            self.in_flight.push(old);
        }
    }

    fn pin_unmasked(&mut self, _cx: &mut Cx) {
        self.log(Call::PinUnmasked);
    }

    fn reset(&mut self, _cx: &mut Cx, kind: ResetKind) -> Access {
        self.log(Call::Reset(kind));
        if kind != ResetKind::Device {
            self.closed = true;
            self.view = MapView::new(DmaMap::empty());
            return Access::Done;
        }
        self.bar0.fill(0);
        self.bar1.fill(0);
        if std::mem::take(&mut self.defer) {
            return Access::Defer;
        }
        Access::Done
    }

    fn deferred(&mut self) -> Option<Access> {
        self.finished.take()
    }

    fn is_quiescent(&self) -> bool {
        self.closed && self.in_flight.is_empty()
    }

    fn poll(&mut self, _cx: &mut Cx) -> Poll {
        let job = self.shared.jobs.lock().unwrap().pop_front();
        match job {
            Some(job) => {
                job(self);
                Poll::Busy
            }
            None => Poll::Idle,
        }
    }

    fn event(&mut self, _cx: &mut Cx, event: Event) {
        panic!("an event of the session's: {event:?}");
    }

    // Nothing but events and messages wakes the reactor: a session that needed to be polled would hang its test.
    fn idle(&self) -> Idle {
        Idle::UntilEvent
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.log(Call::Dropped);
    }
}
