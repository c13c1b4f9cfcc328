use arbitrary::{Result, Unstructured};
use pci::{InterruptKind, Interrupts, MsixTable};

const VECTORS: u16 = 3;
const LEN: usize = VECTORS as usize * 16;

/// An MSI-X table, and the bytes it should hold.
pub(super) struct Subject {
    table: MsixTable,
    bytes: [u8; LEN],
}

impl Subject {
    pub(super) fn new() -> Self {
        let mut bytes = [0; LEN];
        // Every vector is masked after reset, PCI Local Bus 3.0 section 6.8.2.9.
        bytes
            .iter_mut()
            .skip(12)
            .step_by(16)
            .for_each(|byte| *byte = 1);
        Self {
            table: MsixTable::new(VECTORS),
            bytes,
        }
    }

    pub(super) fn operate(
        &mut self,
        input: &mut Unstructured<'_>,
        interrupts: &Interrupts,
    ) -> Result<()> {
        let offset = match input.arbitrary::<u8>()? {
            0xff => input.arbitrary()?,
            near => u64::from(near) % (LEN as u64 + 8),
        };
        let len = usize::from(input.int_in_range(0..=16u8)?);
        let at = |index: usize| {
            let at = offset.checked_add(index as u64)?;
            usize::try_from(at).ok()
        };
        if input.arbitrary()? {
            let data: Vec<u8> = (0..len).map(|_| input.arbitrary()).collect::<Result<_>>()?;
            self.table.write(offset, &data);
            for (index, value) in data.into_iter().enumerate() {
                if let Some(byte) = at(index).and_then(|at| self.bytes.get_mut(at)) {
                    *byte = value;
                }
            }
        }
        let mut data = vec![0xee; len];
        self.table.read(offset, &mut data);
        for (index, byte) in data.iter().enumerate() {
            let expected = at(index).and_then(|at| self.bytes.get(at));
            assert_eq!(*byte, expected.copied().unwrap_or(0));
        }
        data.fill(0xee);
        MsixTable::read_pending(interrupts, offset, &mut data);
        for (index, byte) in data.iter().enumerate() {
            let bits = (0..8u32).map(|bit| {
                let vector = at(index)
                    .and_then(|at| u32::try_from(at).ok()?.checked_mul(8)?.checked_add(bit))
                    .and_then(|index| interrupts.vector(InterruptKind::Msix, index));
                u8::from(vector.is_some_and(|vector| vector.is_pending())) << bit
            });
            // The offset wraps in the product's arithmetic; no table is that long.
            assert!(*byte == bits.sum::<u8>() || offset.checked_add(index as u64).is_none());
        }
        Ok(())
    }
}
