//! A driver that is right unless the input says otherwise.

use arbitrary::{Result, Unstructured};
use virtio::RingState;
use virtio_spec::feature;
use virtio_spec::ring::{
    DESC_F_AVAIL, DESC_F_INDIRECT, DESC_F_NEXT, DESC_F_USED, DESC_F_WRITE, Descriptor,
    PackedDescriptor,
};
use zerocopy::IntoBytes;

use super::Shape;
use super::memory::{BASE, Guest, LEN};

/// Indirect tables begin here.
const TABLES: u64 = BASE + 0x8000;

pub(super) struct Driver {
    shape: Shape,
    /// The next entry of the available ring, or of a packed ring.
    avail: u16,
    /// Packed: the wrap counter there.
    wrap: bool,
    /// Packed: descriptors that were made available.
    made: u64,
    /// The next descriptor to use, whoever has it.
    next: u16,
    table: u64,
}

impl Driver {
    pub(super) fn new(shape: Shape) -> Self {
        Self {
            shape,
            avail: 0,
            wrap: true,
            made: 0,
            next: 0,
            table: TABLES,
        }
    }

    /// Goes on with a queue that begins there.
    pub(super) fn at(&mut self, state: RingState) {
        self.avail = state.next_avail;
        self.wrap = state.avail_wrap;
        self.made = 0;
    }

    /// Makes a chain available: `free` says which heads or IDs are the driver's, `used` how many descriptors of a packed ring have
    /// come back.
    pub(super) fn add(
        &mut self,
        input: &mut Unstructured<'_>,
        guest: &mut Guest,
        free: impl Fn(u16) -> bool,
        used: u64,
    ) -> Result<()> {
        let shape: u8 = input.arbitrary()?;
        let lengths: u8 = input.arbitrary()?;
        let twist: u8 = input.arbitrary()?;
        let count = 1 + u16::from(shape % 4);
        let writable = u16::from(shape >> 2) % (count + 1);
        let indirect = shape & 0x80 != 0 && self.shape.has(feature::INDIRECT_DESC);
        let mut buffers: Vec<Descriptor> = (0..count)
            .map(|n| Descriptor {
                addr: BASE + 0xc000 + u64::from(n) * 0x200,
                len: 1 << ((u16::from(lengths) + n) % 10),
                flags: if n >= count - writable {
                    DESC_F_WRITE
                } else {
                    0
                },
                next: 0,
            })
            .collect();
        let size = self.shape.size;
        let head = (0..size)
            .map(|n| (self.next + n) % size)
            .find(|head| free(*head))
            .unwrap_or(0);
        let place = |n: u16| {
            if indirect { n } else { (head + n) % size }
        };
        for n in 0..count - 1 {
            let buffer = &mut buffers[usize::from(n)];
            buffer.flags |= DESC_F_NEXT;
            buffer.next = place(n + 1);
        }
        let mut len = u32::from(count) * 16;
        let mut published = head;
        if twist >= 0xc0 {
            let victim = usize::from(twist >> 2) % buffers.len();
            let value: u16 = input.arbitrary()?;
            match twist & 15 {
                0 => buffers[victim].len = 0,
                1 => buffers[victim].addr = u64::MAX - u64::from(value),
                2 => buffers[victim].flags ^= DESC_F_WRITE,
                3 => buffers[victim].flags ^= DESC_F_NEXT,
                4 => buffers[victim].flags ^= DESC_F_INDIRECT,
                5 => buffers[victim].next = value,
                6 => buffers[victim].next = place(0),
                7 => len = value.into(),
                8 => published = value,
                9 => buffers[victim].len = u32::MAX - u32::from(value),
                10 => buffers[victim].flags = value,
                11 => len = u32::from(value) * 16,
                _ => {}
            }
        }
        if self.shape.has(feature::RING_PACKED) {
            let used = self.made.saturating_sub(used);
            let needed = if indirect { 1 } else { u64::from(count) };
            if twist < 0xc0 && used + needed > u64::from(size) {
                // No room.
                return Ok(());
            }
            self.add_packed(guest, &buffers, indirect.then_some(len), published);
            self.next = (head + 1) % size;
            return Ok(());
        }
        if indirect {
            let table = self.table(count);
            for (n, buffer) in (0..).zip(&buffers) {
                guest.write(table + 16 * n, buffer.as_bytes());
            }
            let descriptor = Descriptor {
                addr: if twist == 0xbf { u64::MAX - 15 } else { table },
                len,
                flags: DESC_F_INDIRECT,
                next: 0,
            };
            self.put(guest, head, &descriptor);
        } else {
            for (n, buffer) in (0..).zip(&buffers) {
                self.put(guest, place(n), buffer);
            }
        }
        self.next = (head + if indirect { 1 } else { count }) % size;
        let element = self.shape.driver + 4 + 2 * u64::from(self.avail & (size - 1));
        guest.write(element, &published.to_le_bytes());
        self.avail = self.avail.wrapping_add(1);
        guest.write(self.shape.driver + 2, &self.avail.to_le_bytes());
        Ok(())
    }

