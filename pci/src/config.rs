//! A type 0 configuration space with the capabilities that storage functions need.
//!
//! Sources: PCI Local Bus 3.0 section 6.1 (header), PCI Bus Power Management 1.2 section 3.2, PCI Express Base 4.0 section
//! 7.5.3 (PCI Express capability) and 6.6.2 (function level reset), PCI Local Bus 3.0 section 6.8.2 (MSI-X) and appendix H
//! (capability IDs: vendor specific).

/// Size of a PCI Express function's configuration space in bytes.
pub const CONFIG_SIZE: usize = 4096;

const COMMAND: usize = 0x04;
const STATUS: usize = 0x06;
const BARS: usize = 0x10;
const CAPABILITIES: usize = 0x34;
/// Capabilities start behind the 64-byte header.
const FIRST_CAPABILITY: usize = 0x40;

const STATUS_CAP_LIST: u16 = 1 << 4;
/// Error bits of the status register, cleared by writing ones.
const STATUS_W1C: u16 = 0xf900;

/// Memory space enable, bus master, parity response, SERR enable, interrupt disable, I/O space enable.
const COMMAND_WRITABLE: u16 = 0x0547;
const COMMAND_BUS_MASTER: u16 = 1 << 2;
const COMMAND_INTX_DISABLE: u16 = 1 << 10;

const CAP_PM: u8 = 0x01;
const CAP_VENDOR: u8 = 0x09;
const CAP_PCIE: u8 = 0x10;
const CAP_MSIX: u8 = 0x11;

/// Device Control, Initiate Function Level Reset.
const DEVCTL_FLR: u16 = 1 << 15;
const MSIX_ENABLE: u16 = 1 << 15;
const MSIX_FUNCTION_MASK: u16 = 1 << 14;

/// Who the function is.
#[derive(Clone, Copy, Debug)]
pub struct Identity {
    /// Vendor ID.
    pub vendor: u16,
    /// Device ID.
    pub device: u16,
    /// Subsystem vendor ID.
    pub subsystem_vendor: u16,
    /// Subsystem ID.
    pub subsystem: u16,
    /// Class, subclass, programming interface, as 0xCCSSPP.
    pub class: u32,
    /// Revision ID.
    pub revision: u8,
}

/// Where the MSI-X structures are.
#[derive(Clone, Copy, Debug)]
pub struct MsixLayout {
    /// Number of vectors, 1 to 2048.
    pub vectors: u16,
    /// BAR and byte offset (8-aligned) of the table.
    pub table: (u8, u32),
    /// BAR and byte offset (8-aligned) of the pending bit array.
    pub pending: (u8, u32),
}

/// What a write to the configuration space asks of the function.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ConfigEffects {
    /// Function level reset was initiated.
    pub flr: bool,
    /// The command register changed.
    pub command_changed: bool,
    /// MSI-X was enabled, disabled or (un)masked.
    pub msix_changed: bool,
}

/// The bytes, and which bits a write may change.
#[derive(Clone)]
pub struct ConfigSpace {
    bytes: Box<[u8; CONFIG_SIZE]>,
    writable: Box<[u8; CONFIG_SIZE]>,
    power_on: Box<[u8; CONFIG_SIZE]>,
    /// Offset of the last capability's "next" byte, or of the capabilities pointer.
    link: usize,
    end: usize,
    pcie: Option<usize>,
    msix: Option<usize>,
}

impl std::fmt::Debug for ConfigSpace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ConfigSpace")
            .field("header", &&self.bytes[..FIRST_CAPABILITY])
            .finish()
    }
}

impl ConfigSpace {
    /// A function without BARs and capabilities; `intx` gives it interrupt pin A.
    #[must_use]
    pub fn new(identity: Identity, intx: bool) -> Self {
        let mut space = Self {
            bytes: Box::new([0; CONFIG_SIZE]),
            writable: Box::new([0; CONFIG_SIZE]),
            power_on: Box::new([0; CONFIG_SIZE]),
            link: CAPABILITIES,
            end: FIRST_CAPABILITY,
            pcie: None,
            msix: None,
        };
        let class = identity.class.to_le_bytes();
        space.put(0x00, &identity.vendor.to_le_bytes(), &[]);
        space.put(0x02, &identity.device.to_le_bytes(), &[]);
        space.put(COMMAND, &[0, 0], &COMMAND_WRITABLE.to_le_bytes());
        space.put(
            0x08,
            &[identity.revision, class[0], class[1], class[2]],
            &[],
        );
        // Cache line size is read-write and ignored (PCI Express Base 7.5.1.3).
        space.put(0x0c, &[0], &[0xff]);
        space.put(0x2c, &identity.subsystem_vendor.to_le_bytes(), &[]);
        space.put(0x2e, &identity.subsystem.to_le_bytes(), &[]);
        space.put(0x3c, &[0, u8::from(intx)], &[0xff, 0]);
        space
    }

