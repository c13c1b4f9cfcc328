//! The disks that exist, by name; who has each for itself, and who stands on whom.

mod layers;

use std::collections::BTreeSet;
use std::fmt::{Display, Formatter};
use std::sync::{Arc, Weak};

use bdev::{Bdev, BdevInfo, SharedBdev};
use nix::errno::Errno;
use rpc::{Responder, RpcError};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::tuning::Tuning;
pub(crate) use layers::{Knob, Layer, LayerId, Recipe};

/// Which methods a disk belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Malloc,
    Null,
    Uring,
    Aio,
    Passthru,
    Error,
    Delay,
    Split,
    Gpt,
}

impl Kind {
    /// Whether such a disk is always as long as the one it stands on.
    pub(crate) fn follows_base(self) -> bool {
        matches!(self, Self::Passthru | Self::Error | Self::Delay)
    }
}

/// Who has a disk for itself: SPDK's claim of the kind "exclusive_write".
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Claim {
    /// Guests see it under this number.
    Namespace { nqn: String, nsid: u32 },
    /// Decorators stand on it.
    Module {
        /// SPDK's name of the module.
        module: &'static str,
        /// What it made of the disk, for messages: names of bdevs.
        owner: String,
    },
}

impl Claim {
    /// The subsystem, if guests see the disk as a namespace.
    pub(crate) fn nqn(&self) -> Option<&str> {
        match self {
            Self::Namespace { nqn, .. } => Some(nqn),
            Self::Module { .. } => None,
        }
    }
}

impl Display for Claim {
    /// As the end of "the disk is …".
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Namespace { nqn, nsid } => write!(f, "namespace {nsid} of {nqn}"),
            Self::Module { module, owner } => write!(f, "the base of {owner} (module {module})"),
        }
    }
}

/// Hints that `bdev_get_bdevs` shows, in blocks; zero is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Hints {
    pub(crate) preferred_write_granularity: u32,
    pub(crate) preferred_write_alignment: u32,
    pub(crate) optimal_write_size: u32,
    pub(crate) preferred_unmap_granularity: u32,
    pub(crate) preferred_unmap_alignment: u32,
}

/// A disk and what the daemon knows about it.
#[derive(Debug)]
pub(crate) struct Disk {
    pub(crate) bdev: SharedBdev,
    /// What it is called, kept here because every look-up asks.
    pub(crate) name: String,
    pub(crate) uuid: Uuid,
    pub(crate) kind: Kind,
    /// The call that makes it again: method and parameters.
    pub(crate) method: &'static str,
    pub(crate) params: Value,
    pub(crate) hints: Hints,
    pub(crate) claim: Option<Claim>,
    /// The disk it stands on.
    pub(crate) base: Option<String>,
    /// The request that made it, for a decorator that was asked for.
    pub(crate) layer: Option<LayerId>,
    pub(crate) knob: Knob,
    pub(crate) tuning: Tuning,
}

impl Disk {
    fn is_called(&self, name: &str, uuid: Option<Uuid>) -> bool {
        self.name == name || uuid == Some(self.uuid)
    }

    /// Its call for a configuration, with its present size.
    pub(crate) fn to_call(&self) -> Value {
        let mut params = self.params.clone();
        if let Some(blocks) = params.get_mut("num_blocks") {
            *blocks = self.bdev.info().num_blocks.into();
        }
        json!({"method": self.method, "params": params})
    }

    /// The calls that set again what was set about it, which follow the one that makes it.
    pub(crate) fn settings(&self) -> Vec<Value> {
        self.tuning.calls(&self.name)
    }
}

/// Somebody waits for a disk to appear.
struct Waiting {
    id: u64,
    name: String,
    responder: Responder,
}

/// All disks, in the order of creation.
#[derive(Default)]
pub(crate) struct Disks {
    disks: Vec<Disk>,
    /// Names and UUIDs of disks that are being made or are on their way out.
    reserved: BTreeSet<String>,
    waiting: Vec<Waiting>,
    last_waiting: u64,
    /// Decorators that were asked for, whether their bases exist or not.
    layers: Vec<Layer>,
    last_layer: u64,
    /// Disks to examine although that is not done by itself (`bdev_examine`).
    pub(crate) to_examine: Vec<String>,
}

fn no_such(name: &str) -> RpcError {
    RpcError::errno(Errno::ENODEV, format!("there is no bdev `{name}`"))
}

fn exists(name: &str) -> RpcError {
    RpcError::errno(
        Errno::EEXIST,
        format!("a bdev with the name or UUID `{name}` exists already"),
    )
}

/// Whether this is a disk's name or UUID.
pub(crate) fn is_called(info: &BdevInfo, name: &str) -> bool {
    info.name == name || crate::nvmf::parse_uuid(name) == Some(info.uuid)
}

