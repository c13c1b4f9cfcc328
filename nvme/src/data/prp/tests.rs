use std::sync::Arc;

use guest_memory::{DmaMap, Region, SharedMemory};
use proptest::prelude::*;

use super::*;

const BASE: u64 = 0x4000_0000;
const RAM: usize = 4 << 20;
/// A second region directly behind the first one, read-only, so that ranges cross a border.
const READ_ONLY: u64 = BASE + RAM as u64;

struct Guest {
    ram: SharedMemory,
    view: MapView,
}

fn guest() -> Guest {
    let ram = SharedMemory::new(c"ram", RAM).unwrap();
    let more = SharedMemory::new(c"rom", 1 << 20).unwrap();
    for word in 0..RAM / 8 {
        ram.write(word * 8, &(word as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    }
    let region = |iova, memory: &SharedMemory, access| Region {
        iova,
        len: memory.len() as u64,
        access,
        backing: Some(Arc::clone(memory.mapping())),
    };
    let map = DmaMap::empty()
        .with(region(BASE, &ram, Access::READ | Access::WRITE))
        .and_then(|map| map.with(region(READ_ONLY, &more, Access::READ)))
        .unwrap();
    Guest {
        ram,
        view: MapView::new(map),
    }
}

impl Guest {
    fn entry(&self, iova: u64, value: u64) {
        assert!(
            self.ram
                .write(usize::try_from(iova - BASE).unwrap(), &value)
        );
    }

    fn resolve(&self, mps: u8, prp1: u64, prp2: u64, len: usize) -> Result<Segments, DataError> {
        let dptr = Dptr::from_prps(prp1, prp2);
        resolve(&self.view, PageSize::from_mps(mps), dptr, len, Access::READ)
    }

    fn bytes(&self, segments: &Segments) -> Vec<u8> {
        let mut bytes = vec![0; segments.len()];
        assert_eq!(segments.copy_to_slice(0, &mut bytes), bytes.len());
        bytes
    }

    fn gather(&self, pieces: &[(u64, usize)]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for &(iova, len) in pieces {
            let at = bytes.len();
            bytes.resize(at + len, 0);
            self.view.read_slice(iova, &mut bytes[at..]).unwrap();
        }
        bytes
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Wrong {
    Offset,
    Fault,
}

/// The text of Base 2.0c, 4.1.1, one entry at a time, with no regard for speed.
fn oracle(
    guest: &Guest,
    page: u64,
    prp1: u64,
    prp2: u64,
    len: u64,
) -> Result<Vec<(u64, usize)>, Wrong> {
    let read = |iova: u64| guest.view.read::<u64>(iova).map_err(|_| Wrong::Fault);
    let readable = |iova: u64, len: u64| {
        let mut probe = vec![0; len as usize];
        guest
            .view
            .read_slice(iova, &mut probe)
            .map_err(|_| Wrong::Fault)
    };
    if !prp1.is_multiple_of(4) {
        return Err(Wrong::Offset);
    }
    let first = len.min(page - prp1 % page);
    readable(prp1, first)?;
    let mut pieces = vec![(prp1, first as usize)];
    let mut rest = len - first;
    if rest == 0 {
        return Ok(pieces);
    }
    let mut take = |entry: u64, rest: &mut u64| {
        if !entry.is_multiple_of(page) {
            return Err(Wrong::Offset);
        }
        let piece = page.min(*rest);
        readable(entry, piece)?;
        pieces.push((entry, piece as usize));
        *rest -= piece;
        Ok(())
    };
    if rest <= page {
        take(prp2, &mut rest)?;
        return Ok(pieces);
    }
    let mut pointer = prp2;
    if !pointer.is_multiple_of(8) {
        return Err(Wrong::Offset);
    }
    while rest > 0 {
        let is_last_of_page = pointer % page == page - 8;
        let entry = read(pointer)?;
        if is_last_of_page && rest > page {
            if !entry.is_multiple_of(page) {
                return Err(Wrong::Offset);
            }
            pointer = entry;
            continue;
        }
        take(entry, &mut rest)?;
        pointer = pointer.wrapping_add(8);
    }
    Ok(pieces)
}

/// Addresses a guest might put into an entry; most of them good, or no list would ever be walked far.
fn address(page: u64) -> impl Strategy<Value = u64> {
    let pages = RAM as u64 / page;
    prop_oneof![
        600 => (0..pages).prop_map(move |n| BASE + n * page),
        1 => (0..RAM as u64).prop_map(|n| BASE + n),
        1 => (0..pages).prop_map(move |n| BASE + n * page + 8),
        1 => Just(READ_ONLY),
        1 => Just(READ_ONLY + (1 << 20)),
        1 => prop_oneof![Just(0), Just(u64::MAX), Just(!0xffff)],
    ]
}

fn first(page: u64) -> impl Strategy<Value = u64> {
    (0..RAM as u64 / page, 0..page / 4, 0..40u64)
        .prop_map(move |(n, dword, odd)| BASE + n * page + dword * 4 + u64::from(odd == 0))
}

fn list(page: u64) -> impl Strategy<Value = u64> {
    let near_end =
        (0..RAM as u64 / page, 1..40u64).prop_map(move |(n, k)| BASE + (n + 1) * page - k * 8);
    prop_oneof![3 => first(page), 3 => near_end, 1 => address(page)]
}

fn cases() -> impl Strategy<Value = (u8, u64, u64, usize, Vec<u64>)> {
    (0u8..=4).prop_flat_map(|mps| {
        let page = 4096u64 << mps;
        (
            Just(mps),
            first(page),
            list(page),
            1usize..700 * 4096,
            proptest::collection::vec(address(page), 1..64),
        )
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn agrees_with_the_text((mps, prp1, prp2, len, entries) in cases()) {
        thread_local!(static GUEST: Guest = guest());
        GUEST.with(|guest| {
            let page = 4096u64 << mps;
            // The whole memory is entries: any place can be a list.
            for (word, entry) in (0..RAM / 8).zip(entries.iter().cycle()) {
                guest.ram.write(word * 8, entry);
            }
            let expected = oracle(guest, page, prp1, prp2, len as u64);
            match (guest.resolve(mps, prp1, prp2, len), expected) {
                (Ok(segments), Ok(pieces)) => {
                    prop_assert_eq!(segments.len(), len);
                    prop_assert_eq!(guest.bytes(&segments), guest.gather(&pieces));
                }
                (Err(DataError::Fault(_)), Err(Wrong::Fault)) => {}
                (Err(error), Err(Wrong::Offset)) => prop_assert_eq!(error, OFFSET_INVALID),
                (got, expected) => prop_assert!(false, "{:?} but the text says {:?}", got, expected),
            }
            Ok(())
        })?;
    }
}

#[test]
fn one_page_needs_no_second_entry() {
    let guest = guest();
    let segments = guest
        .resolve(0, BASE + 0x1004, 0xdead_beef, 4096 - 4)
        .unwrap();
    assert_eq!((segments.count(), segments.len()), (1, 4092));
}

#[test]
fn two_pages_come_from_both_entries() {
    let guest = guest();
    let segments = guest
        .resolve(0, BASE + 0x1800, BASE + 0x5000, 4096)
        .unwrap();
    assert_eq!(segments.count(), 2);
    assert_eq!(
        guest.bytes(&segments),
        guest.gather(&[(BASE + 0x1800, 2048), (BASE + 0x5000, 2048)])
    );
    let wrong = guest.resolve(0, BASE + 0x1800, BASE + 0x5008, 4096);
    assert_eq!(wrong.unwrap_err(), OFFSET_INVALID);
}

#[test]
fn contiguous_pages_become_one_segment() {
    let guest = guest();
    for n in 0..255 {
        guest.entry(BASE + 0x20_0000 + n * 8, BASE + 0x1000 + n * 0x1000);
    }
    let segments = guest.resolve(0, BASE, BASE + 0x20_0000, 1 << 20).unwrap();
    assert_eq!((segments.count(), segments.len()), (1, 1 << 20));
}

#[test]
fn a_list_that_leads_to_itself_ends_with_the_transfer() {
    let guest = guest();
    let list = BASE + 0x20_0000;
    for n in 0..511 {
        guest.entry(list + n * 8, BASE + 0x1000);
    }
    guest.entry(list + 511 * 8, list);
    // Two rounds: 1022 pages, all of them the same one.
    let segments = guest.resolve(0, BASE, list, 1023 * 4096).unwrap();
    assert_eq!(segments.len(), 1023 * 4096);
    // More ranges than the kernel takes at once are refused, however long the loop would go on.
    let error = guest.resolve(0, BASE, list, 4096 * 4096).unwrap_err();
    assert_eq!(error, DataError::Malformed(Status::INVALID_FIELD));
}

#[test]
fn a_chained_list_starts_with_its_page() {
    let guest = guest();
    let list = BASE + 0x1f_fff8;
    guest.entry(list, BASE + 0x30_0008);
    assert_eq!(
        guest.resolve(0, BASE, list, 4 * 4096).unwrap_err(),
        OFFSET_INVALID
    );
    guest.entry(list, BASE + 0x30_0000);
    for n in 0..3 {
        guest.entry(BASE + 0x30_0000 + n * 8, BASE + 0x10_0000 - n * 0x2000);
    }
    let segments = guest.resolve(0, BASE, list, 4 * 4096).unwrap();
    assert_eq!((segments.count(), segments.len()), (4, 4 * 4096));
    // With only one page to come the last entry of the page is data.
    guest.entry(list - 8, BASE + 0x10_0000);
    guest.entry(list, BASE + 0x12_0000);
    let segments = guest.resolve(0, BASE, list - 8, 3 * 4096).unwrap();
    let pieces = [
        (BASE, 4096),
        (BASE + 0x10_0000, 4096),
        (BASE + 0x12_0000, 4096),
    ];
    assert_eq!(guest.bytes(&segments), guest.gather(&pieces));
}

#[test]
fn rights_and_holes_are_faults() {
    let guest = guest();
    let page = PageSize::MIN;
    let to_rom = Dptr::from_prps(READ_ONLY, 0);
    assert!(resolve(&guest.view, page, to_rom, 512, Access::READ).is_ok());
    let error = resolve(&guest.view, page, to_rom, 512, Access::WRITE).unwrap_err();
    assert_eq!(error.status(), Status::DATA_TRANSFER_ERROR);
    assert!(matches!(
        guest.resolve(0, 0x1000, 0, 512),
        Err(DataError::Fault(_))
    ));
    assert!(matches!(
        guest.resolve(0, BASE, !7, 1 << 20),
        Err(DataError::Fault(_))
    ));
    assert!(matches!(
        guest.resolve(0, !3, 0, 4),
        Err(DataError::Fault(_))
    ));
}

#[test]
fn nothing_to_transfer_needs_nothing() {
    let guest = guest();
    assert!(guest.resolve(0, 3, 5, 0).unwrap().is_empty());
}
