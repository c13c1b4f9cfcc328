//! I/O commands: from a submission queue entry to a request for a disk, or to the status that refuses it.
//!
//! Everything is checked before anything has an effect. A command becomes one request ([`Ready`]); the few that need
//! several, or something to be done after the last, carry a plan (module `plan`).

mod plan;
mod status;

use bdev::{Count, Features, Io, IoKind};
use guest_memory::{Access, Segments};
use nvme_spec::command::{DsmCdw10, DsmCdw11, DsmRange, RwCdw12};
use nvme_spec::{Fuse, NSID_ALL, NvmOpcode, Sqe, Status};
pub(crate) use plan::{NO_PLAN, Next, Plans};
use reactor::Cx;
pub(crate) use status::{is_cause_ours, status_of};

use crate::data::sgl::Buckets;
use crate::data::{self, DataError};
use crate::shard::disks::{Disk, NO_DISK, NoDisk};
use crate::shard::env::Env;

/// Byte (bits 7:0) and bit (10:8) of a field in a command, for the error log.
pub(crate) mod location {
    pub(crate) const OPCODE: u16 = 0;
    pub(crate) const FUSE: u16 = 1;
    pub(crate) const PSDT: u16 = 1 | 6 << 8;
    pub(crate) const CID: u16 = 2;
    pub(crate) const NSID: u16 = 4;
    pub(crate) const DPTR: u16 = 24;
    pub(crate) const SLBA: u16 = 40;
    pub(crate) const NLB: u16 = 48;
}
/// No field is at fault.
pub(crate) const NO_LOCATION: u16 = 0xffff;

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

/// A command with its (first) request. Decoding builds it in the place from which it is submitted: a request is too large
/// to be moved about.
#[derive(Debug, Default)]
pub(crate) struct Ready {
    pub(crate) command: Command,
    /// `None` before decoding, and once submitted.
    pub(crate) io: Option<Io>,
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

const fn refuse<T>(status: Status, location: u16) -> Result<T, Refusal> {
    Err(Refusal {
        status: status.with_dnr(true),
        location,
    })
}

/// The disk may be open at the next try.
const NOT_READY: Refusal = Refusal {
    status: Status::NAMESPACE_NOT_READY,
    location: NO_LOCATION,
};

fn request(kind: IoKind, lba: u64, blocks: u64) -> Io {
    Io {
        kind,
        lba,
        blocks,
        segments: Segments::new(),
        fua: false,
    }
}

/// Decodes `sqe`, taken from the submission queue with index `sq`, into `ready`.
///
/// # Errors
/// Why there is no request; `ready.command` then says whose completion to post.
#[inline]
pub(crate) fn decode(
    env: &mut Env,
    cx: &mut Cx,
    sq: u16,
    sqe: &Sqe,
    ready: &mut Ready,
) -> Result<(), Stop> {
    ready.command = Command::undecoded(usize::from(sq), sqe);
    // Fused operations are not offered (Identify Controller, FUSES).
    if sqe.cdw0.fuse() != Fuse::NORMAL {
        return Ok(refuse(Status::INVALID_FIELD, location::FUSE)?);
    }
    match sqe.nvm_opcode() {
        NvmOpcode::READ => transfer::<READ>(env, cx, sqe, ready),
        NvmOpcode::WRITE => transfer::<WRITE>(env, cx, sqe, ready),
        NvmOpcode::COMPARE if !env.masked_commands.compare => {
            transfer::<COMPARE>(env, cx, sqe, ready)
        }
        other => {
            ready.io = Some(rare(env, cx, sqe, other, &mut ready.command)?);
            Ok(())
        }
    }
}

const READ: u8 = NvmOpcode::READ.0;
const WRITE: u8 = NvmOpcode::WRITE.0;
const COMPARE: u8 = NvmOpcode::COMPARE.0;

#[inline]
fn transfer<const OPCODE: u8>(
    env: &mut Env,
    cx: &mut Cx,
    sqe: &Sqe,
    ready: &mut Ready,
) -> Result<(), Stop> {
    let (kind, count, access) = match OPCODE {
        READ => (IoKind::Read, Count::Read, Access::WRITE),
        WRITE => (IoKind::Write, Count::Write, Access::READ),
        _ => (IoKind::Compare, Count::Read, Access::READ),
    };
    let max = env.max_transfer;
    let command = &mut ready.command;
    let range = Range::check(find(env, cx, sqe, command)?, sqe, Some(max))?;
    (command.count, command.bytes) = (count, range.bytes);
    let fua = kind == IoKind::Write && (RwCdw12::from_bits(sqe.cdw12).fua() || env.write_through);
    let io = ready.io.insert(Io {
        kind,
        lba: range.lba,
        blocks: range.blocks,
        segments: Segments::new(),
        fua,
    });
    match data(env, sqe, range.bytes, access, &mut io.segments) {
        Ok(buckets) if buckets.is_empty() => Ok(()),
        Ok(buckets) => read_around(env, buckets, range.bytes, ready),
        Err(refusal) => {
            ready.io = None;
            Err(refusal.into())
        }
    }
}

/// The disk of a command.
#[inline]
fn find<'a>(
    env: &'a mut Env,
    cx: &mut Cx,
    sqe: &Sqe,
    command: &mut Command,
) -> Result<&'a Disk, Refusal> {
    match env.disks.open(cx, sqe.nsid) {
        Ok((found, disk)) => {
            command.disk = found;
            Ok(disk)
        }
        Err(NoDisk::Absent) => refuse(Status::INVALID_NAMESPACE_OR_FORMAT, location::NSID),
        Err(NoDisk::Unreachable(status)) => Err(Refusal {
            status,
            location: NO_LOCATION,
        }),
        Err(NoDisk::Closed) => Err(NOT_READY),
    }
}

