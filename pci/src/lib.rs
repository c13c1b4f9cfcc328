//! `pci`
