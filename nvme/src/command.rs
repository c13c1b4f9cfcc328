//! I/O commands: from a submission queue entry to a request for a disk, or to the status that refuses it.
//!
//! Everything is checked before anything has an effect. A command becomes one request ([`Ready`]); the few that need
//! several, or something to be done after the last, carry a plan (module `plan`).

mod plan;
mod status;

use bdev::{Features, Io, IoKind};
use guest_memory::{Access, MapView, Segments};
use nvme_spec::command::{DsmCdw10, DsmCdw11, DsmRange, RwCdw12};
use nvme_spec::{Fuse, NSID_ALL, NvmOpcode, Sqe, Status};
pub(crate) use plan::{NO_PLAN, Next, Plans};
use reactor::Cx;
pub(crate) use status::{is_cause_ours, status_of};

use crate::data::{self, PageSize};
use crate::shard::disks::{Disk, Disks, NO_DISK, NoDisk};

/// Byte (bits 7:0) and bit (10:8) of a field in a command, for the error log.
mod location {
    pub(super) const OPCODE: u16 = 0;
    pub(super) const FUSE: u16 = 1;
    pub(super) const PSDT: u16 = 1 | 6 << 8;
    pub(super) const NSID: u16 = 4;
    pub(super) const DPTR: u16 = 24;
    pub(super) const SLBA: u16 = 40;
    pub(super) const NLB: u16 = 48;
}
/// No field is at fault.
pub(crate) const NO_LOCATION: u16 = 0xffff;

/// What the controller counts a command as.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Count {
    /// Read and Compare.
    Read,
    /// Write.
    Write,
    /// Neither.
    #[default]
    Other,
}

/// What is remembered of a command until it completes.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Command {
    /// Index of its submission queue in the group.
    pub(crate) sq: u16,
    /// Command identifier.
    pub(crate) cid: u16,
    /// Index of its disk.
    pub(crate) disk: u16,
    /// What it counts as.
    pub(crate) count: Count,
    /// Its plan, or [`NO_PLAN`].
    pub(crate) plan: u8,
    /// Bytes transferred.
    pub(crate) bytes: u32,
    /// First block, for logs.
    pub(crate) lba: u64,
    /// Namespace, for logs.
    pub(crate) nsid: u32,
}

impl Command {
    /// A command that ends without having been decoded.
    pub(crate) fn undecoded(sq: usize, sqe: &Sqe) -> Self {
        Self {
            sq: u16::try_from(sq).unwrap_or(u16::MAX),
            cid: sqe.cid(),
            disk: NO_DISK,
            count: Count::Other,
            plan: NO_PLAN,
            bytes: 0,
            lba: sqe.slba(),
            nsid: sqe.nsid,
        }
    }
}

/// A command that is ready for its disk.
#[derive(Debug)]
pub(crate) struct Ready {
    pub(crate) command: Command,
    pub(crate) io: Io,
}

/// A status other than success, and the field at fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) status: Status,
    pub(crate) location: u16,
}

/// Why an entry gave no request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    /// Nothing is to be done: it has succeeded.
    Done,
    /// It has failed.
    Refused(Refusal),
    /// All plans are in use: decode it again when one is free.
    Later,
}

impl From<Refusal> for Stop {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

/// What decoding needs to know.
pub(crate) struct Decoder<'a> {
    pub(crate) view: &'a MapView,
    pub(crate) page: PageSize,
    /// Largest transfer in bytes.
    pub(crate) max_transfer: u32,
    /// The guest has switched the volatile write cache off: every write is durable.
    pub(crate) write_through: bool,
    pub(crate) disks: &'a mut Disks,
    pub(crate) plans: &'a mut Plans,
}

const fn refuse<T>(status: Status, location: u16) -> Result<T, Refusal> {
    Err(Refusal {
        status: status.with_dnr(true),
        location,
    })
}

fn request(kind: IoKind, lba: u64, blocks: u64) -> Io {
    Io {
        kind,
        lba,
        blocks,
        segments: Segments::new(),
        fua: false,
    }
}

