use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::PathBuf;

use tempfile::TempDir;

use super::*;
use crate::test_loop::LoopDevice;

fn directory(parent: &str) -> TempDir {
    tempfile::tempdir_in(parent).unwrap()
}

fn file(directory: &TempDir, len: u64) -> PathBuf {
    let path = directory.path().join("disk");
    File::create(&path).unwrap().set_len(len).unwrap();
    path
}

fn options(path: impl Into<PathBuf>) -> UringOptions {
    UringOptions {
        block_size: Some(512),
        ..UringOptions::new("disk", path)
    }
}

#[track_caller]
fn refused(options: &UringOptions, errno: Errno, words: &str) {
    let error = open_disk(options).unwrap_err();
    assert_eq!(error.errno, errno, "{error}");
    assert!(error.reason.contains(words), "{error}");
    let path = options.filename.to_string_lossy().into_owned();
    assert!(
        error.reason.contains(&path) || error.reason.contains("block_size"),
        "{error}"
    );
}

#[test]
fn what_is_not_there_is_refused_in_words() {
    let directory = directory("/var/tmp");
    let missing = directory.path().join("missing");
    refused(&options(&missing), Errno::ENOENT, "create it first");
    let inside = file(&directory, 4096).join("below");
    refused(&options(&inside), Errno::ENOTDIR, "not a directory");
    let dangling = directory.path().join("dangling");
    symlink("nowhere", &dangling).unwrap();
    refused(&options(&dangling), Errno::ENOENT, "create it first");
    let itself = directory.path().join("loop");
    symlink(&itself, &itself).unwrap();
    refused(&options(&itself), Errno::ELOOP, "cannot open");
    refused(&options(""), Errno::ENOENT, "create it first");
}

#[test]
fn what_is_no_disk_is_refused_in_words() {
    let directory = directory("/var/tmp");
    refused(&options(directory.path()), Errno::EINVAL, "a directory");
    for device in ["/dev/null", "/dev/full", "/dev/zero"] {
        refused(&options(device), Errno::EINVAL, "a character device");
    }
    // Opening a pipe would wait for its other end.
    let pipe = directory.path().join("pipe");
    nix::unistd::mkfifo(&pipe, Mode::S_IRWXU).unwrap();
    refused(&options(&pipe), Errno::EINVAL, "a pipe");
    let readonly = UringOptions {
        readonly: true,
        ..options(&pipe)
    };
    refused(&readonly, Errno::EINVAL, "a pipe");
    let socket = directory.path().join("socket");
    let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    refused(&options(&socket), Errno::EINVAL, "a socket");
}

#[test]
fn lengths_and_block_sizes_must_fit() {
    let directory = directory("/var/tmp");
    refused(
        &options(file(&directory, 511)),
        Errno::EINVAL,
        "less than one block of 512",
    );
    refused(&options(file(&directory, 0)), Errno::EINVAL, "has 0 bytes");
    let path = file(&directory, 10_000);
    let with = |block_size| UringOptions {
        block_size,
        ..options(&path)
    };
    refused(&with(None), Errno::EINVAL, "give block_size");
    refused(&with(Some(1000)), Errno::EINVAL, "power of two");
    refused(&with(Some(0)), Errno::EINVAL, "power of two");
    refused(&with(Some(16384)), Errno::EINVAL, "less than one block");
    let opened = open_disk(&with(Some(4096))).unwrap();
    assert_eq!(opened.num_blocks, 2);
    let note = |notes: &[String]| notes.iter().any(|note| note.contains("last 1808 bytes"));
    assert!(note(&opened.notes), "{:?}", opened.notes);
    drop(opened);
    assert_eq!(open_disk(&options(&path)).unwrap().num_blocks, 19);
}

#[test]
fn every_refusal_of_the_system_says_what_to_do() {
    let path = Path::new("/some/disk");
    for (errno, readonly, words) in [
        (Errno::EACCES, false, "open it read-only"),
        (Errno::EACCES, true, "change its owner or mode"),
        (Errno::EPERM, false, "no permission"),
        (Errno::EROFS, false, "open it read-only"),
        (Errno::EBUSY, false, "unmount it"),
        (Errno::ETXTBSY, false, "swap"),
        (Errno::ENXIO, false, "no device"),
        (Errno::EMFILE, false, "ulimit -n"),
        (Errno::EIO, true, "for reading"),
    ] {
        let error = refusal(path, readonly, errno);
        assert_eq!(error.errno, errno);
        assert!(error.reason.contains(words), "{error}");
        assert!(error.reason.contains("/some/disk"), "{error}");
    }
    let error = refusal(path, true, Errno::EACCES);
    assert!(!error.reason.contains("read-only"), "{error}");
}

