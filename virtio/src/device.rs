//! The contract between a virtio device model and its transports.

use std::fmt;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use guest_memory::{DmaMap, SharedMemory};
use pci::Vector;
use reactor::{Cx, Event, Idle};

use crate::queue::DirtyLog;

/// Where a ring stands: all that is needed to go on with it, in this process or another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RingState {
    /// Split: the free-running index of the next available entry. Packed: its place in the ring.
    pub next_avail: u16,
    /// Split: the free-running index of the next used entry. Packed: its place in the ring.
    pub next_used: u16,
    /// Packed: the driver's wrap counter at `next_avail`; not used in a split ring.
    pub avail_wrap: bool,
    /// Packed: the device's wrap counter at `next_used`; not used in a split ring.
    pub used_wrap: bool,
}

impl Default for RingState {
    /// A ring that has just been made (2.7.6, 2.8.1).
    fn default() -> Self {
        Self {
            next_avail: 0,
            next_used: 0,
            avail_wrap: true,
            used_wrap: true,
        }
    }
}

/// How the device learns that the driver has made buffers available.
#[derive(Clone, Debug)]
pub enum Kick {
    /// Not at all: notifications are stores to memory that the VMM maps, so the ring must be looked at.
    Polled,
    /// The transport calls [`Device::notify`].
    Trapped,
    /// The VMM writes this eventfd.
    Event(Arc<OwnedFd>),
}

/// How a queue, or the configuration, interrupts the driver.
#[derive(Clone, Debug)]
pub struct Interrupt {
    vector: Vector,
    /// With the INTx pin: the ISR status and the bit to set in it before the pin is raised (4.1.4.5).
    isr: Option<(Arc<AtomicU8>, u8)>,
}

impl Interrupt {
    /// A message, or a call eventfd of vhost-user.
    #[must_use]
    pub fn message(vector: Vector) -> Self {
        Self { vector, isr: None }
    }

    /// The pin, with the ISR status bit to set.
    #[must_use]
    pub fn pin(vector: Vector, isr: Arc<AtomicU8>, bit: u8) -> Self {
        Self {
            vector,
            isr: Some((isr, bit)),
        }
    }

    /// Raises it.
    pub fn signal(&self) {
        if let Some((isr, bit)) = &self.isr {
            isr.fetch_or(*bit, Ordering::AcqRel);
        }
        self.vector.signal();
    }
}

/// Where a queue's requests in flight are written down, so that another process can do them again (vhost-user,
/// "Inflight I/O tracking"). The part of the shared region that belongs to this queue, with the layout that the protocol's text
/// gives for the queue's format.
#[derive(Clone, Debug)]
pub struct Inflight {
    /// The shared region.
    pub memory: SharedMemory,
    /// Where this queue's part begins, in bytes.
    pub offset: usize,
    /// How long it is, in bytes.
    pub len: usize,
}

/// A queue to be served. Addresses are guest-physical.
#[derive(Clone, Debug)]
pub struct QueueSetup {
    /// Entries: 1 to 32768; a power of two if split. The transport has checked it against [`Device::max_queue_size`].
    pub size: u16,
    /// Negotiated features; `RING_PACKED` decides the format.
    pub features: u64,
    /// Descriptor area.
    pub desc: u64,
    /// Driver area: available ring, or driver event suppression.
    pub driver: u64,
    /// Device area: used ring, or device event suppression.
    pub device: u64,
    /// Where to go on.
    pub state: RingState,
    /// How work is announced.
    pub kick: Kick,
    /// Whom to interrupt; `None` while the driver has chosen no vector.
    pub interrupt: Option<Interrupt>,
    /// Where to write down what is in flight, if the VMM asked for it. What is found there is done first.
    pub inflight: Option<Inflight>,
    /// Where to log writes to guest memory, while the VMM asks for it.
    pub log: Option<Arc<DirtyLog>>,
}

