use std::sync::Arc;

use super::*;
use crate::{Region, SharedMemory};

const RW: Access = Access::READ.union(Access::WRITE);

fn region(iova: u64, memory: &SharedMemory, access: Access) -> Region {
    let backing = Some(Arc::clone(memory.mapping()));
    Region {
        iova,
        len: memory.len() as u64,
        access,
        backing,
    }
}

/// Two regions that touch: 0x1000..0x3000 and 0x3000..0x4000, a read-only one at 0x8000, one without memory at 0xa000.
fn guest() -> (MapView, SharedMemory, SharedMemory) {
    let low = SharedMemory::new(c"low", 0x2000).unwrap();
    let high = SharedMemory::new(c"high", 0x1000).unwrap();
    let rom = SharedMemory::new(c"rom", 0x1000).unwrap();
    let bare = Region {
        iova: 0xa000,
        len: 0x1000,
        access: RW,
        backing: None,
    };
    let map = DmaMap::empty()
        .with(region(0x1000, &low, RW))
        .and_then(|map| map.with(region(0x3000, &high, RW)))
        .and_then(|map| map.with(region(0x8000, &rom, Access::READ)))
        .and_then(|map| map.with(bare))
        .unwrap();
    (MapView::new(map), low, high)
}

#[test]
fn values_cross_regions() {
    let (view, low, high) = guest();
    view.write(0x2ffe, &[1u8, 2, 3, 4]).unwrap();
    assert_eq!(low.read::<[u8; 2]>(0x1ffe), Some([1, 2]));
    assert_eq!(high.read::<[u8; 2]>(0), Some([3, 4]));
    assert_eq!(view.read::<[u8; 4]>(0x2ffe), Ok([1, 2, 3, 4]));
}

#[test]
fn what_cannot_be_reached_is_a_fault_at_its_address() {
    let (view, ..) = guest();
    assert_eq!(view.read::<u8>(0xfff), Err(Fault { iova: 0xfff }));
    assert_eq!(view.read::<u64>(0x3ffc), Err(Fault { iova: 0x4000 }));
    assert_eq!(view.read::<u8>(0xa000), Err(Fault { iova: 0xa000 }));
    assert_eq!(view.read::<u8>(0x8000), Ok(0));
    assert_eq!(view.write(0x8000, &0u8), Err(Fault { iova: 0x8000 }));
    assert_eq!(
        view.read::<u64>(u64::MAX - 2),
        Err(Fault { iova: u64::MAX - 2 })
    );
}

#[test]
fn the_cached_region_does_not_lend_its_rights() {
    let (view, ..) = guest();
    assert!(view.read::<u8>(0x8000).is_ok());
    assert!(view.write(0x8010, &0u8).is_err());
    assert!(view.write(0x1000, &0u8).is_ok());
}

#[test]
fn contiguous_pushes_merge_and_the_list_keeps_the_memory() {
    let (mut view, low, _high) = guest();
    let mut list = Segments::new();
    view.push(&mut list, 0x1000, 0x800, RW).unwrap();
    view.push(&mut list, 0x1800, 0x800, RW).unwrap();
    assert_eq!((list.count(), list.len()), (1, 0x1000));
    let mapping = Arc::clone(low.mapping());
    drop(low);
    view = MapView::new(view.map().cleared());
    assert!(
        !mapping.is_sole_owner(),
        "the list still leases the old map"
    );
    assert_eq!(list.copy_from_slice(0, &[9; 16]), 16);
    drop(list);
    assert!(mapping.is_sole_owner());
    assert!(view.is_unleased());
}

#[test]
fn a_window_answers_only_inside() {
    let (view, low, _high) = guest();
    let window = view.window(0x1040, 0x80, RW).unwrap();
    assert!(window.write(0, &[5u8; 64]));
    assert_eq!(low.read::<[u8; 64]>(0x40), Some([5; 64]));
    assert!(!window.write(0x41, &[0u8; 64]));
    assert_eq!(window.read::<[u8; 64]>(0x41), None);
    assert_eq!(window.load_u32(0x7c), Some(0));
    assert_eq!(window.load_u32(0x7e), None);
    assert_eq!(window.load_u32(usize::MAX), None);
    assert!(window.publish_16(0x70, [1, 2]));
    assert!(!window.publish_16(0x78, [1, 2]));
    assert_eq!(low.read::<[u8; 16]>(0xb0).unwrap()[8], 2);
}

