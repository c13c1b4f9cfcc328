//! A RAM disk that does what the test says: waits, has no room, fails, comes back with less. For tests of device models.
#![expect(clippy::unwrap_used, reason = "a test's trouble is to end the test")]

use std::collections::HashMap;
use std::io::{PipeReader, PipeWriter, Write};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex};

use guest_memory::{HostBuffer, Segments, SharedRam};
use nix::errno::Errno;
use reactor::{Cx, Op, RingFile};
use uuid::Uuid;

use crate::io::{Io, IoKind, IoStatus};
use crate::traits::{
    Bdev, BdevError, BdevInfo, Channel, DriverValue, Features, Finished, SharedBdev, Submitted,
};

/// What the disk is to do, and what it was asked.
#[derive(Debug, Default)]
pub struct Script {
    /// Requests wait in the ring until [`TestDisk::release`].
    pub gated: bool,
    /// So many submissions find no room.
    pub full: u32,
    /// So many completions find no room to go on.
    pub stall: u32,
    /// So many completions bring only a part.
    pub short: u32,
    /// Requests end like this.
    pub fail: Option<IoStatus>,
    /// Opening fails.
    pub locked: bool,
    /// What was submitted (and taken): kind, lba, blocks, fua.
    pub log: Vec<(IoKind, u64, u64, bool)>,
    /// Requests announced.
    pub announced: Vec<u64>,
    /// Channels open.
    pub open: u32,
}

/// The disk.
#[derive(Debug)]
pub struct TestDisk {
    info: Mutex<BdevInfo>,
    /// Its contents.
    pub ram: Arc<SharedRam>,
    script: Arc<Mutex<Script>>,
    gate: Arc<OwnedFd>,
    opener: Mutex<PipeWriter>,
}

impl TestDisk {
    /// A disk of zeroes.
    pub fn new(block_size: u32, num_blocks: u64, features: Features) -> Arc<Self> {
        let (reader, writer): (PipeReader, PipeWriter) = std::io::pipe().unwrap();
        let len = usize::try_from(u64::from(block_size) * num_blocks).unwrap();
        Arc::new(Self {
            info: Mutex::new(BdevInfo {
                name: "test0".to_owned(),
                product_name: "Test disk",
                uuid: Uuid::nil(),
                block_size,
                physical_block_size: block_size,
                num_blocks,
                features,
            }),
            ram: Arc::new(SharedRam::new(len).unwrap()),
            script: Arc::default(),
            gate: Arc::new(reader.into()),
            opener: Mutex::new(writer),
        })
    }

    /// As device models take it.
    pub fn shared(self: &Arc<Self>) -> SharedBdev {
        Arc::clone(self) as SharedBdev
    }

    /// Reads or changes what it is to do.
    pub fn script<R>(&self, with: impl FnOnce(&mut Script) -> R) -> R {
        with(&mut self.script.lock().unwrap())
    }

    /// Lets `count` waiting requests go on.
    pub fn release(&self, count: usize) {
        self.opener
            .lock()
            .unwrap()
            .write_all(&vec![1; count])
            .unwrap();
    }

    /// Says another length.
    pub fn set_blocks(&self, blocks: u64) {
        self.info.lock().unwrap().num_blocks = blocks;
    }

    /// A part of the contents.
    pub fn bytes(&self, offset: u64, len: usize) -> Vec<u8> {
        let list = Segments::from_host(HostBuffer::new(len));
        assert!(self.ram.read(offset, &list));
        list.into_host().unwrap().as_slice().to_vec()
    }

    /// Changes a part of the contents.
    pub fn fill(&self, offset: u64, bytes: &[u8]) {
        let mut buffer = HostBuffer::new(bytes.len());
        buffer.as_mut_slice().copy_from_slice(bytes);
        assert!(self.ram.write(offset, &Segments::from_host(buffer)));
    }

    /// What was submitted since the last call.
    pub fn taken(&self) -> Vec<(IoKind, u64, u64, bool)> {
        self.script(|script| std::mem::take(&mut script.log))
    }
}

impl Bdev for TestDisk {
    fn info(&self) -> BdevInfo {
        self.info.lock().unwrap().clone()
    }

