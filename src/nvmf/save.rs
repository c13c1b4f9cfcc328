//! What exists, as calls that make it again, and as `nvmf_get_subsystems` shows it.

use serde_json::{Value, json};

use super::{DISCOVERY_NQN, Listener, NamespaceEntry, Nvmf, Subsystem, TRANSPORT, Transport, hex};

impl Transport {
    /// Its members as `nvmf_get_transports` shows them, and as a configuration keeps them.
    pub(crate) fn to_value(&self) -> Value {
        let mut members = json!({ "trtype": TRANSPORT });
        if let Ok(options) = serde_json::to_value(self) {
            crate::options::merge(&mut members, &options);
        }
        members
    }
}

fn identifiers(entry: &NamespaceEntry, members: &mut Value) {
    if let Some(nguid) = entry.nguid {
        members["nguid"] = hex::print(&nguid).into();
    }
    if let Some(eui64) = entry.eui64 {
        members["eui64"] = hex::print(&eui64).into();
    }
    members["uuid"] = entry.uuid.hyphenated().to_string().into();
}

impl Subsystem {
    /// As an element of `nvmf_get_subsystems`.
    pub(crate) fn to_value(&self) -> Value {
        let options = &self.options;
        let addresses: Vec<_> = self.listeners.iter().map(|it| &it.address).collect();
        let namespaces: Vec<_> = self
            .namespaces
            .iter()
            .map(|(nsid, entry)| {
                let name = &entry.bdev_name;
                let mut members = json!({"nsid": nsid, "bdev_name": name, "name": name});
                identifiers(entry, &mut members);
                if options.ana_reporting {
                    members["anagrpid"] = entry.group(*nsid).into();
                }
                members
            })
            .collect();
        let mut members = json!({
            "nqn": options.nqn, "subtype": "NVMe", "listen_addresses": addresses,
            "allow_any_host": options.allow_any_host, "hosts": self.hosts,
            "serial_number": options.serial_number, "model_number": options.model_number,
        });
        if let Some(label) = &options.admin_label {
            members["admin_label"] = label.as_str().into();
        }
        let rest = json!({
            "max_namespaces": options.max_namespaces, "passthrough": options.passthrough,
            "min_cntlid": options.min_cntlid, "max_cntlid": options.max_cntlid,
            "dmrsl": options.dmrsl, "wzsl": options.wzsl, "namespaces": namespaces,
        });
        crate::options::merge(&mut members, &rest);
        members
    }

    fn calls(&self) -> Vec<Value> {
        let nqn = &self.options.nqn;
        let mut calls = vec![json!({"method": "nvmf_create_subsystem", "params": self.options})];
        for host in &self.hosts {
            let params = json!({"nqn": nqn, "host": host.nqn});
            calls.push(json!({"method": "nvmf_subsystem_add_host", "params": params}));
        }
        for (nsid, entry) in &self.namespaces {
            let mut namespace = json!({"nsid": nsid, "bdev_name": entry.bdev_name});
            identifiers(entry, &mut namespace);
            if let Some(group) = entry.anagrpid {
                namespace["anagrpid"] = group.into();
            }
            if let Some(file) = &entry.ptpl_file {
                namespace["ptpl_file"] = file.as_str().into();
            }
            namespace["no_auto_visible"] = entry.no_auto_visible.into();
            let params = json!({"nqn": nqn, "namespace": namespace});
            calls.push(json!({"method": "nvmf_subsystem_add_ns", "params": params}));
        }
        for (nsid, entry) in &self.namespaces {
            calls.extend(entry.hosts.iter().map(|host| {
                let params = json!({"nqn": nqn, "nsid": nsid, "host": host});
                json!({"method": "nvmf_ns_add_host", "params": params})
            }));
        }
        calls.extend(self.listeners.iter().flat_map(|it| it.calls(nqn)));
        calls
    }
}

impl Listener {
    fn calls(&self, nqn: &str) -> Vec<Value> {
        let mut params = json!({
            "nqn": nqn, "listen_address": self.address, "numa_id": self.numa_id,
            "secure_channel": self.secure_channel,
        });
        if let Some(state) = self.view.ana.all() {
            params["ana_state"] = json!(state);
        }
        if let Some(host) = &self.view.host {
            params["hostnqn"] = host.as_str().into();
        }
        let mut calls = vec![json!({"method": "nvmf_subsystem_add_listener", "params": params})];
        calls.extend(self.view.ana.groups().map(|(group, state)| {
            let params = json!({
                "nqn": nqn, "listen_address": self.address, "anagrpid": group, "ana_state": state,
            });
            json!({"method": "nvmf_subsystem_listener_set_ana_state", "params": params})
        }));
        calls
    }
}

impl Nvmf {
    /// The calls that make everything again, in an order that works.
    pub(crate) fn calls(&self) -> Vec<Value> {
        let transports = self.transport.iter().map(
            |transport| json!({"method": "nvmf_create_transport", "params": transport.to_value()}),
        );
        let subsystems = self.subsystems.iter().filter(|it| !it.deleting);
        transports
            .chain(subsystems.flat_map(Subsystem::calls))
            .collect()
    }

    /// All subsystems as `nvmf_get_subsystems` shows them, discovery first.
    pub(crate) fn to_value(&self) -> Vec<Value> {
        let discovery = json!({
            "nqn": DISCOVERY_NQN, "subtype": "Discovery", "listen_addresses": [],
            "allow_any_host": true, "hosts": [],
        });
        std::iter::once(discovery)
            .chain(self.subsystems.iter().map(Subsystem::to_value))
            .collect()
    }
}
