use serde_json::{Value, json};

use super::parse_params;

fn parse(words: &[&str]) -> Result<Value, String> {
    let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
    parse_params(&words).map_err(|error| error.to_string())
}

#[test]
fn words_become_json() {
    assert_eq!(parse(&[]), Ok(Value::Null));
    assert_eq!(
        parse(&[
            "name=disk0",
            "block_size=512",
            "readonly=true",
            "uuid=6b0a9f7c-7d3c-4ad5-9b9c-8a0b4d8b2a01"
        ]),
        Ok(json!({
            "name": "disk0", "block_size": 512, "readonly": true,
            "uuid": "6b0a9f7c-7d3c-4ad5-9b9c-8a0b4d8b2a01",
        }))
    );
    assert_eq!(
        parse(&["a.b.c=1", "a.b.d=x=y", "a.e=", "trsvcid=\"0\"", "l=[1,2]"]),
        Ok(json!({"a": {"b": {"c": 1, "d": "x=y"}, "e": ""}, "trsvcid": "0", "l": [1, 2]}))
    );
}

#[test]
fn one_object_is_taken_as_it_is() {
    assert_eq!(parse(&[r#" {"name": "a b"}"#]), Ok(json!({"name": "a b"})));
    assert!(parse(&["{"]).is_err());
}

#[test]
fn mistakes_are_named() {
    for (words, part) in [
        (vec!["name"], "`name` is no parameter"),
        (vec!["a=1", "a=2"], "`a` is given twice"),
        (vec!["a=1", "a.b=2"], "both as a value and as an object"),
        (vec!["=1"], "is no key"),
        (vec!["a..b=1"], "is no key"),
    ] {
        let error = parse(&words).expect_err("a mistake");
        assert!(error.contains(part), "{error}");
    }
}
