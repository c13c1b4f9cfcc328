//! One client's device: requests carried out on a [`Function`].
//!
//! A request is answered before the next is looked at. One that cannot be answered yet (the function defers, or memory
//! that is to be unmapped is still in use) is *held*, and with it this client's later requests; nobody else's.

use std::rc::Rc;
use std::time::Duration;

use nix::errno::Errno;
use pci::{Access, Function, ResetKind};
use reactor::{Cx, Event, Idle, Poll, TimerId};
use unix_socket::Link;

use crate::Rejection;
use crate::connection::Output;
use crate::memory::Memory;
use crate::reply::{Mappable, Region, Reply};
use crate::request::{Request, WriteMulti};
use crate::tags;
use crate::wire::{self, DeviceFlags, Header, IrqFlags, RegionAccess, RegionFlags, SparseArea};

mod irqs;

use irqs::Irqs;

/// What is left to do for a held request.
#[derive(Debug)]
enum Work {
    /// The function has deferred a read: once it is ready, it is asked again.
    Read(RegionAccess),
    /// The function has deferred a write.
    Write(RegionAccess),
    /// The function has deferred one of several writes; these come after it.
    WriteMulti {
        count: u64,
        rest: Vec<(RegionAccess, Vec<u8>)>,
    },
    /// Memory that was unmapped is still in use.
    Unmap(wire::DmaUnmap),
    /// The function drains.
    Reset,
}

/// A request that waits for its answer.
#[derive(Debug)]
struct Held {
    header: Header,
    work: Work,
    deadline: Option<TimerId>,
    /// It was refused when its time was over, but the function is still at it.
    refused: bool,
}

/// How a request went on.
enum Progress<'a> {
    /// Answer it.
    Reply(Reply<'a>),
    /// Hold it.
    Hold(Work),
}

/// See the [module documentation](self).
pub(crate) struct Device {
    function: Box<dyn Function>,
    memory: Memory,
    link: Rc<Link>,
    irqs: Irqs,
    held: Option<Held>,
    /// What a read fills.
    data: Vec<u8>,
    answer_within: Duration,
}

/// What the read buffer may keep between requests, in bytes.
const KEPT: usize = 16 << 10;

impl Device {
    pub(crate) fn new(
        function: Box<dyn Function>,
        answer_within: Duration,
        link: Rc<Link>,
    ) -> Self {
        for (region, index) in function.regions().iter().zip(0..) {
            if let Some(area) = &region.shared
                && mappable(area).is_none()
            {
                tracing::error!(
                    region = index,
                    "the device shares memory that clients would not find; it is not offered to them"
                );
            }
        }
        Self {
            function,
            memory: Memory::new(Rc::clone(&link)),
            link,
            irqs: Irqs::default(),
            held: None,
            data: Vec::new(),
            answer_within,
        }
    }

    /// Whether a request is held: no other may be handled.
    pub(crate) fn is_holding(&self) -> bool {
        self.held.is_some()
    }

