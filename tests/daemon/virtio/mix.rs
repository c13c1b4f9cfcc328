//! Random requests in flight on several queues, verified against a model of the disk.

use std::collections::HashMap;

use testkit::virtio::{BlkQueue, Buffer};
use virtio_spec::blk::{RANGE_UNMAP, Range, S_OK, T_FLUSH, T_IN, T_OUT, T_WRITE_ZEROES};
use zerocopy::IntoBytes;

/// Longest request in bytes.
const LONGEST: usize = 64 << 10;
/// Memory of a request: its data with gaps, unaligned.
const ROOM: usize = 2 * LONGEST;
const SECTOR: usize = 512;

/// xorshift64*.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// A number below `end`.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let wide = u128::from(self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)) * end as u128;
        (wide >> 64) as usize
    }
}

/// A request in flight.
struct Request {
    kind: u32,
    /// What it touches, in bytes of the disk.
    begin: usize,
    end: usize,
    buffers: Vec<Buffer>,
    room: u64,
}

/// What the disk should hold, and what is in flight.
pub(crate) struct Mix {
    pub(crate) model: Vec<u8>,
    random: Random,
    flight: HashMap<(usize, u16), Request>,
    free: Vec<u64>,
    depth: usize,
    zeroes: bool,
}

impl Mix {
    /// For a disk of zeroes of `len` bytes, with `depth` requests in flight per queue.
    pub(crate) fn new(queues: &[BlkQueue], len: usize, depth: usize, seed: u64) -> Self {
        let ram = queues[0].ram();
        let room = |_| ram.alloc(ROOM, 4096).expect("guest memory");
        Self {
            model: vec![0; len],
            random: Random::new(seed),
            flight: HashMap::new(),
            free: (0..depth * queues.len()).map(room).collect(),
            depth,
            zeroes: true,
        }
    }

    /// Reads and writes only.
    pub(crate) fn plain(mut self) -> Self {
        self.zeroes = false;
        self
    }

    /// Runs `count` requests; all have ended when it returns.
    pub(crate) fn run(&mut self, queues: &mut [BlkQueue], count: usize) {
        self.start_and_finish(queues, count);
        self.finish(queues, 0);
    }

    /// Runs `count` requests and leaves the last ones in flight.
    pub(crate) fn start_and_finish(&mut self, queues: &mut [BlkQueue], count: usize) {
        let mut started = 0;
        while started < count {
            for index in 0..queues.len() {
                let in_flight = usize::from(queues[index].in_flight());
                for _ in in_flight..self.depth.min(in_flight + count - started) {
                    started += usize::from(self.submit(queues, index));
                }
                queues[index].kick().expect("kicked");
            }
            if started < count {
                self.finish(queues, self.flight.len().saturating_sub(1));
            }
        }
    }

    /// Requests in flight.
    pub(crate) fn in_flight(&self) -> usize {
        self.flight.len()
    }

    /// Starts `count` requests and looks for none that end.
    pub(crate) fn start(&mut self, queues: &mut [BlkQueue], count: usize) {
        for n in 0..count {
            let index = n % queues.len();
            self.submit(queues, index);
            queues[index].kick().expect("kicked");
        }
    }

    /// Waits until at most `left` requests are in flight.
    pub(crate) fn finish(&mut self, queues: &mut [BlkQueue], left: usize) {
        let deadline = std::time::Instant::now() + testkit::virtio::PATIENCE;
        while self.flight.len() > left {
            let mut idle = true;
            for (index, queue) in queues.iter_mut().enumerate() {
                while let Some(done) = queue.poll().expect("a good ring") {
                    idle = false;
                    let request = self.flight.remove(&(index, done.slot));
                    let request = request.expect("a request in flight");
                    assert_eq!(done.status, S_OK, "request type {}", request.kind);
                    self.check(queue, &request, done.written);
                    self.free.push(request.room);
                }
            }
            if idle {
                let left = self.flight.len();
                assert!(std::time::Instant::now() < deadline, "{left} are lost");
                std::thread::yield_now();
            }
        }
    }

