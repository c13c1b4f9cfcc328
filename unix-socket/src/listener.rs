//! The socket in the file system.

use std::fs;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::errno::Errno;
use nix::sys::signal::kill;
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, UnixAddr, connect, getsockopt, socket, sockopt,
};
use nix::unistd::Pid;
use rustix::io::ioctl_fionbio;
use rustix::net::{SocketFlags, accept_with};

/// Longest path of a UNIX socket in bytes: `sun_path` holds 108 with its NUL (unix(7)).
pub const MAX_PATH: usize = 107;

/// Why there is no socket. Each says what to do.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// The path does not fit a socket address.
    #[error(
        "socket path {path} has {length} bytes, but a UNIX socket path has at most {MAX_PATH}: use a shorter directory"
    )]
    TooLong {
        /// Which.
        path: PathBuf,
        /// Its bytes.
        length: usize,
    },
    /// There is no directory to put the socket into.
    #[error("directory {directory} of socket {path} does not exist: create it first")]
    MissingDirectory {
        /// Of the socket.
        path: PathBuf,
        /// What is missing.
        directory: PathBuf,
    },
    /// A server listens there.
    #[error(
        "socket {path} is in use by a running server: stop it, or remove its endpoint, or use another path"
    )]
    InUse {
        /// Which.
        path: PathBuf,
    },
    /// Something else than a socket has the name.
    #[error("{path} exists and is not a socket: remove it, or use another path")]
    NotASocket {
        /// Which.
        path: PathBuf,
    },
    /// Anything else.
    #[error("cannot listen on socket {path}: {source}")]
    Io {
        /// Which.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
}

impl ListenError {
    /// The errno that comes nearest, for callers with numeric codes.
    pub fn errno(&self) -> Errno {
        match self {
            Self::TooLong { .. } => Errno::ENAMETOOLONG,
            Self::MissingDirectory { .. } => Errno::ENOENT,
            Self::InUse { .. } => Errno::EADDRINUSE,
            Self::NotASocket { .. } => Errno::EEXIST,
            Self::Io { source, .. } => {
                Errno::from_raw(source.raw_os_error().unwrap_or(Errno::EIO as i32))
            }
        }
    }
}

/// A socket that listens, and its name, which is removed on drop.
#[derive(Debug)]
pub struct Listener {
    socket: Arc<OwnedFd>,
    path: PathBuf,
    /// Device and inode of the name: another server may have replaced it since.
    identity: Option<(u64, u64)>,
}

impl Listener {
    /// Makes the socket. What a dead server left under the name is replaced.
    ///
    /// # Errors
    ///
    /// See [`ListenError`]; nothing has changed then.
    pub fn bind(path: &Path) -> Result<Self, ListenError> {
        let length = path.as_os_str().as_bytes().len();
        if length > MAX_PATH {
            let path = path.to_owned();
            return Err(ListenError::TooLong { path, length });
        }
        // The backlog is the system's maximum: clients of many VMs may come at once.
        let socket = match UnixListener::bind(path) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                remove_stale(path)?;
                UnixListener::bind(path)
            }
            result => result,
        }
        .map_err(|source| failure(path, source))?;
        let listener = Self {
            socket: Arc::new(socket.into()),
            path: path.to_owned(),
            identity: identity(path),
        };
        ioctl_fionbio(&listener.socket, true).map_err(|error| failure(path, error.into()))?;
        Ok(listener)
    }

    /// Where it listens.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The next client that waits, if one does. Its socket does not block.
    pub(crate) fn accept(&self) -> io::Result<Option<OwnedFd>> {
        use rustix::io::Errno;
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        loop {
            match accept_with(&self.socket, flags) {
                Ok(client) => return Ok(Some(client)),
                Err(Errno::WOULDBLOCK) => return Ok(None),
                // A client that gave up between connecting and now; there may be another.
                Err(Errno::CONNABORTED | Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// The descriptor to watch for clients.
    pub(crate) fn socket(&self) -> &Arc<OwnedFd> {
        &self.socket
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if self.identity.is_some() && self.identity == identity(&self.path) {
            // Gone already is as good.
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    let metadata = fs::symlink_metadata(path).ok()?;
    Some((metadata.dev(), metadata.ino()))
}

/// Removes a socket that nobody listens on.
fn remove_stale(path: &Path) -> Result<(), ListenError> {
    let metadata = fs::symlink_metadata(path).map_err(|source| failure(path, source))?;
    let path_buf = || path.to_owned();
    if !metadata.file_type().is_socket() {
        return Err(ListenError::NotASocket { path: path_buf() });
    }
    match probe(path) {
        Err(Errno::ECONNREFUSED) => {
            fs::remove_file(path).map_err(|source| failure(path, source))?;
            tracing::info!(path = %path.display(), "replaced the socket of a server that is gone");
            Ok(())
        }
        // Accepted, or EAGAIN because its backlog is full, or of a type that we do not speak: somebody is there.
        Ok(()) | Err(Errno::EAGAIN | Errno::EPROTOTYPE) => {
            Err(ListenError::InUse { path: path_buf() })
        }
        Err(errno) => Err(failure(path, errno.into())),
    }
}

/// Whether a server answers, without waiting for it.
///
/// A process that watched its socket through io_uring leaves it listening for a moment after its death, until the kernel has
/// taken the ring apart. Whoever restarts such a server at once must not be told that it still runs, so a socket whose
/// process is gone answers as one that nobody listens on.
fn probe(path: &Path) -> Result<(), Errno> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let probe = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    connect(probe.as_raw_fd(), &UnixAddr::new(path)?)?;
    // Of the process that called listen(2) (unix(7), SO_PEERCRED); 0 if it is in a PID namespace that we do not see.
    let server = getsockopt(&probe, sockopt::PeerCredentials)?.pid();
    if server > 0 && kill(Pid::from_raw(server), None) == Err(Errno::ESRCH) {
        return Err(Errno::ECONNREFUSED);
    }
    Ok(())
}

fn failure(path: &Path, source: io::Error) -> ListenError {
    let path = path.to_owned();
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    };
    if source.kind() == io::ErrorKind::NotFound && !directory.is_dir() {
        return ListenError::MissingDirectory { path, directory };
    }
    ListenError::Io { path, source }
}

#[cfg(test)]
mod tests;
