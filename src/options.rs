//! Settings that are kept for whoever asks.

use serde_json::{Map, Value, json};

/// Settings of SPDK's layers that have no counterpart here. They are checked, kept, shown and saved, so that scripts work and
/// configurations survive; they change nothing.
#[derive(Debug)]
pub(crate) struct Options {
    pub(crate) bdev: Value,
    pub(crate) iobuf: Value,
    pub(crate) accel: Value,
    pub(crate) sock_default: String,
    /// By implementation.
    pub(crate) sock: Map<String, Value>,
    /// Operations that were assigned to the only module there is.
    pub(crate) accel_operations: Vec<String>,
    pub(crate) scheduler: Value,
    /// Empty unless it was set.
    pub(crate) scheduler_options: Value,
    /// Names of keys and their files.
    pub(crate) keys: Vec<(String, String)>,
    /// Other targets, as they are shown.
    pub(crate) referrals: Vec<Value>,
    /// Masks of trace points, one for each group.
    pub(crate) trace: Vec<u64>,
    pub(crate) nvmf_config: Value,
    pub(crate) nvmf_max_subsystems: u32,
    pub(crate) nvmf_crdt: [u16; 3],
    /// Methods that set options of modules which are not here, and their parameters.
    pub(crate) foreign: Vec<(&'static str, &'static str, Value)>,
}

fn sock(zerocopy: bool, buffer: u64) -> Value {
    json!({
        "recv_buf_size": buffer, "send_buf_size": buffer, "enable_recv_pipe": true, "enable_quickack": false,
        "enable_placement_id": 0, "enable_zerocopy_send_server": zerocopy, "enable_zerocopy_send_client": false,
        "zerocopy_threshold": 0, "tls_version": 0, "enable_ktls": false,
    })
}

impl Default for Options {
    fn default() -> Self {
        let mut impls = Map::new();
        impls.insert("uring".into(), sock(false, 2 << 20));
        impls.insert("ssl".into(), sock(true, 4096));
        impls.insert("posix".into(), sock(true, 2 << 20));
        Self {
            bdev: json!({
                "bdev_io_pool_size": 65535, "bdev_io_cache_size": 256, "bdev_auto_examine": true,
                "iobuf_small_cache_size": 128, "iobuf_large_cache_size": 16,
            }),
            iobuf: json!({
                "small_pool_count": 8192, "large_pool_count": 1024, "small_bufsize": 8192,
                "large_bufsize": 135_168, "enable_numa": false,
            }),
            accel: json!({
                "small_cache_size": 128, "large_cache_size": 16, "task_count": 2048,
                "sequence_count": 2048, "buf_count": 2048,
            }),
            sock_default: "posix".to_owned(),
            sock: impls,
            accel_operations: Vec::new(),
            scheduler: json!({"name": "static"}),
            scheduler_options: json!({}),
            keys: Vec::new(),
            referrals: Vec::new(),
            trace: Vec::new(),
            nvmf_config: json!({}),
            nvmf_max_subsystems: 1024,
            nvmf_crdt: [0; 3],
            foreign: Vec::new(),
        }
    }
}

/// Takes over the members of `given` that `known` has too. The caller has checked types.
pub(crate) fn merge(known: &mut Value, given: &Value) {
    if let (Value::Object(known), Value::Object(given)) = (known, given) {
        for (key, value) in given {
            known.insert(key.clone(), value.clone());
        }
    }
}
