//! Descriptors whose closing can be observed, also while other tests open and close theirs.

use std::io::{PipeReader, pipe};
use std::os::fd::{AsFd, OwnedFd};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// One end of a pipe that sees whether the other is open.
pub(crate) struct Witness(PipeReader);

impl Witness {
    pub(crate) fn is_closed(&self) -> bool {
        let mut fds = [PollFd::new(self.0.as_fd(), PollFlags::empty())];
        poll(&mut fds, PollTimeout::ZERO).unwrap();
        fds[0].revents().unwrap().contains(PollFlags::POLLHUP)
    }
}

/// A descriptor and its witness.
pub(crate) fn watched() -> (OwnedFd, Witness) {
    let (reader, writer) = pipe().unwrap();
    (writer.into(), Witness(reader))
}

/// Several of them.
pub(crate) fn several(count: usize) -> (Vec<OwnedFd>, Vec<Witness>) {
    (0..count).map(|_| watched()).unzip()
}
