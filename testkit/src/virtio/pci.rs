//! virtio over PCI (VIRTIO 1.3, 4.1), through our vfio-user client.

use std::mem::offset_of;
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use guest_memory::SharedMemory;
use nix::sys::eventfd::{EfdFlags, EventFd};
use virtio_spec::pci::{
    CAP_COMMON, CAP_DEVICE, CAP_ISR, CAP_NOTIFY, CAP_PCI, CommonConfig, DEVICE_BASE, VENDOR,
};
use virtio_spec::{DEVICE_ID_BLOCK, NO_VECTOR, feature, status};

use super::{Error, Kick, PATIENCE, Result, Ring, Transport};
use crate::ram::GuestRam;
use crate::vfio_user::{Client, MapFlags};

/// Region of the configuration space.
const CONFIG_SPACE: u32 = 7;
/// Interrupt index of the pin (VFIO_PCI_INTX_IRQ_INDEX).
const INTX: u32 = 0;
/// Interrupt index of MSI-X.
const MSIX: u32 = 2;

/// How the device interrupts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interrupts {
    /// Vector 0 for the configuration, one for each queue.
    Msix,
    /// The pin, for everything.
    Intx,
}

/// How the guest is set up.
#[derive(Clone, Debug)]
pub struct Options {
    /// Guest RAM in bytes.
    pub ram: usize,
    /// Guest-physical address of it.
    pub base: u64,
    /// Send notifications as messages even where they could be mapped.
    pub trapped: bool,
    /// How to be interrupted.
    pub interrupts: Interrupts,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            ram: 64 << 20,
            base: 1 << 20,
            trapped: false,
            interrupts: Interrupts::Msix,
        }
    }
}

/// Where a structure lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// BAR.
    pub bar: u32,
    /// Offset in it.
    pub offset: u64,
    /// Bytes.
    pub len: u64,
}

/// What the capabilities say.
#[derive(Clone, Copy, Debug)]
pub struct Capabilities {
    /// Common configuration.
    pub common: Place,
    /// Notifications.
    pub notify: Place,
    /// Bytes between the places of two notify offsets.
    pub notify_multiplier: u32,
    /// ISR status.
    pub isr: Place,
    /// Device configuration.
    pub device: Place,
    /// Offset in configuration space of the access through it.
    pub pci: Option<u64>,
    /// Offset in configuration space of MSI-X, and its vectors.
    pub msix: Option<(u64, u16)>,
}

/// A virtio device behind a vfio-user socket.
#[derive(Debug)]
pub struct VirtioPci {
    client: Arc<Mutex<Client>>,
    ram: GuestRam,
    caps: Capabilities,
    /// The notification area, where it can be mapped, and its offset in the BAR.
    page: Option<(SharedMemory, u64)>,
    interrupts: Interrupts,
    /// One for each vector.
    events: Vec<Arc<EventFd>>,
    features: u64,
}

impl VirtioPci {
    /// Connects, shares memory, finds the capabilities, resets the device.
    ///
    /// # Errors
    /// Whatever the transport or the device refuse.
    pub fn connect(socket: &Path, options: &Options) -> Result<Self> {
        Self::over(Client::connect(socket)?, options)
    }

    /// As [`VirtioPci::connect`] with a client that has negotiated.
    ///
    /// # Errors
    /// Whatever the transport or the device refuse.
    pub fn over(mut client: Client, options: &Options) -> Result<Self> {
        let ram = GuestRam::new(options.base, options.ram)?;
        let flags = MapFlags::READ | MapFlags::WRITE;
        let memory = Some(ram.memory().fd());
        client.dma_map(flags, memory, 0, ram.base(), options.ram as u64)?;
        let identity: u32 = client.read(CONFIG_SPACE, 0)?;
        let expected = u32::from(DEVICE_BASE + DEVICE_ID_BLOCK) << 16 | u32::from(VENDOR);
        if identity != expected {
            return Err(Error::protocol(format!("{identity:#x} is no block device")));
        }
        let caps = find(&mut client)?;
        let bar = client.region_info(caps.notify.bar)?;
        let covering = bar.areas.iter().position(|area| {
            area.offset <= caps.notify.offset
                && caps.notify.offset + caps.notify.len <= area.offset + area.size
        });
        let page = match covering {
            Some(index) if !options.trapped => {
                Some((bar.map_area(index)?, bar.areas[index].offset))
            }
            _ => None,
        };
        // Bus master and memory space, the pin off unless it is wanted.
        let command: u16 = match options.interrupts {
            Interrupts::Msix => 0x0406,
            Interrupts::Intx => 0x0006,
        };
        client.region_write(CONFIG_SPACE, 4, &command.to_le_bytes())?;
        let mut device = Self {
            client: Arc::new(Mutex::new(client)),
            ram,
            caps,
            page,
            interrupts: options.interrupts,
            events: Vec::new(),
            features: 0,
        };
        device.enable_interrupts()?;
        device.reset()?;
        Ok(device)
    }

