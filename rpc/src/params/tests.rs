use super::*;
use crate::value;
use serde::Deserialize;

#[derive(Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
struct Create {
    name: String,
    num_blocks: u64,
    #[serde(default)]
    block_size: u32,
    uuid: Option<String>,
    address: Option<Address>,
}

#[derive(Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
struct Address {
    trtype: Kind,
}

#[derive(Debug, Deserialize, PartialEq)]
enum Kind {
    #[serde(rename = "VFIOUSER")]
    VfioUser,
}

fn params(text: &str) -> Params {
    Params::from(value::parse(text).unwrap().unwrap())
}

fn refusal(text: &str) -> String {
    let error = params(text)
        .decode::<Create>(DecodeStyle::INTERNAL)
        .unwrap_err();
    assert_eq!(error.code, -32603);
    let reason = error.message.strip_prefix("Invalid parameters: ");
    reason.unwrap().to_owned()
}

#[test]
fn named_parameters_are_decoded() {
    let create: Create = params(
        r#"{"name":"m","num_blocks":1e3,"block_size":512.0,"address":{"trtype":"VFIOUSER"}}"#,
    )
    .decode(DecodeStyle::INTERNAL)
    .unwrap();
    assert_eq!(create.num_blocks, 1000);
    assert_eq!(create.block_size, 512);
    assert_eq!(create.address.unwrap().trtype, Kind::VfioUser);
}

#[test]
fn a_refusal_names_the_key() {
    assert_eq!(refusal("{\"name\":\"m\"}"), "missing field `num_blocks`");
    assert_eq!(refusal("null"), "missing field `name`");
    assert_eq!(
        refusal(r#"{"name":"m","num_blocks":"8"}"#),
        "num_blocks: invalid type: string \"8\", expected u64"
    );
    assert_eq!(
        refusal(r#"{"name":"m","num_blocks":-8}"#),
        "num_blocks: invalid value: integer `-8`, expected u64"
    );
    assert_eq!(
        refusal(r#"{"name":"m","num_blocks":0.5}"#),
        "num_blocks: invalid type: floating point `0.5`, expected u64"
    );
    assert_eq!(
        refusal(r#"{"name":"m","num_blocks":1,"block_size":4294967296}"#),
        "block_size: invalid value: integer `4294967296`, expected u32"
    );
    let unknown = refusal(r#"{"name":"m","num_blocks":1,"size":3}"#);
    assert!(
        unknown.starts_with("unknown field `size`, expected one of `name`"),
        "{unknown}"
    );
    let kind = refusal(r#"{"name":"m","num_blocks":1,"address":{"trtype":"vfiouser"}}"#);
    assert!(
        kind.starts_with("address.trtype: unknown variant `vfiouser`, expected `VFIOUSER`"),
        "{kind}"
    );
    assert_eq!(
        refusal(r#"["m",8]"#),
        "expected an object of named parameters, not an array"
    );
}

#[test]
fn a_defect_is_answered_in_the_family_s_style() {
    let params = Params::with_defect(serde_json::json!({}), Some("duplicate key".into()));
    for (style, code, text) in [
        (
            DecodeStyle::INVALID_PARAMS,
            -32602,
            "Invalid parameters: duplicate key",
        ),
        (
            DecodeStyle::INTERNAL,
            -32603,
            "Invalid parameters: duplicate key",
        ),
        (
            DecodeStyle::PARSE_ERROR,
            -32700,
            "Invalid parameters: duplicate key",
        ),
        (
            DecodeStyle::INVALID_ARGUMENT,
            -32602,
            "Invalid argument: duplicate key",
        ),
    ] {
        let error = params.clone().decode::<Value>(style).unwrap_err();
        assert_eq!((error.code, error.message.as_str()), (code, text));
    }
}

#[test]
fn absent_parameters_decode_as_an_empty_object() {
    #[derive(Deserialize, PartialEq, Debug)]
    struct Filter {
        name: Option<String>,
    }
    for params in [Params::none(), params("null"), params("{}"), params("[]")] {
        let filter: Filter = params.decode(DecodeStyle::INVALID_PARAMS).unwrap();
        assert_eq!(filter, Filter { name: None });
    }
}

#[test]
fn a_method_without_parameters_refuses_any() {
    for none in [Params::none(), params("null"), params("{}"), params("[]")] {
        assert_eq!(none.expect_none(), Ok(()));
    }
    let error = params(r#"{"a":1,"b":2}"#).expect_none().unwrap_err();
    assert_eq!(error.code, -32602);
    assert!(error.message.ends_with("remove a, b"), "{error}");
    assert_eq!(params("[1]").expect_none().unwrap_err().code, -32602);
}
