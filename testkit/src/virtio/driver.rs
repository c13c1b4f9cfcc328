//! Bringing a block device up, over any transport.

use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::sys::eventfd::EventFd;
use virtio_spec::blk::{self, Config};
use virtio_spec::feature;
use zerocopy::{FromZeros, IntoBytes};

use super::queue::{BlkQueue, Kick, wait_event};
use super::{Error, PATIENCE, Result, Ring};
use crate::ram::GuestRam;

/// What a driver needs of the way to its device.
pub trait Transport: std::fmt::Debug {
    /// The guest's memory, which the device sees.
    fn ram(&self) -> &GuestRam;

    /// Features offered.
    ///
    /// # Errors
    /// Those of the transport; so with all of these.
    fn offered(&mut self) -> Result<u64>;

    /// Tells the device the driver's choice, once.
    ///
    /// # Errors
    /// [`Error::Features`] if the device does not take it.
    fn accept(&mut self, features: u64) -> Result<()>;

    /// Reads the device's configuration.
    ///
    /// # Errors
    /// Those of the transport.
    fn read_config(&mut self, offset: usize, data: &mut [u8]) -> Result<()>;

    /// Writes the device's configuration.
    ///
    /// # Errors
    /// Those of the transport.
    fn write_config(&mut self, offset: usize, data: &[u8]) -> Result<()>;

    /// Entries that a queue may have at most; 0 if there is no such queue.
    ///
    /// # Errors
    /// Those of the transport.
    fn max_queue_size(&mut self, index: u16) -> Result<u16>;

    /// Gives the device a ring, to go on where it stands; how to tell it of work, and what it interrupts with.
    ///
    /// # Errors
    /// Those of the transport.
    fn start_queue(&mut self, index: u16, ring: &mut Ring) -> Result<(Kick, Arc<EventFd>)>;

    /// The driver is ready (DRIVER_OK).
    ///
    /// # Errors
    /// Those of the transport.
    fn run(&mut self) -> Result<()>;

    /// Resets the device and waits for the end of it.
    ///
    /// # Errors
    /// Those of the transport.
    fn reset(&mut self) -> Result<()>;

    /// Whether the device says that it cannot go on: DEVICE_NEEDS_RESET, or an error event.
    ///
    /// # Errors
    /// Those of the transport.
    fn is_broken(&mut self) -> Result<bool>;

    /// What interrupts for a change of the configuration, if anything does.
    fn config_event(&self) -> Option<Arc<EventFd>>;

    /// What the transport has to do when the configuration may have changed (vhost-user takes a message).
    ///
    /// # Errors
    /// Those of the transport.
    fn acknowledge_config_change(&mut self) -> Result<()>;
}

/// What the driver wants.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Features to accept where they are offered.
    pub features: u64,
    /// Number of queues.
    pub queues: u16,
    /// Entries of each; 0 = as many as the device has.
    pub size: u16,
    /// Most data buffers of a request that goes into an indirect table.
    pub segments: usize,
}

impl Setup {
    /// Everything that Linux takes, split rings.
    pub const LINUX: u64 = feature::VERSION_1
        | feature::INDIRECT_DESC
        | feature::EVENT_IDX
        | feature::ACCESS_PLATFORM
        | feature::RING_RESET
        | blk::feature::SIZE_MAX
        | blk::feature::SEG_MAX
        | blk::feature::RO
        | blk::feature::BLK_SIZE
        | blk::feature::FLUSH
        | blk::feature::TOPOLOGY
        | blk::feature::CONFIG_WCE
        | blk::feature::MQ
        | blk::feature::DISCARD
        | blk::feature::WRITE_ZEROES
        | blk::feature::SECURE_ERASE;

    /// Linux' features, with packed rings if asked for.
    #[must_use]
    pub fn linux(packed: bool) -> Self {
        let format = if packed { feature::RING_PACKED } else { 0 };
        Self {
            features: Self::LINUX | format,
            queues: 1,
            size: 0,
            segments: 32,
        }
    }

    /// With this many queues.
    #[must_use]
    pub fn queues(self, queues: u16) -> Self {
        Self { queues, ..self }
    }
}

/// A block device's driver.
#[derive(Debug)]
pub struct BlkDriver<T> {
    transport: T,
    features: u64,
    setup: Setup,
}

