//! A device that serves rings as far as taking and ending chains, and holds its transport to the contract.

use std::collections::VecDeque;
use std::sync::Arc;

use guest_memory::{DmaMap, MapView};
use reactor::{Cx, Event, Idle};
use virtio::{
    Chain, Device, DeviceEvent, Interrupt, QueueSetup, RING_FEATURES, Ring, RingError, Virtqueue,
};
use virtio_spec::feature;

const QUEUES: u16 = 4;
const MAX_SIZE: u16 = 256;
const CONFIG: usize = 60;
/// Chains of a queue taken in one look.
const BATCH: usize = 8;

/// How the device behaves.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Script {
    /// Polls that a stop, and a reset, takes.
    stop: u8,
    reset: u8,
    /// Polls after which a chain ends.
    hold: u8,
    /// The configuration changes now and then.
    restless: bool,
}

impl From<u8> for Script {
    fn from(code: u8) -> Self {
        let polls = |shift: u8| [0, 1, 3, 20][usize::from(code >> shift & 3)];
        Self {
            stop: polls(4),
            reset: polls(6),
            hold: polls(0),
            restless: code & 4 != 0,
        }
    }
}

#[derive(Debug)]
struct Queue {
    setup: QueueSetup,
    ring: Option<Virtqueue>,
    chain: Chain,
    taken: VecDeque<virtio::Head>,
    /// Polls until what was taken ends.
    hold: u8,
    /// Polls until it has stopped, once it is to.
    stopping: Option<u8>,
    broken: bool,
}

#[derive(Debug)]
pub(super) struct Probe {
    script: Script,
    features: u64,
    queues: [Option<Queue>; QUEUES as usize],
    view: MapView,
    resetting: Option<u8>,
    events: VecDeque<DeviceEvent>,
    polls: u32,
}

impl Probe {
    pub(super) fn new(script: Script) -> Self {
        Self {
            script,
            features: 0,
            queues: Default::default(),
            view: MapView::new(DmaMap::empty()),
            resetting: None,
            events: VecDeque::new(),
            polls: 0,
        }
    }

    fn queue(&mut self, index: u16) -> &mut Option<Queue> {
        assert!(self.resetting.is_none(), "called while it resets");
        assert!(index < QUEUES, "queue {index}");
        &mut self.queues[usize::from(index)]
    }