impl Decoder<'_> {
    /// Decodes `sqe`, taken from the submission queue with index `sq`, into `command` and its (first) request.
    ///
    /// # Errors
    /// Why there is none; `command` then says whose completion to post.
    #[inline]
    pub(crate) fn decode(
        &mut self,
        cx: &mut Cx,
        sq: u16,
        sqe: &Sqe,
        command: &mut Command,
    ) -> Result<Io, Stop> {
        *command = Command::undecoded(usize::from(sq), sqe);
        self.work(cx, sqe, command)
    }

    #[inline]
    fn work(&mut self, cx: &mut Cx, sqe: &Sqe, command: &mut Command) -> Result<Io, Stop> {
        // Fused operations are not offered (Identify Controller, FUSES).
        if sqe.cdw0.fuse() != Fuse::NORMAL {
            return Ok(refuse(Status::INVALID_FIELD, location::FUSE)?);
        }
        let opcode = sqe.nvm_opcode();
        match opcode {
            NvmOpcode::READ | NvmOpcode::WRITE | NvmOpcode::COMPARE => {
                let max = self.max_transfer;
                let disk = self.disk(cx, sqe, command)?;
                let range = Range::check(disk, sqe, Some(max))?;
                self.transfer(sqe, opcode, range, command)
            }
            NvmOpcode::FLUSH if sqe.nsid == NSID_ALL => self.flush_all(cx, command),
            NvmOpcode::FLUSH => {
                self.disk(cx, sqe, command)?;
                Ok(request(IoKind::Flush, 0, 0))
            }
            NvmOpcode::WRITE_ZEROES => {
                let disk = self.disk(cx, sqe, command)?;
                let range = Range::check(disk, sqe, None)?;
                let cdw12 = RwCdw12::from_bits(sqe.cdw12);
                let unmap = cdw12.deac()
                    && disk
                        .features()
                        .contains(Features::UNMAP | Features::UNMAP_ZEROES);
                let kind = if unmap {
                    IoKind::Unmap
                } else {
                    IoKind::WriteZeroes
                };
                let mut io = request(kind, range.lba, range.blocks);
                io.fua = cdw12.fua() || self.write_through;
                Ok(io)
            }
            NvmOpcode::DATASET_MANAGEMENT => {
                self.disk(cx, sqe, command)?;
                self.dataset_management(sqe, command)
            }
            _ => Ok(refuse(Status::INVALID_OPCODE, location::OPCODE)?),
        }
    }

    #[inline]
    fn disk(&mut self, cx: &mut Cx, sqe: &Sqe, command: &mut Command) -> Result<&Disk, Refusal> {
        match self.disks.open(cx, sqe.nsid) {
            Ok((found, disk)) => {
                command.disk = found;
                Ok(disk)
            }
            Err(NoDisk::Absent) => refuse(Status::INVALID_NAMESPACE_OR_FORMAT, location::NSID),
            Err(NoDisk::Closed) => Err(NOT_READY),
        }
    }

    #[inline]
    fn data(&self, sqe: &Sqe, bytes: u32, access: Access) -> Result<data::Data, Refusal> {
        let psdt = sqe.cdw0.psdt();
        data::resolve(self.view, self.page, psdt, sqe.dptr, bytes as usize, access).map_err(
            |error| {
                let status = error.status();
                let in_psdt = status.code() == Status::INVALID_FIELD;
                Refusal {
                    status,
                    location: if in_psdt {
                        location::PSDT
                    } else {
                        location::DPTR
                    },
                }
            },
        )
    }

    #[inline]
    fn transfer(
        &mut self,
        sqe: &Sqe,
        opcode: NvmOpcode,
        range: Range,
        command: &mut Command,
    ) -> Result<Io, Stop> {
        let (kind, count, access) = match opcode {
            NvmOpcode::READ => (IoKind::Read, Count::Read, Access::WRITE),
            NvmOpcode::WRITE => (IoKind::Write, Count::Write, Access::READ),
            _ => (IoKind::Compare, Count::Read, Access::READ),
        };
        let data = self.data(sqe, range.bytes, access)?;
        (command.count, command.bytes) = (count, range.bytes);
        if !data.buckets.is_empty() {
            return self.read_around(data, range, command);
        }
        let fua =
            kind == IoKind::Write && (RwCdw12::from_bits(sqe.cdw12).fua() || self.write_through);
        Ok(Io {
            kind,
            lba: range.lba,
            blocks: range.blocks,
            segments: data.segments,
            fua,
        })
    }

    /// A read of which bit buckets swallow a part.
    #[cold]
    fn read_around(
        &mut self,
        data: data::Data,
        range: Range,
        command: &mut Command,
    ) -> Result<Io, Stop> {
        match self.plans.read_around(data, range.bytes as usize) {
            Ok(Some((plan, segments))) => {
                command.plan = plan;
                let mut io = request(IoKind::Read, range.lba, range.blocks);
                io.segments = segments;
                Ok(io)
            }
            Ok(None) => Err(Stop::Later),
            Err(_) => Err(Stop::Refused(Refusal {
                status: Status::INTERNAL_ERROR,
                location: NO_LOCATION,
            })),
        }
    }

    /// Flush of all namespaces (Base 2.0c, 7.1; offered by VWC bits 2:1 = 11b).
    #[cold]
    fn flush_all(&mut self, cx: &mut Cx, command: &mut Command) -> Result<Io, Stop> {
        let Some(first) = self.disks.after(0) else {
            return Err(Stop::Done);
        };
        let Some(plan) = self.plans.flush_all(first) else {
            return Err(Stop::Later);
        };
        match self.disks.open(cx, first) {
            Ok((found, _)) => command.disk = found,
            Err(_) => {
                self.plans.release(plan);
                return Err(Stop::Refused(NOT_READY));
            }
        }
        command.plan = plan;
        Ok(request(IoKind::Flush, 0, 0))
    }

    /// NVM Command Set 1.0, 3.2.3. Only deallocation has an effect here; all attributes are hints.
    fn dataset_management(&mut self, sqe: &Sqe, command: &mut Command) -> Result<Io, Stop> {
        if !DsmCdw11::from_bits(sqe.cdw11).ad() {
            return Err(Stop::Done);
        }
        let count = usize::from(DsmCdw10::from_bits(sqe.cdw10).nr_z()) + 1;
        let bytes = u32::try_from(count * size_of::<DsmRange>()).unwrap_or(u32::MAX);
        let list = self.data(sqe, bytes, Access::READ)?;
        let plan = self
            .plans
            .deallocate(&list.segments, count)
            .ok_or(Stop::Later)?;
        let first = self.first_range(command.disk, plan);
        match first {
            Ok(_) => command.plan = plan,
            Err(_) => self.plans.release(plan),
        }
        first
    }

    fn first_range(&mut self, disk: u16, plan: u8) -> Result<Io, Stop> {
        let Some(disk) = self.disks.get(disk) else {
            return Ok(refuse(Status::INVALID_NAMESPACE_OR_FORMAT, location::NSID)?);
        };
        let mut ranges = self.plans.ranges(plan).iter();
        if !ranges.all(|range| disk.contains(range.slba, u64::from(range.nlb))) {
            return Ok(refuse(Status::LBA_OUT_OF_RANGE, location::DPTR)?);
        }
        // On a disk that cannot unmap the hint is valid and has no effect.
        if !disk.features().contains(Features::UNMAP) {
            return Err(Stop::Done);
        }
        self.plans.next_range(plan).ok_or(Stop::Done)
    }
}

