//! Index arithmetic of the event index: pure functions of positions, exhaustively tested.

/// Split (2.7.7.2, 2.7.10): whether an index that grew by `count` to `new` went past `event`, so that whoever asked for `event`
/// is to be told. Indices run freely through 16 bits.
#[inline]
pub(super) fn split_passed(event: u16, new: u16, count: u32) -> bool {
    u32::from(new.wrapping_sub(event).wrapping_sub(1)) < count
}

#[cfg(test)]
mod tests;