    fn put(&mut self, at: usize, value: &[u8], writable: &[u8]) {
        self.bytes[at..at + value.len()].copy_from_slice(value);
        self.power_on[at..at + value.len()].copy_from_slice(value);
        self.writable[at..at + writable.len()].copy_from_slice(writable);
    }

    /// Adds a 32-bit memory BAR of `size` bytes, a power of two from 16 on.
    #[must_use]
    pub fn with_bar32(mut self, index: usize, size: u32) -> Self {
        let mask = !(size.max(16).next_power_of_two() - 1);
        self.put(BARS + index * 4, &[0; 4], &mask.to_le_bytes());
        self
    }

    /// Adds a 64-bit memory BAR of `size` bytes, a power of two from 16 on; takes `index` and `index + 1`.
    #[must_use]
    pub fn with_bar64(mut self, index: usize, size: u64) -> Self {
        /// Memory space, 64 bits wide, not prefetchable.
        const TYPE_64: u32 = 0b0100;
        let mask = !(size.max(16).next_power_of_two() - 1);
        let at = BARS + index * 4;
        self.put(at, &u64::from(TYPE_64).to_le_bytes(), &mask.to_le_bytes());
        self
    }

    /// Links a capability of `body.len() + 2` bytes; returns where it starts.
    fn add_capability(&mut self, id: u8, body: &[u8], writable: &[u8]) -> usize {
        let at = self.end;
        self.put(at, &[id, 0], &[]);
        self.put(at + 2, body, writable);
        let place = u8::try_from(at).unwrap_or(0);
        let link = self.link;
        self.put(link, &[place], &[]);
        let status = STATUS_CAP_LIST.to_le_bytes();
        self.put(STATUS, &status, &[]);
        self.link = at + 1;
        self.end = (at + 2 + body.len()).next_multiple_of(4);
        at
    }

    /// Adds power management: D0 and D3hot, and no reset on the way back.
    #[must_use]
    pub fn with_power_management(mut self) -> Self {
        const VERSION_1_2: u16 = 3;
        const NO_SOFT_RESET: u16 = 1 << 3;
        let mut body = [0; 6];
        body[..2].copy_from_slice(&VERSION_1_2.to_le_bytes());
        body[2..4].copy_from_slice(&NO_SOFT_RESET.to_le_bytes());
        self.add_capability(CAP_PM, &body, &[0, 0, 0b11, 0, 0, 0]);
        self
    }

    /// Adds the PCI Express capability of an endpoint that can do function level reset.
    #[must_use]
    pub fn with_pcie(mut self) -> Self {
        const ENDPOINT_V2: u16 = 0x0002;
        /// Role-based error reporting, function level reset.
        const DEVCAP: u32 = 1 << 15 | 1 << 28;
        /// 2.5 GT/s, one lane: what VMMs expect of an emulated endpoint.
        const LINKCAP: u32 = 0x11;
        let mut body = [0; 58];
        let mut mask = [0; 58];
        body[..2].copy_from_slice(&ENDPOINT_V2.to_le_bytes());
        body[2..6].copy_from_slice(&DEVCAP.to_le_bytes());
        // Device Control: all but the reset bit is stored, without effect on an emulated link.
        mask[6..8].copy_from_slice(&0x7fffu16.to_le_bytes());
        body[10..14].copy_from_slice(&LINKCAP.to_le_bytes());
        mask[14..16].copy_from_slice(&0x0fffu16.to_le_bytes());
        body[16..18].copy_from_slice(&0x0011u16.to_le_bytes());
        // Device Control 2 and Link Control 2.
        mask[38..40].copy_from_slice(&0xffffu16.to_le_bytes());
        mask[46..48].copy_from_slice(&0xffffu16.to_le_bytes());
        let at = self.add_capability(CAP_PCIE, &body, &mask);
        self.pcie = Some(at);
        self
    }

