//! What the device side of a packed virtqueue should do (VIRTIO 1.3, 2.8).

use std::collections::{HashMap, VecDeque};

use virtio::RingState;
use virtio_spec::feature;
use virtio_spec::ring::{
    DESC_F_AVAIL, DESC_F_INDIRECT, DESC_F_NEXT, DESC_F_USED, DESC_F_WRITE, EVENT_FLAGS_DESC,
    EVENT_FLAGS_DISABLE, PackedDescriptor,
};

use super::Shape;
use super::memory::{Guest, Write};
use super::model::{Expected, Model};

/// An index and the wrap counter there.
type Place = (u16, bool);

#[derive(Clone, Copy, Debug)]
struct Chain {
    id: u16,
    /// Descriptors in the ring.
    num: u16,
    /// Once it has ended.
    written: Option<u32>,
}

pub(super) struct Packed {
    shape: Shape,
    next_avail: Place,
    next_used: Place,
    outstanding: u16,
    used: u64,
    /// Places used since an interrupt was considered.
    told: Vec<Place>,
    resync: bool,
    kicks: bool,
    mapped: bool,
    broken: bool,
    flight: HashMap<u16, Chain>,
    order: VecDeque<u16>,
    parked: VecDeque<u16>,
    /// The chain that was just taken.
    last: (u16, u16),
}

impl Packed {
    /// `None` for a state that no ring of this size can have.
    pub(super) fn new(shape: Shape, state: RingState) -> Option<Self> {
        let is_possible = state.next_avail < shape.size && state.next_used < shape.size;
        is_possible.then(|| Self {
            shape,
            next_avail: (state.next_avail, state.avail_wrap),
            next_used: (state.next_used, state.used_wrap),
            outstanding: 0,
            used: 0,
            told: Vec::new(),
            resync: state != RingState::default(),
            kicks: true,
            mapped: false,
            broken: false,
            flight: HashMap::new(),
            order: VecDeque::new(),
            parked: VecDeque::new(),
            last: (0, 0),
        })
    }

    fn next(&self, (index, wrap): Place) -> Place {
        if index + 1 == self.shape.size {
            (0, !wrap)
        } else {
            (index + 1, wrap)
        }
    }

    fn descriptor(&self, guest: &Guest, index: u16) -> PackedDescriptor {
        guest.read(self.shape.desc + 16 * u64::from(index))
    }

    fn try_take(&mut self, guest: &Guest) -> Result<Option<Expected>, ()> {
        if !self.mapped {
            return Ok(None);
        }
        let (mut place, wrap) = (self.next_avail, self.next_avail.1);
        let first = self.descriptor(guest, place.0);
        let is = |flag| first.flags & flag != 0;
        if is(DESC_F_AVAIL) != wrap || is(DESC_F_USED) == wrap {
            return Ok(None);
        }
        let mut chain = Expected::default();
        let mut num = 0;
        let id = loop {
            if num + self.outstanding >= self.shape.size {
                return Err(());
            }
            let descriptor = self.descriptor(guest, place.0);
            if descriptor.flags & DESC_F_INDIRECT == 0 {
                chain.add(descriptor.addr, descriptor.len, descriptor.flags)?;
            } else if self.shape.has(feature::INDIRECT_DESC) && descriptor.flags & DESC_F_NEXT == 0
            {
                table(guest, &descriptor, &mut chain)?;
            } else {
                return Err(());
            }
            num += 1;
            place = self.next(place);
            if descriptor.flags & DESC_F_NEXT == 0 {
                break descriptor.id;
            }
        };
        if !self.is_free(id) {
            return Err(());
        }
        self.next_avail = place;
        self.outstanding += num;
        self.last = (id, num);
        Ok(Some(chain))
    }

    fn publish(&mut self, head: u16, writes: &mut Vec<Write>) {
        if !self.mapped {
            self.parked.push_back(head);
            return;
        }
        let chain = self.flight.remove(&head).expect("a chain in flight");
        let written = chain.written.expect("a chain that has ended");
        let (index, wrap) = self.next_used;
        let mut flags = [0, DESC_F_AVAIL | DESC_F_USED][usize::from(wrap)];
        if written > 0 {
            flags |= DESC_F_WRITE;
        }
        let at = self.shape.desc + 16 * u64::from(index) + 8;
        let mut bytes = written.to_le_bytes().to_vec();
        bytes.extend(chain.id.to_le_bytes());
        bytes.extend(flags.to_le_bytes());
        writes.push((at, bytes));
        for _ in 0..chain.num {
            self.told.push(self.next_used);
            self.next_used = self.next(self.next_used);
        }
        self.outstanding -= chain.num;
        self.used += u64::from(chain.num);
    }
}