    fn enable_interrupts(&mut self) -> Result<()> {
        let event = || -> Result<Arc<EventFd>> {
            let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
            Ok(Arc::new(EventFd::from_value_and_flags(0, flags)?))
        };
        let (index, count) = match self.interrupts {
            Interrupts::Msix => {
                let Some((at, vectors)) = self.caps.msix else {
                    return Err(Error::protocol("there is no MSI-X capability"));
                };
                let enable = 1u16 << 15 | (vectors - 1);
                self.client()
                    .region_write(CONFIG_SPACE, at + 2, &enable.to_le_bytes())?;
                (MSIX, vectors)
            }
            Interrupts::Intx => (INTX, 1),
        };
        self.events = (0..count).map(|_| event()).collect::<Result<_>>()?;
        // No more descriptors than a message may carry.
        for (n, events) in self.events.chunks(16).enumerate() {
            let fds: Vec<_> = events.iter().map(|event| event.as_fd()).collect();
            let start = u32::try_from(16 * n).unwrap_or(u32::MAX);
            self.client().set_eventfds(index, start, &fds)?;
        }
        Ok(())
    }

    /// The connection, for everything this driver does not do.
    pub fn client(&self) -> MutexGuard<'_, Client> {
        self.client.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where everything lies.
    #[must_use]
    pub fn capabilities(&self) -> &Capabilities {
        &self.caps
    }

    /// Whether notifications are stores to a mapped page.
    #[must_use]
    pub fn is_mapped(&self) -> bool {
        self.page.is_some()
    }

    /// The eventfd of a vector, or of the pin.
    #[must_use]
    pub fn event(&self, vector: u16) -> Option<&Arc<EventFd>> {
        self.events.get(usize::from(vector))
    }

    /// Writes a field of the common configuration.
    ///
    /// # Errors
    /// Those of the transport.
    pub fn write_common(&mut self, field: usize, data: &[u8]) -> Result<()> {
        let Place { bar, offset, .. } = self.caps.common;
        self.client()
            .region_write(bar, offset + field as u64, data)?;
        Ok(())
    }

    /// Reads a field of the common configuration.
    ///
    /// # Errors
    /// Those of the transport.
    pub fn read_common<T: zerocopy::FromBytes + zerocopy::IntoBytes>(
        &mut self,
        field: usize,
    ) -> Result<T> {
        let Place { bar, offset, .. } = self.caps.common;
        Ok(self.client().read(bar, offset + field as u64)?)
    }

    /// Device status.
    ///
    /// # Errors
    /// Those of the transport.
    pub fn status(&mut self) -> Result<u8> {
        self.read_common(offset_of!(CommonConfig, device_status))
    }

    /// Adds bits to the device status.
    ///
    /// # Errors
    /// Those of the transport.
    pub fn add_status(&mut self, bits: u8) -> Result<()> {
        let status = self.status()? | bits;
        self.write_common(offset_of!(CommonConfig, device_status), &[status])
    }

    /// ISR status; reading clears it.
    ///
    /// # Errors
    /// Those of the transport.
    pub fn isr(&mut self) -> Result<u8> {
        let Place { bar, offset, .. } = self.caps.isr;
        Ok(self.client().read(bar, offset)?)
    }

    /// Selects a queue.
    ///
    /// # Errors
    /// Those of the transport.
    pub fn select(&mut self, index: u16) -> Result<()> {
        self.write_common(offset_of!(CommonConfig, queue_select), &index.to_le_bytes())
    }

