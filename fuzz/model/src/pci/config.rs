use arbitrary::{Result, Unstructured};
use pci::{CONFIG_SIZE, ConfigEffects, ConfigSpace, Identity, MsixLayout};

const COMMAND: usize = 0x04;
const BARS: usize = 0x10;
const CAPABILITIES: usize = 0x34;
const CAP_PCIE: u8 = 0x10;
const CAP_MSIX: u8 = 0x11;

type Bytes = [u8; CONFIG_SIZE];

/// A configuration space, and what can be said of it without knowing how it is made.
pub(super) struct Subject {
    space: ConfigSpace,
    fresh: Bytes,
    /// The bits that a write changes.
    writable: Bytes,
    /// Where the registers with effects are.
    pcie: Option<usize>,
    msix: Option<usize>,
}

fn bytes(space: &ConfigSpace) -> Bytes {
    let mut all = [0; CONFIG_SIZE];
    space.read(0, &mut all);
    all
}

fn word(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn dword(bytes: &[u8], at: usize) -> u32 {
    u32::from(word(bytes, at)) | u32::from(word(bytes, at + 2)) << 16
}

/// Offsets and identifiers in the list, PCI Local Bus 3.0 section 6.7.
fn capabilities(bytes: &Bytes) -> Vec<(usize, u8)> {
    let mut list = Vec::new();
    let mut at = usize::from(bytes[CAPABILITIES]);
    while at != 0 {
        assert!(at >= 0x40 && at.is_multiple_of(4), "capability at {at:#x}");
        assert!(list.iter().all(|&(other, _)| other < at), "a loop");
        list.push((at, bytes[at]));
        at = usize::from(bytes[at + 1]);
    }
    list
}

impl Subject {
    pub(super) fn new(layout: u8) -> Self {
        let identity = Identity {
            vendor: 0x1b36,
            device: 0x0010,
            subsystem_vendor: 0x1af4,
            subsystem: 0x1100,
            class: 0x01_0802,
            revision: 2,
        };
        let has = |bit: u8| layout & 1 << bit != 0;
        let mut space = ConfigSpace::new(identity, has(0));
        let mut sizes = Vec::new();
        if has(1) {
            space = space.with_bar64(0, 0x4000);
            sizes.push((BARS, 0x4000));
        }
        if has(2) {
            space = space.with_bar32(4, 0x1000);
            sizes.push((BARS + 16, 0x1000));
        }
        if has(3) {
            space = space.with_power_management();
        }
        if has(4) {
            space = space.with_pcie();
        }
        if has(5) {
            space = space.with_msix(MsixLayout {
                vectors: 1 + u16::from(layout >> 6) * 600,
                table: (4, 0),
                pending: (4, 0x800),
            });
        }
        let fresh = bytes(&space);
        let capability = |wanted| {
            let mut all = capabilities(&fresh).into_iter();
            all.find_map(|(at, id)| (id == wanted).then_some(at))
        };
        let (pcie, msix) = (capability(CAP_PCIE), capability(CAP_MSIX));
        assert_eq!((pcie.is_some(), msix.is_some()), (has(4), has(5)));
        let mut ones = space.clone();
        ones.write(0, &[0xff; CONFIG_SIZE]);
        let mut zeroes = space.clone();
        zeroes.write(0, &[0; CONFIG_SIZE]);
        let (ones, zeroes) = (bytes(&ones), bytes(&zeroes));
        let writable: Bytes = std::array::from_fn(|at| ones[at] ^ zeroes[at]);
        let subject = Self {
            space,
            fresh,
            writable,
            pcie,
            msix,
        };
        subject.check_layout(&ones, &sizes);
        subject
    }

    /// What the specifications want to be read-only is, and BARs tell their size.
    fn check_layout(&self, ones: &Bytes, sizes: &[(usize, u32)]) {
        let read_only = |from: usize, to: usize| {
            assert!(self.writable[from..to].iter().all(|&mask| mask == 0));
        };
        read_only(0x00, 0x04);
        read_only(0x06, 0x0c);
        read_only(0x0d, 0x10);
        read_only(0x28, 0x3c);
        read_only(0x3d, 0x40);
        for (at, _) in capabilities(&self.fresh) {
            read_only(at, at + 4 - usize::from(Some(at) == self.msix) * 2);
        }
        for index in 0..6 {
            let at = BARS + index * 4;
            let size = sizes.iter().find(|(bar, _)| *bar == at);
            if let Some((_, size)) = size {
                let low = dword(ones, at);
                assert_eq!(low & !0xf, !(size - 1));
                let wide = low & 0b110 == 0b100;
                assert!(!wide || dword(ones, at + 4) == u32::MAX);
                assert_eq!(dword(&self.fresh, at), low & 0xf);
            }
        }
    }

    pub(super) fn operate(&mut self, input: &mut Unstructured<'_>) -> Result<()> {
        match input.int_in_range(0..=7)? {
            0..=4 => {
                let at: u16 = input.arbitrary()?;
                let at = usize::from(at) % (CONFIG_SIZE + 16);
                self.write(input, at as u64)?;
            }
            5 => {
                let at = input.arbitrary()?;
                self.write(input, at)?;
            }
            6 => {
                let at = input.arbitrary()?;
                let len = input.int_in_range(0..=64u8)?;
                self.check_read(at, usize::from(len));
            }
            _ => {
                self.space.reset();
                assert_eq!(bytes(&self.space), self.fresh);
            }
        }
        Ok(())
    }

    fn write(&mut self, input: &mut Unstructured<'_>, offset: u64) -> Result<()> {
        let len = input.int_in_range(0..=16u8)?;
        let data: Vec<u8> = (0..len).map(|_| input.arbitrary()).collect::<Result<_>>()?;
        let before = bytes(&self.space);
        let mut by_byte = self.space.clone();
        let effects = self.space.write(offset, &data);
        let after = bytes(&self.space);

        let mut expected = before;
        let mut flr = false;
        let mut flr_by_byte = false;
        for (index, &value) in data.iter().enumerate() {
            let Some(at) = offset.checked_add(index as u64) else {
                break;
            };
            let single = by_byte.write(at, &[value]);
            flr_by_byte |= single.flr;
            let Ok(at) = usize::try_from(at) else {
                continue;
            };
            if let (Some(byte), Some(mask)) = (expected.get_mut(at), self.writable.get(at)) {
                *byte = *byte & !mask | value & mask;
            }
            flr |= self.pcie.is_some_and(|pcie| at == pcie + 9) && value & 0x80 != 0;
        }
        assert_eq!(after, expected);
        assert_eq!(after, bytes(&by_byte), "one access or several");
        assert_eq!(flr, flr_by_byte);
        let command = word(&after, COMMAND);
        let msix = |bytes: &Bytes| self.msix.map_or(0, |at| word(bytes, at + 2));
        let expected = ConfigEffects {
            flr,
            command_changed: command != word(&before, COMMAND),
            msix_changed: msix(&after) != msix(&before),
        };
        assert_eq!(effects, expected);
        assert_eq!(self.space.command(), command);
        assert_eq!(self.space.is_bus_master(), command & 1 << 2 != 0);
        assert_eq!(self.space.is_intx_disabled(), command & 1 << 10 != 0);
        assert_eq!(self.space.is_msix_enabled(), msix(&after) & 1 << 15 != 0);
        assert_eq!(self.space.is_msix_masked(), msix(&after) & 1 << 14 != 0);
        Ok(())
    }

    fn check_read(&self, offset: u64, len: usize) {
        let all = bytes(&self.space);
        let mut data = vec![0xee; len];
        self.space.read(offset, &mut data);
        for (index, byte) in data.into_iter().enumerate() {
            let at = offset
                .checked_add(index as u64)
                .and_then(|at| usize::try_from(at).ok());
            let expected = at.and_then(|at| all.get(at)).copied().unwrap_or(0);
            assert_eq!(byte, expected, "byte {index} at {offset:#x}");
        }
    }
}
