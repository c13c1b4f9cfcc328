use guest_memory::{MapView, SharedMemory};

use super::*;
use crate::test_fds::watched;

const PAGE: u64 = 4096;

fn file(pages: usize) -> SharedMemory {
    SharedMemory::new(c"vfio-user memory test", pages * 4096).unwrap()
}

fn region(file: Option<&SharedMemory>, offset: u64, address: u64, size: u64) -> request::DmaMap {
    request::DmaMap {
        flags: DmaMapFlags::READ | DmaMapFlags::WRITE,
        offset,
        address,
        size,
        fd: file.map(|file| file.fd().try_clone_to_owned().unwrap()),
    }
}

#[track_caller]
fn refused<T: std::fmt::Debug>(result: Result<T, Rejection>, errno: Errno) {
    assert_eq!(result.unwrap_err().errno, errno);
}

#[test]
fn a_region_reads_and_writes_its_file() {
    let file = file(4);
    let mut memory = Memory::new(Rc::default());
    assert!(
        memory
            .map(region(Some(&file), PAGE, 0x10_0000, 2 * PAGE))
            .unwrap()
    );
    let view = MapView::new(Arc::clone(memory.current()));
    view.write(0x10_0008, &0x1234_5678_u32).unwrap();
    assert_eq!(file.read::<u32>(4096 + 8), Some(0x1234_5678));
    view.read::<u32>(0x10_2000).unwrap_err();
}

#[test]
fn rights_are_the_clients() {
    let file = file(1);
    let mut memory = Memory::new(Rc::default());
    let mut read_only = region(Some(&file), 0, 0, PAGE);
    read_only.flags = DmaMapFlags::READ;
    memory.map(read_only).unwrap();
    let view = MapView::new(Arc::clone(memory.current()));
    assert_eq!(view.read::<u32>(0), Ok(0));
    view.write(0, &1_u32).unwrap_err();
}

#[test]
fn a_region_without_descriptor_is_there_but_cannot_be_reached() {
    let mut memory = Memory::new(Rc::default());
    assert!(memory.map(region(None, 0, 0xc000_0000, PAGE)).unwrap());
    let view = MapView::new(Arc::clone(memory.current()));
    view.read::<u32>(0xc000_0000).unwrap_err();
    refused(
        memory.map(region(None, 0, 0xc000_0000, 2 * PAGE)),
        Errno::EEXIST,
    );
    assert!(memory.unmap(0xc000_0000, PAGE).unwrap());
    assert!(memory.is_drained());
}

#[test]
fn the_same_region_again_changes_nothing() {
    let (file, other) = (file(4), file(4));
    let mut memory = Memory::new(Rc::default());
    memory.map(region(Some(&file), 0, 0, PAGE)).unwrap();
    let epoch = memory.current().epoch();
    assert!(!memory.map(region(Some(&file), 0, 0, PAGE)).unwrap());
    assert_eq!(memory.current().epoch(), epoch);
    // The same addresses with anything else are an overlap.
    refused(
        memory.map(region(Some(&file), PAGE, 0, PAGE)),
        Errno::EEXIST,
    );
    refused(memory.map(region(Some(&other), 0, 0, PAGE)), Errno::EEXIST);
    refused(memory.map(region(None, 0, 0, PAGE)), Errno::EEXIST);
    let mut read_only = region(Some(&file), 0, 0, PAGE);
    read_only.flags = DmaMapFlags::READ;
    refused(memory.map(read_only), Errno::EEXIST);
    assert_eq!(memory.current().epoch(), epoch);
}

#[test]
fn overlaps_are_refused_on_either_side() {
    let file = file(8);
    let mut memory = Memory::new(Rc::default());
    memory
        .map(region(Some(&file), 0, 4 * PAGE, 2 * PAGE))
        .unwrap();
    for (address, size) in [(3, 2), (5, 2), (4, 1), (5, 1), (3, 4), (0, 8)] {
        let overlap = region(Some(&file), 0, address * PAGE, size * PAGE);
        refused(memory.map(overlap), Errno::EEXIST);
    }
    memory.map(region(Some(&file), 0, 3 * PAGE, PAGE)).unwrap();
    memory.map(region(Some(&file), 0, 6 * PAGE, PAGE)).unwrap();
}

#[test]
fn a_region_outside_its_file_is_refused() {
    let file = file(4);
    let mut memory = Memory::new(Rc::default());
    refused(
        memory.map(region(Some(&file), 0, 0, 5 * PAGE)),
        Errno::EINVAL,
    );
    refused(
        memory.map(region(Some(&file), 4 * PAGE, 0, PAGE)),
        Errno::EINVAL,
    );
    refused(
        memory.map(region(Some(&file), 3 * PAGE + 1, 0, PAGE)),
        Errno::EINVAL,
    );
    refused(
        memory.map(region(Some(&file), 1 << 62, 0, PAGE)),
        Errno::EINVAL,
    );
    assert!(memory.current().is_empty());
    memory.map(region(Some(&file), 3 * PAGE, 0, PAGE)).unwrap();
}

#[test]
fn a_descriptor_that_cannot_be_mapped_is_refused() {
    let mut memory = Memory::new(Rc::default());
    let mut pipe = region(None, 0, 0, PAGE);
    pipe.fd = Some(watched().0);
    assert!(memory.map(pipe).is_err());
    assert!(memory.current().is_empty());
}

