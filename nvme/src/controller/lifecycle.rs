//! Carries out what the state machine decides.

use std::time::Duration;

use nvme_spec::registers::Shst;
use pci::Access;
use reactor::Cx;

use super::{Controller, KEEP_ALIVE_TIMER, monotonic_ms};
use crate::admin::queue::AdminQueue;
use crate::events::ControllerEvent;
use crate::limit::guest_warn;
use crate::messages::ToShard;
use crate::state::{Clear, Ending, Event, Phase, State};

/// Why admin queues cannot be used.
#[derive(Debug, thiserror::Error)]
enum EnableError {
    #[error("AQA asks for an admin queue of one entry")]
    Size,
    #[error("ASQ or ACQ is not aligned to the memory page size of CC.MPS")]
    Alignment,
    #[error("the client truncated the file behind its memory")]
    Truncated,
    /// The client mapped the memory without a file descriptor.
    #[error("the admin queues lie in memory that the client does not share")]
    NotShared,
    #[error(transparent)]
    Queue(#[from] crate::queue::QueueError),
}

impl Controller {
    /// One step of the state machine, with everything that follows from it.
    pub(crate) fn step(&mut self, cx: &mut Cx, event: Event) {
        let mut next = Some(event);
        while let Some(event) = next.take() {
            let former = self.model.state;
            let before = former.phase();
            let (state, effects) = self.model.state.step(event);
            self.model.state = state;
            self.model.unclean &= state.csts().shst() != Shst::COMPLETE;
            if effects.clear != Clear::Nothing {
                self.clear(cx, effects.clear);
            }
            if effects.refused {
                guest_warn!(self.limit, endpoint = self.config.label, cc = ?state.cc(),
                    "the guest asked for a controller configuration that is not offered; controller failed");
                self.tell_failed(
                    "the guest asked for a controller configuration that is not offered",
                );
            }
            if effects.enable
                && let Err(error) = self.enable(cx)
            {
                self.report_enable_error(&error);
                self.tell_failed(&error.to_string());
                self.admin = None;
                let (state, _) = self.model.state.step(Event::EnableFailed);
                self.model.state = state;
            }
            if effects.drain {
                self.drain();
                if self.is_drained() {
                    next = Some(Event::Drained);
                }
            }
            self.tell_transition(&former);
            self.log_transition(before);
        }
        self.settle();
    }

    /// Ends the drain if nothing is in flight any more.
    pub(crate) fn check_drained(&mut self, cx: &mut Cx) {
        if matches!(self.model.state.phase(), Phase::Draining(_)) && self.is_drained() {
            self.step(cx, Event::Drained);
        }
    }

    fn is_departing(&self) -> bool {
        self.model.state.phase() == Phase::Draining(Ending::Departure)
    }

    fn is_drained(&self) -> bool {
        if self.is_departing() {
            self.shards.is_empty()
        } else {
            self.shards.is_stopped()
        }
    }

    fn drain(&mut self) {
        self.admin = None;
        if self.is_departing() {
            self.shards.exit();
        } else {
            self.shards.stop();
        }
    }

    /// A reset that waits for a drain ends with it.
    fn settle(&mut self) {
        if self.reset_pending && !matches!(self.model.state.phase(), Phase::Draining(_)) {
            self.reset_pending = false;
            self.deferred = Some(Access::Done);
        }
    }

    /// Takes back what a reset takes back, and forgets the queues: their shards are told to stop next.
    fn clear(&mut self, cx: &mut Cx, clear: Clear) {
        self.admin = None;
        let model = &mut self.model;
        let vectors = std::mem::take(&mut model.features.coalescing_disabled);
        model.registers.clear(clear);
        model.features.reset(monotonic_ms());
        model.events = Default::default();
        model.changed.clear();
        model.ana = Default::default();
        model.ana_news = false;
        model.aborts.clear();
        model.health_reads.clear();
        model.sqs.clear();
        for qid in std::mem::take(&mut model.cqs).into_keys() {
            self.shards.vacate(qid);
        }
        self.model.shadow_doorbells = None;
        self.model.write_cache_shown = None;
        for vector in vectors {
            let disabled = false;
            self.shards
                .broadcast(|| ToShard::CoalescingDisable { vector, disabled });
        }
        self.restart_keep_alive(cx);
    }

