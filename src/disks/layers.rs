//! Decorators as they were asked for. A decorator may be asked for before its base exists: it is remembered and appears with
//! the base. Those that SPDK remembers when their base goes away are remembered here too.

use bdev::{BdevError, SharedBdev};
use nix::errno::Errno;
use rpc::RpcError;
use serde_json::{Value, json};
use uuid::Uuid;

use super::{Disk, Disks, Kind};

/// Numbers requests over the daemon's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LayerId(u64);

/// What to make of a base.
#[derive(Clone, Debug)]
pub(crate) enum Recipe {
    Passthru { name: String, uuid: Option<Uuid> },
}

/// A decorator that was asked for.
#[derive(Clone, Debug)]
pub(crate) struct Layer {
    pub(crate) id: LayerId,
    /// Name or UUID of the base, as given.
    pub(crate) base: String,
    pub(crate) recipe: Recipe,
}

impl Recipe {
    pub(crate) fn kind(&self) -> Kind {
        match self {
            Self::Passthru { .. } => Kind::Passthru,
        }
    }

    /// SPDK's name of the module.
    pub(crate) fn module(&self) -> &'static str {
        match self {
            Self::Passthru { .. } => "passthru",
        }
    }

    pub(crate) fn method(&self) -> &'static str {
        match self {
            Self::Passthru { .. } => "bdev_passthru_create",
        }
    }

    /// The name and the identity that the operator chose, as far as he did.
    pub(crate) fn chosen(&self) -> (Option<&str>, Option<Uuid>) {
        match self {
            Self::Passthru { name, uuid } => (Some(name), *uuid),
        }
    }

    /// Whether it is still wanted when its base has gone away (as SPDK has it).
    fn outlives_base(&self) -> bool {
        match self {
            Self::Passthru { .. } => true,
        }
    }

    /// Makes the disks.
    pub(crate) fn build(&self, base: &SharedBdev) -> Result<Vec<SharedBdev>, BdevError> {
        match self {
            Self::Passthru { name, uuid } => {
                bdev::passthru::create(name, base.clone(), *uuid).map(|bdev| vec![bdev])
            }
        }
    }
}

impl Layer {
    /// The call that asks for it again; `made` is its first disk, if it has one.
    fn call(&self, made: Option<&Disk>) -> Value {
        let known = made.map(|disk| disk.uuid);
        let mut params = match &self.recipe {
            Recipe::Passthru { name, .. } => json!({"name": name, "base_bdev_name": self.base}),
        };
        let (_, chosen) = self.recipe.chosen();
        if let Some(uuid) = chosen.or(known) {
            params["uuid"] = uuid.hyphenated().to_string().into();
        }
        json!({"method": self.recipe.method(), "params": params})
    }
}

impl Disks {
    /// Remembers a request, if there is none like it.
    ///
    /// # Errors
    /// `-EEXIST`.
    pub(crate) fn add_layer(&mut self, base: &str, recipe: Recipe) -> Result<LayerId, RpcError> {
        let kind = recipe.kind();
        let (name, _) = recipe.chosen();
        for other in self.layers.iter().filter(|it| it.recipe.kind() == kind) {
            let reason = match (name, other.recipe.chosen().0) {
                (Some(name), Some(others)) if name == others => format!(
                    "a {} bdev `{name}` was asked for already, over `{}`",
                    recipe.module(),
                    other.base
                ),
                (None, _) if other.base == base => {
                    format!("the same was asked for over `{base}` already")
                }
                _ => continue,
            };
            return Err(RpcError::errno(Errno::EEXIST, reason));
        }
        self.last_layer += 1;
        let id = LayerId(self.last_layer);
        let base = base.to_owned();
        self.layers.push(Layer { id, base, recipe });
        Ok(id)
    }

    /// Forgets a request.
    pub(crate) fn forget_layer(&mut self, id: LayerId) {
        self.layers.retain(|it| it.id != id);
    }

    /// Forgets a request whose base is going away, unless it outlives that.
    pub(crate) fn lost_base(&mut self, id: LayerId) {
        self.layers
            .retain(|it| it.id != id || it.recipe.outlives_base());
    }

    pub(crate) fn layer(&self, id: LayerId) -> Option<&Layer> {
        self.layers.iter().find(|it| it.id == id)
    }

    /// The request for a disk of this name that has none yet.
    pub(crate) fn absent_layer(&self, kind: Kind, name: &str) -> Option<LayerId> {
        let mut absent = self
            .layers
            .iter()
            .filter(|it| self.made_by(it.id).is_none());
        let found = absent.find(|it| {
            let (chosen, _) = it.recipe.chosen();
            it.recipe.kind() == kind && chosen == Some(name)
        });
        found.map(|it| it.id)
    }

    /// The first disk that a request made.
    fn made_by(&self, id: LayerId) -> Option<&Disk> {
        self.disks.iter().find(|disk| disk.layer == Some(id))
    }

    /// Requests that wait for this disk.
    pub(crate) fn layers_for(&self, name: &str) -> Vec<LayerId> {
        let Ok(disk) = self.find(name) else {
            return Vec::new();
        };
        let waiting = self.layers.iter().filter(|it| {
            let uuid = crate::nvmf::parse_uuid(&it.base);
            disk.is_called(&it.base, uuid) && self.made_by(it.id).is_none()
        });
        waiting.map(|it| it.id).collect()
    }

    /// The calls that make everything again, each base before what stands on it; what has no base yet comes last.
    pub(crate) fn calls(&self) -> Vec<Value> {
        let mut calls = Vec::new();
        let mut said = Vec::new();
        for disk in &self.disks {
            match disk.layer {
                Some(id) if said.contains(&id) => {}
                Some(id) => {
                    calls.extend(self.layer(id).map(|it| it.call(Some(disk))));
                    said.push(id);
                }
                None => calls.push(disk.to_call()),
            }
            calls.extend(disk.settings());
        }
        // One whose name or identity another disk has got since could not be asked for.
        let is_taken = |layer: &&Layer| {
            let (name, uuid) = layer.recipe.chosen();
            let mut disks = self.disks.iter();
            disks.any(|disk| Some(disk.name.as_str()) == name || Some(disk.uuid) == uuid)
        };
        let absent = self.layers.iter().filter(|it| !said.contains(&it.id));
        let absent = absent.filter(|layer| !is_taken(layer));
        calls.extend(absent.map(|it| it.call(None)));
        calls
    }
}
