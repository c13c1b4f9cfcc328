//! Bringing a controller up.

use std::path::Path;
use std::time::Instant;

use guest_memory::SharedMemory;
use nvme_spec::command::{
    CreateCqCdw11, CreateQueueCdw10, CreateSqCdw11, DeleteQueueCdw10, IdentifyCdw10,
};
use nvme_spec::identify::{Cns, IdentifyController, IdentifyNamespace};
use nvme_spec::registers::{Aqa, Cap, Cc, Csts, Register};
use nvme_spec::{AdminOpcode, Cqe, Sqe};
use zerocopy::FromBytes;

use super::queue::QueuePair;
use super::{Error, GuestRam, PATIENCE, Result};
use crate::vfio_user::{Client, MapFlags};

/// How the guest is set up.
#[derive(Clone, Debug)]
pub struct Options {
    /// Guest RAM in bytes.
    pub ram: usize,
    /// Guest-physical address of it.
    pub base: u64,
    /// Entries of the admin queues.
    pub admin_entries: u16,
    /// Write doorbells through the socket even where they could be mapped.
    pub trapped: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            ram: 64 << 20,
            base: 1 << 20,
            admin_entries: 64,
            trapped: false,
        }
    }
}

/// A connected, enabled controller.
#[derive(Debug)]
pub struct Driver {
    client: Client,
    ram: GuestRam,
    page: Option<SharedMemory>,
    cap: Cap,
    admin: QueuePair,
    next_cid: u16,
    next_qid: u16,
    /// A page for Identify data and the like.
    scratch: u64,
}

const BAR0: u32 = 0;

impl Driver {
    /// Connects to the socket, shares memory and enables the controller.
    ///
    /// # Errors
    /// Whatever the transport or the controller refuse.
    pub fn connect(socket: &Path, options: &Options) -> Result<Self> {
        Self::over(Client::connect(socket)?, options)
    }

    /// As [`Driver::connect`] with a client that has negotiated.
    ///
    /// # Errors
    /// Whatever the transport or the controller refuse.
    pub fn over(mut client: Client, options: &Options) -> Result<Self> {
        let ram = GuestRam::new(options.base, options.ram)?;
        let flags = MapFlags::READ | MapFlags::WRITE;
        client.dma_map(
            flags,
            Some(ram.memory().fd()),
            0,
            ram.base(),
            options.ram as u64,
        )?;
        let bar = client.region_info(BAR0)?;
        let page = match (bar.fd, bar.areas.first()) {
            (Some(fd), Some(area)) if !options.trapped => Some(SharedMemory::from_fd(
                fd,
                bar.offset + area.offset,
                area.size,
            )?),
            _ => None,
        };
        // Bus master and memory space, as every driver sets them.
        client.region_write(pci_config(), 4, &0x0406u16.to_le_bytes())?;
        let cap = Cap::from_bits(client.read(BAR0, u64::from(Register::CAP.0))?);
        let entries = u32::from(options.admin_entries);
        let admin = QueuePair::new(&ram, 0, entries, cap.dstrd(), page.clone())?;
        let scratch = ram.alloc(4096, 4096)?;
        let mut driver = Self {
            client,
            ram,
            page,
            cap,
            admin,
            next_cid: 0,
            next_qid: 1,
            scratch,
        };
        driver.enable()?;
        Ok(driver)
    }

    fn write32(&mut self, register: Register, value: u32) -> Result<()> {
        Ok(self
            .client
            .region_write(BAR0, u64::from(register.0), &value.to_le_bytes())?)
    }

    fn write64(&mut self, register: Register, value: u64) -> Result<()> {
        Ok(self
            .client
            .region_write(BAR0, u64::from(register.0), &value.to_le_bytes())?)
    }

    /// Controller status.
    ///
    /// # Errors
    /// Those of the transport.
    pub fn csts(&mut self) -> Result<Csts> {
        Ok(Csts::from_bits(
            self.client.read(BAR0, u64::from(Register::CSTS.0))?,
        ))
    }

