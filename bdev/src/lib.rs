//! `bdev`
