use super::*;

#[test]
fn memory_begins_where_its_descriptor_says() {
    let memory = SharedMemory::new_at(c"doorbells", 0x1000, 0x2000).unwrap();
    assert_eq!((memory.file_offset(), memory.len()), (0x1000, 0x2000));
    memory.store_u32(8, 77);
    // A peer that maps the whole file finds the value behind the offset.
    let fd = memory.fd().try_clone_to_owned().unwrap();
    let peer = SharedMemory::from_fd(fd, 0, 0x3000).unwrap();
    assert_eq!((peer.load_u32(0x1008), peer.load_u32(8)), (77, 0));
}

#[test]
fn a_sealed_descriptor_cannot_be_resized() {
    let memory = SharedMemory::new(c"sealed", 0x1000).unwrap();
    assert_eq!(ftruncate(memory.fd(), 0), Err(Errno::EPERM));
    assert_eq!(ftruncate(memory.fd(), 0x2000), Err(Errno::EPERM));
    assert!(SharedMemory::new_at(c"absurd", u64::MAX, 0x1000).is_err());
}
