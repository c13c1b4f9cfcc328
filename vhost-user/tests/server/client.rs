//! A front-end that says exactly what it is told to. Numbers and layouts are written down here once more, from the protocol's text.

use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;

use guest_memory::SharedMemory;
use nix::sys::eventfd::EventFd;
use unix_socket::stream;

use crate::fake::FEATURES;
use crate::harness::PATIENCE;

pub(crate) const VERSION: u32 = 1;
pub(crate) const REPLY: u32 = 4;
pub(crate) const NEED_REPLY: u32 = 8;

pub(crate) const F_LOG_ALL: u64 = 1 << 26;
pub(crate) const F_PROTOCOL: u64 = 1 << 30;
pub(crate) const F_PACKED: u64 = 1 << 34;

pub(crate) const REPLY_ACK: u64 = 1 << 3;

pub(crate) const GUEST: u64 = 0x10_0000;
pub(crate) const USER: u64 = 0x7f00_0000_0000;
pub(crate) const RAM: u64 = 1 << 20;

/// Bytes of 32-bit words.
pub(crate) fn w32(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}

/// Bytes of 64-bit words.
pub(crate) fn w64(words: &[u64]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}

pub(crate) fn region(guest: u64, size: u64, user: u64, offset: u64) -> Vec<u8> {
    w64(&[guest, size, user, offset])
}

#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) payload: Vec<u8>,
    pub(crate) fds: Vec<OwnedFd>,
}

impl Reply {
    pub(crate) fn u64(&self) -> u64 {
        u64::from_ne_bytes(self.payload.as_slice().try_into().unwrap())
    }
}

pub(crate) struct Client {
    pub(crate) socket: UnixStream,
}

impl Client {
    pub(crate) fn connect(path: &Path) -> Self {
        let socket = UnixStream::connect(path).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.set_write_timeout(Some(PATIENCE)).unwrap();
        Self { socket }
    }

    pub(crate) fn bytes(code: u32, flags: u32, payload: &[u8]) -> Vec<u8> {
        let header = w32(&[code, VERSION | flags, payload.len() as u32]);
        [header, payload.to_vec()].concat()
    }

