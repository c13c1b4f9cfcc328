use rpc::{Access, Params, State};
use serde_json::json;

use super::{METHODS, forgets_nothing};

/// All names are written out: a method comes to the socket for monitoring by a decision, not by accident.
#[test]
fn these_methods_change_nothing() {
    let table = crate::methods::table().expect("a table");
    let mut expected: Vec<&str> = METHODS.to_vec();
    expected.extend(["bdev_get_iostat", "rpc_get_methods"]);
    expected.sort_unstable();
    assert_eq!(table.names(Access::ReadOnly, None, false), expected);
    let all = table.names(Access::Full, None, false);
    for name in all {
        // What does something says so in its name; none of that may be marked.
        let acts = [
            "_create",
            "_delete",
            "_set_",
            "_add_",
            "_remove_",
            "_resize",
            "_start",
            "_kill",
            "_enable",
            "_disable",
            "_reset",
            "_clear",
            "_rescan",
            "_inject",
            "_subsystem_allow",
            "_update",
            "_examine",
            "_register",
        ];
        if acts.iter().any(|act| name.contains(act)) && name != "bdev_wait_for_examine" {
            assert!(!table.is_read_only(name), "{name}");
        }
        // What only looks is called …_get_…; a new one is decided on here.
        if name.contains("_get_") && !SENSITIVE.contains(&name) {
            assert!(
                table.is_read_only(name),
                "{name} is for monitoring, or is to be named in SENSITIVE"
            );
        }
    }
    assert!(
        !table
            .names(Access::ReadOnly, Some(State::Startup), true)
            .contains(&"bdev_get_bdevs")
    );
}

/// Methods called …_get_… that are not for monitoring.
const SENSITIVE: &[&str] = &[];

#[test]
fn counters_are_not_set_back() {
    let judge = |params| forgets_nothing(&Params::from(params)).is_ok();
    assert!(judge(json!(null)));
    assert!(judge(json!({"names": ["Malloc0"]})));
    assert!(judge(json!({"reset_mode": "none"})));
    for mode in [
        json!("all"),
        json!("maxmin"),
        json!("error"),
        json!(null),
        json!(1),
    ] {
        assert!(!judge(json!({"reset_mode": mode})), "{mode}");
    }
}
