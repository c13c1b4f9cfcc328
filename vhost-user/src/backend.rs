//! One client's device: requests carried out on a [`virtio::Device`].
//!
//! A request is answered before the next is looked at. One that cannot be answered yet (rings have to end first, memory that is to
//! go is still in use, the device resets) is *held*, and with it this client's later requests; nobody else's.
//!
//! Whatever changes what a running ring depends on goes the same way: the rings concerned are stopped, the change is made once
//! nothing of them is in flight, and those that still should run are started again, with what is true then.

use std::sync::Arc;

use guest_memory::SharedMemory;
use reactor::{Cx, Event, Idle, LogLimit};
use virtio::{Device, DeviceEvent, DirtyLog, InterruptKind, Interrupts};
use virtio_spec::feature;
use virtio_spec::status::DEVICE_NEEDS_RESET;
use zerocopy::IntoBytes;

use crate::Refusal;
use crate::channel::Channel;
use crate::endpoint::{QueueInfo, SessionInfo};
use crate::inflight;
use crate::memory::Memory;
use crate::request::Request;
use crate::ring::{self, Ring, Run};
use crate::wire::{self, MAX_MEM_SLOTS, ProtocolFeatures};

mod change;
mod rings;

pub(crate) use change::Change;
use change::Reset;

/// Features that a device may have but this transport cannot carry: kicks are eventfds (no data), a queue cannot be reset on its
/// own, addresses are not translated, and there is no PCI function.
const NOT_CARRIED: u64 = feature::NOTIFICATION_DATA
    | feature::NOTIF_CONFIG_DATA
    | feature::RING_RESET
    | feature::ACCESS_PLATFORM
    | feature::SR_IOV
    | TRANSPORT;

/// Features of the transport itself.
const TRANSPORT: u64 = feature::VHOST_USER_PROTOCOL_FEATURES | feature::VHOST_LOG_ALL;

/// What an answer consists of.
#[derive(Debug, Default)]
pub(crate) struct Answer {
    pub(crate) payload: Vec<u8>,
    pub(crate) memory: Option<SharedMemory>,
}

impl Answer {
    fn with(value: &(impl IntoBytes + zerocopy::Immutable)) -> Self {
        Self {
            payload: value.as_bytes().to_vec(),
            memory: None,
        }
    }
}

/// How a request went on.
#[derive(Debug)]
pub(crate) enum Progress {
    /// It is done and has no answer of its own.
    Done,
    /// Answer it.
    Reply(Answer),
    /// It is held: [`Backend::advance`] says how it goes on.
    Held,
}

/// What a held request waits for.
#[derive(Debug)]
enum Work {
    /// Rings that have to end before a change.
    Change(Box<Change>),
    /// Memory that is still in use.
    Drain,
    /// The device.
    Reset(Reset),
}

/// See the [module documentation](self).
pub(crate) struct Backend {
    device: Box<dyn Device>,
    rings: Vec<Ring>,
    /// A ring's interrupt at its index; the one that tells of its errors behind all of those.
    interrupts: Interrupts,
    memory: Memory,
    /// What the client and its driver chose, the transport's own included.
    features: u64,
    protocol: ProtocolFeatures,
    status: u8,
    needs_reset: bool,
    log: Option<Arc<DirtyLog>>,
    inflight: Option<inflight::Region>,
    channel: Option<Channel>,
    held: Option<Work>,
    /// The device has been asked to reset and has not said that it has.
    is_resetting: bool,
    limit: LogLimit,
    name: String,
}

impl Backend {
    pub(crate) fn new(name: String, device: Box<dyn Device>) -> Self {
        let queues = device.num_queues();
        Self {
            rings: (0..queues).map(|_| Ring::default()).collect(),
            interrupts: Interrupts::new(0, queues.saturating_mul(2)),
            device,
            memory: Memory::new(),
            features: 0,
            protocol: ProtocolFeatures::empty(),
            status: 0,
            needs_reset: false,
            log: None,
            inflight: None,
            channel: None,
            held: None,
            is_resetting: false,
            limit: LogLimit::new(),
            name,
        }
    }

    /// Whether requests without an answer of their own are answered.
    pub(crate) fn acknowledges(&self) -> bool {
        self.protocol.contains(ProtocolFeatures::REPLY_ACK)
    }

    fn offered(&self) -> u64 {
        self.device.features() & !NOT_CARRIED | TRANSPORT
    }

