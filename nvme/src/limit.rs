//! Log lines that a guest can cause, kept from becoming a flood.

pub(crate) use reactor::{LogLimit, guest_warn};