    /// Adds MSI-X.
    #[must_use]
    pub fn with_msix(mut self, layout: MsixLayout) -> Self {
        let size_z = layout.vectors.clamp(1, 2048) - 1;
        let mut body = [0; 10];
        body[..2].copy_from_slice(&size_z.to_le_bytes());
        let place = |(bar, offset): (u8, u32)| ((offset & !7) | u32::from(bar & 7)).to_le_bytes();
        body[2..6].copy_from_slice(&place(layout.table));
        body[6..10].copy_from_slice(&place(layout.pending));
        let control = (MSIX_ENABLE | MSIX_FUNCTION_MASK).to_le_bytes();
        let at = self.add_capability(CAP_MSIX, &body, &control);
        self.msix = Some(at);
        self
    }

    /// Adds a vendor-specific capability: its ID, the link, its length, then `body`, of which the bits set in `writable`
    /// (from the body's first byte) are the driver's. Answers the offset of the body.
    pub fn add_vendor(&mut self, body: &[u8], writable: &[u8]) -> u64 {
        let len = u8::try_from(body.len() + 3).unwrap_or(u8::MAX);
        let body = [&[len], body].concat();
        let writable = [&[0], writable].concat();
        self.add_capability(CAP_VENDOR, &body, &writable) as u64 + 3
    }

    /// Reads; bytes beyond the end are zero.
    pub fn read(&self, offset: u64, data: &mut [u8]) {
        data.fill(0);
        let Some(from) = usize::try_from(offset)
            .ok()
            .and_then(|at| self.bytes.get(at..))
        else {
            return;
        };
        for (out, byte) in data.iter_mut().zip(from) {
            *out = *byte;
        }
    }

    fn word(&self, at: usize) -> u16 {
        u16::from_le_bytes([self.bytes[at], self.bytes[at + 1]])
    }

    /// Writes, any width and alignment; read-only bits and bytes beyond the end are left as they are.
    pub fn write(&mut self, offset: u64, data: &[u8]) -> ConfigEffects {
        let (command, msix) = (self.command(), self.msix_control());
        let mut effects = ConfigEffects::default();
        let Ok(start) = usize::try_from(offset) else {
            return effects;
        };
        let flr_byte = self.pcie.map(|at| at + 9);
        for (at, &value) in (start..CONFIG_SIZE).zip(data) {
            let mask = self.writable[at];
            self.bytes[at] = (self.bytes[at] & !mask) | (value & mask);
            match at.checked_sub(STATUS) {
                Some(0) => self.bytes[at] &= !(value & STATUS_W1C.to_le_bytes()[0]),
                Some(1) => self.bytes[at] &= !(value & STATUS_W1C.to_le_bytes()[1]),
                _ => {}
            }
            if Some(at) == flr_byte && value & DEVCTL_FLR.to_le_bytes()[1] != 0 {
                effects.flr = true;
            }
        }
        effects.command_changed = command != self.command();
        effects.msix_changed = msix != self.msix_control();
        effects
    }

    /// Back to the power-on values.
    pub fn reset(&mut self) {
        self.bytes = self.power_on.clone();
    }

    /// The command register.
    #[must_use]
    pub fn command(&self) -> u16 {
        self.word(COMMAND)
    }

    /// Whether the function may access memory and send MSI-X.
    #[must_use]
    pub fn is_bus_master(&self) -> bool {
        self.command() & COMMAND_BUS_MASTER != 0
    }

    /// Whether the function may not assert INTx.
    #[must_use]
    pub fn is_intx_disabled(&self) -> bool {
        self.command() & COMMAND_INTX_DISABLE != 0
    }

    fn msix_control(&self) -> u16 {
        self.msix.map_or(0, |at| self.word(at + 2))
    }

    /// Whether MSI-X is on (INTx is then off).
    #[must_use]
    pub fn is_msix_enabled(&self) -> bool {
        self.msix_control() & MSIX_ENABLE != 0
    }

    /// Whether all MSI-X vectors are masked.
    #[must_use]
    pub fn is_msix_masked(&self) -> bool {
        self.msix_control() & MSIX_FUNCTION_MASK != 0
    }
}

#[cfg(test)]
mod tests;