    /// Carries out a request and answers it, or holds it.
    pub(crate) fn handle(
        &mut self,
        cx: &mut Cx,
        header: Header,
        request: Request<'_>,
        output: &mut Output,
    ) -> Result<(), Rejection> {
        let progress = match request {
            Request::Version(_) => {
                return Err(Rejection::invalid("the version is agreed already"));
            }
            Request::DmaMap(region) => {
                if self.memory.map(region)? {
                    self.function.map_changed(cx, self.memory.current());
                }
                Progress::Reply(Reply::Done)
            }
            Request::DmaUnmap(unmap) => {
                if self.memory.unmap(unmap.address, unmap.size)? {
                    self.function.map_changed(cx, self.memory.current());
                }
                self.drain(unmap)
            }
            Request::DmaUnmapAll(unmap) => {
                self.memory.unmap_all();
                self.function.map_changed(cx, self.memory.current());
                self.drain(unmap)
            }
            Request::DeviceInfo => {
                Progress::Reply(Reply::DeviceInfo(DeviceFlags::PCI | DeviceFlags::RESET))
            }
            Request::RegionInfo { argsz, index } => {
                self.region_info(&header, argsz, index, output);
                return Ok(());
            }
            Request::RegionIoFds { index } => {
                if self.region(index).is_none_or(|region| region.size == 0) {
                    return Err(Rejection::invalid("the device has no such region"));
                }
                Progress::Reply(Reply::RegionIoFds { index })
            }
            Request::IrqInfo { index } => Progress::Reply(Reply::IrqInfo {
                index,
                flags: IrqFlags::EVENTFD,
                count: irqs::vectors(self.function.interrupts(), index),
            }),
            Request::SetIrqs(change) => {
                self.irqs.change(cx, &mut *self.function, change)?;
                Progress::Reply(Reply::Done)
            }
            Request::RegionRead(access) => self.read(cx, access)?,
            Request::RegionWrite(access, data) => self.write(cx, access, data)?,
            Request::RegionWriteMulti(writes) => self.write_multi(cx, writes)?,
            Request::DeviceReset => match self.function.reset(cx, ResetKind::Device) {
                Access::Done => Progress::Reply(Reply::Done),
                Access::Fault(errno) => return Err(faulted(errno)),
                Access::Defer => Progress::Hold(Work::Reset),
            },
        };
        match progress {
            Progress::Reply(reply) => output.reply(&header, &reply),
            Progress::Hold(work) => self.hold(cx, header, work, output),
        }
        self.data.clear();
        self.data.shrink_to(KEPT);
        Ok(())
    }

    fn region(&self, index: u32) -> Option<&pci::Region> {
        self.function.regions().get(index as usize)
    }

    fn region_info(&self, header: &Header, argsz: u32, index: u32, output: &mut Output) {
        let absent = pci::Region::default();
        let region = self.region(index).unwrap_or(&absent);
        let mut flags = RegionFlags::empty();
        flags.set(RegionFlags::READ, region.readable);
        flags.set(RegionFlags::WRITE, region.writable);
        let described = Region {
            index,
            flags,
            size: region.size,
            mappable: region.shared.as_ref().and_then(mappable),
        };
        let memory = region
            .shared
            .as_ref()
            .filter(|_| described.carries_descriptor(argsz))
            .map(|area| area.memory.clone());
        let reply = Reply::RegionInfo {
            argsz,
            region: described,
        };
        output.reply_with(header, &reply, memory);
    }

    /// Holds an access against the region that it is for.
    fn check(&self, access: &RegionAccess, write: bool) -> Result<(), Rejection> {
        let region = self
            .region(access.region)
            .filter(|region| region.size > 0)
            .ok_or(Rejection::invalid("the device has no such region"))?;
        if !(if write {
            region.writable
        } else {
            region.readable
        }) {
            return Err(Rejection::invalid(
                "the region does not take this kind of access",
            ));
        }
        let end = access.offset.checked_add(access.count.into());
        if end.is_none_or(|end| end > region.size) {
            return Err(Rejection::invalid(
                "region access beyond the end of the region",
            ));
        }
        Ok(())
    }

