//! The listening socket's place in the file system.

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg, OFlag};
use nix::sys::socket::{self, AddressFamily, Backlog, SockFlag, SockType, UnixAddr};
use nix::sys::stat::{Mode, fchmod};
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

/// `sun_path` of `sockaddr_un` has 108 bytes, the last of them a NUL (unix(7)).
pub(crate) const MAX_PATH: usize = 107;

/// Connections that may wait to be accepted, as many as SPDK allows.
const BACKLOG: i32 = 512;

/// Why the server cannot listen, and what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// The path is empty or contains a NUL.
    #[error("the RPC socket path {path:?} is not a path: give another with -r")]
    InvalidPath {
        /// The socket's path.
        path: PathBuf,
    },
    /// The path does not fit a socket address.
    #[error(
        "the RPC socket path {path:?} is {length} bytes long and the system allows {MAX_PATH}: \
         give a shorter one with -r"
    )]
    PathTooLong {
        /// The socket's path.
        path: PathBuf,
        /// Its length in bytes.
        length: usize,
    },
    /// The directory does not exist.
    #[error(
        "the directory {directory:?} of the RPC socket does not exist: create it, or give another \
         path with -r"
    )]
    DirectoryMissing {
        /// The directory.
        directory: PathBuf,
    },
    /// What should be the directory is something else.
    #[error("{directory:?} is not a directory: give another RPC socket path with -r")]
    NotADirectory {
        /// What is no directory.
        directory: PathBuf,
    },
    /// Another process serves this path.
    #[error(
        "the RPC socket {path:?} is in use by another instance{}: stop it, or give another path \
         with -r",
        holder(*.pid)
    )]
    InUse {
        /// The socket's path.
        path: PathBuf,
        /// The process that says in the lock file to hold it.
        pid: Option<u32>,
    },
    /// Something that is not a socket stands in the way, and is not ours to remove.
    #[error(
        "{path:?} exists and is a {kind}, not a socket: move it away, or give another RPC socket \
         path with -r"
    )]
    NotASocket {
        /// The socket's path.
        path: PathBuf,
        /// What stands there.
        kind: &'static str,
    },
    /// The permissions do not allow it.
    #[error(
        "permission denied to {action} {path:?}: run as a user who may, or give another RPC socket \
         path with -r"
    )]
    Denied {
        /// What was tried.
        action: &'static str,
        /// On which path.
        path: PathBuf,
    },
    /// The system does not let us give the socket to that group.
    #[error(
        "the RPC socket {path:?} cannot be given to group {group}: run as root or as a member of that \
         group, or choose another group"
    )]
    Group {
        /// The socket's path.
        path: PathBuf,
        /// The group's number.
        group: u32,
    },
    /// Any other failure of the system.
    #[error("cannot {action} {path:?}: {source}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which path.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
}

fn holder(pid: Option<u32>) -> String {
    pid.map(|pid| format!(" (process {pid})"))
        .unwrap_or_default()
}

impl BindError {
    fn io(action: &'static str, path: &Path, source: impl Into<io::Error>) -> Self {
        let source = source.into();
        let path = path.to_owned();
        if source.kind() == ErrorKind::PermissionDenied {
            return Self::Denied { action, path };
        }
        Self::Io {
            action,
            path,
            source,
        }
    }
}

/// The lock file, `<socket>.lock`: mode 0600, held by flock(2) as SPDK does it, so that the two
/// respect each other. Removed on drop.
#[derive(Debug)]
struct Lock {
    path: PathBuf,
    /// Keeps the lock until after the file is removed.
    _file: Flock<File>,
}

