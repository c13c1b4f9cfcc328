//! What is set up for each way to attach a disk, and how a guest gets at it.

use std::path::Path;

use serde_json::{Value, json};
use uuid::Uuid;

use crate::cli::Attach;

/// A call that sets something up.
pub(super) type Call = (&'static str, Value);

impl Attach {
    /// Name of the directory for its sockets where none is given.
    pub(super) fn directory(self) -> &'static str {
        match self {
            Self::Nvme => "nvme0",
            Self::Virtio => "virtio0",
            Self::Vhost => "vhost0",
        }
    }

    /// The calls that expose these bdevs in a directory.
    pub(super) fn calls(self, directory: &Path, bdevs: &[String]) -> Vec<Call> {
        match self {
            Self::Nvme => nvme(directory, bdevs),
            Self::Virtio => {
                let base = ("vfu_tgt_set_base_path", json!({ "path": directory }));
                let endpoints = bdevs.iter().map(|name| {
                    let params = json!({"name": name, "bdev_name": name});
                    ("vfu_virtio_create_blk_endpoint", params)
                });
                std::iter::once(base).chain(endpoints).collect()
            }
            // The directory for vhost-user sockets is no matter of calls: see `Quick::prepare`.
            Self::Vhost => {
                let controllers = bdevs.iter().map(|name| {
                    let params = json!({"ctrlr": name, "dev_name": name});
                    ("vhost_create_blk_controller", params)
                });
                controllers.collect()
            }
        }
    }

    /// Whether the calls need the NVMe transport.
    pub(super) fn needs_transport(self) -> bool {
        self == Self::Nvme
    }

    /// QEMU's arguments that attach the bdevs.
    pub(super) fn devices(self, directory: &Path, bdevs: &[String]) -> Vec<String> {
        let pci = |socket: &str| {
            let path = directory.join(socket);
            let device = json!({
                "driver": "vfio-user-pci",
                "socket": {"type": "unix", "path": path},
            });
            format!("-device '{device}'")
        };
        match self {
            Self::Nvme => vec![pci("cntrl")],
            Self::Virtio => bdevs.iter().map(|name| pci(name)).collect(),
            Self::Vhost => {
                let devices = bdevs.iter().map(|name| {
                    let path = directory.join(name);
                    format!(
                        "-chardev socket,id={name},path={},reconnect-ms=1000 -device vhost-user-blk-pci,chardev={name}",
                        path.display()
                    )
                });
                devices.collect()
            }
        }
    }

    /// The oldest QEMU that knows the arguments.
    pub(super) fn qemu(self) -> &'static str {
        match self {
            Self::Nvme | Self::Virtio => "10.1",
            Self::Vhost => "9.2",
        }
    }
}

fn nvme(directory: &Path, bdevs: &[String]) -> Vec<Call> {
    // The same place has the same name after a restart, so guests recognise the disk.
    let place = directory.as_os_str().as_encoded_bytes();
    let subsystem = Uuid::new_v5(&Uuid::NAMESPACE_URL, place);
    let nqn = format!("nqn.2014-08.org.nvmexpress:uuid:{subsystem}");
    let params = json!({
        "nqn": nqn, "allow_any_host": true, "serial_number": serial(&subsystem), "enable_nssr": true,
        "max_namespaces": bdevs.len().max(32),
    });
    let mut calls = vec![("nvmf_create_subsystem", params)];
    for name in bdevs {
        let params = json!({"nqn": nqn, "namespace": {"bdev_name": name}});
        calls.push(("nvmf_subsystem_add_ns", params));
    }
    let address = json!({"trtype": "VFIOUSER", "traddr": directory, "trsvcid": "0"});
    let params = json!({"nqn": nqn, "listen_address": address});
    calls.push(("nvmf_subsystem_add_listener", params));
    calls
}

/// At most 20 characters that differ between places.
fn serial(uuid: &Uuid) -> String {
    let text = uuid.simple().to_string();
    format!("VT{}", &text[..16])
}
