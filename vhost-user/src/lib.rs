//! The vhost-user protocol, back-end side: serves any [`virtio::Device`] to a VMM.
#![forbid(unsafe_code)]