    /// Makes the ring if it is not there and its memory is.
    fn find(queue: &mut Queue, view: &MapView) -> Result<(), RingError> {
        if queue.ring.is_some() || queue.broken {
            return Ok(());
        }
        match Virtqueue::new(&queue.setup, view) {
            Ok(ring) => queue.ring = Some(ring),
            Err(RingError::Memory(_)) => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    fn serve(queue: &mut Queue, view: &MapView, hold: u8) -> Result<(), RingError> {
        Self::find(queue, view)?;
        let Some(ring) = &mut queue.ring else {
            return Ok(());
        };
        queue.hold = queue.hold.saturating_sub(1);
        if queue.hold == 0 {
            for head in queue.taken.drain(..) {
                ring.put(head, 1);
            }
            if ring.wants_interrupt()
                && let Some(interrupt) = &queue.setup.interrupt
            {
                interrupt.signal();
            }
        }
        if queue.broken || queue.stopping.is_some() {
            return Ok(());
        }
        for _ in 0..BATCH {
            let Some(head) = ring.take(view, &mut queue.chain)? else {
                break;
            };
            queue.taken.push_back(head);
            queue.hold = hold + 1;
        }
        Ok(())
    }
}

impl Device for Probe {
    fn device_id(&self) -> u16 {
        virtio_spec::DEVICE_ID_BLOCK
    }

    fn features(&self) -> u64 {
        RING_FEATURES | feature::RING_PACKED | feature::NOTIFICATION_DATA
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
        for (n, byte) in data.iter_mut().enumerate() {
            let is_inside = offset.checked_add(n).is_some_and(|at| at < CONFIG);
            *byte = if is_inside { 0xa5 } else { 0 };
        }
    }

    fn write_config(&mut self, _cx: &mut Cx, _offset: usize, _data: &[u8]) {
        assert!(self.resetting.is_none(), "called while it resets");
    }

    fn set_features(&mut self, _cx: &mut Cx, accepted: u64) {
        assert!(self.resetting.is_none(), "called while it resets");
        assert_eq!(accepted & !self.features(), 0, "not offered");
        self.features = accepted;
    }

    fn start_queue(&mut self, _cx: &mut Cx, index: u16, setup: QueueSetup) {
        let features = self.features;
        let queue = self.queue(index);
        assert!(queue.is_none(), "queue {index} was started twice");
        let size = setup.size;
        assert!((1..=MAX_SIZE).contains(&size), "{size} entries");
        assert_eq!(setup.features, features);
        if features & feature::RING_PACKED == 0 {
            assert!(size.is_power_of_two(), "{size} entries");
        }
        if let Some(inflight) = &setup.inflight {
            let end = inflight.offset.checked_add(inflight.len);
            assert!(end.is_some_and(|end| end <= inflight.memory.len()));
        }
        *queue = Some(Queue {
            setup,
            ring: None,
            chain: Chain::default(),
            taken: VecDeque::new(),
            hold: 0,
            stopping: None,
            broken: false,
        });
    }

    fn stop_queue(&mut self, _cx: &mut Cx, index: u16) {
        let polls = self.script.stop;
        let queue = self
            .queue(index)
            .as_mut()
            .expect("a queue that was started");
        let before = queue.stopping.replace(polls);
        assert!(before.is_none(), "queue {index} was stopped twice");
    }

    fn set_interrupt(&mut self, index: u16, interrupt: Option<Interrupt>) {
        let queue = self
            .queue(index)
            .as_mut()
            .expect("a queue that was started");
        queue.setup.interrupt = interrupt;
    }

    fn notify(&mut self, index: u16) {
        let _ = self.queue(index);
    }

    fn map_changed(&mut self, _cx: &mut Cx, map: &Arc<DmaMap>) {
        self.view = MapView::new(Arc::clone(map));
        for queue in self.queues.iter_mut().flatten() {
            if let Some(ring) = &mut queue.ring {
                let _ = ring.remap(&self.view);
            }
        }
    }

    fn reset(&mut self, _cx: &mut Cx) {
        let before = self.resetting.replace(self.script.reset);
        assert!(before.is_none(), "reset twice");
    }

    fn poll(&mut self, _cx: &mut Cx) -> Option<DeviceEvent> {
        if let Some(event) = self.events.pop_front() {
            return Some(event);
        }
        self.polls = self.polls.wrapping_add(1);
        if let Some(polls) = self.resetting {
            self.resetting = polls.checked_sub(1);
            if self.resetting.is_none() {
                self.queues = Default::default();
                self.features = 0;
                return Some(DeviceEvent::Reset);
            }
            return None;
        }
        if self.script.restless && self.polls.is_multiple_of(8) {
            return Some(DeviceEvent::ConfigChanged);
        }
        for (place, index) in self.queues.iter_mut().zip(0..) {
            let Some(queue) = place else {
                continue;
            };
            if let Err(error) = Self::serve(queue, &self.view, self.script.hold) {
                queue.broken = true;
                self.events.push_back(DeviceEvent::Broken {
                    index: Some(index),
                    cause: error.to_string(),
                });
            }
            if let Some(polls) = queue.stopping {
                queue.stopping = Some(polls.saturating_sub(1));
                if polls == 0 && queue.taken.is_empty() {
                    let state = queue.ring.as_ref().map(|ring| ring.state());
                    let state = Some(state.unwrap_or(queue.setup.state));
                    *place = None;
                    self.events
                        .push_back(DeviceEvent::QueueStopped { index, state });
                }
            }
        }
        self.events.pop_front()
    }

    fn event(&mut self, _cx: &mut Cx, _event: Event) {}

    fn idle(&self) -> Idle {
        Idle::Bounded
    }
}
