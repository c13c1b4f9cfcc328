//! `vfio-user`
