use std::os::fd::AsFd;

use super::*;
use crate::{MapView, Region, SharedMemory, fault};

fn memory(len: usize) -> SharedMemory {
    SharedMemory::new_unsealed(c"test", len).unwrap()
}

#[test]
fn a_range_needs_no_alignment() {
    let whole = memory(3 * 4096);
    assert!(whole.write(5000, &0x1122_3344u32.to_le_bytes()));
    let part = Mapping::from_fd(whole.fd(), 5000, 100, Access::READ | Access::WRITE)
        .map(Arc::new)
        .unwrap();
    assert_eq!(part.len(), 100);
    let region = Region {
        iova: 0x10,
        len: 100,
        access: Access::READ,
        backing: Some(Arc::clone(&part)),
    };
    let view = MapView::new(crate::DmaMap::empty().with(region).unwrap());
    assert_eq!(view.read::<[u8; 4]>(0x10), Ok(0x1122_3344u32.to_le_bytes()));
}

#[test]
fn a_range_beyond_the_file_is_refused_with_the_numbers() {
    let memory = memory(8192);
    let refused =
        |offset, len| Mapping::from_fd(memory.fd(), offset, len, Access::READ).unwrap_err();
    assert_eq!(
        refused(4096, 8192),
        MappingError::BeyondFile {
            end: 12288,
            size: 8192
        }
    );
    assert_eq!(refused(u64::MAX, 2), MappingError::BadRange);
    assert_eq!(refused(0, 0), MappingError::BadRange);
    assert_eq!(refused(0, 8193).errno(), Errno::EINVAL);
}

#[test]
fn something_that_cannot_be_mapped_reports_why() {
    let (reader, _writer) = nix::unistd::pipe().unwrap();
    let refused = Mapping::from_fd(reader.as_fd(), 0, 4096, Access::READ).unwrap_err();
    assert_eq!(refused, MappingError::Os(Errno::ENODEV));
}

#[test]
fn a_read_only_file_cannot_be_mapped_for_writing() {
    let file = std::fs::File::open("/proc/self/exe").unwrap();
    let refused = Mapping::from_fd(file.as_fd(), 0, 4096, Access::WRITE).unwrap_err();
    assert_eq!(refused, MappingError::Os(Errno::EACCES));
}

#[test]
fn a_truncated_file_poisons_its_mapping_and_nobody_else() {
    let victim = memory(8 * 4096);
    let neighbour = memory(4096);
    assert!(neighbour.write(0, &7u32.to_le_bytes()));
    let before = fault::count();
    nix::unistd::ftruncate(victim.fd(), 4096).unwrap();
    assert!(
        !victim.mapping().is_poisoned(),
        "nothing has touched it yet"
    );
    assert_eq!(victim.read::<[u8; 64]>(2 * 4096), Some([0; 64]));
    assert!(victim.mapping().is_poisoned());
    assert!(fault::count() > before);
    assert!(
        victim.write(5 * 4096, &[1u8; 8]),
        "writes go to memory nobody sees"
    );
    assert_eq!(neighbour.read::<[u8; 4]>(0), Some(7u32.to_le_bytes()));
    assert!(!neighbour.mapping().is_poisoned());
}

#[test]
fn a_place_in_the_fault_table_is_used_again() {
    for _ in 0..2000 {
        let memory = memory(4096);
        assert!(!memory.mapping().is_poisoned());
    }
}

#[test]
fn the_doorbell_page_cannot_be_truncated_by_whoever_gets_it() {
    let page = SharedMemory::new(c"doorbells", 4096).unwrap();
    let peer = page.fd().try_clone_to_owned().unwrap();
    assert_eq!(nix::unistd::ftruncate(&peer, 0), Err(Errno::EPERM));
    let theirs = SharedMemory::from_fd(peer, 0, 4096).unwrap();
    theirs.store_u32(8, 42);
    assert_eq!(page.load_u32(8), 42);
    assert_eq!(page.load_u32(4096), 0);
    assert_eq!(page.load_u32(2), 0, "unaligned reads answer zero");
}
