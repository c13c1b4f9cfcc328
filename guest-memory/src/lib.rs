//! `guest-memory`
