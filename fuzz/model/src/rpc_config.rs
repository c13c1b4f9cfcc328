//! A configuration file as a person might have damaged it.
//!
//! Input: the file.

use rpc::config::{Call, Config, ConfigError, Entry};
use rpc::{DecodeStyle, Params};
use serde::de::IgnoredAny;
use serde_json::Value;

use crate::Seed;

/// Runs one input.
pub fn run(text: &[u8]) {
    let result = Config::parse(text);
    let lines = text.iter().filter(|&&byte| byte == b'\n').count() + 1;
    match &result {
        Ok(config) => {
            check_lines(config, lines);
            calls(config).for_each(|call| check_params(&call.params));
        }
        Err(ConfigError::Syntax {
            path,
            line,
            column,
            reason,
        }) => {
            assert_eq!(*path, None);
            assert!(!reason.is_empty());
            // serde_json tells no place of a mistake found only when an object has ended.
            assert!(*line <= lines && *column <= text.len() + 1);
        }
        Err(error) => panic!("{error}"),
    }
    check_against_json(text, &result);
    check_moved(text, &result);
}

fn calls(config: &Config) -> impl Iterator<Item = &Call> {
    let entries = config.subsystems.iter().flat_map(|part| &part.entries);
    entries.flat_map(|entry| match entry {
        Entry::Call(call) => std::slice::from_ref(call),
        Entry::Batch(calls) => calls,
    })
}

fn check_lines(config: &Config, lines: usize) {
    let mut last = (1, 0);
    for call in calls(config) {
        let place = call.place;
        assert!(place.line <= lines && place.number > 0);
        assert!((place.line, place.column) > last);
        last = (place.line, place.column);
    }
    let mut entries = config.subsystems.iter().flat_map(|part| &part.entries);
    assert!(entries.all(|entry| !matches!(entry, Entry::Batch(calls) if calls.is_empty())));
}

