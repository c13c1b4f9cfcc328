//! What is driven: one face for the queues of every kind of device.

use std::path::Path;

use nvme_spec::command::RwCdw12;
use nvme_spec::{NvmOpcode, Sqe};
use virtio_spec::blk::{S_OK, SECTOR_SIZE, T_IN, T_OUT};

use super::{Error, Load, Result, Target};
use crate::nvme;
use crate::ram::GuestRam;
use crate::vhost_user::{self, Frontend};
use crate::virtio::{self, BlkDriver, BlkQueue, Buffer, Setup, Transport, When, pci};

/// A queue that can be kept full. Requests are named by slots below the depth.
pub(super) trait Queue: Send {
    /// Puts a request for this block of the load's size into the queue; its slot.
    fn submit(&mut self, write: bool, block: u64) -> Result<usize>;
    /// Shows the device what was submitted.
    fn kick(&mut self) -> Result<()>;
    /// A request that has ended well.
    fn poll(&mut self) -> Result<Option<usize>>;
}

/// A device with its queues; kept while they run.
pub(super) struct Device {
    pub(super) queues: Vec<Box<dyn Queue>>,
    /// Blocks of the load's size.
    pub(super) blocks: u64,
    _driver: Box<dyn std::any::Any>,
}

impl Device {
    pub(super) fn connect(socket: &Path, load: &Load) -> Result<Self> {
        match load.target {
            Target::Nvme => nvme_device(socket, load),
            Target::VirtioVfioUser { packed } => {
                let options = pci::Options {
                    ram: ram(load)?,
                    ..pci::Options::default()
                };
                blk_device(pci::VirtioPci::connect(socket, &options)?, load, packed)
            }
            Target::VirtioVhostUser { packed } => {
                let entries = u16::try_from(load.depth.next_power_of_two()).unwrap_or(1 << 15);
                let options = vhost_user::Options {
                    ram: ram(load)?,
                    inflight: (load.queues, entries),
                    ..vhost_user::Options::default()
                };
                blk_device(Frontend::connect(socket, &options)?, load, packed)
            }
        }
    }
}

/// How much memory the guest needs.
fn ram(load: &Load) -> Result<usize> {
    let buffers = u64::from(load.block_size) * u64::from(load.depth) * u64::from(load.queues);
    let lists = u64::from(load.block_size / (512 * 4096) + 1) * 4096;
    let overhead = u64::from(load.queues) * u64::from(load.depth) * lists + (64 << 20);
    // Whole pages, as a VMM's memory is.
    let bytes = (buffers + overhead).next_multiple_of(2 << 20);
    usize::try_from(bytes).map_err(|_| Error::Load("that much memory".into()))
}

/// How many commands' worth of blocks the disk has.
fn blocks(load: &Load, block: u32, count: u64) -> Result<u64> {
    let size = load.block_size;
    if size == 0 || !size.is_multiple_of(block) {
        let text = format!("{size} bytes are no multiple of the block size {block}");
        return Err(Error::Load(text));
    }
    match count / u64::from(size / block) {
        0 => Err(Error::Load("the disk is smaller than one command".into())),
        blocks => Ok(blocks),
    }
}

struct NvmeQueue {
    pair: nvme::QueuePair,
    /// One command per identifier, its buffer fixed.
    commands: Vec<Sqe>,
    free: Vec<usize>,
    per_command: u64,
    taken: bool,
}

fn nvme_device(socket: &Path, load: &Load) -> Result<Device> {
    let options = nvme::Options {
        ram: ram(load)?,
        ..nvme::Options::default()
    };
    let mut driver = nvme::Driver::connect(socket, &options)?;
    let (block, count) = driver.geometry(load.nsid)?;
    let blocks = blocks(load, block, count)?;
    let per_command = load.block_size / block;
    let nlb_z = u16::try_from(per_command - 1)
        .map_err(|_| Error::Load("more than 65536 blocks per command".into()))?;
    let mut queues: Vec<Box<dyn Queue>> = Vec::new();
    for _ in 0..load.queues {
        let pair = driver.create_queue_pair(load.depth + 1, None)?;
        if !pair.is_mapped() {
            return Err(Error::Load("the doorbells cannot be mapped".into()));
        }
        let ram = driver.ram();
        let command = |cid: u32| -> Result<Sqe> {
            let buffer = ram.alloc(load.block_size as usize, 4096)?;
            let (prp1, prp2) = ram.prps(buffer, load.block_size as usize)?;
            let mut sqe = Sqe::nvm(NvmOpcode::READ, load.nsid)
                .with_prps(prp1, prp2)
                .with_cid(u16::try_from(cid).unwrap_or(u16::MAX));
            sqe.cdw12 = RwCdw12::new().with_nlb_z(nlb_z).into_bits();
            Ok(sqe)
        };
        let commands = (0..load.depth).map(command).collect::<Result<Vec<_>>>()?;
        queues.push(Box::new(NvmeQueue {
            pair,
            free: (0..commands.len()).rev().collect(),
            commands,
            per_command: u64::from(per_command),
            taken: false,
        }));
    }
    Ok(Device {
        queues,
        blocks,
        _driver: Box::new(driver),
    })
}

