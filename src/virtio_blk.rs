//! virtio-blk devices for guests: endpoints over vfio-user and over vhost-user, one disk each.
//!
//! ```text
//!  BlkEndpoint (here)          its home reactor                      its reactors
//!    settings, disk   ──────►  socket ─ client ─► Blk (+ VirtioPci)  queues, each with its own channel to the disk
//!    Shown: what the next        made by a factory that reads Shown
//!    client's device starts with
//!    BlkHandle of the last client's device ◄── announced by the factory
//! ```
//!
//! A bdev is not claimed by these endpoints, as in SPDK: two of them may show the same one (to guests that agree on who writes).

mod base;
mod disk;
mod endpoint;
mod save;

use std::path::Path;
use std::sync::Arc;

use arc_swap::ArcSwap;
use bdev::SharedBdev;
use nix::errno::Errno;
use reactor::{Ack, ReactorHandle};
use rpc::RpcError;
use virtio::{BlkHandle, Coalescing};

use crate::cpumask::CpuMask;
pub(crate) use base::BasePath;
pub(crate) use endpoint::NewEndpoint;

/// The only transport of `virtio_blk_*` there is, and the one that vhost controllers have.
pub(crate) const VHOST_TRANSPORT: &str = "vhost_user_blk";

/// How guests reach a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Transport {
    /// A PCI function: `vfu_virtio_*`.
    VfioUser,
    /// `vhost_*`.
    VhostUser,
}

impl Transport {
    /// What monitoring calls it.
    pub(crate) fn kind(self) -> &'static str {
        match self {
            Self::VfioUser => "vfu_virtio_blk",
            Self::VhostUser => "vhost_blk",
        }
    }

    /// What an operator calls such an endpoint.
    pub(crate) fn noun(self) -> &'static str {
        match self {
            Self::VfioUser => "vfio-user endpoint",
            Self::VhostUser => "vhost controller",
        }
    }
}

/// Numbers endpoints over the daemon's life, so that news of one that is gone is not taken for another's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct EndpointId(u64);

/// What an operator says about an endpoint when making it.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) name: String,
    /// `None`: all reactors.
    pub(crate) cpumask: Option<CpuMask>,
    pub(crate) num_queues: u16,
    pub(crate) queue_size: u16,
    pub(crate) packed_ring: bool,
    pub(crate) readonly: bool,
}

/// What a new client's device starts with.
#[derive(Debug)]
struct Shown {
    disk: Option<SharedBdev>,
    coalescing: Coalescing,
}

/// A disk under an endpoint.
#[derive(Clone, Debug)]
pub(crate) struct Shows {
    pub(crate) bdev: SharedBdev,
    pub(crate) name: String,
}

/// The device of the last client.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) handle: BlkHandle,
    /// Unique among the clients of all endpoints that are connected.
    pub(crate) vid: u32,
    /// Which of this endpoint's clients it is, counted from 0.
    pub(crate) session: u32,
    /// Block size that the guest was told; it keeps it whatever disk comes.
    block_size: u32,
}

/// A socket behind which guests find a virtio-blk device.
#[derive(Debug)]
pub(crate) struct BlkEndpoint {
    id: EndpointId,
    pub(crate) transport: Transport,
    pub(crate) settings: Settings,
    pub(crate) coalescing: Coalescing,
    /// Where it was made; part of its socket's path.
    base: BasePath,
    /// Processors its queues may be on.
    pub(crate) lcores: Vec<u32>,
    home: ReactorHandle,
    socket: endpoint::Socket,
    disk: Option<Shows>,
    shown: Arc<ArcSwap<Shown>>,
    client: Option<Client>,
    /// Clients so far.
    sessions: u32,
    /// It is being deleted: nothing about it may change any more.
    pub(crate) deleting: bool,
}

impl BlkEndpoint {
    /// The disk it shows; `None` once that was deleted or taken away.
    pub(crate) fn disk(&self) -> Option<&Shows> {
        self.disk.as_ref()
    }

    /// The client, if one is connected.
    pub(crate) fn client(&self) -> Option<&Client> {
        self.client.as_ref().filter(|_| self.socket.is_connected())
    }

    pub(crate) fn id(&self) -> EndpointId {
        self.id
    }

