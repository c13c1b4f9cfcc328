//! Rings: how they are described, started and found broken.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use guest_memory::MapView;
use nix::sys::stat::{SFlag, fstat};
use reactor::{Cx, guest_warn};
use virtio::{Interrupt, InterruptKind, Kick, QueueSetup};
use virtio_spec::feature;

use super::{Backend, Change, Progress, TRANSPORT};
use crate::Refusal;
use crate::ring::{self, Ring, Run};
use crate::wire;

impl Backend {
    pub(super) fn ring(&mut self, index: u32) -> Result<&mut Ring, Refusal> {
        let count = self.rings.len();
        self.rings.get_mut(index as usize).ok_or_else(|| {
            Refusal::new(format!(
                "ring {index} of a device with {count}: give the VM at most {count} queues"
            ))
        })
    }

    /// A ring that is not served at present.
    pub(super) fn idle_ring(&mut self, index: u32) -> Result<&mut Ring, Refusal> {
        let ring = self.ring(index)?;
        if ring.run == Run::Stopped {
            Ok(ring)
        } else {
            Err(Refusal::new(format!(
                "ring {index} is served: its size and base can change only while it is stopped"
            )))
        }
    }

    pub(super) fn set_size(&mut self, state: wire::VringState) -> Result<(), Refusal> {
        let max = self.device.max_queue_size();
        let size = u16::try_from(state.num)
            .ok()
            .filter(|size| (1..=max).contains(size))
            .ok_or_else(|| {
                let num = state.num;
                Refusal::new(format!("a ring of {num} entries: 1 to {max} are possible"))
            })?;
        self.idle_ring(state.index)?.size = size;
        Ok(())
    }

    pub(super) fn set_address(
        &mut self,
        cx: &mut Cx,
        address: wire::VringAddress,
    ) -> Result<Progress, Refusal> {
        let index = address.index;
        ring::check_alignment(&address, self.features)?;
        if self.memory.table().len() == 0 {
            return Err(Refusal::new(
                "a ring is placed before there is any memory: the VM's memory must be shared (memfd or file, share=on)",
            ));
        }
        let now = self.ring(index)?;
        if now.address == Some(address) {
            return Ok(Progress::Done);
        }
        let then = Ring {
            size: now.size,
            address: Some(address),
            ..Ring::default()
        };
        let place = then.locate(self.memory.table(), self.features);
        let Some(place) = place else {
            return Err(Refusal::new("a ring does not lie in the client's memory"));
        };
        // Without translation there is but one guest-physical address of the device area (text: "log_guest_addr").
        if address.flags & wire::VRING_LOG != 0 && address.log != place.device {
            return Err(Refusal::new(
                "a ring's writes are to be logged elsewhere than where it lies",
            ));
        }
        self.begin(cx, Change::Address(address), |it, _| it == index)
    }

    pub(super) fn set_kick(
        &mut self,
        cx: &mut Cx,
        index: u32,
        fd: Option<OwnedFd>,
    ) -> Result<Progress, Refusal> {
        let features = self.features;
        let ring = self.ring(index)?;
        if !ring.is_complete() {
            return Err(Refusal::new(format!(
                "ring {index} is started before its size and addresses are set"
            )));
        }
        ring.check_format(features)?;
        let kick = match fd {
            None => Kick::Polled,
            Some(fd) => Kick::Event(Arc::new(check_event(fd)?)),
        };
        self.begin(cx, Change::Kick(index, kick), |it, _| it == index)
    }

    /// Installs an eventfd, or takes it away.
    pub(super) fn install(&mut self, vector: u32, fd: Option<OwnedFd>) -> Result<(), Refusal> {
        let event = fd.map(check_event).transpose()?.map(Arc::new);
        self.interrupts
            .install(InterruptKind::Msix, vector, vec![event])
            .map_err(|_| Refusal::new("there is no such ring"))
    }

    /// Starts every ring that should be served and is not.
    pub(super) fn start_rings(&mut self, cx: &mut Cx) -> Result<(), Refusal> {
        for index in 0..self.rings.len() {
            self.start_ring(cx, index)?;
        }
        Ok(())
    }

    pub(super) fn start_ring(&mut self, cx: &mut Cx, index: usize) -> Result<(), Refusal> {
        let features = self.features;
        let by_default = features & feature::VHOST_USER_PROTOCOL_FEATURES == 0;
        let Some(ring) = self.rings.get_mut(index) else {
            return Ok(());
        };
        let is_wanted = ring.enabled.unwrap_or(by_default) && !ring.is_broken && !ring.is_lost;
        let (Run::Stopped, true, Some(kick)) = (ring.run, is_wanted, ring.kick.clone()) else {
            return Ok(());
        };
        // Size and features may have been chosen anew since the kick was. Who asks now may ask for other rings, so this is
        // no refusal: the ring is broken.
        if let Err(refusal) = ring.check_format(features) {
            let cause = refusal.to_string();
            guest_warn!(
                self.limit,
                name = self.name,
                queue = index,
                cause,
                "a ring is not started"
            );
            self.broken(u16::try_from(index).ok(), &cause);
            return Ok(());
        }
        // Gone with its memory: until the next change of that.
        let Some(place) = ring.locate(self.memory.table(), features) else {
            return Ok(());
        };
        let vector = u32::try_from(index).unwrap_or(u32::MAX);
        let vector = self.interrupts.vector(InterruptKind::Msix, vector);
        let inflight = match &self.inflight {
            Some(region) => Some(region.of(index, ring.size, features)?),
            None => None,
        };
        let view = MapView::new(Arc::clone(self.memory.table().map()));
        let setup = QueueSetup {
            size: ring.size,
            features: features & !TRANSPORT,
            desc: place.desc,
            driver: place.driver,
            device: place.device,
            state: ring.state(&place, &view, features),
            kick,
            interrupt: vector.map(Interrupt::message),
            inflight,
            log: match features & feature::VHOST_LOG_ALL {
                0 => None,
                _ => self.log.clone(),
            },
        };
        ring.place = Some(place);
        ring.run = Run::Running;
        // As many as the device has.
        let index = u16::try_from(index).unwrap_or(u16::MAX);
        self.device.start_queue(cx, index, setup);
        Ok(())
    }

    pub(super) fn broken(&mut self, index: Option<u16>, cause: &str) {
        self.needs_reset = true;
        // The device has told the operator.
        tracing::debug!(
            name = self.name,
            queue = index,
            cause,
            "the device needs a reset"
        );
        let queues = self.rings.len();
        for (ring, at) in self.rings.iter_mut().zip(0u16..) {
            if index.is_some_and(|index| index != at) {
                continue;
            }
            ring.is_broken = true;
            let vector = usize::from(at).saturating_add(queues);
            let vector = u32::try_from(vector).unwrap_or(u32::MAX);
            if let Some(error) = self.interrupts.vector(InterruptKind::Msix, vector)
                && error.is_enabled()
            {
                error.signal();
            }
        }
    }
}

/// Refuses a descriptor on which a reactor might block or that is no event: an eventfd is an anonymous inode, which has no file
/// type; pipes, sockets, terminals and files have one.
fn check_event(fd: OwnedFd) -> Result<OwnedFd, Refusal> {
    let stat = fstat(&fd).map_err(|errno| Refusal::new(format!("the event of a ring: {errno}")))?;
    if SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits()).is_empty() {
        Ok(fd)
    } else {
        Err(Refusal::new("the event of a ring is not an eventfd"))
    }
}
