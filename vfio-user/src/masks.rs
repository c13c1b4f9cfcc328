//! Eventfds of the client that mask or unmask an interrupt when they fire.
//!
//! A VMM that injects INTx through the kernel learns of the guest's end of interrupt by such a descriptor and hands
//! it over (UNMASK with an eventfd): there is no message then. Clients use it for the pin only; the protocol
//! allows it for every vector.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use nix::errno::Errno;
use pci::InterruptKind;
use reactor::{Cx, WatchId};

use crate::Rejection;
use crate::tags;

/// Most such descriptors of one client. Each takes a place in the reactor's table, which all clients share.
const MOST: usize = 8;

/// Which interrupt, and what happens to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) kind: InterruptKind,
    pub(crate) vector: u32,
    /// Mask it (else unmask it).
    pub(crate) mask: bool,
}

#[derive(Debug)]
struct Armed {
    target: Target,
    tag: u64,
    watch: WatchId,
}

/// All such descriptors of one client.
#[derive(Debug, Default)]
pub(crate) struct MaskEvents {
    armed: Vec<Armed>,
    /// Never used again, so that an event on its way from a replaced descriptor finds nothing.
    tags: u64,
}

impl MaskEvents {
    /// Installs, replaces or (without a descriptor) removes one.
    ///
    /// # Errors
    ///
    /// ENOSPC for too many, or the reactor's refusal.
    pub(crate) fn set(
        &mut self,
        cx: &mut Cx,
        target: Target,
        event: Option<Arc<OwnedFd>>,
    ) -> Result<(), Rejection> {
        if let Some(index) = self.armed.iter().position(|armed| armed.target == target) {
            cx.unwatch(self.armed.swap_remove(index).watch);
        }
        let Some(event) = event else {
            return Ok(());
        };
        if self.armed.len() >= MOST {
            return Err(Rejection::new(
                Errno::ENOSPC,
                "too many eventfds that mask or unmask",
            ));
        }
        let tag = tags::MASKS.saturating_add(self.tags);
        self.tags = self.tags.saturating_add(1);
        let watch = cx
            .watch(event, nix::libc::POLLIN as u32, tag)
            .map_err(|errno| Rejection::new(errno, "eventfd cannot be watched"))?;
        self.armed.push(Armed { target, tag, watch });
        Ok(())
    }

    /// Removes all of a kind.
    pub(crate) fn disable(&mut self, cx: &mut Cx, kind: InterruptKind) {
        for armed in self.armed.extract_if(.., |armed| armed.target.kind == kind) {
            cx.unwatch(armed.watch);
        }
    }

    /// What has fired. The descriptor is not read: a watch tells of every write whatever the count, and a read
    /// could block on a descriptor whose count the client has taken meanwhile.
    pub(crate) fn fired(&self, tag: u64) -> Option<Target> {
        let armed = self.armed.iter().find(|armed| armed.tag == tag)?;
        Some(armed.target)
    }
}