    /// Carries out a request.
    pub(crate) fn handle(
        &mut self,
        cx: &mut Cx,
        request: Request<'_>,
    ) -> Result<Progress, Refusal> {
        let mut progress = Progress::Done;
        match request {
            Request::GetFeatures => progress = reply(&self.offered()),
            Request::SetFeatures(features) => return self.set_features(cx, features),
            Request::GetProtocolFeatures => progress = reply(&ProtocolFeatures::all().bits()),
            Request::SetProtocolFeatures(bits) => {
                self.protocol = ProtocolFeatures::from_bits(bits).ok_or(Refusal::new(
                    "the client chose protocol features that were not offered",
                ))?;
            }
            // Nothing hangs on it: one client at a time, and its session is its connection.
            Request::SetOwner => {}
            // "Back-ends either ignore this message, or use it to disable all rings."
            Request::ResetOwner => {}
            Request::SetMemTable(regions) => {
                let table = self.memory.table().replaced(&regions)?;
                return self.change_memory(cx, table);
            }
            Request::AddMemRegion(region, fd) => {
                self.needs(ProtocolFeatures::CONFIGURE_MEM_SLOTS)?;
                let table = self.memory.table().with(region, &fd)?;
                return self.change_memory(cx, table);
            }
            Request::RemoveMemRegion(region) => {
                self.needs(ProtocolFeatures::CONFIGURE_MEM_SLOTS)?;
                let table = self.memory.table().without(&region)?;
                return self.change_memory(cx, table);
            }
            Request::GetMaxMemSlots => {
                self.needs(ProtocolFeatures::CONFIGURE_MEM_SLOTS)?;
                progress = reply(&(MAX_MEM_SLOTS as u64));
            }
            Request::SetLogBase(log, fd) => {
                self.needs(ProtocolFeatures::LOG_SHMFD)?;
                let memory = SharedMemory::from_fd(fd, log.offset, log.size).map_err(|error| {
                    Refusal::new(format!("the log of writes cannot be mapped: {error}"))
                })?;
                let answer = Answer::with(&log);
                let change = Change::Log(Arc::new(DirtyLog::new(memory)), answer);
                let is_logging = self.is_logging();
                return self.begin(cx, change, |_, _| is_logging);
            }
            // "Optional": nobody needs to be told.
            Request::SetLogFd(fd) => drop(fd),
            Request::GetQueueNum => {
                self.needs(ProtocolFeatures::MQ)?;
                progress = reply(&(self.rings.len() as u64));
            }
            Request::SetVringNum(state) => self.set_size(state)?,
            Request::SetVringBase(state) => {
                let ring = self.idle_ring(state.index)?;
                ring.base = Some(state.num);
                ring.is_lost = false;
            }
            Request::SetVringAddress(address) => return self.set_address(cx, address),
            Request::SetVringKick(index, fd) => return self.set_kick(cx, index, fd),
            Request::SetVringCall(index, fd) => {
                let is_heard = self.ring(index)?.run != Run::Stopped && fd.is_some();
                self.install(index, fd)?;
                // A front-end that unmasks (QEMU) looks for interrupts that came on the descriptor for masked ones once, when it
                // has sent this, and does not wait for us: one that ends up there after its look would be lost. A driver
                // bears an interrupt too many.
                if is_heard && let Some(vector) = self.interrupts.vector(InterruptKind::Msix, index)
                {
                    vector.signal();
                }
            }
            Request::SetVringError(index, fd) => {
                self.ring(index)?;
                let queues = u32::try_from(self.rings.len()).unwrap_or(u32::MAX);
                self.install(index.saturating_add(queues), fd)?;
            }
            Request::SetVringEnable(index, true) => {
                self.ring(index)?.enabled = Some(true);
                self.start_rings(cx)?;
            }
            Request::SetVringEnable(index, false) => {
                self.ring(index)?.enabled = Some(false);
                return self.begin(cx, Change::Disabled, |it, _| it == index);
            }
            Request::GetVringBase(index) => {
                self.ring(index)?.kick = None;
                return self.begin(cx, Change::Base(index), |it, _| it == index);
            }
            Request::SetBackendReqFd(fd) => {
                self.needs(ProtocolFeatures::BACKEND_REQ)?;
                if let Some(old) = self.channel.take() {
                    old.close(cx);
                }
                self.channel = Some(Channel::new(fd)?);
            }
            Request::GetConfig(header, room) => {
                self.needs(ProtocolFeatures::CONFIG)?;
                progress = Progress::Reply(self.config(header, room));
            }
            Request::SetConfig(header, data) => {
                self.needs(ProtocolFeatures::CONFIG)?;
                // The device keeps what is not the driver's to write, whatever the flags say.
                self.device.write_config(cx, header.offset as usize, data);
            }
            Request::GetInflightFd(wanted) => {
                self.needs(ProtocolFeatures::INFLIGHT_SHMFD)?;
                self.check_inflight(&wanted)?;
                let (granted, memory) = inflight::make(&wanted, self.features)?;
                progress = Progress::Reply(Answer {
                    memory: Some(memory),
                    ..Answer::with(&granted)
                });
            }
            Request::SetInflightFd(given, fd) => {
                self.needs(ProtocolFeatures::INFLIGHT_SHMFD)?;
                self.check_inflight(&given)?;
                if self.rings.iter().any(|ring| ring.run != Run::Stopped) {
                    return Err(Refusal::new(
                        "the in-flight region cannot be changed while rings are served",
                    ));
                }
                self.inflight = Some(inflight::Region::map(given, fd)?);
            }
            Request::SetStatus(status) => {
                self.needs(ProtocolFeatures::STATUS)?;
                if status == 0 {
                    return Ok(self.reset(cx, Reset::Status));
                }
                self.status = status & !DEVICE_NEEDS_RESET;
            }
            Request::GetStatus => {
                self.needs(ProtocolFeatures::STATUS)?;
                progress = reply(&u64::from(self.shown_status()));
            }
            Request::ResetDevice => {
                self.needs(ProtocolFeatures::RESET_DEVICE)?;
                return Ok(self.reset(cx, Reset::Device));
            }
        }
        Ok(progress)
    }