/// A command's memory.
#[inline]
fn data(
    env: &Env,
    sqe: &Sqe,
    bytes: u32,
    access: Access,
    segments: &mut Segments,
) -> Result<Buckets, Refusal> {
    let psdt = sqe.cdw0.psdt();
    data::push(
        &env.view,
        env.page,
        psdt,
        sqe.dptr,
        bytes as usize,
        access,
        segments,
    )
    .map_err(bad_data)
}

#[cold]
fn bad_data(error: DataError) -> Refusal {
    let status = error.status();
    let location = if status.code() == Status::INVALID_FIELD {
        location::PSDT
    } else {
        location::DPTR
    };
    Refusal { status, location }
}

/// A read of which bit buckets swallow a part.
#[cold]
fn read_around(env: &mut Env, buckets: Buckets, bytes: u32, ready: &mut Ready) -> Result<(), Stop> {
    let Some(mut io) = ready.io.take() else {
        return Err(Stop::Done);
    };
    let guest = std::mem::take(&mut io.segments);
    match env.plans.read_around(guest, buckets, bytes as usize) {
        Ok(Some((plan, segments))) => {
            ready.command.plan = plan;
            io.segments = segments;
            ready.io = Some(io);
            Ok(())
        }
        Ok(None) => Err(Stop::Later),
        Err(_) => Err(Stop::Refused(Refusal {
            status: Status::INTERNAL_ERROR,
            location: NO_LOCATION,
        })),
    }
}

