//! What a guest and its VMM do.

use arbitrary::{Result, Unstructured};
use virtio_spec::blk::{T_DISCARD, T_FLUSH, T_GET_ID, T_IN, T_OUT, T_WRITE_ZEROES};

/// One step.
#[derive(Clone, Debug)]
pub(super) enum Step {
    /// The driver resets the device and brings it up, with these features.
    BringUp(u8),
    /// The driver makes a request.
    Request {
        queue: u8,
        kind: u32,
        /// 0: right.
        twist: u8,
        value: u16,
    },
    /// Time passes.
    Wait(u8),
    /// Another layout of the memory; 0 is the ordinary one.
    Map(u8),
    /// The VMM resets the function, or the guest does so by FLR.
    Reset(u8),
    /// Another disk, or none.
    Disk(u8),
    /// The client truncates its memory.
    Truncate,
    /// Reads anything.
    Read(u32, u64, usize),
    /// Writes anything.
    Write(u32, u64, Vec<u8>),
    /// The guest writes anything to where its rings are.
    Poke(u16, u16),
}

/// Offsets of the places that matter in BAR4 and configuration space; others come by chance.
fn offset(region: u32, code: u16) -> u64 {
    let code = u64::from(code);
    match (region, code >> 12) {
        (4, 0..=7) => code & 0x3f,
        (4, 8..=9) => 0x1000 + (code & 0x7),
        (4, 10..=12) => 0x2000 + (code & 0x7f),
        (4, 13..=14) => 0x3000 + (code & 0xf),
        _ => code & 0xfff,
    }
}

/// Reads a step.
pub(super) fn add(input: &mut Unstructured<'_>, steps: &mut Vec<Step>) -> Result<()> {
    let region = |code: u8| match code % 8 {
        0..=3 => 4,
        4..=5 => pci::CONFIG_REGION,
        6 => 1,
        _ => u32::from(code >> 3) % 10,
    };
    steps.push(match input.arbitrary::<u8>()? % 16 {
        0 => Step::BringUp(input.arbitrary()?),
        1..=7 => {
            let [queue, kind, twist]: [u8; 3] = input.arbitrary()?;
            let kinds = [T_IN, T_OUT, T_FLUSH, T_GET_ID, T_DISCARD, T_WRITE_ZEROES];
            Step::Request {
                queue,
                kind: kinds
                    .get(usize::from(kind % 8))
                    .copied()
                    .unwrap_or(u32::from(kind)),
                twist,
                value: if twist == 0 { 0 } else { input.arbitrary()? },
            }
        }
        8 => Step::Wait(input.arbitrary()?),
        9 => Step::Map(input.arbitrary()?),
        10 => Step::Reset(input.arbitrary()?),
        11 => Step::Disk(input.arbitrary()?),
        12 => match input.arbitrary::<u8>()? % 4 {
            3 => Step::Truncate,
            _ => Step::Wait(255),
        },
        13 => {
            let [code, width]: [u8; 2] = input.arbitrary()?;
            let region = region(code);
            let at = offset(region, input.arbitrary()?);
            let len = [1, 2, 4, 8, 3, 16, 64, 5][usize::from(width % 8)];
            let data = input.bytes(len.min(input.len()))?.to_vec();
            Step::Write(region, at, data)
        }
        14 => {
            let [code, width]: [u8; 2] = input.arbitrary()?;
            let region = region(code);
            let at = offset(region, input.arbitrary()?);
            Step::Read(region, at, usize::from(width))
        }
        _ => Step::Poke(input.arbitrary()?, input.arbitrary()?),
    });
    Ok(())
}
