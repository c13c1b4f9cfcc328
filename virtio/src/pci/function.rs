//! The device as a transport sees it.

use std::sync::Arc;

use guest_memory::DmaMap;
use nix::errno::Errno;
use pci::{
    Access, CONFIG_REGION, ConfigEffects, Function, Interrupts, MsixTable, REGION_COUNT, Region,
    ResetKind,
};
use reactor::{Cx, Event as ReactorEvent, Idle, Poll};
use zerocopy::IntoBytes;

use super::model::Stage;
use super::state::{Event, Phase};
use super::{
    BAR, COMMON, DEVICE, HeldWrite, ISR, MSIX_BAR, NOTIFY, NOTIFY_MULTIPLIER, PAGE, PENDING_BAR,
    VirtioPci, common,
};

/// The parts of an access to BAR4 that lie in each of its pages: where the page begins, the offset in it, and the bytes'
/// place in the access.
fn pages(offset: u64, len: usize) -> impl Iterator<Item = (u64, usize, std::ops::Range<usize>)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        let at = offset.checked_add(done as u64)?;
        let within = usize::try_from(at % PAGE).ok()?;
        let part = (PAGE as usize - within).min(len.checked_sub(done)?);
        let range = done..done + part;
        done += part;
        (part > 0).then_some((at - at % PAGE, within, range))
    })
}

/// Where a driver may write a status of 0 again, whatever is under way.
fn is_reset(offset: u64, data: &[u8]) -> bool {
    let mut writes = usize::try_from(offset)
        .ok()
        .into_iter()
        .flat_map(|offset| common::writes(offset, data));
    writes.next() == Some((common::Register::Status, 0)) && data.len() == 1
}

impl VirtioPci {
    /// Reads BAR4.
    pub(super) fn read_bar(&mut self, offset: u64, data: &mut [u8]) {
        data.fill(0);
        for (page, at, range) in pages(offset, data.len()) {
            let Some(part) = data.get_mut(range) else {
                return;
            };
            match page {
                COMMON => self.read_common(at, part),
                ISR if at == 0 => {
                    if let Some(first) = part.first_mut() {
                        *first = self.take_isr();
                    }
                }
                DEVICE if at < self.device.config_len() => self.device.read_config(at, part),
                // Reading where one notifies has no meaning.
                _ => {}
            }
        }
    }

    fn read_common(&mut self, at: usize, data: &mut [u8]) {
        let offered = self.offered();
        self.model.offered = Some(offered);
        let common = self.model.common(&self.limits, offered);
        let from = common.as_bytes().get(at..).unwrap_or_default();
        for (out, byte) in data.iter_mut().zip(from) {
            *out = *byte;
        }
    }

    /// Writes BAR4.
    pub(super) fn write_bar(&mut self, cx: &mut Cx, offset: u64, data: &[u8]) -> Access {
        if self.model.state.is_draining() && offset < NOTIFY {
            // Firmware goes on after a reset without looking whether it has ended. Linux waits, by reading: so no read is held.
            if is_reset(offset, data) {
                return Access::Done;
            }
            let data = data.to_vec();
            self.held = Some(HeldWrite { offset, data });
            return Access::Defer;
        }
        for (page, at, range) in pages(offset, data.len()) {
            let Some(part) = data.get(range) else {
                break;
            };
            match page {
                COMMON => {
                    for (register, value) in common::writes(at, part) {
                        if self.model.state.phase() != Phase::Present {
                            break;
                        }
                        if let Some(request) = self.model.write(&self.limits, register, value) {
                            self.carry_out(cx, request);
                        }
                    }
                }
                // Not before the features are agreed on (3.1.1).
                DEVICE if self.model.state.is_negotiated() && at < self.device.config_len() => {
                    self.device.write_config(cx, at, part);
                }
                NOTIFY => self.notify(at, part.len()),
                _ => {}
            }
        }
        Access::Done
    }

    /// A notification by message. The place tells the queue; the value says no more than that, or (with NOTIFICATION_DATA) how far
    /// the driver has come, which the ring says too.
    fn notify(&mut self, at: usize, len: usize) {
        let step = NOTIFY_MULTIPLIER as usize;
        // A notification has two bytes at least.
        let end = at.saturating_add(len).saturating_sub(1);
        for place in (at.next_multiple_of(step)..end).step_by(step) {
            let index = u16::try_from(place / step).unwrap_or(u16::MAX);
            let queue = self.model.queues.get(usize::from(index));
            if queue.is_some_and(|queue| queue.stage == Stage::Running) {
                self.device.notify(index);
            }
        }
    }

    fn apply_config(&mut self, cx: &mut Cx, effects: ConfigEffects) {
        if effects.flr {
            self.power_on();
            self.step(cx, Event::Reset);
            self.take_events(cx);
        }
        self.redirect();
    }

    /// Takes back what is not virtio's.
    fn power_on(&mut self) {
        self.pci.reset();
        self.msix = MsixTable::new(self.limits.vectors);
    }
}

impl Function for VirtioPci {
    fn regions(&self) -> &[Region; REGION_COUNT] {
        &self.regions
    }

    fn interrupts(&self) -> &Interrupts {
        &self.interrupts
    }

    fn read(&mut self, _cx: &mut Cx, region: u32, offset: u64, data: &mut [u8]) -> Access {
        match region {
            BAR => self.read_bar(offset, data),
            MSIX_BAR => self.msix.read(offset, data),
            PENDING_BAR => MsixTable::read_pending(&self.interrupts, offset, data),
            CONFIG_REGION => self.read_config_space(offset, data),
            _ => return Access::Fault(Errno::EINVAL),
        }
        Access::Done
    }

    fn write(&mut self, cx: &mut Cx, region: u32, offset: u64, data: &[u8]) -> Access {
        match region {
            BAR => return self.write_bar(cx, offset, data),
            MSIX_BAR => self.msix.write(offset, data),
            // Pending bits are read-only.
            PENDING_BAR => {}
            CONFIG_REGION => {
                let effects = self.pci.write(offset, data);
                self.apply_config(cx, effects);
                return self.write_window(cx, offset, data.len());
            }
            _ => return Access::Fault(Errno::EINVAL),
        }
        Access::Done
    }

    fn map_changed(&mut self, cx: &mut Cx, map: &Arc<DmaMap>) {
        if self.model.state.phase() != Phase::Gone {
            self.device.map_changed(cx, map);
        }
    }

    fn reset(&mut self, cx: &mut Cx, kind: ResetKind) -> Access {
        self.power_on();
        // Whoever wrote it is answered by the reset, or gone.
        self.held = None;
        match kind {
            ResetKind::Device => self.step(cx, Event::Reset),
            ResetKind::ClientGone | ResetKind::Removed => {
                self.device.client_gone();
                // First the memory: the reset's end means that nobody holds any.
                self.map_changed(cx, &DmaMap::empty());
                self.step(cx, Event::ClientGone);
                self.interrupts.disable_all();
            }
        }
        self.redirect();
        (self.reset_pending, self.deferred) = (false, None);
        self.take_events(cx);
        if self.model.state.is_draining() {
            self.reset_pending = true;
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
        if self.take_events(cx) {
            Poll::Busy
        } else {
            Poll::Idle
        }
    }

    fn event(&mut self, cx: &mut Cx, event: ReactorEvent) {
        self.device.event(cx, event);
    }

    fn idle(&self) -> Idle {
        self.device.idle()
    }
}
