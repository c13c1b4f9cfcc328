//! The rings against a small device that does what the text says, and no more.

use virtio_spec::feature::{EVENT_IDX, IN_ORDER, RING_PACKED};
use virtio_spec::ring::{
    DESC_F_AVAIL, DESC_F_INDIRECT, DESC_F_NEXT, DESC_F_USED, DESC_F_WRITE, Descriptor,
    EVENT_FLAGS_DESC, EVENT_FLAGS_DISABLE, EventSuppression, PackedDescriptor, UsedElement,
};

use super::*;

/// A device that looks only at the memory.
struct Device {
    ram: GuestRam,
    areas: Areas,
    size: u16,
    packed: bool,
    next_avail: u16,
    next_used: u16,
    avail_wrap: bool,
    used_wrap: bool,
}

/// A chain as the device sees it: ID, ring entries, and its buffers with whether they are written.
type Seen = (u16, u16, Vec<(u64, u32, bool)>);

impl Device {
    fn new(ram: &GuestRam, ring: &Ring) -> Self {
        Self {
            ram: ram.clone(),
            areas: ring.areas(),
            size: ring.size(),
            packed: matches!(ring, Ring::Packed(_)),
            next_avail: 0,
            next_used: 0,
            avail_wrap: true,
            used_wrap: true,
        }
    }

    fn u16(&self, address: u64) -> u16 {
        self.ram.memory().load_u16(self.ram.offset(address))
    }

    fn read<T: zerocopy::FromBytes + zerocopy::IntoBytes>(&self, address: u64) -> T {
        let at = self.ram.offset(address);
        self.ram.memory().read(at).expect("inside")
    }

    fn write<T: zerocopy::IntoBytes + zerocopy::Immutable>(&self, address: u64, value: &T) {
        assert!(self.ram.memory().write(self.ram.offset(address), value));
    }

    fn take(&mut self) -> Option<Seen> {
        if self.packed {
            self.take_packed()
        } else {
            self.take_split()
        }
    }

    fn take_split(&mut self) -> Option<Seen> {
        if self.u16(self.areas.driver + 2) == self.next_avail {
            return None;
        }
        let slot = u64::from(self.next_avail % self.size);
        let head = self.u16(self.areas.driver + 4 + 2 * slot);
        self.next_avail = self.next_avail.wrapping_add(1);
        let (mut table, mut at, mut seen) = (self.areas.desc, head, Vec::new());
        loop {
            let d: Descriptor = self.read(table + 16 * u64::from(at));
            if d.flags & DESC_F_INDIRECT != 0 {
                (table, at) = (d.addr, 0);
                continue;
            }
            seen.push((d.addr, d.len, d.flags & DESC_F_WRITE != 0));
            if d.flags & DESC_F_NEXT == 0 {
                return Some((head, 1, seen));
            }
            at = d.next;
        }
    }

    fn take_packed(&mut self) -> Option<Seen> {
        let (mut count, mut seen) = (0, Vec::new());
        loop {
            let d: PackedDescriptor = self.read(self.areas.desc + 16 * u64::from(self.next_avail));
            let (avail, used) = (d.flags & DESC_F_AVAIL != 0, d.flags & DESC_F_USED != 0);
            if avail != self.avail_wrap || used == self.avail_wrap {
                assert_eq!(count, 0, "half a chain");
                return None;
            }
            count += 1;
            self.next_avail += 1;
            if self.next_avail == self.size {
                self.next_avail = 0;
                self.avail_wrap = !self.avail_wrap;
            }
            if d.flags & DESC_F_INDIRECT != 0 {
                for n in 0..u64::from(d.len / 16) {
                    let d: PackedDescriptor = self.read(d.addr + 16 * n);
                    seen.push((d.addr, d.len, d.flags & DESC_F_WRITE != 0));
                }
            } else {
                seen.push((d.addr, d.len, d.flags & DESC_F_WRITE != 0));
            }
            if d.flags & DESC_F_NEXT == 0 {
                return Some((d.id, count, seen));
            }
        }
    }

    /// Uses a chain, with `entries` ring entries (packed) or `elements` used elements (split) skipped.
    fn put(&mut self, id: u16, written: u32, entries: u16) {
        if self.packed {
            let flags = DESC_F_WRITE
                | if self.used_wrap {
                    DESC_F_AVAIL | DESC_F_USED
                } else {
                    0
                };
            let descriptor = PackedDescriptor {
                addr: 0,
                len: written,
                id,
                flags,
            };
            self.write(
                self.areas.desc + 16 * u64::from(self.next_used),
                &descriptor,
            );
            self.next_used += entries;
            if self.next_used >= self.size {
                self.next_used -= self.size;
                self.used_wrap = !self.used_wrap;
            }
        } else {
            let slot = u64::from(self.next_used % self.size);
            let element = UsedElement {
                id: u32::from(id),
                len: written,
            };
            self.write(self.areas.device + 4 + 8 * slot, &element);
            self.next_used = self.next_used.wrapping_add(entries);
            self.write(self.areas.device + 2, &self.next_used);
        }
    }
}

fn ram() -> GuestRam {
    GuestRam::new(1 << 20, 1 << 20).expect("memory")
}

fn buffers(at: u64, count: u64) -> Vec<Buffer> {
    let buffer = |n| Buffer {
        addr: at + 64 * n,
        len: 8 + n as u32,
    };
    (0..count).map(buffer).collect()
}

