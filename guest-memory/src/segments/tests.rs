use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::{Access, DmaMap, MapView, Region, SharedMemory};

const RW: Access = Access::READ.union(Access::WRITE);
const SIZE: usize = 1 << 16;

fn guest() -> (MapView, SharedMemory) {
    let memory = SharedMemory::new(c"guest", SIZE).unwrap();
    let backing = Some(Arc::clone(memory.mapping()));
    let region = Region {
        iova: 0,
        len: SIZE as u64,
        access: RW,
        backing,
    };
    (MapView::new(DmaMap::empty().with(region).unwrap()), memory)
}

#[test]
fn an_own_buffer_comes_back() {
    let mut buffer = HostBuffer::new(8192);
    buffer.as_mut_slice()[5] = 9;
    let list = Segments::from_host(buffer);
    assert!(list.is_aligned(4096, 4096));
    assert_eq!(list.into_host().unwrap().as_slice()[5], 9);
    assert!(Segments::new().into_host().is_none());
}

#[test]
fn alignment_looks_at_addresses_and_lengths() {
    let (view, _memory) = guest();
    let list = |pieces: &[(u64, usize)]| {
        let mut list = Segments::new();
        for (at, len) in pieces {
            view.push(&mut list, *at, *len, RW).unwrap();
        }
        list
    };
    assert!(list(&[(0, 512), (4096, 512)]).is_aligned(512, 512));
    assert!(!list(&[(0, 512), (4100, 512)]).is_aligned(512, 512));
    assert!(!list(&[(0, 100), (4096, 412)]).is_aligned(512, 512));
    assert!(list(&[(4, 512)]).is_aligned(4, 512));
}

#[test]
fn zeroing_touches_only_the_list() {
    let (view, memory) = guest();
    memory.write_slice(0, &[0xff; 64]);
    let mut list = Segments::new();
    view.push(&mut list, 8, 8, RW).unwrap();
    view.push(&mut list, 32, 3, RW).unwrap();
    list.zero();
    let mut seen = [0; 64];
    assert!(memory.read_slice(0, &mut seen));
    for (at, byte) in seen.iter().enumerate() {
        let expected = if (8..16).contains(&at) || (32..35).contains(&at) {
            0
        } else {
            0xff
        };
        assert_eq!(*byte, expected, "byte {at}");
    }
}

proptest! {
    /// Against a plain list of guest addresses, one per byte.
    #[test]
    fn copies_and_advances_agree_with_a_byte_list(
        pieces in proptest::collection::vec((0usize..SIZE - 700, 1usize..700), 1..24),
        steps in proptest::collection::vec(0usize..2000, 0..5),
        seed in 1u8..255,
    ) {
        let (view, memory) = guest();
        for at in 0..SIZE {
            memory.write(at, &((at as u8).wrapping_mul(seed) ^ (at >> 8) as u8));
        }
        let mut list = Segments::new();
        let mut bytes: Vec<usize> = Vec::new();
        for (at, len) in &pieces {
            view.push(&mut list, *at as u64, *len, RW).unwrap();
            bytes.extend(*at..*at + *len);
        }
        for step in steps {
            prop_assert_eq!(list.len(), bytes.len());
            prop_assert_eq!(list.iovecs().len(), list.count());
            let mut out = vec![0; bytes.len()];
            prop_assert_eq!(list.copy_to_slice(0, &mut out), bytes.len());
            for (byte, at) in out.iter().zip(&bytes) {
                prop_assert_eq!(Some(*byte), memory.read::<u8>(*at));
            }
            let skip = step / 2;
            let mut tail = [0; 33];
            let copied = list.copy_to_slice(skip, &mut tail);
            prop_assert_eq!(copied, bytes.len().saturating_sub(skip).min(33));
            list.advance(step);
            bytes.drain(..step.min(bytes.len()));
        }
    }
}

#[test]
fn cutting_the_end_leaves_the_start() {
    let (view, memory) = guest();
    for pieces in [1, 3, 4, 5, 20] {
        for keep in [0, 1, 100, 101, 350, 399, 400, 450, 2000, 5000] {
            let mut list = Segments::new();
            for piece in 0..pieces {
                view.push(&mut list, piece * 200, 100, RW).unwrap();
            }
            list.truncate(keep);
            let len = keep.min(pieces as usize * 100);
            assert_eq!((list.len(), list.count()), (len, len.div_ceil(100)));
            assert_eq!(list.iovecs().len(), list.count());
            memory.zero();
            assert_eq!(list.copy_from_slice(0, &[1; SIZE]), len);
            let mut all = vec![0; SIZE];
            assert!(memory.read_slice(0, &mut all));
            assert_eq!(all.iter().filter(|byte| **byte == 1).count(), len);
            view.push(&mut list, 60_000, 10, RW).unwrap();
            assert_eq!(list.len(), len + 10);
        }
    }
}
