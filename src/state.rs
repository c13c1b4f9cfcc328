//! `--state DIR`: the configuration on disk, replaced as a whole and in one step.
//!
//! ```text
//!  DIR/config.json       the configuration: SPDK's shape, one call per line, so `-c` and load_config take it too
//!  DIR/config.json.bak   the version before it
//!  DIR/config.json.tmp   the version after it, while it is being written; of no meaning when the daemon starts
//!  DIR/lock              held (flock(2)) while a daemon has the directory
//! ```
//! A version is written to the temporary file and synced; then the present version gets its second name (a hard link), the
//! new one takes the first name (rename(2) replaces it in one step), and the directory is synced. Whenever the power goes,
//! `config.json` is one version, whole. There is no checksum: no half version can be there, and an operator may correct
//! the file by hand while no daemon has it.
//!
//! What is here blocks and runs on helper threads; who waits for it is the business of `control::keeping`.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use rpc::config::{Config, ConfigError};
use serde_json::{Value, json};

const CURRENT: &str = "config.json";
const BACKUP: &str = "config.json.bak";
const TEMPORARY: &str = "config.json.tmp";
const SKIPPED: &str = "config.json.skipped";
const LOCK: &str = "lock";

/// Why a state directory cannot be used, and what to do about it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StateError {
    #[error(
        "--state: {directory:?} is in use by another daemon{holder}: stop it, or give another directory"
    )]
    InUse { directory: PathBuf, holder: String },
    #[error("--state: cannot {action} {path:?}: {source}")]
    Io {
        action: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    #[error(
        "--state: {source}; correct it by hand, or go back to the version before it: mv {backup:?} {current:?}"
    )]
    Corrupt {
        source: ConfigError,
        backup: PathBuf,
        current: PathBuf,
    },
    #[error(
        "--state: {backup:?} is there but not {current:?}: rename it to go on with that version, or remove it to begin with nothing"
    )]
    OnlyBackup { backup: PathBuf, current: PathBuf },
    #[error("--state: saving the configuration has failed inside vtarget")]
    Internal,
}

/// What is in a state directory when the daemon starts.
#[derive(Debug)]
pub(crate) struct Saved {
    pub(crate) config: Config,
    pub(crate) text: String,
}

/// A state directory that is ours.
#[derive(Debug)]
pub(crate) struct Store {
    directory: PathBuf,
    _lock: Flock<File>,
}