/// What a device has to say to its transport.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeviceEvent {
    /// A [`Device::stop_queue`] has ended: nothing of the queue is in flight, no lease of it is held. `state` is where it
    /// stands; `None` if the queue was lost with its reactor.
    QueueStopped {
        /// Which.
        index: u16,
        /// Where it stands.
        state: Option<RingState>,
    },
    /// The configuration has changed (a resize, another disk): interrupt the driver, count the generation up.
    ConfigChanged,
    /// The driver broke the rules, or its memory is gone: DEVICE_NEEDS_RESET. The queue (`None`: the whole device) is not read
    /// again until it is reset.
    Broken {
        /// Which queue.
        index: Option<u16>,
        /// Why, for the operator.
        cause: String,
    },
    /// A [`Device::reset`] has ended: nothing is in flight, no lease is held, all queues are gone.
    Reset,
}

/// A virtio device model on its home reactor, as its transport sees it.
///
/// # Contract
///
/// The transport guarantees: calls come from the home reactor's thread, in the poller `cx` names; a queue is started only when it is
/// stopped (never started, or its [`DeviceEvent::QueueStopped`] was taken); features are set before queues are started;
/// while a reset is outstanding nothing but `poll`, `event`, `idle` and `map_changed` is called.
///
/// The device guarantees: no call blocks or panics whatever the arguments; every `stop_queue` and `reset` ends in bounded time (as
/// soon as the disk ends the I/O it has) with its event; after [`DeviceEvent::Reset`] it holds no memory, file or event of the client.
pub trait Device: fmt::Debug {
    /// Device ID (5).
    fn device_id(&self) -> u16;

    /// Features offered: the device type's own, and those of the rings that the operator allows. Transports add and remove
    /// what is theirs.
    fn features(&self) -> u64;

    /// Number of virtqueues.
    fn num_queues(&self) -> u16;

    /// Most entries of a virtqueue.
    fn max_queue_size(&self) -> u16;

    /// Length of the configuration in bytes.
    fn config_len(&self) -> usize;

    /// Reads the configuration; bytes beyond its end are zero.
    fn read_config(&self, offset: usize, data: &mut [u8]);

    /// Writes the configuration: fields that are not the driver's to write stay as they are.
    fn write_config(&mut self, cx: &mut Cx, offset: usize, data: &[u8]);

    /// The driver's choice, a subset of what was offered. May come again while queues run (vhost-user switches the log).
    fn set_features(&mut self, cx: &mut Cx, accepted: u64);

    /// Serves a queue from now on. Rings that do not lie in the client's memory at present are looked for again with each
    /// change of the map.
    fn start_queue(&mut self, cx: &mut Cx, index: u16, setup: QueueSetup);

    /// Ends a queue: takes no more from it, lets what is in flight end with used entries. Then [`DeviceEvent::QueueStopped`].
    fn stop_queue(&mut self, cx: &mut Cx, index: u16);

    /// Gives a running queue another interrupt.
    fn set_interrupt(&mut self, index: u16, interrupt: Option<Interrupt>);

    /// A trapped notification for a queue.
    fn notify(&mut self, index: u16);

    /// The client's memory has changed: as [`pci::Function::map_changed`].
    fn map_changed(&mut self, cx: &mut Cx, map: &Arc<DmaMap>);

    /// The client is gone: the reset that follows is not its driver's doing.
    fn client_gone(&mut self) {}

    /// Drops all queues; what is in flight ends without used entries. Then [`DeviceEvent::Reset`].
    fn reset(&mut self, cx: &mut Cx);

    /// What has happened; asked in each pass of the home reactor until `None`.
    fn poll(&mut self, cx: &mut Cx) -> Option<DeviceEvent>;

    /// An event for a tag below 2⁶² (transports keep the tags above for themselves).
    fn event(&mut self, cx: &mut Cx, event: Event);

    /// How long the home reactor may sleep on the device's behalf (its queues speak for themselves).
    fn idle(&self) -> Idle;
}
