//! SPDK's configuration file: the calls that set a target up, in their order.
//!
//! ```json
//! {"subsystems": [
//!   {"subsystem": "bdev", "config": [
//!     {"method": "bdev_malloc_create", "params": {"num_blocks": 1024, "block_size": 512}}
//!   ]},
//!   {"subsystem": "scsi", "config": null}
//! ]}
//! ```
//!
//! Comments (`//` to the end of the line, `/* */`) are allowed, as SPDK does. What a method makes
//! of its parameters is not looked at here.

use crate::params::Params;
use crate::value::Strict;
use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer};
use serde::de::{Deserialize, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;
use std::cell::RefCell;
use std::fmt;
use std::path::{Path, PathBuf};
use std::{fs, io};

/// A parsed configuration file.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Config {
    /// The subsystems in the file's order, which is the order of replay.
    pub subsystems: Vec<Subsystem>,
}

/// The part of one subsystem.
#[derive(Debug, Clone, PartialEq)]
pub struct Subsystem {
    /// Its name, such as `bdev`.
    pub name: String,
    /// Its calls. `null` in the file is none.
    pub entries: Vec<Entry>,
}

/// One element of a subsystem's list.
#[derive(Debug, Clone, PartialEq)]
pub enum Entry {
    /// One call.
    Call(Call),
    /// Calls to be sent together. Never empty: an empty batch of the file is left out, as SPDK does.
    Batch(Vec<Call>),
}

/// One call.
#[derive(Debug, Clone, PartialEq)]
pub struct Call {
    /// The method's name.
    pub method: String,
    /// Its parameters.
    pub params: Params,
    /// Where it is, for messages about a call that failed.
    pub place: Place,
}

/// The place of a call.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Place {
    /// Line of the file on which it begins, counted from 1.
    pub line: usize,
    /// Column, counted from 1, in bytes.
    pub column: usize,
    /// Which call of its subsystem it is, counted from 1; the calls of a batch count one by one.
    pub number: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            line,
            column,
            number,
        } = self;
        write!(f, "line {line}, column {column}: call {number}")
    }
}

/// Why a configuration file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// It cannot be read.
    #[error("cannot read the configuration file {path:?}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// It is not a configuration.
    #[error("{}line {line}, column {column}: {reason}", in_file(.path))]
    Syntax {
        /// The file, if it came from one.
        path: Option<PathBuf>,
        /// Counted from 1.
        line: usize,
        /// Counted from 1, in bytes.
        column: usize,
        /// What is wrong there.
        reason: String,
    },
}

fn in_file(path: &Option<PathBuf>) -> String {
    path.as_ref()
        .map(|path| format!("configuration file {path:?}, "))
        .unwrap_or_default()
}

impl Config {
    /// Reads and parses a file.
    ///
    /// # Errors
    /// The file cannot be read, or [`parse`](Self::parse)'s with the file's name.
    pub fn read(path: impl AsRef<Path>) -> Result<Self, ConfigError> {
        let path = path.as_ref();
        let text = fs::read(path).map_err(|source| ConfigError::Read {
            path: path.to_owned(),
            source,
        })?;
        Self::parse_named(&text, path)
    }

    /// Parses the text of the file with this name.
    ///
    /// # Errors
    /// [`parse`](Self::parse)'s, with the file's name.
    pub fn parse_named(text: &[u8], path: &Path) -> Result<Self, ConfigError> {
        Self::parse(text).map_err(|error| match error {
            ConfigError::Syntax {
                line,
                column,
                reason,
                ..
            } => ConfigError::Syntax {
                path: Some(path.to_owned()),
                line,
                column,
                reason,
            },
            error => error,
        })
    }

    /// Parses the text of a configuration file.
    ///
    /// # Errors
    /// The place and nature of the first mistake.
    pub fn parse(text: &[u8]) -> Result<Self, ConfigError> {
        let text = blank_comments(text)?;
        let file: File<Entry> = serde_json::from_slice(&text).map_err(syntax)?;
        // The same file once more, for the place of each entry: serde does not tell it.
        let places: File<&RawValue> = serde_json::from_slice(&text).map_err(syntax)?;
        let (Some(subsystems), Some(places)) = (file.subsystems, places.subsystems) else {
            tracing::warn!("the configuration has no \"subsystems\": there is nothing to load");
            return Ok(Self::default());
        };
        let mut lines = Lines::of(&text);
        let subsystems = subsystems.into_iter().zip(places);
        let subsystems = subsystems
            .map(|(subsystem, places)| {
                let mut entries = subsystem.config.unwrap_or_default();
                let places = places.config.unwrap_or_default();
                let mut number = 0;
                let mut place = |raw: &RawValue| {
                    number += 1;
                    let (line, column) = lines.place_of(raw);
                    Place {
                        line,
                        column,
                        number,
                    }
                };
                for (entry, raw) in entries.iter_mut().zip(places) {
                    match entry {
                        Entry::Call(call) => call.place = place(raw),
                        Entry::Batch(calls) => {
                            let raws: Vec<&RawValue> =
                                serde_json::from_str(raw.get()).map_err(syntax)?;
                            for (call, raw) in calls.iter_mut().zip(raws) {
                                call.place = place(raw);
                            }
                        }
                    }
                }
                entries.retain(|entry| !matches!(entry, Entry::Batch(calls) if calls.is_empty()));
                Ok(Subsystem {
                    name: subsystem.subsystem,
                    entries,
                })
            })
            .collect::<Result<_, _>>()?;
        Ok(Self { subsystems })
    }
}

