//! Who is interrupted: an MSI-X vector, the pin, or for now nobody.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use pci::{InterruptKind, Interrupts, Vector};
use virtio_spec::NO_VECTOR;
use virtio_spec::pci::{ISR_CONFIG, ISR_QUEUE};

use super::VirtioPci;
use super::model::Stage;
use crate::device::Interrupt;

/// How interrupts travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Delivery {
    /// MSI-X is on: each by its vector, if it has one.
    Message,
    /// By the pin; the ISR status tells why.
    Pin,
    /// The pin is disabled; the ISR status tells whoever looks.
    Silent,
}

/// An interrupt that nobody can install a descriptor for.
pub(super) fn silent() -> Vector {
    let nobody = Interrupts::new(1, 0).vector(InterruptKind::Intx, 0);
    nobody.unwrap_or_else(|| unreachable!("one was made"))
}

impl VirtioPci {
    fn delivery_now(&self) -> Delivery {
        match (self.pci.is_msix_enabled(), self.pci.is_intx_disabled()) {
            (true, _) => Delivery::Message,
            (false, false) => Delivery::Pin,
            (false, true) => Delivery::Silent,
        }
    }

    fn interrupt(&self, vector: u16, isr_bit: u8) -> Option<Interrupt> {
        let pin = |vector| Interrupt::pin(vector, Arc::clone(&self.isr), isr_bit);
        match self.delivery {
            Delivery::Message if vector == NO_VECTOR => None,
            Delivery::Message => {
                let vector = self
                    .interrupts
                    .vector(InterruptKind::Msix, u32::from(vector));
                vector.map(Interrupt::message)
            }
            Delivery::Pin => self.pin().map(pin),
            Delivery::Silent => Some(pin(self.silent.clone())),
        }
    }

    /// How a queue interrupts.
    pub(super) fn queue_interrupt(&self, vector: u16) -> Option<Interrupt> {
        self.interrupt(vector, ISR_QUEUE)
    }

    /// Tells the driver that the configuration, or the status, changed.
    pub(super) fn interrupt_config(&self) {
        if let Some(interrupt) = self.interrupt(self.model.config_vector, ISR_CONFIG) {
            interrupt.signal();
        }
    }

    /// A queue has another vector.
    pub(super) fn rebind(&mut self, index: u16) {
        let Some(queue) = self.model.queues.get(usize::from(index)) else {
            return;
        };
        if queue.stage != Stage::Idle {
            let interrupt = self.queue_interrupt(queue.vector);
            self.device.set_interrupt(index, interrupt);
        }
    }

    /// The configuration space may have changed how interrupts travel.
    pub(super) fn redirect(&mut self) {
        let now = self.delivery_now();
        if std::mem::replace(&mut self.delivery, now) == now {
            return;
        }
        for index in 0..self.limits.queues {
            self.rebind(index);
        }
        self.raise_pin();
    }

    /// The pin is a level: it is up as long as the ISR status is not zero and nothing masks it (4.1.4.5).
    pub(super) fn raise_pin(&self) {
        if self.delivery == Delivery::Pin
            && self.isr.load(Ordering::Acquire) != 0
            && let Some(pin) = self.pin()
        {
            pin.signal();
        }
    }

    /// Reads the ISR status, which lets the pin fall.
    pub(super) fn take_isr(&self) -> u8 {
        self.isr.swap(0, Ordering::AcqRel)
    }
}
