//! A device that does what a test tells it to.

use std::collections::VecDeque;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use guest_memory::{DmaMap, MapView};
use reactor::{Cx, Event, Idle, ReactorHandle};
use virtio::{Device, DeviceEvent, Interrupt, QueueSetup, RingState};
use virtio_spec::feature;

pub(crate) const QUEUES: u16 = 4;
pub(crate) const MAX_SIZE: u16 = 1024;
pub(crate) const CONFIG: usize = 60;

/// What the device offers: two features that this transport cannot carry among them.
pub(crate) const FEATURES: u64 = feature::VERSION_1
    | feature::RING_PACKED
    | feature::EVENT_IDX
    | feature::INDIRECT_DESC
    | feature::RING_RESET
    | feature::NOTIFICATION_DATA;

const PATIENCE: Duration = Duration::from_secs(20);

/// What the device was asked to do.
#[derive(Clone, Debug)]
pub(crate) enum Call {
    Features(u64),
    Start(u16, QueueSetup),
    Stop(u16),
    MapChanged(usize),
    Write(usize, Vec<u8>),
    Reset,
    Dropped,
}

/// The device; tests reach it through [`Remote::run`].
#[derive(Debug)]
pub(crate) struct Fake {
    pub(crate) config: [u8; CONFIG],
    pub(crate) queues: Vec<Option<QueueSetup>>,
    pub(crate) events: VecDeque<DeviceEvent>,
    /// Events of stops and resets wait here while [`Fake::hold`] is set.
    held: Vec<DeviceEvent>,
    pub(crate) hold: bool,
    pub(crate) view: MapView,
    /// Views that "operations in flight" hold.
    pub(crate) in_flight: Vec<MapView>,
    /// Keep a view at every change of the map.
    pub(crate) keep_views: bool,
    shared: Arc<Shared>,
}

type Job = Box<dyn FnOnce(&mut Fake) + Send>;

#[derive(Default)]
struct Shared {
    calls: Mutex<Vec<Call>>,
    jobs: Mutex<VecDeque<Job>>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Shared")
    }
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
    pub(crate) fn make(&self) -> Box<dyn Device> {
        Box::new(Fake {
            config: std::array::from_fn(|at| at as u8),
            queues: vec![None; QUEUES.into()],
            events: VecDeque::new(),
            held: Vec::new(),
            hold: false,
            view: MapView::new(DmaMap::empty()),
            in_flight: Vec::new(),
            keep_views: false,
            shared: Arc::clone(&self.shared),
        })
    }

    /// Runs `job` on the device of the current client, or of the next if there is none.
    pub(crate) fn run<R: Send + 'static>(
        &self,
        job: impl FnOnce(&mut Fake) -> R + Send + 'static,
    ) -> R {
        let (sender, receiver): (Sender<R>, Receiver<R>) = channel();
        let job: Job = Box::new(move |fake| drop(sender.send(job(fake))));
        self.shared.jobs.lock().unwrap().push_back(job);
        self.reactor.wake();
        receiver.recv_timeout(PATIENCE).unwrap()
    }

    /// What the device was asked to do so far; forgotten then.
    pub(crate) fn calls(&self) -> Vec<Call> {
        std::mem::take(&mut *self.shared.calls.lock().unwrap())
    }

    /// Waits for a call that `wanted` accepts, and returns all until then.
    pub(crate) fn wait_for(&self, wanted: impl Fn(&Call) -> bool) -> Vec<Call> {
        let deadline = Instant::now() + PATIENCE;
        let mut seen = Vec::new();
        loop {
            seen.extend(self.calls());
            if seen.iter().any(&wanted) {
                return seen;
            }
            assert!(Instant::now() < deadline, "{seen:?}");
            std::thread::yield_now();
        }
    }

    /// How the queues that were started since the last look were set up.
    pub(crate) fn started(&self) -> Vec<(u16, QueueSetup)> {
        let calls = self.calls().into_iter();
        calls
            .filter_map(|call| match call {
                Call::Start(index, setup) => Some((index, setup)),
                _ => None,
            })
            .collect()
    }
}

impl Fake {
    fn tell(&mut self, event: DeviceEvent) {
        if self.hold {
            self.held.push(event);
        } else {
            self.events.push_back(event);
        }
    }

    pub(crate) fn release(&mut self) {
        self.hold = false;
        self.events.extend(self.held.drain(..));
    }

    fn note(&self, call: Call) {
        self.shared.calls.lock().unwrap().push(call);
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.note(Call::Dropped);
    }
}

impl Device for Fake {
    fn device_id(&self) -> u16 {
        2
    }

    fn features(&self) -> u64 {
        FEATURES
    }

    fn num_queues(&self) -> u16 {
        QUEUES
    }

    fn max_queue_size(&self) -> u16 {
        MAX_SIZE
    }

    fn config_len(&self) -> usize {
        CONFIG
    }

    fn read_config(&self, offset: usize, data: &mut [u8]) {
        data.fill(0);
        let from = self.config.get(offset..).unwrap_or_default();
        for (to, from) in data.iter_mut().zip(from) {
            *to = *from;
        }
    }

    fn write_config(&mut self, _cx: &mut Cx, offset: usize, data: &[u8]) {
        self.note(Call::Write(offset, data.to_vec()));
    }

    fn set_features(&mut self, _cx: &mut Cx, accepted: u64) {
        self.note(Call::Features(accepted));
    }

    fn start_queue(&mut self, _cx: &mut Cx, index: u16, setup: QueueSetup) {
        let queue = &mut self.queues[usize::from(index)];
        assert!(queue.is_none(), "queue {index} is started twice");
        *queue = Some(setup.clone());
        self.note(Call::Start(index, setup));
    }

    fn stop_queue(&mut self, _cx: &mut Cx, index: u16) {
        self.note(Call::Stop(index));
        let queue = self.queues[usize::from(index)].take();
        let setup = queue.expect("a queue that runs is stopped");
        // Seven requests later.
        let state = RingState {
            next_avail: setup.state.next_avail.wrapping_add(7),
            next_used: setup.state.next_used.wrapping_add(7),
            ..setup.state
        };
        self.tell(DeviceEvent::QueueStopped {
            index,
            state: Some(state),
        });
    }

    fn set_interrupt(&mut self, _index: u16, _interrupt: Option<Interrupt>) {}

    fn notify(&mut self, _index: u16) {}

    fn map_changed(&mut self, _cx: &mut Cx, map: &Arc<DmaMap>) {
        self.view = MapView::new(Arc::clone(map));
        if self.keep_views {
            self.in_flight.push(self.view.clone());
        }
        self.note(Call::MapChanged(map.regions().count()));
    }

    fn reset(&mut self, _cx: &mut Cx) {
        self.note(Call::Reset);
        self.queues.fill(None);
        self.view = MapView::new(DmaMap::empty());
        self.tell(DeviceEvent::Reset);
    }

    fn poll(&mut self, _cx: &mut Cx) -> Option<DeviceEvent> {
        loop {
            let job = self.shared.jobs.lock().unwrap().pop_front();
            match job {
                Some(job) => job(self),
                None => break,
            }
        }
        self.events.pop_front()
    }

    fn event(&mut self, _cx: &mut Cx, _event: Event) {}

    fn idle(&self) -> Idle {
        Idle::UntilEvent
    }
}
