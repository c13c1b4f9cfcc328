//! Making endpoints: a socket, and a device for each client.

use std::path::Path;
use std::sync::Arc;

use arc_swap::ArcSwap;
use nix::errno::Errno;
use reactor::{Ack, Cx, ReactorHandle};
use rpc::RpcError;
use virtio::{Blk, BlkConfig, BlkHandle, Coalescing, Device, VirtioPci, VirtioPciConfig};

use super::{
    BlkEndpoint, Client, EndpointId, Settings, Shown, Shows, Transport, VirtioBlk, refused,
};
use crate::control::{Control, Message};
use crate::cpumask::CpuMask;
use crate::events::{Source, Tap};

/// What an operator asks for.
pub(crate) struct NewEndpoint {
    pub(crate) transport: Transport,
    pub(crate) settings: Settings,
    /// `None`: without a disk until one is put under it.
    pub(crate) bdev_name: Option<String>,
}

/// Block size of a device without a disk: capacities count in these (VIRTIO 1.3, section 5.2.4).
const SECTOR: u32 = 512;

/// The endpoint of either transport.
#[derive(Clone, Debug)]
pub(super) enum Socket {
    VfioUser(vfio_user::EndpointHandle),
    VhostUser(vhost_user::EndpointHandle),
}

impl Socket {
    pub(super) fn path(&self) -> &Path {
        match self {
            Self::VfioUser(endpoint) => endpoint.path(),
            Self::VhostUser(endpoint) => endpoint.path(),
        }
    }

    pub(super) fn is_connected(&self) -> bool {
        match self {
            Self::VfioUser(endpoint) => endpoint.is_connected(),
            Self::VhostUser(endpoint) => endpoint.is_connected(),
        }
    }

    pub(super) fn remove(&self, ack: Ack) {
        match self {
            Self::VfioUser(endpoint) => endpoint.remove(ack),
            Self::VhostUser(endpoint) => endpoint.remove(ack),
        }
    }
}

/// Makes the devices of an endpoint's clients, on its home reactor.
struct Maker {
    id: EndpointId,
    config: BlkConfig,
    shown: Arc<ArcSwap<Shown>>,
    reactors: Vec<ReactorHandle>,
    inbox: crossbeam_channel::Sender<Message>,
    tap: Tap,
}

impl Maker {
    fn make(&self, cx: &mut Cx) -> Blk {
        let shown = self.shown.load_full();
        let watch = self.tap.client();
        let config = BlkConfig {
            coalescing: shown.coalescing,
            events: Arc::clone(&watch).of_blk(),
            ..self.config.clone()
        };
        let (blk, handle) = Blk::new(cx, config, shown.disk.clone(), self.reactors.clone());
        let id = self.id;
        let announce = move |control: &mut Control| control.blk.connected(id, handle, &shown);
        // If nobody listens any more, the daemon is ending and this endpoint with it.
        let _ = self.inbox.send(Message::Run(Box::new(announce)));
        watch.connected();
        blk
    }
}

