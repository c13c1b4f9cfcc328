//! The guest's memory and its driver: two split queues, a few requests on each.

use std::sync::Arc;

use guest_memory::{Access, DmaMap, Mapping, Region, SharedMemory};
use nix::unistd::ftruncate;
use virtio_spec::blk::{
    RequestHeader, S_OK, S_UNSUPP, T_DISCARD, T_FLUSH, T_GET_ID, T_IN, T_OUT, T_WRITE_ZEROES,
};
use virtio_spec::ring::{DESC_F_NEXT, DESC_F_WRITE, Descriptor};
use zerocopy::IntoBytes;

/// First address.
const BASE: u64 = 0x10_0000;
/// Bytes.
pub(super) const LEN: u64 = 0x2_0000;
pub(super) const QUEUES: u16 = 2;
pub(super) const SIZE: u16 = 16;
/// Requests at once on one queue.
const SLOTS: u16 = 5;
/// Bytes of one queue's place.
const QUEUE: u64 = 0x1_0000;
const DRIVER: u64 = 0x1000;
const DEVICE: u64 = 0x2000;
/// Headers and status bytes.
const HEADERS: u64 = 0x3000;
/// Data, a page for each request.
const DATA: u64 = 0x4000;
const PAGE: u64 = 0x1000;
const SECTOR: usize = 512;
/// Sectors of each request's own part of the disk.
const SHARE: u64 = 8;

/// Sectors that the driver uses.
pub(super) const SECTORS: u64 = QUEUES as u64 * SLOTS as u64 * SHARE;

/// A request that was made and has not ended.
#[derive(Clone, Copy, Debug)]
struct Made {
    kind: u32,
    len: usize,
    pattern: u8,
}

#[derive(Debug, Default)]
struct Queue {
    avail: u16,
    used: u16,
    made: [Option<Made>; SLOTS as usize],
    /// What the slot's part of the disk begins with, and for how long, as far as that is known.
    held: [Option<(u8, usize)>; SLOTS as usize],
}

pub(super) struct Guest {
    memory: SharedMemory,
    queues: [Queue; QUEUES as usize],
    patterns: u8,
    /// Mappings that were given to the device.
    given: Vec<Arc<Mapping>>,
}

impl Guest {
    pub(super) fn new() -> Self {
        let len = usize::try_from(LEN).expect("a small memory");
        Self {
            // The client may truncate it.
            memory: SharedMemory::new_unsealed(c"guest", len).expect("memory"),
            queues: Default::default(),
            patterns: 0,
            given: Vec::new(),
        }
    }

    /// The memory in one of its layouts.
    pub(super) fn map(&mut self, code: u8) -> Arc<DmaMap> {
        let layout: &[(u64, u64, bool)] = match code % 8 {
            0..=2 => &[(0, LEN, true)],
            3 => &[],
            4 => &[(0, 0x1_0000, true)],
            5 => &[(0, 0x3000, true), (0x3000, LEN - 0x3000, true)],
            6 => &[(0, 0x4000, true), (0x4000, LEN - 0x4000, false)],
            _ => &[(0x2000, LEN - 0x2000, true)],
        };
        let mut map = DmaMap::empty();
        for &(at, len, writable) in layout {
            let access = if writable {
                Access::READ | Access::WRITE
            } else {
                Access::READ
            };
            let mapping = Mapping::from_fd(self.memory.fd(), at, len, access).map(Arc::new);
            // The file may have been truncated.
            let Ok(mapping) = mapping else {
                continue;
            };
            self.given.push(Arc::clone(&mapping));
            let region = Region {
                iova: BASE + at,
                len,
                access,
                backing: Some(mapping),
            };
            map = map.with(region).expect("disjoint");
        }
        map
    }

    pub(super) fn truncate(&self) {
        let _ = ftruncate(self.memory.fd(), 0x5000);
    }

    /// Whether nobody but us has the memory that was given.
    pub(super) fn has_all_back(&self) -> bool {
        self.given.iter().all(|mapping| mapping.is_sole_owner())
    }

