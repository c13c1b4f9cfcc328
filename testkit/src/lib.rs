//! `testkit`
pub mod vfio_user;