impl Control {
    /// Makes an endpoint and starts listening.
    ///
    /// # Errors
    /// -32602 with the errno's text and the reason, as SPDK. Nothing has changed then.
    pub(crate) fn add_blk_endpoint(&mut self, new: NewEndpoint) -> Result<(), RpcError> {
        let NewEndpoint {
            transport,
            settings,
            bdev_name,
        } = new;
        let (name, noun) = (settings.name.clone(), transport.noun());
        if self.blk.iter(transport).any(|it| it.settings.name == name) {
            let reason = format!("there is a {noun} `{name}` already");
            return Err(refused(Errno::EEXIST, reason));
        }
        let reactors = self.reactors_of(settings.cpumask.as_ref())?;
        let home = self.least_loaded_reactor(&reactors)?;
        let disk = match &bdev_name {
            Some(bdev) => Some(self.disk_for_blk(bdev, transport, &name)?),
            None => None,
        };
        let base = match transport {
            Transport::VfioUser => self.blk.vfu_base.clone(),
            Transport::VhostUser => self.blk.vhost_base.clone(),
        };
        let path = base.socket(&name)?;
        self.blk.last += 1;
        let id = EndpointId(self.blk.last);
        let coalescing = Coalescing::default();
        let shown = Arc::new(ArcSwap::from_pointee(Shown {
            disk: disk.as_ref().map(|disk| Arc::clone(&disk.bdev)),
            coalescing,
        }));
        let lcores = reactors.iter().map(ReactorHandle::lcore).collect();
        let source = Source {
            kind: transport.kind(),
            name: name.clone(),
            subsystem: None,
        };
        let maker = Maker {
            tap: Tap::new(source, self.inbox()),
            id,
            config: config(&settings, disk.as_ref(), &path, coalescing),
            shown: Arc::clone(&shown),
            reactors,
            inbox: self.inbox(),
        };
        let socket = listen(transport, &path, &home, maker)?;
        tracing::info!(
            endpoint = %path.display(),
            bdev = bdev_name.as_deref().unwrap_or("none"),
            lcore = home.lcore(),
            "listening for clients of a virtio-blk device"
        );
        self.blk.endpoints.push(BlkEndpoint {
            id,
            transport,
            settings,
            coalescing,
            base,
            lcores,
            home,
            socket,
            disk,
            shown,
            client: None,
            sessions: 0,
            deleting: false,
        });
        Ok(())
    }

    /// The reactors on a mask's processors.
    fn reactors_of(&self, cpumask: Option<&CpuMask>) -> Result<Vec<ReactorHandle>, RpcError> {
        let Some(mask) = cpumask else {
            return Ok(self.reactors.clone());
        };
        let on = |cpu: &u32| self.reactors.iter().find(|it| it.lcore() == *cpu).cloned();
        let found: Vec<_> = mask.cpus().iter().filter_map(on).collect();
        if found.len() == mask.cpus().len() {
            return Ok(found);
        }
        let all: Vec<_> = self
            .reactors
            .iter()
            .map(|it| it.lcore().to_string())
            .collect();
        let reason = format!(
            "cpumask {mask} names processors without a reactor: there are reactors on [{}] (vtarget serve -m)",
            all.join(",")
        );
        Err(refused(Errno::EINVAL, reason))
    }
}

impl VirtioBlk {
    /// A client got its device, which was made with this.
    fn connected(&mut self, id: EndpointId, handle: BlkHandle, made_with: &Arc<Shown>) {
        // The former client's number is free, whatever the socket says of the new one.
        if let Some(endpoint) = self.with_id(id) {
            endpoint.client = None;
        }
        let vid = self.free_vid();
        let Some(endpoint) = self.with_id(id) else {
            return;
        };
        tracing::debug!(endpoint = %endpoint.path().display(), "a client has connected");
        let shown = endpoint.shown.load_full();
        if !Arc::ptr_eq(&shown, made_with) {
            // It was made just before something changed.
            handle.set_disk(shown.disk.clone(), Ack::with(|| {}));
            handle.set_coalescing(shown.coalescing);
        }
        let disk = made_with.disk.as_ref();
        let block_size = disk.map_or(SECTOR, |disk| disk.info().block_size);
        let session = endpoint.sessions;
        endpoint.sessions += 1;
        endpoint.client = Some(Client {
            handle,
            vid,
            session,
            block_size,
        });
    }

    fn free_vid(&self) -> u32 {
        let taken: Vec<u32> = self
            .endpoints
            .iter()
            .filter_map(|it| Some(it.client()?.vid))
            .collect();
        (0..).find(|vid| !taken.contains(vid)).unwrap_or_default()
    }

    /// Takes an endpoint's socket away; `ack` goes when its guest's I/O has ended.
    pub(crate) fn remove(&mut self, id: EndpointId, ack: Ack) {
        if let Some(endpoint) = self.with_id(id) {
            endpoint.socket.remove(ack);
        }
    }