impl Store {
    /// Takes the directory, which is made if it is missing, and reads what is there.
    ///
    /// # Errors
    /// Another daemon has it, it cannot be written to, or what is there cannot be read.
    pub(crate) fn open(directory: &Path) -> Result<(Self, Option<Saved>), StateError> {
        let io = |action: &'static str, path: &Path| {
            let path = path.to_owned();
            move |source| StateError::Io {
                action,
                path,
                source,
            }
        };
        let directory = std::path::absolute(directory).map_err(io("find", directory))?;
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&directory)
            .map_err(io("make", &directory))?;
        let lock = lock(&directory)?;
        let store = Self {
            directory,
            _lock: lock,
        };
        match fs::remove_file(store.path(TEMPORARY)) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(io("remove", &store.path(TEMPORARY))(error));
            }
            _ => {}
        }
        let (current, backup) = (store.current(), store.path(BACKUP));
        let text = match fs::read_to_string(&current) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => {
                return match backup.exists() {
                    true => Err(StateError::OnlyBackup { backup, current }),
                    false => Ok((store, None)),
                };
            }
            Err(source) => {
                let path = current.clone();
                let source = ConfigError::Read { path, source };
                return Err(StateError::Corrupt {
                    source,
                    backup,
                    current,
                });
            }
        };
        let parsed = Config::parse_named(text.as_bytes(), &current).and_then(|config| {
            match config.subsystems.is_empty() {
                false => Ok(config),
                // Every version names all subsystems: this is none, and must not be replaced.
                true => Err(ConfigError::Syntax {
                    path: Some(current.clone()),
                    line: 1,
                    column: 1,
                    reason: "there is no configuration in it".to_owned(),
                }),
            }
        });
        match parsed {
            Ok(config) => Ok((store, Some(Saved { config, text }))),
            Err(source) => Err(StateError::Corrupt {
                source,
                backup,
                current,
            }),
        }
    }

    /// The file that has the configuration.
    pub(crate) fn current(&self) -> PathBuf {
        self.path(CURRENT)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// Makes `text` the configuration. When this returns without an error, it is on the disk.
    ///
    /// # Errors
    /// It may or may not be; the file is whole in any case.
    pub(crate) fn write(&self, text: &str) -> Result<(), StateError> {
        let (temporary, current, backup) =
            (self.path(TEMPORARY), self.current(), self.path(BACKUP));
        let written = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&temporary)
            .and_then(|mut file| {
                file.write_all(text.as_bytes())?;
                file.sync_all()
            });
        let failed = |action: &'static str, path: &Path, source| StateError::Io {
            action,
            path: path.to_owned(),
            source,
        };
        written.map_err(|error| failed("write", &temporary, error))?;
        keep(&current, &backup)
            .map_err(|error| failed("keep the last version as", &backup, error))?;
        fs::rename(&temporary, &current).map_err(|error| failed("replace", &current, error))?;
        File::open(&self.directory)
            .and_then(|directory| directory.sync_all())
            .map_err(|error| failed("sync", &self.directory, error))
    }

    /// Keeps a copy of the file as it is, for entries that are about to be lost; where it is.
    ///
    /// # Errors
    /// It cannot be kept.
    pub(crate) fn keep_skipped(&self) -> Result<PathBuf, StateError> {
        let path = self.path(SKIPPED);
        keep(&self.current(), &path).map_err(|source| StateError::Io {
            action: "keep the configuration as",
            path: path.clone(),
            source,
        })?;
        Ok(path)
    }
}

/// Gives a file a second name, in place of another file if that is there.
fn keep(file: &Path, name: &Path) -> io::Result<()> {
    match fs::remove_file(name) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    match fs::hard_link(file, name) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        // Not every file system has links.
        Err(_) => fs::copy(file, name).map(drop),
        Ok(()) => Ok(()),
    }
}

fn lock(directory: &Path) -> Result<Flock<File>, StateError> {
    let path = directory.join(LOCK);
    let io = |action: &'static str, source: io::Error| StateError::Io {
        action,
        path: path.clone(),
        source,
    };
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .map_err(|error| io("open", error))?;
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(mut lock) => {
            // For people, and for the message below.
            let written = lock
                .set_len(0)
                .and_then(|()| writeln!(lock, "{}", std::process::id()));
            written.map_err(|error| io("write", error))?;
            Ok(lock)
        }
        Err((mut file, Errno::EAGAIN)) => {
            let mut text = String::new();
            let _ = file.read_to_string(&mut text);
            let holder = match text.trim().parse::<u32>() {
                Ok(pid) => format!(" (process {pid})"),
                Err(_) => String::new(),
            };
            Err(StateError::InUse {
                directory: directory.to_owned(),
                holder,
            })
        }
        Err((_, errno)) => Err(io("lock", errno.into())),
    }
}

/// A configuration's text: one call per line, so that a message about a line is about a call.
pub(crate) fn text(subsystems: &[(&'static str, Vec<Value>)]) -> String {
    let about = json!({"version": env!("CARGO_PKG_VERSION")});
    let mut text = format!("{{\n\"vtarget\": {about},\n\"subsystems\": [");
    for (number, (name, calls)) in subsystems.iter().enumerate() {
        let separator = if number == 0 { "" } else { "," };
        text.push_str(&format!(
            "{separator}\n {{\"subsystem\": \"{name}\", \"config\": ["
        ));
        for (number, call) in calls.iter().enumerate() {
            let separator = if number == 0 { "" } else { "," };
            text.push_str(&format!("{separator}\n  {call}"));
        }
        text.push_str("]}");
    }
    text.push_str("\n]\n}\n");
    text
}

#[cfg(test)]
mod tests;