fn syntax(error: serde_json::Error) -> ConfigError {
    let text = error.to_string();
    // The place is said once, by the error around it.
    let reason = match text.rfind(" at line ") {
        Some(end) => text[..end].to_owned(),
        None => text,
    };
    ConfigError::Syntax {
        path: None,
        line: error.line(),
        column: error.column(),
        reason,
    }
}

/// Members other than `subsystems` are ignored, as SPDK does.
#[derive(serde::Deserialize)]
#[serde(bound(deserialize = "T: Deserialize<'de>"))]
struct File<T> {
    subsystems: Option<Vec<FileSubsystem<T>>>,
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields, bound(deserialize = "T: Deserialize<'de>"))]
struct FileSubsystem<T> {
    subsystem: String,
    config: Option<Vec<T>>,
}

impl<'de> Deserialize<'de> for Entry {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // By hand, since an untagged enum would lose the place of a mistake.
        struct EntryVisitor;
        impl<'de> Visitor<'de> for EntryVisitor {
            type Value = Entry;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a call (an object with method and params) or an array of calls")
            }

            fn visit_map<A: MapAccess<'de>>(self, entries: A) -> Result<Entry, A::Error> {
                FileCall::deserialize(MapAccessDeserializer::new(entries))
                    .map(|call| Entry::Call(call.into()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, items: A) -> Result<Entry, A::Error> {
                let calls = Vec::<FileCall>::deserialize(SeqAccessDeserializer::new(items))?;
                Ok(Entry::Batch(calls.into_iter().map(Call::from).collect()))
            }
        }
        deserializer.deserialize_any(EntryVisitor)
    }
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct FileCall {
    method: String,
    #[serde(default, deserialize_with = "params")]
    params: Params,
}

impl From<FileCall> for Call {
    fn from(call: FileCall) -> Self {
        Self {
            method: call.method,
            params: call.params,
            place: Place::default(),
        }
    }
}

fn params<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Params, D::Error> {
    let duplicate = RefCell::new(None);
    let seed = Strict {
        duplicate: &duplicate,
    };
    let value = seed.deserialize(deserializer)?;
    match duplicate.into_inner() {
        None => Ok(value.into()),
        // Unlike on the socket there is a person to be told where.
        Some(key) => Err(serde::de::Error::custom(format!(
            "the key {key:?} is given twice"
        ))),
    }
}

/// Replaces comments by spaces, so that every place stays where it was.
fn blank_comments(text: &[u8]) -> Result<Vec<u8>, ConfigError> {
    let mut out = text.to_vec();
    let mut at = 0;
    while let Some(&byte) = text.get(at) {
        let end = match (byte, text.get(at + 1)) {
            (b'"', _) => {
                at = end_of_string(text, at);
                continue;
            }
            (b'/', Some(b'/')) => {
                find(text, at, |rest| matches!(rest, [b'\n' | b'\r', ..])).unwrap_or(text.len())
            }
            (b'/', Some(b'*')) => {
                let end = find(text, at + 2, |rest| rest.starts_with(b"*/"));
                end.map(|end| end + 2).ok_or_else(|| {
                    let (line, column) = place(text, at);
                    ConfigError::Syntax {
                        path: None,
                        line,
                        column,
                        reason: "the comment that begins here does not end".into(),
                    }
                })?
            }
            _ => {
                at += 1;
                continue;
            }
        };
        for byte in out.get_mut(at..end).unwrap_or_default() {
            if *byte != b'\n' {
                *byte = b' ';
            }
        }
        at = end;
    }
    Ok(out)
}

/// The first position from `from` on whose rest fits.
fn find(text: &[u8], from: usize, fits: impl Fn(&[u8]) -> bool) -> Option<usize> {
    (from..text.len()).find(|&at| text.get(at..).is_some_and(&fits))
}

/// The position after a string's closing quote, or the end of the text.
fn end_of_string(text: &[u8], quote: usize) -> usize {
    let mut at = quote + 1;
    loop {
        match text.get(at) {
            None => return text.len(),
            Some(b'"') => return at + 1,
            Some(b'\\') => at += 2,
            Some(_) => at += 1,
        }
    }
}

fn place(text: &[u8], at: usize) -> (usize, usize) {
    let before = text.get(..at).unwrap_or_default();
    let line = before.iter().filter(|&&byte| byte == b'\n').count() + 1;
    let column = before
        .iter()
        .rev()
        .take_while(|&&byte| byte != b'\n')
        .count()
        + 1;
    (line, column)
}

/// Lines of positions that only grow, each line counted once.
struct Lines<'a> {
    text: &'a [u8],
    at: usize,
    line: usize,
}

impl<'a> Lines<'a> {
    fn of(text: &'a [u8]) -> Self {
        Self {
            text,
            at: 0,
            line: 1,
        }
    }

    /// Line and column of a value borrowed from the text.
    fn place_of(&mut self, value: &RawValue) -> (usize, usize) {
        let at = value
            .get()
            .as_ptr()
            .addr()
            .saturating_sub(self.text.as_ptr().addr());
        let between = self.text.get(self.at..at).unwrap_or_default();
        self.line += between.iter().filter(|&&byte| byte == b'\n').count();
        self.at = at;
        let before = self.text.get(..at).unwrap_or_default();
        let column = before
            .iter()
            .rev()
            .take_while(|&&byte| byte != b'\n')
            .count()
            + 1;
        (self.line, column)
    }
}

#[cfg(test)]
mod tests;