    /// Its home reactor.
    pub(crate) fn lcore(&self) -> u32 {
        self.home.lcore()
    }

    /// Clients so far.
    pub(crate) fn connections(&self) -> u64 {
        self.sessions.into()
    }

    /// Where clients connect.
    pub(crate) fn path(&self) -> &Path {
        self.socket.path()
    }

    fn shows(&self, bdev: &SharedBdev) -> bool {
        let disk = self.disk.as_ref();
        disk.is_some_and(|disk| Arc::ptr_eq(&disk.bdev, bdev))
    }

    /// Makes the present state what new devices start with.
    fn refresh(&self) -> Arc<Shown> {
        let shown = Arc::new(Shown {
            disk: self.disk.as_ref().map(|disk| Arc::clone(&disk.bdev)),
            coalescing: self.coalescing,
        });
        self.shown.store(Arc::clone(&shown));
        shown
    }
}

/// All endpoints, in the order of creation.
#[derive(Debug)]
pub(crate) struct VirtioBlk {
    endpoints: Vec<BlkEndpoint>,
    /// Where the sockets of vfio-user endpoints are made from now on.
    pub(crate) vfu_base: BasePath,
    /// Where vhost-user sockets are made.
    vhost_base: BasePath,
    last: u64,
}

impl VirtioBlk {
    /// None yet; sockets will be made in this directory.
    pub(crate) fn new(base: BasePath) -> Self {
        Self {
            endpoints: Vec::new(),
            vfu_base: base.clone(),
            vhost_base: base,
            last: 0,
        }
    }

    /// All of both transports.
    pub(crate) fn all(&self) -> impl Iterator<Item = &BlkEndpoint> {
        self.endpoints.iter()
    }

    /// All of one transport.
    pub(crate) fn iter(&self, transport: Transport) -> impl Iterator<Item = &BlkEndpoint> {
        let endpoints = self.endpoints.iter();
        endpoints.filter(move |endpoint| endpoint.transport == transport)
    }

    /// The endpoint with this name, to change it.
    ///
    /// # Errors
    /// -32602 with the errno's text, as SPDK, if there is none or it is being deleted.
    pub(crate) fn find_mut(
        &mut self,
        transport: Transport,
        name: &str,
    ) -> Result<&mut BlkEndpoint, RpcError> {
        let mut endpoints = self.endpoints.iter_mut();
        let found = endpoints.find(|it| it.transport == transport && it.settings.name == name);
        let noun = transport.noun();
        match found {
            None => {
                let errno = match transport {
                    Transport::VfioUser => Errno::ENOENT,
                    Transport::VhostUser => Errno::ENODEV,
                };
                Err(refused(errno, format!("there is no {noun} `{name}`")))
            }
            Some(endpoint) if endpoint.deleting => {
                let reason = format!("the {noun} `{name}` is already being deleted");
                Err(refused(Errno::EBUSY, reason))
            }
            Some(endpoint) => Ok(endpoint),
        }
    }

    fn with_id(&mut self, id: EndpointId) -> Option<&mut BlkEndpoint> {
        self.endpoints.iter_mut().find(|it| it.id == id)
    }

    /// What shows this disk, in an operator's words.
    pub(crate) fn users_of(&self, bdev: &SharedBdev) -> Vec<String> {
        let users = self.endpoints.iter().filter(|it| it.shows(bdev));
        users
            .map(|it| format!("{} `{}`", it.transport.noun(), it.settings.name))
            .collect()
    }

    /// How many have this reactor for their home.
    pub(crate) fn homes_on(&self, lcore: u32) -> usize {
        let endpoints = self.endpoints.iter();
        endpoints.filter(|it| it.home.lcore() == lcore).count()
    }

    /// Removes all sockets; `ack` goes when their guests' I/O has ended.
    pub(crate) fn remove_endpoints(&self, ack: &Ack) {
        for endpoint in &self.endpoints {
            endpoint.socket.remove(ack.clone());
        }
    }
}

/// -32602 with an errno's text and the reason, which is how SPDK answers `vhost_*` and `vfu_*`.
pub(crate) fn refused(errno: Errno, reason: impl std::fmt::Display) -> RpcError {
    RpcError {
        code: rpc::code::INVALID_PARAMS,
        ..RpcError::errno(errno, reason)
    }
}
