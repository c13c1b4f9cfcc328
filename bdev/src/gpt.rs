//! GUID partition tables (UEFI specification 2.10, chapter 5): which partitions are for us.
//!
//! Only partitions of SPDK's types are taken, so a guest's own partitions stay the guest's affair. Still, a table may have been
//! written by a guest: nothing in it is believed before its checksum, its place and its ranges have been checked, and at most
//! [`MAX_ENTRIES`] entries are looked at.
//!
//! Pure: the caller reads blocks and asks what they mean. The first copy of the table is after block 0, the second, for when the
//! first is damaged, at the end of the disk. Unlike SPDK's reader this one does not mind a protective MBR of another length: a disk
//! that was made larger has one.

use uuid::{Uuid, uuid};

/// The type of partitions that SPDK's tools make.
pub const TYPE: Uuid = uuid!("6527994e-2c5a-4eec-9613-8f5944074e8b");
/// The type that they made formerly. Such a partition is one block shorter than its entry says, as it was for SPDK then: what
/// stands on it has been laid out for that length.
pub const OLD_TYPE: Uuid = uuid!("7c5222bd-8f5d-4087-9c00-bf9843c7b58c");

/// Entries that a table may have: what UEFI prescribes as the least, and all tools make.
pub const MAX_ENTRIES: u32 = 128;
const ENTRY: usize = 128;
/// The fields of a header.
const HEADER: usize = 92;
/// What one look at a copy reads, where the blocks are small: all entries, header and MBR with it.
const LOOK: u64 = 32 << 10;

/// The disk that a table is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    /// Bytes per block: a power of two, 512 or more.
    pub block_size: u32,
    /// Length in blocks.
    pub num_blocks: u64,
}

/// A range of blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// The first.
    pub lba: u64,
    /// How many.
    pub blocks: u64,
}

/// A partition for us.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Partition {
    /// Its place in the table, counted from 1.
    pub number: u32,
    /// Where it is.
    pub range: Range,
    /// Its type: [`TYPE`] or [`OLD_TYPE`].
    pub type_guid: Uuid,
    /// Its identity.
    pub guid: Uuid,
    /// The name somebody gave it.
    pub name: String,
}

/// A table that holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// The disk's identity.
    pub guid: Uuid,
    /// The partitions for us, in the order of the table.
    pub partitions: Vec<Partition>,
}

/// A copy of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Copy {
    /// After block 0.
    Primary,
    /// At the end.
    Backup,
}

/// Why a copy of the table is not used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GptError {
    /// Not damaged: the disk has none.
    #[error("there is no protective MBR")]
    NoMbr,
    /// It does not begin as one does.
    #[error("the header is none")]
    NoHeader,
    /// It cannot be as long as it says.
    #[error("the header's length is not possible")]
    HeaderLength,
    /// It was changed.
    #[error("the header's checksum is wrong")]
    HeaderChecksum,
    /// It is another copy's.
    #[error("the header says that it is in another place")]
    Misplaced,
    /// It leaves no room, or is for a longer disk.
    #[error("the range for partitions is not possible")]
    Usable,
    /// More, longer or elsewhere than anybody makes them.
    #[error("the table has entries of a number, length or place that is not supported")]
    Entries,
    /// They were changed.
    #[error("the checksum of the entries is wrong")]
    EntriesChecksum,
}

impl Geometry {
    /// Which blocks to read for a copy; `None` on a disk that is too short for a table.
    #[must_use]
    pub fn range_of(&self, copy: Copy) -> Option<Range> {
        if self.num_blocks < 2 || !self.block_size.is_power_of_two() {
            return None;
        }
        let size = u64::from(self.block_size);
        // The MBR, the header, the entries.
        let least = 2 + (ENTRY as u64 * u64::from(MAX_ENTRIES)).div_ceil(size);
        let blocks = (LOOK / size).max(least).min(self.num_blocks);
        let lba = match copy {
            Copy::Primary => 0,
            Copy::Backup => self.num_blocks - blocks,
        };
        Some(Range { lba, blocks })
    }
}

fn bytes<const N: usize>(data: &[u8], at: usize) -> Option<[u8; N]> {
    data.get(at..)?.first_chunk().copied()
}

fn number(data: &[u8], at: usize) -> Option<u64> {
    bytes(data, at).map(u64::from_le_bytes)
}

fn short(data: &[u8], at: usize) -> Option<u32> {
    bytes(data, at).map(u32::from_le_bytes)
}

/// GUIDs have their first three fields in little-endian order (UEFI 2.10, appendix A).
fn guid(data: &[u8], at: usize) -> Option<Uuid> {
    bytes(data, at).map(Uuid::from_bytes_le)
}

/// Looks for a protective MBR in block 0 (UEFI 2.10, 5.2.3).
///
/// # Errors
/// [`GptError::NoMbr`].
pub fn check_mbr(block: &[u8]) -> Result<(), GptError> {
    let is_mbr = bytes(block, 510) == Some([0x55, 0xaa]);
    let is_protective = |at: usize| {
        let (kind, start) = (block.get(at + 4), short(block, at + 8));
        kind == Some(&0xee) && start == Some(1)
    };
    if is_mbr && (446..510).step_by(16).any(is_protective) {
        return Ok(());
    }
    Err(GptError::NoMbr)
}

