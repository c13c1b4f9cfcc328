//! From a chain of buffers to a request for the disk, or to the status that answers it (5.2.6).
//!
//! Everything is checked before anything has an effect. Layouts are free (2.7.4): the header may lie in several buffers, or in one with
//! data behind it; the status is the last byte that the device may write.

use bdev::{Count, Features, Io, IoKind};
use guest_memory::{Access, Fault, MapView, Segments};
use reactor::Cx;
use virtio_spec::blk::{
    Lifetime, RANGE_UNMAP, Range, RequestHeader, S_IOERR, S_OK, S_UNSUPP, SECTOR_SIZE, T_DISCARD,
    T_FLUSH, T_GET_ID, T_GET_LIFETIME, T_IN, T_OUT, T_WRITE_ZEROES,
};
use zerocopy::IntoBytes;

use super::disks::{Disk, NO_DISK};
use super::env::Env;
use super::plan::{CROSSED, MAX_SEGMENTS, MAX_STEP, Plan};
use crate::blk::config::MAX_RANGES;
use crate::blk::messages::Mode;
use crate::queue::{Buffer, Chain, Head};

const HEADER: usize = size_of::<RequestHeader>();
const RANGE: usize = size_of::<Range>();
const RANGES: usize = MAX_RANGES as usize;

/// What is remembered of a request until it ends.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) head: Head,
    /// Index of its disk.
    pub(super) disk: u16,
    /// Bytes written to the guest if it succeeds, the status among them.
    pub(super) written: u32,
    /// Bytes written to the guest if it fails. The length of a used element counts from the first writable byte on (2.7.8.2), so a
    /// status behind data that was not written does not count.
    pub(super) written_failed: u32,
    /// Guest-physical address of the status.
    pub(super) status_at: u64,
    /// First sector, for logs.
    pub(super) sector: u64,
    /// The memory as it was when the request was decoded, if it has changed since.
    pub(super) view: Option<MapView>,
    /// What it counts as, and its bytes.
    pub(super) count: Count,
    pub(super) bytes: u32,
    /// What comes after the present step.
    pub(super) plan: Option<Box<Plan>>,
}

impl Default for Request {
    fn default() -> Self {
        Self {
            head: Head(0),
            disk: NO_DISK,
            written: 1,
            written_failed: 1,
            status_at: 0,
            sector: 0,
            view: None,
            count: Count::Other,
            bytes: 0,
            plan: None,
        }
    }
}

/// A request with its (first) step. Decoding builds it in the place from which it is submitted: it is too large to be moved
/// about.
#[derive(Debug, Default)]
pub(super) struct Ready {
    pub(super) request: Request,
    /// `None` before decoding, and once submitted.
    pub(super) io: Option<Io>,
}

/// Why a chain gave nothing for the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// It is answered already.
    Status(u8),
    /// There is no place for an answer.
    Broken(&'static str),
}

const IOERR: Stop = Stop::Status(S_IOERR);
const UNSUPP: Stop = Stop::Status(S_UNSUPP);

/// A chain's data in one direction: the buffers, and how many bytes of the first do not belong to it.
#[derive(Clone, Copy)]
struct Data<'a> {
    buffers: &'a [Buffer],
    skip: u32,
}

impl Data<'_> {
    /// Length in bytes. A chain is shorter than 2^32 buffers, each shorter than 2^32 bytes.
    #[inline]
    fn len(&self) -> u64 {
        let all: u64 = self
            .buffers
            .iter()
            .map(|buffer| u64::from(buffer.len))
            .sum();
        all - u64::from(self.skip)
    }

    /// The memory, without the bytes left out.
    #[inline]
    fn push(&self, view: &MapView, access: Access, to: &mut Segments) -> Result<(), Fault> {
        let mut skip = self.skip;
        for buffer in self.buffers {
            let (addr, len) = (buffer.addr.wrapping_add(u64::from(skip)), buffer.len - skip);
            view.push(to, addr, len as usize, access)?;
            skip = 0;
        }
        Ok(())
    }
}