/// The disk may be open at the next try.
const NOT_READY: Refusal = Refusal {
    status: Status::NAMESPACE_NOT_READY,
    location: NO_LOCATION,
};

/// A checked range of blocks.
#[derive(Clone, Copy)]
struct Range {
    lba: u64,
    blocks: u64,
    /// Zero where no data is transferred.
    bytes: u32,
}

impl Range {
    /// SLBA and NLB of a command, with the transfer at most `max` bytes long if it transfers data.
    #[inline]
    fn check(disk: &Disk, sqe: &Sqe, max: Option<u32>) -> Result<Self, Refusal> {
        let (lba, blocks) = (
            sqe.slba(),
            u64::from(RwCdw12::from_bits(sqe.cdw12).blocks()),
        );
        let mut bytes = 0;
        if let Some(max) = max {
            // At most 2^16 blocks of at most 2^31 bytes: no overflow.
            let len = blocks << disk.block_shift();
            match u32::try_from(len) {
                Ok(len) if len <= max => bytes = len,
                _ => return refuse(Status::INVALID_FIELD, location::NLB),
            }
        }
        if !disk.contains(lba, blocks) {
            return refuse(Status::LBA_OUT_OF_RANGE, location::SLBA);
        }
        Ok(Self { lba, blocks, bytes })
    }
}
