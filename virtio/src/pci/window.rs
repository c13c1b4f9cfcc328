//! Access to BAR4 through configuration space (4.1.4.9), for firmware that cannot reach the BAR.

use pci::{Access, ConfigSpace};
use reactor::Cx;

use super::{BAR, BAR_SIZE, VirtioPci};

/// The capability's body in the configuration space.
#[derive(Clone, Copy, Debug)]
pub(super) struct Window {
    body: u64,
}

/// Offsets in the body, behind ID, link and length.
const WINDOW_BAR: u64 = 1;
const WINDOW_OFFSET: u64 = 5;
const WINDOW_LENGTH: u64 = 9;
const WINDOW_DATA: u64 = 13;
const DATA_BYTES: u64 = 4;

impl Window {
    pub(super) fn new(body: u64) -> Self {
        Self { body }
    }

    fn data(&self) -> u64 {
        self.body + WINDOW_DATA
    }

    /// Whether an access reaches the data.
    fn is_reached(&self, offset: u64, len: usize) -> bool {
        let end = offset.saturating_add(len as u64);
        offset < self.data() + DATA_BYTES && end > self.data()
    }

    /// Where the driver points: an offset in BAR4 and a width. `None` if it may not point there (4.1.4.9.2).
    fn target(&self, space: &ConfigSpace) -> Option<(u64, usize)> {
        let mut bar = [0];
        space.read(self.body + WINDOW_BAR, &mut bar);
        let dword = |at| {
            let mut dword = [0; 4];
            space.read(self.body + at, &mut dword);
            u64::from(u32::from_le_bytes(dword))
        };
        let (offset, length) = (dword(WINDOW_OFFSET), dword(WINDOW_LENGTH));
        let allowed = u32::from(bar[0]) == BAR
            && matches!(length, 1 | 2 | 4)
            && offset.is_multiple_of(length)
            && offset < BAR_SIZE;
        allowed.then_some((offset, usize::try_from(length).unwrap_or(0)))
    }
}

impl VirtioPci {
    /// Reads configuration space; a read of the window's data reads what it points to.
    pub(super) fn read_config_space(&mut self, offset: u64, data: &mut [u8]) {
        if self.window.is_reached(offset, data.len())
            && let Some((at, width)) = self.window.target(&self.pci)
        {
            let mut value = [0; DATA_BYTES as usize];
            if let Some(value) = value.get_mut(..width) {
                self.read_bar(at, value);
                self.pci.write(self.window.data(), value);
            }
        }
        self.pci.read(offset, data);
    }

    /// After a write of configuration space: if it reached the window's data, writes where it points to.
    pub(super) fn write_window(&mut self, cx: &mut Cx, offset: u64, len: usize) -> Access {
        if !self.window.is_reached(offset, len) {
            return Access::Done;
        }
        let Some((at, width)) = self.window.target(&self.pci) else {
            return Access::Done;
        };
        let mut value = [0; DATA_BYTES as usize];
        self.pci.read(self.window.data(), &mut value);
        match value.get(..width) {
            Some(value) => self.write_bar(cx, at, value),
            None => Access::Done,
        }
    }
}
