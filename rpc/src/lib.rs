//! `rpc`
