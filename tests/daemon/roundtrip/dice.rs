//! Chance that shrinks: a byte for each choice, and zero, the plainest choice, when there is none left.

use std::path::Path;

use serde_json::{Map, Value};

/// What decides about one call.
pub(super) struct Dice<'a> {
    bytes: std::slice::Iter<'a, u8>,
    place: &'a Path,
}

/// A member's value.
pub(super) type Make = fn(&mut Dice<'_>) -> Value;

impl<'a> Dice<'a> {
    pub(super) fn new(bytes: &'a [u8], place: &'a Path) -> Self {
        Self {
            bytes: bytes.iter(),
            place,
        }
    }

    fn roll(&mut self) -> u8 {
        self.bytes.next().copied().unwrap_or(0)
    }

    /// One of several.
    pub(super) fn pick<T: Clone>(&mut self, of: &[T]) -> T {
        of[usize::from(self.roll()) % of.len()].clone()
    }

    pub(super) fn flag(&mut self) -> Value {
        (self.roll() % 2 == 1).into()
    }

    pub(super) fn number(&mut self, of: &[u64]) -> Value {
        self.pick(of).into()
    }

    pub(super) fn text(&mut self, of: &[&str]) -> Value {
        self.pick(of).into()
    }

    /// A path within the test's directory.
    pub(super) fn path(&mut self, of: &[&str]) -> Value {
        let path = self.place.join(self.pick(of));
        path.to_str().expect("a path").into()
    }

    /// Parameters: all members of the first list, some of the second, and now and then one that is wrong.
    pub(super) fn params(&mut self, all: &[(&str, Make)], some: &[(&str, Make)]) -> Value {
        let mut params = Map::new();
        for (name, make) in all {
            params.insert((*name).to_owned(), make(self));
        }
        for (name, make) in some {
            if self.roll() % 3 == 1 {
                params.insert((*name).to_owned(), make(self));
            }
        }
        if self.roll() == 255 {
            params.insert("nonsense".to_owned(), true.into());
        }
        params.into()
    }
}
