use super::*;

fn list(bytes: &[u8]) -> Segments {
    let mut buffer = HostBuffer::new(bytes.len());
    buffer.as_mut_slice().copy_from_slice(bytes);
    Segments::from_host(buffer)
}

#[test]
fn a_ram_disk_gives_back_what_it_got() {
    let ram = SharedRam::new(1 << 20).unwrap();
    assert!(ram.write(1000, &list(&[7; 9000])));
    let back = list(&[0; 9002]);
    assert!(ram.read(999, &back));
    let back = back.into_host().unwrap();
    assert_eq!((back.as_slice()[0], back.as_slice()[9001]), (0, 0));
    assert!(back.as_slice()[1..9001].iter().all(|byte| *byte == 7));
}

#[test]
fn ranges_outside_do_nothing() {
    let ram = SharedRam::new(4096).unwrap();
    assert!(!ram.write(4000, &list(&[1; 100])));
    assert!(!ram.read(u64::MAX, &list(&[1; 100])));
    assert!(!ram.zero(1, 4096));
    assert!(!ram.zero(u64::MAX, u64::MAX));
    ram.prefetch(1 << 40, 8);
    assert!(SharedRam::new(0).is_err());
}

#[test]
fn zeroing_keeps_the_edges() {
    for (at, len) in [
        (100, 50),
        (4000, 9000),
        (4096, 8192),
        (0, 65536),
        (4095, 2),
        (5000, 0),
    ] {
        let ram = SharedRam::new(65536).unwrap();
        assert!(ram.write(0, &list(&[0xee; 65536])));
        assert!(ram.zero(at, len));
        let all = list(&[0; 65536]);
        assert!(ram.read(0, &all));
        for (index, byte) in all.into_host().unwrap().as_slice().iter().enumerate() {
            let inside = (at..at + len).contains(&(index as u64));
            assert_eq!(
                *byte,
                if inside { 0 } else { 0xee },
                "byte {index} of {at}+{len}"
            );
        }
    }
}

#[test]
fn copying_ahead_copies_the_same() {
    for (at, len, next) in [
        (0, 4096, 8192),
        (1, 64, 0),
        (3, 63, u64::MAX),
        (100, 1000, 65535),
        (512, 0, 0),
    ] {
        let bytes: Vec<u8> = (0..len).map(|index| (index % 251) as u8 + 1).collect();
        let ram = SharedRam::new(65536).unwrap();
        assert!(ram.write_ahead(at, &list(&bytes), next));
        let all = list(&[0; 65536]);
        assert!(ram.read(0, &all));
        let all = all.into_host().unwrap();
        let at = at as usize;
        assert_eq!(&all.as_slice()[at..at + len], bytes);
        let around = [&all.as_slice()[..at], &all.as_slice()[at + len..]];
        assert!(around.iter().all(|rest| rest.iter().all(|byte| *byte == 0)));
    }
    let ram = SharedRam::new(4096).unwrap();
    assert!(!ram.write_ahead(4095, &list(&[1; 2]), 0));
}

#[test]
fn clearing_stays_inside() {
    let ram = SharedRam::new(8192).unwrap();
    assert!(ram.write(0, &list(&[5; 8192])));
    assert!(ram.clear(4000, 200));
    assert!(!ram.clear(8000, 193) && !ram.clear(u64::MAX, 1));
    let all = list(&[0; 8192]);
    assert!(ram.read(0, &all));
    for (index, byte) in all.into_host().unwrap().as_slice().iter().enumerate() {
        let expected = if (4000..4200).contains(&index) { 0 } else { 5 };
        assert_eq!(*byte, expected, "byte {index}");
    }
}

#[test]
fn comparing_finds_every_difference() {
    let ram = SharedRam::new(8192).unwrap();
    let bytes: Vec<u8> = (0..6000).map(|index| (index % 251) as u8).collect();
    assert!(ram.write(100, &list(&bytes)));
    assert_eq!(ram.matches(100, &list(&bytes)), Some(true));
    assert_eq!(ram.matches(8192, &Segments::new()), Some(true));
    for at in [0, 1, 511, 2999, 4095, 4096, 5999] {
        let mut other = bytes.clone();
        other[at] ^= 1;
        assert_eq!(ram.matches(100, &list(&other)), Some(false), "byte {at}");
        assert!(!list(&bytes).matches(0, &other));
    }
    assert_eq!(ram.matches(2193, &list(&bytes)), None);
    assert!(list(&bytes).matches(1000, &bytes[1000..]));
    assert!(!list(&bytes).matches(1, &bytes), "too few bytes");
}
