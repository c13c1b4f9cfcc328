//! Where sockets are made, and under which names.

use std::path::{Component, Path, PathBuf};

use nix::errno::Errno;
use rpc::RpcError;

use super::refused;

/// The directory that endpoints' names are relative to. It need not exist before an endpoint is made in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BasePath {
    directory: PathBuf,
    /// An operator chose it, so it is worth saving even without endpoints.
    pub(crate) chosen: bool,
}

impl BasePath {
    /// A directory that an operator chose; the present one if there was no choice, as in SPDK.
    ///
    /// # Errors
    /// The present directory is not there any more.
    pub(crate) fn new(chosen: Option<&Path>) -> std::io::Result<Self> {
        let directory = match chosen {
            Some(directory) => std::path::absolute(directory)?,
            None => std::env::current_dir()?,
        };
        Ok(Self {
            directory,
            chosen: chosen.is_some(),
        })
    }

    /// As an operator sees it.
    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    /// The socket of the endpoint with this name.
    ///
    /// # Errors
    /// -32602 if the name would leave the directory or is none.
    pub(crate) fn socket(&self, name: &str) -> Result<PathBuf, RpcError> {
        let path = Path::new(name);
        let is_plain = path
            .components()
            .all(|part| matches!(part, Component::Normal(_)));
        if name.is_empty() || !is_plain || name.ends_with('/') || name.contains('\0') {
            let directory = self.directory.display();
            let reason = format!(
                "`{name}` is no name for a socket in {directory}: give one that stays below it"
            );
            return Err(refused(Errno::EINVAL, reason));
        }
        Ok(self.directory.join(path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_below_their_directory() {
        let base = BasePath::new(Some(Path::new("/run/x"))).expect("a path");
        for (name, socket) in [("a", "/run/x/a"), ("vm/disk.0", "/run/x/vm/disk.0")] {
            assert_eq!(base.socket(name).expect("a socket"), Path::new(socket));
        }
        for name in ["", ".", "..", "/a", "a/../b", "../a", "./a", "a/", "a\0b"] {
            assert!(base.socket(name).is_err(), "{name:?}");
        }
    }

    #[test]
    fn the_present_directory_serves_unless_another_is_chosen() {
        let base = BasePath::new(None).expect("a directory");
        assert_eq!(
            base.directory(),
            std::env::current_dir().expect("it is there")
        );
        assert!(!base.chosen);
        let base = BasePath::new(Some(Path::new("x"))).expect("a path");
        assert!(base.chosen && base.directory().is_absolute());
    }
}
