//! `reactor`
