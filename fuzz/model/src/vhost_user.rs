//! A client of a vhost-user back-end, over a real socket, with a device that holds the session to its contract.
//!
//! Input: how long the device takes to let go of things, then what a client does: the steps of a well-behaved one, which are right
//! unless the input says otherwise, and messages of any bytes with any descriptors. Whatever it does, the device is called as
//! [`virtio::Device`] promises, answers are well-formed and belong to requests, and afterwards nothing of the client is left.

use std::collections::VecDeque;
use std::io::{PipeReader, Read, pipe};
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use arbitrary::{Result, Unstructured};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use vhost_user::wire::{self, Code, Header, MAX_PAYLOAD};
use zerocopy::{FromBytes, IntoBytes};

use crate::{Seed, noise, panics};

mod fixture;
mod memory;
mod probe;
mod steps;

use fixture::Fixture;
use memory::Memory;
use probe::Script;

/// Most operations of one input: what more would find, many short inputs find sooner.
const OPERATIONS: usize = 64;
/// After this a session that does not end never will.
const TIMEOUT: Duration = Duration::from_secs(8);

/// What is sent along with a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Gift {
    /// A file of the guest's memory.
    Memory(u8),
    /// A fresh eventfd, which blocks where the number is odd.
    Event(u8),
    /// Something that is nothing a back-end can use.
    Pipe,
    /// A socket for the back-end's requests.
    Socket,
}

struct Client {
    socket: UnixStream,
    memory: Memory,
    pipe: OwnedFd,
    witness: PipeReader,
    /// Our ends of the back-end's sockets.
    sockets: Vec<UnixStream>,
    /// All eventfds that do not block: kicks, and others.
    kicks: Vec<EventFd>,
    /// Requests without an answer so far.
    sent: VecDeque<u32>,
    /// Requests carry "need reply".
    wants_replies: bool,
    /// The back-end has closed the connection.
    is_closed: bool,
}

/// Runs one input.
pub fn run(data: &[u8]) {
    let mut input = Unstructured::new(data);
    let fixture = Fixture::lock();
    let script = input
        .arbitrary::<u8>()
        .map_or(Script::default(), Script::from);
    let (witness, pipe) = pipe().expect("a pipe");
    let mut client = Client {
        socket: fixture.connect(script),
        memory: Memory::new(),
        pipe: pipe.into(),
        witness,
        sockets: Vec::new(),
        kicks: Vec::new(),
        sent: VecDeque::new(),
        wants_replies: false,
        is_closed: false,
    };
    for _ in 0..OPERATIONS {
        // An input that ends within an operation has said all it has to say.
        if input.is_empty() || client.is_closed || client.operate(&mut input).is_err() {
            break;
        }
    }
    client.finish();
    fixture.wait_for_the_end();
    if let Some(panic) = panics::take() {
        panic!("on the reactor: {panic}");
    }
}

impl Client {
    /// Sends a message; its descriptors go with the first byte.
    fn send(&mut self, header: Header, payload: &[u8], gifts: &[Gift]) {
        let bytes = [header.as_bytes(), payload].concat();
        self.sent.push_back(header.request);
        self.send_bytes(&bytes, gifts);
    }

    fn send_bytes(&mut self, mut bytes: &[u8], gifts: &[Gift]) {
        let owned: Vec<OwnedFd> = gifts.iter().map(|gift| self.give(*gift)).collect();
        let mut fds: Vec<BorrowedFd<'_>> = owned.iter().map(OwnedFd::as_fd).collect();
        while !bytes.is_empty() && !self.is_closed {
            match unix_socket::stream::send(&self.socket, bytes, &fds) {
                Ok(count) => {
                    bytes = &bytes[count..];
                    fds.clear();
                }
                Err(_) => self.is_closed = true,
            }
        }
    }

    fn give(&mut self, gift: Gift) -> OwnedFd {
        let copy = |fd: BorrowedFd<'_>| fd.try_clone_to_owned().expect("a descriptor");
        match gift {
            Gift::Memory(file) => copy(self.memory.file(file)),
            Gift::Event(kind) => {
                let flags = if kind % 2 == 0 {
                    EfdFlags::EFD_NONBLOCK
                } else {
                    EfdFlags::empty()
                };
                let event = EventFd::from_flags(flags | EfdFlags::EFD_CLOEXEC).expect("an eventfd");
                if kind & 2 != 0 {
                    event.write(u64::MAX - 1).expect("an empty eventfd");
                }
                let fd = copy(event.as_fd());
                // One that blocks is not for a single thread to write to.
                if kind % 2 == 0 {
                    self.kicks.push(event);
                }
                fd
            }
            Gift::Pipe => copy(self.pipe.as_fd()),
            Gift::Socket => {
                let (ours, theirs) = UnixStream::pair().expect("a socket pair");
                ours.set_nonblocking(true).expect("a socket");
                self.sockets.push(ours);
                theirs.into()
            }
        }
    }

    /// A message that is what it should be.
    fn request(&mut self, code: Code, payload: &[u8], gifts: &[Gift]) {
        let reply = if self.wants_replies {
            wire::FLAG_NEED_REPLY
        } else {
            0
        };
        let header = Header {
            request: code.0,
            flags: wire::VERSION | reply,
            size: u32::try_from(payload.len()).expect("a small payload"),
        };
        self.send(header, payload, gifts);
    }

