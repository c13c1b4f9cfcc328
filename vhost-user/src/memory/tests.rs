use std::io::pipe;

use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::unistd::ftruncate;

use super::*;

const SIZE: u64 = 0x10000;

fn file(size: u64) -> OwnedFd {
    let fd = memfd_create(c"guest", MFdFlags::MFD_CLOEXEC).unwrap();
    ftruncate(&fd, size.try_into().unwrap()).unwrap();
    fd
}

fn region(guest_address: u64, user_address: u64) -> MemoryRegion {
    MemoryRegion {
        guest_address,
        size: SIZE,
        user_address,
        mmap_offset: 0,
    }
}

fn empty() -> Table {
    Memory::new().table().clone()
}

#[test]
fn addresses_are_translated_within_one_region() {
    let table = empty()
        .with(region(0, 0x7000_0000), &file(SIZE))
        .unwrap()
        .with(region(SIZE, 0x9000_0000), &file(SIZE))
        .unwrap();
    assert_eq!(table.translate(0x7000_0010, 16), Some(0x10));
    assert_eq!(table.translate(0x9000_0000, SIZE as usize), Some(SIZE));
    assert_eq!(table.translate(0x9000_0001, SIZE as usize), None);
    assert_eq!(table.translate(0x6fff_ffff, 1), None);
    assert_eq!(table.translate(0x7000_0000 + SIZE, 1), None);
    assert_eq!(table.translate(u64::MAX, usize::MAX), None);
}

#[test]
fn regions_that_cannot_be_are_refused() {
    let table = empty()
        .with(region(0x10_0000, 0x7000_0000), &file(SIZE))
        .unwrap();
    let whole = file(SIZE);
    let at = |guest_address, size, user_address, mmap_offset| MemoryRegion {
        guest_address,
        size,
        user_address,
        mmap_offset,
    };
    for (case, region) in [
        ("empty", at(0, 0, 0, 0)),
        ("overlap in the guest", at(0x10_8000, SIZE, 0, 0)),
        ("overlap in the client", at(0, SIZE, 0x7000_8000, 0)),
        ("guest wrap", at(u64::MAX - 5, SIZE, 0, 0)),
        ("user wrap", at(0, SIZE, u64::MAX - 5, 0)),
        ("file wrap", at(0, SIZE, 0, u64::MAX - 5)),
        ("longer than its file", at(0, SIZE + 1, 0, 0)),
        ("beyond its file", at(0, SIZE, 0, 4096)),
    ] {
        assert!(table.with(region, &whole).is_err(), "{case}");
    }
    let pipe: OwnedFd = pipe().unwrap().0.into();
    assert!(table.with(region(0, 0), &pipe).is_err());
}

#[test]
fn there_is_room_for_as_many_regions_as_said_and_no_more() {
    let fd = file(SIZE);
    let mut table = empty();
    for index in 0..MAX_MEM_SLOTS as u64 {
        table = table.with(region(index * SIZE, index * SIZE), &fd).unwrap();
    }
    let beyond = MAX_MEM_SLOTS as u64 * SIZE;
    assert!(table.with(region(beyond, beyond), &fd).is_err());
    let table = table.without(&region(0, 0)).unwrap();
    assert!(table.with(region(beyond, beyond), &fd).is_ok());
}

#[test]
fn only_an_exact_region_is_removed() {
    let table = empty()
        .with(region(SIZE, 0x7000_0000), &file(SIZE))
        .unwrap();
    for other in [
        region(0, 0x7000_0000),
        region(SIZE, 0x7000_1000),
        MemoryRegion {
            size: SIZE / 2,
            ..region(SIZE, 0x7000_0000)
        },
    ] {
        assert!(table.without(&other).is_err());
    }
    let removed = table.without(&region(SIZE, 0x7000_0000)).unwrap();
    assert_eq!((removed.len(), removed.map().regions().count()), (0, 0));
}

#[test]
fn regions_that_stay_keep_their_mapping_and_the_others_go_when_nobody_uses_them() {
    let (kept, gone) = (file(SIZE), file(SIZE));
    let again = kept.try_clone().unwrap();
    let mut memory = Memory::new();
    let first = memory
        .table()
        .replaced(&[(region(0, 0), kept), (region(SIZE, SIZE), gone)])
        .unwrap();
    memory.commit(first);
    let mapping = Arc::downgrade(&memory.table().slots[0].mapping);
    let in_use = Arc::clone(memory.table().map());

    let second = memory
        .table()
        .replaced(&[(region(0, 0), again), (region(SIZE, SIZE), file(SIZE))])
        .unwrap();
    assert_ne!(second.map().epoch(), in_use.epoch());
    memory.commit(second);
    let now = Arc::downgrade(&memory.table().slots[0].mapping);
    assert!(mapping.ptr_eq(&now));
    assert_eq!(memory.retired.len(), 1);
    assert!(!memory.is_drained());
    drop(in_use);
    assert!(memory.is_drained());
}

#[test]
fn a_refused_table_changes_nothing() {
    let mut memory = Memory::new();
    let table = memory.table().with(region(0, 0), &file(SIZE)).unwrap();
    memory.commit(table);
    let epoch = memory.table().map().epoch();
    let bad = [(region(0, 0), file(SIZE)), (region(0, SIZE), file(SIZE))];
    assert!(memory.table().replaced(&bad).is_err());
    assert_eq!(memory.table().map().epoch(), epoch);
    assert!(memory.is_drained());
}