/// Chains of all lengths and forms, used in another order, around the ring several times.
#[test]
fn chains_arrive_as_they_were_made_and_come_back() {
    for (features, size) in [(0, 8), (RING_PACKED, 8), (RING_PACKED, 7), (0, 1)] {
        let ram = ram();
        let mut ring = Ring::new(&ram, size, features).expect("room");
        let mut device = Device::new(&ram, &ring);
        let table = ram.alloc(4096, 16).expect("room");
        for round in 0..100u64 {
            let count = round % 5 + 1;
            let (readable, writable) = (buffers(0x1000, count), buffers(0x9000, round % 3));
            let form = match round % 3 {
                0 => Table::Direct,
                1 => Table::Indirect(table),
                _ => Table::Mixed(1, table),
            };
            let first = ring.add(&readable, &writable, form);
            let second = ring.add(&buffers(0x5000, 1), &[], Table::Direct);
            assert!(device.take().is_none(), "not published");
            assert!(ring.publish(), "the device asked for nothing else");
            let mut taken = Vec::new();
            let expected: Vec<_> = readable
                .iter()
                .map(|b| (b.addr, b.len, false))
                .chain(writable.iter().map(|b| (b.addr, b.len, true)))
                .collect();
            if let Some(id) = first {
                let (seen, entries, buffers) = device.take().expect("published");
                assert_eq!((seen, buffers), (id, expected));
                taken.push((id, entries));
            }
            if let Some(id) = second {
                let (seen, entries, _) = device.take().expect("published");
                assert_eq!(seen, id);
                taken.push((id, entries));
            }
            assert!(device.take().is_none());
            assert_eq!(usize::from(ring.in_flight()), taken.len());
            assert!(ring.poll().expect("a good ring").is_none());
            for (id, entries) in taken.into_iter().rev() {
                device.put(id, 5, entries);
                let used = ring.poll().expect("a good ring");
                let written = Some(5);
                assert_eq!(used, Some(Used { id, written }));
            }
            assert_eq!(ring.in_flight(), 0);
        }
    }
}

#[test]
fn one_entry_in_order_stands_for_all_before_it() {
    for features in [IN_ORDER, IN_ORDER | RING_PACKED] {
        let ram = ram();
        let mut ring = Ring::new(&ram, 8, features).expect("room");
        let mut device = Device::new(&ram, &ring);
        for _ in 0..50 {
            let ids: Vec<u16> = (0..3)
                .map(|_| {
                    ring.add(&buffers(0x1000, 1), &buffers(0x2000, 1), Table::Direct)
                        .expect("room")
                })
                .collect();
            ring.publish();
            let entries: u16 = (0..3).map(|_| device.take().expect("there").1).sum();
            device.put(ids[2], 9, entries);
            for (n, id) in ids.into_iter().enumerate() {
                let written = (n == 2).then_some(9);
                let used = ring.poll().expect("a good ring");
                assert_eq!(used, Some(Used { id, written }));
            }
            assert_eq!(ring.poll().expect("a good ring"), None);
        }
    }
}

#[test]
fn kicks_follow_what_the_device_asks() {
    let ram = ram();
    let one = buffers(0x1000, 1);
    let mut ring = Ring::new(&ram, 4, EVENT_IDX).expect("room");
    let mut device = Device::new(&ram, &ring);
    let event = ring.areas().device + 4 + 8 * 4;
    for round in 0..70_000u32 {
        let index = round as u16;
        // Asks for the next but one: told of every second.
        if round % 2 == 0 {
            device.write(event, &index.wrapping_add(1));
        }
        let id = ring.add(&one, &[], Table::Direct).expect("room");
        assert_eq!(ring.publish(), round % 2 == 1, "{round}");
        device.take().expect("there");
        device.put(id, 0, 1);
        ring.poll().expect("a good ring").expect("used");
    }

    let mut ring = Ring::new(&ram, 5, EVENT_IDX | RING_PACKED).expect("room");
    let mut device = Device::new(&ram, &ring);
    let event = ring.areas().device;
    for round in 0..1000u32 {
        if round % 2 == 0 {
            let place = (round + 1) % 5;
            let wrap = (round + 1) / 5 % 2 == 0;
            let event_at = EventSuppression {
                off_wrap: place as u16 | u16::from(wrap) << 15,
                flags: EVENT_FLAGS_DESC,
            };
            device.write(event, &event_at);
        }
        let id = ring.add(&one, &[], Table::Direct).expect("room");
        assert_eq!(ring.publish(), round % 2 == 1, "{round}");
        let (_, entries, _) = device.take().expect("there");
        device.put(id, 0, entries);
        ring.poll().expect("a good ring").expect("used");
    }
    let disabled = EventSuppression {
        off_wrap: 0,
        flags: EVENT_FLAGS_DISABLE,
    };
    device.write(event, &disabled);
    ring.add(&one, &[], Table::Direct).expect("room");
    assert!(!ring.publish());
}

#[test]
fn entries_that_cannot_be_are_errors() {
    for features in [0, RING_PACKED] {
        let ram = ram();
        let mut ring = Ring::new(&ram, 4, features).expect("room");
        let mut device = Device::new(&ram, &ring);
        let id = ring.add(&buffers(0x1000, 1), &[], Table::Direct);
        ring.publish();
        device.take().expect("there");
        device.put(id.expect("room") + 1, 0, 1);
        assert!(ring.poll().is_err());
        ring.reset();
        assert_eq!(ring.poll().expect("a good ring"), None);
        assert_eq!(ring.in_flight(), 0);
    }
}
