//! Scatter lists, over guest memory and over own buffers.

use arbitrary::{Result, Unstructured};
use guest_memory::{Access, HostBuffer, INLINE_SEGMENTS, MapView, Segments, SharedRam};

use super::model::{Files, Layout, Piece};
use super::{RAM_LEN, address, length};
use crate::noise;

/// A list, and the bytes it stands for.
pub(super) struct List {
    segments: Segments,
    pieces: Vec<Piece>,
    access: Access,
}

/// Where in a RAM disk: mostly inside.
pub(super) fn ram_offset(input: &mut Unstructured<'_>) -> Result<u64> {
    Ok(match input.arbitrary::<u16>()? {
        u16::MAX => input.arbitrary()?,
        near => u64::from(near) % (RAM_LEN as u64 + 64),
    })
}

/// Reads a RAM disk from its start.
pub(super) fn read_ram(ram: &SharedRam, contents: &mut [u8]) {
    let list = Segments::from_host(HostBuffer::new(contents.len()));
    assert!(ram.read(0, &list));
    let buffer = list.into_host().expect("the buffer");
    contents.copy_from_slice(buffer.as_slice());
}

fn check_shape(list: &Segments, len: usize) {
    assert_eq!(list.len(), len);
    assert_eq!(list.is_empty(), len == 0);
    let vectors = list.iovecs();
    assert_eq!(list.count(), vectors.len());
    assert_eq!(vectors.iter().map(|v| v.iov_len).sum::<usize>(), len);
    assert!(vectors.iter().all(|v| v.iov_len > 0));
    let ends = vectors.iter().map(|v| v.iov_base as usize + v.iov_len);
    let starts = vectors.iter().map(|v| v.iov_base as usize);
    assert!(
        ends.zip(starts.skip(1)).all(|(end, start)| end != start),
        "neighbours that are not merged"
    );
    let aligned = vectors
        .iter()
        .all(|v| (v.iov_base as usize).is_multiple_of(512) && v.iov_len.is_multiple_of(16));
    assert_eq!(list.is_aligned(512, 16), aligned);
}

fn truncate(pieces: &mut Vec<Piece>, len: usize) {
    let mut left = len;
    pieces.retain_mut(|piece| {
        piece.len = piece.len.min(left);
        left -= piece.len;
        piece.len > 0
    });
}

fn advance(pieces: &mut Vec<Piece>, bytes: usize) {
    let mut left = bytes;
    pieces.retain_mut(|piece| {
        let step = piece.len.min(left);
        left -= step;
        piece.offset += step;
        piece.len -= step;
        piece.len > 0
    });
}

impl List {
    /// A list of a few ranges, as a request's pages would make it; `None` when one cannot be reached.
    pub(super) fn build(
        input: &mut Unstructured<'_>,
        view: &MapView,
        layout: &Layout,
    ) -> Result<Option<Self>> {
        let code: u8 = input.arbitrary()?;
        let access = match code >> 6 {
            0 | 1 => Access::READ | Access::WRITE,
            2 => Access::READ,
            _ => Access::WRITE,
        };
        let mut list = Self {
            segments: Segments::new(),
            pieces: Vec::new(),
            access,
        };
        for _ in 0..1 + usize::from(code & 0x3f) % (3 * INLINE_SEGMENTS) {
            let iova = address(input, layout)?;
            let len = length(input)?;
            let resolved = layout.resolve(iova, len, access);
            let pushed = view.push(&mut list.segments, iova, len, access);
            assert_eq!(pushed.is_ok(), resolved.fault.is_none());
            if pushed.is_err() {
                return Ok(None);
            }
            list.pieces.extend(resolved.pieces);
            list.check();
        }
        assert!(!view.is_unleased());
        Ok(Some(list))
    }

    fn len(&self) -> usize {
        self.pieces.iter().map(|piece| piece.len).sum()
    }

    fn check(&self) {
        check_shape(&self.segments, self.len());
        assert!(self.segments.count() <= self.pieces.len());
    }

