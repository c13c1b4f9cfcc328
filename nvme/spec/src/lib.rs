//! The wire types and constants of NVM Express that an I/O controller and a driver share.
//!
//! Revision: [NVM Express Base Specification 2.0c], [NVM Command Set Specification 1.0], [NVMe over
//! PCIe Transport Specification 1.0]. "Base 2.0c, 3.1.3.1" in an item's documentation is a section
//! of the first; where no document is named, it is the one the module names.
//!
//! Conventions:
//! - Names are the specification's own. A field that holds one less than its meaning ("0's based")
//!   ends in `_z`.
//! - A value a peer chooses is an open enumeration: a newtype with named constants, so an unnamed
//!   value is kept, never undefined behaviour.
//! - Structures in memory are `#[repr(C)]` with plain integers in the order of bytes of the wire
//!   (little endian; other targets do not compile), sizes proven at compile time. Copy them by
//!   value with `zerocopy`'s `FromBytes` and `IntoBytes`; start one with `FromZeros::new_zeroed`.
//! - Registers and command dwords are newtypes over their integer: `from_bits`, `into_bits`, and per
//!   field a getter, `with_field` and `set_field`. Reserved bits are kept as they came. The
//!   `with_` and `set_` of a field narrower than its type truncate (debug builds panic), so they are
//!   for values of one's own; getters never panic.
//!
//! It has no behaviour: nothing here decides whether a value is acceptable.
//!
//! [NVM Express Base Specification 2.0c]: https://nvmexpress.org/wp-content/uploads/NVM-Express-Base-Specification-2.0c-2022.10.04-Ratified.pdf
//! [NVM Command Set Specification 1.0]: https://nvmexpress.org/wp-content/uploads/NVM-Express-NVM-Command-Set-Specification-1.0c-2022.10.03-Ratified.pdf
//! [NVMe over PCIe Transport Specification 1.0]: https://nvmexpress.org/wp-content/uploads/NVM-Express-PCIe-Transport-Specification-1.0c-2022.10.03-Ratified.pdf

#![no_std]
#![forbid(unsafe_code)]

#[cfg(target_endian = "big")]
compile_error!("nvme-spec keeps wire structures in native order, which must be little endian");

#[cfg(test)]
#[macro_use]
extern crate std;

pub mod command;
mod cqe;
pub mod event;
pub mod feature;
pub mod identify;
mod le128;
pub mod log;
mod opcode;
mod open_enum;
pub mod registers;
mod sgl;
mod sqe;
mod status;

pub use cqe::Cqe;
pub use le128::Le128;
pub use opcode::{AdminOpcode, DataTransfer, NvmOpcode};
pub use sgl::{SglDescriptor, SglIdentifier, SglSubtype, SglType};
pub use sqe::{Cdw0, Dptr, Fuse, Psdt, Sqe};
pub use status::{Status, StatusCodeType};

/// The namespace identifier that stands for all namespaces (Base 2.0c, 3.2.1.2).
pub const NSID_ALL: u32 = 0xFFFF_FFFF;

/// The admin queues' identifier (Base 2.0c, 3.3).
pub const ADMIN_QID: u16 = 0;
