use std::sync::Arc;

use guest_memory::{DmaMap, Region, SharedMemory};
use proptest::prelude::*;

use super::*;

const BASE: u64 = 0x1000_0000;
const RAM: usize = 1 << 20;

struct Guest {
    ram: SharedMemory,
    view: MapView,
}

fn guest() -> Guest {
    let ram = SharedMemory::new(c"ram", RAM).unwrap();
    let region = Region {
        iova: BASE,
        len: RAM as u64,
        access: Access::READ | Access::WRITE,
        backing: Some(Arc::clone(ram.mapping())),
    };
    let view = MapView::new(DmaMap::empty().with(region).unwrap());
    Guest { ram, view }
}

fn block(offset: u64, len: u32) -> SglDescriptor {
    SglDescriptor::new(SglType::DATA_BLOCK, BASE + offset, len)
}

fn bucket(len: u32) -> SglDescriptor {
    SglDescriptor::new(SglType::BIT_BUCKET, 0, len)
}

fn more(offset: u64, descriptors: u32) -> SglDescriptor {
    SglDescriptor::new(SglType::SEGMENT, BASE + offset, descriptors * 16)
}

fn last(offset: u64, descriptors: u32) -> SglDescriptor {
    SglDescriptor::new(SglType::LAST_SEGMENT, BASE + offset, descriptors * 16)
}

#[derive(Debug)]
struct Data {
    segments: Segments,
    buckets: Buckets,
}

fn resolve(
    view: &MapView,
    first: SglDescriptor,
    len: usize,
    access: Access,
) -> Result<Data, DataError> {
    let mut segments = Segments::new();
    let buckets = push(view, first, len, access, &mut segments)?;
    Ok(Data { segments, buckets })
}

impl Guest {
    fn put(&self, offset: usize, descriptors: &[SglDescriptor]) {
        for (n, descriptor) in descriptors.iter().enumerate() {
            assert!(self.ram.write(offset + n * 16, descriptor));
        }
    }

    fn take(&self, first: SglDescriptor, len: usize) -> Result<Data, DataError> {
        resolve(&self.view, first, len, Access::WRITE)
    }

    fn write(&self, first: SglDescriptor, len: usize) -> Result<Data, DataError> {
        resolve(&self.view, first, len, Access::READ)
    }

    fn lens(&self, first: SglDescriptor, len: usize) -> Vec<usize> {
        let data = self.take(first, len).unwrap();
        data.segments.iovecs().iter().map(|v| v.iov_len).collect()
    }

    fn refuses(&self, first: SglDescriptor, len: usize, status: Status) {
        assert_eq!(
            self.take(first, len).unwrap_err(),
            DataError::Malformed(status)
        );
    }
}

#[test]
fn one_block_may_lie_anywhere() {
    let guest = guest();
    assert_eq!(guest.lens(block(0x1003, 512), 512), [512]);
    assert_eq!(
        guest.lens(block(0x1003, 4096), 512),
        [512],
        "longer than the data"
    );
    guest.refuses(block(0, 511), 512, Status::DATA_SGL_LENGTH_INVALID);
    guest.refuses(block(0, 0), 512, Status::DATA_SGL_LENGTH_INVALID);
    let outside = SglDescriptor::new(SglType::DATA_BLOCK, u64::MAX - 3, 512);
    assert!(matches!(guest.take(outside, 512), Err(DataError::Fault(_))));
}

#[test]
fn segments_are_followed_to_the_last() {
    let guest = guest();
    guest.put(
        0x100,
        &[block(0x2000, 100), block(0x3000, 0), more(0x200, 2)],
    );
    guest.put(0x200, &[block(0x4000, 200), last(0x308, 3)]);
    guest.put(
        0x308,
        &[block(0x5000, 150), block(0x6000, 50), block(0x7000, 12)],
    );
    assert_eq!(guest.lens(more(0x100, 3), 512), [100, 200, 150, 50, 12]);
    // The data is complete before the list ends.
    assert_eq!(guest.lens(more(0x100, 3), 300), [100, 200]);
    guest.refuses(more(0x100, 3), 513, Status::DATA_SGL_LENGTH_INVALID);
}

#[test]
fn contiguous_blocks_become_one_segment() {
    let guest = guest();
    guest.put(0x100, &[block(0x2000, 256), block(0x2100, 256)]);
    assert_eq!(guest.lens(last(0x100, 2), 512), [512]);
}

