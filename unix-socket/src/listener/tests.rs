use std::os::unix::net::{UnixDatagram, UnixStream};
use std::process::Command;

use nix::sys::socket::{Backlog, bind, listen};

use super::*;

fn directory() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

#[test]
fn a_client_is_accepted_and_the_name_goes_with_the_listener() {
    let directory = directory();
    let path = directory.path().join("cntrl");
    let listener = Listener::bind(&path).unwrap();
    assert!(listener.accept().unwrap().is_none());
    let _client = UnixStream::connect(&path).unwrap();
    assert!(listener.accept().unwrap().is_some());
    assert!(listener.accept().unwrap().is_none());
    drop(listener);
    assert!(!path.exists());
}

#[test]
fn clients_wait_in_line() {
    let directory = directory();
    let path = directory.path().join("cntrl");
    let listener = Listener::bind(&path).unwrap();
    let _clients: Vec<_> = (0..16)
        .map(|_| UnixStream::connect(&path).unwrap())
        .collect();
    for _ in 0..16 {
        assert!(listener.accept().unwrap().is_some());
    }
}

#[test]
fn a_path_in_use_is_refused_and_left_alone() {
    let directory = directory();
    let path = directory.path().join("cntrl");
    let first = Listener::bind(&path).unwrap();
    let error = Listener::bind(&path).unwrap_err();
    assert!(matches!(error, ListenError::InUse { .. }), "{error}");
    assert_eq!(error.errno(), Errno::EADDRINUSE);
    assert!(error.to_string().contains("in use by a running server"));
    UnixStream::connect(&path).unwrap();
    drop(first);
}

#[test]
fn a_server_of_another_kind_counts_as_in_use() {
    let directory = directory();
    let path = directory.path().join("cntrl");
    let _other = UnixDatagram::bind(&path).unwrap();
    let error = Listener::bind(&path).unwrap_err();
    assert!(matches!(error, ListenError::InUse { .. }), "{error}");
}

#[test]
fn a_stale_socket_is_replaced() {
    let directory = directory();
    let path = directory.path().join("cntrl");
    // The standard library's listener leaves its name behind, as a killed server does.
    drop(UnixListener::bind(&path).unwrap());
    assert!(path.exists());
    let _listener = Listener::bind(&path).unwrap();
    UnixStream::connect(&path).unwrap();
}

/// Names the path for the process that [`a_socket_that_outlives_its_process_is_replaced`] starts.
const LISTEN_AT: &str = "VTARGET_TEST_LISTEN_AT";

#[test]
fn a_socket_that_outlives_its_process_is_replaced() {
    if let Some(path) = std::env::var_os(LISTEN_AT) {
        let address = UnixAddr::new(Path::new(&path)).unwrap();
        bind(io::stdin().as_raw_fd(), &address).unwrap();
        return listen(&io::stdin(), Backlog::new(1).unwrap()).unwrap();
    }
    let directory = directory();
    let path = directory.path().join("cntrl");
    let flags = SockFlag::SOCK_CLOEXEC;
    let kept = socket(AddressFamily::Unix, SockType::Stream, flags, None).unwrap();
    let this = "listener::tests::a_socket_that_outlives_its_process_is_replaced";
    let server = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", this])
        .env(LISTEN_AT, &path)
        .stdin(kept.try_clone().unwrap())
        .output()
        .unwrap();
    assert!(server.status.success(), "{server:?}");
    UnixStream::connect(&path).expect("the socket still listens, though nobody will accept");
    let listener = Listener::bind(&path).unwrap();
    let _client = UnixStream::connect(&path).unwrap();
    assert!(listener.accept().unwrap().is_some());
    drop(kept);
}

#[test]
fn a_file_in_the_way_is_not_removed() {
    let directory = directory();
    let path = directory.path().join("cntrl");
    fs::write(&path, "precious").unwrap();
    let error = Listener::bind(&path).unwrap_err();
    assert!(matches!(error, ListenError::NotASocket { .. }), "{error}");
    assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
}

#[test]
fn a_missing_directory_is_named() {
    let directory = directory();
    let path = directory.path().join("not/there/cntrl");
    let error = Listener::bind(&path).unwrap_err();
    assert!(
        matches!(error, ListenError::MissingDirectory { .. }),
        "{error}"
    );
    let expected = directory.path().join("not/there");
    assert!(error.to_string().contains(&*expected.to_string_lossy()));
}

#[test]
fn the_longest_path_works_and_one_more_is_too_long() {
    let directory = directory();
    let length = directory.path().as_os_str().len();
    let longest = directory.path().join("x".repeat(MAX_PATH - length - 1));
    Listener::bind(&longest).unwrap();
    let error = Listener::bind(&directory.path().join("x".repeat(MAX_PATH - length))).unwrap_err();
    assert!(
        matches!(error, ListenError::TooLong { length: 108, .. }),
        "{error}"
    );
    assert_eq!(error.errno(), Errno::ENAMETOOLONG);
}

#[test]
fn a_name_that_another_server_took_over_is_not_removed() {
    let directory = directory();
    let path = directory.path().join("cntrl");
    let first = Listener::bind(&path).unwrap();
    fs::remove_file(&path).unwrap();
    let _second = Listener::bind(&path).unwrap();
    drop(first);
    UnixStream::connect(&path).unwrap();
}