    /// A place for an indirect table.
    fn table(&mut self, count: u16) -> u64 {
        let table = self.table;
        self.table = if table > BASE + 0xb000 {
            TABLES
        } else {
            table + 16 * u64::from(count)
        };
        table
    }

    /// The same chain in a packed ring: an indirect table of `indirect` bytes if so.
    fn add_packed(
        &mut self,
        guest: &mut Guest,
        buffers: &[Descriptor],
        indirect: Option<u32>,
        id: u16,
    ) {
        let packed = |buffer: &Descriptor| PackedDescriptor {
            addr: buffer.addr,
            len: buffer.len,
            id,
            flags: buffer.flags,
        };
        let mut descriptors: Vec<PackedDescriptor> = buffers.iter().map(packed).collect();
        if let Some(len) = indirect {
            let table = self.table(u16::try_from(buffers.len()).unwrap_or(4));
            for (n, descriptor) in (0..).zip(&descriptors) {
                guest.write(table + 16 * n, descriptor.as_bytes());
            }
            descriptors = vec![PackedDescriptor {
                addr: table,
                len,
                id,
                flags: DESC_F_INDIRECT,
            }];
        }
        for mut descriptor in descriptors {
            descriptor.flags ^= if self.wrap { DESC_F_AVAIL } else { DESC_F_USED };
            let at = self.shape.desc + 16 * u64::from(self.avail);
            guest.write(at, descriptor.as_bytes());
            self.made += 1;
            self.avail += 1;
            if self.avail >= self.shape.size {
                (self.avail, self.wrap) = (0, !self.wrap);
            }
        }
    }

    fn put(&self, guest: &mut Guest, index: u16, descriptor: &Descriptor) {
        guest.write(
            self.shape.desc + 16 * u64::from(index),
            descriptor.as_bytes(),
        );
    }

    /// Writes anything anywhere.
    pub(super) fn poke(&mut self, input: &mut Unstructured<'_>, guest: &mut Guest) -> Result<()> {
        let code: u8 = input.arbitrary()?;
        let value: u16 = input.arbitrary()?;
        let at = match code % 8 {
            // What the driver wants to be told of.
            0 => self.shape.driver,
            1 => self.shape.driver + 4 + 2 * u64::from(self.shape.size),
            // Its index.
            2 => self.shape.driver + 2,
            3 => self.shape.driver + u64::from(code >> 3) * 2,
            4 | 5 => self.shape.desc + u64::from(code >> 3) * 2,
            6 => self.shape.device + u64::from(code >> 3) * 2,
            _ => BASE + u64::from(input.arbitrary::<u16>()?) % LEN as u64,
        };
        guest.write(at, &value.to_le_bytes());
        Ok(())
    }
}
