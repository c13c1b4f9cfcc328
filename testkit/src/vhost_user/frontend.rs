//! A session.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;

use guest_memory::SharedMemory;
use nix::sys::eventfd::{EfdFlags, EventFd};
use virtio_spec::feature;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::wire::{Wire, backend_code, code};
use super::{Error, Result};
use crate::ram::GuestRam;
use crate::virtio::{self, Kick, Ring, Transport};

/// Protocol feature bits.
#[expect(missing_docs, reason = "the text's own names")]
pub mod protocol {
    pub const MQ: u64 = 1 << 0;
    pub const LOG_SHMFD: u64 = 1 << 1;
    pub const REPLY_ACK: u64 = 1 << 3;
    pub const BACKEND_REQ: u64 = 1 << 5;
    pub const CONFIG: u64 = 1 << 9;
    pub const INFLIGHT_SHMFD: u64 = 1 << 12;
    pub const RESET_DEVICE: u64 = 1 << 13;
    pub const CONFIGURE_MEM_SLOTS: u64 = 1 << 15;
    pub const STATUS: u64 = 1 << 16;
}

/// What user addresses of the guest's memory are more than guest-physical ones: a back-end that takes one for the other finds nothing.
const USER: u64 = 0x7e00_0000_0000;

#[derive(Clone, Copy, IntoBytes, FromBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Region {
    guest: u64,
    size: u64,
    user: u64,
    offset: u64,
}

#[derive(Clone, Copy, IntoBytes, FromBytes, Immutable, KnownLayout)]
#[repr(C)]
struct VringState {
    index: u32,
    value: u32,
}

#[derive(Clone, Copy, IntoBytes, FromBytes, Immutable, KnownLayout)]
#[repr(C)]
struct VringAddr {
    index: u32,
    flags: u32,
    desc: u64,
    used: u64,
    avail: u64,
    log: u64,
}

/// 24 bytes with its padding, as QEMU has it.
#[derive(Clone, Copy, Debug, IntoBytes, FromBytes, Immutable, KnownLayout)]
#[repr(C)]
struct InflightDescription {
    size: u64,
    offset: u64,
    queues: u16,
    queue_size: u16,
    padding: u32,
}

/// Where the back-end writes down what is in flight; outlives it.
#[derive(Clone, Debug)]
pub struct Inflight {
    description: InflightDescription,
    memory: SharedMemory,
}

impl Inflight {
    /// The region.
    #[must_use]
    pub fn memory(&self) -> &SharedMemory {
        &self.memory
    }
}

/// How the session is set up.
#[derive(Clone, Debug)]
pub struct Options {
    /// Guest RAM in bytes.
    pub ram: usize,
    /// Guest-physical address of it.
    pub base: u64,
    /// Protocol features to use where they are offered.
    pub protocol: u64,
    /// Queues and entries for the in-flight region, which is asked for if `protocol` has it.
    pub inflight: (u16, u16),
}

impl Default for Options {
    fn default() -> Self {
        Self {
            ram: 64 << 20,
            base: 1 << 20,
            protocol: u64::MAX,
            inflight: (4, 256),
        }
    }
}

/// A front-end in a session.
#[derive(Debug)]
pub struct Frontend {
    wire: Wire,
    ram: GuestRam,
    options: Options,
    offered: u64,
    accepted: u64,
    protocol: u64,
    /// The back-end's requests.
    backend: Option<Wire>,
    inflight: Option<Inflight>,
    /// Eventfds for errors, one per queue.
    errors: Vec<Arc<EventFd>>,
    started: Vec<u16>,
    /// Where stopped rings stand.
    bases: BTreeMap<u16, u32>,
}

impl Frontend {
    /// Connects, negotiates the protocol and shares fresh memory.
    ///
    /// # Errors
    /// Whatever the back-end refuses.
    pub fn connect(socket: &Path, options: &Options) -> virtio::Result<Self> {
        let ram = GuestRam::new(options.base, options.ram)?;
        Ok(Self::connect_with(socket, options, ram, None)?)
    }

