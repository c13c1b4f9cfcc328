use std::os::fd::OwnedFd;
use std::sync::Arc;

use arbitrary::{Result, Unstructured};
use nix::sys::eventfd::{EfdFlags, EventFd};
use pci::{InterruptKind, Interrupts};

const KINDS: [InterruptKind; 4] = [
    InterruptKind::Msix,
    InterruptKind::Intx,
    InterruptKind::Error,
    InterruptKind::Request,
];
/// Vectors of each kind; three MSI-X vectors make every range interesting.
const COUNTS: [u32; 4] = [3, 1, 1, 1];
const EVENTS: usize = 3;

/// One vector as it should be.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Line {
    event: Option<usize>,
    masked: bool,
    pending: bool,
}

/// Interrupts, and a model of them.
pub(super) struct Subject {
    interrupts: Interrupts,
    events: Vec<Arc<OwnedFd>>,
    /// How often each event should have been raised since it was last read.
    raised: [u64; EVENTS],
    lines: [Vec<Line>; 4],
}

impl Subject {
    pub(super) fn new() -> Self {
        let flags = EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC;
        let event = |_| Arc::new(EventFd::from_flags(flags).expect("an eventfd").into());
        Self {
            interrupts: Interrupts::new(1, 3),
            events: (0..EVENTS).map(event).collect(),
            raised: [0; EVENTS],
            lines: COUNTS.map(|count| vec![Line::default(); count as usize]),
        }
    }

    pub(super) fn interrupts(&self) -> &Interrupts {
        &self.interrupts
    }

    fn signal(&mut self, kind: usize, index: usize) {
        let line = &mut self.lines[kind][index];
        match line.event {
            Some(event) if !line.masked => self.raised[event] += 1,
            _ => line.pending = true,
        }
    }

    /// Raises what was pending, if now it can be.
    fn deliver(&mut self, kind: usize, index: usize) {
        if std::mem::take(&mut self.lines[kind][index].pending) {
            self.signal(kind, index);
        }
    }

    pub(super) fn operate(&mut self, input: &mut Unstructured<'_>) -> Result<()> {
        let code: u8 = input.arbitrary()?;
        let which = usize::from(code >> 6);
        let kind = KINDS[which];
        let vectors = COUNTS[which];
        // Mostly ranges that fit; the others must be refused without any effect.
        let start = match code >> 3 & 7 {
            0..=5 => u32::from(code >> 3 & 7) % vectors,
            6 => vectors,
            _ => input.arbitrary()?,
        };
        let count = match code & 7 {
            0 | 1 | 5.. => input.int_in_range(0..=3)?,
            _ => 1,
        };
        let end = start.checked_add(count).filter(|&end| end <= vectors);
        let range = end.map(|end| start as usize..end as usize);
        match code & 7 {
            0 | 5 => {
                let chosen: Vec<Option<usize>> = (0..count)
                    .map(|_| Ok(usize::from(input.int_in_range(0..=3u8)?).checked_sub(1)))
                    .collect::<Result<_>>()?;
                let event = |event: Option<usize>| event.map(|at| Arc::clone(&self.events[at]));
                let events = chosen.iter().copied().map(event).collect();
                let result = self.interrupts.install(kind, start, events);
                assert_eq!(result.is_ok(), range.is_some());
                for (index, event) in range.unwrap_or_default().zip(chosen) {
                    self.lines[which][index].event = event;
                    if event.is_some() {
                        self.deliver(which, index);
                    }
                }
            }
            1 | 6 => {
                let masked = input.arbitrary()?;
                let result = self.interrupts.set_mask(kind, start, count, masked);
                assert_eq!(result.is_ok(), range.is_some());
                for index in range.unwrap_or_default() {
                    self.lines[which][index].masked = masked;
                    if !masked {
                        self.deliver(which, index);
                    }
                }
            }
            2 => {
                let vector = self.interrupts.vector(kind, start);
                assert_eq!(vector.is_some(), start < vectors);
                if let Some(vector) = vector {
                    vector.signal();
                    self.signal(which, start as usize);
                }
            }
            3 => {
                self.interrupts.disable(kind);
                self.lines[which].fill(Line::default());
            }
            4 => self.check_events(),
            _ => {
                let result = self.interrupts.trigger(kind, start, count);
                assert_eq!(result.is_ok(), range.is_some());
                for index in range.unwrap_or_default() {
                    self.signal(which, index);
                }
            }
        }
        self.check_lines();
        Ok(())
    }

    fn check_lines(&self) {
        for (which, lines) in self.lines.iter().enumerate() {
            assert_eq!(self.interrupts.count(KINDS[which]), COUNTS[which]);
            for (index, line) in (0..).zip(lines) {
                let vector = self.interrupts.vector(KINDS[which], index);
                let vector = vector.expect("one of the vectors");
                let seen = (vector.is_enabled(), vector.is_pending());
                assert_eq!(seen, (line.event.is_some(), line.pending), "{line:?}");
            }
        }
    }

    fn check_events(&mut self) {
        for (event, raised) in self.events.iter().zip(&mut self.raised) {
            let mut count = [0; 8];
            let read = nix::unistd::read(event, &mut count).is_ok();
            assert_eq!(read, *raised > 0);
            assert_eq!(u64::from_ne_bytes(count), *raised);
            *raised = 0;
        }
    }

    pub(super) fn finish(mut self) {
        self.check_events();
        self.interrupts.disable_all();
        self.lines
            .iter_mut()
            .for_each(|lines| lines.fill(Line::default()));
        self.check_lines();
        for event in self.events {
            assert_eq!(Arc::strong_count(&event), 1, "a descriptor is kept");
        }
    }
}