    fn read(&mut self, cx: &mut Cx, access: RegionAccess) -> Result<Progress<'_>, Rejection> {
        self.check(&access, false)?;
        self.data.clear();
        self.data.resize(access.count as usize, 0);
        let (region, offset) = (access.region, access.offset);
        let done = match self.data.as_mut_slice() {
            [] => Access::Done,
            data => self.function.read(cx, region, offset, data),
        };
        match done {
            Access::Done => Ok(Progress::Reply(Reply::RegionRead(access, &self.data))),
            Access::Fault(errno) => Err(faulted(errno)),
            Access::Defer => Ok(Progress::Hold(Work::Read(access))),
        }
    }

    fn write(
        &mut self,
        cx: &mut Cx,
        access: RegionAccess,
        data: &[u8],
    ) -> Result<Progress<'static>, Rejection> {
        self.check(&access, true)?;
        match self.write_one(cx, &access, data) {
            Access::Done => Ok(Progress::Reply(Reply::RegionWrite(access))),
            Access::Fault(errno) => Err(faulted(errno)),
            Access::Defer => Ok(Progress::Hold(Work::Write(access))),
        }
    }

    fn write_one(&mut self, cx: &mut Cx, access: &RegionAccess, data: &[u8]) -> Access {
        if data.is_empty() {
            return Access::Done;
        }
        self.function.write(cx, access.region, access.offset, data)
    }

    fn write_multi(
        &mut self,
        cx: &mut Cx,
        writes: WriteMulti<'_>,
    ) -> Result<Progress<'static>, Rejection> {
        // Nothing is written unless everything may be.
        for (access, _) in writes.iter() {
            self.check(&access, true)?;
        }
        let mut rest = writes.iter();
        while let Some((access, data)) = rest.next() {
            match self.write_one(cx, &access, data) {
                Access::Done => {}
                Access::Fault(errno) => return Err(faulted(errno)),
                Access::Defer => {
                    let rest = rest.map(|(access, data)| (access, data.to_vec())).collect();
                    let count = writes.len();
                    return Ok(Progress::Hold(Work::WriteMulti { count, rest }));
                }
            }
        }
        Ok(Progress::Reply(Reply::RegionWriteMulti(writes.len())))
    }

    fn drain(&mut self, unmap: wire::DmaUnmap) -> Progress<'static> {
        if self.memory.is_drained() {
            Progress::Reply(Reply::DmaUnmap(unmap))
        } else {
            Progress::Hold(Work::Unmap(unmap))
        }
    }

    fn hold(&mut self, cx: &mut Cx, header: Header, work: Work, output: &mut Output) {
        // Operations that outlive one unmap usually hold all memory that was mapped when they began. So once time is
        // over for one, it is for those that follow: a client that waits for the last of many must not wait for
        // the sum.
        let spent = match work {
            Work::Unmap(_) => self.memory.draining_since().map(|since| since.elapsed()),
            _ => None,
        };
        let left = self.answer_within.saturating_sub(spent.unwrap_or_default());
        self.held = Some(Held {
            header,
            work,
            deadline: None,
            refused: false,
        });
        if left.is_zero() {
            self.time_is_over(cx, output);
        } else if let Some(held) = &mut self.held {
            held.deadline = Some(cx.timer(left, tags::DEADLINE));
        }
    }

    /// The held request must be answered now: a late reply is worse for QEMU than a refusal, since it gives up the
    /// connection for good.
    pub(crate) fn time_is_over(&mut self, cx: &mut Cx, output: &mut Output) {
        let Some(held) = self.held.as_mut().filter(|held| !held.refused) else {
            return;
        };
        held.refused = true;
        if let Some(timer) = held.deadline.take() {
            cx.cancel_timer(timer);
        }
        if self.link.complaints().allow() {
            tracing::warn!(
                command = %held.header.command(),
                after = ?self.answer_within,
                "the device has not come to rest: look for a disk that does not answer"
            );
        }
        output.refuse(&held.header, Errno::EBUSY);
        if matches!(held.work, Work::Unmap(_)) {
            // The range is out of the map; asked again, the client learns when it is free.
            self.held = None;
        }
    }

    /// Looks whether the held request can be answered. Whether it was.
    pub(crate) fn advance(&mut self, cx: &mut Cx, output: &mut Output) -> bool {
        let Some(held) = &self.held else {
            return false;
        };
        let deferred = match held.work {
            Work::Unmap(_) if self.memory.is_drained() => Access::Done,
            Work::Unmap(_) => return false,
            _ => match self.function.deferred() {
                None | Some(Access::Defer) => return false,
                Some(access) => access,
            },
        };
        let Some(held) = self.held.take() else {
            return false;
        };
        if let Some(timer) = held.deadline {
            cx.cancel_timer(timer);
        }
        let header = held.header;
        if held.refused {
            return true;
        }
        let progress = match (deferred, held.work) {
            (Access::Fault(errno), _) => Err(faulted(errno)),
            (_, Work::Read(access)) => self.read(cx, access),
            (_, Work::Write(access)) => Ok(Progress::Reply(Reply::RegionWrite(access))),
            (_, Work::WriteMulti { count, rest }) => self.resume_writes(cx, count, rest),
            (_, Work::Unmap(unmap)) => Ok(Progress::Reply(Reply::DmaUnmap(unmap))),
            (_, Work::Reset) => Ok(Progress::Reply(Reply::Done)),
        };
        match progress {
            Ok(Progress::Reply(reply)) => output.reply(&header, &reply),
            Ok(Progress::Hold(work)) => self.hold(cx, header, work, output),
            Err(rejection) => output.refuse(&header, rejection.errno),
        }
        true
    }

    fn resume_writes(
        &mut self,
        cx: &mut Cx,
        count: u64,
        rest: Vec<(RegionAccess, Vec<u8>)>,
    ) -> Result<Progress<'static>, Rejection> {
        let mut rest = rest.into_iter();
        while let Some((access, data)) = rest.next() {
            match self.write_one(cx, &access, &data) {
                Access::Done => {}
                Access::Fault(errno) => return Err(faulted(errno)),
                Access::Defer => {
                    let rest = rest.collect();
                    return Ok(Progress::Hold(Work::WriteMulti { count, rest }));
                }
            }
        }
        Ok(Progress::Reply(Reply::RegionWriteMulti(count)))
    }

    /// One look for work of the function's.
    pub(crate) fn poll(&mut self, cx: &mut Cx) -> bool {
        self.function.poll(cx) == Poll::Busy
    }

    /// An event that is not of the socket's.
    pub(crate) fn event(&mut self, cx: &mut Cx, event: Event) {
        match event {
            Event::Ready { tag, .. } if tag >= tags::MASKS => {
                self.irqs.fired(cx, &mut *self.function, tag);
            }
            event => self.function.event(cx, event),
        }
    }

    /// How long the reactor may sleep.
    pub(crate) fn idle(&self) -> Idle {
        match (&self.held, self.function.idle()) {
            // Nobody tells when the last user of retired memory lets go.
            (Some(_), Idle::UntilEvent) => Idle::Bounded,
            (_, idle) => idle,
        }
    }

    /// The client is gone or is to go: stops everything. Nothing but [`poll`](Self::poll), [`event`](Self::event) and
    /// [`is_quiescent`](Self::is_quiescent) may follow.
    pub(crate) fn close(&mut self, cx: &mut Cx, kind: ResetKind) {
        if let Some(timer) = self.held.take().and_then(|held| held.deadline) {
            cx.cancel_timer(timer);
        }
        self.irqs.close(cx, self.function.interrupts());
        // Whether it is done or deferred: `is_quiescent` tells.
        self.function.reset(cx, kind);
    }

    /// After [`close`](Self::close): whether nothing of the client is in use any more.
    pub(crate) fn is_quiescent(&self) -> bool {
        self.function.is_quiescent()
    }
}

fn faulted(errno: Errno) -> Rejection {
    Rejection::new(errno, "the device refuses the access")
}

/// How a shared area is described, if it can be.
fn mappable(area: &pci::SharedArea) -> Option<Mappable> {
    Some(Mappable {
        area: SparseArea {
            offset: area.offset,
            size: area.memory.len() as u64,
        },
        // Clients add the area's offset to the region's. An area that lies nearer to the start of its descriptor than of
        // its region cannot be found that way.
        file_offset: area.memory.file_offset().checked_sub(area.offset)?,
    })
}

#[cfg(test)]
mod tests;
