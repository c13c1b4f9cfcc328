//! The device against a fake transport.
