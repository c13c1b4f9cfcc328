//! Bytes without meaning that are the same every time.

use crate::Seed;

/// `len` bytes that look random (xorshift64*), different for each `number`.
pub fn bytes(number: u64, len: usize) -> Vec<u8> {
    let mut state = number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (0..len)
        .map(|_| {
            state ^= state >> 12;
            state ^= state << 25;
            state ^= state >> 27;
            state.wrapping_mul(0x2545_f491_4f6c_dd1d).to_be_bytes()[0]
        })
        .collect()
}

/// Noise of growing length: for targets that make something valid of any bytes, these are many different sequences.
pub fn seeds(count: u64) -> Vec<Seed> {
    (0..count)
        .map(|number| {
            let len = 16usize << (number % 8);
            (format!("noise-{number}"), bytes(number, len))
        })
        .collect()
}