impl Lock {
    fn acquire(socket: &Path) -> Result<Self, BindError> {
        let mut path = socket.as_os_str().to_owned();
        path.push(".lock");
        let path = PathBuf::from(path);
        loop {
            let file = OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .mode(0o600)
                // The default directory is open to everyone: never write through a planted link.
                .custom_flags((OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK).bits())
                .open(&path)
                .map_err(|error| BindError::io("open the lock file", &path, error))?;
            match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
                Ok(mut file) => {
                    // A holder removes the file before it lets go, so what was locked may be a
                    // file without a name, which protects nothing.
                    if !is_still_at(&file, &path) {
                        continue;
                    }
                    // Only a help for people; the lock is what counts.
                    let pid = format!("{}\n", std::process::id());
                    let _ = file
                        .set_len(0)
                        .and_then(|()| file.write_all(pid.as_bytes()));
                    return Ok(Self { path, _file: file });
                }
                Err((file, Errno::EAGAIN)) => {
                    return Err(BindError::InUse {
                        path: socket.to_owned(),
                        pid: read_pid(file),
                    });
                }
                Err((_, error)) => return Err(BindError::io("lock", &path, error)),
            }
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

fn is_still_at(file: &File, path: &Path) -> bool {
    match (file.metadata(), fs::symlink_metadata(path)) {
        (Ok(ours), Ok(there)) => (ours.dev(), ours.ino()) == (there.dev(), there.ino()),
        _ => false,
    }
}

fn read_pid(file: File) -> Option<u32> {
    let mut text = String::new();
    file.take(32).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

/// The socket's file and its lock. Both are removed on drop.
#[derive(Debug)]
pub(super) struct SocketFiles {
    path: PathBuf,
    /// Device and inode: only our own socket is removed.
    identity: (u64, u64),
    /// Dropped, and so released, after the socket is removed.
    _lock: Lock,
}

impl SocketFiles {
    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for SocketFiles {
    fn drop(&mut self) {
        let there = fs::symlink_metadata(&self.path);
        if there.is_ok_and(|there| (there.dev(), there.ino()) == self.identity) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Locks the path, clears it of a dead server's socket, and listens. The listener does not block.
pub(super) fn bind(
    path: &Path,
    mode: u32,
    group: Option<u32>,
) -> Result<(UnixListener, SocketFiles), BindError> {
    check_path(path)?;
    let lock = Lock::acquire(path)?;
    clear(path)?;

    let failed = |error: Errno| BindError::io("listen on", path, error);
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket =
        socket::socket(AddressFamily::Unix, SockType::Stream, flags, None).map_err(failed)?;
    // Linux makes the file with the mode of the socket's own inode, less the umask (unix_bind), so
    // there is no moment at which it has more rights than it is to have. Nobody can connect before
    // listen(2), when mode and group are as they are to be.
    let mode = mode & 0o777;
    let first = match group {
        Some(_) => mode & 0o700,
        None => mode,
    };
    fchmod(&socket, Mode::from_bits_truncate(first)).map_err(failed)?;
    let address = UnixAddr::new(path).map_err(failed)?;
    socket::bind(socket.as_raw_fd(), &address).map_err(failed)?;

    let there =
        fs::symlink_metadata(path).map_err(|error| BindError::io("look at", path, error))?;
    let files = SocketFiles {
        path: path.to_owned(),
        identity: (there.dev(), there.ino()),
        _lock: lock,
    };
    if let Some(group) = group
        && there.gid() != group
    {
        std::os::unix::fs::lchown(path, None, Some(group)).map_err(|error| match error.kind() {
            ErrorKind::PermissionDenied => BindError::Group {
                path: path.to_owned(),
                group,
            },
            _ => BindError::io("set the group of", path, error),
        })?;
    }
    if there.mode() & 0o777 != mode {
        fs::set_permissions(path, Permissions::from_mode(mode))
            .map_err(|error| BindError::io("set the mode of", path, error))?;
    }
    let backlog = Backlog::new(BACKLOG).map_err(failed)?;
    socket::listen(&socket, backlog).map_err(failed)?;
    Ok((UnixListener::from(socket), files))
}

fn check_path(path: &Path) -> Result<(), BindError> {
    let bytes = path.as_os_str().as_bytes();
    if bytes.is_empty() || bytes.contains(&0) || path.file_name().is_none() {
        return Err(BindError::InvalidPath {
            path: path.to_owned(),
        });
    }
    if bytes.len() > MAX_PATH {
        return Err(BindError::PathTooLong {
            path: path.to_owned(),
            length: bytes.len(),
        });
    }
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    match fs::metadata(directory) {
        Ok(found) if found.is_dir() => Ok(()),
        Ok(_) => Err(BindError::NotADirectory {
            directory: directory.to_owned(),
        }),
        Err(error) if error.kind() == ErrorKind::NotFound => Err(BindError::DirectoryMissing {
            directory: directory.to_owned(),
        }),
        Err(error) if error.kind() == ErrorKind::NotADirectory => Err(BindError::NotADirectory {
            directory: directory.to_owned(),
        }),
        Err(error) => Err(BindError::io("look into", directory, error)),
    }
}

/// Removes the socket of a server that is no more. Whoever calls holds the lock.
fn clear(path: &Path) -> Result<(), BindError> {
    let there = match fs::symlink_metadata(path) {
        Ok(there) => there,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(BindError::io("look at", path, error)),
    };
    let kind = there.file_type();
    if !kind.is_socket() {
        let kind = match kind {
            kind if kind.is_dir() => "directory",
            kind if kind.is_file() => "regular file",
            kind if kind.is_symlink() => "symbolic link",
            kind if kind.is_fifo() => "FIFO",
            _ => "device",
        };
        return Err(BindError::NotASocket {
            path: path.to_owned(),
            kind,
        });
    }
    // The lock keeps out servers that know of it. One that does not, or whose lock file was
    // deleted by hand, still accepts.
    match mio::net::UnixStream::connect(path) {
        Ok(_) => {
            return Err(BindError::InUse {
                path: path.to_owned(),
                pid: None,
            });
        }
        // Alive, but with a full backlog.
        Err(error) if error.kind() == ErrorKind::WouldBlock => {
            return Err(BindError::InUse {
                path: path.to_owned(),
                pid: None,
            });
        }
        Err(_) => {}
    }
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(BindError::io("remove the stale socket", path, error))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