    fn write(&self, addr: u64, bytes: &[u8]) {
        let offset = usize::try_from(addr - BASE).expect("our own address");
        self.memory.write_slice(offset, bytes);
    }

    fn read<const N: usize>(&self, addr: u64) -> [u8; N] {
        let mut bytes = [0; N];
        let offset = usize::try_from(addr - BASE).expect("our own address");
        assert!(self.memory.read_slice(offset, &mut bytes));
        bytes
    }

    /// Where a queue's parts are.
    pub(super) fn places(queue: u16) -> [u64; 3] {
        let at = BASE + QUEUE * u64::from(queue);
        [at, at + DRIVER, at + DEVICE]
    }

    /// The driver begins anew, with rings of zeroes. What the disk holds where writes may have been under way nobody knows.
    pub(super) fn begin(&mut self, is_clean: bool) {
        for (queue, index) in self.queues.iter_mut().zip(0..) {
            for (slot, made) in queue.made.iter_mut().enumerate() {
                if made.take().is_some() || !is_clean {
                    queue.held[slot] = None;
                }
            }
            (queue.avail, queue.used) = (0, 0);
            let [desc, _, _] = Self::places(index);
            let offset = usize::try_from(desc - BASE).expect("our own address");
            self.memory.write_slice(offset, &[0; 0x3000]);
        }
    }

    /// Makes a request; whether it keeps to the rules, or `None` if there is no room for it.
    pub(super) fn request(
        &mut self,
        queue: u8,
        kind: u32,
        twist: u8,
        value: u16,
    ) -> Option<(u16, bool)> {
        let index = u16::from(queue) % QUEUES;
        let [desc, driver, _] = Self::places(index);
        let base = desc;
        let of_queue = &mut self.queues[usize::from(index)];
        let slot = of_queue.made.iter().position(Option::is_none)?;
        self.patterns = self.patterns.wrapping_add(1);
        let sectors = 1 + usize::from(queue >> 1) % 8;
        let made = Made {
            kind,
            len: sectors * SECTOR,
            pattern: self.patterns,
        };
        of_queue.made[slot] = Some(made);
        let slot = slot as u64;
        let (header_at, status_at) = (base + HEADERS + slot * 64, base + HEADERS + slot * 64 + 32);
        let data_at = base + DATA + slot * PAGE;
        let mut sector = (u64::from(index) * u64::from(SLOTS) + slot) * SHARE;
        let mut len = u32::try_from(made.len).expect("at most a page");
        let mut writable = DESC_F_WRITE;
        match kind {
            T_OUT => {
                writable = 0;
                self.write(data_at, &vec![made.pattern; made.len]);
            }
            T_DISCARD | T_WRITE_ZEROES => {
                writable = 0;
                let count = u32::try_from(sectors).expect("at most 8");
                self.write(data_at, sector.as_bytes());
                self.write(data_at + 8, [count, 0].as_bytes());
                (len, sector) = (16, 0);
            }
            T_GET_ID => (len, sector) = (20, 0),
            T_IN => self.write(data_at, &[!made.pattern; PAGE as usize]),
            _ => sector = 0,
        }
        let has_data = kind != T_FLUSH;
        let header = RequestHeader {
            kind,
            reserved: 0,
            sector,
        };
        self.write(header_at, header.as_bytes());
        self.write(status_at, &[0xff]);
        let first = u16::try_from(slot * 3).expect("few slots");
        let descriptor = |addr, len, flags, next| Descriptor {
            addr,
            len,
            flags,
            next,
        };
        let after_header = if has_data { first + 1 } else { first + 2 };
        let mut chain = [
            descriptor(header_at, 16, DESC_F_NEXT, after_header),
            descriptor(data_at, len, DESC_F_NEXT | writable, first + 2),
            descriptor(status_at, 1, DESC_F_WRITE, 0),
        ];
        let (victim, mut head) = (&mut chain[usize::from(value) % 3], first);
        match twist {
            0..=0x7f => {}
            0x80..=0x8f => victim.len = u32::from(value),
            0x90..=0x9f => victim.flags ^= DESC_F_WRITE,
            0xa0..=0xaf => victim.addr = BASE + LEN - u64::from(value >> 8),
            0xb0..=0xbf => victim.flags = value,
            0xc0..=0xcf => victim.next = value,
            0xd0..=0xdf => self.write(header_at + 8, &[value.to_le_bytes()[0]; 8]),
            0xe0..=0xef => self.write(header_at, &value.to_le_bytes()),
            0xf0..=0xf7 => head = value,
            _ => victim.addr = u64::MAX - u64::from(value),
        }
        for (descriptor, at) in chain.iter().zip(u64::from(first)..) {
            self.write(desc + 16 * at, descriptor.as_bytes());
        }
        let of_queue = &mut self.queues[usize::from(index)];
        let element = driver + 4 + 2 * u64::from(of_queue.avail % SIZE);
        of_queue.avail = of_queue.avail.wrapping_add(1);
        let avail = of_queue.avail;
        self.write(element, &head.to_le_bytes());
        self.write(driver + 2, &avail.to_le_bytes());
        let is_known = [T_IN, T_OUT, T_FLUSH, T_GET_ID, T_DISCARD, T_WRITE_ZEROES].contains(&kind);
        Some((index, twist < 0x80 && is_known))
    }

