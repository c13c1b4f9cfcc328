//! Files as byte arrays, and regions as a list that is searched from the front.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::LazyLock;

use guest_memory::{Access, MapError};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::uio::{pread, pwrite};
use nix::unistd::ftruncate;

use crate::noise;

pub(super) const PAGE: usize = guest_memory::PAGE_SIZE;

/// The second file ends within a page.
const FILES: [usize; 2] = [4 * PAGE, 2 * PAGE + 512];

/// Bytes in one of the files.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Piece {
    pub(super) file: usize,
    pub(super) offset: usize,
    pub(super) len: usize,
}

struct File {
    fd: OwnedFd,
    contents: Vec<u8>,
    size: usize,
    /// Truncated: what a mapping of it holds is nobody's business any more.
    lost: bool,
}

/// The memory that the client shares.
pub(super) struct Files(Vec<File>);

impl Files {
    pub(super) fn new() -> Self {
        static CONTENTS: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| {
            let sizes = (0..).zip(FILES);
            sizes
                .map(|(number, size)| noise::bytes(number, size))
                .collect()
        });
        let file = |(contents, size): (&Vec<u8>, usize)| {
            let fd = memfd_create(c"guest", MFdFlags::MFD_CLOEXEC).expect("a memfd");
            let contents = contents.clone();
            assert_eq!(pwrite(&fd, &contents, 0), Ok(size));
            File {
                fd,
                contents,
                size,
                lost: false,
            }
        };
        Self(CONTENTS.iter().zip(FILES).map(file).collect())
    }

    pub(super) fn fd(&self, file: usize) -> BorrowedFd<'_> {
        self.0[file].fd.as_fd()
    }

    pub(super) fn size(&self, file: usize) -> u64 {
        self.0[file].size as u64
    }

    pub(super) fn truncate(&mut self, file: usize, pages: usize) {
        let file = &mut self.0[file];
        file.size = file.size.min(pages * PAGE);
        let size = i64::try_from(file.size).expect("a small file");
        ftruncate(&file.fd, size).expect("a shorter file");
        file.lost = true;
    }

    /// Whether what is in the pieces is known.
    pub(super) fn are_known(&self, pieces: &[Piece]) -> bool {
        pieces.iter().all(|piece| !self.0[piece.file].lost)
    }

    /// Whether touching the piece touches a page behind the end of its file.
    pub(super) fn is_beyond(&self, piece: &Piece) -> bool {
        let end = self.0[piece.file].size.next_multiple_of(PAGE);
        piece.offset + piece.len > end
    }

    /// Calls `each` for the parts of the pieces that the bytes from `skip` on, `len` of them, lie in.
    fn walk(pieces: &[Piece], skip: usize, len: usize, mut each: impl FnMut(Piece)) -> usize {
        let (mut skip, mut left) = (skip, len);
        for piece in pieces {
            let before = skip.min(piece.len);
            skip -= before;
            let len = left.min(piece.len - before);
            if len > 0 {
                each(Piece {
                    file: piece.file,
                    offset: piece.offset + before,
                    len,
                });
            }
            left -= len;
        }
        len - left
    }

    /// The bytes from `skip` on, at most `len`.
    pub(super) fn read(&self, pieces: &[Piece], skip: usize, len: usize) -> Vec<u8> {
        let mut data = Vec::new();
        Self::walk(pieces, skip, len, |piece| {
            let contents = &self.0[piece.file].contents;
            data.extend_from_slice(&contents[piece.offset..piece.offset + piece.len]);
        });
        data
    }

    /// Holds what was read against what should be there.
    pub(super) fn assert_eq(&self, pieces: &[Piece], skip: usize, data: &[u8]) {
        if self.are_known(pieces) {
            assert!(self.read(pieces, skip, data.len()) == data, "other bytes");
        }
    }

    /// Writes from `skip` on; returns how many bytes fitted.
    pub(super) fn write(&mut self, pieces: &[Piece], skip: usize, data: &[u8]) -> usize {
        let mut rest = data;
        Self::walk(pieces, skip, data.len(), |piece| {
            let (now, behind) = rest.split_at(piece.len);
            let contents = &mut self.0[piece.file].contents;
            contents[piece.offset..piece.offset + piece.len].copy_from_slice(now);
            rest = behind;
        })
    }

    /// Holds the files themselves against the model.
    pub(super) fn check(&self) {
        for file in self.0.iter().filter(|file| !file.lost) {
            let mut contents = vec![0; file.size];
            assert_eq!(pread(&file.fd, &mut contents, 0), Ok(file.size));
            assert!(contents == file.contents, "a file differs");
        }
    }
}

