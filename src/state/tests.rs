use std::fs;

use serde_json::json;

use super::{BACKUP, CURRENT, SKIPPED, StateError, Store, TEMPORARY, text};
use rpc::config::Config;

fn version(name: &str) -> String {
    text(&[
        ("log", vec![]),
        (
            "bdev",
            vec![json!({"method": "bdev_null_create", "params": {"name": name}})],
        ),
    ])
}

#[test]
fn a_version_is_replaced_and_the_one_before_it_is_kept() {
    let place = tempfile::tempdir().expect("a directory");
    let directory = place.path().join("new/state");
    let (store, saved) = Store::open(&directory).expect("a directory");
    assert!(saved.is_none());
    for name in ["a", "b", "c"] {
        store.write(&version(name)).expect("room");
    }
    let read = |name| fs::read_to_string(directory.join(name)).expect("a file");
    assert_eq!(read(CURRENT), version("c"));
    assert_eq!(read(BACKUP), version("b"));
    assert!(!directory.join(TEMPORARY).exists());
    drop(store);

    // What a daemon that was killed left behind is of no meaning.
    fs::write(directory.join(TEMPORARY), "{\"subsys").expect("a file");
    let (_store, saved) = Store::open(&directory).expect("a directory");
    let saved = saved.expect("a version");
    assert_eq!(saved.text, version("c"));
    assert_eq!(
        saved.config,
        Config::parse(version("c").as_bytes()).expect("a configuration")
    );
    assert!(!directory.join(TEMPORARY).exists());
}

#[test]
fn one_directory_is_for_one_daemon() {
    let place = tempfile::tempdir().expect("a directory");
    let (store, _) = Store::open(place.path()).expect("a directory");
    let refused = Store::open(place.path()).expect_err("two").to_string();
    let pid = std::process::id().to_string();
    assert!(
        refused.contains("another daemon") && refused.contains(&pid),
        "{refused}"
    );
    drop(store);
    Store::open(place.path()).expect("a directory that is free");
}

#[test]
fn what_cannot_be_read_is_refused_with_the_way_out() {
    let place = tempfile::tempdir().expect("a directory");
    let current = place.path().join(CURRENT);
    let open = || Store::open(place.path()).expect_err("refused").to_string();

    let whole = version("a");
    for half in [
        "",
        &whole[..whole.len() / 2],
        "\0\0\0\0",
        "{\"subsystems\": 3}",
    ] {
        fs::write(&current, half).expect("a file");
        let refused = open();
        for part in [CURRENT, "line", "mv", BACKUP] {
            assert!(refused.contains(part), "{refused}");
        }
    }
    fs::write(&current, [0xff, 0xfe]).expect("a file");
    assert!(open().contains("mv"));

    fs::rename(&current, place.path().join(BACKUP)).expect("a file");
    let refused = open();
    assert!(refused.contains("rename it"), "{refused}");
}

#[test]
fn a_version_that_cannot_be_written_leaves_the_one_before() {
    let place = tempfile::tempdir().expect("a directory");
    let (store, _) = Store::open(place.path()).expect("a directory");
    store.write(&version("a")).expect("room");
    // Permissions would not keep root away.
    let obstacle = place.path().join(TEMPORARY);
    fs::create_dir(&obstacle).expect("a directory");
    let refused = store.write(&version("b")).expect_err("no way");
    assert!(matches!(refused, StateError::Io { .. }));
    assert!(refused.to_string().contains(TEMPORARY), "{refused}");
    let read = || fs::read_to_string(place.path().join(CURRENT)).expect("a file");
    assert_eq!(read(), version("a"));
    fs::remove_dir(&obstacle).expect("a directory");
    store.write(&version("b")).expect("room");
    assert_eq!(read(), version("b"));
}

#[test]
fn a_copy_outlives_the_versions_after_it() {
    let place = tempfile::tempdir().expect("a directory");
    let (store, _) = Store::open(place.path()).expect("a directory");
    store.write(&version("a")).expect("room");
    let kept = store.keep_skipped().expect("room");
    assert_eq!(kept, place.path().join(SKIPPED));
    for name in ["b", "c"] {
        store.write(&version(name)).expect("room");
    }
    assert_eq!(fs::read_to_string(kept).expect("a file"), version("a"));
}