    fn check(&self, queue: &BlkQueue, request: &Request, written: Option<u32>) {
        if request.kind != T_IN {
            return;
        }
        let mut expected = &self.model[request.begin..request.end];
        if let Some(written) = written {
            assert_eq!(written as usize, expected.len() + 1, "data and status");
        }
        for buffer in &request.buffers {
            let (this, rest) = expected.split_at(buffer.len as usize);
            let read = queue.ram().read(buffer.addr, this.len());
            let sector = request.begin / SECTOR;
            assert!(read == this, "other data in the request at sector {sector}");
            expected = rest;
        }
    }

    /// Whether it started one: none where it would touch what another one touches.
    fn submit(&mut self, queues: &mut [BlkQueue], index: usize) -> bool {
        let sectors = self.model.len() / SECTOR;
        let kind = match self.random.below(100) {
            0..45 => T_IN,
            45..50 if self.zeroes => T_WRITE_ZEROES,
            50..53 if self.zeroes => T_FLUSH,
            _ => T_OUT,
        };
        let len = match self.random.below(4) {
            0 => SECTOR,
            1 => 4096,
            _ => SECTOR * (1 + self.random.below(LONGEST / SECTOR)),
        };
        let begin = SECTOR * self.random.below(sectors - len / SECTOR + 1);
        let end = begin + len;
        let touches = |it: &Request| it.begin < end && begin < it.end;
        if kind != T_FLUSH && self.flight.values().any(touches) {
            return false;
        }
        let Some(room) = self.free.pop() else {
            return false;
        };
        let queue = &mut queues[index];
        let ram = queue.ram().clone();
        let sector = (begin / SECTOR) as u64;
        let mut request = Request {
            kind,
            begin,
            end,
            buffers: Vec::new(),
            room,
        };
        match kind {
            T_FLUSH => request.end = request.begin,
            T_WRITE_ZEROES => {
                let range = Range {
                    sector,
                    num_sectors: (len / SECTOR) as u32,
                    flags: if len.is_multiple_of(1024) {
                        RANGE_UNMAP
                    } else {
                        0
                    },
                };
                ram.write(room, range.as_bytes());
                request.buffers.push(Buffer {
                    addr: room,
                    len: 16,
                });
                self.model[begin..end].fill(0);
            }
            _ => {
                request.buffers = self.scatter(room, len);
                if kind == T_OUT {
                    let mut at = begin;
                    for buffer in &request.buffers {
                        let (seed, len) = (self.random.below(251), buffer.len as usize);
                        let data = super::pattern(len, seed);
                        ram.write(buffer.addr, &data);
                        self.model[at..at + len].copy_from_slice(&data);
                        at += len;
                    }
                }
            }
        }
        let at = if kind == T_IN || kind == T_OUT {
            sector
        } else {
            0
        };
        let cut = (self.random.below(3) == 0).then(|| self.random.below(len + 16) as u32);
        let slot = queue.submit_with(kind, at, &request.buffers, |parts| {
            if let Some(cut) = cut {
                parts.cut(&[cut, 7]);
            }
        });
        let slot = slot.expect("room in the ring");
        self.flight.insert((index, slot), request);
        true
    }

    /// `len` bytes in up to seven buffers of any alignment and length.
    fn scatter(&mut self, room: u64, len: usize) -> Vec<Buffer> {
        let mut at = room + self.random.below(600) as u64;
        let mut left = len;
        let mut buffers = Vec::new();
        while left > 0 {
            let len = match buffers.len() {
                6.. => left,
                _ if self.random.below(3) == 0 => left,
                _ => 1 + self.random.below(left),
            };
            buffers.push(Buffer {
                addr: at,
                len: len as u32,
            });
            at += (len + self.random.below(64)) as u64;
            left -= len;
        }
        buffers
    }
}

/// Reads the whole disk and compares it with what it should hold.
pub(crate) fn holds(queue: &mut BlkQueue, expected: &[u8]) {
    for (n, part) in expected.chunks(1 << 20).enumerate() {
        let sector = (n << 20) / SECTOR;
        let read = queue.read(sector as u64, part.len()).expect("read");
        let differs = read.iter().zip(part).position(|(a, b)| a != b);
        assert_eq!(differs.map(|at| sector + at / SECTOR), None, "other data");
    }
}
