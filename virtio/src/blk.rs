//! virtio-blk, home side: features, configuration, which worker has which queue.
//!
//! The data path is in [`crate::worker`]. Nothing here waits: workers are told by message and their answers become
//! [`DeviceEvent`]s.

pub(crate) mod config;
mod events;
mod handle;
pub(crate) mod messages;
#[cfg(test)]
mod tests;
pub(crate) mod workers;

use std::collections::VecDeque;
use std::sync::Arc;

use bdev::{Features, SharedBdev};
use crossbeam_channel::{Receiver, unbounded};
use guest_memory::DmaMap;
use reactor::{Ack, Cx, Event, Idle, LogLimit, ReactorHandle, Seat, guest_warn};
use virtio_spec::DEVICE_ID_BLOCK;
use virtio_spec::blk::{Config, feature};

pub use config::{BlkConfig, Coalescing, MAX_QUEUES};
pub use events::BlkEvent;
pub use handle::{BlkHandle, BlkSnapshot, QueueInfo};

use config::Shown;
use handle::{Control, Gather};
use messages::{FromWorker, Mode, Target, ToWorker};
use workers::Workers;

use crate::device::{Device, DeviceEvent, Interrupt, QueueSetup};

/// A queue that was started.
#[derive(Debug)]
struct Place {
    worker: usize,
    stopping: bool,
    /// Its worker died: it is broken, and there is nobody to stop it.
    lost: bool,
    /// The transport knows that it is broken.
    broken: bool,
    _seat: Seat,
}

/// A virtio-blk device. See the crate's documentation for its place.
#[derive(Debug)]
pub struct Blk {
    config: Arc<BlkConfig>,
    mode: Arc<Mode>,
    workers: Workers,
    from_workers: Receiver<FromWorker>,
    mailbox: Receiver<Control>,
    disk: Option<Target>,
    /// The disk as the driver sees it; of the last one if there is none.
    shown: Shown,
    coalescing: Coalescing,
    accepted: u64,
    /// `writeback` of the configuration: as the first disk has it, then as drivers write it. A reset does not change it: QEMU's
    /// vhost-user-blk goes on to show its guest the value that was written last.
    write_back: bool,
    map: Arc<DmaMap>,
    queues: Vec<Option<Place>>,
    events: VecDeque<DeviceEvent>,
    resetting: bool,
    /// A driver has begun and not let go.
    running: bool,
    /// The client is gone.
    departing: bool,
    /// The transport knows that the whole device is broken.
    broken: bool,
    limit: LogLimit,
}

impl Blk {
    /// A device over `disk`, whose home is the reactor that `cx` belongs to and whose queues will be served by `reactors` (home if
    /// there are none), and the control thread's way to it.
    #[must_use]
    pub fn new(
        cx: &mut Cx,
        config: BlkConfig,
        disk: Option<SharedBdev>,
        reactors: Vec<ReactorHandle>,
    ) -> (Self, BlkHandle) {
        let config = Arc::new(config.clamped());
        let home = cx.handle().clone();
        let (sender, mailbox) = unbounded();
        let mode = Arc::new(Mode::default());
        let (workers, from_workers) = Workers::new(
            Arc::clone(&config),
            Arc::clone(&mode),
            home.clone(),
            reactors,
        );
        let disk = disk.map(target);
        let blk = Self {
            mode,
            workers,
            from_workers,
            mailbox,
            shown: disk
                .as_ref()
                .map(|disk| disk.shown.clone())
                .unwrap_or_default(),
            coalescing: config.coalescing,
            accepted: 0,
            write_back: disk
                .as_ref()
                .is_some_and(|disk| disk.shown.features.contains(Features::WRITE_CACHE)),
            disk,
            map: DmaMap::empty(),
            queues: (0..config.num_queues).map(|_| None).collect(),
            events: VecDeque::new(),
            resetting: false,
            running: false,
            departing: false,
            broken: false,
            limit: LogLimit::new(),
            config,
        };
        blk.set_mode();
        let handle = BlkHandle {
            mailbox: sender,
            home,
        };
        (blk, handle)
    }

    fn has(&self, feature: u64) -> bool {
        self.accepted & feature != 0
    }

    /// Whether a completed write may still be in a cache (5.2.6.2): with CONFIG_WCE as the driver said, else if it can flush.
    fn is_write_back(&self) -> bool {
        if self.has(feature::CONFIG_WCE) {
            self.write_back
        } else {
            self.has(feature::FLUSH)
        }
    }

    /// Tells all workers what the driver has chosen, at once.
    fn set_mode(&self) {
        let chosen = [
            (Mode::WRITE_THROUGH, !self.is_write_back()),
            (Mode::DISCARD, self.has(feature::DISCARD)),
            (Mode::WRITE_ZEROES, self.has(feature::WRITE_ZEROES)),
            (Mode::LIFETIME, self.has(feature::LIFETIME)),
        ];
        let bits = chosen.iter().filter(|(_, on)| *on).map(|(bit, _)| bit);
        self.mode.set(bits.sum());
    }