/// Splits off the status: it is the last writable byte.
#[inline]
fn split_status(chain: &mut Chain, view: &MapView) -> Result<u64, Stop> {
    let Some(last) = chain.writable.last_mut() else {
        return Err(Stop::Broken("a request has no room for its status"));
    };
    let at = last
        .addr
        .wrapping_add(u64::from(last.len.saturating_sub(1)));
    if view.check(at, 1, Access::WRITE).is_err() {
        return Err(Stop::Broken("a request's status does not lie in memory"));
    }
    last.len = last.len.saturating_sub(1);
    if last.len == 0 {
        chain.writable.pop();
    }
    Ok(at)
}

/// Reads the header; answers it with the buffer and the byte in that behind it. The inner error is the memory's.
#[inline]
fn split_header(
    chain: &Chain,
    view: &MapView,
) -> Result<(Result<RequestHeader, Fault>, usize, u32), Stop> {
    const LEN: u32 = HEADER as u32;
    match chain.readable.first() {
        Some(first) if first.len == LEN => Ok((view.read(first.addr), 1, 0)),
        Some(first) if first.len > LEN => Ok((view.read(first.addr), 0, LEN)),
        _ => gather_header(chain, view),
    }
}

/// As [`split_header`], from several buffers.
#[cold]
fn gather_header(
    chain: &Chain,
    view: &MapView,
) -> Result<(Result<RequestHeader, Fault>, usize, u32), Stop> {
    let mut bytes = [0; HEADER];
    let mut rest = &mut bytes[..];
    let mut fault = None;
    for (buffer, at) in chain.readable.iter().zip(0..) {
        let piece = rest.len().min(buffer.len as usize);
        let (now, later) = std::mem::take(&mut rest).split_at_mut(piece);
        fault = fault.or(view.read_slice(buffer.addr, now).err());
        rest = later;
        if rest.is_empty() {
            let taken = u32::try_from(piece).unwrap_or(0);
            let behind = if taken == buffer.len {
                (at + 1, 0)
            } else {
                (at, taken)
            };
            let header = match fault {
                Some(fault) => Err(fault),
                None => Ok(zerocopy::transmute!(bytes)),
            };
            return Ok((header, behind.0, behind.1));
        }
    }
    Err(Stop::Broken("a request is shorter than its header"))
}

/// Decodes the chain with this head into `ready`.
///
/// # Errors
/// Why there is nothing for the disk; `ready.request` then says how to answer.
#[inline]
pub(super) fn decode(
    env: &mut Env,
    cx: &mut Cx,
    queue: u16,
    chain: &mut Chain,
    head: Head,
    ready: &mut Ready,
) -> Result<(), Stop> {
    let request = &mut ready.request;
    (request.head, request.disk) = (head, NO_DISK);
    (request.count, request.bytes) = (Count::Other, 0);
    request.status_at = split_status(chain, &env.view)?;
    request.written_failed = u32::from(chain.writable.is_empty());
    request.written = request.written_failed;
    let (header, first, skip) = split_header(chain, &env.view)?;
    let Ok(header) = header else {
        env.unreachable(queue, 0);
        return Err(IOERR);
    };
    request.sector = header.sector;
    match header.kind {
        T_IN => transfer::<false>(env, cx, queue, chain, (0, 0), ready),
        T_OUT => transfer::<true>(env, cx, queue, chain, (first, skip), ready),
        kind => rare(env, cx, (queue, kind), chain, (first, skip), ready),
    }
}