    fn needs(&self, feature: ProtocolFeatures) -> Result<(), Refusal> {
        if self.protocol.contains(feature) {
            return Ok(());
        }
        let names: Vec<&str> = feature.iter_names().map(|(name, _)| name).collect();
        let names = names.join(", ");
        Err(Refusal::new(format!(
            "the request belongs to protocol feature {names}, which was not negotiated"
        )))
    }

    fn shown_status(&self) -> u8 {
        let needs_reset = if self.needs_reset {
            DEVICE_NEEDS_RESET
        } else {
            0
        };
        self.status | needs_reset
    }

    fn is_logging(&self) -> bool {
        self.features & feature::VHOST_LOG_ALL != 0
    }

    fn set_features(&mut self, cx: &mut Cx, features: u64) -> Result<Progress, Refusal> {
        let unknown = features & !self.offered();
        if unknown != 0 {
            return Err(Refusal::new(format!(
                "the client chose features {unknown:#x} that were not offered"
            )));
        }
        let changed = (features ^ self.features) & !TRANSPORT;
        if changed != 0 && self.rings.iter().any(|ring| ring.run != Run::Stopped) {
            return Err(Refusal::new(
                "features of the device cannot change while rings are served",
            ));
        }
        // The driver begins again. Whatever it broke before, a front-end without STATUS has no other way to say so.
        if self.needs_reset && self.is_at_rest() {
            self.features = features;
            return Ok(self.reset(cx, Reset::Begin));
        }
        let switches_log = (features ^ self.features) & feature::VHOST_LOG_ALL != 0;
        self.begin(cx, Change::Features(features), |_, _| switches_log)
    }

    fn config(&self, header: wire::ConfigHeader, room: usize) -> Answer {
        let mut answer = Answer::with(&header);
        let start = answer.payload.len();
        answer.payload.resize(start.saturating_add(room), 0);
        let data = answer.payload.get_mut(start..).unwrap_or_default();
        if let Some(data) = data.get_mut(..header.size as usize) {
            self.device.read_config(header.offset as usize, data);
        }
        answer
    }

    fn check_inflight(&self, inflight: &wire::Inflight) -> Result<(), Refusal> {
        let (queues, size) = (inflight.num_queues, inflight.queue_size);
        let (most, largest) = (self.rings.len(), self.device.max_queue_size());
        if usize::from(queues) > most || size > largest {
            return Err(Refusal::new(format!(
                "an in-flight region of {queues} queues of {size} entries: at most {most} of {largest} are possible"
            )));
        }
        Ok(())
    }

