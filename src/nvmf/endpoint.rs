//! Endpoints: a socket, and a controller for each client.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use nvme::{Controller, ControllerConfig, Masked};
use reactor::{Ack, Observer, ReactorHandle};
use rpc::RpcError;
use vfio_user::{Endpoint, Listener as Socket, Options};

use super::{Address, AnaState, AnaStates, Listener, ListenerId, Transport, View};
use crate::control::{Control, Message};
use crate::events::{Source, Tap};

/// Name of the socket in the endpoint's directory.
const SOCKET: &str = "cntrl";

/// What `nvmf_subsystem_add_listener` says.
pub(crate) struct NewListener {
    pub(crate) address: Address,
    pub(crate) ana_state: Option<AnaState>,
    /// NQN of the host behind the socket.
    pub(crate) host: Option<String>,
    pub(crate) numa_id: i32,
    pub(crate) secure_channel: bool,
}

impl Control {
    /// Makes an endpoint and starts listening.
    ///
    /// # Errors
    /// -32602, as SPDK, with the reason. Nothing has changed then.
    pub(crate) fn add_listener(&mut self, nqn: &str, new: NewListener) -> Result<(), RpcError> {
        let Some(transport) = self.nvmf.transport.clone() else {
            let reason =
                "there is no transport yet, call nvmf_create_transport trtype=VFIOUSER first";
            return Err(RpcError::invalid_params(reason));
        };
        let home = self.least_loaded_reactor(&self.reactors)?;
        let reactors = self.reactors.clone();
        let inbox = self.inbox();
        self.nvmf.last_listener += 1;
        let id = ListenerId(self.nvmf.last_listener);

        let taken = self.nvmf.listener_at(&new.address.traddr);
        if let Some(owner) = taken {
            let reason = format!("{} is an endpoint of {owner} already", new.address.traddr);
            return Err(RpcError::invalid_params(reason));
        }
        let subsystem = self.nvmf.find_mut(nqn)?;
        let directory = Path::new(&new.address.traddr);
        if !directory.is_dir() {
            let reason = format!(
                "{} is not a directory: create it first",
                directory.display()
            );
            return Err(RpcError::invalid_params(reason));
        }
        let options = &subsystem.options;
        let used: BTreeSet<u16> = subsystem.listeners.iter().map(|it| it.cntlid).collect();
        let cntlid = (options.min_cntlid..=options.max_cntlid)
            .find(|cntlid| !used.contains(cntlid))
            .ok_or_else(|| {
                RpcError::invalid_params(format!(
                    "all controller IDs of {nqn} ({}-{}) are in use: each endpoint needs one",
                    options.min_cntlid, options.max_cntlid
                ))
            })?;
        let config = controller_config(options, &transport, cntlid, &new.address.traddr);
        let socket = Socket::bind(&directory.join(SOCKET)).map_err(RpcError::invalid_params)?;

        let view = View::new(new.host, AnaStates::new(new.ana_state));
        subsystem.refresh_view(&view);
        let (shown, admits) = (Arc::clone(&view.shown), Arc::clone(&view.admits));
        let host = view.host_nqn().to_owned();
        let source = Source {
            kind: "nvme",
            name: new.address.traddr.clone(),
            subsystem: Some(nqn.to_owned()),
        };
        let tap = Tap::new(source, inbox.clone());
        let factory = move |cx: &mut reactor::Cx| {
            if !admits.load(Ordering::Acquire) {
                return Err(not_admitted(&config.subnqn, &host).into());
            }
            let namespaces = shown.load_full();
            let watch = tap.client();
            let config = ControllerConfig {
                events: Arc::clone(&watch).of_nvme(),
                ..config.clone()
            };
            let (controller, handle) =
                Controller::new(cx, config, Arc::clone(&namespaces), reactors.clone())?;
            // If nobody listens any more, the daemon is ending and this endpoint with it.
            let _ = inbox.send(Message::Connected {
                listener: id,
                controller: handle,
                namespaces,
            });
            watch.connected();
            Ok(Box::new(controller) as Box<dyn pci::Function>)
        };
        let endpoint = Endpoint::start(socket, &home, Options::default(), Box::new(factory));
        tracing::info!(
            nqn,
            endpoint = new.address.traddr,
            lcore = home.lcore(),
            "listening"
        );
        subsystem.listeners.push(Listener {
            id,
            address: new.address,
            view,
            numa_id: new.numa_id,
            secure_channel: new.secure_channel,
            cntlid,
            home,
            endpoint,
            controller: None,
            connections: 0,
        });
        Ok(())
    }