impl Disks {
    /// All, in the order of creation.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Disk> {
        self.disks.iter()
    }

    /// The disk with this name or UUID.
    ///
    /// # Errors
    /// `-ENODEV`.
    pub(crate) fn find(&self, name: &str) -> Result<&Disk, RpcError> {
        let uuid = crate::nvmf::parse_uuid(name);
        let mut disks = self.disks.iter();
        disks
            .find(|disk| disk.is_called(name, uuid))
            .ok_or_else(|| no_such(name))
    }

    /// As [`Disks::find`], to change what is known about it.
    pub(crate) fn find_mut(&mut self, name: &str) -> Result<&mut Disk, RpcError> {
        let uuid = crate::nvmf::parse_uuid(name);
        let mut disks = self.disks.iter_mut();
        disks
            .find(|disk| disk.is_called(name, uuid))
            .ok_or_else(|| no_such(name))
    }

    /// The disk with this name if it is of this kind.
    ///
    /// # Errors
    /// `-ENODEV`, also for a disk of another kind (as SPDK).
    pub(crate) fn find_kind(&self, name: &str, kind: Kind) -> Result<&Disk, RpcError> {
        let disk = self.find(name)?;
        if disk.kind == kind {
            return Ok(disk);
        }
        let reason = format!(
            "`{name}` is a {}, made by {}: use the methods of that kind",
            disk.bdev.info().product_name,
            disk.method
        );
        Err(RpcError::errno(Errno::ENODEV, reason))
    }

    /// Keeps a name (or UUID) for a disk that is being made.
    ///
    /// # Errors
    /// `-EEXIST`.
    pub(crate) fn reserve(&mut self, name: &str) -> Result<(), RpcError> {
        if self.find(name).is_ok() || !self.reserved.insert(name.to_owned()) {
            return Err(exists(name));
        }
        Ok(())
    }

    /// Lets go of a name.
    pub(crate) fn release(&mut self, name: &str) {
        self.reserved.remove(name);
    }

    /// A name that is free: the prefix and the first number.
    pub(crate) fn free_name(&self, prefix: &str) -> String {
        let is_free = |name: &String| self.find(name).is_err() && !self.reserved.contains(name);
        let mut names = (0u64..).map(|number| format!("{prefix}{number}"));
        names.find(is_free).unwrap_or_default()
    }

    /// Adds a disk whose name is reserved or was never known.
    ///
    /// # Errors
    /// `-EEXIST` if its name or UUID is taken.
    pub(crate) fn add(&mut self, disk: Disk) -> Result<(), RpcError> {
        let uuid = disk.uuid.hyphenated().to_string();
        for name in [&disk.name, &uuid] {
            if self.find(name).is_ok() {
                return Err(exists(name));
            }
        }
        if self.reserved.contains(&uuid) {
            return Err(exists(&uuid));
        }
        self.disks.push(disk);
        Ok(())
    }

    /// Takes a disk out, but keeps its name and UUID until they are [released](Self::release).
    pub(crate) fn take(&mut self, name: &str) -> Result<Disk, RpcError> {
        let uuid = crate::nvmf::parse_uuid(name);
        let mut disks = self.disks.iter();
        let at = disks
            .position(|disk| disk.is_called(name, uuid))
            .ok_or_else(|| no_such(name))?;
        let disk = self.disks.remove(at);
        self.reserved.insert(disk.name.clone());
        self.reserved.insert(disk.uuid.hyphenated().to_string());
        Ok(disk)
    }

    /// Lets go of the name and the UUID of a disk that is no more.
    pub(crate) fn release_names(&mut self, disk: &Disk) {
        self.release(&disk.name);
        self.release(&disk.uuid.hyphenated().to_string());
    }

    /// Ends the claim of decorators on a disk, unless one still stands there.
    pub(crate) fn release_module_claim(&mut self, base: &str) {
        if !self.children(base).is_empty() {
            return;
        }
        if let Some(disk) = self.disks.iter_mut().find(|disk| disk.name == base)
            && matches!(disk.claim, Some(Claim::Module { .. }))
        {
            disk.claim = None;
        }
    }

    /// Ends a namespace's claim to a disk, if it still has it.
    pub(crate) fn release_claim(&mut self, bdev: &Weak<dyn Bdev>, claim: &Claim) {
        for disk in &mut self.disks {
            let is_same = Weak::ptr_eq(&Arc::downgrade(&disk.bdev), bdev);
            if is_same && disk.claim.as_ref() == Some(claim) {
                disk.claim = None;
            }
        }
    }

    /// Ends all claims of a subsystem that is gone.
    pub(crate) fn release_claims(&mut self, nqn: &str) {
        for disk in &mut self.disks {
            if disk.claim.as_ref().and_then(Claim::nqn) == Some(nqn) {
                disk.claim = None;
            }
        }
    }

    /// The names of the disks that stand directly on this one.
    pub(crate) fn children(&self, name: &str) -> Vec<String> {
        let above = self
            .disks
            .iter()
            .filter(|it| it.base.as_deref() == Some(name));
        above.map(|it| it.name.clone()).collect()
    }

    /// What is at the bottom under a disk: itself if it stands on none.
    pub(crate) fn root<'a>(&'a self, disk: &'a Disk) -> &'a Disk {
        let below = disk.base.as_deref().and_then(|base| self.find(base).ok());
        below.map_or(disk, |base| self.root(base))
    }

    /// Keeps a call until a disk of that name appears; gives a number to take it back with.
    pub(crate) fn wait_for(&mut self, name: String, responder: Responder) -> u64 {
        self.last_waiting += 1;
        let id = self.last_waiting;
        self.waiting.push(Waiting {
            id,
            name,
            responder,
        });
        id
    }

    /// Takes a waiting call back, if it is still waiting.
    pub(crate) fn give_up(&mut self, id: u64) -> Option<Responder> {
        let at = self.waiting.iter().position(|waiting| waiting.id == id)?;
        Some(self.waiting.remove(at).responder)
    }

    /// Lets go of all calls that wait: no disk will come any more.
    pub(crate) fn abandon(&mut self) {
        self.waiting.clear();
    }

    /// The calls that waited for this disk.
    pub(crate) fn take_waiting(&mut self, info: &BdevInfo) -> Vec<Responder> {
        let (found, rest) = std::mem::take(&mut self.waiting)
            .into_iter()
            .partition(|waiting| is_called(info, &waiting.name));
        self.waiting = rest;
        found
            .into_iter()
            .map(|waiting: Waiting| waiting.responder)
            .collect()
    }
}