    pub(crate) fn send_bytes(&self, bytes: &[u8], fds: &[BorrowedFd<'_>]) {
        let sent = stream::send(&self.socket, bytes, fds).unwrap();
        assert_eq!(sent, bytes.len());
    }

    pub(crate) fn send(&self, code: u32, flags: u32, payload: &[u8], fds: &[BorrowedFd<'_>]) {
        self.send_bytes(&Self::bytes(code, flags, payload), fds);
    }

    /// The next reply, which must be to `code`.
    #[track_caller]
    pub(crate) fn receive(&self, code: u32) -> Reply {
        let mut header = [0; 12];
        let (count, ancillary) = stream::receive(&self.socket, &mut header).unwrap();
        assert_eq!(count, 12, "the connection is closed");
        let words: Vec<u32> = header
            .chunks(4)
            .map(|word| u32::from_ne_bytes(word.try_into().unwrap()))
            .collect();
        assert_eq!(words[..2], [code, VERSION | REPLY]);
        let mut payload = vec![0; words[2] as usize];
        (&self.socket).read_exact(&mut payload).unwrap();
        Reply {
            payload,
            fds: ancillary.fds,
        }
    }

    /// A request with an answer of its own.
    #[track_caller]
    pub(crate) fn ask(&self, code: u32, payload: &[u8]) -> Reply {
        self.send(code, 0, payload, &[]);
        self.receive(code)
    }

    /// A request that is acknowledged; whether it was obeyed.
    #[track_caller]
    pub(crate) fn try_with(&self, code: u32, payload: &[u8], fds: &[BorrowedFd<'_>]) -> bool {
        self.send(code, NEED_REPLY, payload, fds);
        self.receive(code).u64() == 0
    }

    #[track_caller]
    pub(crate) fn set_with(&self, code: u32, payload: &[u8], fds: &[BorrowedFd<'_>]) {
        assert!(
            self.try_with(code, payload, fds),
            "request {code} is refused"
        );
    }

    #[track_caller]
    pub(crate) fn set(&self, code: u32, payload: &[u8]) {
        self.set_with(code, payload, &[]);
    }

    #[track_caller]
    pub(crate) fn refused(&self, code: u32, payload: &[u8], fds: &[BorrowedFd<'_>]) {
        assert!(
            !self.try_with(code, payload, fds),
            "request {code} is not refused"
        );
        self.alive();
    }

    /// The back-end has closed the connection.
    #[track_caller]
    pub(crate) fn closed(&self) {
        let mut rest = Vec::new();
        // Reset, when it had not read everything.
        let ended = (&self.socket).read_to_end(&mut rest);
        let is_reset = |error: &std::io::Error| error.kind() == std::io::ErrorKind::ConnectionReset;
        assert!(ended.as_ref().map_or_else(is_reset, |_| true), "{ended:?}");
        assert_eq!(rest, b"");
    }

    /// The session goes on.
    #[track_caller]
    pub(crate) fn alive(&self) {
        assert_ne!(self.ask(1, &[]).u64(), 0);
    }

    /// Takes what is offered of these protocol features, and the device's features and `more`.
    pub(crate) fn negotiate(&mut self, protocol: u64, more: u64) {
        let features = self.ask(1, &[]).u64();
        let offered = self.ask(15, &[]).u64();
        self.send(16, 0, &w64(&[offered & protocol]), &[]);
        self.send(3, 0, &[], &[]);
        let chosen = features & (FEATURES & !F_PACKED | F_PROTOCOL) | more;
        self.send(2, 0, &w64(&[chosen]), &[]);
        self.alive();
    }

    pub(crate) fn set_features(&self, more: u64) {
        let features = self.ask(1, &[]).u64();
        let chosen = features & (FEATURES & !F_PACKED | F_PROTOCOL) | more;
        self.set(2, &w64(&[chosen]));
    }

    /// Shares memory at [`GUEST`] and [`USER`].
    #[track_caller]
    pub(crate) fn share(&self, memory: &SharedMemory) {
        self.set_with(5, &Self::table(memory), &[memory.fd()]);
    }

    pub(crate) fn table(memory: &SharedMemory) -> Vec<u8> {
        let only = region(GUEST, memory.len() as u64, USER, 0);
        [w32(&[1, 0]), only].concat()
    }

    /// The payload of SET_VRING_ADDR for a ring in its own 64 KiB.
    pub(crate) fn address(index: u32, flags: u32) -> Vec<u8> {
        let at = u64::from(index) << 16;
        let (desc, used, avail) = (USER + at, USER + at + 0xc000, USER + at + 0x8000);
        [
            w32(&[index, flags]),
            w64(&[desc, used, avail, GUEST + at + 0xc000]),
        ]
        .concat()
    }

    /// Everything but kick and enable.
    #[track_caller]
    pub(crate) fn place(&self, index: u32, base: u32) {
        self.set(8, &w32(&[index, 256]));
        self.set(10, &w32(&[index, base]));
        self.set(9, &Self::address(index, 0));
    }

    #[track_caller]
    pub(crate) fn kick(&self, index: u32, event: &EventFd) {
        self.set_with(12, &w64(&[index.into()]), &[event.as_fd()]);
    }

    #[track_caller]
    pub(crate) fn enable(&self, index: u32, on: bool) {
        self.set(18, &w32(&[index, on.into()]));
    }

    /// A ring that is served.
    #[track_caller]
    pub(crate) fn start_ring(&self, index: u32, base: u32) -> EventFd {
        let event = crate::harness::event();
        self.place(index, base);
        self.kick(index, &event);
        self.enable(index, true);
        event
    }

    /// GET_VRING_BASE.
    #[track_caller]
    pub(crate) fn stop_ring(&self, index: u32) -> u32 {
        let reply = self.ask(11, &w32(&[index, 0]));
        assert_eq!(reply.payload[..4], index.to_ne_bytes());
        u32::from_ne_bytes(reply.payload[4..].try_into().unwrap())
    }
}
