use super::*;
use std::os::unix::net::UnixStream;
use tempfile::TempDir;

fn directory() -> TempDir {
    tempfile::tempdir().unwrap()
}

fn lock_of(path: &Path) -> PathBuf {
    PathBuf::from(format!("{}.lock", path.display()))
}

fn mode_of(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().mode() & 0o7777
}

fn refusal(path: &Path) -> BindError {
    bind(path, 0o600, None).unwrap_err()
}

#[test]
fn it_listens_with_the_mode_asked_for_and_cleans_up() {
    let directory = directory();
    for mode in [0o600, 0o660, 0o666, 0o000] {
        let path = directory.path().join("sock");
        let (listener, files) = bind(&path, mode, None).unwrap();
        assert_eq!(mode_of(&path), mode);
        assert_eq!(mode_of(&lock_of(&path)), 0o600);
        drop(files);
        drop(listener);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
    }
}

#[test]
fn a_second_instance_is_told_who_holds_the_path() {
    let directory = directory();
    let path = directory.path().join("sock");
    let held = bind(&path, 0o600, None).unwrap();
    let error = refusal(&path);
    let own = std::process::id();
    assert!(
        matches!(&error, BindError::InUse { pid: Some(pid), .. } if *pid == own),
        "{error:?}"
    );
    let text = error.to_string();
    assert!(
        text.contains(&format!("(process {own})")) && text.contains("-r"),
        "{text}"
    );
    // It has taken nothing from the first.
    UnixStream::connect(&path).unwrap();
    assert!(lock_of(&path).exists());
    drop(held);
    bind(&path, 0o600, None).unwrap();
}

#[test]
fn the_remains_of_a_dead_server_are_cleared() {
    let directory = directory();
    let path = directory.path().join("sock");
    // std neither locks nor removes, like a killed server.
    drop(UnixListener::bind(&path).unwrap());
    fs::write(
        lock_of(&path),
        "123456789012345678901234567890 a long and old text",
    )
    .unwrap();
    let (_listener, _files) = bind(&path, 0o600, None).unwrap();
    UnixStream::connect(&path).unwrap();
    let own = format!("{}\n", std::process::id());
    assert_eq!(fs::read_to_string(lock_of(&path)).unwrap(), own);
}

#[test]
fn a_living_server_without_a_lock_is_not_robbed() {
    let directory = directory();
    let path = directory.path().join("sock");
    let listener = UnixListener::bind(&path).unwrap();
    assert!(matches!(refusal(&path), BindError::InUse { pid: None, .. }));
    assert!(!lock_of(&path).exists());
    drop(listener);
}

#[test]
fn what_is_not_a_socket_is_left_alone() {
    let directory = directory();
    let file = directory.path().join("file");
    fs::write(&file, "precious").unwrap();
    let error = refusal(&file);
    assert!(
        matches!(
            error,
            BindError::NotASocket {
                kind: "regular file",
                ..
            }
        ),
        "{error:?}"
    );
    assert_eq!(fs::read_to_string(&file).unwrap(), "precious");
    let folder = directory.path().join("folder");
    fs::create_dir(&folder).unwrap();
    assert!(matches!(
        refusal(&folder),
        BindError::NotASocket {
            kind: "directory",
            ..
        }
    ));
    let link = directory.path().join("link");
    std::os::unix::fs::symlink(&file, &link).unwrap();
    assert!(matches!(
        refusal(&link),
        BindError::NotASocket {
            kind: "symbolic link",
            ..
        }
    ));
}

#[test]
fn a_planted_lock_link_is_not_followed() {
    let directory = directory();
    let path = directory.path().join("sock");
    let victim = directory.path().join("victim");
    fs::write(&victim, "precious").unwrap();
    std::os::unix::fs::symlink(&victim, lock_of(&path)).unwrap();
    let error = refusal(&path);
    assert!(matches!(error, BindError::Io { .. }), "{error:?}");
    assert_eq!(fs::read_to_string(&victim).unwrap(), "precious");
}

#[test]
fn impossible_paths_say_what_is_wrong() {
    let directory = directory();
    let missing = directory.path().join("missing");
    let error = refusal(&missing.join("sock"));
    assert!(
        matches!(&error, BindError::DirectoryMissing { directory } if *directory == missing),
        "{error:?}"
    );
    let file = directory.path().join("file");
    fs::write(&file, "").unwrap();
    assert!(matches!(
        refusal(&file.join("sock")),
        BindError::NotADirectory { .. }
    ));
    assert!(matches!(
        refusal(&file.join("x/sock")),
        BindError::NotADirectory { .. }
    ));
    for path in ["", "a\0b", "..", "/"] {
        assert!(
            matches!(refusal(Path::new(path)), BindError::InvalidPath { .. }),
            "{path:?}"
        );
    }
}

#[test]
fn the_longest_path_is_the_system_s() {
    let directory = directory();
    let name = |length: usize| {
        let used = directory.path().as_os_str().len() + 1;
        directory.path().join("x".repeat(length - used))
    };
    let (_listener, _files) = bind(&name(MAX_PATH), 0o600, None).unwrap();
    let error = refusal(&name(MAX_PATH + 1));
    assert!(
        matches!(error, BindError::PathTooLong { length: 108, .. }),
        "{error:?}"
    );
}

#[test]
fn another_s_socket_on_our_path_is_not_removed() {
    let directory = directory();
    let path = directory.path().join("sock");
    let (_listener, files) = bind(&path, 0o600, None).unwrap();
    fs::remove_file(&path).unwrap();
    let _other = UnixListener::bind(&path).unwrap();
    drop(files);
    UnixStream::connect(&path).unwrap();
}
