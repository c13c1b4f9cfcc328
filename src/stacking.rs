//! Disks on disks: decorators put on their bases, and taken away together with them.
//!
//! ```text
//!  create ─► remembered ─► is the base there? ─ yes ─► claimed ─► made ─► registered ─► whoever waits for the new name
//!                                   └ no ─► made when the base is registered
//!  delete ─► the disk and all that stand on it leave the tables; their namespaces and endpoints let go of them
//!         ─► guests' I/O has ended: no channel is open ─► closed from the top down ─► answered
//! ```

use std::collections::BTreeSet;
use std::collections::btree_map::Entry;
use std::sync::Arc;

use bdev::SharedBdev;
use nix::errno::Errno;
use rpc::{Responder, RpcError};

use crate::control::{Control, still_draining};
use crate::disks::{Claim, Disk, Hints, LayerId, Recipe};
use crate::events::Kind as Event;
use crate::methods::registered;
use crate::nvmf::DRAIN_TIMEOUT;
use crate::tuning::Tuning;

fn refused(error: bdev::BdevError) -> RpcError {
    RpcError::errno(error.errno, error.reason)
}

impl Control {
    /// Why nobody else may have this disk for itself; `None` if somebody may.
    pub(crate) fn holder_of(&self, disk: &Disk) -> Option<String> {
        if let Some(claim) = &disk.claim {
            return Some(claim.to_string());
        }
        // SPDK lets this pass and refuses the same things in the other order, so its saved configuration cannot be loaded again.
        let users = self.blk.users_of(&disk.bdev);
        users.first().map(|user| format!("the disk of the {user}"))
    }

    /// Puts a decorator on a disk, or remembers that it is wanted there; gives the names of the disks that appeared.
    ///
    /// # Errors
    /// `-EEXIST`, `-EPERM` if somebody has the base for itself, or what the decorator says. Then nothing is remembered.
    pub(crate) fn add_layer(
        &mut self,
        base: &str,
        recipe: Recipe,
    ) -> Result<Vec<String>, RpcError> {
        recipe.check().map_err(refused)?;
        let (name, uuid) = recipe.chosen();
        let uuid = uuid.map(|uuid| uuid.hyphenated().to_string());
        for name in name.into_iter().chain(uuid.as_deref()) {
            self.disks.reserve(name)?;
            self.disks.release(name);
        }
        let (module, method) = (recipe.module(), recipe.method());
        let id = self.disks.add_layer(base, recipe)?;
        if self.disks.find(base).is_err() {
            tracing::info!(base, module, "{method}: waits for its base bdev");
            return Ok(Vec::new());
        }
        let made = self.build_layer(id);
        if made.is_err() {
            self.disks.forget_layer(id);
        }
        made
    }

    /// Makes the disks of a request whose base exists.
    fn build_layer(&mut self, id: LayerId) -> Result<Vec<String>, RpcError> {
        let Some(layer) = self.disks.layer(id).cloned() else {
            return Ok(Vec::new());
        };
        let base = self.disks.find(&layer.base)?;
        let (base_name, base_bdev) = (base.name.clone(), Arc::clone(&base.bdev));
        if let Some(holder) = self.holder_of(base) {
            let reason = format!("bdev `{base_name}` is {holder}: remove that first");
            return Err(RpcError::errno(Errno::EPERM, reason));
        }
        let made = layer.recipe.build(&base_bdev).map_err(refused)?;
        let recipe = &layer.recipe;
        let disks = made.into_iter().map(|made| {
            let info = made.bdev.info();
            Disk {
                bdev: made.bdev,
                knob: made.knob,
                name: info.name,
                uuid: info.uuid,
                kind: recipe.kind(),
                method: recipe.method(),
                params: serde_json::Value::Null,
                hints: Hints::default(),
                claim: None,
                base: Some(base_name.clone()),
                layer: Some(id),
                tuning: Tuning::default(),
            }
        });
        self.stack(&base_name, recipe.module(), disks.collect())
    }

    /// Adds decorators, all or none, and claims their base for them.
    pub(crate) fn stack(
        &mut self,
        base: &str,
        module: &'static str,
        disks: Vec<Disk>,
    ) -> Result<Vec<String>, RpcError> {
        let mut names: Vec<String> = Vec::new();
        for disk in disks {
            let name = disk.name.clone();
            if let Err(error) = self.disks.add(disk) {
                for name in &names {
                    if let Ok(disk) = self.disks.take(name) {
                        self.disks.release_names(&disk);
                    }
                }
                return Err(error);
            }
            names.push(name);
        }
        if names.is_empty() {
            return Ok(names);
        }
        let owner = match names.as_slice() {
            [name] => format!("bdev `{name}`"),
            names => format!("bdevs `{}`", names.join("`, `")),
        };
        self.disks.find_mut(base)?.claim = Some(Claim::Module { module, owner });
        for name in &names {
            tracing::info!(name, base, module, "a bdev stands on another");
            registered(self, name);
        }
        Ok(names)
    }

