//! A user of a disk: a reactor, a channel, and memory to move data in and out.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use std::sync::mpsc::{Receiver, Sender, channel};

use guest_memory::{Access, DmaMap, MapView, Region, Segments, SharedMemory};
use reactor::{Config, Cx, Event, Idle, Op, Poll, Poller, ReactorHandle};

use crate::{Channel, Finished, Io, IoKind, IoStats, IoStatus, SharedBdev, Submitted};

/// Bytes of memory that a rig has.
pub(super) const MEMORY: usize = 16 << 20;
/// Where it starts for the device.
const IOVA: u64 = 1 << 32;
/// Nothing here takes this long on the slowest machine; it only keeps a lost completion from hanging the tests.
const PATIENCE: Duration = Duration::from_secs(300);

/// A request of a test.
#[derive(Clone, Debug)]
pub struct Request {
    /// What to do.
    pub kind: IoKind,
    /// First block.
    pub lba: u64,
    /// Number of blocks.
    pub blocks: u64,
    /// Pieces of the rig's memory, as (position, length).
    pub pieces: Vec<(usize, usize)>,
    /// Durable before it completes.
    pub fua: bool,
}

impl Request {
    /// A request with its data in one piece of memory.
    #[must_use]
    pub fn new(kind: IoKind, lba: u64, blocks: u64, piece: (usize, usize)) -> Self {
        let with_data = matches!(kind, IoKind::Read | IoKind::Write | IoKind::Compare);
        Self {
            kind,
            lba,
            blocks,
            pieces: if with_data { vec![piece] } else { Vec::new() },
            fua: false,
        }
    }
}

struct Job {
    request: Request,
    number: usize,
    reply: Sender<(usize, IoStatus)>,
}

struct Driver {
    channel: Box<dyn Channel>,
    view: MapView,
    inbox: Receiver<Job>,
    waiting: VecDeque<(Job, Option<Io>)>,
    stalled: Vec<(u64, Op)>,
    flights: HashMap<u64, Job>,
    next_tag: u64,
    fulls: Arc<AtomicU64>,
    /// Take jobs but remove the poller as soon as anything is in flight.
    quit: Arc<AtomicU64>,
    /// Calls of [`Rig::expedite`], and how many of them the channel has seen.
    wishes: Arc<AtomicU64>,
    seen: u64,
}

impl Driver {
    fn io(&self, request: &Request) -> Io {
        let mut segments = Segments::new();
        let access = match request.kind {
            IoKind::Read => Access::WRITE,
            _ => Access::READ,
        };
        for (at, len) in &request.pieces {
            let pushed = self
                .view
                .push(&mut segments, IOVA + *at as u64, *len, access);
            assert!(pushed.is_ok(), "the request lies in the rig's memory");
        }
        Io {
            kind: request.kind,
            lba: request.lba,
            blocks: request.blocks,
            segments,
            fua: request.fua,
        }
    }

    fn settle(&mut self, tag: u64, finished: Finished) {
        match finished {
            Finished::Queued => {}
            Finished::Stalled(op) => self.stalled.push((tag, op)),
            Finished::Done(status) => {
                let job = self.flights.remove(&tag);
                let job = job.expect("each request ends once");
                let _ = job.reply.send((job.number, status));
            }
        }
    }
}

impl Poller for Driver {
    fn name(&self) -> String {
        "conformance".to_owned()
    }

