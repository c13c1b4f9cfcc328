//! Namespaces: disks under a number.

use std::sync::Arc;

use bdev::{BdevInfo, SharedBdev};
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
