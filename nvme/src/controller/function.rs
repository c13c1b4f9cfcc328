//! The controller as a transport sees it.

use std::sync::Arc;

use guest_memory::{DmaMap, MapView};
use nix::errno::Errno;
use nvme_spec::ADMIN_QID;
use nvme_spec::event::ErrorEvent;
use pci::{
    Access, CONFIG_REGION, ConfigEffects, Function, Interrupts, MsixTable, REGION_COUNT, Region,
    ResetKind,
};
use reactor::{Cx, Event as ReactorEvent, Idle, Poll};

use super::{Controller, DOORBELLS, KEEP_ALIVE_TIMER, MSIX_BAR, PENDING_BAR};
use crate::messages::ToShard;
use crate::registers::{self, Request};
use crate::state::{Event, Phase};

impl Controller {
    fn write_bar0(&mut self, cx: &mut Cx, offset: u64, data: &[u8]) {
        for (at, value) in registers::dwords(offset, data) {
            if at >= DOORBELLS {
                self.write_doorbell(at - DOORBELLS, value);
                continue;
            }
            let request = self
                .model
                .registers
                .write_dword(&self.model.state, at, value);
            match request {
                Some(Request::Step(event)) => self.step(cx, event),
                Some(Request::InterruptMask) => self.apply_interrupt_mask(),
                None => {}
            }
        }
    }

    /// A trapped doorbell is put where the mapped ones are, and whoever serves it is woken.
    fn write_doorbell(&mut self, offset: u64, value: u32) {
        let Some(offset) = usize::try_from(offset)
            .ok()
            .filter(|at| *at < self.page.len())
        else {
            return;
        };
        if !self.model.state.is_ready() {
            return;
        }
        let qid = u16::try_from(offset / 8).unwrap_or(u16::MAX);
        let is_head = offset % 8 != 0;
        let shard = if is_head {
            self.model.cqs.get(&qid).map(|cq| cq.shard)
        } else {
            let cqid = self.model.sqs.get(&qid).map(|sq| sq.cqid);
            cqid.and_then(|cqid| self.model.cqs.get(&cqid))
                .map(|cq| cq.shard)
        };
        if qid != ADMIN_QID && shard.is_none() {
            self.doorbell_error(qid, ErrorEvent::INVALID_DOORBELL_REGISTER);
            return;
        }
        self.page.store_u32(offset, value);
        if let Some(shard) = shard {
            self.shards.wake(shard);
        }
    }

    fn apply_interrupt_mask(&mut self) {
        let mask = self.interrupt_mask();
        self.shards.broadcast(|| ToShard::InterruptMask(mask));
        self.raise_pin();
    }

    /// The pin is a level: as long as a completion waits and nothing masks it, it is up.
    fn raise_pin(&mut self) {
        if !self.uses_pin() || self.interrupt_mask() & 1 != 0 {
            return;
        }
        self.look_at_admin();
        if self.admin.as_ref().is_some_and(|admin| admin.is_occupied()) {
            self.interrupt();
        }
        self.shards.broadcast(|| ToShard::PinUnmasked);
    }

    fn apply_config(&mut self, cx: &mut Cx, effects: ConfigEffects) {
        if effects.flr {
            self.pci.reset();
            self.msix = MsixTable::new(self.config.msix_vectors);
            self.step(cx, Event::FunctionReset);
        }
        if effects.msix_changed {
            let vectors = self.model.cqs.iter();
            let vectors = vectors.filter_map(|(qid, cq)| Some((*qid, cq.shard, cq.vector?)));
            for (qid, shard, index) in vectors.collect::<Vec<_>>() {
                if let Some(vector) = self.binding(index) {
                    self.shards.send(shard, ToShard::Vector { qid, vector });
                }
            }
        }
        if effects.msix_changed || effects.command_changed {
            self.apply_interrupt_mask();
        }
    }

    fn check_memory(&mut self, cx: &mut Cx) {
        let faults = guest_memory::fault::count();
        if faults == self.faults {
            return;
        }
        self.faults = faults;
        if self.view.map().poisoned().is_some() {
            self.fail(cx, "the client truncated the file behind its memory");
        }
    }
}

