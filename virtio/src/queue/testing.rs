//! A guest's memory and the driver sides of both formats, as plain as the text: for tests of the device side.

use std::collections::HashMap;
use std::sync::Arc;

use guest_memory::{Access, DmaMap, MapView, Region, SharedMemory};
use virtio_spec::ring::*;
use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::event::Place;
use crate::device::{Kick, QueueSetup, RingState};

pub(crate) const BASE: u64 = 0x10_0000;
/// Room for three areas of any ring of up to 1024 entries, indirect tables behind.
pub(crate) const DESC: u64 = BASE;
pub(crate) const DRIVER: u64 = BASE + 0x10000;
pub(crate) const DEVICE: u64 = BASE + 0x20000;
pub(crate) const TABLES: u64 = BASE + 0x30000;
const LEN: usize = 0x10_0000;

/// Guest memory.
#[derive(Clone, Debug)]
pub(crate) struct Guest {
    pub(crate) memory: SharedMemory,
}

impl Guest {
    pub(crate) fn new() -> Self {
        Self {
            memory: SharedMemory::new(c"guest", LEN).unwrap(),
        }
    }

    pub(crate) fn map(&self) -> Arc<DmaMap> {
        DmaMap::empty()
            .with(Region {
                iova: BASE,
                len: LEN as u64,
                access: Access::READ | Access::WRITE,
                backing: Some(Arc::clone(self.memory.mapping())),
            })
            .unwrap()
    }

    pub(crate) fn view(&self) -> MapView {
        MapView::new(self.map())
    }

    pub(crate) fn at(addr: u64) -> usize {
        usize::try_from(addr - BASE).unwrap()
    }

    pub(crate) fn read<T: FromBytes + IntoBytes>(&self, addr: u64) -> T {
        self.memory.read(Self::at(addr)).unwrap()
    }

    pub(crate) fn write<T: IntoBytes + Immutable>(&self, addr: u64, value: T) {
        assert!(self.memory.write(Self::at(addr), &value));
    }

    pub(crate) fn u16(&self, addr: u64) -> u16 {
        self.memory.load_u16(Self::at(addr))
    }

    pub(crate) fn set_u16(&self, addr: u64, value: u16) {
        self.memory.store_u16(Self::at(addr), value);
    }
}

pub(crate) fn setup(features: u64, size: u16) -> QueueSetup {
    QueueSetup {
        size,
        features,
        desc: DESC,
        driver: DRIVER,
        device: DEVICE,
        state: RingState::default(),
        kick: Kick::Polled,
        interrupt: None,
        inflight: None,
        log: None,
    }
}

/// A buffer of a request: address, length, whether the device writes it.
pub(crate) type Piece = (u64, u32, bool);

/// A driver. Tokens name requests in the order in which they were offered.
pub(crate) trait Driver {
    /// Entries of the queue.
    fn size(&self) -> u16;
    /// Makes a request available, in an indirect table from its `indirect`-th buffer on if given. `false` if there is no room.
    fn offer(&mut self, token: u32, pieces: &[Piece], indirect: Option<usize>) -> bool;
    /// The next used request and the bytes written.
    fn used(&mut self) -> Option<(u32, u32)>;
}

fn flags(write: bool) -> u16 {
    if write { DESC_F_WRITE } else { 0 }
}

/// The driver of a split queue. Free descriptors are taken in no particular order.
#[derive(Clone, Debug)]
pub(crate) struct SplitDriver {
    pub(crate) guest: Guest,
    size: u16,
    pub(crate) free: Vec<u16>,
    /// By head: token and descriptors.
    flight: HashMap<u16, (u32, Vec<u16>)>,
    pub(crate) avail_idx: u16,
    pub(crate) used_idx: u16,
}

impl SplitDriver {
    pub(crate) fn new(guest: &Guest, size: u16) -> Self {
        Self::at(guest, size, 0)
    }

