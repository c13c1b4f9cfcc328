//! Decorators as they were asked for. A decorator may be asked for before its base exists: it is remembered and appears with
//! the base. Those that SPDK remembers when their base goes away are remembered here too.

use std::sync::Arc;

use bdev::delay::{Delay, Latencies};
use bdev::error::ErrorDisk;
use bdev::{BdevError, SharedBdev};
use nix::errno::Errno;
use rpc::RpcError;
use serde_json::{Value, json};
use uuid::Uuid;

use super::{Claim, Disk, Disks, Kind};

/// Numbers requests over the daemon's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LayerId(u64);

/// What to make of a base.
#[derive(Clone, Debug)]
pub(crate) enum Recipe {
    Passthru {
        name: String,
        uuid: Option<Uuid>,
    },
    Error {
        uuid: Option<Uuid>,
    },
    Delay {
        name: String,
        uuid: Option<Uuid>,
        /// As they were set last.
        latencies: Latencies,
    },
    Split {
        count: u32,
        size_mb: u64,
        /// Blocks of each part, where they are known: goes before `size_mb`.
        num_blocks: Option<u64>,
    },
}

/// What can be changed about a decorator that exists.
#[derive(Clone, Debug)]
pub(crate) enum Knob {
    None,
    Delay(Arc<Delay>),
    Error(Arc<ErrorDisk>),
}

/// A disk that was made for a request.
pub(crate) struct Made {
    pub(crate) bdev: SharedBdev,
    pub(crate) knob: Knob,
}

impl From<SharedBdev> for Made {
    fn from(bdev: SharedBdev) -> Self {
        let knob = Knob::None;
        Self { bdev, knob }
    }
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
            Self::Error { .. } => Kind::Error,
            Self::Delay { .. } => Kind::Delay,
            Self::Split { .. } => Kind::Split,
        }
    }

    /// SPDK's name of the module.
    pub(crate) fn module(&self) -> &'static str {
        match self {
            Self::Passthru { .. } => "passthru",
            Self::Error { .. } => "error",
            Self::Delay { .. } => "delay",
            Self::Split { .. } => "split",
        }
    }

    pub(crate) fn method(&self) -> &'static str {
        match self {
            Self::Passthru { .. } => "bdev_passthru_create",
            Self::Error { .. } => "bdev_error_create",
            Self::Delay { .. } => "bdev_delay_create",
            Self::Split { .. } => "bdev_split_create",
        }
    }

    /// The name and the identity that the operator chose, as far as he did.
    pub(crate) fn chosen(&self) -> (Option<&str>, Option<Uuid>) {
        match self {
            Self::Passthru { name, uuid } | Self::Delay { name, uuid, .. } => (Some(name), *uuid),
            Self::Error { uuid } => (None, *uuid),
            Self::Split { .. } => (None, None),
        }
    }

    /// Whether it is still wanted when its base has gone away (as SPDK has it).
    fn outlives_base(&self) -> bool {
        matches!(self, Self::Passthru { .. } | Self::Delay { .. })
    }

    /// Refuses what can be made of no base.
    ///
    /// # Errors
    /// `EINVAL`.
    pub(crate) fn check(&self) -> Result<(), BdevError> {
        match self {
            Self::Passthru { .. } | Self::Error { .. } => Ok(()),
            Self::Delay { latencies, .. } => bdev::delay::check(latencies),
            Self::Split { count: 0, .. } => Err(BdevError::new(
                Errno::EINVAL,
                "split_count is 0: give at least 1",
            )),
            Self::Split { .. } => Ok(()),
        }
    }

    /// Makes the disks.
    pub(crate) fn build(&self, base: &SharedBdev) -> Result<Vec<Made>, BdevError> {
        let shared = Arc::clone(base);
        Ok(match self {
            Self::Passthru { name, uuid } => {
                vec![bdev::passthru::create(name, shared, *uuid)?.into()]
            }
            Self::Error { uuid } => {
                let disk = bdev::error::create(shared, *uuid)?;
                vec![Made {
                    bdev: Arc::clone(&disk) as SharedBdev,
                    knob: Knob::Error(disk),
                }]
            }
            Self::Delay {
                name,
                uuid,
                latencies,
            } => {
                let disk = bdev::delay::create(name, shared, *uuid, *latencies)?;
                vec![Made {
                    bdev: Arc::clone(&disk) as SharedBdev,
                    knob: Knob::Delay(disk),
                }]
            }
            Self::Split {
                count,
                size_mb,
                num_blocks,
            } => {
                let size = match num_blocks {
                    Some(blocks) => *blocks,
                    None => blocks_of(*size_mb, base.info().block_size)?,
                };
                let parts = bdev::part::split(base, *count, size)?;
                parts.into_iter().map(Made::from).collect()
            }
        })
    }
}

impl Recipe {
    /// Latencies can be changed to what cannot be asked for: the calls that change them again.
    fn corrections(&self) -> Vec<Value> {
        let Self::Delay {
            name, latencies, ..
        } = self
        else {
            return Vec::new();
        };
        let pairs = [
            ("p99_read", latencies.avg_read, latencies.p99_read),
            ("p99_write", latencies.avg_write, latencies.p99_write),
        ];
        let wrong = pairs.into_iter().filter(|(_, average, p99)| p99 < average);
        let calls = wrong.map(|(which, _, p99)| {
            let params = json!({"delay_bdev_name": name, "latency_type": which, "latency_us": p99});
            json!({"method": "bdev_delay_update_latency", "params": params})
        });
        calls.collect()
    }
}

