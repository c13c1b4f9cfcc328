use std::fs::File;
use std::os::fd::AsFd;

use super::*;

#[test]
fn one_writer_or_many_readers() {
    let path = tempfile::NamedTempFile::new().unwrap();
    let open = || {
        let mut options = File::options();
        options.read(true).write(true).open(path.path()).unwrap()
    };
    let (a, b, c) = (open(), open(), open());
    assert_eq!(claim(a.as_fd(), true), Claim::Held);
    assert_eq!(claim(b.as_fd(), true), Claim::Taken);
    assert_eq!(claim(b.as_fd(), false), Claim::Taken);
    drop(a);
    assert_eq!(claim(b.as_fd(), false), Claim::Held);
    assert_eq!(claim(c.as_fd(), false), Claim::Held);
    let d = open();
    assert_eq!(claim(d.as_fd(), true), Claim::Taken);
    give_up(b.as_fd());
    assert_eq!(claim(d.as_fd(), true), Claim::Taken);
    give_up(c.as_fd());
    assert_eq!(claim(d.as_fd(), true), Claim::Held);
}

#[test]
fn what_qemu_locks_counts() {
    let path = tempfile::NamedTempFile::new().unwrap();
    let open = || {
        let mut options = File::options();
        options.read(true).write(true).open(path.path()).unwrap()
    };
    // QEMU with a writer: "writes" (101), and nobody else may write (201).
    let qemu = open();
    for byte in [100, 101, 201] {
        lock(qemu.as_fd(), libc::F_RDLCK, byte, 1).unwrap();
    }
    assert_eq!(claim(open().as_fd(), true), Claim::Taken);
    assert_eq!(claim(open().as_fd(), false), Claim::Taken);
    drop(qemu);
    // Our reader stands in the way of what a QEMU writer looks at, not of what a QEMU reader looks at.
    let ours = open();
    assert_eq!(claim(ours.as_fd(), false), Claim::Held);
    let other = open();
    assert!(lock(other.as_fd(), libc::F_WRLCK, 201, 1).is_err());
    for byte in [101, 103, 200] {
        lock(other.as_fd(), libc::F_WRLCK, byte, 1).unwrap();
    }
}