    fn layout(&self) -> Config {
        config::layout(&self.config, &self.shown, self.write_back)
    }

    fn place(&mut self, index: u16) -> Option<&mut Place> {
        self.queues.get_mut(usize::from(index))?.as_mut()
    }

    fn tell(&mut self, event: DeviceEvent) {
        self.events.push_back(event);
    }

    fn take_control(&mut self, control: Control) {
        match control {
            Control::Disk(disk, ack) => self.set_disk(disk, &ack),
            Control::Resized => {
                if let Some(disk) = &mut self.disk {
                    disk.shown = Shown::from(&disk.bdev.info());
                    let shown = disk.shown.clone();
                    let blocks = shown.num_blocks;
                    self.workers.broadcast(|| ToWorker::Resized(blocks));
                    self.show(shown);
                }
            }
            Control::Coalescing(coalescing) => {
                self.coalescing = coalescing;
                self.workers.broadcast(|| ToWorker::Coalescing(coalescing));
            }
            Control::Snapshot(gather) => self.describe(gather),
        }
    }

    fn set_disk(&mut self, disk: Option<SharedBdev>, ack: &Ack) {
        self.disk = disk.map(target);
        let Self { workers, disk, .. } = self;
        workers.broadcast(|| ToWorker::Disk(disk.clone(), ack.clone()));
        if let Some(disk) = disk {
            let shown = disk.shown.clone();
            self.show(shown);
        }
    }

    /// Shows the driver this disk. What it cannot do of that which was negotiated is refused request by request.
    fn show(&mut self, shown: Shown) {
        let before = self.layout();
        self.shown = shown;
        self.set_mode();
        if self.layout() != before {
            self.tell(DeviceEvent::ConfigChanged);
        }
    }

    fn describe(&mut self, gather: Gather) {
        gather.add(|snapshot| snapshot.features = self.accepted);
        let gather = Arc::new(gather);
        self.workers
            .broadcast(|| ToWorker::Describe(Arc::clone(&gather)));
    }

    fn hear(&mut self, message: FromWorker) {
        match message {
            FromWorker::Gone { worker } => {
                if !self.workers.gone(worker) {
                    self.bury(worker);
                }
                if self.resetting && self.workers.is_empty() {
                    self.resetting = false;
                    self.tell(DeviceEvent::Reset);
                }
            }
            FromWorker::DiskError {
                bdev,
                sector,
                cause,
                suppressed,
            } => self.config.events.tell(BlkEvent::DiskError {
                bdev,
                sector,
                cause,
                suppressed,
            }),
            // Its queues are gone for the transport.
            _ if self.resetting => {}
            FromWorker::Stopped { index, state } => {
                if let Some(place) = self.queues.get_mut(usize::from(index)) {
                    *place = None;
                }
                self.tell(DeviceEvent::QueueStopped {
                    index,
                    state: Some(state),
                });
                if self.queues.iter().all(Option::is_none) {
                    self.let_go();
                }
            }
            FromWorker::Broken { index, cause } => self.break_down(index, cause),
        }
    }

    /// Says once, to transport and operator, that the driver must reset the device.
    fn break_down(&mut self, index: Option<u16>, cause: String) {
        let known = match index {
            Some(index) => self
                .place(index)
                .is_none_or(|place| std::mem::replace(&mut place.broken, true)),
            None => std::mem::replace(&mut self.broken, true),
        };
        if known {
            return;
        }
        guest_warn!(
            self.limit,
            endpoint = self.config.label,
            queue = index,
            cause,
            "the virtio-blk device needs a reset by its driver"
        );
        self.config.events.tell(BlkEvent::Failed {
            cause: cause.clone(),
        });
        self.tell(DeviceEvent::Broken { index, cause });
    }

    /// No queue of the driver's is left.
    fn let_go(&mut self) {
        if std::mem::take(&mut self.running) && !self.departing {
            self.config.events.tell(BlkEvent::Reset);
        }
    }

    /// A worker died: its queues are lost.
    fn bury(&mut self, worker: usize) {
        for index in 0..self.config.num_queues {
            let Some(place) = self.place(index).filter(|place| place.worker == worker) else {
                continue;
            };
            place.lost = true;
            if place.stopping {
                self.queues[usize::from(index)] = None;
                self.tell(DeviceEvent::QueueStopped { index, state: None });
            } else {
                let cause = "the thread that serves it failed".to_owned();
                self.break_down(Some(index), cause);
            }
        }
    }
}

fn target(bdev: SharedBdev) -> Target {
    let shown = Shown::from(&bdev.info());
    Target { bdev, shown }
}