    fn poll(&mut self, cx: &mut Cx) -> Poll {
        let wishes = self.wishes.load(Ordering::Relaxed);
        if wishes > self.seen {
            self.seen = wishes;
            self.channel.expedite(cx, None);
        }
        for (tag, op) in std::mem::take(&mut self.stalled) {
            let finished = self.channel.resume(cx, tag, op);
            self.settle(tag, finished);
        }
        while let Ok(job) = self.inbox.try_recv() {
            self.waiting.push_back((job, None));
        }
        let mut busy = false;
        while let Some((job, io)) = self.waiting.pop_front() {
            let io = io.unwrap_or_else(|| self.io(&job.request));
            if let Some((next, _)) = self.waiting.front() {
                let Request {
                    kind, lba, blocks, ..
                } = next.request;
                self.channel.prefetch(kind, lba, blocks);
            }
            // A request that found no room may come again under another tag.
            let tag = self.next_tag;
            self.next_tag += 1;
            match self.channel.submit(cx, tag, io) {
                Submitted::Done(status) => {
                    let _ = job.reply.send((job.number, status));
                }
                Submitted::Queued => {
                    self.flights.insert(tag, job);
                }
                Submitted::Full(io) => {
                    assert_eq!(io.kind, job.request.kind, "comes back untouched");
                    let place = (io.lba, io.blocks, io.fua);
                    let asked = (job.request.lba, job.request.blocks, job.request.fua);
                    assert_eq!(place, asked, "comes back untouched");
                    let len: usize = job.request.pieces.iter().map(|(_, len)| len).sum();
                    assert_eq!(io.segments.len(), len, "comes back untouched");
                    self.fulls.fetch_add(1, Ordering::Relaxed);
                    self.waiting.push_front((job, Some(io)));
                    break;
                }
            }
            busy = true;
        }
        if self.quit.load(Ordering::Relaxed) > 0 && !self.flights.is_empty() {
            return Poll::Remove;
        }
        if busy { Poll::Busy } else { Poll::Idle }
    }

    fn event(&mut self, cx: &mut Cx, event: Event) {
        if let Event::Complete { tag, op, result } = event {
            let finished = self.channel.finish(cx, tag, op, result);
            self.settle(tag, finished);
        }
    }

    fn idle(&self) -> Idle {
        if self.waiting.is_empty() && self.stalled.is_empty() {
            Idle::Bounded
        } else {
            Idle::Never
        }
    }
}

/// A reactor with one channel of a disk.
pub struct Rig {
    handle: ReactorHandle,
    thread: Option<JoinHandle<()>>,
    memory: SharedMemory,
    jobs: Sender<Job>,
    fulls: Arc<AtomicU64>,
    quit: Arc<AtomicU64>,
    wishes: Arc<AtomicU64>,
    block_size: usize,
}

impl Rig {
    /// Opens `bdev` on a new reactor.
    #[must_use]
    pub fn new(bdev: &SharedBdev) -> Self {
        Self::with_room(bdev, Config::default().max_in_flight)
    }

    /// As [`Rig::new`], with room for only so many operations in flight.
    #[must_use]
    pub fn with_room(bdev: &SharedBdev, max_in_flight: u32) -> Self {
        let config = Config {
            max_in_flight,
            ..Config::default()
        };
        let (handle, thread) = reactor::spawn(config).expect("a reactor starts");
        let memory = SharedMemory::new(c"rig", MEMORY).expect("memory for the rig");
        let (jobs, inbox) = channel();
        let (fulls, quit) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let wishes = Arc::new(AtomicU64::new(0));
        let region = Region {
            iova: IOVA,
            len: MEMORY as u64,
            access: Access::READ | Access::WRITE,
            backing: Some(Arc::clone(memory.mapping())),
        };
        let map = DmaMap::empty().with(region).expect("one region");
        let opened = {
            let (bdev, fulls, quit) = (Arc::clone(bdev), Arc::clone(&fulls), Arc::clone(&quit));
            let wishes = Arc::clone(&wishes);
            handle.call(move |reactor| {
                let channel = crate::open(&bdev, reactor.cx()).expect("the disk opens");
                reactor.add_poller(Box::new(Driver {
                    channel,
                    view: MapView::new(map),
                    inbox,
                    waiting: VecDeque::new(),
                    stalled: Vec::new(),
                    flights: HashMap::new(),
                    next_tag: 1,
                    fulls,
                    quit,
                    wishes,
                    seen: 0,
                }));
            })
        };
        opened.wait(PATIENCE).expect("the reactor lives");
        Self {
            handle,
            thread: Some(thread),
            memory,
            jobs,
            fulls,
            quit,
            wishes,
            block_size: bdev.info().block_size as usize,
        }
    }