    /// As [`Frontend::connect`] with memory and an in-flight region of an earlier session.
    ///
    /// # Errors
    /// Whatever the back-end refuses.
    pub fn connect_with(
        socket: &Path,
        options: &Options,
        ram: GuestRam,
        inflight: Option<Inflight>,
    ) -> Result<Self> {
        let mut frontend = Self {
            wire: Wire::connect(socket)?,
            ram,
            options: options.clone(),
            offered: 0,
            accepted: 0,
            protocol: 0,
            backend: None,
            inflight: None,
            errors: Vec::new(),
            started: Vec::new(),
            bases: BTreeMap::new(),
        };
        frontend.negotiate()?;
        frontend.share_memory()?;
        if frontend.has(protocol::INFLIGHT_SHMFD) {
            match inflight {
                Some(inflight) => frontend.set_inflight(inflight)?,
                None => frontend.ask_inflight()?,
            }
        }
        Ok(frontend)
    }

    fn negotiate(&mut self) -> Result<()> {
        self.offered = self.ask_u64(code::GET_FEATURES)?;
        self.wire.send(code::SET_OWNER, &[], &[])?;
        if self.offered & feature::VHOST_USER_PROTOCOL_FEATURES == 0 {
            return Err(Error::protocol("no protocol features are offered"));
        }
        let offered = self.ask_u64(code::GET_PROTOCOL_FEATURES)?;
        self.protocol = offered & self.options.protocol;
        let chosen = self.protocol.to_ne_bytes();
        self.wire.send(code::SET_PROTOCOL_FEATURES, &chosen, &[])?;
        if self.has(protocol::BACKEND_REQ) {
            let (ours, theirs) = UnixStream::pair()?;
            self.set(code::SET_BACKEND_REQ_FD, &[], &[theirs.as_fd()])?;
            self.backend = Some(Wire::over(ours)?);
        }
        Ok(())
    }

    /// Whether a protocol feature is in use.
    #[must_use]
    pub fn has(&self, bit: u64) -> bool {
        self.protocol & bit != 0
    }

    /// The message level, for everything this front-end does not do.
    pub fn wire(&mut self) -> &mut Wire {
        &mut self.wire
    }

    /// The back-end's channel.
    pub fn backend(&mut self) -> Option<&mut Wire> {
        self.backend.as_mut()
    }

    /// The in-flight region.
    #[must_use]
    pub fn inflight(&self) -> Option<&Inflight> {
        self.inflight.as_ref()
    }

    /// The eventfd for a queue's errors.
    #[must_use]
    pub fn error_event(&self, index: usize) -> Option<&Arc<EventFd>> {
        self.errors.get(index)
    }

    fn ask_u64(&mut self, request: u32) -> Result<u64> {
        self.wire.ask(request, &[], &[])?.exactly()
    }