#[test]
fn a_file_has_one_writer_or_many_readers() {
    let directory = directory("/var/tmp");
    let path = file(&directory, 8192);
    let other_name = directory.path().join("link");
    fs::hard_link(&path, &other_name).unwrap();
    let reader = |path: &Path| UringOptions {
        readonly: true,
        ..options(path)
    };
    let writer = open_disk(&options(&path)).unwrap();
    for path in [&path, &other_name] {
        refused(&options(path), Errno::EBUSY, "close it there first");
        refused(&reader(path), Errno::EBUSY, "open for writing");
    }
    drop(writer);
    let readers = [open_disk(&reader(&path)), open_disk(&reader(&other_name))];
    assert!(readers.iter().all(Result::is_ok));
    refused(&options(&path), Errno::EBUSY, "several read it");
    drop(readers);
    assert!(open_disk(&options(&path)).is_ok());
}

#[test]
fn abilities_follow_file_and_options() {
    let directory = directory("/dev/shm");
    let path = file(&directory, 1 << 20);
    let before = fs::metadata(&path).unwrap();
    let all = Features::WRITE
        | Features::UNMAP
        | Features::UNMAP_ZEROES
        | Features::WRITE_ZEROES
        | Features::WRITE_CACHE;
    assert_eq!(open_disk(&options(&path)).unwrap().features, all);
    let opened = open_disk(&UringOptions {
        unmap: false,
        ..options(&path)
    });
    let opened = opened.unwrap();
    assert_eq!(opened.features, Features::WRITE | Features::WRITE_CACHE);
    assert_eq!(opened.unmap, Unmap::Never);
    drop(opened);
    let opened = open_disk(&UringOptions {
        readonly: true,
        ..options(&path)
    });
    assert_eq!(opened.unwrap().features, Features::empty());
    let after = fs::metadata(&path).unwrap();
    assert_eq!(after.len(), before.len(), "looking changes nothing");
}

#[test]
fn direct_io_is_used_where_it_works_and_said_where_not() {
    let directory = directory("/var/tmp");
    let path = file(&directory, 1 << 20);
    let opened = open_disk(&options(&path)).unwrap();
    let flags =
        |opened: &Opened| OFlag::from_bits_retain(fcntl(&opened.fd, FcntlArg::F_GETFL).unwrap());
    let direct = flags(&opened).contains(OFlag::O_DIRECT);
    assert_eq!(direct, opened.align.is_some());
    let said = opened.notes.iter().any(|note| note.contains("page cache"));
    assert_eq!(direct, !said, "{:?}", opened.notes);
    drop(opened);
    let asked_not_to = UringOptions {
        direct: false,
        ..options(&path)
    };
    let opened = open_disk(&asked_not_to).unwrap();
    assert!(!flags(&opened).contains(OFlag::O_DIRECT));
    assert!(opened.align.is_none() && opened.notes.is_empty());
}

#[test]
fn blocks_smaller_than_direct_io_takes_go_through_the_page_cache() {
    // A file of no device that sysfs knows: direct I/O is assumed to need whole pages.
    let directory = directory("/dev/shm");
    let path = file(&directory, 1 << 20);
    let opened = open_disk(&options(&path)).unwrap();
    if direct_io(opened.fd.as_fd()) == DirectIo::Unknown {
        assert!(opened.align.is_none());
        let note = opened.notes.first().unwrap();
        assert!(note.contains("page cache"), "{note}");
    }
}

#[test]
fn devices_know_their_blocks_and_belong_to_one() {
    let directory = directory("/var/tmp");
    let path = file(&directory, 1 << 20);
    let Some(device) = LoopDevice::attach(&path, 4096) else {
        return;
    };
    let with = |block_size, readonly| UringOptions {
        block_size,
        readonly,
        ..options(device.path())
    };
    refused(&with(Some(512), false), Errno::EINVAL, "smaller than");
    refused(&with(Some(2 << 20), false), Errno::EINVAL, "power of two");
    let opened = open_disk(&with(Some(8192), false)).unwrap();
    assert_eq!((opened.block_size, opened.num_blocks), (8192, 128));
    drop(opened);
    let opened = open_disk(&with(None, false)).unwrap();
    assert_eq!((opened.block_size, opened.num_blocks), (4096, 256));
    assert!(opened.physical_block_size >= 4096);
    assert!(opened.features.contains(Features::WRITE_ZEROES));
    refused(&with(None, false), Errno::EBUSY, "in use");
    refused(&with(None, true), Errno::EBUSY, "open for writing");
    drop(opened);
    let readers = [open_disk(&with(None, true)), open_disk(&with(None, true))];
    assert!(readers.iter().all(Result::is_ok));
}
