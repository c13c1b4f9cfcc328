//! Every RPC method against the table in `contract/*.toml`.
//!
//! The table says of each method when it may be called, its parameters, its result, and its codes. Here a daemon is held
//! against it, and it against SPDK's schema; `docs/RPC.md` is made of it. How to add a row stands in `contract/README.md`.

mod reference;
mod schema;
pub(crate) mod shape;
pub(crate) mod table;

use std::collections::BTreeSet;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use serde_json::{Map, Value, json};

use crate::common::{Daemon, directory, file};

use table::{Family, Method, Refused, When};

const METHOD_NOT_FOUND: i64 = -32601;
const WRONG_STATE: i64 = -1;

/// A parameter that no method has.
const UNKNOWN: &str = "no_such_parameter";

#[test]
fn the_table_has_every_method_and_no_other() {
    let families = table::read();
    let methods = || families.iter().flat_map(|family| &family.methods);
    let mut problems = Vec::new();
    let mut seen = BTreeSet::new();
    for method in methods() {
        for name in std::iter::once(&method.name).chain(&method.aliases) {
            if !seen.insert(name.as_str()) {
                problems.push(format!("{name} stands in the table twice"));
            }
        }
    }
    let place = directory();
    let mut daemon = Daemon::start(place.path(), &["--wait-for-rpc"]);
    let listed = |daemon: &mut Daemon, params: Value| -> BTreeSet<String> {
        let names = daemon.ok("rpc_get_methods", params);
        serde_json::from_value(names).expect("a list of names")
    };
    let all = listed(&mut daemon, json!({"include_aliases": true}));
    for name in all.iter().filter(|name| !seen.contains(name.as_str())) {
        problems.push(format!(
            "{name} has no row: add this to the file of its family in tests/daemon/contract and fill it in \
             (tests/daemon/contract/README.md says how)\n\n[methods.{name}]\nwhat = \"…\"\nparams = '''\n'''\n\
             result = 'true'\nexample = {{}}\n"
        ));
    }
    for name in seen.iter().filter(|name| !all.contains(**name)) {
        problems.push(format!(
            "{name} has a row, but the daemon has no such method"
        ));
    }
    let plain = listed(&mut daemon, json!({}));
    for method in methods() {
        for alias in &method.aliases {
            if plain.contains(alias) {
                problems.push(format!("{alias} is a method of its own, not an alias"));
            }
        }
    }
    for (other, init) in [(When::Runtime, true), (When::Startup, false)] {
        let current = listed(&mut daemon, json!({"current": true}));
        for method in methods().filter(|method| all.contains(&method.name)) {
            if current.contains(&method.name) != (method.state != other) {
                let state = if init { "before" } else { "after" };
                problems.push(format!(
                    "{} is {:?} in the table, which is not when it can be called: {state} framework_start_init \
                     rpc_get_methods current=true {} it",
                    method.name,
                    method.state,
                    if current.contains(&method.name) { "names" } else { "does not name" },
                ));
            }
        }
        if init {
            daemon.ok("framework_start_init", Value::Null);
        }
    }
    daemon.stop();
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

#[test]
fn every_method_answers_as_the_table_says() {
    let mut problems = Vec::new();
    for family in table::read() {
        problems.extend(Trial::of(&family));
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

/// A family's methods, called.
struct Trial<'a> {
    family: &'a Family,
    daemon: Daemon,
    place: &'a Path,
    problems: Vec<String>,
}

impl<'a> Trial<'a> {
    fn of(family: &'a Family) -> Vec<String> {
        let place = directory();
        for name in ["vm0", "vm1", "vm2", "vm3"] {
            std::fs::create_dir(place.path().join(name)).expect("a directory");
        }
        for name in ["0.img", "1.img", "2.img", "3.img"] {
            file(place.path(), name, 1 << 20);
        }
        let key = file(place.path(), "key", 64);
        std::fs::set_permissions(key, Permissions::from_mode(0o600)).expect("a mode");
        let sockets = place.path().to_str().expect("a path");
        let args = ["--wait-for-rpc", "-S", sockets, "-m", "0x1"];
        let mut trial = Trial {
            family,
            daemon: Daemon::start(place.path(), &args),
            place: place.path(),
            problems: Vec::new(),
        };
        trial.run();
        let Trial {
            daemon, problems, ..
        } = trial;
        daemon.stop();
        problems
    }

    fn run(&mut self) {
        let methods = &self.family.methods;
        for method in methods {
            match method.state {
                When::Runtime => self.code(method, "too early", Value::Null, WRONG_STATE),
                When::Startup if method.name != "framework_start_init" => self.method(method),
                When::Startup => self.refusals(method),
                When::Always => self.refusals(method),
            }
        }
        let started = self.daemon.call("framework_start_init", Value::Null);
        if started != Ok(json!(true)) {
            self.problem("framework_start_init", &format!("answers {started:?}"));
        }
        for method in methods {
            match method.state {
                When::Startup => {
                    self.code(method, "too late", Value::Null, WRONG_STATE);
                    self.saved(method);
                }
                When::Runtime | When::Always => self.method(method),
            }
        }
    }

    fn problem(&mut self, method: &str, text: &str) {
        let file = &self.family.file;
        self.problems.push(format!("{file}.toml, {method}: {text}"));
    }

    /// `$DIR` in texts is the trial's directory.
    fn placed(&self, value: &Value) -> Value {
        match value {
            Value::String(text) => text.replace("$DIR", &self.place.to_string_lossy()).into(),
            Value::Array(elements) => elements.iter().map(|it| self.placed(it)).collect(),
            Value::Object(members) => {
                let members = members.iter();
                let members = members.map(|(name, it)| (name.clone(), self.placed(it)));
                members.collect::<Map<_, _>>().into()
            }
            other => other.clone(),
        }
    }

    fn call(&mut self, method: &str, params: &Value) -> Result<Value, (i64, String)> {
        let params = match self.placed(params) {
            // Methods without parameters take none, not even an empty object, in SPDK.
            Value::Object(members) if members.is_empty() => Value::Null,
            params => params,
        };
        self.daemon.call(method, params)
    }

    /// A call must be refused with this code.
    fn code(&mut self, method: &Method, why: &str, params: Value, code: i64) {
        let answer = self.call(&method.name, &params);
        match answer {
            Err((found, _)) if found == code => {}
            Err((METHOD_NOT_FOUND, _)) => {
                self.problem(&method.name, "there is no such method");
            }
            answer => {
                let text = format!("{why}: {params} is answered with {answer:?}, not {code}");
                self.problem(&method.name, &text);
            }
        }
    }

    fn method(&mut self, method: &Method) {
        for (name, params) in &method.before {
            if let Err(error) = self.call(name, params) {
                let text = format!("the call before, {name} {params}, fails: {error:?}");
                return self.problem(&method.name, &text);
            }
        }
        self.refusals(method);
        for refused in &method.refused {
            let mut params = method.example.clone();
            params.extend(refused.members.clone());
            let answer = self.call(&method.name, &params.into());
            let is_right = matches!(&answer, Err((code, text)) if *code == refused.code && text.contains(&refused.text));
            if !is_right {
                let Refused {
                    members,
                    code,
                    text,
                } = refused;
                let text = format!(
                    "the example with {} is answered with {answer:?}, not {code} {text:?}",
                    Value::from(members.clone())
                );
                self.problem(&method.name, &text);
            }
        }
        let mut params = method.example.clone();
        if method.codes.unknown.is_none() {
            params.insert(UNKNOWN.to_owned(), 1.into());
        }
        match self.call(&method.name, &params.into()) {
            Err((code, _)) if method.fails == Some(code) => {}
            Ok(result) => {
                if let Err(reason) = method.result.check(&result, &self.family.names) {
                    let text = format!("the result{}{reason}\nwhole: {result}", space(&reason));
                    self.problem(&method.name, &text);
                }
                // Nothing is saved before initialization; the startup methods are looked at afterwards.
                if method.state != When::Startup {
                    self.saved(method);
                }
            }
            Err(error) => self.problem(&method.name, &format!("the example fails: {error:?}")),
        }
        for (name, params) in &method.after {
            if let Err(error) = self.call(name, params) {
                let text = format!("the call after, {name} {params}, fails: {error:?}");
                self.problem(&method.name, &text);
            }
        }
    }

    /// Parameters that are unknown, missing, or of another type.
    fn refusals(&mut self, method: &Method) {
        let names = &self.family.names;
        let codes = method.codes;
        let with = |key: &str, value: Value| {
            let mut params = method.example.clone();
            params.insert(key.to_owned(), value);
            Value::from(params)
        };
        if let Some(code) = codes.unknown {
            self.code(
                method,
                "an unknown parameter",
                with(UNKNOWN, 1.into()),
                code,
            );
        }
        for param in &method.params {
            let name = &param.name;
            if param.required {
                let mut params = method.example.clone();
                if params.remove(name).is_none() {
                    self.problem(&method.name, &format!("the example lacks {name}"));
                }
                let why = format!("{name} is missing");
                self.code(method, &why, params.into(), codes.missing);
            }
            if let Some(value) = param.shape.wrong(names) {
                let why = format!("{name} is of another type");
                self.code(method, &why, with(name, value), codes.wrong);
            }
            let members = param.shape.closed_members(names).unwrap_or_default();
            let Some(Value::Object(inner)) = method.example.get(name) else {
                continue;
            };
            for member in members {
                if let Some(value) = member.shape.wrong(names) {
                    let mut inner = inner.clone();
                    inner.insert(member.name.clone(), value);
                    let why = format!("{name}.{} is of another type", member.name);
                    self.code(method, &why, with(name, inner.into()), codes.wrong);
                }
                if member.required {
                    let mut inner = inner.clone();
                    inner.remove(&member.name);
                    let why = format!("{name}.{} is missing", member.name);
                    self.code(method, &why, with(name, inner.into()), codes.missing);
                }
            }
            let is_closed = param.shape.closed_members(names).is_some();
            if is_closed {
                let mut inner = inner.clone();
                inner.insert(UNKNOWN.to_owned(), 1.into());
                let why = format!("{name} has an unknown member");
                self.code(method, &why, with(name, inner.into()), codes.wrong);
            }
        }
        for name in method.example.keys() {
            if method.params.iter().all(|param| param.name != *name) {
                self.problem(&method.name, &format!("the example has {name}, params not"));
            }
        }
    }

    /// What was called must be saved as it was called, with the defaults of the table.
    fn saved(&mut self, method: &Method) {
        let Some(subsystem) = &method.saved else {
            return;
        };
        let config = self
            .daemon
            .ok("framework_get_config", json!({"name": subsystem}));
        let calls = config.as_array().cloned().unwrap_or_default();
        let mut calls = calls.into_iter().rev();
        let Some(call) = calls.find(|call| call["method"] == method.name.as_str()) else {
            return self.problem(
                &method.name,
                &format!("is not saved in {subsystem}: {config}"),
            );
        };
        let example = self.placed(&method.example.clone().into());
        let Value::Object(found) = call["params"].clone() else {
            return;
        };
        for (name, value) in &found {
            let Some(param) = method.params.iter().find(|param| param.name == *name) else {
                self.problem(
                    &method.name,
                    &format!("is saved with {name}, which is unknown"),
                );
                continue;
            };
            if let Err(reason) = param.shape.check(value, &self.family.names) {
                let text = format!("is saved with {name}{}{reason}", space(&reason));
                self.problem(&method.name, &text);
            }
            let expected = match example.get(name) {
                Some(value) => Some(value.clone()),
                None => param.default.parse().ok(),
            };
            let is_object = value.is_object();
            if let Some(expected) = expected.filter(|it| !is_object && it != value) {
                let text = format!("is saved with {name} = {value}, not {expected}");
                self.problem(&method.name, &text);
            }
        }
    }
}

/// Words follow after a space, a place within at once.
fn space(reason: &str) -> &'static str {
    match reason.starts_with(['.', '[']) {
        true => "",
        false => " ",
    }
}
