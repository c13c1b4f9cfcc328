//! The common configuration structure's registers (4.1.4.3).

/// Those that a driver may write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Register {
    DeviceFeatureSelect,
    DriverFeatureSelect,
    DriverFeature,
    ConfigVector,
    Status,
    QueueSelect,
    QueueSize,
    QueueVector,
    QueueEnable,
    DescLow,
    DescHigh,
    DriverLow,
    DriverHigh,
    DeviceLow,
    DeviceHigh,
    QueueReset,
}

/// Their offsets and widths in bytes, in the order of the structure.
pub(crate) const WRITABLE: [(usize, usize, Register); 16] = [
    (0x00, 4, Register::DeviceFeatureSelect),
    (0x08, 4, Register::DriverFeatureSelect),
    (0x0c, 4, Register::DriverFeature),
    (0x10, 2, Register::ConfigVector),
    (0x14, 1, Register::Status),
    (0x16, 2, Register::QueueSelect),
    (0x18, 2, Register::QueueSize),
    (0x1a, 2, Register::QueueVector),
    (0x1c, 2, Register::QueueEnable),
    (0x20, 4, Register::DescLow),
    (0x24, 4, Register::DescHigh),
    (0x28, 4, Register::DriverLow),
    (0x2c, 4, Register::DriverHigh),
    (0x30, 4, Register::DeviceLow),
    (0x34, 4, Register::DeviceHigh),
    (0x3a, 2, Register::QueueReset),
];

/// The registers that a write reaches, with their values, in the order of their offsets. A driver must use the width of
/// the register (4.1.3.1), or of halves of a 64-bit one; a wider write is taken for several, and one that covers a register in part
/// does not reach it.
pub(crate) fn writes(offset: usize, data: &[u8]) -> impl Iterator<Item = (Register, u32)> + '_ {
    WRITABLE.iter().filter_map(move |(at, width, register)| {
        let from = at.checked_sub(offset)?;
        let bytes = data.get(from..from.checked_add(*width)?)?;
        let mut value = [0; 4];
        value.get_mut(..*width)?.copy_from_slice(bytes);
        Some((*register, u32::from_le_bytes(value)))
    })
}