/// What is behind a region.
#[derive(Clone, Copy, Debug)]
pub(super) struct Backing {
    pub(super) file: usize,
    pub(super) offset: u64,
    pub(super) len: u64,
    /// Of the mapping.
    pub(super) number: u32,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct ModelRegion {
    pub(super) iova: u64,
    pub(super) len: u64,
    pub(super) access: Access,
    pub(super) backing: Option<Backing>,
}

impl ModelRegion {
    fn contains(&self, iova: u64) -> bool {
        iova >= self.iova && iova - self.iova < self.len
    }
}

/// One state of the map.
#[derive(Clone, Debug, Default)]
pub(super) struct Layout {
    pub(super) regions: Vec<ModelRegion>,
}

/// What a range comes to.
#[derive(Debug)]
pub(super) struct Resolved {
    /// Up to the fault if there is one.
    pub(super) pieces: Vec<Piece>,
    /// That there is a fault, and where unless the range wraps.
    pub(super) fault: Option<Option<u64>>,
}

impl Layout {
    pub(super) fn check_add(&self, iova: u64, len: u64) -> Result<(), MapError> {
        let end = u128::from(iova) + u128::from(len);
        if len == 0 || end > 1 << 64 {
            return Err(MapError::BadRange);
        }
        let overlaps = self.regions.iter().any(|other| {
            let other_end = u128::from(other.iova) + u128::from(other.len);
            u128::from(iova) < other_end && u128::from(other.iova) < end
        });
        if overlaps {
            return Err(MapError::Overlap);
        }
        Ok(())
    }

    pub(super) fn with(&self, region: ModelRegion) -> Self {
        let mut regions = self.regions.clone();
        regions.push(region);
        regions.sort_by_key(|region| region.iova);
        Self { regions }
    }

    pub(super) fn find_exact(&self, iova: u64, len: u64) -> Option<usize> {
        let mut regions = self.regions.iter();
        regions.position(|region| (region.iova, region.len) == (iova, len))
    }

    pub(super) fn without(&self, at: usize) -> (Self, ModelRegion) {
        let mut regions = self.regions.clone();
        let removed = regions.remove(at);
        (Self { regions }, removed)
    }

    /// Whether a mapping is part of it.
    pub(super) fn shows(&self, number: u32) -> bool {
        let mut backings = self.regions.iter().filter_map(|region| region.backing);
        backings.any(|backing| backing.number == number)
    }

    /// The piece that begins at `iova`, up to the end of its region.
    fn piece(&self, iova: u64, access: Access) -> Option<Piece> {
        let region = self.regions.iter().find(|region| region.contains(iova))?;
        let backing = region.backing?;
        let inside = iova - region.iova;
        (region.access.contains(access) && inside < backing.len).then(|| Piece {
            file: backing.file,
            offset: (backing.offset + inside) as usize,
            len: (backing.len - inside) as usize,
        })
    }

    pub(super) fn resolve(&self, iova: u64, len: usize, access: Access) -> Resolved {
        let mut pieces = Vec::new();
        let (mut at, mut left) = (Some(iova), len);
        while left > 0 {
            let piece = at.and_then(|at| self.piece(at, access));
            let (Some(mut piece), Some(start)) = (piece, at) else {
                return Resolved {
                    pieces,
                    fault: Some(at),
                };
            };
            piece.len = piece.len.min(left);
            left -= piece.len;
            at = start.checked_add(piece.len as u64);
            pieces.push(piece);
        }
        Resolved {
            pieces,
            fault: None,
        }
    }
}
