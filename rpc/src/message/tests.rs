use super::*;
use proptest::prelude::*;
use serde_json::json;

fn single(text: &str) -> Item {
    match parse(text.as_bytes()).unwrap() {
        Message::Single(item) => item,
        Message::Batch(items) => panic!("{text}: a batch of {}", items.len()),
    }
}

fn call(text: &str) -> Call {
    single(text).unwrap()
}

fn id_of(id: &Id) -> Option<&str> {
    id.as_deref().map(RawValue::get)
}

/// The refusal's id and reason.
fn refusal(text: &str) -> (Option<String>, String) {
    let Invalid { id, error } = single(text).unwrap_err();
    assert_eq!(error.code, -32600, "{text}");
    let reason = error.message.strip_prefix("Invalid request: ").unwrap();
    (id_of(&id).map(str::to_owned), reason.to_owned())
}

#[test]
fn a_request_has_a_method_and_may_have_the_rest() {
    let call = call(r#"{"jsonrpc":"2.0","method":"m","params":{"a":1},"id":7}"#);
    assert_eq!(call.method, "m");
    assert_eq!(call.params.value(), Some(&json!({"a": 1})));
    assert_eq!(id_of(&call.id), Some("7"));
    let call = self::call(r#"{"method":"m"}"#);
    assert_eq!(call.params, Params::none());
    assert!(call.id.is_none());
}

#[test]
fn null_params_and_null_ids_are_absent_ones() {
    let call = call(r#"{"method":"m","params":null,"id":null}"#);
    assert_eq!(call.params, Params::none());
    assert!(call.id.is_none());
}

#[test]
fn an_id_is_kept_as_written() {
    for id in [
        "1",
        "1.0",
        "1e2",
        "-0",
        "123456789012345678901234567890",
        r#""\u0041\/""#,
        "\"\"",
    ] {
        let call = call(&format!("{{\"method\":\"m\",\"id\": {id} }}"));
        assert_eq!(id_of(&call.id), Some(id));
        let reply = encode(&call.id, &Ok(json!(true)), 1000).unwrap();
        assert_eq!(
            String::from_utf8(reply).unwrap(),
            format!("{{\"jsonrpc\":\"2.0\",\"id\":{id},\"result\":true}}")
        );
    }
}

#[test]
fn what_is_no_request_is_refused_with_its_id_and_a_reason() {
    for (text, id, reason) in [
        (r#"{"id":1}"#, Some("1"), "method is missing"),
        (
            r#"{"id":1,"method":7}"#,
            Some("1"),
            "method must be a string",
        ),
        (
            r#"{"method":"m","id":true}"#,
            None,
            "id must be a string, a number or null",
        ),
        (
            r#"{"method":"m","id":{"method":"m"}}"#,
            None,
            "id must be a string, a number or null",
        ),
        (
            r#"{"method":"m","id":"\ud800"}"#,
            None,
            "id must be a string, a number or null",
        ),
        (
            r#"{"method":"m","params":7,"id":1}"#,
            Some("1"),
            "params must be an object, an array or null",
        ),
        (
            r#"{"method":"m","jsonrpc":"1.0","id":1}"#,
            Some("1"),
            "jsonrpc must be \"2.0\" where given",
        ),
        (
            r#"{"method":"m","jsonrpc":2.0}"#,
            None,
            "jsonrpc must be \"2.0\" where given",
        ),
        (
            r#"{"method":"m","jsonrpc":null}"#,
            None,
            "jsonrpc must be \"2.0\" where given",
        ),
        (
            r#"{"method":"m","auth":{"x":[]},"id":1}"#,
            Some("1"),
            "unknown member \"auth\"",
        ),
        (
            r#"{"method":"m","method":"n","id":1}"#,
            Some("1"),
            "member \"method\" is given twice",
        ),
        (
            r#"{"id":1,"method":"m","id":2}"#,
            Some("2"),
            "member \"id\" is given twice",
        ),
        ("[]", None, "the batch is empty"),
        ("{}", None, "method is missing"),
    ] {
        assert_eq!(
            refusal(text),
            (id.map(str::to_owned), reason.to_owned()),
            "{text}"
        );
    }
}

#[test]
fn a_duplicate_parameter_leaves_the_request_valid() {
    use crate::params::DecodeStyle;
    let call = call(r#"{"method":"m","params":{"a":{"b":1,"b":2}}}"#);
    let error = call
        .params
        .decode::<Value>(DecodeStyle::INTERNAL)
        .unwrap_err();
    assert_eq!(error.code, -32603);
    assert_eq!(
        error.message,
        "Invalid parameters: b: the key is given twice"
    );
}

#[test]
fn a_wrong_element_of_a_batch_leaves_its_neighbours_alone() {
    let text = r#"[{"method":"a","id":1}, 7, {"x":1}, [{"method":"no"}], "s", null, true, -1, 0.5, {"method":"b"}]"#;
    let Message::Batch(items) = parse(text.as_bytes()).unwrap() else {
        panic!("not a batch");
    };
    let good: Vec<bool> = items.iter().map(Result::is_ok).collect();
    let mut want = vec![false; 10];
    (want[0], want[9]) = (true, true);
    assert_eq!(good, want);
}

#[test]
fn what_the_framer_leaves_open_is_a_parse_error() {
    for bytes in [
        &b"{\"method\":\"\xff\"}"[..],
        b"{\"method\":\"\\ud800\"}",
        b"{\"method\":\"m\",\"params\":[1e999]}",
        b"{\"\xc3\":1}",
        b"{\"method\":\"m\",\"id\":\"\xff\"}",
    ] {
        let error = parse(bytes).unwrap_err();
        assert_eq!(error.code, -32700);
        assert!(error.message.starts_with("Parse error: "), "{error}");
    }
}

#[test]
fn a_notification_is_answered_only_when_it_fails() {
    assert_eq!(encode(&None, &Ok(json!(true)), 1000), None);
    let reply = encode(&None, &Err(RpcError::new(-19, "x")), 1000).unwrap();
    assert_eq!(
        String::from_utf8(reply).unwrap(),
        r#"{"jsonrpc":"2.0","id":null,"error":{"code":-19,"message":"x"}}"#
    );
}

#[test]
fn a_reply_that_does_not_fit_becomes_an_error() {
    let id = RawValue::from_string("5".into()).ok();
    let outcome = Ok(json!("x".repeat(100)));
    let exact = encode(&id, &outcome, 1000).unwrap().len();
    assert_eq!(encode(&id, &outcome, exact).unwrap().len(), exact);
    let reply = encode(&id, &outcome, exact - 1).unwrap();
    let reply: Value = serde_json::from_slice(&reply).unwrap();
    assert_eq!(reply["id"], 5);
    assert_eq!(reply["error"]["code"], -32603);
}

proptest! {
    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
        let _ = parse(&bytes);
    }

    #[test]
    fn no_request_like_text_panics(
        members in prop::collection::vec(
            (
                prop::sample::select(vec!["id", "method", "params", "jsonrpc", "x"]),
                prop::sample::select(vec!["1", "null", "\"m\"", "{}", "[[]]", "\"2.0\"", "{\"a\":1,\"a\":2}", "1e999"]),
            ),
            0..6,
        ),
        batch in any::<bool>(),
    ) {
        let members: Vec<String> =
            members.iter().map(|(key, value)| format!("\"{key}\":{value}")).collect();
        let object = format!("{{{}}}", members.join(","));
        let text = if batch { format!("[{object},{object}]") } else { object };
        let valid = serde_json::from_str::<Value>(&text).is_ok();
        // An id is not evaluated as a number, so it may be out of range without harm to the frame.
        if valid {
            prop_assert!(parse(text.as_bytes()).is_ok());
        }
    }
}