#[test]
fn segment_descriptors_are_checked() {
    let guest = guest();
    let bad = Status::INVALID_SGL_SEGMENT_DESCRIPTOR;
    guest.refuses(
        SglDescriptor::new(SglType::LAST_SEGMENT, BASE + 4, 16),
        512,
        bad,
    );
    guest.refuses(SglDescriptor::new(SglType::LAST_SEGMENT, BASE, 0), 512, bad);
    guest.refuses(SglDescriptor::new(SglType::SEGMENT, BASE, 24), 512, bad);
    guest.refuses(SglDescriptor::new(SglType::SEGMENT, !7, 32), 512, bad);
    // A last segment leads nowhere.
    guest.put(0x100, &[block(0x2000, 256), last(0x100, 2)]);
    guest.refuses(last(0x100, 2), 512, bad);
    // Any other segment ends with where to go on.
    guest.put(0x100, &[block(0x2000, 256), block(0x3000, 128)]);
    guest.refuses(more(0x100, 2), 512, bad);
    // And only its last descriptor may say so.
    guest.put(0x100, &[last(0x200, 1), block(0x2000, 256)]);
    guest.refuses(
        more(0x100, 2),
        512,
        Status::INVALID_NUMBER_OF_SGL_DESCRIPTORS,
    );
}

#[test]
fn unknown_kinds_are_refused() {
    let guest = guest();
    let wrong = Status::SGL_DESCRIPTOR_TYPE_INVALID;
    for kind in [
        SglType::KEYED_DATA_BLOCK,
        SglType::TRANSPORT_DATA_BLOCK,
        SglType::VENDOR_SPECIFIC,
        SglType(9),
    ] {
        guest.refuses(SglDescriptor::new(kind, BASE, 512), 512, wrong);
    }
    let mut offset = block(0, 512);
    offset.id = offset.id.with_subtype(SglSubtype::OFFSET);
    guest.refuses(offset, 512, wrong);
}

#[test]
fn loops_end() {
    let guest = guest();
    let many = Status::INVALID_NUMBER_OF_SGL_DESCRIPTORS;
    guest.put(0x100, &[more(0x100, 1)]);
    guest.refuses(more(0x100, 1), 512, many);
    guest.put(0x100, &[block(0x2000, 0), more(0x100, 2)]);
    guest.refuses(more(0x100, 2), 512, many);
    // One huge segment of nothing (the memory is zero: data blocks of length 0 at address 0 are not even mapped).
    guest.put(0x4000, &vec![block(0, 0); 5000]);
    guest.refuses(last(0x4000, 5000), 512, many);
    // More ranges than the kernel takes.
    let scattered: Vec<_> = (0..2000).map(|n| block(0x4_0000 + n * 64, 1)).collect();
    guest.put(0x4000, &scattered);
    guest.refuses(last(0x4000, 2000), 2000, many);
}

#[test]
fn bit_buckets_swallow_what_is_read_and_give_nothing_to_write() {
    let guest = guest();
    guest.put(
        0x100,
        &[
            bucket(100),
            block(0x2000, 300),
            bucket(50),
            bucket(0),
            block(0x3000, 62),
        ],
    );
    let data = guest.take(last(0x100, 5), 512).unwrap();
    assert_eq!(
        data.buckets.as_slice(),
        [
            Bucket { start: 0, len: 100 },
            Bucket {
                start: 400,
                len: 50
            }
        ]
    );
    assert_eq!(data.segments.len(), 362);
    let data = guest.write(last(0x100, 5), 362).unwrap();
    assert!(data.buckets.is_empty());
    assert_eq!(data.segments.len(), 362);
    guest.put(0x100, &[bucket(1); 17]);
    guest.refuses(
        last(0x100, 17),
        17,
        Status::INVALID_NUMBER_OF_SGL_DESCRIPTORS,
    );
    let all = guest.take(bucket(512), 512).unwrap();
    assert_eq!(all.segments.len(), 0);
}

#[test]
fn an_unmapped_segment_is_a_fault() {
    let guest = guest();
    let outside = SglDescriptor::new(SglType::LAST_SEGMENT, 0x5000, 32);
    let error = guest.take(outside, 512).unwrap_err();
    assert_eq!(error.status(), Status::DATA_TRANSFER_ERROR);
}

proptest! {
    /// Whatever the bytes mean, a walk ends, and with exactly the bytes asked for if it ends well.
    #[test]
    fn garbage_ends(words in proptest::collection::vec(any::<[u8; 16]>(), 64), len in 1usize..8192, first in any::<[u8; 16]>()) {
        let guest = guest();
        for (n, word) in words.iter().enumerate() {
            let mut word = *word;
            // Half of them with a plausible address and kind.
            if n % 2 == 0 {
                let address = BASE + u64::from(word[0]) * 16;
                word[..8].copy_from_slice(&address.to_ne_bytes());
                word[9..12].fill(0);
                word[15] = (word[15] % 4) << 4;
            }
            guest.ram.write(n * 16, &word);
        }
        let mut first = SglDescriptor::new(SglType(first[15] % 4), BASE + u64::from(first[0]) * 8, u32::from(first[8]) * 16);
        first.length &= 0x3f0;
        if let Ok(data) = guest.take(first, len) {
            let dropped: usize = data.buckets.as_slice().iter().map(|bucket| bucket.len).sum();
            prop_assert_eq!(data.segments.len() + dropped, len);
        }
    }
}