    /// Of these reactors, the one that is home to the fewest endpoints.
    pub(crate) fn least_loaded_reactor(
        &self,
        reactors: &[ReactorHandle],
    ) -> Result<ReactorHandle, RpcError> {
        let load = |reactor: &ReactorHandle| {
            let listeners = self.nvmf.subsystems.iter().flat_map(|it| &it.listeners);
            let homes = listeners.filter(|it| it.home.lcore() == reactor.lcore());
            homes.count() + self.blk.homes_on(reactor.lcore())
        };
        let least = reactors.iter().min_by_key(|reactor| load(reactor));
        least
            .cloned()
            .ok_or_else(|| RpcError::internal("there is no reactor"))
    }
}

impl super::Subsystem {
    pub(crate) fn listener_at(&self, address: &Address) -> Option<usize> {
        let mut listeners = self.listeners.iter();
        listeners.position(|it| it.address.traddr == address.traddr)
    }

    /// Refuses an address at which the subsystem does not listen.
    ///
    /// # Errors
    /// -32602.
    pub(crate) fn check_listens(&self, address: &Address) -> Result<(), RpcError> {
        self.listener_at(address).map(drop).ok_or_else(|| {
            let (nqn, traddr) = (&self.options.nqn, &address.traddr);
            RpcError::invalid_params(format!("{nqn} does not listen at {traddr}"))
        })
    }

    /// Takes a listener away; `ack` goes when its guest's I/O has ended and its socket is gone.
    pub(crate) fn remove_listener(&mut self, address: &Address, ack: Ack) {
        if let Some(at) = self.listener_at(address) {
            self.listeners.remove(at).endpoint.remove(ack);
        }
    }

    /// Takes all listeners away and allows no more changes; `ack` goes when no guest's I/O is left.
    pub(crate) fn delete(&mut self, ack: Ack) {
        self.deleting = true;
        for listener in self.listeners.drain(..) {
            listener.endpoint.remove(ack.clone());
        }
    }
}

impl super::Nvmf {
    fn listener_at(&self, traddr: &str) -> Option<&str> {
        let owner = self.subsystems.iter().find(|subsystem| {
            let mut listeners = subsystem.listeners.iter();
            listeners.any(|it| Path::new(&it.address.traddr) == Path::new(traddr))
        });
        owner.map(|subsystem| subsystem.options.nqn.as_str())
    }
}

/// Why a client gets no controller, and what to do.
fn not_admitted(nqn: &str, host: &str) -> String {
    if host.is_empty() {
        format!(
            "{nqn} does not allow any host, and this listener's has no name: allow any with nvmf_subsystem_allow_any_host, or add the \
             listener with the `hostnqn` of a host that is allowed"
        )
    } else {
        format!("{nqn} does not allow host {host}: allow it with nvmf_subsystem_add_host")
    }
}

/// What the operator masked of the optional commands.
fn masked(transport: &Transport) -> Masked {
    let has = |name: &str| {
        let mut names = transport.masked_oncs.iter();
        names.any(|masked| masked == name || masked == "all")
    };
    Masked {
        compare: has("nvmcmps"),
        dataset_management: has("nvmdsmsv"),
        write_zeroes: has("nvmwzsv"),
    }
}

fn controller_config(
    options: &super::SubsystemOptions,
    transport: &Transport,
    cntlid: u16,
    label: &str,
) -> ControllerConfig {
    let max_io_queues = transport.max_io_qpairs_per_ctrlr;
    ControllerConfig {
        subnqn: options.nqn.clone(),
        serial_number: options.serial_number.clone(),
        model_number: options.model_number.clone(),
        cntlid,
        max_queue_depth: transport.max_queue_depth,
        max_io_queues,
        // One for the admin queue.
        msix_vectors: max_io_queues.saturating_add(1),
        max_transfer: transport.max_io_size,
        max_namespaces: options.max_namespaces,
        mappable_bar0: !transport.disable_mappable_bar0,
        shadow_doorbells: !transport.disable_shadow_doorbells,
        nssr: options.enable_nssr,
        shared: options.min_cntlid < options.max_cntlid,
        ana_reporting: options.ana_reporting,
        kas: transport.kas,
        masked: masked(transport),
        // Clones of the settings share it: a listener's clients come one after the other.
        history: Arc::default(),
        label: label.to_owned(),
        events: Observer::default(),
    }
}
