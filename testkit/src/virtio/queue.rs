//! Block requests over a ring.

use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use guest_memory::SharedMemory;
use nix::poll::{PollFd, PollFlags, poll};
use nix::sys::eventfd::EventFd;
use virtio_spec::blk::{
    ID_BYTES, Lifetime, Range, RequestHeader, S_OK, SECTOR_SIZE, T_DISCARD, T_FLUSH, T_GET_ID,
    T_GET_LIFETIME, T_IN, T_OUT, T_WRITE_ZEROES,
};
use zerocopy::{FromBytes, IntoBytes};

use super::blk::Parts;
use super::{Buffer, Error, PATIENCE, Result, Ring, Table, When};
use crate::ram::GuestRam;
use crate::vfio_user::Client;

/// How a queue tells the device that there is work.
#[derive(Clone, Debug)]
pub enum Kick {
    /// A store to a page that is shared with the device.
    Mapped {
        /// The page.
        page: SharedMemory,
        /// Where in it.
        offset: usize,
        /// The queue's index; with NOTIFICATION_DATA the ring's position goes beside it.
        index: u16,
        /// Whether it was negotiated.
        data: bool,
    },
    /// A message of vfio-user.
    Message {
        /// The connection.
        client: Arc<Mutex<Client>>,
        /// Region and offset.
        at: (u32, u64),
        /// As in `Mapped`.
        index: u16,
        /// As in `Mapped`.
        data: bool,
    },
    /// An eventfd.
    Event(Arc<EventFd>),
}

impl Kick {
    fn value(index: u16, data: bool, position: u16) -> u32 {
        match data {
            true => u32::from(position) << 16 | u32::from(index),
            false => u32::from(index),
        }
    }

    /// Tells the device; `position` is the ring's, for NOTIFICATION_DATA.
    ///
    /// # Errors
    /// Those of the transport.
    pub fn send(&self, position: u16) -> Result<()> {
        match self {
            Self::Mapped {
                page,
                offset,
                index,
                data,
            } => page.store_u32(*offset, Self::value(*index, *data, position)),
            Self::Message {
                client,
                at,
                index,
                data,
            } => {
                let value = Self::value(*index, *data, position).to_le_bytes();
                let len = if *data { 4 } else { 2 };
                let mut client = client.lock().unwrap_or_else(PoisonError::into_inner);
                client.region_write(at.0, at.1, &value[..len])?;
            }
            Self::Event(event) => {
                event.write(1)?;
            }
        }
        Ok(())
    }
}

/// Where a request's header, status and indirect table lie.
#[derive(Clone, Copy, Debug)]
struct Slot {
    header: u64,
    status: u64,
    table: u64,
}

/// A request that has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Done {
    /// What [`BlkQueue::submit`] returned.
    pub slot: u16,
    /// `VIRTIO_BLK_S_*`; 255 if the device has written none.
    pub status: u8,
    /// Bytes the device says it has written; see [`super::Used`].
    pub written: Option<u32>,
}

/// A request queue, driven from one thread.
#[derive(Debug)]
pub struct BlkQueue {
    ring: Ring,
    ram: GuestRam,
    index: u16,
    kick: Kick,
    interrupt: Arc<EventFd>,
    slots: Vec<Slot>,
    free: Vec<u16>,
    /// Slot of the chain with this ID.
    slot_of: Vec<u16>,
    /// Most buffers of an indirect table.
    table_room: usize,
    indirect: bool,
    parts: Parts,
    /// For the requests that bring their own memory: address and length.
    bounce: Option<(u64, usize)>,
}

impl BlkQueue {
    /// Requests over `ring`. `segments` is the most data buffers of a request; with `indirect` they go into a table.
    ///
    /// # Errors
    /// [`Error::Ram`].
    pub fn new(
        ram: &GuestRam,
        index: u16,
        ring: Ring,
        (segments, indirect): (usize, bool),
        kick: Kick,
        interrupt: Arc<EventFd>,
    ) -> Result<Self> {
        let size = ring.size();
        let table_room = segments + 2;
        let mut slots = Vec::new();
        for _ in 0..size {
            // Header and status share no line with those of others.
            let header = ram.alloc(64, 64)?;
            let table = match indirect {
                true => ram.alloc(16 * table_room, 16)?,
                false => 0,
            };
            slots.push(Slot {
                header,
                status: header + 32,
                table,
            });
        }
        Ok(Self {
            ring,
            ram: ram.clone(),
            index,
            kick,
            interrupt,
            slots,
            free: (0..size).rev().collect(),
            slot_of: vec![0; usize::from(size)],
            table_room,
            indirect,
            parts: Parts::default(),
            bounce: None,
        })
    }

    /// Which queue of the device.
    #[must_use]
    pub fn index(&self) -> u16 {
        self.index
    }

    /// The ring, for everything that no honest driver does.
    pub fn ring(&mut self) -> &mut Ring {
        &mut self.ring
    }

