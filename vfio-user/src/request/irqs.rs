//! DEVICE_SET_IRQS.

use std::os::fd::OwnedFd;

use super::fixed;
use crate::Rejection;
use crate::wire::{self, IrqSetFlags};

/// What a DEVICE_SET_IRQS asks for.
#[derive(Debug)]
pub enum IrqChange<'a> {
    /// Drop every eventfd of the index.
    Disable {
        /// Below [`wire::NUM_IRQS`].
        index: u32,
    },
    /// Do something with a range of vectors.
    Range(IrqRange<'a>),
}

/// A change to a range of vectors, at least one.
#[derive(Debug)]
pub struct IrqRange<'a> {
    /// Below [`wire::NUM_IRQS`].
    pub index: u32,
    /// First vector.
    pub start: u32,
    /// Number of vectors, not 0. `start + count` may be more than the device has.
    pub count: u32,
    /// What to do.
    pub action: IrqAction,
    /// With which.
    pub data: IrqData<'a>,
}

/// What to do with vectors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IrqAction {
    /// Mask them.
    Mask,
    /// Unmask them; with eventfds: unmask each when its eventfd fires (the guest's end of interrupt).
    Unmask,
    /// Fire them; with eventfds: set what each fires.
    Trigger,
}

/// Which vectors of a range.
#[derive(Debug)]
pub enum IrqData<'a> {
    /// All.
    None,
    /// Those whose byte is not 0; as many bytes as vectors.
    Bool(&'a [u8]),
    /// All, each with its eventfd: as many as vectors, or none at all, which removes them.
    EventFd(Vec<OwnedFd>),
}

impl IrqChange<'_> {
    /// The interrupt index.
    pub fn index(&self) -> u32 {
        match self {
            Self::Disable { index } => *index,
            Self::Range(range) => range.index,
        }
    }

    /// Holds the change against the number of vectors the device has at this index.
    ///
    /// # Errors
    ///
    /// EINVAL when the vectors are not there. An index without vectors takes no change at all, not even to be
    /// disabled.
    pub fn check_vectors(&self, vectors: u32) -> Result<(), Rejection> {
        let (start, count) = match self {
            Self::Disable { .. } => (0, 0),
            Self::Range(range) => (range.start, range.count),
        };
        if start >= vectors || start.saturating_add(count) > vectors {
            return Err(Rejection::invalid("no such interrupt vector"));
        }
        Ok(())
    }
}

pub(super) fn decode(payload: &[u8], fds: Vec<OwnedFd>) -> Result<IrqChange<'_>, Rejection> {
    let request: wire::SetIrqs = fixed(payload, |request: &wire::SetIrqs| request.argsz)?;
    let wire::SetIrqs {
        index,
        start,
        count,
        ..
    } = request;
    if index >= wire::NUM_IRQS {
        return Err(Rejection::invalid("no such interrupt index"));
    }
    let (action, form) = parse_flags(request.flags)?;
    if matches!(index, wire::ERR_IRQ | wire::REQ_IRQ) && (action != IrqAction::Trigger || count > 1)
    {
        return Err(Rejection::invalid(
            "the error and request interrupts only trigger",
        ));
    }
    if form != IrqSetFlags::DATA_EVENTFD && !fds.is_empty() {
        return Err(Rejection::invalid(
            "file descriptors came with an interrupt change that takes none",
        ));
    }
    if count == 0 {
        if action != IrqAction::Trigger || form != IrqSetFlags::DATA_NONE || start != 0 {
            return Err(Rejection::invalid("interrupt change of no vectors"));
        }
        return Ok(IrqChange::Disable { index });
    }
    let data = match form {
        IrqSetFlags::DATA_BOOL => {
            // `fixed` has seen the structure; `argsz` is not compared because clients differ on what it counts.
            let bytes = payload
                .get(size_of::<wire::SetIrqs>()..)
                .unwrap_or_default();
            if bytes.len() != count as usize {
                return Err(Rejection::invalid(
                    "interrupt change has not one byte per vector",
                ));
            }
            IrqData::Bool(bytes)
        }
        IrqSetFlags::DATA_EVENTFD => {
            if !fds.is_empty() && fds.len() != count as usize {
                return Err(Rejection::invalid(
                    "interrupt change has not one eventfd per vector",
                ));
            }
            IrqData::EventFd(fds)
        }
        _ => IrqData::None,
    };
    Ok(IrqChange::Range(IrqRange {
        index,
        start,
        count,
        action,
        data,
    }))
}

/// Exactly one action and exactly one form of data.
fn parse_flags(bits: u32) -> Result<(IrqAction, IrqSetFlags), Rejection> {
    let unclear = Rejection::invalid("interrupt change needs one action and one form of data");
    let flags = IrqSetFlags::from_bits(bits).ok_or(unclear)?;
    let forms = IrqSetFlags::DATA_NONE | IrqSetFlags::DATA_BOOL | IrqSetFlags::DATA_EVENTFD;
    let form = flags & forms;
    let action = match flags - forms {
        IrqSetFlags::ACTION_MASK => IrqAction::Mask,
        IrqSetFlags::ACTION_UNMASK => IrqAction::Unmask,
        IrqSetFlags::ACTION_TRIGGER => IrqAction::Trigger,
        _ => return Err(unclear),
    };
    match form {
        IrqSetFlags::DATA_NONE | IrqSetFlags::DATA_BOOL | IrqSetFlags::DATA_EVENTFD => {
            Ok((action, form))
        }
        _ => Err(unclear),
    }
}