fn table(guest: &Guest, table: &PackedDescriptor, chain: &mut Expected) -> Result<(), ()> {
    if table.len == 0 || !table.len.is_multiple_of(16) {
        return Err(());
    }
    for index in 0..table.len / 16 {
        let at = table.addr.checked_add(16 * u64::from(index)).ok_or(())?;
        if !guest.holds(at, 16, false, 1) {
            return Err(());
        }
        let descriptor: PackedDescriptor = guest.read(at);
        if descriptor.flags & DESC_F_INDIRECT != 0 {
            return Err(());
        }
        chain.add(descriptor.addr, descriptor.len, descriptor.flags)?;
    }
    Ok(())
}

impl Model for Packed {
    fn state(&self) -> RingState {
        RingState {
            next_avail: self.next_avail.0,
            avail_wrap: self.next_avail.1,
            next_used: self.next_used.0,
            used_wrap: self.next_used.1,
        }
    }

    fn is_free(&self, id: u16) -> bool {
        self.flight.values().all(|chain| chain.id != id)
    }

    fn take(&mut self, guest: &Guest) -> Result<Option<Expected>, ()> {
        if self.broken {
            return Err(());
        }
        let taken = self.try_take(guest);
        self.broken = taken.is_err();
        taken
    }

    fn took(&mut self, head: u16) {
        let (id, num) = self.last;
        let chain = Chain {
            id,
            num,
            written: None,
        };
        assert!(self.flight.insert(head, chain).is_none());
        self.order.push_back(head);
    }

    fn put(&mut self, head: u16, written: u32) -> Vec<Write> {
        let chain = self.flight.get_mut(&head).expect("a chain in flight");
        chain.written = Some(written);
        let mut writes = Vec::new();
        if !self.shape.has(feature::IN_ORDER) {
            self.publish(head, &mut writes);
            return writes;
        }
        while let Some(head) = self.order.front().copied()
            && self.flight[&head].written.is_some()
        {
            self.order.pop_front();
            self.publish(head, &mut writes);
        }
        writes
    }

    fn wants_interrupt(&mut self, guest: &Guest) -> bool {
        if !self.mapped {
            return false;
        }
        let told = std::mem::take(&mut self.told);
        if std::mem::take(&mut self.resync) {
            return true;
        }
        if told.is_empty() {
            return false;
        }
        let [place, flags]: [u16; 2] = guest.read(self.shape.driver);
        match flags & 3 {
            EVENT_FLAGS_DISABLE => false,
            EVENT_FLAGS_DESC if self.shape.has(feature::EVENT_IDX) => {
                let (index, wrap) = (place & 0x7fff, place & 0x8000 != 0);
                index >= self.shape.size || told.contains(&(index, wrap))
            }
            _ => true,
        }
    }

    fn want_kicks(&mut self, wanted: bool) -> Vec<Write> {
        self.kicks = wanted;
        if !self.mapped {
            return Vec::new();
        }
        let flags: u16 = match (wanted, self.shape.has(feature::EVENT_IDX)) {
            (false, _) => 1,
            (true, false) => 0,
            (true, true) => 2,
        };
        let (index, wrap) = self.next_avail;
        let place = index | u16::from(wrap) << 15;
        let bytes = [place.to_le_bytes(), flags.to_le_bytes()].concat();
        vec![(self.shape.device, bytes)]
    }

    fn remap(&mut self, guest: &Guest) -> Option<Vec<Write>> {
        let Shape {
            desc,
            driver,
            device,
            ..
        } = self.shape;
        self.mapped = guest.holds(desc, 16 * usize::from(self.shape.size), true, 16)
            && guest.holds(driver, 4, false, 4)
            && guest.holds(device, 4, true, 4);
        if !self.mapped {
            return None;
        }
        let mut writes = Vec::new();
        for head in std::mem::take(&mut self.parked) {
            self.publish(head, &mut writes);
        }
        writes.extend(self.want_kicks(self.kicks));
        Some(writes)
    }

    fn used(&self) -> u64 {
        self.used
    }
}
