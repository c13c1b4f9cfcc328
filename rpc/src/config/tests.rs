use super::*;
use crate::params::DecodeStyle;
use proptest::prelude::*;
use serde_json::{Value, json};

fn parse(text: &str) -> Config {
    Config::parse(text.as_bytes()).unwrap()
}

/// The refusal's line, column and reason.
fn refusal(text: &str) -> (usize, usize, String) {
    match Config::parse(text.as_bytes()) {
        Err(ConfigError::Syntax {
            line,
            column,
            reason,
            path: None,
        }) => (line, column, reason),
        other => panic!("{text}: {other:?}"),
    }
}

fn call(method: &str, params: Value, (line, column, number): (usize, usize, usize)) -> Call {
    Call {
        method: method.into(),
        params: params.into(),
        place: Place {
            line,
            column,
            number,
        },
    }
}

#[test]
fn calls_and_batches_keep_their_order_and_lines() {
    let config = parse(
        r#"{
  "comment": "ignored",
  "subsystems": [
    {"subsystem": "bdev", "config": [
      {"method": "a", "params": {"n": 1e3}}, {"method": "b"},

      [],
      [{"method": "c"},
       {"params": null, "method": "d"}]
    ]},
    {"subsystem": "scsi", "config": null},
    {"subsystem": "sock"},
    {"config": [], "subsystem": "nvmf"}
  ]
}"#,
    );
    let names: Vec<&str> = config.subsystems.iter().map(|s| s.name.as_str()).collect();
    assert_eq!(names, ["bdev", "scsi", "sock", "nvmf"]);
    assert_eq!(
        config.subsystems[0].entries,
        [
            Entry::Call(call("a", json!({"n": 1000}), (5, 7, 1))),
            Entry::Call(call("b", Value::Null, (5, 46, 2))),
            Entry::Batch(vec![
                call("c", Value::Null, (8, 8, 3)),
                call("d", Value::Null, (9, 8, 4))
            ]),
        ]
    );
    assert!(config.subsystems[1..].iter().all(|s| s.entries.is_empty()));
}

#[test]
fn comments_may_stand_between_any_tokens() {
    let config = parse(
        "// head\n/* many\n lines */{\"subsystems\":/**/[{//\"\n\"subsystem\":\"b\",\r\n\"config\":[\n\
         {\"method\":/*\"*/\"http://x/*y*/\\\"//\"}// last\n]}]}//",
    );
    let entry = Entry::Call(call("http://x/*y*/\"//", Value::Null, (6, 1, 1)));
    assert_eq!(config.subsystems[0].entries, [entry]);
}

#[test]
fn mistakes_are_placed() {
    let (line, column, reason) = refusal("{\n\"subsystems\": [\n  {\"subsystem\": \"b\", }\n]}");
    assert_eq!((line, reason.as_str()), (3, "trailing comma"));
    assert!(column >= 21, "{column}");
    assert_eq!(refusal("{}\n/* x").0, 2);
    assert_eq!(refusal("{} /* x *").1, 4);
    assert_eq!(refusal("").0, 1);
    for (text, line, part) in [
        ("{\"subsystems\": 5}", 1, "invalid type"),
        ("[]", 1, "invalid"),
        (
            "{\"subsystems\":[{\"subsystem\":\"b\",\"config\":[\n7]}]}",
            2,
            "expected a call",
        ),
        (
            "{\"subsystems\":[{\"subsystem\":\"b\",\"config\":[\n{}]}]}",
            2,
            "missing field `method`",
        ),
        (
            "{\"subsystems\":[{\"subsystem\":\"b\",\"config\":[\n[{\"method\":\"m\"},3]]}]}",
            2,
            "invalid type",
        ),
        (
            "{\"subsystems\":[{\"subsystem\":\"b\",\"config\":[\n{\"method\":\"m\",\n\"parms\":{}}]}]}",
            3,
            "unknown field `parms`",
        ),
        (
            "{\"subsystems\":[{\"subsystem\":\"b\",\"config\":[\n{\"method\":\"m\",\n\"params\":{\"a\":1,\"a\":2}}]}]}",
            3,
            "the key \"a\" is given twice",
        ),
        (
            "{\"subsystems\":[]}\n# shell comment",
            2,
            "trailing characters",
        ),
        (
            "{\"subsystems\":[{\"subsystem\":\"b\",\"x\":1}]}",
            1,
            "unknown field `x`",
        ),
    ] {
        let (at, _, reason) = refusal(text);
        assert_eq!(at, line, "{text}: {reason}");
        assert!(reason.contains(part), "{text}: {reason}");
        assert!(!reason.contains("line"), "{reason}");
    }
}

#[test]
fn a_file_that_cannot_be_used_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("vtarget.json");
    let missing = Config::read(&path).unwrap_err();
    assert!(missing.to_string().contains("vtarget.json"), "{missing}");
    fs::write(&path, "{\n x").unwrap();
    let text = Config::read(&path).unwrap_err().to_string();
    assert!(
        text.contains("vtarget.json\", line 2, column 2: key must be a string"),
        "{text}"
    );
    fs::write(&path, "{\"subsystems\":[]}").unwrap();
    assert_eq!(Config::read(&path).unwrap(), Config::default());
    fs::write(&path, "{}").unwrap();
    assert_eq!(Config::read(&path).unwrap(), Config::default());
}

#[test]
fn parameters_reach_the_decoder() {
    let config =
        parse(r#"{"subsystems":[{"subsystem":"b","config":[{"method":"m","params":{"a":2.0}}]}]}"#);
    let Some(Entry::Call(call)) = config.subsystems[0].entries.first().cloned() else {
        panic!("no call");
    };
    #[derive(serde::Deserialize)]
    struct A {
        a: u8,
    }
    assert_eq!(call.params.decode::<A>(DecodeStyle::INTERNAL).unwrap().a, 2);
}

proptest! {
    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
        let _ = Config::parse(&bytes);
    }

    #[test]
    fn blanking_keeps_every_place(text in "[a/*\"\\\\\n ]{0,40}") {
        if let Ok(blank) = blank_comments(text.as_bytes()) {
            prop_assert_eq!(blank.len(), text.len());
            for (was, is) in text.bytes().zip(blank) {
                prop_assert!(is == was || (is == b' ' && was != b'\n'));
            }
        }
    }
}
