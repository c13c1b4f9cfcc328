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

#[test]
fn integers_are_aligned_and_inside_or_not_there() {
    let memory = SharedMemory::new(c"integers", 0x1000).unwrap();
    memory.store_u64(8, 0x1122_3344_5566_7788);
    assert_eq!(memory.load_u64(8), 0x1122_3344_5566_7788);
    assert_eq!(memory.load_u32(12), 0x1122_3344);
    assert_eq!(memory.load_u16(10), 0x5566);
    assert_eq!(memory.load_u8(9), 0x77);
    memory.store_u8(9, 0xff);
    memory.store_u16(10, 0);
    assert_eq!(memory.load_u64(8), 0x1122_3344_0000_ff88);
    // Unaligned or outside.
    memory.store_u16(0xfff, 0xffff);
    memory.store_u16(11, 0xffff);
    memory.store_u64(0xffc, u64::MAX);
    memory.store_u8(0x1000, 1);
    memory.or_u8(0x1000, 1);
    memory.or_u8(usize::MAX, 1);
    assert_eq!(memory.load_u64(0xff8), 0);
    assert_eq!(memory.load_u64(8), 0x1122_3344_0000_ff88);
    assert_eq!((memory.load_u64(4), memory.load_u8(0x1000)), (0, 0));
}

#[test]
fn threads_that_set_bits_of_one_byte_lose_none() {
    let memory = SharedMemory::new(c"bits", 0x1000).unwrap();
    std::thread::scope(|scope| {
        for bit in 0..8 {
            let memory = &memory;
            scope.spawn(move || {
                for byte in 0..0x1000 {
                    memory.or_u8(byte, 1 << bit);
                }
            });
        }
    });
    assert!((0..0x1000).all(|byte| memory.load_u8(byte) == 0xff));
}
