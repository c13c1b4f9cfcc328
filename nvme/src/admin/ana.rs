//! Asymmetric Namespace Access (Base 2.0c, 5.16.1, LID 0Ch, and 8.1): how namespaces are reached, in groups.

use std::collections::{BTreeMap, BTreeSet};

use nvme_spec::log::{AnaGroupDescriptor, AnaLogHeader, AnaLogLsp, AnaState, AnaStateByte};
use zerocopy::{FromZeros, IntoBytes};

use crate::namespace::NamespaceSet;

/// A group: its state and its namespaces.
type Groups = BTreeMap<u32, (AnaState, BTreeSet<u32>)>;

/// Groups that have namespaces.
fn groups(set: &NamespaceSet) -> Groups {
    let mut groups = Groups::new();
    for namespace in set.iter() {
        let access = namespace.access;
        let group = groups.entry(access.group);
        let group = group.or_insert_with(|| (access.state, BTreeSet::new()));
        group.1.insert(namespace.nsid);
    }
    groups
}

/// How often the page and each group on it have changed since the last reset; plain data.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct AnaChanges {
    page: u64,
    groups: BTreeMap<u32, u64>,
}

impl AnaChanges {
    /// The namespaces are others. Whether the host must hear of it as a change of access: of a group's state, or of a namespace's
    /// group. Namespaces that came or went are told by another event.
    pub(crate) fn follow(&mut self, old: &NamespaceSet, new: &NamespaceSet) -> bool {
        let (before, after) = (groups(old), groups(new));
        let numbers: BTreeSet<u32> = before.keys().chain(after.keys()).copied().collect();
        let mut changed = false;
        for group in numbers {
            if before.get(&group) != after.get(&group) {
                let count = self.groups.entry(group).or_default();
                *count = count.wrapping_add(1);
                changed = true;
            }
        }
        self.page = self.page.wrapping_add(u64::from(changed));
        new.iter().any(|namespace| {
            old.get(namespace.nsid)
                .is_some_and(|former| former.access != namespace.access)
        })
    }

    /// The page.
    pub(crate) fn page(&self, set: &NamespaceSet, lsp: u8) -> Vec<u8> {
        let groups_only = AnaLogLsp::from_bits(lsp).rgo();
        let groups = groups(set);
        let mut header = AnaLogHeader::new_zeroed();
        header.chgcnt = self.page;
        header.ngrps = u16::try_from(groups.len()).unwrap_or(u16::MAX);
        let mut page = header.as_bytes().to_vec();
        for (group, (state, nsids)) in groups {
            let mut descriptor = AnaGroupDescriptor::new_zeroed();
            descriptor.grpid = group;
            descriptor.chgcnt = self.groups.get(&group).copied().unwrap_or(0);
            descriptor.state = AnaStateByte::new().with_state(state);
            if !groups_only {
                descriptor.nnsids = u32::try_from(nsids.len()).unwrap_or(u32::MAX);
            }
            page.extend_from_slice(descriptor.as_bytes());
            if !groups_only {
                page.extend(nsids.iter().flat_map(|nsid| nsid.to_le_bytes()));
            }
        }
        page
    }
}
