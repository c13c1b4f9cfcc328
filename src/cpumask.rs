//! Which processors the reactors run on.

use std::fmt;

/// A set of processor numbers, never empty, ascending.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CpuMask(Vec<u32>);

/// More processors than any kernel is built for: a bound for masks that are typing mistakes.
const MAX_CPUS: u32 = 8192;

impl CpuMask {
    /// One processor.
    pub(crate) fn single(cpu: u32) -> Self {
        Self(vec![cpu])
    }

    /// Parses SPDK's two forms: a hexadecimal mask (`0x6`, `6`) or a list (`[1,2]`, `[0-3]`; also without brackets where it
    /// cannot be taken for a mask).
    ///
    /// # Errors
    /// What is wrong, for the operator.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let list = text
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'))
            .or_else(|| text.contains([',', '-']).then_some(text));
        let mut cpus = match list {
            Some(list) => parse_list(list),
            None => parse_mask(text),
        }
        .ok_or_else(|| {
            format!(
                "`{text}` is no set of processors: give a mask such as 0x3, or a list such as [0,1]"
            )
        })?;
        cpus.sort_unstable();
        cpus.dedup();
        if cpus.is_empty() {
            return Err("the set of processors is empty".to_owned());
        }
        Ok(Self(cpus))
    }

    /// The processors, ascending.
    pub(crate) fn cpus(&self) -> &[u32] {
        &self.0
    }

    /// Moves a processor to the front.
    ///
    /// # Errors
    /// If it is not in the set.
    pub(crate) fn with_first(mut self, cpu: u32) -> Result<Self, String> {
        let at = self
            .0
            .iter()
            .position(|other| *other == cpu)
            .ok_or_else(|| format!("the main processor {cpu} is not in the mask {self}"))?;
        self.0.remove(at);
        self.0.insert(0, cpu);
        Ok(self)
    }

    /// The first processor that this machine does not have.
    pub(crate) fn first_missing(&self) -> Option<u32> {
        self.0.iter().copied().find(|cpu| {
            !std::path::Path::new(&format!("/sys/devices/system/cpu/cpu{cpu}")).exists()
        })
    }
}

/// The mask of processors, as SPDK prints it: hexadecimal without prefix.
pub(crate) fn mask_of(cpus: &[u32]) -> String {
    let highest = cpus.iter().max().copied().unwrap_or(0);
    let digits = (0..=highest / 4).rev().map(|place| {
        let bits = cpus.iter().filter(|cpu| *cpu / 4 == place);
        let digit = bits.fold(0, |digit, cpu| digit | 1 << (cpu % 4));
        char::from_digit(digit, 16).unwrap_or('0')
    });
    digits.collect()
}

impl fmt::Display for CpuMask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cpus: Vec<String> = self.0.iter().map(u32::to_string).collect();
        write!(f, "[{}]", cpus.join(","))
    }
}

fn parse_mask(text: &str) -> Option<Vec<u32>> {
    let digits = text
        .strip_prefix("0x")
        .or_else(|| text.strip_prefix("0X"))
        .unwrap_or(text);
    if digits.is_empty() {
        return None;
    }
    let mut cpus = Vec::new();
    for (digit, place) in digits.chars().rev().zip(0u32..) {
        let digit = digit.to_digit(16)?;
        for bit in 0..4 {
            if digit & (1 << bit) != 0 {
                let cpu = place.checked_mul(4)?.checked_add(bit)?;
                if cpu >= MAX_CPUS {
                    return None;
                }
                cpus.push(cpu);
            }
        }
    }
    Some(cpus)
}

fn parse_list(list: &str) -> Option<Vec<u32>> {
    let mut cpus = Vec::new();
    for part in list.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (u32, u32) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
        if first > last || last >= MAX_CPUS {
            return None;
        }
        cpus.extend(first..=last);
    }
    Some(cpus)
}

#[cfg(test)]
mod tests;