    /// Whether a client is connected.
    pub(crate) fn is_connected(&self, id: EndpointId) -> bool {
        let mut endpoints = self.endpoints.iter();
        endpoints.any(|it| it.id == id && it.socket.is_connected())
    }

    /// Forgets an endpoint that is gone.
    pub(crate) fn forget(&mut self, id: EndpointId) {
        self.endpoints.retain(|it| it.id != id);
    }
}

impl BlkEndpoint {
    /// Allows no more changes; gives the number to go on with.
    pub(crate) fn delete(&mut self) -> EndpointId {
        self.deleting = true;
        self.id
    }

    /// Sets how interrupts are held back, for the present client and those to come.
    pub(crate) fn set_coalescing(&mut self, coalescing: Coalescing) {
        self.coalescing = coalescing;
        self.refresh();
        if let Some(client) = &self.client {
            client.handle.set_coalescing(coalescing);
        }
    }
}

fn config(
    settings: &Settings,
    disk: Option<&Shows>,
    path: &Path,
    coalescing: Coalescing,
) -> BlkConfig {
    BlkConfig {
        label: path.display().to_string(),
        serial: serial(disk.map_or(settings.name.as_str(), |disk| disk.name.as_str())),
        num_queues: settings.num_queues,
        queue_size: settings.queue_size,
        readonly: settings.readonly,
        packed: settings.packed_ring,
        coalescing,
        events: reactor::Observer::default(),
    }
}

/// What GET_ID tells: the bdev's name, as in SPDK, cut to what fits (VIRTIO 1.3, section 5.2.6: 20 bytes).
fn serial(name: &str) -> String {
    let end = (0..=name.len().min(20))
        .rev()
        .find(|at| name.is_char_boundary(*at));
    name[..end.unwrap_or(0)].to_owned()
}

/// Binds the socket and puts the endpoint onto its home reactor.
fn listen(
    transport: Transport,
    path: &Path,
    home: &ReactorHandle,
    maker: Maker,
) -> Result<Socket, RpcError> {
    match transport {
        Transport::VfioUser => {
            let listener =
                vfio_user::Listener::bind(path).map_err(|error| refused(error.errno(), error))?;
            let factory = move |cx: &mut Cx| {
                let blk = maker.make(cx);
                let pci = VirtioPciConfig {
                    label: maker.config.label.clone(),
                    // One for each queue, one for changes of the configuration.
                    msix_vectors: maker.config.num_queues.saturating_add(1),
                    mappable_notify: true,
                };
                let function = VirtioPci::new(pci, Box::new(blk))?;
                Ok(Box::new(function) as Box<dyn pci::Function>)
            };
            let options = vfio_user::Options::default();
            let endpoint = vfio_user::Endpoint::start(listener, home, options, Box::new(factory));
            Ok(Socket::VfioUser(endpoint))
        }
        Transport::VhostUser => {
            let listener =
                vhost_user::Listener::bind(path).map_err(|error| refused(error.errno(), error))?;
            let factory = move |cx: &mut Cx| Ok(Box::new(maker.make(cx)) as Box<dyn Device>);
            let options = vhost_user::Options::default();
            let endpoint = vhost_user::Endpoint::start(listener, home, options, Box::new(factory));
            Ok(Socket::VhostUser(endpoint))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::serial;

    #[test]
    fn serials_fit() {
        assert_eq!(serial("Malloc0"), "Malloc0");
        assert_eq!(serial(&"x".repeat(40)), "x".repeat(20));
        assert_eq!(serial(&"ä".repeat(11)), "ä".repeat(10));
        assert_eq!(
            serial(&format!("x{}", "ä".repeat(11))),
            format!("x{}", "ä".repeat(9))
        );
        assert_eq!(serial(""), "");
    }
}
