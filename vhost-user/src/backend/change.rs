//! Changes that rings have to be stopped for, and resets.

use std::sync::Arc;

use reactor::Cx;
use virtio::{DirtyLog, Kick, RingState};

use super::{Answer, Backend, Progress, TRANSPORT, Work};
use crate::Refusal;
use crate::memory::Table;
use crate::ring::{self, Ring, Run};
use crate::wire;

/// What is to happen once rings have ended.
#[derive(Debug)]
pub(crate) enum Change {
    /// SET_FEATURES.
    Features(u64),
    /// SET_LOG_BASE, and its answer.
    Log(Arc<DirtyLog>, Answer),
    /// SET_VRING_ADDR.
    Address(wire::VringAddress),
    /// SET_VRING_KICK.
    Kick(u32, Kick),
    /// SET_VRING_ENABLE with 0: the end is all.
    Disabled,
    /// GET_VRING_BASE.
    Base(u32),
    /// A change of the memory table.
    Memory(Table),
}

/// Who asked for a reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reset {
    /// SET_STATUS with 0.
    Status,
    /// RESET_DEVICE.
    Device,
    /// SET_FEATURES after the driver broke a rule.
    Begin,
}

impl Backend {
    pub(super) fn stop_rings(&mut self, cx: &mut Cx, is_concerned: impl Fn(u32, &Ring) -> bool) {
        for (ring, index) in self.rings.iter_mut().zip(0u16..) {
            if ring.run == Run::Running && is_concerned(index.into(), ring) {
                ring.run = Run::Stopping;
                self.device.stop_queue(cx, index);
            }
        }
    }

    /// Makes a change once the rings that it concerns have ended.
    pub(super) fn begin(
        &mut self,
        cx: &mut Cx,
        change: Change,
        is_concerned: impl Fn(u32, &Ring) -> bool,
    ) -> Result<Progress, Refusal> {
        self.stop_rings(cx, is_concerned);
        if self.is_stopping() {
            self.held = Some(Work::Change(Box::new(change)));
            Ok(Progress::Held)
        } else {
            self.apply(cx, change)
        }
    }

    fn is_stopping(&self) -> bool {
        self.rings.iter().any(|ring| ring.run == Run::Stopping)
    }

    /// Changes the memory table. Rings that lie elsewhere afterwards, or nowhere, are stopped first; the device finds the others
    /// again by itself.
    pub(super) fn change_memory(&mut self, cx: &mut Cx, table: Table) -> Result<Progress, Refusal> {
        let features = self.features;
        let moved: Vec<bool> = self
            .rings
            .iter()
            .map(|ring| ring.locate(&table, features) != ring.place)
            .collect();
        self.begin(cx, Change::Memory(table), |index, _| {
            moved.get(index as usize).copied().unwrap_or(true)
        })
    }

    fn apply(&mut self, cx: &mut Cx, change: Change) -> Result<Progress, Refusal> {
        let mut progress = Progress::Done;
        let features = self.features;
        match change {
            Change::Features(features) => {
                self.features = features;
                self.device.set_features(cx, features & !TRANSPORT);
            }
            Change::Log(log, answer) => {
                self.log = Some(log);
                progress = Progress::Reply(answer);
            }
            Change::Address(address) => self.ring(address.index)?.address = Some(address),
            Change::Kick(index, kick) => {
                let ring = self.ring(index)?;
                ring.kick = Some(kick);
                ring.is_broken = false;
            }
            Change::Disabled => {}
            Change::Base(index) => {
                let ring = self.ring(index)?;
                if ring.is_lost {
                    return Err(Refusal::new(format!(
                        "where ring {index} stands was lost with its reactor"
                    )));
                }
                let base = ring
                    .base
                    .unwrap_or_else(|| ring::base(&RingState::default(), features));
                let state = wire::VringState { index, num: base };
                progress = Progress::Reply(Answer::with(&state));
            }
            Change::Memory(table) => {
                self.memory.commit(table);
                self.device.map_changed(cx, self.memory.table().map());
                self.start_rings(cx)?;
                return Ok(self.drain());
            }
        }
        self.start_rings(cx)?;
        Ok(progress)
    }

    fn drain(&mut self) -> Progress {
        if self.memory.is_drained() {
            return Progress::Done;
        }
        self.held = Some(Work::Drain);
        Progress::Held
    }

    pub(super) fn reset(&mut self, cx: &mut Cx, kind: Reset) -> Progress {
        self.is_resetting = true;
        self.device.reset(cx);
        self.held = Some(Work::Reset(kind));
        Progress::Held
    }

    /// Looks whether the held request can go on. `None` while it cannot.
    pub(crate) fn advance(&mut self, cx: &mut Cx) -> Option<Result<Progress, Refusal>> {
        let is_ready = match self.held.as_ref()? {
            Work::Change(_) => !self.is_stopping(),
            Work::Drain => self.memory.is_drained(),
            Work::Reset(_) => !self.is_resetting,
        };
        if !is_ready {
            return None;
        }
        Some(match self.held.take()? {
            Work::Change(change) => self.apply(cx, *change),
            Work::Drain => Ok(Progress::Done),
            Work::Reset(kind) => {
                self.has_reset(cx, kind);
                Ok(Progress::Done)
            }
        })
    }

    /// Back to the beginning. The memory, the second socket and the interrupts are the connection's, not the device's: front-ends
    /// do not give them again.
    fn has_reset(&mut self, cx: &mut Cx, kind: Reset) {
        match kind {
            Reset::Begin => self
                .rings
                .iter_mut()
                .for_each(|ring| ring.is_broken = false),
            Reset::Status | Reset::Device => {
                self.rings.fill_with(Ring::default);
                self.status = 0;
                self.inflight = None;
            }
        }
        // After SET_STATUS the choice of features stays until the next one: front-ends that go on without making it exist.
        if kind == Reset::Device {
            self.features = 0;
        }
        self.device.set_features(cx, self.features & !TRANSPORT);
        self.device.map_changed(cx, self.memory.table().map());
    }
}