    /// Makes what waits for a disk that has appeared.
    pub(crate) fn build_waiting(&mut self, name: &str) {
        for id in self.disks.layers_for(name) {
            if let Err(error) = self.build_layer(id) {
                tracing::warn!(
                    base = name,
                    "a bdev that waits for its base cannot be made: {error}"
                );
            }
        }
    }

    /// Removes disks with all that stand on them: out of their namespaces and endpoints first, then, when no guest's I/O is
    /// left, for good. Answers `true` then.
    pub(crate) fn remove_disks(&mut self, roots: &[String], responder: Responder) {
        let what = format!("bdev {}", roots.join(", "));
        let mut leaving = Vec::new();
        for root in roots {
            if let Err(error) = self.check_leaving(root) {
                return responder.err(error);
            }
        }
        for root in roots {
            let _ = self.take_tree(root, true, &mut leaving);
        }
        let mut nqns = BTreeSet::new();
        for disk in &mut leaving {
            self.events.push(Event::BdevUnregister, disk.name.as_str());
            if let Some(Claim::Namespace { nqn, nsid }) = &disk.claim {
                self.drop_namespace(nqn, *nsid, &disk.bdev);
                nqns.insert(nqn.clone());
            }
        }
        let gone: Vec<String> = leaving.iter().map(|disk| disk.name.clone()).collect();
        let bdevs: Vec<SharedBdev> = leaving.iter().map(|disk| Arc::clone(&disk.bdev)).collect();
        let close = move |control: &mut Control, responder| control.close_disks(leaving, responder);
        let late = still_draining(&what);
        let ack = self.wait(Some(responder), DRAIN_TIMEOUT, late, close);
        for name in gone {
            self.examination.hurry(&name, &ack);
        }
        for nqn in nqns {
            self.publish_namespaces_until(&nqn, ack.clone());
        }
        for bdev in bdevs {
            let ack = ack.clone();
            self.withdraw_disk(&bdev, None, still_draining(&what), move |_, _| drop(ack));
        }
    }

    /// Refuses while a decorator on this disk, or on one above it, has left the tables but not ended.
    fn check_leaving(&self, name: &str) -> Result<(), RpcError> {
        let disk = self.disks.find(name)?;
        let above = self.disks.children(&disk.name);
        if let (Some(Claim::Module { owner, .. }), true) = (&disk.claim, above.is_empty()) {
            let reason = format!(
                "bdev `{name}` is still used by {owner}, on its way out: try again when that has gone"
            );
            return Err(RpcError::errno(Errno::EBUSY, reason));
        }
        above.iter().try_for_each(|name| self.check_leaving(name))
    }

    /// Takes a disk out of the tables with all that stand on it, those above first.
    fn take_tree(
        &mut self,
        name: &str,
        is_root: bool,
        leaving: &mut Vec<Disk>,
    ) -> Result<(), RpcError> {
        for child in self.disks.children(&self.disks.find(name)?.name) {
            self.take_tree(&child, false, leaving)?;
        }
        let disk = self.disks.take(name)?;
        match disk.layer {
            Some(id) if is_root => self.disks.forget_layer(id),
            Some(id) => self.disks.lost_base(id),
            None => {}
        }
        leaving.push(disk);
        Ok(())
    }

    fn drop_namespace(&mut self, nqn: &str, nsid: u32, bdev: &SharedBdev) {
        if let Ok(subsystem) = self.nvmf.find_mut(nqn)
            && let Entry::Occupied(entry) = subsystem.namespaces.entry(nsid)
            && Arc::ptr_eq(&entry.get().bdev, bdev)
        {
            entry.remove();
            tracing::info!(nqn, nsid, "a namespace goes with its bdev");
        }
    }

    /// Closes disks, in this order. Giving much memory back, or closing a file, may take its time: a helper does it.
    fn close_disks(&mut self, disks: Vec<Disk>, responder: Option<Responder>) {
        let gone: Vec<_> = disks.iter().map(|it| (it.name.clone(), it.uuid)).collect();
        let bases: Vec<_> = disks.iter().filter_map(|it| it.base.clone()).collect();
        self.help(
            move || disks.into_iter().for_each(drop),
            move |control, _| {
                for (name, uuid) in gone {
                    control.disks.release(&name);
                    control.disks.release(&uuid.hyphenated().to_string());
                }
                for base in bases {
                    control.disks.release_module_claim(&base);
                }
                if let Some(responder) = responder {
                    responder.ok(true);
                }
            },
        );
    }

    /// A disk and those above it whose length is its own, from the bottom up.
    pub(crate) fn following(&self, name: &str) -> Vec<String> {
        let mut names = vec![name.to_owned()];
        for child in self.disks.children(name) {
            let follows = self
                .disks
                .find(&child)
                .is_ok_and(|disk| disk.kind.follows_base());
            if follows {
                names.extend(self.following(&child));
            }
        }
        names
    }
}
