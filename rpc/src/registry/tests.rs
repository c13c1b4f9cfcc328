use super::*;
use serde_json::json;
use std::sync::mpsc;

#[derive(Default)]
struct Daemon {
    parked: Vec<Responder>,
}

fn registry() -> Registry<Daemon> {
    let mut registry = Registry::<Daemon>::new();
    registry
        .method("set_options", When::Startup, |_, params| {
            params.expect_none()?;
            Ok(json!("options"))
        })
        .unwrap()
        .method("get_bdevs", When::Runtime, |_, _| Ok(json!([])))
        .unwrap()
        .deferred("wait_init", When::Always, |daemon, _, responder| {
            daemon.parked.push(responder);
        })
        .unwrap()
        .alias("bdevs", "get_bdevs")
        .unwrap();
    registry
}

/// Dispatches one call; the receiver gets its answer.
fn dispatch(
    registry: &Registry<Daemon>,
    daemon: &mut Daemon,
    state: State,
    method: &str,
    params: Value,
) -> mpsc::Receiver<Result<Value, RpcError>> {
    let (sender, answer) = mpsc::channel();
    let request = Request {
        method: method.into(),
        params: params.into(),
        caller: crate::caller::Caller::default(),
        responder: Responder::new(move |outcome| sender.send(outcome).unwrap()),
    };
    registry.dispatch(daemon, state, request);
    answer
}

fn call(
    registry: &Registry<Daemon>,
    state: State,
    method: &str,
    params: Value,
) -> Result<Value, RpcError> {
    let answer = dispatch(registry, &mut Daemon::default(), state, method, params);
    answer.try_recv().unwrap()
}

#[test]
fn a_method_answers_in_its_state_only() {
    let registry = registry();
    let set = |state| call(&registry, state, "set_options", Value::Null);
    let get = |state| call(&registry, state, "get_bdevs", Value::Null);
    assert_eq!(set(State::Startup), Ok(json!("options")));
    assert_eq!(get(State::Runtime), Ok(json!([])));
    let late = set(State::Runtime).unwrap_err();
    assert_eq!(late.code, -1);
    assert!(late.message.contains("--wait-for-rpc"), "{late}");
    let early = get(State::Startup).unwrap_err();
    assert_eq!(early.code, -1);
    assert!(early.message.contains("framework_start_init"), "{early}");
}

#[test]
fn an_error_of_a_handler_is_the_answer() {
    let error = call(&registry(), State::Startup, "set_options", json!({"a": 1})).unwrap_err();
    assert_eq!(error.code, -32602);
}

#[test]
fn unknown_and_forbidden_methods_look_the_same() {
    let mut registry = registry();
    let unknown = call(&registry, State::Runtime, "nonsense", Value::Null);
    assert_eq!(unknown, Err(RpcError::method_not_found()));
    let allowed = ["get_bdevs", "rpc_get_methods", "get_bdevz"].map(String::from);
    assert_eq!(registry.allow_only(allowed), ["get_bdevz"]);
    for (method, answers) in [
        ("get_bdevs", true),
        ("rpc_get_methods", true),
        ("set_options", false),
        ("bdevs", false),
        ("get_bdevz", false),
    ] {
        let outcome = call(&registry, State::Runtime, method, Value::Null);
        assert_eq!(outcome.is_ok(), answers, "{method}");
        assert_eq!(registry.when(method).is_some(), answers, "{method}");
    }
    let listed = call(
        &registry,
        State::Runtime,
        "rpc_get_methods",
        json!({"include_aliases": true}),
    );
    assert_eq!(listed, Ok(json!(["get_bdevs", "rpc_get_methods"])));
}

#[test]
fn rpc_get_methods_lists_by_state_and_alias() {
    let registry = registry();
    let list = |state, params| call(&registry, state, "rpc_get_methods", params).unwrap();
    assert_eq!(
        list(State::Startup, Value::Null),
        json!(["get_bdevs", "rpc_get_methods", "set_options", "wait_init"])
    );
    assert_eq!(
        list(State::Startup, json!({"current": true})),
        json!(["rpc_get_methods", "set_options", "wait_init"])
    );
    assert_eq!(
        list(
            State::Runtime,
            json!({"current": true, "include_aliases": true})
        ),
        json!(["bdevs", "get_bdevs", "rpc_get_methods", "wait_init"])
    );
    let error = call(
        &registry,
        State::Runtime,
        "rpc_get_methods",
        json!({"all": true}),
    );
    assert_eq!(error.unwrap_err().code, -32602);
}

#[test]
fn an_alias_behaves_as_its_method() {
    let registry = registry();
    assert_eq!(
        call(&registry, State::Runtime, "bdevs", Value::Null),
        Ok(json!([]))
    );
    assert_eq!(
        call(&registry, State::Startup, "bdevs", Value::Null)
            .unwrap_err()
            .code,
        -1
    );
    assert_eq!(registry.when("bdevs"), Some(When::Runtime));
}

#[test]
fn a_deferred_method_answers_later_and_a_dropped_one_answers_too() {
    let registry = registry();
    let mut daemon = Daemon::default();
    let first = dispatch(
        &registry,
        &mut daemon,
        State::Startup,
        "wait_init",
        Value::Null,
    );
    let second = dispatch(
        &registry,
        &mut daemon,
        State::Runtime,
        "wait_init",
        Value::Null,
    );
    assert!(first.try_recv().is_err());
    daemon.parked.remove(0).ok(true);
    assert_eq!(first.try_recv().unwrap(), Ok(json!(true)));
    drop(daemon);
    let gone = second.try_recv().unwrap().unwrap_err();
    assert_eq!(gone.code, -32603);
}

#[test]
fn mistakes_of_registration_are_found() {
    let mut registry = registry();
    let duplicate = registry.method("bdevs", When::Always, |_, _| Ok(Value::Null));
    assert_eq!(duplicate.err(), Some(RegistryError::Duplicate("bdevs")));
    let taken = registry.method("rpc_get_methods", When::Always, |_, _| Ok(Value::Null));
    assert!(taken.is_err());
    let dangling = registry.alias("x", "nothing").err();
    assert_eq!(dangling, Some(RegistryError::Dangling("x", "nothing")));
    assert!(registry.alias("y", "bdevs").is_err());
}
