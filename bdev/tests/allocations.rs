//! Once warm, no request allocates: not in a channel, not in the reactor below it, not while it waits under a limit.
#![allow(unsafe_code, reason = "a global allocator that counts")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

use bdev::malloc::MallocOptions;
use bdev::null::NullOptions;
use bdev::uring::UringOptions;
use bdev::{
    Channel, Finished, HistogramOptions, Io, IoKind, IoStatus, Limiter, RateLimits, SharedBdev,
    Submitted,
};
use guest_memory::{Access, DmaMap, MapView, Region, Segments, SharedMemory};
use reactor::{Config, Cx, Event, Idle, Poll, Poller};

struct Counting;

thread_local! {
    static COUNT: Cell<u64> = const { Cell::new(0) };
}

fn count() {
    // A thread that is ending has no counter any more, and nobody asks for it.
    let _ = COUNT.try_with(|count| count.set(count.get() + 1));
}

// SAFETY: everything is the system allocator's; counting touches only a thread-local integer.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller's contract is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: the caller's contract is the same.
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: the caller's contract is the same.
        unsafe { System.realloc(at, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const BLOCKS: u64 = 4096;
const DEPTH: u64 = 32;
const WARM: u64 = 5_000;
const MEASURED: u64 = 20_000;

/// Keeps [`DEPTH`] requests going and counts what its thread allocates meanwhile.
struct Load {
    channel: Box<dyn Channel>,
    view: MapView,
    started: u64,
    ended: u64,
    free_tags: Vec<u64>,
    /// Position in its memory of the next request's data, relative to a page.
    shift: u64,
    at_start: Option<u64>,
    result: Sender<u64>,
}

impl Load {
    fn io(&self, tag: u64) -> Io {
        let number = self.started;
        let lba = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) % (BLOCKS - 16);
        let mut segments = Segments::new();
        // One page, or a scatter list that needs more than the inline ranges: by tag, so that the most there can be of either
        // are in flight from the start.
        let pieces = if tag.is_multiple_of(4) { 8 } else { 1 };
        for piece in 0..pieces {
            let at = tag * (1 << 16) + piece * 4096 * 2 + self.shift;
            let access = Access::READ | Access::WRITE;
            let len = 4096 / pieces as usize;
            self.view
                .push(&mut segments, at, len, access)
                .expect("in the memory");
        }
        Io {
            kind: if number.is_multiple_of(2) {
                IoKind::Read
            } else {
                IoKind::Write
            },
            lba,
            blocks: 8,
            segments,
            fua: false,
        }
    }

    fn ended(&mut self, tag: u64, status: IoStatus) {
        self.free_tags.push(tag);
        assert_eq!(status, IoStatus::Ok);
        self.ended += 1;
    }
}

impl Poller for Load {
    fn name(&self) -> String {
        "load".to_owned()
    }

    fn poll(&mut self, cx: &mut Cx) -> Poll {
        if self.ended >= WARM && self.at_start.is_none() {
            self.at_start = Some(COUNT.get());
        }
        if self.ended >= WARM + MEASURED {
            let _ = self
                .result
                .send(COUNT.get() - self.at_start.unwrap_or_default());
            return Poll::Remove;
        }
        // Bounded, for disks that end every request at once.
        for _ in 0..DEPTH {
            let Some(tag) = self.free_tags.pop() else {
                break;
            };
            match self.channel.submit(cx, tag, self.io(tag)) {
                Submitted::Done(status) => {
                    self.started += 1;
                    self.ended(tag, status);
                }
                Submitted::Queued => self.started += 1,
                Submitted::Full(_) => unreachable!("there is room for 8192"),
            }
        }
        Poll::Busy
    }

    fn event(&mut self, cx: &mut Cx, event: Event) {
        if let Event::Complete { tag, op, result } = event {
            match self.channel.finish(cx, tag, op, result) {
                Finished::Done(status) => self.ended(tag, status),
                Finished::Queued => {}
                Finished::Stalled(_) => unreachable!("there is room for 8192"),
            }
        }
    }

    fn idle(&self) -> Idle {
        Idle::Never
    }
}

fn allocations(bdev: SharedBdev, shift: u64) -> u64 {
    allocations_under(bdev, shift, None)
}

fn allocations_under(bdev: SharedBdev, shift: u64, limits: Option<RateLimits>) -> u64 {
    let (handle, thread) = reactor::spawn(Config::default()).expect("a reactor starts");
    let (result, allocated) = channel();
    handle.send(move |reactor| {
        let memory = SharedMemory::new(c"load", 1 << 22).expect("memory");
        let region = Region {
            iova: 0,
            len: 1 << 22,
            access: Access::READ | Access::WRITE,
            backing: Some(Arc::clone(memory.mapping())),
        };
        if let Some(limits) = limits {
            let cx = reactor.cx();
            bdev::set_local_limits(&bdev, cx, Limiter::new(&limits));
            let histogram = HistogramOptions {
                kind: None,
                granularity: 7,
                min_ns: 1000,
                max_ns: 1_000_000_000,
            };
            bdev::set_local_histogram(&bdev, cx, Some(&histogram));
            bdev::watch_local_depth(&bdev, cx, true);
        }
        let load = Load {
            channel: bdev::open(&bdev, reactor.cx()).expect("the disk opens"),
            view: MapView::new(DmaMap::empty().with(region).expect("one region")),
            started: 0,
            ended: 0,
            free_tags: (0..DEPTH).collect(),
            shift,
            at_start: None,
            result,
        };
        reactor.add_poller(Box::new(load));
    });
    let allocated = allocated
        .recv_timeout(Duration::from_secs(300))
        .expect("the load ends");
    handle.stop();
    thread.join().expect("the reactor ends");
    allocated
}

#[test]
fn ram_disks_allocate_nothing() {
    let bdev = bdev::malloc::create(MallocOptions {
        name: "Malloc0".into(),
        block_size: 512,
        num_blocks: BLOCKS,
        physical_block_size: None,
        uuid: None,
    });
    assert_eq!(allocations(bdev.unwrap(), 0), 0);
}

#[test]
fn null_disks_allocate_nothing() {
    let bdev = bdev::null::create(NullOptions {
        name: "Null0".into(),
        block_size: 512,
        num_blocks: BLOCKS,
        physical_block_size: None,
        uuid: None,
    });
    assert_eq!(allocations(bdev.unwrap(), 0), 0);
}

fn file(directory: &Path) -> SharedBdev {
    let path = directory.join("disk");
    let file = std::fs::File::create(&path).expect("a file");
    file.set_len(BLOCKS * 512).expect("room for it");
    let mut options = UringOptions::new("File0", path);
    options.block_size = Some(512);
    bdev::uring::create(options).expect("a disk")
}

#[test]
fn files_allocate_nothing() {
    let directory = tempfile::tempdir_in("/var/tmp").unwrap();
    assert_eq!(allocations(file(directory.path()), 0), 0);
}

/// With everything switched on that can be; most requests wait for their turn. How many wait, and how many have been let through and
/// not begun, is chance: a queue or table that meets a new high after the start grows, each a few times at most.
#[test]
fn limits_and_histograms_allocate_nothing_per_request() {
    let directory = tempfile::tempdir_in("/var/tmp").unwrap();
    let limits = RateLimits {
        rw_ios_per_sec: 50_000,
        r_mbytes_per_sec: 100,
        ..RateLimits::default()
    };
    let disk = file(directory.path());
    let allocated = allocations_under(disk, 0, Some(limits));
    assert!(
        allocated <= 16,
        "{allocated} allocations in {MEASURED} requests"
    );
}
