//! Carries out what the state machine decides, and takes what the device model says.

use std::sync::atomic::Ordering;

use pci::Access;
use reactor::Cx;

use super::VirtioPci;
use super::model::{Queue, Request, Stage};
use super::state::Event;
use crate::device::{DeviceEvent, QueueSetup, RingState};

impl VirtioPci {
    /// One step of the state machine, with everything that follows from it.
    pub(super) fn step(&mut self, cx: &mut Cx, event: Event) {
        let before = self.model.state;
        let (state, effects) = before.step(event);
        self.model.state = state;
        if effects.clear {
            self.model.clear(&self.limits);
            self.isr.store(0, Ordering::Release);
        }
        if effects.negotiated {
            let accepted = self.model.accepted();
            self.device.set_features(cx, accepted);
        }
        if effects.refused {
            tracing::debug!(
                endpoint = self.config.label,
                accepted = format_args!("{:#x}", self.model.accepted()),
                offered = format_args!("{:#x}", self.offered()),
                "the driver's features are refused"
            );
        }
        if effects.start {
            for index in 0..self.limits.queues {
                self.start(cx, index);
            }
        }
        if effects.halt {
            self.halt(cx);
        }
        let is_ready = self.model.state.is_ready();
        if effects.notify || is_ready && std::mem::take(&mut self.model.config_pending) {
            self.interrupt_config();
        }
        if effects.drain {
            self.device.reset(cx);
        }
        if before != state {
            tracing::debug!(
                endpoint = self.config.label,
                ?before,
                after = ?state,
                "device state"
            );
        }
    }

    /// What a register write asks for.
    pub(super) fn carry_out(&mut self, cx: &mut Cx, request: Request) {
        match request {
            Request::Status(value) => {
                let acceptable = self.model.is_acceptable(self.offered());
                self.step(cx, Event::Status { value, acceptable });
                self.take_events(cx);
            }
            Request::Vector(index) => self.rebind(index),
            Request::Enable(index) => self.start(cx, index),
            Request::ResetQueue(index) => self.reset_queue(cx, index),
        }
    }

    /// Has a queue served, if it is to be and is not.
    fn start(&mut self, cx: &mut Cx, index: u16) {
        let is_serving = self.model.state.is_serving();
        let features = self.model.accepted();
        let wanted = |queue: &&Queue| {
            is_serving && queue.enabled && !queue.resetting && queue.stage == Stage::Idle
        };
        let queue = self.model.queues.get(usize::from(index));
        let Some(queue) = queue.filter(wanted) else {
            return;
        };
        let setup = QueueSetup {
            size: queue.size,
            features,
            desc: queue.desc,
            driver: queue.driver,
            device: queue.device,
            state: RingState::default(),
            kick: self.kick(),
            interrupt: self.queue_interrupt(queue.vector),
            inflight: None,
            log: None,
        };
        if let Some(queue) = self.model.queue(index) {
            queue.stage = Stage::Running;
        }
        self.device.start_queue(cx, index, setup);
    }

    fn stop(&mut self, cx: &mut Cx, index: u16) {
        if let Some(queue) = self.model.queue(index)
            && queue.stage == Stage::Running
        {
            queue.stage = Stage::Stopping;
            self.device.stop_queue(cx, index);
        }
    }

    /// Resets one queue (2.6.1): its registers read so once it has stopped.
    fn reset_queue(&mut self, cx: &mut Cx, index: u16) {
        self.stop(cx, index);
        self.settle_queue(index);
        self.take_events(cx);
    }

    /// A queue reset ends when the ring has stopped.
    fn settle_queue(&mut self, index: u16) {
        let limits = self.limits;
        if let Some(queue) = self.model.queue(index)
            && queue.resetting
            && queue.stage == Stage::Idle
        {
            *queue = Queue::new(&limits);
        }
    }

    /// Takes no more requests until a reset; what is in flight ends as usual.
    fn halt(&mut self, cx: &mut Cx) {
        for index in 0..self.limits.queues {
            self.stop(cx, index);
        }
    }

    /// Takes what the device model has to say; whether there was anything.
    pub(super) fn take_events(&mut self, cx: &mut Cx) -> bool {
        let mut busy = false;
        while let Some(event) = self.device.poll(cx) {
            busy = true;
            self.hear(cx, event);
        }
        if busy {
            self.settle(cx);
        }
        busy
    }

    fn hear(&mut self, cx: &mut Cx, event: DeviceEvent) {
        match event {
            DeviceEvent::QueueStopped { index, .. } => {
                if let Some(queue) = self.model.queue(index) {
                    queue.stage = Stage::Idle;
                }
                self.settle_queue(index);
            }
            DeviceEvent::ConfigChanged => {
                self.model.generation = self.model.generation.wrapping_add(1);
                if self.model.state.is_ready() {
                    self.interrupt_config();
                } else {
                    self.model.config_pending = self.model.state.is_begun();
                }
            }
            DeviceEvent::Broken { index, cause } => {
                // The operator has it from the device model.
                tracing::debug!(
                    endpoint = self.config.label,
                    queue = index,
                    cause,
                    "the device needs a reset"
                );
                self.step(cx, Event::Broken);
            }
            DeviceEvent::Reset => self.step(cx, Event::Drained),
        }
    }

    /// What waited for a drain goes on when it has ended.
    fn settle(&mut self, cx: &mut Cx) {
        if self.model.state.is_draining() {
            return;
        }
        if std::mem::take(&mut self.reset_pending) {
            self.deferred = Some(Access::Done);
        }
        if let Some(held) = self.held.take() {
            let access = self.write_bar(cx, held.offset, &held.data);
            // Otherwise it is held again.
            if access != Access::Defer {
                self.deferred = Some(access);
            }
        }
    }
}