/// A read or a write.
#[inline]
fn transfer<const WRITE: bool>(
    env: &mut Env,
    cx: &mut Cx,
    queue: u16,
    chain: &mut Chain,
    (first, skip): (usize, u32),
    ready: &mut Ready,
) -> Result<(), Stop> {
    let request = &mut ready.request;
    let buffers = if WRITE {
        chain.readable.get(first..).unwrap_or_default()
    } else {
        &chain.writable
    };
    let data = Data { buffers, skip };
    let len = data.len();
    if WRITE && env.readonly {
        return Err(IOERR);
    }
    let Some((index, disk)) = env.disks.open(cx) else {
        return Err(IOERR);
    };
    let sectors = len / u64::from(SECTOR_SIZE);
    let (Some(lba), Some(blocks), Ok(bytes)) = (
        disk.blocks(request.sector),
        disk.blocks(sectors),
        u32::try_from(len),
    ) else {
        return Err(IOERR);
    };
    if !len.is_multiple_of(u64::from(SECTOR_SIZE)) {
        return Err(IOERR);
    }
    request.disk = index;
    request.count = if WRITE { Count::Write } else { Count::Read };
    request.bytes = bytes;
    if !WRITE {
        request.written = bytes.saturating_add(1);
    }
    let (kind, access) = if WRITE {
        (IoKind::Write, Access::READ)
    } else {
        (IoKind::Read, Access::WRITE)
    };
    let fua = WRITE && disk.is_cached() && env.mode.has(Mode::WRITE_THROUGH);
    if len > MAX_STEP || buffers.len() > MAX_SEGMENTS {
        // The disk checks each step; here all must be known to be there.
        if lba
            .checked_add(blocks)
            .is_none_or(|end| end > disk.shown().num_blocks)
        {
            return Err(IOERR);
        }
        let place = (lba, len, disk.block_shift());
        return long_transfer(
            env,
            queue,
            (kind, fua, access),
            place,
            chain,
            (first, skip),
            ready,
        );
    }
    let io = ready.io.insert(Io {
        kind,
        lba,
        blocks,
        segments: Segments::new(),
        fua,
    });
    if data.push(&env.view, access, &mut io.segments).is_err() {
        ready.io = None;
        env.unreachable(queue, request.sector);
        return Err(IOERR);
    }
    // A buffer that lies in very many regions: no VM's memory is like that, and what is in flight must not grow with it.
    if io.segments.count() > CROSSED {
        ready.io = None;
        return Err(IOERR);
    }
    Ok(())
}

/// A transfer that goes in several steps.
#[cold]
fn long_transfer(
    env: &mut Env,
    queue: u16,
    (kind, fua, access): (IoKind, bool, Access),
    place: (u64, u64, u32),
    chain: &mut Chain,
    from: (usize, u32),
    ready: &mut Ready,
) -> Result<(), Stop> {
    let buffers = if kind == IoKind::Write {
        &mut chain.readable
    } else {
        &mut chain.writable
    };
    let reach = |buffer: &Buffer| {
        env.view
            .check(buffer.addr, buffer.len as usize, access)
            .is_ok()
    };
    if !buffers.iter().all(reach) {
        env.unreachable(queue, ready.request.sector);
        return Err(IOERR);
    }
    let mut plan = env.plans.take();
    plan.set_transfer((kind, fua), place, buffers, from);
    begin(env, plan, ready)
}

/// Starts a plan.
fn begin(env: &mut Env, mut plan: Box<Plan>, ready: &mut Ready) -> Result<(), Stop> {
    match plan.next(&env.view) {
        Ok(Some(io)) => {
            ready.io = Some(io);
            ready.request.plan = Some(plan);
            Ok(())
        }
        Ok(None) => {
            env.plans.give(plan);
            Err(Stop::Status(S_OK))
        }
        Err(_) => {
            env.plans.give(plan);
            Err(IOERR)
        }
    }
}

/// Everything that is neither a read nor a write.
#[inline(never)]
fn rare(
    env: &mut Env,
    cx: &mut Cx,
    (queue, kind): (u16, u32),
    chain: &Chain,
    (first, skip): (usize, u32),
    ready: &mut Ready,
) -> Result<(), Stop> {
    let read = Data {
        buffers: chain.readable.get(first..).unwrap_or_default(),
        skip,
    };
    let write = Data {
        buffers: &chain.writable,
        skip: 0,
    };
    match kind {
        T_FLUSH => {
            let (index, _) = env.disks.open(cx).ok_or(IOERR)?;
            ready.request.disk = index;
            ready.io = Some(step(IoKind::Flush, (0, 0), false));
            Ok(())
        }
        T_GET_ID => {
            let id = env.serial;
            answer(env, queue, write, &id, &mut ready.request)
        }
        T_GET_LIFETIME if env.mode.has(Mode::LIFETIME) => {
            let lifetime = Lifetime::default();
            if write.len() < size_of::<Lifetime>() as u64 {
                return Err(IOERR);
            }
            answer(env, queue, write, lifetime.as_bytes(), &mut ready.request)
        }
        T_DISCARD if env.mode.has(Mode::DISCARD) => ranges::<false>(env, cx, queue, read, ready),
        T_WRITE_ZEROES if env.mode.has(Mode::WRITE_ZEROES) => {
            ranges::<true>(env, cx, queue, read, ready)
        }
        _ => Err(UNSUPP),
    }
}

