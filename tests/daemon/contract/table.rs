//! The table's files, read.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::{Map, Value};

use super::shape::{Names, Shape};

/// One file: a family of methods.
pub(crate) struct Family {
    pub(crate) file: String,
    pub(crate) title: String,
    pub(crate) about: String,
    pub(crate) names: Names,
    pub(crate) methods: Vec<Method>,
}

pub(crate) struct Method {
    pub(crate) name: String,
    pub(crate) what: String,
    pub(crate) state: When,
    pub(crate) params: Vec<Param>,
    pub(crate) result: Shape,
    pub(crate) result_text: String,
    pub(crate) aliases: Vec<String>,
    pub(crate) codes: Codes,
    /// Calls that make what the example needs.
    pub(crate) before: Vec<(String, Value)>,
    pub(crate) example: Map<String, Value>,
    pub(crate) after: Vec<(String, Value)>,
    /// The code of the example, where no call can work.
    pub(crate) fails: Option<i64>,
    pub(crate) refused: Vec<Refused>,
    /// The subsystem whose saved configuration has the example's call.
    pub(crate) saved: Option<String>,
    pub(crate) differs: String,
    /// Whether SPDK has no such method.
    pub(crate) ours: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum When {
    Startup,
    Runtime,
    Always,
}

/// Whose a parameter is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    Spdk,
    /// Of an older or a newer SPDK than the one whose methods these are.
    SomeVersions,
    Ours,
}

pub(crate) struct Param {
    pub(crate) name: String,
    pub(crate) origin: Origin,
    pub(crate) required: bool,
    pub(crate) shape: Shape,
    pub(crate) default: String,
    pub(crate) what: String,
}

/// What is answered to wrong parameters; without a code they are taken.
#[derive(Clone, Copy)]
pub(crate) struct Codes {
    pub(crate) unknown: Option<i64>,
    pub(crate) missing: i64,
    pub(crate) wrong: i64,
}

/// The example with other members, and what it is refused with.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Refused {
    #[serde(rename = "with")]
    pub(crate) members: Map<String, Value>,
    pub(crate) code: i64,
    #[serde(default)]
    pub(crate) text: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    title: String,
    #[serde(default)]
    about: String,
    /// The code for wrong parameters.
    bad: i64,
    #[serde(default)]
    shapes: BTreeMap<String, String>,
    methods: BTreeMap<String, Row>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    what: String,
    #[serde(default = "runtime")]
    state: When,
    #[serde(default)]
    params: String,
    #[serde(default = "yes")]
    result: String,
    #[serde(default)]
    aliases: Vec<String>,
    bad: Option<i64>,
    unknown: Option<Unknown>,
    missing: Option<i64>,
    #[serde(default)]
    before: Vec<(String, Map<String, Value>)>,
    #[serde(default)]
    example: Map<String, Value>,
    #[serde(default)]
    after: Vec<(String, Map<String, Value>)>,
    fails: Option<i64>,
    #[serde(default)]
    refused: Vec<Refused>,
    saved: Option<String>,
    #[serde(default)]
    differs: String,
    #[serde(default)]
    ours: bool,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Unknown {
    Code(i64),
    Taken(Taken),
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Taken {
    Taken,
}

fn runtime() -> When {
    When::Runtime
}

fn yes() -> String {
    "true".to_owned()
}

/// Where the table lies.
pub(crate) fn place() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/daemon/contract")
}

/// All files, by name.
pub(crate) fn read() -> Vec<Family> {
    let entries = std::fs::read_dir(place()).expect("the table");
    let paths = entries.map(|entry| entry.expect("an entry").path());
    let mut paths: Vec<PathBuf> = paths
        .filter(|path| path.extension().is_some_and(|ending| ending == "toml"))
        .collect();
    paths.sort();
    paths.iter().map(|path| family(path)).collect()
}

fn family(path: &Path) -> Family {
    let file = path.file_stem().unwrap_or_default().to_string_lossy();
    let text = std::fs::read_to_string(path).expect("a file of the table");
    let read: File = toml::from_str(&text).unwrap_or_else(|error| panic!("{file}.toml: {error}"));
    let shape = |text: &str, place: &str| {
        Shape::parse(text).unwrap_or_else(|reason| panic!("{file}.toml, {place}: {reason}"))
    };
    let names = read.shapes.iter();
    let names = names.map(|(name, text)| (name.clone(), shape(text, name)));
    let methods = read.methods.into_iter().map(|(name, row)| {
        let params = params(&row.params);
        let params = params.unwrap_or_else(|why| panic!("{file}.toml, {name}: {why}"));
        let bad = row.bad.unwrap_or(read.bad);
        let codes = Codes {
            unknown: match row.unknown {
                None => Some(bad),
                Some(Unknown::Code(code)) => Some(code),
                Some(Unknown::Taken(Taken::Taken)) => None,
            },
            missing: row.missing.unwrap_or(bad),
            wrong: bad,
        };
        let calls = |calls: Vec<(String, Map<String, Value>)>| {
            let calls = calls.into_iter();
            calls.map(|(method, params)| (method, params.into()))
        };
        Method {
            result: shape(&row.result, &name),
            result_text: row.result.trim().to_owned(),
            what: row.what,
            state: row.state,
            params,
            aliases: row.aliases,
            codes,
            before: calls(row.before).collect(),
            example: row.example,
            after: calls(row.after).collect(),
            fails: row.fails,
            refused: row.refused,
            saved: row.saved,
            differs: row.differs,
            ours: row.ours,
            name,
        }
    });
    Family {
        title: read.title,
        about: read.about,
        names: names.collect(),
        methods: methods.collect(),
        file: file.to_string(),
    }
}

/// One parameter a line, or more lines within brackets: `[+|~]name[?]: shape [= default] [# what it is]`.
fn params(text: &str) -> Result<Vec<Param>, String> {
    let mut params = Vec::new();
    let mut pending = String::new();
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let (line, what) = match line.split_once('#') {
            Some((line, what)) => (line.trim(), what.trim()),
            None => (line, ""),
        };
        pending.push_str(line);
        pending.push(' ');
        let depth = |marks: &[char]| pending.matches(marks).count();
        if depth(&['{', '[', '(']) > depth(&['}', ']', ')']) {
            continue;
        }
        params.push(param(pending.trim(), what)?);
        pending.clear();
    }
    match pending.is_empty() {
        true => Ok(params),
        false => Err(format!("brackets are open: {pending}")),
    }
}

fn param(line: &str, what: &str) -> Result<Param, String> {
    let (line, default) = match line.split_once('=') {
        Some((line, default)) => (line.trim(), default.trim()),
        None => (line, ""),
    };
    let Some((name, shape)) = line.split_once(':') else {
        return Err(format!("`{line}` is no parameter"));
    };
    let (origin, name) = match name.chars().next() {
        Some('+') => (Origin::Ours, &name[1..]),
        Some('~') => (Origin::SomeVersions, &name[1..]),
        _ => (Origin::Spdk, name),
    };
    let (required, name) = match name.strip_suffix('?') {
        Some(name) => (false, name),
        None => (true, name),
    };
    Ok(Param {
        name: name.to_owned(),
        origin,
        required,
        shape: Shape::parse(shape)?,
        default: default.to_owned(),
        what: what.to_owned(),
    })
}