    /// A driver whose indices begin at `start`.
    pub(crate) fn at(guest: &Guest, size: u16, start: u16) -> Self {
        guest.set_u16(DRIVER + 2, start);
        guest.set_u16(DEVICE + 2, start);
        Self {
            guest: guest.clone(),
            size,
            free: (0..size).collect(),
            flight: HashMap::new(),
            avail_idx: start,
            used_idx: start,
        }
    }

    pub(crate) fn descriptor(&self, index: u16, descriptor: Descriptor) {
        self.guest.write(DESC + 16 * u64::from(index), descriptor);
    }

    /// Puts a head into the available ring.
    pub(crate) fn avail(&mut self, head: u16) {
        let at = DRIVER + 4 + 2 * u64::from(self.avail_idx & (self.size - 1));
        self.guest.set_u16(at, head);
        self.avail_idx = self.avail_idx.wrapping_add(1);
        self.guest.set_u16(DRIVER + 2, self.avail_idx);
    }
}

/// Where the indirect table of a request is that was given the descriptor (split) or buffer ID (packed) `index`.
fn table(index: u16, len: usize) -> u64 {
    let at = TABLES + u64::from(index % 512) * 0x400;
    assert!(len <= 64 && at + 0x400 <= BASE + LEN as u64);
    at
}

impl Driver for SplitDriver {
    fn size(&self) -> u16 {
        self.size
    }

    fn offer(&mut self, token: u32, pieces: &[Piece], indirect: Option<usize>) -> bool {
        let direct = indirect.unwrap_or(pieces.len());
        let count = direct + usize::from(indirect.is_some());
        if count > self.free.len() {
            return false;
        }
        let taken: Vec<u16> = self.free.drain(..count).collect();
        for (i, index) in taken.iter().enumerate() {
            let more = i + 1 < count;
            let next = taken.get(i + 1).copied().unwrap_or(0xdead);
            let mut descriptor = Descriptor {
                next,
                flags: if more { DESC_F_NEXT } else { 0 },
                ..Descriptor::default()
            };
            if i < direct {
                let (addr, len, write) = pieces[i];
                descriptor.flags |= flags(write);
                (descriptor.addr, descriptor.len) = (addr, len);
            } else {
                let rest = &pieces[direct..];
                // Backwards in the table, but for the first.
                let place = |i: usize| if i == 0 { 0 } else { rest.len() - i };
                let at = table(*index, rest.len());
                for (i, (addr, len, write)) in rest.iter().enumerate() {
                    let more = i + 1 < rest.len();
                    let entry = Descriptor {
                        addr: *addr,
                        len: *len,
                        flags: flags(*write) | if more { DESC_F_NEXT } else { 0 },
                        next: if more { place(i + 1) as u16 } else { 0xdead },
                    };
                    self.guest.write(at + 16 * place(i) as u64, entry);
                }
                descriptor.addr = at;
                descriptor.len = 16 * rest.len() as u32;
                descriptor.flags |= DESC_F_INDIRECT;
            }
            self.descriptor(*index, descriptor);
        }
        let head = taken[0];
        self.flight.insert(head, (token, taken));
        self.avail(head);
        true
    }

    fn used(&mut self) -> Option<(u32, u32)> {
        if self.guest.u16(DEVICE + 2) == self.used_idx {
            return None;
        }
        let at = DEVICE + 4 + 8 * u64::from(self.used_idx & (self.size - 1));
        let element: UsedElement = self.guest.read(at);
        self.used_idx = self.used_idx.wrapping_add(1);
        let head = u16::try_from(element.id).unwrap();
        let (token, descriptors) = self.flight.remove(&head).expect("was in flight");
        self.free.extend(descriptors);
        Some((token, element.len))
    }
}

