//! A map keyed by tags, for what must be remembered about a request in flight.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

/// Allocates only while the number of requests in flight reaches a new high.
pub(crate) type TagMap<T> = HashMap<u64, T, BuildHasherDefault<TagHasher>>;

/// Tags come from our own device models, so nobody can choose them to collide: one multiplication spreads them.
#[derive(Default)]
pub(crate) struct TagHasher(u64);

impl Hasher for TagHasher {
    #[inline]
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    #[inline]
    fn write_u64(&mut self, tag: u64) {
        // 2^64 divided by the golden ratio; the table takes its index from the low bits and its check bits from the high ones.
        let spread = (self.0 ^ tag).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.0 = spread ^ (spread >> 32);
    }
}