    /// Waits until CSTS.RDY has this value.
    ///
    /// # Errors
    /// [`Error::TimedOut`] or [`Error::Fatal`].
    pub fn wait_ready(&mut self, ready: bool) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let csts = self.csts()?;
            if csts.cfs() {
                return Err(Error::Fatal(csts.into_bits()));
            }
            if csts.rdy() == ready {
                return Ok(());
            }
            if Instant::now() > deadline {
                return Err(Error::TimedOut(if ready { "become ready" } else { "stop" }));
            }
        }
    }

    fn enable(&mut self) -> Result<()> {
        self.write32(Register::CC, 0)?;
        self.wait_ready(false)?;
        let entries_z = u16::try_from(self.admin.entries() - 1).unwrap_or(u16::MAX);
        let aqa = Aqa::new().with_asqs_z(entries_z).with_acqs_z(entries_z);
        self.write32(Register::AQA, aqa.into_bits())?;
        let (sq, cq) = self.admin.rings();
        self.write64(Register::ASQ, sq)?;
        self.write64(Register::ACQ, cq)?;
        let cc = Cc::new().with_iosqes(6).with_iocqes(4).with_en(true);
        self.write32(Register::CC, cc.into_bits())?;
        self.wait_ready(true)
    }

    /// The transport, for everything this driver does not do.
    pub fn client(&mut self) -> &mut Client {
        &mut self.client
    }

    /// The guest's memory.
    #[must_use]
    pub fn ram(&self) -> &GuestRam {
        &self.ram
    }

    /// Controller capabilities.
    #[must_use]
    pub fn cap(&self) -> Cap {
        self.cap
    }

    fn ring_through_transport(&mut self, doorbell: (u64, u32)) -> Result<()> {
        Ok(self
            .client
            .region_write(BAR0, doorbell.0, &doorbell.1.to_le_bytes())?)
    }

    /// Puts an admin command into the queue and rings, without waiting; returns its command identifier.
    ///
    /// # Errors
    /// Those of the transport.
    pub fn admin_start(&mut self, sqe: Sqe) -> Result<u16> {
        let cid = self.next_cid;
        self.next_cid = self.next_cid.wrapping_add(1);
        self.admin.push(&sqe.with_cid(cid));
        if self.admin.is_mapped() {
            self.admin.ring();
        } else {
            let doorbell = self.admin.tail_doorbell();
            self.ring_through_transport(doorbell)?;
        }
        Ok(cid)
    }

    /// Waits for the next admin completion, whichever it is.
    ///
    /// # Errors
    /// [`Error::TimedOut`], those of the transport.
    pub fn admin_wait(&mut self) -> Result<Cqe> {
        let cqe = self.admin.wait()?;
        if !self.admin.is_mapped() {
            let doorbell = self.admin.head_doorbell();
            self.ring_through_transport(doorbell)?;
        }
        Ok(cqe)
    }

    /// The next admin completion, if it is there.
    ///
    /// # Errors
    /// Those of the transport.
    pub fn admin_poll(&mut self) -> Result<Option<Cqe>> {
        let Some(cqe) = self.admin.poll() else {
            return Ok(None);
        };
        self.admin.release();
        if !self.admin.is_mapped() {
            let doorbell = self.admin.head_doorbell();
            self.ring_through_transport(doorbell)?;
        }
        Ok(Some(cqe))
    }

    /// Runs an admin command to its end, whatever its status.
    ///
    /// # Errors
    /// [`Error::TimedOut`], those of the transport, a completion of another command.
    pub fn admin(&mut self, sqe: Sqe) -> Result<Cqe> {
        let cid = self.admin_start(sqe)?;
        let cqe = self.admin_wait()?;
        if cqe.cid != cid {
            return Err(Error::Protocol(format!("{cqe:?} answers command {cid}")));
        }
        Ok(cqe)
    }

    fn admin_ok(&mut self, command: &'static str, sqe: Sqe) -> Result<Cqe> {
        let cqe = self.admin(sqe)?;
        match cqe.status() {
            status if status.is_success() => Ok(cqe),
            status => Err(Error::Status { command, status }),
        }
    }

    /// Identify with any CNS; 4096 bytes.
    ///
    /// # Errors
    /// A refusal as [`Error::Status`].
    pub fn identify(&mut self, cns: Cns, nsid: u32) -> Result<Vec<u8>> {
        let mut sqe = Sqe::admin(AdminOpcode::IDENTIFY, nsid).with_prps(self.scratch, 0);
        sqe.cdw10 = IdentifyCdw10::new().with_cns(cns).into_bits();
        self.admin_ok("identify", sqe)?;
        Ok(self.ram.read(self.scratch, 4096))
    }

    /// Identify Controller.
    ///
    /// # Errors
    /// As [`Driver::identify`].
    pub fn identify_controller(&mut self) -> Result<IdentifyController> {
        let data = self.identify(Cns::CONTROLLER, 0)?;
        IdentifyController::read_from_bytes(&data)
            .map_err(|_| Error::Protocol("identify data of a wrong size".into()))
    }

    /// Identify Namespace.
    ///
    /// # Errors
    /// As [`Driver::identify`].
    pub fn identify_namespace(&mut self, nsid: u32) -> Result<IdentifyNamespace> {
        let data = self.identify(Cns::NAMESPACE, nsid)?;
        IdentifyNamespace::read_from_bytes(&data)
            .map_err(|_| Error::Protocol("identify data of a wrong size".into()))
    }

    /// Block size in bytes and number of blocks of a namespace.
    ///
    /// # Errors
    /// As [`Driver::identify`]; [`Error::Protocol`] for an impossible block size.
    pub fn geometry(&mut self, nsid: u32) -> Result<(u32, u64)> {
        let namespace = self.identify_namespace(nsid)?;
        let format = namespace.lbaf[usize::from(namespace.flbas.index_low())];
        let shift = u32::from(format.lbads());
        if !(9..=16).contains(&shift) || namespace.nsze == 0 {
            return Err(Error::Protocol(format!(
                "namespace {nsid} has blocks of 2^{shift} bytes"
            )));
        }
        Ok((1 << shift, namespace.nsze))
    }

    /// Creates an I/O queue pair, with the interrupt vector `vector` if given.
    ///
    /// # Errors
    /// A refusal as [`Error::Status`].
    pub fn create_queue_pair(&mut self, entries: u32, vector: Option<u16>) -> Result<QueuePair> {
        let qid = self.next_qid;
        let page = self.page.clone();
        let pair = QueuePair::new(&self.ram, qid, entries, self.cap.dstrd(), page)?;
        let (sq, cq) = pair.rings();
        let size = CreateQueueCdw10::new()
            .with_qid(qid)
            .with_qsize_z(u16::try_from(entries - 1).unwrap_or(u16::MAX))
            .into_bits();
        let mut create = Sqe::admin(AdminOpcode::CREATE_IO_CQ, 0).with_prps(cq, 0);
        create.cdw10 = size;
        create.cdw11 = CreateCqCdw11::new()
            .with_pc(true)
            .with_ien(vector.is_some())
            .with_iv(vector.unwrap_or(0))
            .into_bits();
        self.admin_ok("create I/O completion queue", create)?;
        let mut create = Sqe::admin(AdminOpcode::CREATE_IO_SQ, 0).with_prps(sq, 0);
        create.cdw10 = size;
        create.cdw11 = CreateSqCdw11::new()
            .with_pc(true)
            .with_cqid(qid)
            .into_bits();
        self.admin_ok("create I/O submission queue", create)?;
        self.next_qid += 1;
        Ok(pair)
    }

    /// Deletes an I/O queue pair.
    ///
    /// # Errors
    /// A refusal as [`Error::Status`].
    pub fn delete_queue_pair(&mut self, pair: QueuePair) -> Result<()> {
        for (command, opcode) in [
            ("delete I/O submission queue", AdminOpcode::DELETE_IO_SQ),
            ("delete I/O completion queue", AdminOpcode::DELETE_IO_CQ),
        ] {
            let mut sqe = Sqe::admin(opcode, 0);
            sqe.cdw10 = DeleteQueueCdw10::new().with_qid(pair.qid()).into_bits();
            self.admin_ok(command, sqe)?;
        }
        Ok(())
    }

    /// Clears CC.EN and waits for the controller to stop.
    ///
    /// # Errors
    /// [`Error::TimedOut`], those of the transport.
    pub fn disable(&mut self) -> Result<()> {
        self.write32(Register::CC, 0)?;
        self.wait_ready(false)
    }
}

/// Region number of the configuration space.
fn pci_config() -> u32 {
    7
}
