use std::os::fd::AsFd;
use std::sync::Arc;

use nix::sys::eventfd::{EfdFlags, EventFd};

use super::*;

fn bell(event: &EventFd) -> Bell {
    Bell::new(&event.as_fd().try_clone_to_owned().unwrap()).unwrap()
}

#[test]
fn each_ring_counts() {
    let event = EventFd::from_flags(EfdFlags::EFD_NONBLOCK).unwrap();
    let bell = bell(&event);
    for _ in 0..1000 {
        bell.ring();
    }
    assert_eq!(event.read().unwrap(), 1000);
}

#[test]
fn a_full_counter_keeps_nobody_waiting() {
    let event = EventFd::from_flags(EfdFlags::empty()).unwrap();
    event.write(u64::MAX - 1).unwrap();
    let bell = bell(&event);
    for _ in 0..10 {
        bell.ring();
    }
    assert!(event.read().unwrap() >= u64::MAX - 1);
    bell.ring();
    assert_eq!(event.read().unwrap(), 1);
}

#[test]
fn several_threads_may_ring() {
    let event = EventFd::from_flags(EfdFlags::EFD_NONBLOCK).unwrap();
    let bell = Arc::new(bell(&event));
    let threads: Vec<_> = (0..4)
        .map(|_| {
            let bell = Arc::clone(&bell);
            std::thread::spawn(move || (0..1000).for_each(|_| bell.ring()))
        })
        .collect();
    threads
        .into_iter()
        .for_each(|thread| thread.join().unwrap());
    assert_eq!(event.read().unwrap(), 4000);
}

#[test]
fn only_eventfds_have_bells() {
    let file = OwnedFd::from(tempfile::tempfile().unwrap());
    let error = Bell::new(&file).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput);
}
