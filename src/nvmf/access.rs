//! Who may use a subsystem, what each listener's guests see of it, and how they reach it.
//!
//! A vfio-user client says nothing of who it is: in SPDK such a client's host NQN is empty, so it gets in only where any host may. Here
//! the operator may say with `hostnqn`, when a listener is added, which host is behind its socket (whoever can open the socket is that
//! host; permissions of the directory see to that). Then everything that is decided by a host's NQN works as it does over a fabric:
//! `nvmf_subsystem_add_host` admits it, `nvmf_ns_add_host` shows it namespaces that are not visible to all.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arc_swap::ArcSwap;
use nvme::{Namespace, NamespaceSet};
use serde::{Deserialize, Serialize};

use super::{NamespaceEntry, Subsystem};

/// How a listener's namespaces can be reached (NVM Express Base 2.0, section 8.1), in SPDK's words.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum AnaState {
    #[default]
    Optimized,
    NonOptimized,
    Inaccessible,
}

impl From<AnaState> for nvme::AnaState {
    fn from(state: AnaState) -> Self {
        match state {
            AnaState::Optimized => Self::OPTIMIZED,
            AnaState::NonOptimized => Self::NON_OPTIMIZED,
            AnaState::Inaccessible => Self::INACCESSIBLE,
        }
    }
}

/// The states of a listener's ANA groups.
#[derive(Clone, Debug, Default)]
pub(crate) struct AnaStates {
    /// Of all groups that are not listed; `None` was never said.
    all: Option<AnaState>,
    groups: BTreeMap<u32, AnaState>,
}

impl AnaStates {
    /// All groups in one state.
    pub(crate) fn new(all: Option<AnaState>) -> Self {
        Self {
            all,
            groups: BTreeMap::new(),
        }
    }

    /// The state of a group.
    pub(crate) fn of(&self, group: u32) -> AnaState {
        let state = self.groups.get(&group).copied();
        state.or(self.all).unwrap_or_default()
    }

    /// What `nvmf_subsystem_add_listener` is to say again.
    pub(crate) fn all(&self) -> Option<AnaState> {
        self.all
    }

    /// Groups whose state differs from that.
    pub(crate) fn groups(&self) -> impl Iterator<Item = (u32, AnaState)> {
        self.groups.iter().map(|(group, state)| (*group, *state))
    }

    /// Changes one group, or all.
    pub(crate) fn set(&mut self, group: Option<u32>, state: AnaState) {
        match group {
            None => *self = Self::new(Some(state)),
            Some(group) if state == self.all.unwrap_or_default() => {
                self.groups.remove(&group);
            }
            Some(group) => {
                self.groups.insert(group, state);
            }
        }
    }
}

/// What a listener's guests see, shared with the factory that makes their controllers on another thread.
#[derive(Debug)]
pub(crate) struct View {
    /// The host behind the socket, if the operator said who it is.
    pub(crate) host: Option<String>,
    pub(crate) ana: AnaStates,
    /// What new controllers start with.
    pub(super) shown: Arc<ArcSwap<NamespaceSet>>,
    /// Whether new clients get one.
    pub(super) admits: Arc<AtomicBool>,
}

impl View {
    pub(super) fn new(host: Option<String>, ana: AnaStates) -> Self {
        Self {
            host,
            ana,
            shown: Arc::new(ArcSwap::from(NamespaceSet::new(Vec::new()))),
            admits: Arc::default(),
        }
    }

    /// The host's NQN as SPDK shows it: empty if nobody knows.
    pub(crate) fn host_nqn(&self) -> &str {
        self.host.as_deref().unwrap_or_default()
    }
}

impl NamespaceEntry {
    /// Its ANA group.
    pub(crate) fn group(&self, nsid: u32) -> u32 {
        self.anagrpid.unwrap_or(nsid)
    }

    fn is_visible_to(&self, host: Option<&str>) -> bool {
        !self.no_auto_visible || host.is_some_and(|host| self.hosts.contains(host))
    }
}

impl Subsystem {
    /// Whether a client of this host gets a controller.
    fn admits(&self, host: Option<&str>) -> bool {
        let is_listed = |nqn: &str| self.hosts.iter().any(|host| host.nqn == nqn);
        self.options.allow_any_host || host.is_some_and(is_listed)
    }

    /// What one listener's guests see.
    fn set_for(&self, view: &View) -> Arc<NamespaceSet> {
        let host = view.host.as_deref();
        let visible = self.namespaces.iter();
        let visible = visible.filter(|(_, entry)| entry.is_visible_to(host));
        let namespaces = visible.map(|(nsid, entry)| {
            let group = entry.group(*nsid);
            let state = if self.options.ana_reporting {
                view.ana.of(group).into()
            } else {
                nvme::AnaState::OPTIMIZED
            };
            Namespace {
                nsid: *nsid,
                bdev: Arc::clone(&entry.bdev),
                info: entry.bdev.info(),
                uuid: entry.uuid,
                nguid: entry.nguid,
                eui64: entry.eui64,
                access: nvme::Access { group, state },
            }
        });
        NamespaceSet::new(namespaces.collect())
    }

    /// Makes the present state what new clients of every listener find.
    pub(super) fn refresh(&self) {
        for listener in &self.listeners {
            self.refresh_view(&listener.view);
        }
    }

    /// As [`Subsystem::refresh`], for one listener.
    pub(super) fn refresh_view(&self, view: &View) {
        view.shown.store(self.set_for(view));
        self.refresh_admission(view);
    }

    fn refresh_admission(&self, view: &View) {
        let admits = self.admits(view.host.as_deref());
        view.admits.store(admits, Ordering::Release);
    }

    /// Hosts have come or gone: what new clients find.
    pub(crate) fn hosts_changed(&self) {
        for listener in &self.listeners {
            self.refresh_admission(&listener.view);
        }
    }

    /// Ends a host's clients if it is not allowed any more, as SPDK does when a host is removed.
    pub(crate) fn dismiss(&self, host: &str) {
        for listener in &self.listeners {
            if listener.view.host.as_deref() == Some(host) && !self.admits(Some(host)) {
                listener.endpoint.dismiss();
            }
        }
    }

    /// Groups that have namespaces.
    pub(crate) fn groups(&self) -> BTreeSet<u32> {
        let namespaces = self.namespaces.iter();
        namespaces.map(|(nsid, entry)| entry.group(*nsid)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_have_their_own_state_or_that_of_all() {
        let mut states = AnaStates::new(None);
        assert_eq!((states.of(1), states.all()), (AnaState::Optimized, None));
        states.set(Some(2), AnaState::Inaccessible);
        assert_eq!(states.of(2), AnaState::Inaccessible);
        assert_eq!(states.of(1), AnaState::Optimized);
        states.set(Some(2), AnaState::Optimized);
        assert_eq!(states.groups().count(), 0, "nothing to save");
        states.set(Some(3), AnaState::Inaccessible);
        states.set(None, AnaState::NonOptimized);
        assert_eq!(states.of(3), AnaState::NonOptimized, "all means all");
        states.set(Some(3), AnaState::Optimized);
        let listed: Vec<_> = states.groups().collect();
        assert_eq!(listed, [(3, AnaState::Optimized)]);
    }
}