    fn operate(&mut self, input: &mut Unstructured<'_>) -> Result<()> {
        match input.arbitrary::<u8>()? % 24 {
            0 => self.begin(input),
            1 | 2 => self.start(input),
            3 => self.share(input),
            4 => self.share_one(input),
            5 => self.choose(input),
            6 => self.choose_protocol(input),
            7 | 8 => self.enable(input),
            9 => self.stop(input),
            10 => self.reset(input),
            11 => self.inflight(input),
            12 => self.log(input),
            13 => self.config(input),
            14 => self.one_of_a_ring(input),
            15..=18 => self.drive(input),
            19 => self.answer(input),
            20 => self.memory.truncate(input),
            21 => {
                self.request(Code::SET_BACKEND_REQ_FD, &[], &[Gift::Socket]);
                Ok(())
            }
            _ => self.anything(input),
        }
    }

    /// A message of any kind, with any descriptors.
    fn anything(&mut self, input: &mut Unstructured<'_>) -> Result<()> {
        let code: u8 = input.arbitrary()?;
        let shape: u8 = input.arbitrary()?;
        let len = usize::from(input.arbitrary::<u8>()?);
        let payload = input.bytes(len.min(input.len()))?.to_vec();
        let flags = match shape & 3 {
            0 => wire::VERSION,
            1 | 2 => wire::VERSION | wire::FLAG_NEED_REPLY,
            _ => input.arbitrary()?,
        };
        let size = match shape >> 2 & 3 {
            3 => input.arbitrary()?,
            _ => u32::try_from(payload.len()).expect("a small payload"),
        };
        let gifts = [Gift::Pipe, Gift::Event(0), Gift::Memory(0), Gift::Socket];
        let gift = gifts[usize::from(shape >> 4 & 3)];
        let count = [0, 0, 1, 2][usize::from(shape >> 6)];
        let header = Header {
            request: u32::from(code) % 48,
            flags,
            size,
        };
        self.send(header, &payload, &vec![gift; count]);
        Ok(())
    }

    /// Ends the connection and takes everything that is still to come.
    fn finish(mut self) {
        let _ = self.socket.shutdown(Shutdown::Write);
        self.socket
            .set_read_timeout(Some(TIMEOUT))
            .expect("a timeout");
        let mut answers = Vec::new();
        match self.socket.read_to_end(&mut answers) {
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                panic!("the session does not end");
            }
            // The other end had not read everything when it closed.
            Err(_) => {}
        }
        check_answers(&answers, self.sent);
        drop((self.socket, self.sockets, self.memory, self.kicks));
        drop(self.pipe);
        let deadline = Instant::now() + TIMEOUT;
        loop {
            let mut fds = [PollFd::new(self.witness.as_fd(), PollFlags::empty())];
            poll(&mut fds, PollTimeout::from(10u8)).expect("poll");
            let events = fds[0].revents().expect("known events");
            if events.contains(PollFlags::POLLHUP) {
                break;
            }
            assert!(Instant::now() < deadline, "a descriptor leaked");
        }
    }
}

/// Answers are whole, in the order of the requests, and of the size that each has.
fn check_answers(mut answers: &[u8], mut sent: VecDeque<u32>) {
    while !answers.is_empty() {
        let (header, rest) = Header::read_from_prefix(answers).expect("a whole header");
        assert_eq!(header.flags, wire::VERSION | wire::FLAG_REPLY, "{header:?}");
        let size = header.size as usize;
        assert!(size <= MAX_PAYLOAD && rest.len() >= size, "{header:?}");
        loop {
            let request = sent.pop_front().expect("an answer to a request");
            if request == header.request {
                break;
            }
        }
        let (payload, rest) = rest.split_at(size);
        let len = match header.code() {
            Code::GET_CONFIG => {
                if !payload.is_empty() {
                    let (config, data) =
                        wire::ConfigHeader::read_from_prefix(payload).expect("a configuration");
                    assert_eq!(data.len(), config.size as usize);
                }
                payload.len()
            }
            Code::GET_INFLIGHT_FD => size_of::<wire::Inflight>(),
            Code::SET_LOG_BASE => size_of::<wire::Log>(),
            _ => size_of::<u64>(),
        };
        assert_eq!(payload.len(), len, "{header:?}");
        answers = rest;
    }
}

/// A device that is used, in both formats, with and without what is optional, and noise.
pub fn seeds() -> Vec<Seed> {
    let mut seeds = noise::seeds(24);
    for variant in 0..32u8 {
        let packed = variant & 1;
        // All is agreed on, memory is shared, two rings are started and used.
        let mut bytes = vec![variant << 3, 6, variant & 0x10, 0, variant & 0x0f];
        for ring in 0..2 {
            bytes.extend([1, ring, 0, packed, 0, 0]);
        }
        bytes.extend([21, 13, 0, 0, 8]);
        for count in [2, 4, 10] {
            for ring in 0..2 {
                bytes.extend([15, ring, count | packed << 7]);
            }
        }
        // The log, a region that goes and comes back, a ring that stops and goes on.
        bytes.extend([12, 0, 5, variant & 0x0f | 8]);
        bytes.extend([4, 1, 1, 15, 1, 14 | packed << 7, 4, 1, 0]);
        bytes.extend([9, 0, 1, 0, 0, packed, 0, 0, 15, 0, 16 | packed << 7]);
        bytes.extend([7, 1, 0, 11, 0, 19, 0, 7, 1, 1, 10, variant & 3, 5, variant]);
        seeds.push((format!("session-{variant}"), bytes));
    }
    seeds
}