    /// Sends a request; with REPLY_ACK its answer must be good.
    ///
    /// # Errors
    /// [`Error::Refused`], those of the socket.
    pub fn set(
        &mut self,
        request: u32,
        payload: &[u8],
        fds: &[std::os::fd::BorrowedFd<'_>],
    ) -> Result<()> {
        if self.has(protocol::REPLY_ACK) {
            self.wire.acknowledged(request, payload, fds)
        } else {
            self.wire.send(request, payload, fds)
        }
    }

    fn region(&self) -> Region {
        Region {
            guest: self.ram.base(),
            size: self.ram.memory().len() as u64,
            user: self.ram.base() + USER,
            offset: 0,
        }
    }

    fn share_memory(&mut self) -> Result<()> {
        let region = self.region();
        let ram = self.ram.clone();
        let fd = [ram.memory().fd()];
        if self.has(protocol::CONFIGURE_MEM_SLOTS) {
            let slots = self.ask_u64(code::GET_MAX_MEM_SLOTS)?;
            if slots == 0 {
                return Err(Error::protocol("no memory slots"));
            }
            let payload = [&[0; 8], region.as_bytes()].concat();
            self.set(code::ADD_MEM_REG, &payload, &fd)
        } else {
            let payload = [&[1, 0, 0, 0, 0, 0, 0, 0], region.as_bytes()].concat();
            self.set(code::SET_MEM_TABLE, &payload, &fd)
        }
    }

    /// Gives the back-end another piece of memory (CONFIGURE_MEM_SLOTS).
    ///
    /// # Errors
    /// As [`Frontend::set`].
    pub fn add_memory(&mut self, ram: &GuestRam) -> Result<()> {
        let region = region_of(ram);
        let payload = [&[0; 8], region.as_bytes()].concat();
        self.set(code::ADD_MEM_REG, &payload, &[ram.memory().fd()])
    }

    /// Takes such a piece away.
    ///
    /// # Errors
    /// As [`Frontend::set`].
    pub fn remove_memory(&mut self, ram: &GuestRam) -> Result<()> {
        let region = region_of(ram);
        let payload = [&[0; 8], region.as_bytes()].concat();
        self.set(code::REM_MEM_REG, &payload, &[])
    }

    fn ask_inflight(&mut self) -> Result<()> {
        let (queues, queue_size) = self.options.inflight;
        let wanted = InflightDescription {
            size: 0,
            offset: 0,
            queues,
            queue_size,
            padding: 0,
        };
        let mut answer = self
            .wire
            .ask(code::GET_INFLIGHT_FD, wanted.as_bytes(), &[])?;
        let description: InflightDescription = answer.exactly()?;
        let (Some(fd), true) = (answer.fds.pop(), answer.fds.is_empty()) else {
            return Err(Error::protocol(
                "not one descriptor of the in-flight region",
            ));
        };
        let memory = SharedMemory::from_fd(fd, description.offset, description.size)
            .map_err(|error| Error::protocol(format!("the in-flight region: {error}")))?;
        self.set_inflight(Inflight {
            description,
            memory,
        })
    }

    fn set_inflight(&mut self, inflight: Inflight) -> Result<()> {
        let description = inflight.description;
        let fds = [inflight.memory.fd()];
        self.set(code::SET_INFLIGHT_FD, description.as_bytes(), &fds)?;
        self.inflight = Some(inflight);
        Ok(())
    }

    fn vring(&mut self, request: u32, index: u16, value: u32) -> Result<()> {
        let state = VringState {
            index: u32::from(index),
            value,
        };
        self.set(request, state.as_bytes(), &[])
    }

    fn vring_fd(&mut self, request: u32, index: u16, event: &EventFd) -> Result<()> {
        let payload = u64::from(index).to_ne_bytes();
        self.set(request, &payload, &[event.as_fd()])
    }

    /// Stops a ring; where it stands, as the protocol encodes it.
    ///
    /// # Errors
    /// Those of the socket.
    pub fn stop_ring(&mut self, index: u16) -> Result<u32> {
        let state = VringState {
            index: u32::from(index),
            value: 0,
        };
        let answer = self.wire.ask(code::GET_VRING_BASE, state.as_bytes(), &[])?;
        let state: VringState = answer.exactly()?;
        self.started.retain(|started| *started != index);
        if state.index != u32::from(index) {
            return Err(Error::protocol("the base of another ring"));
        }
        self.bases.insert(index, state.value);
        Ok(state.value)
    }

    /// Enables or disables a ring.
    ///
    /// # Errors
    /// As [`Frontend::set`].
    pub fn enable_ring(&mut self, index: u16, on: bool) -> Result<()> {
        self.vring(code::SET_VRING_ENABLE, index, u32::from(on))
    }

    fn start_ring(&mut self, index: u16, ring: &mut Ring) -> Result<(Kick, Arc<EventFd>)> {
        let event = || -> Result<Arc<EventFd>> {
            let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
            let event = EventFd::from_value_and_flags(0, flags);
            Ok(Arc::new(event.map_err(std::io::Error::from)?))
        };
        let (kick, call, error) = (event()?, event()?, event()?);
        let size = u32::from(ring.size());
        self.vring(code::SET_VRING_NUM, index, size)?;
        let base = self.bases.remove(&index).unwrap_or_else(|| base(ring));
        self.vring(code::SET_VRING_BASE, index, base)?;
        self.set_addresses(index, ring, false)?;
        self.vring_fd(code::SET_VRING_ERR, index, &error)?;
        self.vring_fd(code::SET_VRING_CALL, index, &call)?;
        self.vring_fd(code::SET_VRING_KICK, index, &kick)?;
        self.errors.resize(usize::from(index) + 1, error.clone());
        self.errors[usize::from(index)] = error;
        self.started.push(index);
        self.enable_ring(index, true)?;
        Ok((Kick::Event(kick), call))
    }

    /// Says where a ring lies, and whether writes to it are logged.
    ///
    /// # Errors
    /// As [`Frontend::set`].
    pub fn set_addresses(&mut self, index: u16, ring: &Ring, log: bool) -> Result<()> {
        let areas = ring.areas();
        let addresses = VringAddr {
            index: u32::from(index),
            flags: u32::from(log),
            desc: areas.desc + USER,
            used: areas.device + USER,
            avail: areas.driver + USER,
            log: areas.device,
        };
        self.set(code::SET_VRING_ADDR, addresses.as_bytes(), &[])
    }

    /// Features that the driver has accepted, with more bits (VHOST_F_LOG_ALL).
    ///
    /// # Errors
    /// As [`Frontend::set`].
    pub fn set_features_with(&mut self, more: u64) -> Result<()> {
        let features = self.accepted | feature::VHOST_USER_PROTOCOL_FEATURES | more;
        self.set(code::SET_FEATURES, &features.to_ne_bytes(), &[])
    }

    /// Gives the back-end a dirty log; one bit for each 4096 bytes of guest-physical memory, from 0 on.
    ///
    /// # Errors
    /// Those of the socket.
    pub fn set_log(&mut self, log: &SharedMemory) -> Result<()> {
        let description = [log.len() as u64, 0u64];
        self.wire
            .ask(code::SET_LOG_BASE, description.as_bytes(), &[log.fd()])?;
        Ok(())
    }

    /// The next request of the back-end, acknowledged.
    ///
    /// # Errors
    /// Those of the socket; [`Error::Protocol`] without such a channel.
    pub fn backend_request(&mut self) -> Result<u32> {
        let channel = self
            .backend
            .as_mut()
            .ok_or_else(|| Error::protocol("there is no channel for the back-end's requests"))?;
        let request = channel.receive()?;
        channel.acknowledge(&request)?;
        Ok(request.request)
    }

    /// Gives its memory, its in-flight region and its options to a session with the same or another back-end.
    ///
    /// # Errors
    /// Whatever the back-end refuses.
    pub fn reconnect(self, socket: &Path) -> Result<Self> {
        let Self {
            ram,
            options,
            inflight,
            ..
        } = self;
        Self::connect_with(socket, &options, ram, inflight)
    }

    /// Duplicates the in-flight region's descriptor.
    ///
    /// # Errors
    /// Those of `dup`.
    pub fn inflight_fd(&self) -> Result<Option<OwnedFd>> {
        let fd = self.inflight.as_ref().map(|it| it.memory.fd());
        Ok(fd.map(|fd| fd.try_clone_to_owned()).transpose()?)
    }
}

fn region_of(ram: &GuestRam) -> Region {
    Region {
        guest: ram.base(),
        size: ram.memory().len() as u64,
        user: ram.base() + USER,
        offset: 0,
    }
}

/// Where a ring stands, as a VMM says it: of a split ring what its used index says; of a packed ring whose position only a
/// back-end that is gone knew, the beginning, as QEMU does.
fn base(ring: &mut Ring) -> u32 {
    match ring {
        Ring::Split(ring) => u32::from(ring.used_idx()),
        Ring::Packed(_) => 0x8000_8000,
    }
}

impl Transport for Frontend {
    fn ram(&self) -> &GuestRam {
        &self.ram
    }

