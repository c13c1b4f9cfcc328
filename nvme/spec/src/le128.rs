//! 128-bit little-endian integers at 8-byte alignment.

use core::fmt;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// A 128-bit number of the specification.
///
/// Not `u128`: its alignment of 16 would put padding into Identify Controller, where such fields
/// start at multiples of 8 only.
#[derive(Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Le128([u64; 2]);

impl Le128 {
    /// From its value.
    #[must_use]
    pub const fn new(value: u128) -> Self {
        Self([value as u64, (value >> 64) as u64])
    }

    /// Its value.
    #[must_use]
    pub const fn get(self) -> u128 {
        self.0[0] as u128 | (self.0[1] as u128) << 64
    }
}

impl From<u128> for Le128 {
    fn from(value: u128) -> Self {
        Self::new(value)
    }
}

impl fmt::Debug for Le128 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.get().fmt(f)
    }
}
