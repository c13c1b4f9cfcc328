use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;

use super::*;

#[test]
fn descriptors_travel_with_the_first_byte_and_work() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let (mut reader, writer) = std::io::pipe().unwrap();
    assert_eq!(send(&ours, b"hello", &[writer.as_fd()]).unwrap(), 5);
    drop(writer);

    let mut first = [0; 1];
    let (count, ancillary) = receive(&theirs, &mut first).unwrap();
    assert_eq!((count, &first), (1, b"h"));
    assert_eq!(ancillary.fds.len(), 1);
    assert!(!ancillary.truncated);
    let mut rest = [0; 16];
    let (count, none) = receive(&theirs, &mut rest).unwrap();
    assert_eq!(&rest[..count], b"ello");
    assert!(none.fds.is_empty());

    for fd in ancillary.fds {
        std::io::PipeWriter::from(fd).write_all(b"through").unwrap();
    }
    let mut text = String::new();
    reader.read_to_string(&mut text).unwrap();
    assert_eq!(text, "through");
}

#[test]
fn received_descriptors_do_not_leak_into_children() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let file = std::fs::File::open("/dev/null").unwrap();
    send(&ours, b"x", &[file.as_fd()]).unwrap();
    let (_, ancillary) = receive(&theirs, &mut [0; 1]).unwrap();
    let fd = ancillary.fds[0].as_raw_fd();
    let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{fd}")).unwrap();
    let flags = info
        .lines()
        .find_map(|line| line.strip_prefix("flags:"))
        .unwrap();
    let flags = u32::from_str_radix(flags.trim(), 8).unwrap();
    assert_ne!(flags & 0o2_000_000, 0, "close-on-exec");
}

#[test]
fn the_kernels_most_arrive_whole_and_more_are_refused_here() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let file = std::fs::File::open("/dev/null").unwrap();
    let most = vec![file.as_fd(); SCM_MAX_FD];
    send(&ours, b"x", &most).unwrap();
    let (_, ancillary) = receive(&theirs, &mut [0; 1]).unwrap();
    assert_eq!(ancillary.fds.len(), SCM_MAX_FD);
    assert!(!ancillary.truncated);
    let too_many = vec![file.as_fd(); SCM_MAX_FD + 1];
    send(&ours, b"x", &too_many).unwrap_err();
}

#[test]
fn end_of_stream_reads_nothing_and_a_dead_peer_is_an_error() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    drop(theirs);
    assert_eq!(receive(&ours, &mut [0; 8]).unwrap().0, 0);
    let error = send(&ours, b"x", &[]).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
}