    /// The guest's memory.
    #[must_use]
    pub fn ram(&self) -> &GuestRam {
        &self.ram
    }

    /// How it is kicked.
    #[must_use]
    pub fn kicker(&self) -> &Kick {
        &self.kick
    }

    /// Gives it to another connection.
    pub fn reattach(&mut self, kick: Kick, interrupt: Arc<EventFd>) {
        self.kick = kick;
        self.interrupt = interrupt;
    }

    /// Forgets all requests in flight, as after a reset of the device.
    pub fn reset(&mut self) {
        self.ring.reset();
        self.free = (0..self.ring.size()).rev().collect();
    }

    /// Requests in flight.
    #[must_use]
    pub fn in_flight(&self) -> u16 {
        self.ring.in_flight()
    }

    /// The slot that the next request will have.
    #[must_use]
    pub fn next_slot(&self) -> Option<u16> {
        self.free.last().copied()
    }

    /// Puts a request into the ring; its slot, or `None` without room. [`BlkQueue::kick`] shows it to the device.
    #[inline]
    pub fn submit(&mut self, kind: u32, sector: u64, data: &[Buffer]) -> Option<u16> {
        self.submit_with(kind, sector, data, |_| {})
    }

    /// As [`BlkQueue::submit`], with the buffers as `layout` leaves them.
    #[inline]
    pub fn submit_with(
        &mut self,
        kind: u32,
        sector: u64,
        data: &[Buffer],
        layout: impl FnOnce(&mut Parts),
    ) -> Option<u16> {
        let index = *self.free.last()?;
        let slot = self.slots[usize::from(index)];
        let header = RequestHeader {
            kind,
            reserved: 0,
            sector,
        };
        let memory = self.ram.memory();
        memory.write(self.ram.offset(slot.header), &header);
        memory.write(self.ram.offset(slot.status), &0xffu8);
        self.parts.set_plain(kind, slot.header, data, slot.status);
        layout(&mut self.parts);
        let fits = self.parts.count() <= self.table_room;
        let table = match self.indirect && fits {
            true => Table::Indirect(slot.table),
            false => Table::Direct,
        };
        let Parts { readable, writable } = &self.parts;
        let id = self.ring.add(readable, writable, table)?;
        self.free.pop();
        self.slot_of[usize::from(id)] = index;
        Some(index)
    }

    /// Where a slot's header and status lie.
    #[must_use]
    pub fn header_and_status(&self, slot: u16) -> (u64, u64) {
        let slot = self.slots[usize::from(slot)];
        (slot.header, slot.status)
    }

    /// Shows the device what was submitted, and tells it if it wants to be told; whether it did.
    ///
    /// # Errors
    /// Those of the transport.
    #[inline]
    pub fn kick(&mut self) -> Result<bool> {
        let wanted = self.ring.publish();
        if wanted {
            self.kick.send(self.ring.notification_data())?;
        }
        Ok(wanted)
    }

    /// The next request that has ended.
    ///
    /// # Errors
    /// [`Error::Protocol`] for an entry that cannot be.
    #[inline]
    pub fn poll(&mut self) -> Result<Option<Done>> {
        let Some(used) = self.ring.poll()? else {
            return Ok(None);
        };
        let slot = self.slot_of[usize::from(used.id)];
        let at = self.ram.offset(self.slots[usize::from(slot)].status);
        let status = self.ram.memory().read(at).unwrap_or(0xff);
        self.free.push(slot);
        Ok(Some(Done {
            slot,
            status,
            written: used.written,
        }))
    }

    /// Waits for the next request to end, polling.
    ///
    /// # Errors
    /// [`Error::TimedOut`].
    pub fn wait(&mut self) -> Result<Done> {
        let deadline = Instant::now() + PATIENCE;
        let mut looks = 0u32;
        loop {
            if let Some(done) = self.poll()? {
                return Ok(done);
            }
            looks += 1;
            if looks < 1000 {
                std::thread::yield_now();
                continue;
            }
            if Instant::now() > deadline {
                return Err(Error::TimedOut("end a request"));
            }
            std::thread::sleep(Duration::from_micros(50));
        }
    }

    /// Waits for all requests in flight; their statuses, in the order of their end.
    ///
    /// # Errors
    /// [`Error::TimedOut`].
    pub fn drain(&mut self) -> Result<Vec<Done>> {
        let mut all = Vec::new();
        while self.in_flight() > 0 {
            all.push(self.wait()?);
        }
        Ok(all)
    }

    /// Says when it wants interrupts.
    pub fn interrupt(&mut self, when: When) {
        self.ring.interrupt(when);
    }

    /// Waits for an interrupt; how many there were, 0 if none came in time.
    ///
    /// # Errors
    /// Those of the system.
    pub fn wait_interrupt(&self, timeout: Duration) -> Result<u64> {
        wait_event(&self.interrupt, timeout)
    }

