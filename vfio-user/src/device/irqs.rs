//! Interrupts of one client.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use nix::errno::Errno;
use nix::sys::stat::{SFlag, fstat};
use pci::{Function, InterruptKind, Interrupts};
use reactor::Cx;

use crate::Rejection;
use crate::masks::{MaskEvents, Target};
use crate::request::{IrqAction, IrqChange, IrqData, IrqRange};
use crate::wire;

/// The kind of interrupt that an index stands for; `None` for MSI, which no function has.
fn kind_of(index: u32) -> Option<InterruptKind> {
    match index {
        wire::INTX_IRQ => Some(InterruptKind::Intx),
        wire::MSIX_IRQ => Some(InterruptKind::Msix),
        wire::ERR_IRQ => Some(InterruptKind::Error),
        wire::REQ_IRQ => Some(InterruptKind::Request),
        _ => None,
    }
}

/// Number of vectors at an index.
pub(super) fn vectors(interrupts: &Interrupts, index: u32) -> u32 {
    kind_of(index).map_or(0, |kind| interrupts.count(kind))
}

/// What the client has arranged beside what [`Interrupts`] holds.
#[derive(Debug, Default)]
pub(super) struct Irqs {
    masks: MaskEvents,
}

impl Irqs {
    /// Carries out a DEVICE_SET_IRQS.
    pub(super) fn change(
        &mut self,
        cx: &mut Cx,
        function: &mut dyn Function,
        change: IrqChange<'_>,
    ) -> Result<(), Rejection> {
        let interrupts = function.interrupts();
        change.check_vectors(vectors(interrupts, change.index()))?;
        let Some(kind) = kind_of(change.index()) else {
            return Err(Rejection::invalid("no such interrupt vector"));
        };
        let IrqChange::Range(range) = change else {
            self.masks.disable(cx, kind);
            interrupts.disable(kind);
            return Ok(());
        };
        let IrqRange {
            start,
            count,
            action,
            data,
            ..
        } = range;
        match data {
            IrqData::None => act(interrupts, kind, action, start, count)?,
            IrqData::Bool(bools) => {
                for (vector, _) in (start..).zip(bools).filter(|(_, on)| **on != 0) {
                    act(interrupts, kind, action, vector, 1)?;
                }
            }
            IrqData::EventFd(fds) => {
                fds.iter().try_for_each(check_eventfd)?;
                // Without descriptors, those of the range are removed.
                let mut fds = fds.into_iter().map(Arc::new);
                let events = (0..count).map(|_| fds.next()).collect();
                self.install(cx, interrupts, kind, action, start, events)?;
            }
        }
        // A pin whose cause persists is raised again once it can be seen.
        if kind == InterruptKind::Intx && action != IrqAction::Mask {
            function.pin_unmasked(cx);
        }
        Ok(())
    }

    fn install(
        &mut self,
        cx: &mut Cx,
        interrupts: &Interrupts,
        kind: InterruptKind,
        action: IrqAction,
        start: u32,
        events: Vec<Option<Arc<OwnedFd>>>,
    ) -> Result<(), Rejection> {
        let mask = match action {
            IrqAction::Trigger => {
                return interrupts
                    .install(kind, start, events)
                    .map_err(|errno| Rejection::new(errno, "descriptor of an interrupt"));
            }
            IrqAction::Mask => true,
            IrqAction::Unmask => false,
        };
        for (vector, event) in (start..).zip(events) {
            let target = Target { kind, vector, mask };
            self.masks.set(cx, target, event)?;
        }
        Ok(())
    }

    /// An eventfd that masks or unmasks has fired.
    pub(super) fn fired(&self, cx: &mut Cx, function: &mut dyn Function, tag: u64) {
        let Some(Target { kind, vector, mask }) = self.masks.fired(tag) else {
            return;
        };
        // The vector was there when the descriptor was installed, and vectors stay.
        let _ = function.interrupts().set_mask(kind, vector, 1, mask);
        if kind == InterruptKind::Intx && !mask {
            function.pin_unmasked(cx);
        }
    }

    /// The client is gone.
    pub(super) fn close(&mut self, cx: &mut Cx, interrupts: &Interrupts) {
        for kind in [
            InterruptKind::Intx,
            InterruptKind::Msix,
            InterruptKind::Error,
            InterruptKind::Request,
        ] {
            self.masks.disable(cx, kind);
        }
        interrupts.disable_all();
    }
}

fn act(
    interrupts: &Interrupts,
    kind: InterruptKind,
    action: IrqAction,
    start: u32,
    count: u32,
) -> Result<(), Rejection> {
    match action {
        IrqAction::Trigger => interrupts.trigger(kind, start, count),
        IrqAction::Mask => interrupts.set_mask(kind, start, count, true),
        IrqAction::Unmask => interrupts.set_mask(kind, start, count, false),
    }
    .map_err(no_such_vector)
}

fn no_such_vector(errno: Errno) -> Rejection {
    Rejection::new(errno, "no such interrupt vector")
}

/// Refuses what is no eventfd before any of the message has an effect. An eventfd is an anonymous inode, which has no file
/// type; pipes, sockets, terminals and files have one, and a write to them might block a reactor.
fn check_eventfd(fd: &OwnedFd) -> Result<(), Rejection> {
    let stat = fstat(fd).map_err(|errno| Rejection::new(errno, "descriptor of an interrupt"))?;
    if SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits()).is_empty() {
        return Ok(());
    }
    Err(Rejection::invalid(
        "descriptor of an interrupt is not an eventfd",
    ))
}
