//! Rings.

use arbitrary::{Result, Unstructured};
use guest_memory::{Access, MapView, Window};
use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::model::{Files, Layout, Piece};
use super::{address, length};

/// A window, and the bytes it shows.
pub(super) struct Ring {
    window: Window,
    pieces: Vec<Piece>,
    access: Access,
}

impl Ring {
    pub(super) fn build(
        input: &mut Unstructured<'_>,
        view: &MapView,
        layout: &Layout,
    ) -> Result<Option<Self>> {
        let iova = address(input, layout)?;
        let len = length(input)?;
        let access = match input.arbitrary::<u8>()? % 4 {
            0 | 1 => Access::READ | Access::WRITE,
            2 => Access::READ,
            _ => Access::WRITE,
        };
        let resolved = layout.resolve(iova, len, access);
        let window = view.window(iova, len, access);
        // Mappings begin on a page, so an offset in the file says how its place in memory is aligned.
        let mut start = 0;
        let aligned = resolved.pieces.iter().all(|piece| {
            let multiple = if start == 0 { 16 } else { 64 };
            let aligned = (piece.offset | start).is_multiple_of(multiple);
            start += piece.len;
            aligned
        });
        let possible = resolved.fault.is_none() && aligned && len > 0;
        assert_eq!(window.is_ok(), possible, "{resolved:?}");
        let Ok(window) = window else {
            return Ok(None);
        };
        assert_eq!(window.len(), len);
        assert!(!view.is_unleased());
        Ok(Some(Self {
            window,
            pieces: resolved.pieces,
            access,
        }))
    }

    /// The part that holds `size` bytes at `offset`, if one does.
    fn part(&self, offset: usize, size: usize) -> Option<Piece> {
        let mut start = 0;
        self.pieces.iter().find_map(|piece| {
            let inside = offset.checked_sub(start);
            start += piece.len;
            let inside = inside?;
            let fits = inside.checked_add(size)? <= piece.len;
            fits.then(|| Piece {
                file: piece.file,
                offset: piece.offset + inside,
                len: size,
            })
        })
    }

    fn check_read<T>(&self, files: &Files, offset: usize)
    where
        T: FromBytes + IntoBytes + Immutable,
    {
        let part = self.part(offset, size_of::<T>());
        let value = self.window.read::<T>(offset);
        assert_eq!(value.is_some(), part.is_some());
        if let (Some(value), Some(part)) = (value, part) {
            files.assert_eq(&[part], 0, value.as_bytes());
        }
    }

    fn check_written(&self, files: &mut Files, offset: usize, data: &[u8], done: bool) {
        let part = self.part(offset, data.len());
        assert_eq!(done, part.is_some());
        if let Some(part) = part {
            files.write(&[part], 0, data);
        }
    }

    pub(super) fn operate(&self, input: &mut Unstructured<'_>, files: &mut Files) -> Result<()> {
        let code: u8 = input.arbitrary()?;
        let near = usize::from(input.arbitrary::<u16>()?);
        let offset = match code >> 4 {
            15 => usize::MAX - near,
            14 => near,
            // Elements of a ring, the last ones and those behind it included.
            _ => near % (self.window.len() / 16 + 2) * 16,
        };
        let value: u64 = input.arbitrary()?;
        let writable = self.access.contains(Access::WRITE);
        match code & 7 {
            0 => self.check_read::<[u8; 64]>(files, offset),
            1 => self.check_read::<[u64; 2]>(files, offset),
            2 => {
                let offset = offset.saturating_add(usize::from(code & 8 != 0) * 4);
                let part = self.part(offset, 4).filter(|_| offset.is_multiple_of(4));
                let value = self.window.load_u32(offset);
                assert_eq!(value.is_some(), part.is_some());
                if let (Some(value), Some(part)) = (value, part) {
                    files.assert_eq(&[part], 0, value.as_bytes());
                }
            }
            3 if writable => {
                let data = [value; 8];
                let done = self.window.write(offset, &data);
                self.check_written(files, offset, data.as_bytes(), done);
            }
            4 if writable => {
                let data = [value, !value];
                let done = self.window.publish_16(offset, data);
                if offset.is_multiple_of(16) {
                    self.check_written(files, offset, data.as_bytes(), done);
                } else {
                    assert!(!done);
                }
            }
            5 if writable => {
                let data = value as u32;
                let done = self.window.store_u32(offset, data);
                if offset.is_multiple_of(4) {
                    self.check_written(files, offset, data.as_bytes(), done);
                } else {
                    assert!(!done);
                }
            }
            6 => self.window.prefetch(offset),
            _ => self.check_read::<u8>(files, offset),
        }
        Ok(())
    }
}