fn step(kind: IoKind, (lba, blocks): (u64, u64), fua: bool) -> Io {
    Io {
        kind,
        lba,
        blocks,
        segments: Segments::new(),
        fua,
    }
}

/// Answers with as many of `bytes` as there is room for.
fn answer(
    env: &mut Env,
    queue: u16,
    data: Data<'_>,
    bytes: &[u8],
    request: &mut Request,
) -> Result<(), Stop> {
    let mut memory = Segments::new();
    if data.push(&env.view, Access::WRITE, &mut memory).is_err() {
        env.unreachable(queue, 0);
        return Err(IOERR);
    }
    let copied = memory.copy_from_slice(0, bytes);
    let all = copied as u64 == data.len();
    request.written = u32::try_from(copied)
        .unwrap_or(0)
        .saturating_add(all.into());
    Err(Stop::Status(S_OK))
}

/// Discards, or writes zeroes to, one or several ranges.
fn ranges<const ZERO: bool>(
    env: &mut Env,
    cx: &mut Cx,
    queue: u16,
    data: Data<'_>,
    ready: &mut Ready,
) -> Result<(), Stop> {
    // 5.2.6.1: whole ranges, and not more than max_discard_seg or max_write_zeroes_seg.
    let len = usize::try_from(data.len()).map_err(|_| IOERR)?;
    if len == 0 || !len.is_multiple_of(RANGE) || len > RANGES * RANGE {
        return Err(IOERR);
    }
    let mut memory = Segments::new();
    if data.push(&env.view, Access::READ, &mut memory).is_err() {
        env.unreachable(queue, ready.request.sector);
        return Err(IOERR);
    }
    // Copied out once: what is checked is what is done.
    let mut list = [Range::default(); RANGES];
    memory.copy_to_slice(0, &mut list.as_mut_bytes()[..len]);
    let list = &list[..len / RANGE];
    let known = if ZERO { RANGE_UNMAP } else { 0 };
    if list.iter().any(|range| range.flags & !known != 0) {
        return Err(UNSUPP);
    }
    if env.readonly {
        return Err(IOERR);
    }
    let (index, disk) = env.disks.open(cx).ok_or(IOERR)?;
    let features = disk.shown().features;
    if !ZERO && !features.contains(Features::UNMAP) {
        // Another disk than the one that was negotiated about.
        return Err(UNSUPP);
    }
    if !list.iter().all(|range| is_valid(disk, range, ZERO)) {
        return Err(IOERR);
    }
    let frees = Features::UNMAP | Features::UNMAP_ZEROES;
    let unmap = list.iter().all(|range| range.flags & RANGE_UNMAP != 0) && features.contains(frees);
    let kind = if !ZERO || unmap {
        IoKind::Unmap
    } else {
        IoKind::WriteZeroes
    };
    let fua = disk.is_cached() && env.mode.has(Mode::WRITE_THROUGH);
    ready.request.disk = index;
    let place = |range: &Range| {
        Some((
            disk.blocks(range.sector)?,
            disk.blocks(u64::from(range.num_sectors))?,
        ))
    };
    if let [range] = list {
        ready.io = place(range).map(|place| step(kind, place, fua));
        return Ok(());
    }
    let mut plan = env.plans.take();
    plan.set_ranges(kind, fua, list.iter().filter_map(place));
    begin(env, plan, ready)
}

/// Whether a range is whole blocks, on the disk, and not longer than was said (5.2.4).
fn is_valid(disk: &Disk, range: &Range, zero: bool) -> bool {
    let shown = disk.shown();
    let most = if zero {
        shown.max_zeroes()
    } else {
        shown.max_discard()
    };
    let (first, count) = (
        disk.blocks(range.sector),
        disk.blocks(u64::from(range.num_sectors)),
    );
    let end = first.and_then(|first| first.checked_add(count?));
    range.num_sectors <= most && end.is_some_and(|end| end <= shown.num_blocks)
}
