//! Index arithmetic of the event index: pure functions of positions, exhaustively tested.

/// Split (2.7.7.2, 2.7.10): whether an index that grew by `count` to `new` went past `event`, so that whoever asked for `event`
/// is to be told. Indices run freely through 16 bits.
#[inline]
pub(super) fn split_passed(event: u16, new: u16, count: u32) -> bool {
    u32::from(new.wrapping_sub(event).wrapping_sub(1)) < count
}

/// A place in a packed ring: an index below the ring's size, and the wrap counter there (2.8.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) index: u16,
    pub(super) wrap: bool,
}

impl Place {
    /// The place `by` descriptors on, at most one turn.
    #[inline]
    pub(super) fn advance(self, by: u16, size: u16) -> Self {
        // Both at most 32768: no overflow in 32 bits.
        let index = u32::from(self.index) + u32::from(by);
        match index.checked_sub(size.into()) {
            None => Self {
                index: index as u16,
                wrap: self.wrap,
            },
            Some(index) => Self {
                index: index as u16,
                wrap: !self.wrap,
            },
        }
    }

    /// As in an event suppression structure (2.8.14).
    pub(super) fn off_wrap(self) -> u16 {
        self.index | u16::from(self.wrap) << 15
    }

    /// How far into two turns of the ring, after which places repeat.
    fn line(self, size: u16) -> u32 {
        u32::from(self.index) + if self.wrap { 0 } else { u32::from(size) }
    }
}

/// Packed (2.8.10): whether the `count` descriptors from `old` on contain the one that `off_wrap` names, so that whoever asked for
/// it is to be told. A place outside the ring is a driver's mistake; telling it once too often is harmless.
pub(super) fn packed_passed(off_wrap: u16, old: Place, count: u32, size: u16) -> bool {
    let event = Place {
        index: off_wrap & 0x7fff,
        wrap: off_wrap & 0x8000 != 0,
    };
    let turns = 2 * u32::from(size);
    if event.index >= size || count >= turns {
        return true;
    }
    // Both lines are below two turns.
    let ahead = (event.line(size) + turns - old.line(size)) % turns;
    ahead < count
}

#[cfg(test)]
mod tests;
