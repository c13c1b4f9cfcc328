//! Everything that was set over RPC, as the calls that set it again: what `framework_get_config` answers, and what
//! `--state` keeps.
//!
//! The order is that of replay: subsystems as they depend on each other, and within each what others stand on first.

use serde_json::{Value, json};

use crate::control::Control;

/// Subsystems in the order of initialization, and what each needs. `log` is an addition to SPDK's, which forgets what its
/// `log_*` methods set.
pub(crate) const SUBSYSTEMS: &[(&str, &[&str])] = &[
    ("log", &[]),
    ("scheduler", &[]),
    ("sock", &[]),
    ("iobuf", &[]),
    ("keyring", &[]),
    ("accel", &["iobuf"]),
    ("bdev", &["accel", "keyring", "sock", "iobuf"]),
    ("nvmf", &["bdev", "keyring", "sock", "accel", "iobuf"]),
    ("vhost_blk", &["bdev"]),
    ("vfio_user_target", &["bdev"]),
];

/// Whether a configuration's subsystem is one of ours.
pub(crate) fn is_subsystem(name: &str) -> bool {
    SUBSYSTEMS.iter().any(|(known, _)| *known == name)
}

/// A call as an entry of a configuration.
pub(crate) fn call(method: &str, params: impl Into<Value>) -> Value {
    json!({"method": method, "params": params.into()})
}

impl Control {
    /// The calls that make one subsystem as it is; `None` if there is no such subsystem.
    pub(crate) fn subsystem_calls(&self, name: &str) -> Option<Vec<Value>> {
        let options = &self.options;
        let mut calls = match name {
            "log" => self.logging.calls(),
            "scheduler" => {
                let kept = &options.scheduler_options;
                let set = kept.as_object().is_some_and(|kept| !kept.is_empty());
                let set = set.then(|| call("scheduler_set_options", kept.clone()));
                let chosen = call("framework_set_scheduler", options.scheduler.clone());
                set.into_iter().chain([chosen]).collect()
            }
            "sock" => {
                let default = json!({"impl_name": options.sock_default});
                let impls = options.sock.iter().map(|(name, settings)| {
                    let mut params = json!({"impl_name": name});
                    crate::options::merge(&mut params, settings);
                    call("sock_impl_set_options", params)
                });
                std::iter::once(call("sock_set_default_impl", default))
                    .chain(impls)
                    .collect()
            }
            "iobuf" => vec![call("iobuf_set_options", options.iobuf.clone())],
            "keyring" => {
                let keys = options.keys.iter();
                let keys = keys.map(|(name, path)| json!({"name": name, "path": path}));
                keys.map(|key| call("keyring_file_add_key", key)).collect()
            }
            "accel" => {
                let assigned = options.accel_assignments();
                let assigned = assigned.map(|params| call("accel_assign_opc", params));
                std::iter::once(call("accel_set_options", options.accel.clone()))
                    .chain(assigned)
                    .collect()
            }
            "bdev" => {
                let mut calls = vec![call("bdev_set_options", options.bdev.clone())];
                let examined = self.disks.to_examine.iter();
                calls.extend(examined.map(|name| call("bdev_examine", json!({ "name": name }))));
                calls.extend(self.disks.calls());
                calls
            }
            "nvmf" => {
                let [crdt1, crdt2, crdt3] = options.nvmf_crdt;
                let most = json!({"max_subsystems": options.nvmf_max_subsystems});
                let crdt = json!({"crdt1": crdt1, "crdt2": crdt2, "crdt3": crdt3});
                let mut calls = vec![
                    call("nvmf_set_config", options.nvmf_config.clone()),
                    call("nvmf_set_max_subsystems", most),
                    call("nvmf_set_crdt", crdt),
                ];
                let referrals = options.referrals.iter().cloned();
                calls.extend(referrals.map(|it| call("nvmf_discovery_add_referral", it)));
                calls.extend(self.nvmf.calls());
                calls
            }
            "vhost_blk" => self.blk.vhost_calls(),
            "vfio_user_target" => self.blk.vfu_calls(),
            _ => return None,
        };
        let foreign = options.foreign.iter().filter(|(owner, ..)| *owner == name);
        // Those that precede initialization are replayed before the others: their order says nothing.
        let mut foreign: Vec<_> = foreign.collect();
        foreign.sort_by_key(|(_, method, _)| *method);
        let foreign = foreign.into_iter();
        calls.extend(foreign.map(|(_, method, params)| call(method, params.clone())));
        if name == "bdev" {
            calls.push(json!({"method": "bdev_wait_for_examine"}));
        }
        Some(calls)
    }

    /// All subsystems with their calls, in the order of replay.
    pub(crate) fn configuration(&self) -> Vec<(&'static str, Vec<Value>)> {
        let names = SUBSYSTEMS.iter().map(|(name, _)| *name);
        names
            .map(|name| (name, self.subsystem_calls(name).unwrap_or_default()))
            .collect()
    }
}