    fn offered(&mut self) -> virtio::Result<u64> {
        Ok(self.offered & !feature::VHOST_USER_PROTOCOL_FEATURES & !feature::VHOST_LOG_ALL)
    }

    fn accept(&mut self, features: u64) -> virtio::Result<()> {
        self.accepted = features;
        Ok(self.set_features_with(0)?)
    }

    fn read_config(&mut self, offset: usize, data: &mut [u8]) -> virtio::Result<()> {
        let header = [offset as u32, data.len() as u32, 0];
        let payload = [header.as_bytes(), data].concat();
        let answer = self.wire.ask(code::GET_CONFIG, &payload, &[])?;
        let read = answer.payload.get(12..).unwrap_or_default();
        if read.len() != data.len() {
            let text = format!("{} bytes of configuration for {}", read.len(), data.len());
            return Err(Error::protocol(text).into());
        }
        data.copy_from_slice(read);
        Ok(())
    }

    fn write_config(&mut self, offset: usize, data: &[u8]) -> virtio::Result<()> {
        let header = [offset as u32, data.len() as u32, 0];
        let payload = [header.as_bytes(), data].concat();
        Ok(self.set(code::SET_CONFIG, &payload, &[])?)
    }

    fn max_queue_size(&mut self, index: u16) -> virtio::Result<u16> {
        // The VMM, not the back-end, chooses the size; ours is as long as the in-flight region has room for.
        let queues = match self.has(protocol::MQ) {
            true => self.ask_u64(code::GET_QUEUE_NUM)?,
            false => 1,
        };
        Ok(match u64::from(index) < queues {
            true => self.options.inflight.1,
            false => 0,
        })
    }