    /// Takes requests that have ended. As long as the guest keeps to the rules they must have ended well.
    pub(super) fn look(&mut self, keeps_to_the_rules: bool) {
        for index in 0..QUEUES {
            let [base, _, device] = Self::places(index);
            let idx = u16::from_le_bytes(self.read(device + 2));
            while self.queues[usize::from(index)].used != idx {
                let used = self.queues[usize::from(index)].used;
                let element = device + 4 + 8 * u64::from(used % SIZE);
                let id = u32::from_le_bytes(self.read(element));
                self.queues[usize::from(index)].used = used.wrapping_add(1);
                let slot = usize::try_from(id / 3).unwrap_or(usize::MAX);
                let made = self.queues[usize::from(index)].made.get_mut(slot);
                let made = made.and_then(Option::take);
                if !keeps_to_the_rules {
                    // A ring of nonsense may go on for ever.
                    if made.is_none() {
                        break;
                    }
                    continue;
                }
                let made = made.expect("a request that was made");
                assert_eq!(id % 3, 0, "a head");
                self.check(index, slot, base, made);
            }
        }
    }

    fn check(&mut self, index: u16, slot: usize, base: u64, made: Made) {
        let [status] = self.read(base + HEADERS + slot as u64 * 64 + 32);
        let held = &mut self.queues[usize::from(index)].held[slot];
        let before = *held;
        match made.kind {
            T_OUT => *held = Some((made.pattern, made.len)),
            T_DISCARD | T_WRITE_ZEROES => *held = None,
            _ => {}
        }
        if matches!(made.kind, T_DISCARD | T_WRITE_ZEROES) {
            assert!([S_OK, S_UNSUPP].contains(&status), "{made:?}: {status}");
            return;
        }
        assert_eq!(status, S_OK, "{made:?}");
        if let (T_IN, Some((pattern, len))) = (made.kind, before) {
            let data: [u8; PAGE as usize] = self.read(base + DATA + slot as u64 * PAGE);
            let len = len.min(made.len);
            assert!(data[..len].iter().all(|byte| *byte == pattern), "{made:?}");
        }
    }

    /// Whether requests have not ended.
    pub(super) fn is_waiting(&self) -> bool {
        let mut queues = self.queues.iter();
        queues.any(|queue| queue.made.iter().any(Option::is_some))
    }

    /// The guest writes anything to where its rings are.
    pub(super) fn poke(&self, at: u16, value: u16) {
        let queue = QUEUE * u64::from(at >> 15);
        self.write(BASE + queue + u64::from(at & 0x3ffe), &value.to_le_bytes());
    }
}
