//! Physical Region Pages (Base 2.0c, 4.1.1).

use guest_memory::{Access, MapView, Segments};
use nvme_spec::{Dptr, Status};
use zerocopy::IntoBytes;

use super::{DataError, MAX_SEGMENTS, PageSize};

/// Entries of a list read at once.
const CHUNK: usize = 64;
const ENTRY: u64 = 8;

const OFFSET_INVALID: DataError = DataError::Malformed(Status::PRP_OFFSET_INVALID);

/// The memory of `len` bytes behind two PRP entries.
///
/// # Errors
/// As [`push`].
pub(crate) fn resolve(
    view: &MapView,
    page: PageSize,
    dptr: Dptr,
    len: usize,
    access: Access,
) -> Result<Segments, DataError> {
    let mut segments = Segments::new();
    push(view, page, dptr, len, access, &mut segments)?;
    Ok(segments)
}

/// As [`resolve`], into a list that is already where it will be used: moving one costs as much as all the rest.
///
/// # Errors
/// [`DataError`]: an entry that is misaligned for its place, or memory that cannot be reached.
#[inline]
pub(crate) fn push(
    view: &MapView,
    page: PageSize,
    dptr: Dptr,
    len: usize,
    access: Access,
    segments: &mut Segments,
) -> Result<(), DataError> {
    if len == 0 {
        return Ok(());
    }
    // Only the first entry may have an offset, in dwords. The text lets a controller ignore bits 1:0 or refuse them;
    // refusing shows the mistake.
    if dptr.prp1 & 3 != 0 {
        return Err(OFFSET_INVALID);
    }
    let left_in_page = page.bytes() - page.offset(dptr.prp1);
    let first = len.min(usize::try_from(left_in_page).unwrap_or(usize::MAX));
    view.push(segments, dptr.prp1, first, access)?;
    let rest = len - first;
    if rest == 0 {
        return Ok(());
    }
    if rest as u64 > page.bytes() {
        return walk_list(view, page, dptr.prp2, rest, access, segments);
    }
    if page.offset(dptr.prp2) != 0 {
        return Err(OFFSET_INVALID);
    }
    view.push(segments, dptr.prp2, rest, access)?;
    Ok(())
}

/// Pushes the `rest` bytes (more than a page) behind the list at `list`.
///
/// Each chained list starts at offset 0 and so brings at least 511 pages of data or the end: a loop in the chain ends
/// with the transfer.
fn walk_list(
    view: &MapView,
    page: PageSize,
    mut list: u64,
    mut rest: usize,
    access: Access,
    segments: &mut Segments,
) -> Result<(), DataError> {
    // The first list may begin anywhere in its page, on a qword.
    if list & (ENTRY - 1) != 0 {
        return Err(OFFSET_INVALID);
    }
    let mut entries = [0u64; CHUNK];
    loop {
        // A list ends with its page; its last entry leads on only if more than one page of data is still to come.
        let slots =
            usize::try_from((page.bytes() - page.offset(list)) / ENTRY).unwrap_or(usize::MAX);
        let pages = rest.div_ceil(usize::try_from(page.bytes()).unwrap_or(usize::MAX));
        let (data, chained) = if pages > slots {
            (slots - 1, true)
        } else {
            (pages, false)
        };
        for at in (0..data).step_by(CHUNK) {
            let chunk = &mut entries[..CHUNK.min(data - at)];
            view.read_slice(list + at as u64 * ENTRY, chunk.as_mut_bytes())?;
            for &entry in &*chunk {
                if page.offset(entry) != 0 {
                    return Err(OFFSET_INVALID);
                }
                let piece = rest.min(usize::try_from(page.bytes()).unwrap_or(usize::MAX));
                view.push(segments, entry, piece, access)?;
                rest -= piece;
            }
        }
        if segments.count() > MAX_SEGMENTS {
            return Err(DataError::Malformed(Status::INVALID_FIELD));
        }
        if !chained {
            return Ok(());
        }
        list = view.read(list + data as u64 * ENTRY)?;
        if page.offset(list) != 0 {
            return Err(OFFSET_INVALID);
        }
    }
}

#[cfg(test)]
mod tests;