#[test]
fn unaligned_regions_work() {
    let file = file(2);
    let mut memory = Memory::new(Rc::default());
    memory.map(region(Some(&file), 100, 0x1003, 5000)).unwrap();
    let view = MapView::new(Arc::clone(memory.current()));
    view.write_slice(0x1003 + 4990, b"0123456789").unwrap();
    let mut tail = [0; 10];
    assert!(file.read_slice(100 + 4990, &mut tail));
    assert_eq!(&tail, b"0123456789");
    view.read::<u8>(0x1002).unwrap_err();
    view.read::<u8>(0x1003 + 5000).unwrap_err();
}

#[test]
fn a_region_is_unmapped_whole_or_not_at_all() {
    let file = file(4);
    let mut memory = Memory::new(Rc::default());
    memory.map(region(Some(&file), 0, PAGE, 2 * PAGE)).unwrap();
    for (address, size) in [
        (0, PAGE),
        (PAGE, PAGE),
        (0, 2 * PAGE),
        (2 * PAGE, PAGE),
        (2 * PAGE, 3 * PAGE),
        (3 * PAGE, PAGE),
        (PAGE, u64::MAX),
        (PAGE, 0),
    ] {
        refused(memory.unmap(address, size), Errno::ENOENT);
    }
    assert!(memory.unmap(PAGE, 2 * PAGE).unwrap());
    assert!(memory.is_drained());
    refused(memory.unmap(PAGE, 2 * PAGE), Errno::ENOENT);
}

/// As QEMU unmaps an address space that the guest's IOMMU takes away: in pieces that know nothing of regions.
#[test]
fn a_large_range_takes_all_regions_inside() {
    let (low, high) = (file(4), file(4));
    let mut memory = Memory::new(Rc::default());
    memory.map(region(Some(&low), 0, 0, PAGE)).unwrap();
    memory
        .map(region(Some(&low), PAGE, PAGE, 2 * PAGE))
        .unwrap();
    memory.map(region(None, 0, 3 * PAGE, PAGE)).unwrap();
    memory.map(region(Some(&high), 0, 1 << 32, PAGE)).unwrap();
    let view = MapView::new(Arc::clone(memory.current()));
    view.write(0, &7_u32).unwrap();
    assert!(memory.unmap(0, 1 << 31).unwrap());
    assert_eq!(memory.current().len(), 1);
    assert!(!memory.is_drained());
    assert!(!memory.unmap(0, 1 << 31).unwrap(), "known, and draining");
    drop(view);
    assert!(memory.is_drained());
    refused(memory.unmap(0, 1 << 31), Errno::ENOENT);
    // The addresses are free for other memory.
    memory.map(region(Some(&high), PAGE, 0, PAGE)).unwrap();
    assert!(memory.unmap(0, u64::MAX).unwrap());
    assert!(memory.is_drained());
    assert!(memory.current().is_empty());
}

#[test]
fn a_region_in_use_drains_first_and_can_be_asked_for_again() {
    let file = file(1);
    let mut memory = Memory::new(Rc::default());
    memory.map(region(Some(&file), 0, 0, PAGE)).unwrap();
    let view = MapView::new(Arc::clone(memory.current()));
    assert!(memory.unmap(0, PAGE).unwrap());
    assert!(!memory.is_drained());
    let since = memory.draining_since();
    assert!(since.is_some());
    // What began before may go on.
    view.write(0, &7_u32).unwrap();
    assert_eq!(file.read::<u32>(0), Some(7));
    // Asked again, it is known, and the time counts from the start.
    assert!(!memory.unmap(0, PAGE).unwrap());
    assert_eq!(memory.draining_since(), since);
    // The addresses are free for something else meanwhile.
    memory.map(region(Some(&file), 0, 0, PAGE)).unwrap();
    drop(view);
    assert!(memory.is_drained());
    assert_eq!(memory.draining_since(), None);
}

#[test]
fn everything_can_be_unmapped_at_once() {
    let file = file(4);
    let mut memory = Memory::new(Rc::default());
    for page in 0..4 {
        memory
            .map(region(Some(&file), page * PAGE, page * 2 * PAGE, PAGE))
            .unwrap();
    }
    memory.map(region(None, 0, 1 << 40, PAGE)).unwrap();
    memory.unmap_all();
    assert!(memory.current().is_empty());
    assert!(memory.is_drained());
    memory.unmap_all();
    memory.map(region(Some(&file), 0, 0, PAGE)).unwrap();
}

#[test]
fn as_many_regions_as_promised_and_one_more() {
    assert_eq!(Memory::new(Rc::default()).limit, 65535);
    // The promised number takes seconds, since every region makes a new map; the rule is the same.
    let most = 100;
    let mut memory = Memory::with_limit(100, Rc::default());
    let every = |index: u64| region(None, 0, index * PAGE, PAGE);
    for index in 0..most {
        memory.map(every(index)).unwrap();
    }
    refused(memory.map(every(most)), Errno::EINVAL);
    // Again exactly one that is there is no further one.
    assert!(!memory.map(every(7)).unwrap());
    memory.unmap(0, PAGE).unwrap();
    memory.map(every(most)).unwrap();
}

fn mappings_named(name: &str) -> usize {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    maps.lines().filter(|line| line.contains(name)).count()
}

#[test]
fn nothing_stays_mapped() {
    let name = "vfio-user mapped";
    let file = SharedMemory::new(c"vfio-user mapped", 4096).unwrap();
    let ours = mappings_named(name);
    let mut memory = Memory::new(Rc::default());
    memory.map(region(Some(&file), 0, 0, PAGE)).unwrap();
    assert_eq!(mappings_named(name), ours + 1);
    memory.unmap(0, PAGE).unwrap();
    assert!(memory.is_drained());
    assert_eq!(mappings_named(name), ours);
    memory.map(region(Some(&file), 0, 0, PAGE)).unwrap();
    drop(memory);
    assert_eq!(mappings_named(name), ours);
}