/// Decodes into a structure with a bit of everything, as methods do.
fn check_params(params: &Params) {
    #[derive(serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Typical {
        name: String,
        num_blocks: Option<u64>,
        #[serde(default)]
        block_size: u32,
        #[serde(default)]
        read_only: bool,
        #[serde(default)]
        namespaces: Vec<Value>,
    }
    if params.is_empty() {
        assert!(params.clone().expect_none().is_ok());
    } else {
        assert!(params.clone().expect_none().is_err());
    }
    match params.clone().decode::<Typical>(DecodeStyle::INTERNAL) {
        Ok(typical) => {
            let value = params.value().expect("a name at least");
            assert_eq!(value["name"], typical.name.as_str());
            assert_eq!(
                value.get("num_blocks").and_then(Value::as_u64),
                typical.num_blocks
            );
            let number = value.get("block_size").and_then(Value::as_u64);
            assert_eq!(number.unwrap_or(0), u64::from(typical.block_size));
            let flag = value.get("read_only").and_then(Value::as_bool);
            assert_eq!(flag.unwrap_or(false), typical.read_only);
            let list = value.get("namespaces").and_then(Value::as_array);
            assert_eq!(list.map_or(0, Vec::len), typical.namespaces.len());
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

/// Without slashes there are no comments: then whatever is taken is JSON of the right shape.
fn check_against_json(text: &[u8], result: &Result<Config, ConfigError>) {
    let (Ok(config), false) = (result, text.contains(&b'/')) else {
        return;
    };
    serde_json::from_slice::<IgnoredAny>(text).expect("JSON");
    // Members that nobody reads may hold what is no value: a lone surrogate, a number beyond all range.
    let Ok(value) = serde_json::from_slice::<Value>(text) else {
        return;
    };
    // serde takes an array for the members of a structure in their order.
    let member = |value: &Value, name: &str, at: usize| {
        let found = value.get(name).or_else(|| value.get(at));
        found.cloned().unwrap_or_default()
    };
    let subsystems = member(&value, "subsystems", 0);
    // No subsystems are as good as an empty list of them.
    let subsystems = subsystems.as_array().into_iter().flatten();
    assert_eq!(subsystems.clone().count(), config.subsystems.len());
    for (value, subsystem) in subsystems.zip(&config.subsystems) {
        assert_eq!(member(value, "subsystem", 0), subsystem.name.as_str());
        let config = member(value, "config", 1);
        let entries = config.as_array().into_iter().flatten();
        let entries = entries.filter(|entry| !entry.as_array().is_some_and(Vec::is_empty));
        assert_eq!(entries.count(), subsystem.entries.len());
    }
}

/// Comments and empty lines in front move everything and change nothing.
fn check_moved(text: &[u8], result: &Result<Config, ConfigError>) {
    let moved = Config::parse(&[b"// \"{\n/* \"\n*/\n".as_slice(), text].concat());
    match (result, moved) {
        (Ok(config), Ok(mut moved)) => {
            for subsystem in &mut moved.subsystems {
                for entry in &mut subsystem.entries {
                    match entry {
                        Entry::Call(call) => call.place.line -= 3,
                        Entry::Batch(calls) => {
                            calls.iter_mut().for_each(|call| call.place.line -= 3)
                        }
                    }
                }
            }
            assert_eq!(*config, moved);
        }
        (Err(error), Err(moved)) => {
            let ConfigError::Syntax { line, reason, .. } = error else {
                panic!("{error}");
            };
            let ConfigError::Syntax {
                line: moved_line,
                reason: moved_reason,
                ..
            } = moved
            else {
                panic!("{moved}");
            };
            assert_eq!(*reason, moved_reason);
            assert!(moved_line == *line + 3 || *line == 0);
        }
        (before, after) => panic!("{before:?} became {after:?}"),
    }
}

/// Files that are right, and the usual mistakes.
pub fn seeds() -> Vec<Seed> {
    const FULL: &str = r#"{
  "subsystems": [
    // Disks first.
    {"subsystem": "bdev", "config": [
      {"method": "bdev_malloc_create", "params": {"name": "Malloc0", "num_blocks": 1e3, "block_size": 512}},
      /* Two
         at once. */
      [{"method": "bdev_wait_for_examine"}, {"method": "bdev_set_options", "params": {"a": [null, -1.5, "\u00e4 // \" */"]}}]
    ]},
    {"subsystem": "nvmf", "config": [{"method": "nvmf_create_transport", "params": {"trtype": "VFIOUSER"}}]},
    {"subsystem": "scsi", "config": null},
    {"subsystem": "keyring"}
  ],
  "comment": "kept out of it"
}
"#;
    let seed = |name: &str, text: &str| (name.to_owned(), text.as_bytes().to_vec());
    vec![
        seed("full", FULL),
        seed("empty", r#"{"subsystems": []}"#),
        seed("open-comment", "{\"subsystems\": [] /* "),
        seed("open-string", "{\"subsystems\": [\"//"),
        seed("line-comment-at-end", "{\"subsystems\": []}//"),
        seed(
            "twice",
            r#"{"subsystems":[{"subsystem":"a","config":[{"method":"m","params":{"k":1,"k":2}}]}]}"#,
        ),
        seed(
            "unknown-member",
            r#"{"subsystems":[{"subsystem":"a","configs":[]}]}"#,
        ),
        seed(
            "empty-batch",
            r#"{"subsystems":[{"subsystem":"a","config":[[]]}]}"#,
        ),
        seed(
            "typical",
            r#"{"subsystems":[{"subsystem":"a","config":[{"method":"m","params":{"name":"n","num_blocks":9,"block_size":512,"read_only":true,"namespaces":[1]}}]}]}"#,
        ),
        seed(
            "wrong-types",
            r#"{"subsystems":[{"subsystem":"a","config":[{"method":"m","params":{"name":1}},{"method":"m","params":[1]},{"method":"m","params":"x"}]}]}"#,
        ),
    ]
}
