//! Accesses to a function's configuration space and MSI-X table, and what clients do with interrupts.
//!
//! Input: a byte that says which capabilities and BARs there are, then operations.

use arbitrary::{Result, Unstructured};

use crate::{Seed, noise};

mod config;
mod interrupts;
mod table;

/// Most operations of one input: what more would find, many short inputs find sooner.
const OPERATIONS: usize = 64;

/// Runs one input.
pub fn run(data: &[u8]) {
    let mut input = Unstructured::new(data);
    // An input that ends within an operation has said all it has to say.
    let _ = operations(&mut input);
}

fn operations(input: &mut Unstructured<'_>) -> Result<()> {
    let mut config = config::Subject::new(input.arbitrary()?);
    let mut interrupts = interrupts::Subject::new();
    let mut table = table::Subject::new();
    for _ in 0..OPERATIONS {
        if input.is_empty() {
            break;
        }
        match input.int_in_range(0..=7)? {
            0..=2 => config.operate(input)?,
            3..=5 => interrupts.operate(input)?,
            _ => table.operate(input, interrupts.interrupts())?,
        }
    }
    interrupts.finish();
    Ok(())
}

/// What guests and clients usually do, and noise.
pub fn seeds() -> Vec<Seed> {
    /// Everything a layout can have.
    const ALL: u8 = 0xff;
    let mut seeds = noise::seeds(24);
    // A configuration write of four bytes at a register.
    let write = |at: u16, value: u32| {
        let at = at.to_le_bytes();
        [&[0, 0, at[0], at[1], 4], value.to_le_bytes().as_slice()].concat()
    };
    let enumeration = [
        vec![ALL],
        write(0x10, u32::MAX),
        write(0x14, u32::MAX),
        write(0x10, 0xfebf_0000),
        write(0x14, 0),
        write(0x04, 0x0406),
    ];
    seeds.push(("enumeration".into(), enumeration.concat()));
    for layout in 0..=ALL >> 3 {
        // Walks over the capabilities and writes ones to all of their registers.
        let ones = (0x40..0xc0).step_by(4).map(|at| write(at, u32::MAX));
        let bytes: Vec<u8> = std::iter::once(vec![layout])
            .chain(ones)
            .flatten()
            .collect();
        seeds.push((format!("ones-{layout}"), bytes));
    }
    seeds
}