    fn enable(&mut self, cx: &mut Cx) -> Result<(), EnableError> {
        let registers = &self.model.registers;
        let cc = self.model.state.cc();
        let sq = (registers.asq, u32::from(registers.aqa.asqs_z()) + 1);
        let cq = (registers.acq, u32::from(registers.aqa.acqs_z()) + 1);
        if sq.1 < 2 || cq.1 < 2 {
            return Err(EnableError::Size);
        }
        let aligned = |address: u64| address.is_multiple_of(u64::from(cc.page_size()));
        if !aligned(sq.0) || !aligned(cq.0) {
            return Err(EnableError::Alignment);
        }
        if self.view.map().poisoned().is_some() {
            return Err(EnableError::Truncated);
        }
        let map = self.view.map();
        let unshared = |iova| {
            map.find(iova)
                .is_some_and(|region| region.backing.is_none())
        };
        if unshared(sq.0) || unshared(cq.0) {
            return Err(EnableError::NotShared);
        }
        self.generation += 1;
        self.model.unclean = true;
        self.admin_interrupts = 0;
        self.admin = Some(AdminQueue::new(&self.view, &self.doorbells, sq, cq)?);
        for message in self.settings() {
            self.shards.broadcast(|| message.clone());
        }
        self.restart_keep_alive(cx);
        Ok(())
    }

    /// Everything that a shard must know before its first queue.
    pub(crate) fn settings(&self) -> Vec<ToShard> {
        let model = &self.model;
        let mut settings = vec![
            ToShard::PageSize {
                mps: model.state.cc().mps(),
            },
            self.coalescing(),
            ToShard::WriteCache {
                enabled: self.uses_write_cache(),
            },
            ToShard::ShadowDoorbells(model.shadow_doorbells),
            ToShard::InterruptMask(self.interrupt_mask()),
        ];
        let disabled = model.features.coalescing_disabled.iter();
        settings.extend(disabled.map(|vector| ToShard::CoalescingDisable {
            vector: *vector,
            disabled: true,
        }));
        settings
    }

    /// Interrupt coalescing as shards take it. Either field at zero means no delay.
    pub(crate) fn coalescing(&self) -> ToShard {
        let value = self.model.features.coalescing;
        let time_100us = u16::from(value.time());
        let threshold = match time_100us {
            0 => 0,
            _ => u16::from(value.thr_z()) + 1,
        };
        ToShard::Coalescing {
            threshold,
            time_100us,
        }
    }

    /// Starts the keep alive timer again, or ends it if it is off.
    pub(crate) fn restart_keep_alive(&mut self, cx: &mut Cx) {
        if let Some(timer) = self.keep_alive.take() {
            cx.cancel_timer(timer);
        }
        let timeout = self.model.features.keep_alive_ms;
        if timeout > 0 && self.model.state.is_ready() {
            let after = Duration::from_millis(u64::from(timeout));
            self.keep_alive = Some(cx.timer(after, KEEP_ALIVE_TIMER));
        }
    }

    /// Fails the controller for a cause that the operator must know.
    pub(crate) fn fail(&mut self, cx: &mut Cx, cause: &str) {
        let had_failed = self.model.state.csts().cfs();
        self.step(cx, Event::Fatal);
        // Every shard that meets the same trouble reports it, some only when the next reset has begun and it is over; the operator
        // hears of it once.
        if !had_failed && self.model.state.csts().cfs() {
            guest_warn!(
                self.limit,
                endpoint = self.config.label,
                cause,
                "controller failed; the guest must reset it"
            );
            self.tell_failed(cause);
        }
    }

    fn tell_failed(&self, cause: &str) {
        let cause = cause.to_owned();
        self.config.events.tell(ControllerEvent::Failed { cause });
    }

    /// Tells of what a step has done.
    fn tell_transition(&self, former: &State) {
        let (state, events) = (&self.model.state, &self.config.events);
        let resets = |state: &State| state.phase() == Phase::Draining(Ending::Reset);
        let was_used = !matches!(former.phase(), Phase::Disabled | Phase::Gone) && !resets(former);
        if was_used && resets(state) {
            events.tell(ControllerEvent::Reset);
        }
        let is_shut = |state: &State| state.csts().shst() == Shst::COMPLETE;
        if !is_shut(former) && is_shut(state) {
            events.tell(ControllerEvent::ShutDown);
        }
        if !former.is_ready() && state.is_ready() {
            events.tell(ControllerEvent::Enabled);
        }
    }

    fn report_enable_error(&mut self, error: &EnableError) {
        let label = &self.config.label;
        let no_memory = self
            .view
            .map()
            .regions()
            .all(|region| region.backing.is_none());
        if !matches!(error, EnableError::NotShared) && !no_memory {
            guest_warn!(self.limit, endpoint = label, %error, "the guest cannot enable the controller");
            return;
        }
        if !std::mem::replace(&mut self.memory_reported, true) {
            tracing::error!(
                endpoint = label,
                %error,
                "the guest's memory cannot be reached: start the VMM with memory that it shares, such as \
                 `-object memory-backend-memfd,id=mem,size=…,share=on -machine memory-backend=mem` for QEMU or \
                 `--memory size=…,shared=on` for cloud-hypervisor"
            );
        }
    }

    fn log_transition(&self, before: Phase) {
        let after = self.model.state.phase();
        if before != after {
            tracing::debug!(
                endpoint = self.config.label,
                ?before,
                ?after,
                "controller state"
            );
        }
    }
}