/// Everything that is not about data blocks.
#[inline(never)]
fn rare(
    env: &mut Env,
    cx: &mut Cx,
    sqe: &Sqe,
    opcode: NvmOpcode,
    command: &mut Command,
) -> Result<Io, Stop> {
    if opcode != NvmOpcode::WRITE_ZEROES {
        // These Dwords say something else.
        command.lba = 0;
    }
    let masked = env.masked_commands;
    match opcode {
        NvmOpcode::FLUSH if sqe.nsid == NSID_ALL => flush_all(env, cx, command),
        NvmOpcode::FLUSH => {
            find(env, cx, sqe, command)?;
            Ok(request(IoKind::Flush, 0, 0))
        }
        NvmOpcode::WRITE_ZEROES if !masked.write_zeroes => write_zeroes(env, cx, sqe, command),
        NvmOpcode::DATASET_MANAGEMENT if !masked.dataset_management => {
            find(env, cx, sqe, command)?;
            dataset_management(env, sqe, command)
        }
        _ => Ok(refuse(Status::INVALID_OPCODE, location::OPCODE)?),
    }
}

/// Flush of all namespaces (Base 2.0c, 7.1; offered by VWC bits 2:1 = 11b).
fn flush_all(env: &mut Env, cx: &mut Cx, command: &mut Command) -> Result<Io, Stop> {
    let first = env.disks.after(0).ok_or(Stop::Done)?;
    let plan = env.plans.flush_all(first).ok_or(Stop::Later)?;
    match env.disks.open(cx, first) {
        Ok((found, _)) => command.disk = found,
        Err(_) => {
            env.plans.release(plan);
            return Err(Stop::Refused(NOT_READY));
        }
    }
    command.plan = plan;
    Ok(request(IoKind::Flush, 0, 0))
}

/// NVM Command Set 1.0, 3.2.8. Deallocating is a permission: used where it leaves zeroes behind.
fn write_zeroes(env: &mut Env, cx: &mut Cx, sqe: &Sqe, command: &mut Command) -> Result<Io, Stop> {
    const UNMAP: Features = Features::UNMAP.union(Features::UNMAP_ZEROES);
    let write_through = env.write_through;
    let disk = find(env, cx, sqe, command)?;
    let range = Range::check(disk, sqe, None)?;
    let cdw12 = RwCdw12::from_bits(sqe.cdw12);
    let kind = if cdw12.deac() && disk.features().contains(UNMAP) {
        IoKind::Unmap
    } else {
        IoKind::WriteZeroes
    };
    let mut io = request(kind, range.lba, range.blocks);
    io.fua = cdw12.fua() || write_through;
    Ok(io)
}

/// NVM Command Set 1.0, 3.2.3. Only deallocation has an effect here; all attributes are hints.
fn dataset_management(env: &mut Env, sqe: &Sqe, command: &mut Command) -> Result<Io, Stop> {
    if !DsmCdw11::from_bits(sqe.cdw11).ad() {
        return Err(Stop::Done);
    }
    let count = usize::from(DsmCdw10::from_bits(sqe.cdw10).nr_z()) + 1;
    let bytes = u32::try_from(count * size_of::<DsmRange>()).unwrap_or(u32::MAX);
    let mut list = Segments::new();
    data(env, sqe, bytes, Access::READ, &mut list)?;
    let plan = env.plans.deallocate(&list, count).ok_or(Stop::Later)?;
    let first = first_range(env, command, plan);
    match first {
        Ok(_) => command.plan = plan,
        Err(_) => env.plans.release(plan),
    }
    first
}

fn first_range(env: &mut Env, command: &mut Command, plan: u8) -> Result<Io, Stop> {
    let Some(disk) = env.disks.get(command.disk) else {
        return Ok(refuse(Status::INVALID_NAMESPACE_OR_FORMAT, location::NSID)?);
    };
    let mut ranges = env.plans.ranges(plan).iter();
    if let Some(beyond) = ranges.find(|range| !disk.contains(range.slba, u64::from(range.nlb))) {
        command.lba = beyond.slba;
        return Ok(refuse(Status::LBA_OUT_OF_RANGE, location::DPTR)?);
    }
    // On a disk that cannot unmap the hint is valid and has no effect.
    if !disk.features().contains(Features::UNMAP) {
        return Err(Stop::Done);
    }
    env.plans.next_range(plan).ok_or(Stop::Done)
}

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