impl Function for Controller {
    fn regions(&self) -> &[Region; REGION_COUNT] {
        &self.regions
    }

    fn interrupts(&self) -> &Interrupts {
        &self.interrupts
    }

    fn read(&mut self, _cx: &mut Cx, region: u32, offset: u64, data: &mut [u8]) -> Access {
        match region {
            0 if offset >= DOORBELLS => {
                // Reading a doorbell is undefined; the page is what a client with a mapping would see.
                data.fill(0);
                let at = usize::try_from(offset - DOORBELLS).unwrap_or(usize::MAX);
                let _ = self.page.read_slice(at, data);
            }
            0 => self.model.registers.read(&self.model.state, offset, data),
            MSIX_BAR => self.msix.read(offset, data),
            PENDING_BAR => MsixTable::read_pending(&self.interrupts, offset, data),
            CONFIG_REGION => self.pci.read(offset, data),
            _ => return Access::Fault(Errno::EINVAL),
        }
        Access::Done
    }

    fn write(&mut self, cx: &mut Cx, region: u32, offset: u64, data: &[u8]) -> Access {
        match region {
            0 => self.write_bar0(cx, offset, data),
            MSIX_BAR => self.msix.write(offset, data),
            // Pending bits are read-only.
            PENDING_BAR => {}
            CONFIG_REGION => {
                let effects = self.pci.write(offset, data);
                self.apply_config(cx, effects);
            }
            _ => return Access::Fault(Errno::EINVAL),
        }
        Access::Done
    }

    fn map_changed(&mut self, _cx: &mut Cx, map: &Arc<DmaMap>) {
        self.view = MapView::new(Arc::clone(map));
        if let Some(admin) = &mut self.admin
            && !admin.remap(&self.view)
        {
            tracing::debug!(
                endpoint = self.config.label,
                "the admin queue is not mapped; it waits"
            );
        }
        self.shards.broadcast(|| ToShard::Map(Arc::clone(map)));
    }

    fn reset(&mut self, cx: &mut Cx, kind: ResetKind) -> Access {
        self.pci.reset();
        self.msix = MsixTable::new(self.config.msix_vectors);
        match kind {
            ResetKind::Device => self.step(cx, Event::DeviceReset),
            ResetKind::ClientGone | ResetKind::Removed => {
                self.step(cx, Event::ClientGone);
                self.view = MapView::new(DmaMap::empty());
                self.interrupts.disable_all();
            }
        }
        if matches!(self.model.state.phase(), Phase::Draining(_)) {
            (self.reset_pending, self.deferred) = (true, None);
            Access::Defer
        } else {
            Access::Done
        }
    }

    fn pin_unmasked(&mut self, _cx: &mut Cx) {
        self.raise_pin();
    }

    fn deferred(&mut self) -> Option<Access> {
        self.deferred.take()
    }

    fn is_quiescent(&self) -> bool {
        self.model.state.phase() == Phase::Gone
    }

    fn poll(&mut self, cx: &mut Cx) -> Poll {
        self.check_memory(cx);
        let heard = self.take_messages(cx);
        let served = self.serve_admin(cx);
        if heard || served {
            Poll::Busy
        } else {
            Poll::Idle
        }
    }

    fn event(&mut self, cx: &mut Cx, event: ReactorEvent) {
        if let ReactorEvent::Timer {
            tag: KEEP_ALIVE_TIMER,
        } = event
        {
            self.keep_alive = None;
            if self.model.features.keep_alive_ms > 0 && self.model.state.is_ready() {
                self.fail(cx, "the host's Keep Alive did not come in time");
            }
        }
    }

    fn idle(&self) -> Idle {
        // A mapped doorbell changes without telling; everything else comes by message.
        if self.model.state.is_ready() && self.config.mappable_bar0 {
            Idle::Bounded
        } else {
            Idle::UntilEvent
        }
    }
}
