//! What device models count of each queue and each namespace.

/// What a command is counted as.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Count {
    /// Data went from the disk: Read, Compare.
    Read,
    /// Data went to the disk.
    Write,
    /// Neither: flushes, deallocations, zeroes, questions.
    #[default]
    Other,
}

/// Commands and their bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Commands.
    pub commands: u64,
    /// Bytes that they transferred.
    pub bytes: u64,
}

/// Commands that have ended, of one queue or one namespace.
///
/// Plain integers that belong to whoever serves the queue: counting is two additions without a branch, in lines of memory that serving
/// a command touches anyway. Readers get copies by message. Sums wrap only after centuries; adding totals saturates.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// By [`Count`]. An array, so that counting needs no branch.
    succeeded: [Tally; 3],
    /// Commands that ended with an error.
    pub errors: u64,
}

impl Traffic {
    /// A command has succeeded.
    #[inline]
    pub fn succeeded(&mut self, count: Count, bytes: u32) {
        let tally = &mut self.succeeded[count as usize];
        tally.commands = tally.commands.wrapping_add(1);
        tally.bytes = tally.bytes.wrapping_add(u64::from(bytes));
    }

    /// Reads that succeeded.
    #[must_use]
    pub fn read(&self) -> Tally {
        self.succeeded[Count::Read as usize]
    }

    /// Writes that succeeded.
    #[must_use]
    pub fn written(&self) -> Tally {
        self.succeeded[Count::Write as usize]
    }

    /// Other commands that succeeded.
    #[must_use]
    pub fn other(&self) -> Tally {
        self.succeeded[Count::Other as usize]
    }

    /// All commands that have ended, with errors or without.
    #[must_use]
    pub fn commands(&self) -> u64 {
        let succeeded = self.succeeded.iter().map(|tally| tally.commands);
        succeeded.fold(self.errors, u64::saturating_add)
    }

    /// Adds another's counts.
    pub fn add(&mut self, more: &Self) {
        for (sum, more) in self.succeeded.iter_mut().zip(&more.succeeded) {
            sum.commands = sum.commands.saturating_add(more.commands);
            sum.bytes = sum.bytes.saturating_add(more.bytes);
        }
        self.errors = self.errors.saturating_add(more.errors);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_go_where_they_belong_and_add_up() {
        let mut one = Traffic::default();
        one.succeeded(Count::Read, 512);
        one.succeeded(Count::Read, 512);
        one.succeeded(Count::Write, 4096);
        one.succeeded(Count::Other, 0);
        one.errors += 1;
        let tally = |commands, bytes| Tally { commands, bytes };
        assert_eq!(one.read(), tally(2, 1024));
        assert_eq!(one.written(), tally(1, 4096));
        assert_eq!(one.other(), tally(1, 0));
        assert_eq!(one.commands(), 5);
        let mut sum = one;
        sum.add(&one);
        assert_eq!(
            (sum.read(), sum.written().bytes, sum.errors),
            (tally(4, 2048), 8192, 2)
        );
    }
}