/// What a copy of the table says; `data` are the blocks of [`Geometry::range_of`].
///
/// # Errors
/// What is wrong with it: try the other copy.
pub fn parse(copy: Copy, geometry: Geometry, data: &[u8]) -> Result<Table, GptError> {
    let range = geometry.range_of(copy).ok_or(GptError::NoHeader)?;
    let last = geometry.num_blocks - 1;
    let place = match copy {
        Copy::Primary => 1,
        Copy::Backup => last,
    };
    let at = offset(geometry, range, place).ok_or(GptError::NoHeader)?;
    let block = data.get(at..).ok_or(GptError::NoHeader)?;
    let block = block
        .get(..geometry.block_size as usize)
        .ok_or(GptError::NoHeader)?;
    let header = Header::parse(block)?;
    if header.my_lba != place {
        return Err(GptError::Misplaced);
    }
    if header.first > header.last || header.last > last || header.first < 2 {
        return Err(GptError::Usable);
    }
    let entries = header.entries(geometry, range, data)?;
    Ok(Table {
        guid: header.guid,
        partitions: partitions(&header, entries),
    })
}

/// Where a block is in what was read.
fn offset(geometry: Geometry, range: Range, lba: u64) -> Option<usize> {
    let block = lba.checked_sub(range.lba).filter(|it| *it < range.blocks)?;
    usize::try_from(block.checked_mul(u64::from(geometry.block_size))?).ok()
}

/// UEFI 2.10, table 5-5.
struct Header {
    my_lba: u64,
    /// First and last block for partitions.
    first: u64,
    last: u64,
    guid: Uuid,
    entries_lba: u64,
    entries: u32,
    entry_size: u32,
    entries_crc: u32,
}

impl Header {
    fn parse(block: &[u8]) -> Result<Self, GptError> {
        let fields = || {
            let len = usize::try_from(short(block, 12)?).ok()?;
            let crc = short(block, 16)?;
            let header = Self {
                my_lba: number(block, 24)?,
                first: number(block, 40)?,
                last: number(block, 48)?,
                guid: guid(block, 56)?,
                entries_lba: number(block, 72)?,
                entries: short(block, 80)?,
                entry_size: short(block, 84)?,
                entries_crc: short(block, 88)?,
            };
            Some((len, crc, header))
        };
        if !block.starts_with(b"EFI PART") {
            return Err(GptError::NoHeader);
        }
        let (len, crc, header) = fields().ok_or(GptError::NoHeader)?;
        let summed = block.get(..len).filter(|it| it.len() >= HEADER);
        let mut summed = summed.ok_or(GptError::HeaderLength)?.to_vec();
        // The checksum is made while its own field is zero.
        if let Some(field) = summed.get_mut(16..20) {
            field.fill(0);
        }
        if crc32fast::hash(&summed) != crc {
            return Err(GptError::HeaderChecksum);
        }
        Ok(header)
    }

    fn entries<'a>(
        &self,
        geometry: Geometry,
        range: Range,
        data: &'a [u8],
    ) -> Result<&'a [u8], GptError> {
        if self.entries > MAX_ENTRIES || self.entry_size as usize != ENTRY {
            return Err(GptError::Entries);
        }
        let len = self.entries as usize * ENTRY;
        let at = offset(geometry, range, self.entries_lba).ok_or(GptError::Entries)?;
        let entries = data.get(at..).and_then(|rest| rest.get(..len));
        let entries = entries.ok_or(GptError::Entries)?;
        if crc32fast::hash(entries) != self.entries_crc {
            return Err(GptError::EntriesChecksum);
        }
        Ok(entries)
    }
}

fn partitions(header: &Header, entries: &[u8]) -> Vec<Partition> {
    let mut found: Vec<Partition> = Vec::new();
    for (number, entry) in (1..).zip(entries.chunks_exact(ENTRY)) {
        let Some(partition) = partition(number, entry, header) else {
            continue;
        };
        let overlaps = |other: &Partition| {
            let (a, b) = (other.range, partition.range);
            a.lba < b.lba + b.blocks && b.lba < a.lba + a.blocks
        };
        // Two disks that write to the same blocks are a mistake at best.
        if !found.iter().any(overlaps) {
            found.push(partition);
        }
    }
    found
}

/// UEFI 2.10, table 5-6. `None` for what is not ours or not possible.
fn partition(number_: u32, entry: &[u8], header: &Header) -> Option<Partition> {
    let type_guid = guid(entry, 0).filter(|it| [TYPE, OLD_TYPE].contains(it))?;
    let (first, last) = (number(entry, 32)?, number(entry, 40)?);
    if first < header.first || last > header.last {
        return None;
    }
    // Cannot overflow: `last` is on the disk.
    let blocks = (last + 1).checked_sub(first)?;
    let blocks = if type_guid == OLD_TYPE {
        blocks.checked_sub(1)?
    } else {
        blocks
    };
    if blocks == 0 {
        return None;
    }
    let units = entry.get(56..ENTRY)?.chunks_exact(2);
    let units = units.map(|unit| u16::from(unit[0]) | u16::from(unit[1]) << 8);
    let units: Vec<u16> = units.take_while(|unit| *unit != 0).collect();
    Some(Partition {
        number: number_,
        range: Range { lba: first, blocks },
        type_guid,
        guid: guid(entry, 16)?,
        name: String::from_utf16_lossy(&units),
    })
}

#[cfg(test)]
mod tests;
