//! The registers of BAR0 below the doorbells (Base 2.0c, 3.1.3; PCIe Transport 1.0, 3.1).
//!
//! Every access is cut into aligned dwords, so a 64-bit register may be accessed whole or in halves, and a burst
//! over several registers works. Anything else (bytes, words, odd offsets) is undefined by the specification: here it reads
//! zeroes and writes nothing.

use nvme_spec::registers::{Aqa, Cap, Cc, Crms, Crto, CssSupport, Csts, NSSR_RESET, Version};

use crate::config::ControllerConfig;
use crate::state::{Clear, Event, State};

/// Largest memory page size offered, as CAP.MPSMAX: 64 KiB.
pub(crate) const MPSMAX: u8 = 4;
/// CAP.TO and CRTO.CRWMT in units of 500 ms: 15 s, for a disable that has to wait for slow disks.
const TIMEOUT: u8 = 30;

/// Offsets of registers' dwords.
mod offset {
    pub(super) const CAP: u64 = 0x00;
    pub(super) const CAP_HIGH: u64 = 0x04;
    pub(super) const VS: u64 = 0x08;
    pub(super) const INTMS: u64 = 0x0c;
    pub(super) const INTMC: u64 = 0x10;
    pub(super) const CC: u64 = 0x14;
    pub(super) const CSTS: u64 = 0x1c;
    pub(super) const NSSR: u64 = 0x20;
    pub(super) const AQA: u64 = 0x24;
    pub(super) const ASQ: u64 = 0x28;
    pub(super) const ASQ_HIGH: u64 = 0x2c;
    pub(super) const ACQ: u64 = 0x30;
    pub(super) const ACQ_HIGH: u64 = 0x34;
    pub(super) const CRTO: u64 = 0x68;
}

/// Bits 11:0 of ASQ and ACQ are reserved.
const ADDRESS: u64 = !0xfff;

/// What a register write asks for beyond being stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Request {
    /// A step of the state machine.
    Step(Event),
    /// The interrupt mask changed.
    InterruptMask,
}

/// The registers that are plain storage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Registers {
    cap: Cap,
    /// INTMS and INTMC: set bits mask their vector (pin-based interrupts only).
    pub(crate) interrupt_mask: u32,
    /// Admin queue sizes.
    pub(crate) aqa: Aqa,
    /// Admin submission queue base address.
    pub(crate) asq: u64,
    /// Admin completion queue base address.
    pub(crate) acq: u64,
}

fn low(value: u64) -> u32 {
    (value & 0xffff_ffff) as u32
}

fn high(value: u64) -> u32 {
    (value >> 32) as u32
}

fn with_low(value: u64, dword: u32) -> u64 {
    (value & !0xffff_ffff) | u64::from(dword)
}

fn with_high(value: u64, dword: u32) -> u64 {
    u64::from(low(value)) | u64::from(dword) << 32
}

impl Registers {
    /// After power-on.
    pub(crate) fn new(config: &ControllerConfig) -> Self {
        let entries = config.max_queue_depth.clamp(2, 1 << 16);
        let cap = Cap::new()
            .with_mqes_z(u16::try_from(entries - 1).unwrap_or(u16::MAX))
            .with_cqr(true)
            .with_to(TIMEOUT)
            .with_nssrs(config.nssr)
            .with_css(CssSupport::new().with_nvm(true))
            .with_mpsmax(MPSMAX)
            .with_crms(Crms::new().with_crwms(true));
        Self {
            cap,
            interrupt_mask: 0,
            aqa: Aqa::new(),
            asq: 0,
            acq: 0,
        }
    }

    /// The capabilities.
    pub(crate) fn cap(&self) -> Cap {
        self.cap
    }

    /// Takes back what a reset takes back.
    pub(crate) fn clear(&mut self, clear: Clear) {
        if clear != Clear::Nothing {
            self.interrupt_mask = 0;
        }
        if clear == Clear::Everything {
            (self.aqa, self.asq, self.acq) = (Aqa::new(), 0, 0);
        }
    }

    /// Reads.
    pub(crate) fn read(&self, state: &State, offset: u64, data: &mut [u8]) {
        data.fill(0);
        if !is_dwords(offset, data.len()) {
            return;
        }
        for (at, dword) in (offset..).step_by(4).zip(data.chunks_exact_mut(4)) {
            dword.copy_from_slice(&self.read_dword(state, at).to_le_bytes());
        }
    }

    fn read_dword(&self, state: &State, offset: u64) -> u32 {
        match offset {
            offset::CAP => low(self.cap.into_bits()),
            offset::CAP_HIGH => high(self.cap.into_bits()),
            offset::VS => Version::V2_0.into_bits(),
            offset::INTMS | offset::INTMC => self.interrupt_mask,
            offset::CC => state.cc().into_bits(),
            offset::CSTS => state.csts().into_bits(),
            offset::AQA => self.aqa.into_bits(),
            offset::ASQ => low(self.asq),
            offset::ASQ_HIGH => high(self.asq),
            offset::ACQ => low(self.acq),
            offset::ACQ_HIGH => high(self.acq),
            offset::CRTO => Crto::new().with_crwmt(u16::from(TIMEOUT)).into_bits(),
            _ => 0,
        }
    }

    /// Writes one dword; what it asks for. Reserved bits, read-only and absent registers are left alone.
    pub(crate) fn write_dword(
        &mut self,
        state: &State,
        offset: u64,
        value: u32,
    ) -> Option<Request> {
        // Changing the admin queues under an enabled controller is undefined; their first value stays.
        let writable = !state.cc().en();
        match offset {
            offset::INTMS => {
                self.interrupt_mask |= value;
                return Some(Request::InterruptMask);
            }
            offset::INTMC => {
                self.interrupt_mask &= !value;
                return Some(Request::InterruptMask);
            }
            offset::CC => return Some(Request::Step(Event::Configure(Cc::from_bits(value)))),
            offset::CSTS => {
                let csts = Csts::from_bits(value);
                return Some(Request::Step(Event::AcknowledgeStatus(csts)));
            }
            offset::NSSR if value == NSSR_RESET && self.cap.nssrs() => {
                return Some(Request::Step(Event::SubsystemReset));
            }
            offset::AQA if writable => {
                let aqa = Aqa::from_bits(value);
                self.aqa = Aqa::new()
                    .with_asqs_z(aqa.asqs_z())
                    .with_acqs_z(aqa.acqs_z());
            }
            offset::ASQ if writable => self.asq = with_low(self.asq, value) & ADDRESS,
            offset::ASQ_HIGH if writable => self.asq = with_high(self.asq, value),
            offset::ACQ if writable => self.acq = with_low(self.acq, value) & ADDRESS,
            offset::ACQ_HIGH if writable => self.acq = with_high(self.acq, value),
            _ => {}
        }
        None
    }
}

/// Whether an access is made of whole aligned dwords.
pub(crate) fn is_dwords(offset: u64, len: usize) -> bool {
    offset.is_multiple_of(4) && len.is_multiple_of(4)
}

/// The dwords of a write, with their offsets; nothing if it is not made of whole aligned dwords.
pub(crate) fn dwords(offset: u64, data: &[u8]) -> impl Iterator<Item = (u64, u32)> + '_ {
    let data = if is_dwords(offset, data.len()) {
        data
    } else {
        &[]
    };
    let offsets = (0..).map(move |index: u64| offset.saturating_add(index * 4));
    offsets
        .zip(data.as_chunks::<4>().0)
        .map(|(at, dword)| (at, u32::from_le_bytes(*dword)))
}

#[cfg(test)]
mod tests;
