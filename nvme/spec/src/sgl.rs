//! Scatter gather list descriptors (Base 2.0c, section 4.1.2).

use bitfield_struct::bitfield;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::open_enum::{open_enum, wire_struct};

open_enum! {
    /// SGL Descriptor Type (Base 2.0c, 4.1.2, figure "SGL Descriptor Type").
    pub enum SglType: u8 {
        /// Data Block: one contiguous buffer.
        DATA_BLOCK = 0x0,
        /// Bit Bucket: data from the controller to be dropped.
        BIT_BUCKET = 0x1,
        /// Segment: the next list of descriptors, not the last one.
        SEGMENT = 0x2,
        /// Last Segment: the next and last list of descriptors.
        LAST_SEGMENT = 0x3,
        /// Keyed Data Block (fabrics).
        KEYED_DATA_BLOCK = 0x4,
        /// Transport Data Block (fabrics).
        TRANSPORT_DATA_BLOCK = 0x5,
        /// Vendor specific.
        VENDOR_SPECIFIC = 0xF,
    }
}

open_enum! {
    /// SGL Descriptor Sub Type (Base 2.0c, 4.1.2, figure "SGL Descriptor Sub Type Values").
    pub enum SglSubtype: u8 {
        /// The address field is a memory address.
        ADDRESS = 0x0,
        /// The address field is an offset (fabrics in-capsule data).
        OFFSET = 0x1,
        /// First of the values a transport defines (Ah to Fh).
        TRANSPORT_FIRST = 0xA,
    }
}

/// Byte 15 of a descriptor: SGL Identifier (Base 2.0c, 4.1.2).
#[bitfield(u8)]
#[derive(PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct SglIdentifier {
    /// SGL Descriptor Sub Type, bits 3:0.
    #[bits(4)]
    pub subtype: SglSubtype,
    /// SGL Descriptor Type, bits 7:4.
    #[bits(4)]
    pub sgl_type: SglType,
}

wire_struct! {
    /// One SGL descriptor in the form of the Data Block, Bit Bucket, Segment and Last Segment types
    /// (Base 2.0c, 4.1.2). The keyed type of fabrics lays bytes 8 to 14 out differently and is not
    /// modelled.
    #[derive(Copy)]
    pub struct SglDescriptor[16] {
        /// Bytes 7:0: address of the data or of the next segment (reserved in a Bit Bucket).
        pub address: u64,
        /// Bytes 11:8: length in bytes.
        pub length: u32,
        _rsvd12: [u8; 3],
        /// Byte 15: what the descriptor is.
        pub id: SglIdentifier,
    }
}

impl SglDescriptor {
    /// A descriptor of `sgl_type` with subtype Address.
    #[must_use]
    pub const fn new(sgl_type: SglType, address: u64, length: u32) -> Self {
        let id = SglIdentifier::new()
            .with_sgl_type(sgl_type)
            .with_subtype(SglSubtype::ADDRESS);
        Self {
            address,
            length,
            _rsvd12: [0; 3],
            id,
        }
    }
}

#[cfg(test)]
mod tests {
    use core::mem::offset_of;

    use super::*;

    #[test]
    fn layout() {
        assert_eq!(offset_of!(SglDescriptor, length), 8);
        assert_eq!(offset_of!(SglDescriptor, id), 15);
        let d = SglDescriptor::new(SglType::LAST_SEGMENT, 0x1122_3344_5566_7788, 32);
        assert_eq!(d.as_bytes()[0], 0x88);
        assert_eq!(d.as_bytes()[8], 32);
        assert_eq!(d.as_bytes()[15], 0x30);
    }

    #[test]
    fn unnamed_type_is_kept() {
        let id = SglIdentifier::from_bits(0xA7);
        assert_eq!(id.sgl_type(), SglType(0xA));
        assert_eq!(id.subtype(), SglSubtype(0x7));
        assert_eq!(id.into_bits(), 0xA7);
    }
}
