//! keyring_*: names of files with keys. They are checked and kept for the methods that name keys; vfio-user has no
//! authentication that would read them.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::errno::Errno;
use rpc::{Params, RegistryError, RpcError, When};
use serde::Deserialize;
use serde_json::{Value, json};

use super::Table;
use super::params::VHOST;
use crate::control::{Control, done};

pub(super) fn register(table: &mut Table) -> Result<(), RegistryError> {
    table
        .method("keyring_file_add_key", When::Runtime, add_key)?
        .method("keyring_file_remove_key", When::Runtime, remove_key)?
        .method("keyring_get_keys", When::Runtime, |control, _| {
            let keys = control.options.keys.iter();
            let keys = keys.map(|(name, path)| {
                json!({
                    "name": name, "module": "keyring_file", "removed": false, "probed": false, "refcnt": 1,
                    "path": path,
                })
            });
            Ok(keys.collect())
        })?;
    Ok(())
}

/// Unknown members are taken, as SPDK does here.
#[derive(Deserialize)]
struct AddKey {
    name: String,
    path: String,
}

fn add_key(control: &mut Control, params: Params) -> Result<Value, RpcError> {
    let AddKey { name, path } = params.decode(VHOST)?;
    let keys = &mut control.options.keys;
    if keys.iter().any(|(known, _)| *known == name) {
        let reason = format!("there is a key `{name}` already");
        return Err(RpcError::errno(Errno::EEXIST, reason));
    }
    if !Path::new(&path).is_absolute() {
        let reason = format!("`{path}` is no absolute path");
        return Err(RpcError::errno(Errno::EPERM, reason));
    }
    let found = std::fs::metadata(&path).map_err(|error| RpcError::io(&error, &path))?;
    if let Some(reason) = exposed(&found) {
        return Err(RpcError::errno(Errno::EPERM, format!("{path} {reason}")));
    }
    keys.push((name, path));
    done()
}

/// Why a file is no place for a key.
fn exposed(found: &Metadata) -> Option<String> {
    if found.uid() != nix::unistd::getuid().as_raw() {
        return Some("belongs to another user".to_owned());
    }
    (found.mode() & 0o077 != 0).then(|| {
        let mode = found.mode() & 0o777;
        format!("has mode {mode:o}, which lets others use it: make it 600")
    })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RemoveKey {
    name: String,
}

fn remove_key(control: &mut Control, params: Params) -> Result<Value, RpcError> {
    let RemoveKey { name } = params.decode(VHOST)?;
    let keys = &mut control.options.keys;
    let before = keys.len();
    keys.retain(|(known, _)| *known != name);
    if keys.len() == before {
        let reason = format!("there is no key `{name}`");
        return Err(RpcError::errno(Errno::ENOKEY, reason));
    }
    done()
}