#[test]
fn a_window_may_lie_across_regions_but_not_outside() {
    let (view, low, high) = guest();
    let window = view.window(0x2f80, 0x100, RW).unwrap();
    assert!(window.store_u32(0x7c, 11) && window.store_u32(0x80, 12));
    assert_eq!(low.load_u32(0x1ffc), 11);
    assert_eq!(high.load_u32(0), 12);
    assert_eq!(
        window.read::<[u8; 64]>(0x60),
        None,
        "an element torn by a region border is refused"
    );
    assert!(view.window(0x3f80, 0x100, RW).is_err());
    assert!(view.window(0x1008, 0x40, RW).is_err(), "misaligned");
    assert!(view.window(0x8000, 0x40, RW).is_err(), "read-only");
    assert!(view.window(0x1000, 0, RW).is_err());
}

#[test]
fn a_region_border_inside_an_element_is_refused() {
    let (low, high) = (
        SharedMemory::new(c"low", 0x1004).unwrap(),
        SharedMemory::new(c"high", 0x1000).unwrap(),
    );
    let map = DmaMap::empty()
        .with(region(0x1000, &low, RW))
        .and_then(|map| map.with(region(0x2004, &high, RW)))
        .unwrap();
    // Pre-fix, only the second region's place in our memory was looked at, and every value behind the border was accessed at
    // an address 4 bytes off its alignment.
    let view = MapView::new(map);
    assert_eq!(
        view.window(0x1f80, 0x100, RW).err(),
        Some(Fault { iova: 0x1f80 })
    );
    assert!(view.window(0x1f80, 0x84, RW).is_ok());
}

#[test]
fn words_come_whole_and_only_from_inside() {
    let (view, low, high) = guest();
    low.write(0x1fc0, &[7u64; 8]);
    high.write(0, &[9u64; 8]);
    let window = view.window(0x2000, 0x2000, RW).unwrap();
    assert_eq!(window.read_words(0xfc0), Some([7; 8]));
    assert_eq!(window.read_words(0x1000), Some([9; 8]));
    assert_eq!(window.read_words::<8>(0xfc8), None, "across the border");
    assert_eq!(window.read_words::<1>(4), None, "misaligned");
    assert_eq!(window.read_words::<2>(0x1ff8), None, "beyond the end");
    assert_eq!(window.read_words::<1>(usize::MAX & !7), None);
}

#[test]
fn a_window_with_a_smaller_alignment_takes_what_its_elements_allow() {
    let (view, low, high) = guest();
    assert!(view.window_aligned(0x1002, 0x40, RW, 4).is_err());
    assert!(view.window_aligned(0x1001, 0x40, RW, 2).is_err());
    let window = view.window_aligned(0x1002, 0x40, RW, 2).unwrap();
    assert!(window.store_u16(2, 0xabcd));
    assert_eq!(low.load_u16(4), 0xabcd);
    assert_eq!(window.load_u16(2), Some(0xabcd));
    assert_eq!(window.load_u16(3), None, "unaligned");
    assert_eq!(window.load_u16(0x3f), None, "out of range");
    // What decides is the place in our memory, not the offset.
    assert_eq!(window.load_u32(0), None);
    assert_eq!(window.load_u32(2), Some(0xabcd));
    assert!(!window.store_u64(2, 1) && window.store_u64(6, 1));
    assert!(!window.publish_16(0, [0; 2]) && window.publish_16(14, [7; 2]));

    // Across a border at a multiple of 2 that is none of 64.
    let window = view.window_aligned(0x2ffa, 0x10, RW, 2).unwrap();
    for offset in (0..0x10).step_by(2) {
        assert!(window.store_u16(offset, 0x100 + offset as u16));
    }
    assert_eq!((low.load_u16(0x1ffe), high.load_u16(0)), (0x104, 0x106));
    assert!(!window.store_u32(4, 0), "torn by the border");
    assert!(view.window_aligned(0x2ffa, 0x10, RW, 4).is_err());
}

#[test]
fn a_prefetch_takes_any_address() {
    let (view, ..) = guest();
    view.prefetch(0x1000);
    assert!(view.read::<u8>(0x1000).is_ok());
    for iova in [0, 0x1000, 0x2fff, 0x3000, 0xa000, u64::MAX] {
        view.prefetch(iova);
    }
}

#[test]
fn words_come_from_anywhere_in_memory() {
    let (view, low, high) = guest();
    low.write(0x1ff0, &[0x1111_1111_1111_1111u64, 0x2222_2222_2222_2222]);
    high.write(0, &[0x3333_3333_3333_3333u64]);
    assert_eq!(
        view.read_words(0x2ff8),
        Ok([0x2222_2222_2222_2222, 0x3333_3333_3333_3333])
    );
    assert_eq!(view.read_words(0x2ff4), Ok([0x2222_2222_1111_1111]));
    assert_eq!(view.read_words(0x2ff0), Ok([0x1111_1111_1111_1111]));
    assert_eq!(view.read_words::<2>(0x3ff8), Err(Fault { iova: 0x4000 }));
    assert_eq!(view.read_words::<1>(0xa000), Err(Fault { iova: 0xa000 }));
}