impl Queue for NvmeQueue {
    #[inline]
    fn submit(&mut self, write: bool, block: u64) -> Result<usize> {
        let Some(cid) = self.free.pop() else {
            return Err(Error::Load("more commands than slots".into()));
        };
        let opcode = match write {
            true => NvmOpcode::WRITE,
            false => NvmOpcode::READ,
        };
        let sqe = &mut self.commands[cid];
        sqe.cdw0 = sqe.cdw0.with_opcode(opcode.0);
        *sqe = sqe.with_slba(block * self.per_command);
        self.pair.push(&self.commands[cid]);
        Ok(cid)
    }

    #[inline]
    fn kick(&mut self) -> Result<()> {
        if std::mem::take(&mut self.taken) {
            self.pair.release();
        }
        self.pair.ring();
        Ok(())
    }

    #[inline]
    fn poll(&mut self) -> Result<Option<usize>> {
        let Some(cqe) = self.pair.poll() else {
            return Ok(None);
        };
        self.taken = true;
        if !cqe.status().is_success() {
            let (command, status) = ("read or write", cqe.status());
            return Err(nvme::Error::Status { command, status }.into());
        }
        let cid = usize::from(cqe.cid);
        if cid >= self.commands.len() {
            return Err(Error::Load(format!("{cqe:?} answers no command")));
        }
        self.free.push(cid);
        Ok(Some(cid))
    }
}

struct Requests {
    queue: BlkQueue,
    /// One buffer per slot of the queue.
    buffers: Vec<Buffer>,
    sectors: u64,
}

fn blk_device<T: Transport + 'static>(transport: T, load: &Load, packed: bool) -> Result<Device> {
    let setup = Setup {
        segments: 1,
        ..Setup::linux(packed).queues(load.queues)
    };
    let mut driver = BlkDriver::start(transport, &setup)?;
    let is_packed = driver.features() & virtio_spec::feature::RING_PACKED != 0;
    if packed != is_packed {
        return Err(Error::Load("the device does not offer packed rings".into()));
    }
    let config = driver.config()?;
    let block = config.blk_size.max(SECTOR_SIZE);
    let capacity = config.capacity / u64::from(block / SECTOR_SIZE);
    let blocks = blocks(load, block, capacity)?;
    let ram = driver.ram().clone();
    let mut queues: Vec<Box<dyn Queue>> = Vec::new();
    for mut queue in driver.queues()? {
        let room = u32::from(queue.ring().size());
        if room < load.depth {
            let text = format!("the device's queues have {room} entries: that is the most depth");
            return Err(Error::Load(text));
        }
        queue.interrupt(When::Never);
        queues.push(Box::new(Requests {
            buffers: buffers(&ram, load, room)?,
            queue,
            sectors: u64::from(load.block_size / SECTOR_SIZE),
        }));
    }
    Ok(Device {
        queues,
        blocks,
        _driver: Box::new(driver),
    })
}

/// A buffer for each slot: as many as requests are in flight, used again for slots beyond.
fn buffers(ram: &GuestRam, load: &Load, slots: u32) -> Result<Vec<Buffer>> {
    let buffer = |_| -> Result<Buffer> {
        Ok(Buffer {
            addr: ram.alloc(load.block_size as usize, 4096)?,
            len: load.block_size,
        })
    };
    let own: Vec<Buffer> = (0..load.depth).map(buffer).collect::<Result<_>>()?;
    Ok(own.into_iter().cycle().take(slots as usize).collect())
}

impl Queue for Requests {
    #[inline]
    fn submit(&mut self, write: bool, block: u64) -> Result<usize> {
        let full = || Error::Load("more requests than slots".into());
        let slot = self.queue.next_slot().ok_or_else(full)?;
        let kind = if write { T_OUT } else { T_IN };
        let buffer = self.buffers[usize::from(slot)];
        self.queue
            .submit(kind, block * self.sectors, &[buffer])
            .ok_or_else(full)?;
        Ok(usize::from(slot))
    }

    #[inline]
    fn kick(&mut self) -> Result<()> {
        self.queue.kick()?;
        Ok(())
    }

    #[inline]
    fn poll(&mut self) -> Result<Option<usize>> {
        let Some(done) = self.queue.poll()? else {
            return Ok(None);
        };
        if done.status != S_OK {
            let (request, status) = ("read or write", done.status);
            return Err(virtio::Error::Status { request, status }.into());
        }
        Ok(Some(usize::from(done.slot)))
    }
}