    /// One look for what the device has to say. Whether it said anything.
    pub(crate) fn poll(&mut self, cx: &mut Cx) -> bool {
        let mut busy = false;
        while let Some(event) = self.device.poll(cx) {
            busy = true;
            self.happened(cx, event);
        }
        busy
    }

    fn happened(&mut self, cx: &mut Cx, event: DeviceEvent) {
        match event {
            DeviceEvent::QueueStopped { index, state } => {
                let features = self.features;
                let Some(ring) = self.rings.get_mut(usize::from(index)) else {
                    return;
                };
                ring.run = Run::Stopped;
                match state {
                    Some(state) => ring.base = Some(ring::base(&state, features)),
                    None => ring.is_lost = true,
                }
            }
            DeviceEvent::ConfigChanged => {
                let acknowledges = self.acknowledges();
                if let Some(channel) = &mut self.channel {
                    channel.config_changed(cx, acknowledges);
                }
            }
            DeviceEvent::Broken { index, cause } => self.broken(index, &cause),
            DeviceEvent::Reset => {
                self.is_resetting = false;
                self.needs_reset = false;
                for ring in &mut self.rings {
                    ring.run = Run::Stopped;
                }
            }
        }
    }

    /// An event that is not of the session's.
    pub(crate) fn event(&mut self, cx: &mut Cx, event: Event) {
        match event {
            Event::Ready {
                tag: crate::tags::CHANNEL,
                events,
            } => {
                let acknowledges = self.acknowledges();
                if let Some(channel) = &mut self.channel
                    && !channel.ready(cx, events, acknowledges)
                    && let Some(channel) = self.channel.take()
                {
                    channel.close(cx);
                }
            }
            event => self.device.event(cx, event),
        }
    }

    /// How long the reactor may sleep.
    pub(crate) fn idle(&self) -> Idle {
        match (&self.held, self.device.idle()) {
            // Nobody tells when the last user of retired memory lets go.
            (Some(_), Idle::UntilEvent) => Idle::Bounded,
            (_, idle) => idle,
        }
    }

    /// Whether memory that the client shares for our own use was truncated: nothing there can be believed any more.
    pub(crate) fn is_deceived(&self) -> bool {
        let log = self.log.as_ref().map(|log| log.memory());
        let inflight = self.inflight.as_ref().map(inflight::Region::memory);
        let mut memories = log.into_iter().chain(inflight);
        memories.any(|memory| memory.mapping().is_poisoned())
    }

    /// Lets every ring end, for good. [`is_at_rest`](Self::is_at_rest) tells when.
    pub(crate) fn wind_down(&mut self, cx: &mut Cx) {
        self.held = None;
        for ring in &mut self.rings {
            ring.kick = None;
        }
        if !self.is_resetting {
            self.stop_rings(cx, |_, _| true);
        }
    }

    /// Whether no ring is served.
    pub(crate) fn is_at_rest(&self) -> bool {
        self.rings.iter().all(|ring| ring.run == Run::Stopped)
    }

    /// The client is gone or is to go: drops everything. Nothing but [`poll`](Self::poll), [`event`](Self::event) and
    /// [`is_quiescent`](Self::is_quiescent) may follow.
    pub(crate) fn close(&mut self, cx: &mut Cx) {
        self.held = None;
        if let Some(channel) = self.channel.take() {
            channel.close(cx);
        }
        self.interrupts.disable_all();
        self.device.client_gone();
        if !self.is_resetting {
            self.is_resetting = true;
            self.device.reset(cx);
        }
    }

    /// After [`close`](Self::close): whether nothing of the client is in use any more.
    pub(crate) fn is_quiescent(&self) -> bool {
        !self.is_resetting
    }

    /// What others may know.
    pub(crate) fn info(&self) -> SessionInfo {
        let by_default = self.features & feature::VHOST_USER_PROTOCOL_FEATURES == 0;
        SessionInfo {
            features: self.features,
            protocol_features: self.protocol.bits(),
            memory_regions: self.memory.table().len(),
            queues: self
                .rings
                .iter()
                .map(|ring| QueueInfo {
                    size: ring.size,
                    is_started: ring.kick.is_some(),
                    is_enabled: ring.enabled.unwrap_or(by_default),
                    is_served: ring.run == Run::Running,
                })
                .collect(),
        }
    }
}

fn reply(value: &u64) -> Progress {
    Progress::Reply(Answer::with(value))
}
