//! Disks from the command line, and the RAM disk for people who try things out: one endpoint with one namespace per disk.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::cli::ServeArgs;

/// Size of the RAM disk that comes up by itself.
const DEMO_BYTES: u64 = 64 << 20;
/// Block size where a file or RAM leaves the choice.
const BLOCK: u64 = 512;

/// What to expose where.
pub(super) struct Quick {
    disks: Vec<Disk>,
    directory: PathBuf,
    /// Made by us, so it goes with us.
    made: bool,
}

enum Disk {
    Ram(u64),
    File { path: PathBuf, is_device: bool },
}

impl Quick {
    /// Looks at the disks and makes the endpoint's directory.
    ///
    /// # Errors
    /// A disk is not there, or the directory cannot be made.
    pub(super) fn prepare(args: &ServeArgs) -> anyhow::Result<Option<Self>> {
        if !args.wants_disks() && !args.wants_demo() {
            return Ok(None);
        }
        let mut disks: Vec<Disk> = args.ram.iter().map(|bytes| Disk::Ram(*bytes)).collect();
        if args.wants_demo() {
            disks.push(Disk::Ram(DEMO_BYTES));
        }
        for path in &args.disk {
            disks.push(look_at(path)?);
        }
        let (directory, made) = match &args.endpoint {
            Some(directory) => (directory.clone(), make(directory)?),
            None => default_directory()?,
        };
        Ok(Some(Self {
            disks,
            directory,
            made,
        }))
    }

    /// The calls that set it up.
    pub(super) fn calls(&self) -> Vec<(&'static str, Value)> {
        // The same place has the same name after a restart, so guests recognise the disk.
        let place = self.directory.as_os_str().as_encoded_bytes();
        let subsystem = Uuid::new_v5(&Uuid::NAMESPACE_URL, place);
        let nqn = format!("nqn.2014-08.org.nvmexpress:uuid:{subsystem}");
        let (mut ram, mut file) = (0, 0);
        let mut bdevs = Vec::new();
        let mut calls = Vec::new();
        for disk in &self.disks {
            let name = match disk {
                Disk::Ram(bytes) => {
                    let name = format!("Malloc{ram}");
                    ram += 1;
                    let params =
                        json!({"name": name, "block_size": BLOCK, "num_blocks": bytes / BLOCK});
                    calls.push(("bdev_malloc_create", params));
                    name
                }
                Disk::File { path, is_device } => {
                    let name = format!("Disk{file}");
                    file += 1;
                    let mut params = json!({"name": name, "filename": path});
                    if !is_device {
                        params["block_size"] = BLOCK.into();
                    }
                    calls.push(("bdev_uring_create", params));
                    name
                }
            };
            bdevs.push(name);
        }
        let subsystem = json!({
            "nqn": nqn, "allow_any_host": true, "serial_number": serial(&subsystem), "enable_nssr": true,
            "max_namespaces": bdevs.len().max(32),
        });
        calls.push(("nvmf_create_subsystem", subsystem));
        for name in bdevs {
            let params = json!({"nqn": nqn, "namespace": {"bdev_name": name}});
            calls.push(("nvmf_subsystem_add_ns", params));
        }
        let address = json!({"trtype": "VFIOUSER", "traddr": self.directory, "trsvcid": "0"});
        let params = json!({"nqn": nqn, "listen_address": address});
        calls.push(("nvmf_subsystem_add_listener", params));
        calls
    }

    /// How to use it.
    pub(super) fn advice(&self) -> String {
        let disks: Vec<String> = self.disks.iter().map(Disk::to_text).collect();
        let socket = self.directory.join("cntrl");
        let device = json!({
            "driver": "vfio-user-pci",
            "socket": {"type": "unix", "path": socket},
        });
        format!(
            "Exposed at {}: {}. Attach it with QEMU 10.1 or newer (add your guest's own disk or kernel):\n\n\
             qemu-system-x86_64 -machine q35,memory-backend=mem -accel kvm -accel tcg -cpu max -m 1G -nographic \\\n  \
             -object memory-backend-memfd,id=mem,size=1G,share=on \\\n  \
             -device '{device}'\n",
            socket.display(),
            disks.join(", "),
        )
    }
}

impl Drop for Quick {
    fn drop(&mut self) {
        if self.made {
            // Stays if something else was put there.
            let _ = std::fs::remove_dir(&self.directory);
        }
    }
}

impl Disk {
    fn to_text(&self) -> String {
        match self {
            Self::Ram(bytes) if bytes % (1 << 20) == 0 => {
                format!("a RAM disk of {} MiB", bytes >> 20)
            }
            Self::Ram(bytes) => format!("a RAM disk of {bytes} bytes"),
            Self::File { path, .. } => path.display().to_string(),
        }
    }
}

/// At most 20 characters that differ between places.
fn serial(uuid: &Uuid) -> String {
    let text = uuid.simple().to_string();
    format!("VT{}", &text[..16])
}

fn look_at(path: &Path) -> anyhow::Result<Disk> {
    use std::os::unix::fs::FileTypeExt;
    let metadata = std::fs::metadata(path).with_context(|| {
        format!(
            "--disk {0}: create it first (truncate -s 10G {0})",
            path.display()
        )
    })?;
    let path = std::path::absolute(path)?;
    let is_device = metadata.file_type().is_block_device();
    Ok(Disk::File { path, is_device })
}

/// Makes a directory and what is above it; whether it was missing.
fn make(directory: &Path) -> anyhow::Result<bool> {
    if directory.is_dir() {
        return Ok(false);
    }
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)
        .with_context(|| {
            format!(
                "the endpoint's directory {} cannot be made",
                directory.display()
            )
        })?;
    Ok(true)
}

/// The first place that can be written to. Under /tmp everybody could have made the directory, so there it must be ours.
fn default_directory() -> anyhow::Result<(PathBuf, bool)> {
    let runtime = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
    let places = std::iter::once(PathBuf::from("/run")).chain(runtime);
    for place in places {
        let directory = place.join("vtarget/nvme0");
        let usable = make(&directory).ok().filter(|_| is_writable(&directory));
        if let Some(made) = usable {
            return Ok((directory, made));
        }
    }
    let uid = nix::unistd::geteuid();
    let parent = PathBuf::from(format!("/tmp/vtarget-{uid}"));
    let directory = parent.join("nvme0");
    let made = make(&directory)?;
    let owner = std::os::unix::fs::MetadataExt::uid(&std::fs::symlink_metadata(&parent)?);
    if owner != uid.as_raw() {
        bail!(
            "{} belongs to somebody else: choose another place with --endpoint",
            parent.display()
        );
    }
    Ok((directory, made))
}

fn is_writable(directory: &Path) -> bool {
    nix::unistd::access(directory, nix::unistd::AccessFlags::W_OK).is_ok()
}
