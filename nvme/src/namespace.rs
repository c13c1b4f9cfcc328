//! Namespaces: disks under a number.

use std::sync::Arc;

use bdev::{BdevInfo, SharedBdev};
use nvme_spec::Status;
pub use nvme_spec::log::AnaState;
use uuid::Uuid;

/// A disk as a namespace of a subsystem.
#[derive(Clone, Debug)]
pub struct Namespace {
    /// Namespace ID, 1 to the subsystem's maximum.
    pub nsid: u32,
    /// The disk.
    pub bdev: SharedBdev,
    /// The disk's description when this set was made; a resize makes a new set.
    pub info: BdevInfo,
    /// Namespace UUID.
    pub uuid: Uuid,
    /// Namespace Globally Unique Identifier, if set.
    pub nguid: Option<[u8; 16]>,
    /// IEEE Extended Unique Identifier, if set.
    pub eui64: Option<[u8; 8]>,
    /// How it is reached through this controller.
    pub access: Access,
}

/// How a namespace is reached through one controller (Base 2.0c, 8.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access {
    /// Its ANA group.
    pub group: u32,
    /// The group's state; the same for all namespaces of the group.
    pub state: AnaState,
}

impl Default for Access {
    fn default() -> Self {
        Self {
            group: 1,
            state: AnaState::OPTIMIZED,
        }
    }
}

impl Access {
    /// Whether commands to the disk are carried out.
    pub(crate) fn is_open(self) -> bool {
        matches!(self.state, AnaState::OPTIMIZED | AnaState::NON_OPTIMIZED)
    }

    /// What commands to the disk get if they are not. The host may find another path: it is not told not to retry.
    pub(crate) fn refusal(self) -> Status {
        match self.state {
            AnaState::PERSISTENT_LOSS => Status::ANA_PERSISTENT_LOSS,
            AnaState::CHANGE => Status::ANA_TRANSITION,
            _ => Status::ANA_INACCESSIBLE,
        }
    }
}

impl Namespace {
    /// Whether both show the same disk (so that channels to it may be kept).
    #[must_use]
    pub fn same_disk(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.bdev, &other.bdev)
    }
}

/// All namespaces of a subsystem at one moment; immutable, replaced as a whole.
#[derive(Clone, Debug, Default)]
pub struct NamespaceSet {
    /// Sorted by NSID.
    namespaces: Vec<Namespace>,
}

impl NamespaceSet {
    /// A set of these namespaces (NSIDs must differ; of equal ones the first stays).
    #[must_use]
    pub fn new(mut namespaces: Vec<Namespace>) -> Arc<Self> {
        namespaces.sort_by_key(|namespace| namespace.nsid);
        namespaces.dedup_by_key(|namespace| namespace.nsid);
        Arc::new(Self { namespaces })
    }

    /// The namespace with this ID.
    #[must_use]
    pub fn get(&self, nsid: u32) -> Option<&Namespace> {
        let at = self
            .namespaces
            .binary_search_by_key(&nsid, |namespace| namespace.nsid)
            .ok()?;
        self.namespaces.get(at)
    }

    /// All, by ascending NSID.
    pub fn iter(&self) -> impl Iterator<Item = &Namespace> {
        self.namespaces.iter()
    }
}
