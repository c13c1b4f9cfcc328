//! A map keyed by tags, for what must be remembered about a request in flight.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

/// Tags come from our own device models, so nobody can choose them to collide: one multiplication spreads them.
#[derive(Default)]
struct TagHasher(u64);

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

/// Allocates only while the number of requests in flight reaches a new high.
#[derive(Debug)]
pub(crate) struct TagMap<T>(HashMap<u64, T, BuildHasherDefault<TagHasher>>);

impl<T> Default for TagMap<T> {
    fn default() -> Self {
        Self(HashMap::default())
    }
}

impl<T> TagMap<T> {
    pub(crate) fn len(&self) -> u64 {
        self.0.len() as u64
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    #[inline]
    pub(crate) fn insert(&mut self, tag: u64, value: T) {
        // Places of removed entries count as used until the table is tidied up, which it does in place only while it is
        // less than half full. So it is kept that empty, by growing at a new high and not at some later moment.
        if self.0.len() * 2 >= self.0.capacity() {
            self.0.reserve(self.0.len() * 2 + 8);
        }
        self.0.insert(tag, value);
    }

    #[inline]
    pub(crate) fn remove(&mut self, tag: u64) -> Option<T> {
        self.0.remove(&tag)
    }

    pub(crate) fn get(&self, tag: u64) -> Option<&T> {
        self.0.get(&tag)
    }

    /// Changes all values, or only that of a tag.
    pub(crate) fn for_each(&mut self, tag: Option<u64>, change: impl FnMut(&mut T)) {
        match tag {
            Some(tag) => self.0.get_mut(&tag).into_iter().for_each(change),
            None => self.0.values_mut().for_each(change),
        }
    }

    pub(crate) fn get_or_insert_with(&mut self, tag: u64, value: impl FnOnce() -> T) -> &mut T {
        self.0.entry(tag).or_insert_with(value)
    }
}

#[cfg(test)]
mod tests;