    /// Runs one request to its end; its status and the length that the device says it has written.
    ///
    /// # Errors
    /// [`Error::TimedOut`]; [`Error::Protocol`] if another request ended.
    pub fn run(&mut self, kind: u32, sector: u64, data: &[Buffer]) -> Result<Done> {
        let slot = self
            .submit(kind, sector, data)
            .ok_or_else(|| Error::protocol("no room in the ring"))?;
        self.kick()?;
        let done = self.wait()?;
        if done.slot != slot {
            return Err(Error::protocol(format!("{done:?} answers slot {slot}")));
        }
        Ok(done)
    }

    fn run_ok(&mut self, request: &'static str, kind: u32, at: u64, data: &[Buffer]) -> Result<()> {
        match self.run(kind, at, data)?.status {
            S_OK => Ok(()),
            status => Err(Error::Status { request, status }),
        }
    }

    /// Memory for a request: the same each time, as long as it is long enough.
    ///
    /// # Errors
    /// [`Error::Ram`].
    pub fn bounce(&mut self, len: usize) -> Result<Buffer> {
        let addr = match self.bounce {
            Some((addr, room)) if room >= len => addr,
            _ => {
                let room = len.next_power_of_two().max(4096);
                let addr = self.ram.alloc(room, 4096)?;
                self.bounce = Some((addr, room));
                addr
            }
        };
        let len = u32::try_from(len).map_err(|_| Error::protocol("a buffer beyond 4 GiB"))?;
        Ok(Buffer { addr, len })
    }

    /// Reads bytes, a multiple of 512.
    ///
    /// # Errors
    /// A refusal as [`Error::Status`].
    pub fn read(&mut self, sector: u64, len: usize) -> Result<Vec<u8>> {
        let buffer = self.bounce(len)?;
        self.run_ok("read", T_IN, sector, &[buffer])?;
        Ok(self.ram.read(buffer.addr, len))
    }

    /// Writes bytes, a multiple of 512.
    ///
    /// # Errors
    /// A refusal as [`Error::Status`].
    pub fn write(&mut self, sector: u64, data: &[u8]) -> Result<()> {
        let buffer = self.bounce(data.len())?;
        self.ram.write(buffer.addr, data);
        self.run_ok("write", T_OUT, sector, &[buffer])
    }

    /// Flushes.
    ///
    /// # Errors
    /// A refusal as [`Error::Status`].
    pub fn flush(&mut self) -> Result<()> {
        self.run_ok("flush", T_FLUSH, 0, &[])
    }

    fn ranges(&mut self, request: &'static str, kind: u32, ranges: &[Range]) -> Result<()> {
        let buffer = self.bounce(size_of_val(ranges))?;
        self.ram.write(buffer.addr, ranges.as_bytes());
        self.run_ok(request, kind, 0, &[buffer])
    }

    /// Discards.
    ///
    /// # Errors
    /// A refusal as [`Error::Status`].
    pub fn discard(&mut self, ranges: &[Range]) -> Result<()> {
        self.ranges("discard", T_DISCARD, ranges)
    }

    /// Writes zeroes.
    ///
    /// # Errors
    /// A refusal as [`Error::Status`].
    pub fn write_zeroes(&mut self, ranges: &[Range]) -> Result<()> {
        self.ranges("write zeroes", T_WRITE_ZEROES, ranges)
    }

    /// The device's ID, up to its first NUL.
    ///
    /// # Errors
    /// A refusal as [`Error::Status`].
    pub fn get_id(&mut self) -> Result<String> {
        let buffer = self.bounce(ID_BYTES)?;
        self.run_ok("get id", T_GET_ID, 0, &[buffer])?;
        let id = self.ram.read(buffer.addr, ID_BYTES);
        let end = id.iter().position(|byte| *byte == 0).unwrap_or(ID_BYTES);
        Ok(String::from_utf8_lossy(&id[..end]).into_owned())
    }

    /// How worn the device is.
    ///
    /// # Errors
    /// A refusal as [`Error::Status`].
    pub fn lifetime(&mut self) -> Result<Lifetime> {
        let len = size_of::<Lifetime>();
        let buffer = self.bounce(len)?;
        self.run_ok("get lifetime", T_GET_LIFETIME, 0, &[buffer])?;
        Lifetime::read_from_bytes(&self.ram.read(buffer.addr, len))
            .map_err(|_| Error::protocol("a short lifetime"))
    }
}

/// Bytes as sectors.
#[must_use]
pub fn sectors(bytes: usize) -> u64 {
    bytes as u64 / u64::from(SECTOR_SIZE)
}

/// Waits for an eventfd and takes its count; 0 if it stays silent.
pub(crate) fn wait_event(event: &EventFd, timeout: Duration) -> Result<u64> {
    let mut fds = [PollFd::new(event.as_fd(), PollFlags::POLLIN)];
    let millis = u16::try_from(timeout.as_millis()).unwrap_or(u16::MAX);
    if poll(&mut fds, millis)? == 0 {
        return Ok(0);
    }
    Ok(event.read()?)
}
