//! Disks from the command line, and the RAM disk for people who try things out: one NVMe endpoint with one namespace per disk,
//! or one virtio-blk endpoint per disk.

mod attach;

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use serde_json::{Value, json};

use crate::cli::{Attach, ServeArgs};

/// Size of the RAM disk that comes up by itself.
const DEMO_BYTES: u64 = 64 << 20;
/// Block size where a file or RAM leaves the choice.
const BLOCK: u64 = 512;

/// What to expose where.
pub(super) struct Quick {
    disks: Vec<Disk>,
    attach: Attach,
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
        let attach = args.attach.unwrap_or_default();
        if args.endpoint.is_some() && args.vhost_dir.is_some() && attach == Attach::Vhost {
            bail!("--endpoint and -S both say where vhost-user sockets are made: give one of them");
        }
        // -S is for all sockets that are named by their endpoint, as in SPDK.
        let place = match attach {
            Attach::Nvme => args.endpoint.as_ref(),
            Attach::Virtio | Attach::Vhost => args.endpoint.as_ref().or(args.vhost_dir.as_ref()),
        };
        let (directory, made) = match place {
            Some(directory) => (std::path::absolute(directory)?, make(directory)?),
            None => default_directory(attach.directory())?,
        };
        Ok(Some(Self {
            disks,
            attach,
            directory,
            made,
        }))
    }

    /// Where the vhost-user sockets are to be made, if this makes some.
    pub(super) fn vhost_dir(&self) -> Option<&Path> {
        (self.attach == Attach::Vhost).then_some(self.directory.as_path())
    }

    /// Whether the calls need the NVMe transport.
    pub(super) fn needs_transport(&self) -> bool {
        self.attach.needs_transport()
    }

    /// The calls that set it up.
    pub(super) fn calls(&self) -> Vec<(&'static str, Value)> {
        let names = self.names();
        let disks = self
            .disks
            .iter()
            .zip(&names)
            .map(|(disk, name)| match disk {
                Disk::Ram(bytes) => (
                    "bdev_malloc_create",
                    json!({"name": name, "block_size": BLOCK, "num_blocks": bytes / BLOCK}),
                ),
                Disk::File { path, is_device } => {
                    let mut params = json!({"name": name, "filename": path});
                    if !is_device {
                        params["block_size"] = BLOCK.into();
                    }
                    ("bdev_uring_create", params)
                }
            });
        let exposed = self.attach.calls(&self.directory, &names);
        disks.chain(exposed).collect()
    }

    /// What the disks are called.
    fn names(&self) -> Vec<String> {
        let (mut ram, mut file) = (0.., 0..);
        let names = self.disks.iter().map(|disk| match disk {
            Disk::Ram(_) => format!("Malloc{}", ram.next().unwrap_or(0)),
            Disk::File { .. } => format!("Disk{}", file.next().unwrap_or(0)),
        });
        names.collect()
    }

    /// How to use it.
    pub(super) fn advice(&self) -> String {
        let disks: Vec<String> = self.disks.iter().map(Disk::to_text).collect();
        let names = self.names();
        let place = match self.attach {
            Attach::Nvme => self.directory.join("cntrl").display().to_string(),
            Attach::Virtio | Attach::Vhost => {
                format!("{}/{{{}}}", self.directory.display(), names.join(","))
            }
        };
        let place = match names.as_slice() {
            [name] => place.replace(&format!("{{{name}}}"), name),
            _ => place,
        };
        format!(
            "Exposed at {place}: {}. Attach it with QEMU {} or newer (add your guest's own disk or kernel):\n\n\
             qemu-system-x86_64 -machine q35,memory-backend=mem -accel kvm -accel tcg -cpu max -m 1G -nographic \\\n  \
             -object memory-backend-memfd,id=mem,size=1G,share=on \\\n  \
             {}\n",
            disks.join(", "),
            self.attach.qemu(),
            self.attach.devices(&self.directory, &names).join(" \\\n  "),
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
fn default_directory(name: &str) -> anyhow::Result<(PathBuf, bool)> {
    let runtime = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
    let places = std::iter::once(PathBuf::from("/run")).chain(runtime);
    for place in places {
        let directory = place.join("vtarget").join(name);
        let usable = make(&directory).ok().filter(|_| is_writable(&directory));
        if let Some(made) = usable {
            return Ok((directory, made));
        }
    }
    let uid = nix::unistd::geteuid();
    let parent = PathBuf::from(format!("/tmp/vtarget-{uid}"));
    let directory = parent.join(name);
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
