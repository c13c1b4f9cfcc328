use std::sync::Arc;

use guest_memory::{DmaMap, Region, SharedMemory};
use proptest::prelude::*;

use super::*;

const BASE: u64 = 0x10_0000;
const LEN: usize = 32 << 20;

fn view(memory: &SharedMemory) -> MapView {
    let region = Region {
        iova: BASE,
        len: LEN as u64,
        access: Access::READ | Access::WRITE,
        backing: Some(Arc::clone(memory.mapping())),
    };
    MapView::new(DmaMap::empty().with(region).unwrap())
}

proptest! {
    /// The steps of a transfer are its bytes in their order, in whole blocks, none too long.
    #[test]
    fn steps_make_up_the_whole(
        pieces in prop::collection::vec((0..1u64 << 20, prop_oneof![1..64u32, 1..9000u32, 1..3u32 << 20]), 1..60),
        skip in 0..40u32,
        block_shift in 9..17u32,
    ) {
        let memory = SharedMemory::new(c"plan", LEN).unwrap();
        let view = view(&memory);
        let mut buffers = Vec::new();
        for (at, len) in pieces {
            buffers.push(Buffer { addr: BASE + at, len });
        }
        let first = buffers.iter().position(|buffer| buffer.len > skip);
        let from = (first.unwrap_or(0), if first.is_some() { skip } else { 0 });
        let all: u64 = buffers[from.0..].iter().map(|it| u64::from(it.len)).sum();
        let len = (all - u64::from(from.1)) >> block_shift << block_shift;
        // Every byte's place, as addresses in pieces.
        let mut expected = Vec::new();
        let mut rest = len;
        for (n, buffer) in buffers[from.0..].iter().enumerate() {
            let skip = if n == 0 { from.1 } else { 0 };
            let piece = u64::from(buffer.len - skip).min(rest);
            expected.push((buffer.addr - BASE + u64::from(skip), piece));
            rest -= piece;
        }
        let mut plan = Plan::default();
        plan.set_transfer((IoKind::Read, false), (7, len, block_shift), &mut buffers, from);
        let mut whole = Segments::new();
        view.push(&mut whole, BASE, 1, Access::READ).unwrap();
        let start = whole.iovecs()[0].iov_base as u64;
        let (mut lba, mut seen) = (7, Vec::new());
        while let Some(io) = plan.next(&view).unwrap() {
            prop_assert_eq!(io.lba, lba);
            prop_assert_eq!(io.segments.len() as u64, io.blocks << block_shift);
            prop_assert!(io.blocks > 0 && io.segments.len() as u64 <= MAX_STEP);
            lba += io.blocks;
            for piece in io.segments.iovecs() {
                seen.push((piece.iov_base as u64 - start, piece.iov_len as u64));
            }
        }
        prop_assert_eq!((lba - 7) << block_shift, len);
        prop_assert_eq!(merged(seen), merged(expected));
    }
}

/// Pieces that touch as one.
fn merged(pieces: Vec<(u64, u64)>) -> Vec<(u64, u64)> {
    let mut list: Vec<(u64, u64)> = Vec::new();
    for (at, len) in pieces.into_iter().filter(|(_, len)| *len > 0) {
        match list.last_mut() {
            Some((last, so_far)) if *last + *so_far == at => *so_far += len,
            _ => list.push((at, len)),
        }
    }
    list
}