    pub(super) fn operate(
        &mut self,
        input: &mut Unstructured<'_>,
        files: &mut Files,
        ram: &SharedRam,
        ram_model: &mut [u8],
    ) -> Result<()> {
        let known = files.are_known(&self.pieces);
        let len = self.len();
        match input.arbitrary::<u8>()? % 10 {
            0 => {
                let to = length(input)?;
                self.segments.truncate(to);
                truncate(&mut self.pieces, to);
            }
            1 => {
                let by = length(input)?;
                self.segments.advance(by);
                advance(&mut self.pieces, by);
            }
            2 | 3 => {
                let (skip, len) = (length(input)?, length(input)?);
                let mut data = vec![0xee; len];
                let copied = self.segments.copy_to_slice(skip, &mut data);
                let expected = files.read(&self.pieces, skip, len);
                assert_eq!(copied, expected.len());
                assert!(!known || data[..copied] == expected, "other bytes");
                assert!(data[copied..].iter().all(|&byte| byte == 0xee));
                if known {
                    assert!(self.segments.matches(skip, &expected));
                    if let Some(last) = data[..copied].last_mut() {
                        *last ^= 1;
                        assert!(!self.segments.matches(skip, &data[..copied]));
                    }
                    assert_eq!(self.segments.matches(skip, &data), copied == 0 && len == 0);
                }
            }
            4 if self.access.contains(Access::WRITE) => {
                let (skip, len) = (length(input)?, length(input)?);
                let data = noise::bytes(input.arbitrary::<u8>()?.into(), len);
                let copied = self.segments.copy_from_slice(skip, &data);
                assert_eq!(copied, files.write(&self.pieces, skip, &data));
            }
            5 if self.access.contains(Access::WRITE) => {
                self.segments.zero();
                files.write(&self.pieces, 0, &vec![0; len]);
            }
            6 if self.access.contains(Access::WRITE) => {
                let offset = ram_offset(input)?;
                let inside = inside(offset, len);
                assert_eq!(ram.read(offset, &self.segments), inside.is_some());
                if let Some(range) = inside {
                    files.write(&self.pieces, 0, &ram_model[range]);
                }
            }
            7 | 8 => {
                let offset = ram_offset(input)?;
                let inside = inside(offset, len);
                let written = match input.arbitrary::<u16>()? {
                    0 => ram.write(offset, &self.segments),
                    next => ram.write_ahead(offset, &self.segments, u64::from(next) << 3),
                };
                assert_eq!(written, inside.is_some());
                if let Some(range) = inside {
                    if known {
                        ram_model[range].copy_from_slice(&files.read(&self.pieces, 0, len));
                    } else {
                        read_ram(ram, ram_model);
                    }
                }
            }
            _ => {
                let offset = ram_offset(input)?;
                let inside = inside(offset, len);
                let equal = ram.matches(offset, &self.segments);
                assert_eq!(equal.is_some(), inside.is_some());
                if let (Some(range), true) = (inside, known) {
                    let expected = ram_model[range] == files.read(&self.pieces, 0, len);
                    assert_eq!(equal, Some(expected));
                }
                self.segments.prefetch(4);
                self.segments.prefetch_for_write(4);
            }
        }
        self.check();
        Ok(())
    }
}

/// The range of the RAM disk, if it is one.
fn inside(offset: u64, len: usize) -> Option<std::ops::Range<usize>> {
    let from = usize::try_from(offset).ok()?;
    let range = from..from.checked_add(len)?;
    (range.end <= RAM_LEN).then_some(range)
}

/// A bounce buffer's life.
pub(super) fn own_buffer(
    input: &mut Unstructured<'_>,
    ram: &SharedRam,
    ram_model: &mut [u8],
) -> Result<()> {
    let len = length(input)?;
    let mut buffer = HostBuffer::new(len);
    let mut contents = noise::bytes(input.arbitrary::<u8>()?.into(), len);
    buffer.as_mut_slice().copy_from_slice(&contents);
    let mut list = Segments::from_host(buffer);
    let (mut from, mut to) = (0, len);
    for _ in 0..1 + input.arbitrary::<u8>()? % 4 {
        let offset = ram_offset(input)?;
        let inside = inside(offset, to - from);
        match input.arbitrary::<u8>()? % 4 {
            0 => {
                assert_eq!(ram.write(offset, &list), inside.is_some());
                if let Some(range) = inside {
                    ram_model[range].copy_from_slice(&contents[from..to]);
                }
            }
            1 => {
                assert_eq!(ram.read(offset, &list), inside.is_some());
                if let Some(range) = inside {
                    contents[from..to].copy_from_slice(&ram_model[range]);
                }
            }
            2 => {
                let by = length(input)?;
                list.advance(by);
                from += by.min(to - from);
            }
            _ => {
                let len = length(input)?;
                list.truncate(len);
                to = to.min(from + len);
            }
        }
        assert_eq!(list.len(), to - from);
        assert_eq!(
            list.iovecs().iter().map(|v| v.iov_len).sum::<usize>(),
            to - from
        );
    }
    let buffer = list.into_host().expect("the buffer");
    assert!(buffer.as_slice() == contents, "the buffer differs");
    Ok(())
}
