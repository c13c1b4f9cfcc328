//! What exists, as calls that make it again.

use serde_json::{Value, json};
use virtio::Coalescing;

use super::{BlkEndpoint, Transport, VHOST_TRANSPORT, VirtioBlk};
use crate::cpumask::mask_of;

fn call(method: &str, params: &Value) -> Value {
    json!({"method": method, "params": params})
}

impl BlkEndpoint {
    /// Its name's key, its disk's key and its disk: the members that all calls about it begin with.
    fn subject(&self, name_key: &str, disk_key: &str) -> Value {
        let mut params = json!({ name_key: self.settings.name });
        params[disk_key] = match &self.disk {
            Some(disk) => disk.name.as_str().into(),
            None => Value::Null,
        };
        if let Some(mask) = &self.settings.cpumask {
            params["cpumask"] = mask_of(mask.cpus()).into();
        }
        params
    }

    fn vfu_call(&self) -> Value {
        let settings = &self.settings;
        let mut params = self.subject("name", "bdev_name");
        params["num_queues"] = settings.num_queues.into();
        params["qsize"] = settings.queue_size.into();
        params["packed_ring"] = settings.packed_ring.into();
        if settings.readonly {
            params["readonly"] = true.into();
        }
        call("vfu_virtio_create_blk_endpoint", &params)
    }

    fn vhost_calls(&self) -> Vec<Value> {
        let settings = &self.settings;
        let mut params = self.subject("ctrlr", "dev_name");
        params["readonly"] = settings.readonly.into();
        params["packed_ring"] = settings.packed_ring.into();
        params["transport"] = VHOST_TRANSPORT.into();
        let mut calls = vec![call("vhost_create_blk_controller", &params)];
        if self.coalescing != Coalescing::default() {
            let params = json!({
                "ctrlr": settings.name, "delay_base_us": self.coalescing.delay_us,
                "iops_threshold": self.coalescing.iops_threshold,
            });
            calls.push(call("vhost_controller_set_coalescing", &params));
        }
        calls
    }

    /// Processors its queues may be on, as SPDK prints them.
    pub(crate) fn cpumask(&self) -> String {
        mask_of(&self.lcores)
    }
}

impl VirtioBlk {
    /// The calls of the subsystem `vfio_user_target`.
    pub(crate) fn vfu_calls(&self) -> Vec<Value> {
        let mut calls = Vec::new();
        let mut base = None;
        let mut enter = |calls: &mut Vec<Value>, directory: &std::path::Path| {
            if base.as_deref() != Some(directory) {
                let path = directory.display().to_string();
                calls.push(call("vfu_tgt_set_base_path", &json!({ "path": path })));
                base = Some(directory.to_owned());
            }
        };
        for endpoint in self.iter(Transport::VfioUser).filter(|it| !it.deleting) {
            enter(&mut calls, endpoint.base.directory());
            calls.push(endpoint.vfu_call());
        }
        if self.vfu_base.chosen {
            enter(&mut calls, self.vfu_base.directory());
        }
        calls
    }

    /// The calls of the subsystem `vhost_blk`.
    pub(crate) fn vhost_calls(&self) -> Vec<Value> {
        let controllers = self.iter(Transport::VhostUser).filter(|it| !it.deleting);
        controllers.flat_map(BlkEndpoint::vhost_calls).collect()
    }
}