    /// Writes features, all 64 bits.
    ///
    /// # Errors
    /// Those of the transport.
    pub fn write_features(&mut self, features: u64) -> Result<()> {
        for half in 0..2u32 {
            let bits = (features >> (32 * half)) as u32;
            self.write_common(
                offset_of!(CommonConfig, driver_feature_select),
                &half.to_le_bytes(),
            )?;
            self.write_common(
                offset_of!(CommonConfig, driver_feature),
                &bits.to_le_bytes(),
            )?;
        }
        Ok(())
    }

    /// Resets one queue (RING_RESET, 4.1.4.3.2) and waits for the end of it.
    ///
    /// # Errors
    /// [`Error::TimedOut`], those of the transport.
    pub fn reset_queue(&mut self, index: u16) -> Result<()> {
        self.select(index)?;
        let at = offset_of!(CommonConfig, queue_reset);
        self.write_common(at, &1u16.to_le_bytes())?;
        let deadline = Instant::now() + PATIENCE;
        while self.read_common::<u16>(at)? != 0 {
            if Instant::now() > deadline {
                return Err(Error::TimedOut("reset a queue"));
            }
        }
        Ok(())
    }
}

impl Transport for VirtioPci {
    fn ram(&self) -> &GuestRam {
        &self.ram
    }

    fn offered(&mut self) -> Result<u64> {
        let mut features = 0;
        for half in 0..2u32 {
            self.write_common(
                offset_of!(CommonConfig, device_feature_select),
                &half.to_le_bytes(),
            )?;
            let bits: u32 = self.read_common(offset_of!(CommonConfig, device_feature))?;
            features |= u64::from(bits) << (32 * half);
        }
        Ok(features)
    }

    fn accept(&mut self, features: u64) -> Result<()> {
        self.add_status(status::ACKNOWLEDGE)?;
        self.add_status(status::DRIVER)?;
        self.write_features(features)?;
        self.add_status(status::FEATURES_OK)?;
        if self.status()? & status::FEATURES_OK == 0 {
            return Err(Error::Features(features));
        }
        self.features = features;
        if self.interrupts == Interrupts::Msix {
            let at = offset_of!(CommonConfig, config_msix_vector);
            self.write_common(at, &0u16.to_le_bytes())?;
            if self.read_common::<u16>(at)? == NO_VECTOR {
                return Err(Error::protocol("the vector of changes was not taken"));
            }
        }
        Ok(())
    }

    fn read_config(&mut self, offset: usize, data: &mut [u8]) -> Result<()> {
        let Place {
            bar, offset: at, ..
        } = self.caps.device;
        // 2.5.1: the generation tells whether the parts belong together.
        loop {
            let generation = offset_of!(CommonConfig, config_generation);
            let before: u8 = self.read_common(generation)?;
            self.client().region_read(bar, at + offset as u64, data)?;
            if self.read_common::<u8>(generation)? == before {
                return Ok(());
            }
        }
    }

    fn write_config(&mut self, offset: usize, data: &[u8]) -> Result<()> {
        let Place {
            bar, offset: at, ..
        } = self.caps.device;
        self.client().region_write(bar, at + offset as u64, data)?;
        Ok(())
    }

    fn max_queue_size(&mut self, index: u16) -> Result<u16> {
        self.select(index)?;
        self.read_common(offset_of!(CommonConfig, queue_size))
    }

