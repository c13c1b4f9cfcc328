//! `nvme`