fn blocks_of(size_mb: u64, block_size: u32) -> Result<u64, BdevError> {
    let block_size = u64::from(block_size);
    let bytes = size_mb.checked_mul(1 << 20);
    bytes
        .filter(|bytes| bytes % block_size == 0)
        .map(|bytes| bytes / block_size)
        .ok_or_else(|| {
            let reason =
                format!("split_size_mb {size_mb} is no number of blocks of {block_size} bytes");
            BdevError::new(Errno::EINVAL, reason)
        })
}

impl Layer {
    /// The calls that ask for it again; `made` is its first disk, if it has one.
    fn calls(&self, made: Option<&Disk>) -> Vec<Value> {
        // The parts of a split have one each, derived from the base's.
        let known = made.filter(|disk| disk.kind != Kind::Split);
        let known = known.map(|disk| disk.uuid);
        let mut params = match &self.recipe {
            Recipe::Passthru { name, .. } => json!({"name": name, "base_bdev_name": self.base}),
            Recipe::Error { .. } => json!({"base_name": self.base}),
            Recipe::Delay {
                name, latencies, ..
            } => json!({
                "name": name, "base_bdev_name": self.base,
                "avg_read_latency": latencies.avg_read,
                "p99_read_latency": latencies.p99_read.max(latencies.avg_read),
                "avg_write_latency": latencies.avg_write,
                "p99_write_latency": latencies.p99_write.max(latencies.avg_write),
            }),
            Recipe::Split {
                count,
                size_mb,
                num_blocks,
            } => {
                let mut params =
                    json!({"base_bdev": self.base, "split_count": count, "split_size_mb": size_mb});
                if let Some(blocks) = num_blocks {
                    params["num_blocks"] = (*blocks).into();
                }
                params
            }
        };
        let (_, chosen) = self.recipe.chosen();
        if let Some(uuid) = chosen.or(known) {
            params["uuid"] = uuid.hyphenated().to_string().into();
        }
        let mut calls = vec![json!({"method": self.recipe.method(), "params": params})];
        if made.is_some() {
            calls.extend(self.recipe.corrections());
        }
        calls
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
            it.recipe.kind() == kind
                && match it.recipe.chosen() {
                    (Some(chosen), _) => chosen == name,
                    // Those without a name of their own are called after their base.
                    (None, _) => name.strip_prefix("EE_") == Some(&it.base),
                }
        });
        found.map(|it| it.id)
    }

    /// The request for parts of this disk, and the parts.
    pub(crate) fn split_of(&self, base: &str) -> Option<(LayerId, Vec<String>)> {
        let is_meant = |it: &&Layer| {
            let given = self.find(&it.base).map(|disk| disk.name.as_str());
            it.recipe.kind() == Kind::Split && (it.base == base || given == Ok(base))
        };
        let id = self.layers.iter().find(is_meant)?.id;
        let parts = self.disks.iter().filter(|disk| disk.layer == Some(id));
        Some((id, parts.map(|disk| disk.name.clone()).collect()))
    }

    /// Remembers latencies that were changed.
    pub(crate) fn set_latencies(&mut self, id: LayerId, new: Latencies) {
        let layer = self.layers.iter_mut().find(|it| it.id == id);
        if let Some(Layer {
            recipe: Recipe::Delay { latencies, .. },
            ..
        }) = layer
        {
            *latencies = new;
        }
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

    /// The parts of a split stay where they are when their base grows; asked for again as they were, they would be cut anew and a
    /// guest find another's data. So the call says what they are, where the same request would make others now.
    fn pin_parts(&self, id: LayerId, part: &Disk, calls: &mut [Value]) {
        let Some(layer) = self.layer(id) else { return };
        let (Recipe::Split { count, .. }, Ok(base)) = (&layer.recipe, self.find(&layer.base))
        else {
            return;
        };
        let made = self.disks.iter().filter(|it| it.layer == Some(id)).count();
        let blocks = part.bdev.info().num_blocks;
        let again = layer.recipe.build(&base.bdev).unwrap_or_default();
        let same = again.first().map(|first| first.bdev.info().num_blocks) == Some(blocks);
        let Some(params) = calls.first_mut().and_then(|call| call.get_mut("params")) else {
            return;
        };
        if !same {
            params["num_blocks"] = blocks.into();
        }
        let room = base.bdev.info().num_blocks.checked_div(blocks).unwrap_or(0);
        if made as u64 != u64::from(*count).min(room) {
            params["split_count"] = made.into();
        }
    }

    /// The calls that make everything again, each base before what stands on it; what has no base yet comes last.
    pub(crate) fn calls(&self) -> Vec<Value> {
        let mut calls = Vec::new();
        let mut said = Vec::new();
        for disk in &self.disks {
            match disk.layer {
                Some(id) if said.contains(&id) => {}
                Some(id) => {
                    let asked = self.layer(id).map(|it| it.calls(Some(disk)));
                    let mut asked = asked.unwrap_or_default();
                    self.pin_parts(id, disk, &mut asked);
                    calls.extend(asked);
                    said.push(id);
                }
                // Found again by itself.
                None if disk.kind == Kind::Gpt => {}
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
        // One that could not be made when its base came could not be asked for over that base either.
        let can_wait = |layer: &&Layer| match self.find(&layer.base) {
            Err(_) => true,
            Ok(base) if matches!(base.claim, Some(Claim::Module { .. })) => false,
            Ok(base) => layer
                .recipe
                .build(&base.bdev)
                .is_ok_and(|made| made.is_empty()),
        };
        let absent = absent.filter(|layer| !is_taken(layer) && can_wait(layer));
        calls.extend(absent.flat_map(|it| it.calls(None)));
        calls
    }
}