/// The driver of a packed queue. Its buffer IDs are any 16 bits.
#[derive(Clone, Debug)]
pub(crate) struct PackedDriver {
    guest: Guest,
    size: u16,
    room: u16,
    ids: Vec<u16>,
    /// By ID: token and length in descriptors.
    flight: HashMap<u16, (u32, u16)>,
    pub(crate) next: Place,
    used: Place,
}

impl PackedDriver {
    pub(crate) fn new(guest: &Guest, size: u16) -> Self {
        let start = Place {
            index: 0,
            wrap: true,
        };
        Self {
            guest: guest.clone(),
            size,
            room: size,
            ids: (0..size)
                .map(|id| 0xfff0_u16.wrapping_add(id.wrapping_mul(977)))
                .collect(),
            flight: HashMap::new(),
            next: start,
            used: start,
        }
    }

    /// Writes the next descriptor of the ring, marked as available.
    pub(crate) fn put(&mut self, mut descriptor: PackedDescriptor) {
        descriptor.flags |= if self.next.wrap {
            DESC_F_AVAIL
        } else {
            DESC_F_USED
        };
        self.guest
            .write(DESC + 16 * u64::from(self.next.index), descriptor);
        self.next = self.next.advance(1, self.size);
    }
}

impl Driver for PackedDriver {
    fn size(&self) -> u16 {
        self.size
    }

    fn offer(&mut self, token: u32, pieces: &[Piece], indirect: Option<usize>) -> bool {
        let direct = indirect.unwrap_or(pieces.len());
        let count = direct + usize::from(indirect.is_some());
        if count > self.room.into() {
            return false;
        }
        let id = self.ids.remove(0);
        for i in 0..count {
            let mut descriptor = PackedDescriptor {
                flags: if i + 1 < count { DESC_F_NEXT } else { 0 },
                // Only the last one's counts.
                id: if i + 1 < count { 0xbad } else { id },
                ..PackedDescriptor::default()
            };
            if i < direct {
                let (addr, len, write) = pieces[i];
                descriptor.flags |= flags(write);
                (descriptor.addr, descriptor.len) = (addr, len);
            } else {
                let rest = &pieces[direct..];
                // By ID: the place in the ring may be in use again while the request is still in flight.
                let at = table(id, rest.len());
                for (i, (addr, len, write)) in rest.iter().enumerate() {
                    let entry = PackedDescriptor {
                        addr: *addr,
                        len: *len,
                        id: 0xbad,
                        flags: flags(*write),
                    };
                    self.guest.write(at + 16 * i as u64, entry);
                }
                descriptor.addr = at;
                descriptor.len = 16 * rest.len() as u32;
                descriptor.flags |= DESC_F_INDIRECT;
            }
            self.put(descriptor);
        }
        self.room -= count as u16;
        self.flight.insert(id, (token, count as u16));
        true
    }

    fn used(&mut self) -> Option<(u32, u32)> {
        let at = DESC + 16 * u64::from(self.used.index);
        let descriptor: PackedDescriptor = self.guest.read(at);
        let both = DESC_F_AVAIL | DESC_F_USED;
        if descriptor.flags & both != if self.used.wrap { both } else { 0 } {
            return None;
        }
        let (token, count) = self.flight.remove(&descriptor.id).expect("was in flight");
        self.ids.push(descriptor.id);
        self.room += count;
        self.used = self.used.advance(count, self.size);
        let written = descriptor.flags & DESC_F_WRITE != 0;
        Some((token, if written { descriptor.len } else { 0 }))
    }
}

thread_local! {
    static STEP: std::cell::RefCell<Option<Box<dyn FnMut()>>> = const { std::cell::RefCell::new(None) };
}

/// A store that matters to the next process is done.
pub(crate) fn step() {
    STEP.with_borrow_mut(|hook| {
        if let Some(hook) = hook {
            hook();
        }
    });
}

/// Calls `hook` at each step of this thread, until the next one is set.
pub(crate) fn at_each_step(hook: Option<Box<dyn FnMut()>>) {
    STEP.set(hook);
}