    fn open(&self, cx: &mut Cx) -> Result<Box<dyn Channel>, BdevError> {
        if self.script(|script| script.locked) {
            return Err(BdevError::new(Errno::ENFILE, "locked by the test"));
        }
        self.script(|script| script.open += 1);
        let info = self.info();
        Ok(Box::new(TestChannel {
            gate: cx.register_file(Arc::clone(&self.gate)).unwrap(),
            ram: Arc::clone(&self.ram),
            script: Arc::clone(&self.script),
            block_size: u64::from(info.block_size),
            waiting: HashMap::new(),
        }))
    }

    fn driver_specific(&self) -> Vec<(&'static str, DriverValue)> {
        Vec::new()
    }
}

struct TestChannel {
    gate: RingFile,
    ram: Arc<SharedRam>,
    script: Arc<Mutex<Script>>,
    block_size: u64,
    waiting: HashMap<u64, Io>,
}

impl Drop for TestChannel {
    fn drop(&mut self) {
        assert!(
            self.waiting.is_empty(),
            "a channel closed with requests in the ring"
        );
        self.script.lock().unwrap().open -= 1;
    }
}

impl TestChannel {
    fn wait(&self) -> Op {
        Op::Read {
            file: self.gate.clone(),
            offset: 0,
            segments: Segments::from_host(HostBuffer::new(1)),
        }
    }

    fn perform(&self, io: &Io) -> IoStatus {
        if let Some(status) = self.script.lock().unwrap().fail {
            return status;
        }
        let bytes = |blocks: u64| blocks.saturating_mul(self.block_size);
        let (offset, len) = (bytes(io.lba), bytes(io.blocks));
        let inside = match io.kind {
            IoKind::Read => self.ram.read(offset, &io.segments),
            IoKind::Write => self.ram.write(offset, &io.segments),
            IoKind::Compare => match self.ram.matches(offset, &io.segments) {
                Some(false) => return IoStatus::Miscompare,
                found => found.is_some(),
            },
            IoKind::Flush => true,
            IoKind::Unmap | IoKind::WriteZeroes => self.ram.clear(offset, len),
        };
        if inside {
            IoStatus::Ok
        } else {
            IoStatus::OutOfRange
        }
    }
}

impl Channel for TestChannel {
    fn submit(&mut self, cx: &mut Cx, tag: u64, io: Io) -> Submitted {
        let mut script = self.script.lock().unwrap();
        if script.full > 0 {
            script.full -= 1;
            return Submitted::Full(io);
        }
        script.log.push((io.kind, io.lba, io.blocks, io.fua));
        let gated = script.gated;
        drop(script);
        if !gated {
            return Submitted::Done(self.perform(&io));
        }
        cx.submit(tag, self.wait()).unwrap();
        assert!(
            self.waiting.insert(tag, io).is_none(),
            "a tag was used twice"
        );
        Submitted::Queued
    }

    fn finish(&mut self, cx: &mut Cx, tag: u64, op: Op, result: Result<u32, Errno>) -> Finished {
        let mut script = self.script.lock().unwrap();
        if result.is_ok() && script.stall > 0 {
            script.stall -= 1;
            return Finished::Stalled(op);
        }
        if result.is_ok() && script.short > 0 {
            script.short -= 1;
            cx.submit(tag, self.wait()).unwrap();
            return Finished::Queued;
        }
        drop(script);
        let io = self
            .waiting
            .remove(&tag)
            .expect("a tag that was never submitted");
        match result {
            Ok(_) => Finished::Done(self.perform(&io)),
            Err(errno) => Finished::Done(IoStatus::Failed(errno)),
        }
    }

    fn resume(&mut self, cx: &mut Cx, tag: u64, op: Op) -> Finished {
        let mut script = self.script.lock().unwrap();
        if script.stall > 0 {
            script.stall -= 1;
            return Finished::Stalled(op);
        }
        drop(script);
        cx.submit(tag, op).unwrap();
        Finished::Queued
    }

    fn prefetch(&self, _kind: IoKind, lba: u64, _blocks: u64) {
        self.script.lock().unwrap().announced.push(lba);
    }
}
