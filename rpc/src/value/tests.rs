use super::*;
use proptest::prelude::*;
use serde_json::json;

fn value(text: &str) -> Value {
    parse(text).unwrap().unwrap()
}

#[test]
fn whole_numbers_become_integers_however_they_are_written() {
    assert_eq!(value("1e3"), json!(1000));
    assert_eq!(value("2.0"), json!(2));
    assert_eq!(value("-2.50e1"), json!(-25));
    assert_eq!(value("[{\"a\":3.0}]"), json!([{"a": 3}]));
    assert_eq!(
        value("9007199254740992.0"),
        json!(9_007_199_254_740_992_u64)
    );
    assert_eq!(value("18446744073709551615"), json!(u64::MAX));
    assert_eq!(value("-9223372036854775808"), json!(i64::MIN));
}

#[test]
fn what_is_not_surely_whole_stays_a_float() {
    for text in [
        "0.5",
        "-0.0",
        "-0",
        "1e300",
        "9007199254740993.0e1",
        "36893488147419103232",
    ] {
        let value = value(text);
        assert!(value.is_f64(), "{text} became {value}");
        assert!(serde_json::from_value::<u64>(value).is_err());
    }
    assert!(parse("1e999").is_err());
}

#[test]
fn a_duplicate_key_is_named_wherever_it_stands() {
    assert_eq!(parse(r#"{"a":1,"a":2}"#).unwrap(), Err("a".to_owned()));
    assert_eq!(
        parse(r#"[{"x":{"b":1,"\u0062":2}}]"#).unwrap(),
        Err("b".to_owned())
    );
    assert!(parse(r#"[{"a":1},{"a":2}]"#).unwrap().is_ok());
}

#[test]
fn the_order_of_keys_is_kept() {
    let text = r#"{"name":"x","b":1,"a":2}"#;
    assert_eq!(value(text).to_string(), text);
}

proptest! {
    #[test]
    fn values_without_such_oddities_are_what_serde_json_makes_of_them(text in "[\\[\\]{}\",:0-9truefalsn\\\\ -]{0,40}") {
        let ours = parse(&text);
        let theirs = serde_json::from_str::<Value>(&text);
        prop_assert_eq!(ours.is_ok(), theirs.is_ok());
        if let (Ok(Ok(ours)), Ok(theirs)) = (ours, theirs) {
            prop_assert_eq!(ours, theirs);
        }
    }
}
