//! Scatter gather lists (Base 2.0c, 4.1.2).
//!
//! Offered (what Identify Controller's SGLS has to say): SGLs without alignment or granularity requirement (bits 1:0 =
//! 01b), bit buckets (bit 16), lists longer than the data (bit 18). Not offered: keyed descriptors (bit 2), a metadata
//! pointer that is an SGL (bit 19), addresses as offsets (bit 20).

use guest_memory::{Access, MapView, Segments};
use nvme_spec::{SglDescriptor, SglSubtype, SglType, Status};
use zerocopy::{FromZeros, IntoBytes};

use super::{DataError, MAX_SEGMENTS};

/// Descriptors of a segment read at once.
const CHUNK: usize = 32;
const DESCRIPTOR: u64 = size_of::<SglDescriptor>() as u64;
/// Descriptors looked at in one command at most: beyond it a list is a loop or an attack on our time.
const MAX_DESCRIPTORS: u64 = 4096;
/// Segments followed at most.
const MAX_CHAIN: u32 = 256;
/// Bit buckets in one read at most.
pub(crate) const MAX_BUCKETS: usize = 16;

/// A stretch of a read that goes nowhere.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Bucket {
    /// Where it starts, in bytes of the transfer.
    pub(crate) start: usize,
    /// Bytes.
    pub(crate) len: usize,
}

/// The bit buckets of a read, in order. One pointer, since hardly any command has some.
#[derive(Debug, Default)]
pub(crate) struct Buckets(Option<Box<List>>);

#[derive(Debug, Default)]
struct List {
    buckets: [Bucket; MAX_BUCKETS],
    count: usize,
}

impl Buckets {
    /// Whether everything goes somewhere.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// All, in order.
    pub(crate) fn as_slice(&self) -> &[Bucket] {
        let list = self.0.as_deref();
        list.and_then(|list| list.buckets.get(..list.count))
            .unwrap_or_default()
    }

    fn push(&mut self, bucket: Bucket) -> Result<(), DataError> {
        let list = self.0.get_or_insert_default();
        *list.buckets.get_mut(list.count).ok_or(TOO_MANY)? = bucket;
        list.count += 1;
        Ok(())
    }
}

const BAD_SEGMENT: DataError = DataError::Malformed(Status::INVALID_SGL_SEGMENT_DESCRIPTOR);
const TOO_MANY: DataError = DataError::Malformed(Status::INVALID_NUMBER_OF_SGL_DESCRIPTORS);
const BAD_TYPE: DataError = DataError::Malformed(Status::SGL_DESCRIPTOR_TYPE_INVALID);
const TOO_SHORT: DataError = DataError::Malformed(Status::DATA_SGL_LENGTH_INVALID);

/// A segment to walk.
#[derive(Clone, Copy)]
struct Segment {
    address: u64,
    descriptors: u64,
    /// Described by a Last Segment descriptor: holds no further segment.
    last: bool,
}

impl Segment {
    fn of(descriptor: &SglDescriptor, last: bool) -> Result<Self, DataError> {
        let length = u64::from(descriptor.length);
        let aligned = descriptor.address.is_multiple_of(8) && length.is_multiple_of(DESCRIPTOR);
        let end = descriptor.address.checked_add(length);
        if !aligned || length == 0 || end.is_none() {
            return Err(BAD_SEGMENT);
        }
        Ok(Self {
            address: descriptor.address,
            descriptors: length / DESCRIPTOR,
            last,
        })
    }
}

struct Walk<'a> {
    view: &'a MapView,
    access: Access,
    wanted: usize,
    /// Bytes of the transfer described so far.
    done: usize,
    segments: &'a mut Segments,
    buckets: Buckets,
}

impl Walk<'_> {
    fn is_complete(&self) -> bool {
        self.done == self.wanted
    }

    /// Takes one descriptor; a segment to follow if it is one.
    fn take(&mut self, descriptor: &SglDescriptor) -> Result<Option<Segment>, DataError> {
        if descriptor.id.subtype() != SglSubtype::ADDRESS {
            return Err(BAD_TYPE);
        }
        let len = usize::try_from(descriptor.length)
            .unwrap_or(usize::MAX)
            .min(self.wanted - self.done);
        match descriptor.id.sgl_type() {
            SglType::DATA_BLOCK => {
                self.view
                    .push(self.segments, descriptor.address, len, self.access)?;
                self.done += len;
                if self.segments.count() > MAX_SEGMENTS {
                    return Err(TOO_MANY);
                }
                Ok(None)
            }
            SglType::BIT_BUCKET => {
                // In a source buffer it stands for nothing (figure "SGL Bit Bucket descriptor").
                if self.access.contains(Access::WRITE) && len > 0 {
                    self.buckets.push(Bucket {
                        start: self.done,
                        len,
                    })?;
                    self.done += len;
                }
                Ok(None)
            }
            SglType::SEGMENT => Segment::of(descriptor, false).map(Some),
            SglType::LAST_SEGMENT => Segment::of(descriptor, true).map(Some),
            _ => Err(BAD_TYPE),
        }
    }

    /// Takes the descriptors of a segment; the next segment if it leads on.
    fn segment(
        &mut self,
        segment: Segment,
        budget: &mut u64,
    ) -> Result<Option<Segment>, DataError> {
        let mut chunk = [SglDescriptor::new_zeroed(); CHUNK];
        let mut at = 0;
        while at < segment.descriptors {
            let count = (segment.descriptors - at).min(CHUNK as u64);
            *budget = budget.checked_sub(count).ok_or(TOO_MANY)?;
            let chunk = &mut chunk[..usize::try_from(count).unwrap_or(CHUNK)];
            self.view
                .read_slice(segment.address + at * DESCRIPTOR, chunk.as_mut_bytes())?;
            for descriptor in &*chunk {
                at += 1;
                let next = self.take(descriptor)?;
                if self.is_complete() {
                    return Ok(None);
                }
                match next {
                    Some(_) if segment.last => return Err(BAD_SEGMENT),
                    Some(_) if at < segment.descriptors => return Err(TOO_MANY),
                    Some(next) => return Ok(Some(next)),
                    None => {}
                }
            }
        }
        // Only a last segment may end with data.
        if segment.last {
            Ok(None)
        } else {
            Err(BAD_SEGMENT)
        }
    }
}

/// Pushes the memory of `len` bytes behind SGL descriptor 1; answers the bit buckets among them.
///
/// # Errors
/// [`DataError`]: a list that breaks a rule, is too short or too long to follow, or memory that cannot be reached.
pub(crate) fn push(
    view: &MapView,
    first: SglDescriptor,
    len: usize,
    access: Access,
    segments: &mut Segments,
) -> Result<Buckets, DataError> {
    let mut walk = Walk {
        view,
        access,
        wanted: len,
        done: 0,
        segments,
        buckets: Buckets::default(),
    };
    let mut next = walk.take(&first)?;
    let mut budget = MAX_DESCRIPTORS;
    let mut chain = 0;
    while let Some(segment) = next.filter(|_| !walk.is_complete()) {
        chain += 1;
        if chain > MAX_CHAIN {
            return Err(TOO_MANY);
        }
        next = walk.segment(segment, &mut budget)?;
    }
    if !walk.is_complete() {
        return Err(TOO_SHORT);
    }
    Ok(walk.buckets)
}

#[cfg(test)]
mod tests;