    /// Starts all requests at once, in this order; their numbers and statuses come in the order of their ends.
    pub fn start(&self, requests: Vec<Request>) -> Receiver<(usize, IoStatus)> {
        let (reply, answers) = channel();
        for (number, request) in requests.into_iter().enumerate() {
            let reply = reply.clone();
            let job = Job {
                request,
                number,
                reply,
            };
            self.jobs.send(job).expect("the reactor lives");
        }
        self.handle.wake();
        answers
    }

    /// Runs all requests at once, in this order; their statuses in the same order.
    pub fn run_all(&self, requests: Vec<Request>) -> Vec<IoStatus> {
        let count = requests.len();
        let answers = self.start(requests);
        let mut statuses = vec![None; count];
        for _ in 0..count {
            let (number, status) = answers.recv_timeout(PATIENCE).expect("every request ends");
            let before = statuses[number].replace(status);
            assert!(before.is_none(), "request {number} ended twice");
        }
        statuses.into_iter().flatten().collect()
    }

    /// Asks the channel to let go of what it holds back.
    pub fn expedite(&self) {
        self.wishes.fetch_add(1, Ordering::Relaxed);
        self.handle.wake();
    }

    /// Runs something on the rig's reactor.
    pub fn on_reactor<R: Send + 'static>(
        &self,
        run: impl FnOnce(&mut Cx) -> R + Send + 'static,
    ) -> R {
        let answer = self.handle.call(move |reactor| run(reactor.cx()));
        answer.wait(PATIENCE).expect("the reactor lives")
    }

    /// Runs one request.
    pub fn run(&self, request: Request) -> IoStatus {
        self.run_all(vec![request])[0]
    }

    /// Writes `data` from `lba` on.
    pub fn write(&self, lba: u64, data: &[u8]) -> IoStatus {
        self.put(0, data);
        let blocks = (data.len() / self.block_size) as u64;
        self.run(Request::new(IoKind::Write, lba, blocks, (0, data.len())))
    }

    /// Reads `blocks` blocks from `lba` on.
    pub fn read(&self, lba: u64, blocks: u64) -> Result<Vec<u8>, IoStatus> {
        let len = blocks as usize * self.block_size;
        // So that bytes which were not read show.
        self.put(0, &vec![0xa5; len]);
        match self.run(Request::new(IoKind::Read, lba, blocks, (0, len))) {
            IoStatus::Ok => Ok(self.get(0, len)),
            status => Err(status),
        }
    }

    /// Runs a request without data.
    pub fn command(&self, kind: IoKind, lba: u64, blocks: u64, fua: bool) -> IoStatus {
        let request = Request::new(kind, lba, blocks, (0, 0));
        self.run(Request { fua, ..request })
    }

    /// Puts bytes into the rig's memory.
    pub fn put(&self, at: usize, data: &[u8]) {
        assert!(self.memory.write_slice(at, data), "in the rig's memory");
    }

    /// Takes bytes out of the rig's memory.
    #[must_use]
    pub fn get(&self, at: usize, len: usize) -> Vec<u8> {
        let mut data = vec![0; len];
        assert!(self.memory.read_slice(at, &mut data), "in the rig's memory");
        data
    }

    /// How often the channel answered "full".
    #[must_use]
    pub fn fulls(&self) -> u64 {
        self.fulls.load(Ordering::Relaxed)
    }

    /// What the disk has done on this reactor.
    #[must_use]
    pub fn stats(&self, bdev: &SharedBdev) -> IoStats {
        let bdev = Arc::clone(bdev);
        let stats = self
            .handle
            .call(move |reactor| crate::local_stats(&bdev, reactor.cx()));
        stats.wait(PATIENCE).expect("the reactor lives")
    }

    /// Submits requests, then closes the channel with some of them (where there is a ring) in flight.
    pub fn run_and_close(self, requests: Vec<Request>) {
        self.quit.store(1, Ordering::Relaxed);
        let (reply, _answers) = channel();
        for (number, request) in requests.into_iter().enumerate() {
            let reply = reply.clone();
            let job = Job {
                request,
                number,
                reply,
            };
            // Once the poller is gone nobody takes them.
            let _ = self.jobs.send(job);
        }
        self.handle.wake();
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.handle.stop();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
            && !std::thread::panicking()
        {
            unreachable!("the reactor's thread panicked");
        }
    }
}
