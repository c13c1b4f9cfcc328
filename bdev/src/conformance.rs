//! One suite for all disks: what [`crate::Channel`] promises, tried out.
//!
//! A back-end gives a [`Maker`] and gets one test per promise by [`conformance_tests!`](crate::conformance_tests). All requests run
//! on real reactors, with data in shared memory as a client's would be. Checks are assertions: the suite is for tests only.

mod abilities;
mod data;
mod flow;
mod rig;
mod sizes;

use std::any::Any;

use crate::{Features, SharedBdev};

pub use abilities::{compares, describes_itself, flushes_and_fua, read_only, zeroes_and_unmaps};
pub use data::{data_come_back, fresh_disks_read_zeroes, random_work, scattered_memory};
pub use flow::{
    closing_early, deep_queues, many_unaligned_requests, statistics, two_reactors_at_once,
};
pub use rig::{Request, Rig};
pub use sizes::{ends_of_the_disk, sizes_change_under_way};

/// What kind of disk a case asks for.
#[derive(Clone, Copy, Debug)]
pub struct Spec {
    /// Block size in bytes.
    pub block_size: u32,
    /// Length in blocks.
    pub num_blocks: u64,
    /// Take no writes. Its contents: [`Spec::pattern_of`] for each byte.
    pub readonly: bool,
}

impl Spec {
    /// A writable disk of `mib` MiB.
    #[must_use]
    pub fn new(block_size: u32, mib: u64) -> Self {
        Self {
            block_size,
            num_blocks: (mib << 20) / u64::from(block_size),
            readonly: false,
        }
    }

    /// Length in bytes.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.num_blocks * u64::from(self.block_size)
    }

    /// Whether there are no blocks.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.num_blocks == 0
    }

    /// Byte `at` of a read-only disk's contents.
    #[must_use]
    pub fn pattern_of(at: u64) -> u8 {
        (at.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8
    }
}

/// A disk to try, with whatever it stands on.
#[derive(Debug)]
pub struct Subject {
    /// The disk.
    pub bdev: SharedBdev,
    /// Changes its length to this many blocks from outside; the suite then calls `rescan`. `None` if only
    /// [`crate::Bdev::resize`] can, or nothing.
    pub set_len: Option<fn(&Subject, u64)>,
    /// Whether a request may end later than in `submit`, so that a small ring gets full.
    pub uses_ring: bool,
    /// Files, loop devices and the like, put away when the case is over.
    pub keep: Box<dyn Keep>,
}

/// What a [`Subject`] keeps.
pub trait Keep: Any + Send + Sync + std::fmt::Debug {
    /// For downcasting.
    fn as_any(&self) -> &dyn Any;
}

impl Keep for () {
    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// Makes a fresh disk that reads as zeroes, or `None` if this back-end (or this machine) has no such disk.
pub type Maker = fn(Spec) -> Option<Subject>;

/// Block sizes that the cases try.
pub const BLOCK_SIZES: [u32; 2] = [512, 4096];

impl Subject {
    fn features(&self) -> Features {
        self.bdev.info().features
    }

    /// Whether what was written can be read: everywhere but on a null disk.
    fn keeps_data(&self) -> bool {
        self.bdev.info().product_name != "Null disk"
    }
}

/// Runs `case` on a fresh disk of each block size that the maker has.
fn each(maker: Maker, mib: u64, case: impl Fn(&Subject, Spec)) {
    for block_size in BLOCK_SIZES {
        let spec = Spec::new(block_size, mib);
        if let Some(subject) = maker(spec) {
            case(&subject, spec);
        }
    }
}

/// One `#[test]` per promise, in a module of the given name.
#[macro_export]
macro_rules! conformance_tests {
    ($module:ident, $maker:expr) => {
        $crate::conformance_tests!(@ $module, $maker,
            describes_itself, fresh_disks_read_zeroes, data_come_back, scattered_memory, random_work,
            ends_of_the_disk, sizes_change_under_way, zeroes_and_unmaps, compares, flushes_and_fua, read_only,
            deep_queues, many_unaligned_requests, two_reactors_at_once, closing_early, statistics);
    };
    (@ $module:ident, $maker:expr, $($case:ident),*) => {
        mod $module {
            $(#[test]
            fn $case() {
                $crate::conformance::$case($maker);
            })*
        }
    };
}