impl Device for Blk {
    fn device_id(&self) -> u16 {
        DEVICE_ID_BLOCK
    }

    fn features(&self) -> u64 {
        config::features(&self.config, &self.shown)
    }

    fn num_queues(&self) -> u16 {
        self.config.num_queues
    }

    fn max_queue_size(&self) -> u16 {
        self.config.queue_size
    }

    fn config_len(&self) -> usize {
        size_of::<Config>()
    }

    fn read_config(&self, offset: usize, data: &mut [u8]) {
        config::read(&self.layout(), offset, data);
    }

    fn write_config(&mut self, _cx: &mut Cx, offset: usize, data: &[u8]) {
        let at = std::mem::offset_of!(Config, wce).checked_sub(offset);
        let Some(value) = at.and_then(|at| data.get(at)) else {
            return;
        };
        if self.has(feature::CONFIG_WCE) {
            self.write_back = *value & 1 != 0;
            self.set_mode();
        }
    }

    fn set_features(&mut self, _cx: &mut Cx, accepted: u64) {
        self.accepted = accepted;
        if self.has(feature::CONFIG_WCE) && !self.has(feature::FLUSH) {
            // 5.2.5.2: who cannot flush begins without a cache.
            self.write_back = false;
        }
        self.set_mode();
    }

    fn start_queue(&mut self, _cx: &mut Cx, index: u16, setup: QueueSetup) {
        let vacant = self
            .queues
            .get(usize::from(index))
            .is_some_and(Option::is_none);
        let (true, false, Some((worker, seat))) = (vacant, self.resetting, self.workers.place())
        else {
            return;
        };
        self.workers
            .ensure(worker, &self.map, self.disk.as_ref(), self.coalescing);
        let setup = Box::new(setup);
        self.workers.send(worker, ToWorker::Start { index, setup });
        self.queues[usize::from(index)] = Some(Place {
            worker,
            stopping: false,
            lost: false,
            broken: false,
            _seat: seat,
        });
        if !std::mem::replace(&mut self.running, true) {
            self.config.events.tell(BlkEvent::Enabled);
        }
    }

    fn stop_queue(&mut self, _cx: &mut Cx, index: u16) {
        let worker = match self.place(index) {
            Some(place) if place.stopping => return,
            Some(place) if !place.lost => {
                place.stopping = true;
                place.worker
            }
            _ => {
                if let Some(place) = self.queues.get_mut(usize::from(index)) {
                    *place = None;
                }
                return self.tell(DeviceEvent::QueueStopped { index, state: None });
            }
        };
        self.workers.send(worker, ToWorker::Stop { index });
    }

    fn set_interrupt(&mut self, index: u16, interrupt: Option<Interrupt>) {
        if let Some(worker) = self.place(index).map(|place| place.worker) {
            self.workers
                .send(worker, ToWorker::Interrupt { index, interrupt });
        }
    }

    fn notify(&mut self, index: u16) {
        if let Some(worker) = self.place(index).map(|place| place.worker) {
            self.workers.wake(worker);
        }
    }

    fn map_changed(&mut self, _cx: &mut Cx, map: &Arc<DmaMap>) {
        self.map = Arc::clone(map);
        self.workers.broadcast(|| ToWorker::Map(Arc::clone(map)));
    }

    fn client_gone(&mut self) {
        self.departing = true;
    }

    fn reset(&mut self, _cx: &mut Cx) {
        for index in 0..self.config.num_queues {
            let place = self.queues[usize::from(index)].take();
            // Whoever waits for a queue does not wait for ever.
            if place.is_some_and(|place| place.stopping) {
                self.tell(DeviceEvent::QueueStopped { index, state: None });
            }
        }
        // What broke is told no more: the reset is the answer.
        self.events
            .retain(|event| !matches!(event, DeviceEvent::Broken { .. }));
        (self.accepted, self.broken) = (0, false);
        self.let_go();
        self.set_mode();
        self.workers.exit();
        if self.workers.is_empty() {
            self.tell(DeviceEvent::Reset);
        } else {
            self.resetting = true;
        }
    }

    fn poll(&mut self, _cx: &mut Cx) -> Option<DeviceEvent> {
        // Empty in almost every pass: one fence each.
        while !self.mailbox.is_empty() || !self.from_workers.is_empty() {
            if let Ok(message) = self.from_workers.try_recv() {
                self.hear(message);
            } else if let Ok(control) = self.mailbox.try_recv() {
                self.take_control(control);
            }
        }
        self.events.pop_front()
    }

    fn event(&mut self, _cx: &mut Cx, _event: Event) {
        // Nothing of home is ever in the ring.
    }

    fn idle(&self) -> Idle {
        if self.events.is_empty() {
            Idle::UntilEvent
        } else {
            Idle::Never
        }
    }
}