    fn start_queue(&mut self, index: u16, ring: &mut Ring) -> Result<(Kick, Arc<EventFd>)> {
        self.select(index)?;
        let size = ring.size().to_le_bytes();
        self.write_common(offset_of!(CommonConfig, queue_size), &size)?;
        let areas = ring.areas();
        for (field, address) in [
            (offset_of!(CommonConfig, queue_desc_lo), areas.desc),
            (offset_of!(CommonConfig, queue_driver_lo), areas.driver),
            (offset_of!(CommonConfig, queue_device_lo), areas.device),
        ] {
            let bytes = address.to_le_bytes();
            self.write_common(field, &bytes[..4])?;
            self.write_common(field + 4, &bytes[4..])?;
        }
        let vector = match self.interrupts {
            Interrupts::Intx => 0,
            // As many vectors as there are: the last ones are shared.
            Interrupts::Msix => {
                let last = u16::try_from(self.events.len() - 1).unwrap_or(0);
                let vector = (index + 1).min(last);
                let at = offset_of!(CommonConfig, queue_msix_vector);
                self.write_common(at, &vector.to_le_bytes())?;
                if self.read_common::<u16>(at)? != vector {
                    return Err(Error::protocol("the queue's vector was not taken"));
                }
                vector
            }
        };
        let offset: u16 = self.read_common(offset_of!(CommonConfig, queue_notify_off))?;
        let at = offset_of!(CommonConfig, queue_enable);
        self.write_common(at, &1u16.to_le_bytes())?;
        let Place {
            bar, offset: area, ..
        } = self.caps.notify;
        let at = area + u64::from(offset) * u64::from(self.caps.notify_multiplier);
        let data = self.features & feature::NOTIFICATION_DATA != 0;
        let kick = match &self.page {
            Some((page, begin)) => Kick::Mapped {
                page: page.clone(),
                offset: usize::try_from(at - begin).unwrap_or(usize::MAX),
                index,
                data,
            },
            None => Kick::Message {
                client: self.client.clone(),
                at: (bar, at),
                index,
                data,
            },
        };
        let event = self.events.get(usize::from(vector));
        let event = event.ok_or_else(|| Error::protocol("there is no vector"))?;
        Ok((kick, event.clone()))
    }

    fn run(&mut self) -> Result<()> {
        self.add_status(status::DRIVER_OK)
    }

    fn reset(&mut self) -> Result<()> {
        self.write_common(offset_of!(CommonConfig, device_status), &[0])?;
        let deadline = Instant::now() + PATIENCE;
        while self.status()? != 0 {
            if Instant::now() > deadline {
                return Err(Error::TimedOut("reset"));
            }
            std::thread::sleep(Duration::from_micros(100));
        }
        Ok(())
    }

    fn is_broken(&mut self) -> Result<bool> {
        Ok(self.status()? & status::DEVICE_NEEDS_RESET != 0)
    }

    fn config_event(&self) -> Option<Arc<EventFd>> {
        self.events.first().cloned()
    }

    fn acknowledge_config_change(&mut self) -> Result<()> {
        Ok(())
    }
}

/// Walks the capabilities (4.1.4).
fn find(client: &mut Client) -> Result<Capabilities> {
    const VENDOR_SPECIFIC: u8 = 9;
    const MSIX_CAPABILITY: u8 = 0x11;
    let mut places = [None; 6];
    let (mut multiplier, mut pci, mut msix) = (0, None, None);
    let mut at = u64::from(client.read::<u8>(CONFIG_SPACE, 0x34)?);
    for _ in 0..48 {
        if at == 0 {
            break;
        }
        let [id, next]: [u8; 2] = client.read(CONFIG_SPACE, at)?;
        match id {
            MSIX_CAPABILITY => {
                let control: u16 = client.read(CONFIG_SPACE, at + 2)?;
                msix = Some((at, (control & 0x7ff) + 1));
            }
            VENDOR_SPECIFIC => {
                let kind: u8 = client.read(CONFIG_SPACE, at + 3)?;
                let bar: u8 = client.read(CONFIG_SPACE, at + 4)?;
                let offset: u32 = client.read(CONFIG_SPACE, at + 8)?;
                let len: u32 = client.read(CONFIG_SPACE, at + 12)?;
                let place = Place {
                    bar: u32::from(bar),
                    offset: u64::from(offset),
                    len: u64::from(len),
                };
                // The first of a kind is the preferred one.
                if let Some(slot) = places.get_mut(usize::from(kind)) {
                    slot.get_or_insert(place);
                }
                match kind {
                    CAP_NOTIFY => multiplier = client.read(CONFIG_SPACE, at + 16)?,
                    CAP_PCI => pci = Some(at),
                    _ => {}
                }
            }
            _ => {}
        }
        at = u64::from(next);
    }
    let place = |kind: u8| {
        places[usize::from(kind)]
            .ok_or_else(|| Error::protocol(format!("there is no structure of type {kind}")))
    };
    Ok(Capabilities {
        common: place(CAP_COMMON)?,
        notify: place(CAP_NOTIFY)?,
        notify_multiplier: multiplier,
        isr: place(CAP_ISR)?,
        device: place(CAP_DEVICE)?,
        pci,
        msix,
    })
}