    fn start_queue(&mut self, index: u16, ring: &mut Ring) -> virtio::Result<(Kick, Arc<EventFd>)> {
        Ok(self.start_ring(index, ring)?)
    }

    fn run(&mut self) -> virtio::Result<()> {
        if self.has(protocol::STATUS) {
            let all = virtio_spec::status::ACKNOWLEDGE
                | virtio_spec::status::DRIVER
                | virtio_spec::status::FEATURES_OK
                | virtio_spec::status::DRIVER_OK;
            self.set(code::SET_STATUS, &u64::from(all).to_ne_bytes(), &[])?;
        }
        Ok(())
    }

    fn reset(&mut self) -> virtio::Result<()> {
        for index in std::mem::take(&mut self.started) {
            self.stop_ring(index)?;
        }
        self.bases.clear();
        if self.has(protocol::STATUS) {
            self.set(code::SET_STATUS, &0u64.to_ne_bytes(), &[])?;
        }
        if self.has(protocol::RESET_DEVICE) {
            self.set(code::RESET_DEVICE, &[], &[])?;
        }
        Ok(())
    }

    fn is_broken(&mut self) -> virtio::Result<bool> {
        // Nothing comes unasked but the end of the connection.
        if self.wire.readable(0)? {
            return Err(Error::Closed.into());
        }
        for event in &self.errors {
            if crate::virtio::wait_event(event, std::time::Duration::ZERO)? > 0 {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn config_event(&self) -> Option<Arc<EventFd>> {
        None
    }

    fn acknowledge_config_change(&mut self) -> virtio::Result<()> {
        match self.backend_request()? {
            backend_code::CONFIG_CHANGE => Ok(()),
            other => Err(Error::protocol(format!("request {other} of the back-end")).into()),
        }
    }
}