impl<T: Transport> BlkDriver<T> {
    /// Negotiates; the queues come with [`BlkDriver::queues`].
    ///
    /// # Errors
    /// Whatever the device refuses.
    pub fn start(mut transport: T, setup: &Setup) -> Result<Self> {
        let features = transport.offered()? & setup.features;
        transport.accept(features)?;
        Ok(Self {
            transport,
            features,
            setup: setup.clone(),
        })
    }

    /// Makes the queues and declares the driver ready.
    ///
    /// # Errors
    /// Whatever the device refuses.
    pub fn queues(&mut self) -> Result<Vec<BlkQueue>> {
        let mut queues = Vec::new();
        for index in 0..self.setup.queues {
            queues.push(self.queue(index)?);
        }
        self.transport.run()?;
        Ok(queues)
    }

    /// Makes one queue.
    ///
    /// # Errors
    /// Whatever the device refuses.
    pub fn queue(&mut self, index: u16) -> Result<BlkQueue> {
        let max = self.transport.max_queue_size(index)?;
        if max == 0 {
            return Err(Error::protocol(format!("there is no queue {index}")));
        }
        let size = match self.setup.size {
            0 => max,
            size => size.min(max),
        };
        let ram = self.transport.ram().clone();
        let mut ring = Ring::new(&ram, size, self.features)?;
        let (kick, interrupt) = self.transport.start_queue(index, &mut ring)?;
        let indirect = self.features & feature::INDIRECT_DESC != 0;
        let tables = (self.setup.segments, indirect);
        BlkQueue::new(&ram, index, ring, tables, kick, interrupt)
    }

    /// Gives queues that stand in memory to a device that does not know them yet: after a reset, or over a new connection.
    ///
    /// # Errors
    /// Whatever the device refuses.
    pub fn resume(&mut self, queues: &mut [BlkQueue]) -> Result<()> {
        for queue in queues {
            let (kick, interrupt) = self.transport.start_queue(queue.index(), queue.ring())?;
            queue.reattach(kick, interrupt);
        }
        self.transport.run()
    }

    /// Features that both sides have.
    #[must_use]
    pub fn features(&self) -> u64 {
        self.features
    }

    /// The way to the device.
    pub fn transport(&mut self) -> &mut T {
        &mut self.transport
    }

    /// The guest's memory.
    #[must_use]
    pub fn ram(&self) -> &GuestRam {
        self.transport.ram()
    }

    /// The device's configuration.
    ///
    /// # Errors
    /// Those of the transport.
    pub fn config(&mut self) -> Result<Config> {
        let mut config = Config::new_zeroed();
        self.transport.read_config(0, config.as_mut_bytes())?;
        Ok(config)
    }

    /// Switches the write cache (CONFIG_WCE).
    ///
    /// # Errors
    /// Those of the transport.
    pub fn set_write_cache(&mut self, on: bool) -> Result<()> {
        let at = std::mem::offset_of!(Config, wce);
        self.transport.write_config(at, &[u8::from(on)])
    }

    /// Waits for a change of the configuration; the new one.
    ///
    /// # Errors
    /// [`Error::TimedOut`], those of the transport.
    pub fn wait_config_change(&mut self) -> Result<Config> {
        match self.transport.config_event() {
            Some(event) => {
                if wait_event(&event, PATIENCE)? == 0 {
                    return Err(Error::TimedOut("tell of a change of its configuration"));
                }
            }
            None => self.transport.acknowledge_config_change()?,
        }
        self.config()
    }

    /// Waits until the device says that it cannot go on.
    ///
    /// # Errors
    /// [`Error::TimedOut`], those of the transport.
    pub fn wait_broken(&mut self) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while !self.transport.is_broken()? {
            if Instant::now() > deadline {
                return Err(Error::TimedOut("ask for a reset"));
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    /// Whether the device cannot go on, or cannot be reached any more.
    pub fn is_lost(&mut self) -> bool {
        self.transport.is_broken().unwrap_or(true)
    }

    /// The way to the device alone.
    pub fn into_transport(self) -> T {
        self.transport
    }

    /// Resets the device and negotiates again; the queues are gone.
    ///
    /// # Errors
    /// Whatever the device refuses.
    pub fn reset(&mut self) -> Result<()> {
        self.transport.reset()?;
        self.transport.accept(self.features)
    }
}
